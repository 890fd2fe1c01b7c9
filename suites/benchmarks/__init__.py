"""Timings: by airspeed velocity (asv), and against gradients written by hand.

- `gradients.py`         what asv records a project's history of timings from
- `adjoints.py`          ten problems, each with its gradient in plain NumPy
- `against_adjoints.py`  every engine's gradients of them, timed side by side: a program of its own

asv imports this folder as the top-level package `benchmarks`, against whichever adbridge is installed
in its environment. Run it with ``asv run --launch-method spawn``: asv's fork server hangs on JAX.
"""
