# make demo    the whole story on a laptop: two models, a comparison, a report. Needs make and Python 3.11 or 3.12, nothing else
# make test    all quick tests     make test-full    slow proofs too     make check    style and types
# The first one called makes .venv (about 2 minutes); it is made again when pyproject.toml or constraints.txt change.
# Where tests use another Python: make test PYTHON=python3.12

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo test test-full check schema constraints clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for python in python3.11 python3.12 python3 python; do \
	$$python -c '$(SUPPORTED)' 2>/dev/null && echo $$python && break; done)

# Without a GPU the CPU build of torch: 200 MB instead of gigabytes. TORCH_INDEX= takes whatever pip's own index has.
CPU_TORCH := https://download.pytorch.org/whl/cpu
REACHABLE := import urllib.request; urllib.request.urlopen("$(CPU_TORCH)/torch/", timeout=5)
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null 2>&1 || { \
	$(PYTHON) -c '$(REACHABLE)' 2>/dev/null && echo --extra-index-url $(CPU_TORCH); })

TEST_ENV := HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=1 RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0
TYPED := $(addprefix platform/cluenet/,__init__.py errors.py records.py contracts.py registry.py config plugins.py recipe.py \
	problems.py steps.py fingerprint.py folders.py progress.py metrics listing.py planning.py summary.py)

demo: $(READY)
	$(BIN)/cluenet run recipes/quickstart_baseline.yaml
	$(BIN)/cluenet run recipes/quickstart.yaml --baseline recipes/quickstart_baseline.yaml
	$(BIN)/cluenet compare recipes/quickstart_baseline.yaml recipes/quickstart.yaml

test: $(READY)
	$(TEST_ENV) $(BIN)/python -m pytest -m "not slow" --durations=10

test-full: $(READY)
	@echo "All tests, slow proofs included: 30 to 60 minutes on 2 cores."
	$(TEST_ENV) $(BIN)/python -m pytest --durations=20

check: $(READY)
	$(BIN)/ruff check platform components tests
	$(BIN)/ruff format --check platform components tests
	$(BIN)/mypy $(TYPED)

schema: $(READY)
	$(BIN)/cluenet schema --output recipes/schema.json

# From an environment in which every test has passed. Nothing local goes in, nor the mark of the CPU build.
constraints: $(READY)
	{ sed '/^[^#]/,$$d' constraints.txt; $(BIN)/pip freeze --exclude-editable \
		| grep -vE '^(#|-e )|@ file:' | sed -E 's/\+cpu$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or 3.12 with its venv module on PATH. Install one (Debian and Ubuntu:" \
		"apt install python3-venv), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH_INDEX) -c constraints.txt -e '.[dev]'
	touch $@
