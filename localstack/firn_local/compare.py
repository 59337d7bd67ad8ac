"""Compares one table change for change: what the source log says against the rows of the lake. Pure.

Flow: `sourcelog.Table` + `lake.LakeRow`s -> here -> `Report`.

Always holds: rows meet by position (stream) or by key (copy), never by order of reading, so that a lost, a doubled and
a swapped row each show. That every change stands at its own position of the log is the order of each key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .lake import LakeRow
from .pgoutput import UNAVAILABLE, Value
from .render import same_text
from .sourcelog import Change, Row, Table, format_lsn


@dataclass
class Report:
    """How many rows were wanted and found, and what was wrong."""

    name: str
    copied: int = 0
    changed: int = 0
    found: int = 0
    missing: int = 0
    extra: int = 0
    differing: int = 0
    details: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether the lake holds exactly what it must."""
        return self.missing == self.extra == self.differing == 0

    def lacks(self, what: str) -> None:
        """A row that the lake must hold and does not."""
        self.missing += 1
        self.details.append(f"missing: {what}")

    def has_extra(self, what: str) -> None:
        """A row that the lake holds and must not, or holds twice."""
        self.extra += 1
        self.details.append(f"extra: {what}")

    def differs(self, what: str, why: Iterable[str]) -> None:
        """A row that is there and not right."""
        self.differing += 1
        self.details.append(f"differing: {what}: {'; '.join(why)}")


def compare(name: str, table: Table, copied_at: int, rows: list[LakeRow], types: dict[str, str]) -> Report:
    """Holds the lake's rows of a table against its dump and its log; `types` are lake types by source column name."""
    comparison = Comparison(name, replace(table, changes=[]), copied_at, types)
    comparison.stream(table.changes, [row for row in rows if row.position.copy is None])
    return comparison.end([row for row in rows if row.position.copy is not None])


class Comparison:
    """The same in pieces: log and lake of one stretch of positions after the other, then the copied rows."""

    def __init__(self, name: str, table: Table, copied_at: int, types: dict[str, str]) -> None:
        self._table, self._copied_at, self._types = table, copied_at, types
        self._report = Report(name)
        self._incarnations: set[int] = set()
        self._since = (copied_at, 0)

    def stream(self, changes: list[Change], rows: list[LakeRow]) -> None:
        """A stretch of the log, and the streamed rows of the lake that lie in it."""
        self._see(rows)
        # What happened before the copy is in it.
        self._table.changes += [change for change in changes if change.commit_lsn < self._copied_at]
        if self._table.late:
            # Of its changes before the copy, all from the first one in the lake on.
            self._since = min([self._since, *((row.position.commit_lsn, row.position.ordinal or 0) for row in rows)])
        later = [c for c in changes if (c.commit_lsn, c.ordinal) >= self._since and c.op != "t"]
        _compare_stream(self._report, later, rows, self._types)

    def end(self, copied: list[LakeRow]) -> Report:
        """The copied rows; gives the report."""
        self._see(copied)
        _compare_copy(self._report, self._table, self._copied_at, copied, self._types)
        if len(self._incarnations) > 1:
            self._report.differs("all rows", [f"{len(self._incarnations)} incarnations of the log"])
        return self._report

    def _see(self, rows: list[LakeRow]) -> None:
        self._report.found += len(rows)
        self._incarnations |= {row.position.incarnation for row in rows}


def _compare_copy(report: Report, table: Table, copied_at: int, rows: list[LakeRow], types: dict[str, str]) -> None:
    expected = table.rows_at(copied_at)
    report.copied = len(expected)
    for position, count in Counter(row.position for row in rows).items():
        if count > 1:
            report.differs(f"copied row {position.copy}", [f"{count} rows with one position"])
    waiting: dict[tuple[Value, ...], list[LakeRow]] = {}
    for row in rows:
        waiting.setdefault(_identity(table, row.values, types), []).append(row)
    for wanted in expected:
        candidates = waiting.get(_identity(table, wanted, types))
        if not candidates:
            report.lacks(f"copied row {_identity(table, wanted, {})}")
            continue
        row = candidates.pop()
        why = _differences(wanted, None, row, types)
        if row.op != "r":
            why.append(f"operation {row.op} instead of r")
        if row.position.commit_lsn != copied_at:
            why.append("copied at another position")
        if why:
            report.differs(f"copied row {row.position.copy}", why)
    for rest in waiting.values():
        for row in rest:
            report.has_extra(f"copied row {row.position.copy}")


def _identity(table: Table, row: Row, types: dict[str, str]) -> tuple[Value, ...]:
    """The key of a row, or the whole row where there is no key, with floats in one spelling."""
    names = table.key or tuple(sorted(row))
    return tuple(_spelled(row.get(name), types.get(name, "")) for name in names)


def _spelled(value: Value, column_type: str) -> Value:
    return repr(float(value)) if isinstance(value, str) and column_type in ("float", "double") else value


def _compare_stream(report: Report, changes: list[Change], rows: list[LakeRow], types: dict[str, str]) -> None:
    expected = {(change.commit_lsn, change.ordinal): change for change in changes}
    report.changed += len(expected)
    found: dict[tuple[int, int], list[LakeRow]] = {}
    for row in rows:
        found.setdefault((row.position.commit_lsn, row.position.ordinal or 0), []).append(row)
    for place, change in expected.items():
        candidates = found.pop(place, [])
        where = f"{change.op} at {format_lsn(place[0])} change {place[1]}"
        if not candidates:
            report.lacks(where)
            continue
        for _again in candidates[1:]:
            report.has_extra(f"{where}, once more")
        why = _change_differences(change, candidates[0], types)
        if why:
            report.differs(where, why)
    for place, rest in found.items():
        for row in rest:
            report.has_extra(f"{row.op} at {format_lsn(place[0])} change {place[1]}")


def _change_differences(change: Change, row: LakeRow, types: dict[str, str]) -> list[str]:
    wanted = change.row
    if change.op == "d":
        # A delete holds what the log has; the rest of the row is null.
        wanted = {name: change.row.get(name) for name in row.values} | change.row
    why = _differences(wanted, change.before, row, types)
    if row.op != change.op:
        why.append(f"operation {row.op}")
    if row.source_us != change.commit_us:
        why.append(f"commit time {row.source_us} instead of {change.commit_us}")
    return why


def _differences(wanted: Row, before: Row | None, row: LakeRow, types: dict[str, str]) -> list[str]:
    why = [f"lake column {name} holds a value" for name in row.stray]
    if set(wanted) != set(row.values):
        return [*why, f"columns {sorted(row.values)} instead of {sorted(wanted)}"]
    for name, value in wanted.items():
        got = row.values[name]
        # The log leaves an unchanged TOAST value out of the new row; the whole old row may still hold it.
        if value is UNAVAILABLE and got is not UNAVAILABLE and before is not None:
            value = before[name]
        if not _same(value, got, types.get(name, "")):
            why.append(f"column {name} is {_shown(got)} instead of {_shown(value)}")
    return why


def _same(left: Value, right: Value, column_type: str) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return same_text(column_type, left, right)
    return left is right


def _shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
