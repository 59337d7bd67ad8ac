"""Source log against lake, change for change, over all tables; and two readers against each other.

Flow: `sourcelog.Expectation` + `lake.Lake` -> `compare` -> counts on the terminal, details in `differences.txt`.

Always holds: the console shows names, counts and positions; values stand only in the file beside the logs.
"""

from __future__ import annotations

from pathlib import Path

from .agreement import disagreements
from .compare import Report, compare, copy_lsn
from .lake import Lake, LakeRow, LakeTable, connect_duckdb
from .sourcelog import Change, Expectation, Table, TableName

EVENTS: TableName = ("firn", "events")
SHOWN_DETAILS = 5


def verify(expected: Expectation, lake: Lake, endpoint: str, folder: Path) -> bool:
    """Compares everything and prints the counts; gives whether all is equal."""
    stand_in = _with_events(expected)
    tables = lake.tables()
    rows = {name: lake.rows(table) for name, table in tables.items()}
    copied_at = {name: copy_lsn(found) for name, found in rows.items()}
    every = set().union(*copied_at.values())
    reports = []
    for name, table in sorted(stand_in.items()):
        wanted_anything = bool(table.changes or table.dump)
        if name not in tables:
            if wanted_anything:
                reports.append(Report(".".join(name), missing=1, details=["missing: the whole table"]))
            continue
        places = copied_at[name] or every or {0}
        types = _types(lake, tables[name], rows[name])
        report = compare(".".join(name), table, max(places), rows[name], types)
        if len(places) > 1 and copied_at[name]:
            report.differs("copied rows", [f"{len(places)} copy positions"])
        reports.append(report)
    readers = _reader_disagreements(lake, tables, endpoint)
    _print(reports, readers, folder)
    return all(report.equal for report in reports) and not readers


def _with_events(expected: Expectation) -> dict[TableName, Table]:
    """The tables, and beside them firn's own table of events with a row for each truncated table."""
    events = Table(key=())
    for event in expected.truncates:
        row = {
            "event": "truncate",
            "table_schema": event.schema,
            "table_name": event.table,
            "cascade": "t" if event.cascade else "f",
            "restart_identity": "t" if event.restart_identity else "f",
            "transaction_id": str(event.xid),
        }
        events.changes.append(Change("c", event.commit_lsn, event.ordinal, event.commit_us, row))
    return {**expected.tables, EVENTS: events}


def _types(lake: Lake, table: LakeTable, rows: list[LakeRow]) -> dict[str, str]:
    """Lake type by source column name; a name that had several types over time is compared as text."""
    types: dict[str, set[str]] = {}
    for version in {row.version for row in rows}:
        for name, kind in lake.column_types(table, version).items():
            types.setdefault(name, set()).add(kind)
    return {name: kinds.pop() if len(kinds) == 1 else "" for name, kinds in types.items()}


def _reader_disagreements(lake: Lake, tables: dict[TableName, LakeTable], endpoint: str) -> list[str]:
    found = []
    with connect_duckdb(endpoint) as connection:
        for name, table in sorted(tables.items()):
            differences = disagreements(lake.arrow(table), connection, table.metadata_location)
            found += [f"{'.'.join(name)}: {difference}" for difference in differences]
    return found


def _print(reports: list[Report], readers: list[str], folder: Path) -> None:
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
