"""Who is right.

- `verdict.py`     the verdicts, and results compared with a known answer or with each other
- `referee.py`     what a derivative is, from values of the function alone    - `oracle/`      how it finds out
- `judging.py`     a result of an engine against the referee                  - `judgement/`   entry by entry
- `crosscheck.py`  every engine against the referee and each other            - `comparison/`  rows, text, scripts
- `check_rule.py`  a derivative rule against all that it owes                 - `rule_checks/` check by check
- `atlas.py`       what engines make of special points                        - `special_points/`
- `ledger.py`      the known defects of engines
"""
