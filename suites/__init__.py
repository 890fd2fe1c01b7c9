"""The built-in suites: name -> module. A suite module holds `SUITE`; a problem is one entry in it."""

from __future__ import annotations

if __name__ != "adbridge.suites":
    raise ImportError(
        f"this package was imported as {__name__!r}; import it as 'adbridge.suites', "
        "so that there is one table of suites"
    )

BUILTIN: dict[str, str] = {
    "textbook": "adbridge.suites.textbook",
    "elementary": "adbridge.suites.elementary",
    "linalg": "adbridge.suites.linalg",
    "scaling": "adbridge.suites.scaling",
    "adbench": "adbridge.suites.adbench",
    "quick": "adbridge.suites.quick",
}

# Suites of special points, which `adbridge check` runs: no one answer, nothing to time.
CHECKED: dict[str, str] = {"conventions": "adbridge.suites.conventions"}
