"""Source log against lake, change for change, over all tables; and two readers against each other.

Flow: `sourcelog.SourceLog`, read once, + `lake.Lake` -> `compare` -> counts on the terminal, `differences.txt`.

Always holds: log and lake are walked side by side in the order of positions, so that the Python objects at a time do
not grow in number with the log; the console shows names, counts and positions; values stand only in the file beside the
logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .agreement import disagreements
from .compare import Comparison, Report
from .lake import Content, Lake, LakeTable, connect_duckdb
from .sourcelog import EVENTS, SourceLog, Table, TableName

SHOWN_DETAILS = 5
# Rows of Python objects that are held at a time.
CHANGES_OF_A_WINDOW = 50_000


def verify(log: SourceLog, lake: Lake, endpoint: str, folder: Path) -> Verdict:
    """Compares everything and prints the counts."""
    found = lake.tables()
    contents = {name: lake.content(table) for name, table in found.items()}
    copied_at = {name: content.copy_places() for name, content in contents.items()}
    # Where all tables but the late ones were copied, also those that had no row then.
    first = min(set().union(*copied_at.values()), default=0)
    comparisons = {}
    for name, content in contents.items():
        types = _types(lake, found[name], content.versions())
        table = log.tables.setdefault(name, Table(key=(), late=name != EVENTS))
        comparisons[name] = Comparison(".".join(name), table, max(copied_at[name] or {first}), types)
    absent = {name for name, table in log.tables.items() if table.dump} - set(contents)
    for window in log.windows(CHANGES_OF_A_WINDOW):
        absent |= set(window.changes) - set(contents)
        for name, content in contents.items():
            comparisons[name].stream(window.changes.get(name, []), content.take(window.end_lsn))
    reports = [Report(".".join(name), missing=1, details=["missing: the whole table"]) for name in sorted(absent)]
    for name, content in sorted(contents.items()):
        comparisons[name].stream([], content.take(None))
        report = comparisons[name].end(content.copied())
        if len(copied_at[name]) > 1:
            report.differs("copied rows", [f"{len(copied_at[name])} copy positions"])
        reports.append(report)
    readers = _reader_disagreements(contents, found, endpoint)
    return _print(reports, readers, folder)


@dataclass(frozen=True)
class Verdict:
    """What came out: all tables in one report, and whether all is equal."""

    total: Report
    equal: bool


def _types(lake: Lake, table: LakeTable, versions: list[int]) -> dict[str, str]:
    """Lake type by source column name; a name that had several types over time is compared as text."""
    types: dict[str, set[str]] = {}
    for version in versions:
        for name, kind in lake.column_types(table, version).items():
            types.setdefault(name, set()).add(kind)
    return {name: kinds.pop() if len(kinds) == 1 else "" for name, kinds in types.items()}


def _reader_disagreements(
    contents: dict[TableName, Content], tables: dict[TableName, LakeTable], endpoint: str
) -> list[str]:
    found = []
    with connect_duckdb(endpoint) as connection:
        for name, content in sorted(contents.items()):
            differences = disagreements(content.arrow, connection, tables[name].metadata_location)
            found += [f"{'.'.join(name)}: {difference}" for difference in differences]
    return found


def _print(reports: list[Report], readers: list[str], folder: Path) -> Verdict:
    width = max(len(report.name) for report in reports)
    heads = ("copied", "changed", "found", "missing", "extra", "differing")
    print(f"{'table':{width}} " + " ".join(f"{head:>9}" for head in heads))
    total = Report("all")
    for report in reports:
        for head in heads:
            setattr(total, head, getattr(total, head) + getattr(report, head))
    for report in [*reports, total]:
        print(f"{report.name:{width}} " + " ".join(f"{getattr(report, head):>9}" for head in heads))
    for report in reports:
        for detail in report.details[:SHOWN_DETAILS]:
            kind, _colon, what = detail.partition(": ")
            print(f"  {report.name}: {kind}: {what.split(':')[0]}")
    for difference in readers:
        print(f"  readers disagree: {difference}")
    wrong = [f"{report.name}: {detail}" for report in reports for detail in report.details] + readers
    (folder / "differences.txt").write_text("".join(f"{line}\n" for line in wrong))
    if wrong:
        print(f"all {len(wrong)} differences: {folder / 'differences.txt'}")
    print("PyIceberg and DuckDB agree on every table" if not readers else "the readers disagree")
    print("EQUAL: the lake holds the source log, change for change" if not wrong else "NOT EQUAL")
    return Verdict(total, not wrong)
