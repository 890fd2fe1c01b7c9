"""Checks as JUnit XML: the format that CI systems read test results in.

The elements and attributes are those that Jenkins' schema (junit-10.xsd), GitLab and GitHub's readers share.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from adbridge.bench.store import Record
from adbridge.report.checks import Checked, described, outcome, platform_versions

# What XML 1.0 cannot hold, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(checked: Checked, path: Path) -> None:
    """One test case per record: a failure, an error, skipped (unsupported, or a known defect), or passed."""
    found = Counter(map(outcome, checked.records))
    counts = {"tests": str(found.total()), "failures": str(found["failure"]), "errors": str(found["error"])}
    counts["time"] = f"{checked.seconds:.3f}"
    started = datetime.now(UTC) - timedelta(seconds=checked.seconds)
    own = {"skipped": str(found["skipped"]), "timestamp": f"{started:%Y-%m-%dT%H:%M:%S}"}
    root = ET.Element("testsuites", {"name": "adbridge check", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _printable(f"adbridge check {checked.target}"), **counts, **own})
    _add_versions(suite, checked)
    seen: Counter[tuple[str, str]] = Counter()
    for record in checked.records:
        seen[names(checked, record)] += 1
        _add_case(suite, checked, record, seen[names(checked, record)])
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _add_versions(suite: ET.Element, checked: Checked) -> None:
    properties = ET.SubElement(suite, "properties")
    for name, version in {**platform_versions(), **checked.versions}.items():
        ET.SubElement(properties, "property", name=name, value=_printable(version))


def _add_case(suite: ET.Element, checked: Checked, record: Record, number: int) -> None:
    """`number` counts the records of one name: readers take two cases of one name for one."""
    group, name = names(checked, record)
    name += f" ({number})" if number > 1 else ""
    case = ET.SubElement(suite, "testcase", classname=_printable(group), name=_printable(name))
    if (seconds := record.get("seconds")) is not None:
        case.set("time", f"{seconds:.3f}")
    if (found := outcome(record)) != "passed":
        said = ET.SubElement(case, found, type=str(record["verdict"]), message=_printable(described(record)))
        said.text = _printable("\n\n".join(filter(None, [described(record), record.get("snippet")])))
    elif record["verdict"] != "agree":
        ET.SubElement(case, "system-out").text = _printable(described(record))


def names(checked: Checked, record: Record) -> tuple[str, str]:
    """``("textbook.cubic", "jax grad, n=1, m=1")``: the group that a record belongs to, and its name in it."""
    target = checked.target.replace(":", ".")
    parts = [str(record.get(key) or "") for key in ("backend", "operator", "mode", "check")]
    name = " ".join(filter(None, parts)) or "check"
    sizes = [f"{key}={record[key]}" for key in ("n", "m") if key in record]
    extra = [*sizes, *(str(record.get(key) or "") for key in ("dtype", "point"))]
    place = (record.get("suite") or target, record.get("problem") or record.get("case"))
    return ".".join(filter(None, place)), ", ".join(filter(None, [name, *extra]))


def _printable(text: str) -> str:
    """Without what XML cannot hold: control characters as they are written in Python."""
    return _FORBIDDEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
