# Two commands do everything, from a fresh clone, with Python 3.11 or 3.12 and make: `make demo` and `make test`.
SHELL := /bin/bash
PYTHON := $(shell for p in python3.11 python3.12 python3 python; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && { command -v $$p; break; }; done)
BIN    := .venv/bin
READY  := .venv/.ready
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-full test-gpu bench bench-full check schema setup

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed and is not on PATH"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(READY)

demo: setup  ## the quickstart and its baseline, end to end
	$(BIN)/cluenet run recipes/quickstart_baseline.yaml recipes/quickstart.yaml --baseline recipes/quickstart_baseline.yaml
	$(BIN)/cluenet compare recipes/quickstart_baseline.yaml recipes/quickstart.yaml

# A process per tier: Ray and components that tests register stay out of the others. Without Ray two of them share the files.
FAST := "tests/test_architecture.py tests/test_recipes.py tests/test_reference.py" tests/unit tests/components tests/training tests/browser
RAY := tests/distributed tests/end_to_end
TIERS := $(FAST) $(RAY)
SHARED := --numprocesses 2 --dist loadfile

test: setup  ## all tests but the slow proofs; the tiers with Ray, which wait for processes to start, side by side
	for tier in $(FAST); do $(BIN)/python -m pytest $$tier -m "not slow" $(SHARED) || exit 1; done
	$(MAKE) --no-print-directory --jobs=2 --output-sync=line $(RAY)

.PHONY: $(RAY)
$(RAY): setup
	$(BIN)/python -m pytest $@ -m "not slow"

test-full: setup  ## the slow proofs too
	@echo "All tests, the slow proofs included: about 25 minutes on 2 idle cores after the set-up (a sum of parts)."
	for tier in $(TIERS); do $(BIN)/python -m pytest $$tier --timeout 3600 || exit 1; done

test-gpu: setup  ## the model on a GPU, and its speed there; says what it skips where there is none
	$(BIN)/python -m pytest tests/gpu tests/bench/bench_gpu.py -rs --benchmark-quiet

BENCH := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --timeout 3600 --benchmark-quiet
SPEED := decode prepare engine pruning training features evaluate startup

bench: setup  ## measurements, which are no tests, in at most 20 minutes, and a table of them; they want an idle machine
	$(BENCH) $(SPEED:%=tests/bench/bench_%.py)

bench-full: setup  ## those of serving, grids, reports and scale too: about 35 minutes, a sum of parts
	$(BENCH) tests/bench/bench_*.py --minutes 60

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy platform/cluenet/{errors,records,verdicts,contracts,registry,steps,plugins,recipe,problems,fingerprint,folders,progress}.py platform/cluenet/config platform/cluenet/metrics

schema: setup
	$(BIN)/cluenet schema -o recipes/schema.json
	$(BIN)/python -m cluenet.reference docs/recipe_reference.md
