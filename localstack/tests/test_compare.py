"""The comparison finds a lost, a doubled and a swapped row, and nothing where nothing is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from firn_local.compare import compare
from firn_local.lake import LakeRow, Position
from firn_local.pgoutput import UNAVAILABLE
from firn_local.sourcelog import Change, Table

COPIED_AT = 100
TYPES = {"id": "long", "name": "string", "rating": "double"}


def source() -> Table:
    """Three rows when the witness looked, one of them changed before the copy, and a few changes after it."""
    table = Table(key=("id",), dump=[{"id": str(n), "name": f"n{n}", "rating": "1e-05"} for n in range(3)])
    table.changes = [
        Change("u", 90, 1, 9, {"id": "2", "name": UNAVAILABLE, "rating": "2"}),
        Change("c", 100, 1, 10, {"id": "3", "name": None, "rating": None}),
        Change("u", 110, 1, 11, {"id": "1", "name": UNAVAILABLE, "rating": "NaN"}),
        Change("u", 110, 2, 11, {"id": "1", "name": "b", "rating": "0.1"}),
        Change("d", 120, 2, 12, {"id": "3"}),
        Change("t", 130, 1, 13, {}),
    ]
    return table


def lake() -> list[LakeRow]:
    """What a faultless pipeline makes of it."""

    def copied(number: int, name: str, rating: str) -> LakeRow:
        position = Position(1, COPIED_AT, copy=(1, 0, number))
        return LakeRow("r", position, 8, 1, {"id": str(number), "name": name, "rating": rating})

    def changed(op: str, lsn: int, ordinal: int, when: int, *values: object) -> LakeRow:
        row = dict(zip(("id", "name", "rating"), values, strict=True))
        return LakeRow(op, Position(1, lsn, ordinal=ordinal), when, 1, row)  # type: ignore[arg-type]

    return [
        copied(0, "n0", "1e-05"),
        copied(1, "n1", "1e-05"),
        copied(2, "n2", "2.0"),
        changed("c", 100, 1, 10, "3", None, None),
        changed("u", 110, 1, 11, "1", UNAVAILABLE, "nan"),
        changed("u", 110, 2, 11, "1", "b", "0.1"),
        changed("d", 120, 2, 12, "3", None, None),
    ]


def report_of(rows: list[LakeRow]):
    return compare("t", source(), COPIED_AT, rows, TYPES)


def test_faultless_lake_is_equal():
    report = report_of(lake())
    assert report.equal, report.details
    assert (report.copied, report.changed, report.found) == (3, 4, 7)


@pytest.mark.parametrize("index", range(7))
def test_lost_row_is_missing(index: int):
    rows = lake()
    del rows[index]
    report = report_of(rows)
    assert (report.missing, report.extra, report.differing) == (1, 0, 0)


@pytest.mark.parametrize("index", range(7))
def test_doubled_row_is_extra(index: int):
    rows = lake()
    rows.append(rows[index])
    report = report_of(rows)
    assert report.extra == 1
    assert not report.equal


def test_changes_of_a_key_in_the_wrong_order_differ():
    rows = lake()
    first, second = rows[4], rows[5]
    rows[4], rows[5] = replace(first, position=second.position), replace(second, position=first.position)
    assert report_of(rows).differing == 2


def test_change_at_a_place_that_the_log_does_not_have_is_missing_and_extra():
    rows = lake()
    rows[6] = replace(rows[6], position=Position(1, 120, ordinal=3))
    report = report_of(rows)
    assert (report.missing, report.extra) == (1, 1)


@pytest.mark.parametrize(
    ("index", "values"),
    [
        (4, {"id": "1", "name": None, "rating": "nan"}),
        (5, {"id": "1", "name": "b", "rating": "0.10000000000000002"}),
        (3, {"id": "3", "name": "", "rating": None}),
        (0, {"id": "0", "name": "n0"}),
    ],
    ids=["null for unavailable", "last bit of a float", "empty text for null", "column missing"],
)
def test_wrong_value_differs(index: int, values: dict[str, object]):
    rows = lake()
    rows[index] = replace(rows[index], values=values)  # type: ignore[arg-type]
    assert report_of(rows).differing == 1


def test_value_in_a_retired_column_differs():
    rows = lake()
    rows[0] = replace(rows[0], stray=("old",))
    assert report_of(rows).differing == 1


def test_wrong_commit_time_and_wrong_operation_differ():
    rows = lake()
    rows[3] = replace(rows[3], source_us=11)
    rows[5] = replace(rows[5], op="c")
    assert report_of(rows).differing == 2


def test_whole_old_row_may_fill_what_the_new_row_leaves_out():
    table = Table(key=("id",))
    new, old = {"id": "1", "name": UNAVAILABLE}, {"id": "1", "name": "kept"}
    table.changes = [Change("u", 200, 1, 5, new, old)]
    for value, equal in (("kept", True), (UNAVAILABLE, True), ("other", False), (None, False)):
        row = LakeRow("u", Position(1, 200, ordinal=1), 5, 1, {"id": "1", "name": value})
        assert compare("t", table, COPIED_AT, [row], {}).equal is equal


def late_table() -> tuple[Table, list[LakeRow]]:
    """A table that came with three changes, was captured from the second one on, and was copied before the fourth."""
    table = Table(key=("id",), late=True)
    table.changes = [
        Change("c", place, 1, 9, {"id": str(place), "name": "n", "rating": None}) for place in range(60, 100, 10)
    ]
    table.changes.append(Change("d", 110, 1, 9, {"id": "60"}))
    rows = [
        LakeRow("r", Position(1, COPIED_AT, copy=(2, 0, number)), 8, 1, {**change.row})
        for number, change in enumerate(table.changes[:4])
    ]
    rows += [
        LakeRow("c", Position(1, place, ordinal=1), 9, 1, {"id": str(place), "name": "n", "rating": None})
        for place in (70, 80, 90)
    ]
    rows.append(LakeRow("d", Position(1, 110, ordinal=1), 9, 1, {"id": "60", "name": None, "rating": None}))
    return table, rows


def test_late_table_is_equal_from_the_moment_at_which_it_was_captured():
    table, rows = late_table()
    report = compare("t", table, COPIED_AT, rows, TYPES)
    assert report.equal, report.details
    assert (report.copied, report.changed) == (4, 4)


@pytest.mark.parametrize("lost", [1, 5, 7])
def test_lost_copied_row_and_lost_change_of_a_late_table_are_missing(lost: int):
    table, rows = late_table()
    del rows[lost]
    assert compare("t", table, COPIED_AT, rows, TYPES).missing == 1


def test_table_that_is_not_late_has_no_change_before_its_copy():
    table, rows = late_table()
    table.late = False
    assert compare("t", table, COPIED_AT, rows, TYPES).extra == 3
