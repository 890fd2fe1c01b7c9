"""A mutation test of `ad.check_rule`: right rules that it must pass, and planted wrong ones that it must find.

- `rules.py`      the right rules: `elementwise.py`, `reductions.py`, `algebra.py`, `arrangements.py`, `models.py`
- `mutations.py`  ways of making a rule wrong
- `mutants.py`    the wrong rules, by class: `wrong_values.py`, `wrong_elsewhere.py`
- `peers.py`      the checkers: ours, and those of PyTorch, JAX and autograd
- `answers.py`    what each says of each rule

Run as ``python -m adbridge.suites.benchmarks.planted_rules``.
"""
