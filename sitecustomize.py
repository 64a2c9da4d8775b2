"""Makes a checkout importable where cluenet is not installed: inside a job, in the copy of this folder that Ray ships.

Ray puts that copy on PYTHONPATH of the driver and of every worker, and Python imports a module of this name from there before
anything else. So `ray job submit --working-dir . -- python -m cluenet run RECIPE` works as it stands, also on workers.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / name) for name in ("platform", "components")]
