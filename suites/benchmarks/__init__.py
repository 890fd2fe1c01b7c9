"""Entry points of airspeed velocity (asv): what a project's history of timings is recorded from.

asv imports this folder as the top-level package `benchmarks`, against whichever adbridge is installed
in its environment. Run them with ``asv run --launch-method spawn``: asv's fork server hangs on JAX.
"""
