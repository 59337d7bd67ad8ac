"""The whole comparison says so, and gives the exit code, when one row is lost, doubled or swapped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from firn_local import verify as verification
from firn_local.demo import exit_code
from firn_local.lake import LakeRow, LakeTable, Position
from firn_local.pgoutput import Relation, RowChange, Transaction, Truncate
from firn_local.sourcelog import EVENTS, SourceLog, Table, TableName
from firn_local.verify import verify

ITEMS: TableName = ("public", "item")


class Rows:
    """The rows of a table, held in memory."""

    def __init__(self, rows: list[LakeRow]) -> None:
        self.arrow = None
        self._copied = [row for row in rows if row.position.copy is not None]
        self._streamed = [row for row in rows if row.position.copy is None]

    def versions(self) -> list[int]:
        return [1]

    def copy_places(self) -> set[int]:
        return {row.position.commit_lsn for row in self._copied}

    def copied(self) -> list[LakeRow]:
        return self._copied

    def take(self, end_lsn: int | None) -> list[LakeRow]:
        taken = [row for row in self._streamed if end_lsn is None or row.position.commit_lsn <= end_lsn]
        self._streamed = [row for row in self._streamed if row not in taken]
        return taken


class StandIn:
    """A lake held in memory."""

    def __init__(self, rows: dict[TableName, list[LakeRow]]) -> None:
        self._rows = rows

    def tables(self) -> dict[TableName, LakeTable]:
        return {name: LakeTable(name, name[1], name[1], "shop", "") for name in self._rows}

    def content(self, table: LakeTable) -> Rows:
        return Rows(self._rows[table.name])

    def column_types(self, _table: LakeTable, _version: int) -> dict[str, str]:
        return {"id": "int", "name": "string"}


def source() -> SourceLog:
    table = Table(key=("id",), dump=[{"id": "1", "name": "a"}])
    relation = Relation(1, *ITEMS, "d", ("id", "name"), (True, False))
    log = [
        Transaction(50, 5, 7, [RowChange("U", relation, None, False, ["1", "b"])]),
        Transaction(60, 6, 8, [RowChange("U", relation, None, False, ["1", "c"])]),
        Transaction(70, 7, 9, [Truncate([relation], False, True)]),
    ]
    return SourceLog({ITEMS: table}, lambda: log)


def faultless() -> dict[TableName, list[LakeRow]]:
    event = {
        "event": "truncate",
        "table_schema": "public",
        "table_name": "item",
        "cascade": "f",
        "restart_identity": "t",
        "transaction_id": "9",
    }
    return {
        ITEMS: [
            LakeRow("r", Position(1, 40, copy=(1, 0, 0)), 4, 1, {"id": "1", "name": "a"}),
            LakeRow("u", Position(1, 50, ordinal=1), 5, 1, {"id": "1", "name": "b"}),
            LakeRow("u", Position(1, 60, ordinal=1), 6, 1, {"id": "1", "name": "c"}),
        ],
        EVENTS: [LakeRow("c", Position(1, 70, ordinal=1), 7, 1, dict(event))],
    }


def lose(rows: list[LakeRow]) -> None:
    del rows[1]


def double(rows: list[LakeRow]) -> None:
    rows.append(rows[1])


def swap(rows: list[LakeRow]) -> None:
    rows[1], rows[2] = (
        replace(rows[1], position=rows[2].position),
        replace(rows[2], position=rows[1].position),
    )


def spoil_nothing(_rows: list[LakeRow]) -> None:
    pass


@pytest.mark.parametrize("changes_of_a_window", [1, 50_000])
@pytest.mark.parametrize(
    ("spoil", "code", "words"),
    [
        (spoil_nothing, 0, "EQUAL: the lake holds the source log"),
        (lose, 1, "missing: u at 0/32 change 1"),
        (double, 1, "extra: u at 0/32 change 1, once more"),
        (swap, 1, "differing: u at 0/32 change 1"),
    ],
)
def test_verdict(changes_of_a_window, spoil, code, words, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(verification, "_reader_disagreements", lambda *_arguments: [])
    monkeypatch.setattr(verification, "CHANGES_OF_A_WINDOW", changes_of_a_window)
    rows = faultless()
    spoil(rows[ITEMS])
    equal = verify(source(), StandIn(rows), "", tmp_path).equal  # type: ignore[arg-type]
    printed = capsys.readouterr().out
    assert exit_code(equal) == code
    assert words in printed
    assert ("NOT EQUAL" in printed) == (code == 1)


def test_lake_without_the_table_is_not_equal(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(verification, "_reader_disagreements", lambda *_arguments: [])
    rows = faultless()
    del rows[EVENTS]
    assert not verify(source(), StandIn(rows), "", tmp_path).equal  # type: ignore[arg-type]
    assert "missing: the whole table" in capsys.readouterr().out
