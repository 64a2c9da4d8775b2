"""Settings of all tests: nothing from the network, one torch thread per process, no time limits inside property tests."""

import os
from contextlib import suppress

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # tests compete with nobody

with suppress(ModuleNotFoundError):  # tests/gpu runs where little is installed
    from hypothesis import settings

    settings.register_profile("steady", deadline=None)  # a slow machine is not a failure
    settings.load_profile("steady")
