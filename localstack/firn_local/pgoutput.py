"""A second, independent reader of PostgreSQL's logical replication messages, for checking the first one.

Flow: file written by `pg_recvlogical` -> here -> `sourcelog`.

Always holds: shares no code with the Rust decoder; anything that is not understood is an error.

Source: PostgreSQL manual, "Logical Replication Message Formats", protocol version 1. `pg_recvlogical` puts a newline
after each message.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field


class _Unavailable:
    """The value of an unchanged TOAST column, which the log does not hold."""

    def __repr__(self) -> str:
        return "<unavailable>"


UNAVAILABLE = _Unavailable()
Value = str | None | _Unavailable
Tuple = list[Value]


@dataclass(frozen=True)
class Relation:
    """A table as the log describes it at one place."""

    oid: int
    schema: str
    table: str
    identity: str
    columns: tuple[str, ...]
    key_flags: tuple[bool, ...]


@dataclass
class RowChange:
    """An insert, update or delete."""

    kind: str
    relation: Relation
    old: Tuple | None
    old_is_key: bool
    new: Tuple | None


@dataclass
class Truncate:
    """A TRUNCATE of one or more tables."""

    relations: list[Relation]
    cascade: bool
    restart_identity: bool


@dataclass
class Transaction:
    """A committed transaction; `commit_lsn` is where its commit record begins."""

    commit_lsn: int
    commit_us: int
    xid: int
    changes: list[RowChange | Truncate] = field(default_factory=list)


_TEXT, _NULL, _UNCHANGED = ord("t"), ord("n"), ord("u")
_EPOCH_2000_US = 946_684_800_000_000


class _Reader:
    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> int:
        value = struct.unpack_from(">" + form, self.data, self.at)[0]
        self.at += struct.calcsize(">" + form)
        return value

    def letter(self) -> str:
        return chr(self.take("B"))

    def text(self) -> str:
        end = self.data.find(b"\0", self.at)
        value = self.data[self.at : end].decode()
        self.at = end + 1
        return value

    def row(self) -> Tuple:
        # Written flat: a long run has tens of millions of values.
        values: Tuple = []
        data, at = self.data, self.at + 2
        for _column in range(int.from_bytes(data[self.at : at], "big")):
            kind = data[at]
            at += 1
            if kind == _TEXT:
                end = at + 4 + int.from_bytes(data[at : at + 4], "big")
                values.append(data[at + 4 : end].decode())
                at = end
            elif kind == _NULL:
                values.append(None)
            elif kind == _UNCHANGED:
                values.append(UNAVAILABLE)
            else:
                raise ValueError(f"unknown kind of value {chr(kind)!r} at byte {at}")
        self.at = at
        return values


def transactions(data: bytes | mmap.mmap) -> Iterator[Transaction]:
    """All transactions of a capture, in commit order."""
    reader, relations = _Reader(data), {}
    current: Transaction | None = None
    while reader.at < len(data):
        kind = reader.letter()
        if kind == "B":
            lsn, when, xid = reader.take("q"), reader.take("q"), reader.take("I")
            current = Transaction(lsn, when + _EPOCH_2000_US, xid)
        elif kind == "C":
            reader.take("B")
            commit_lsn, _end, _when = reader.take("q"), reader.take("q"), reader.take("q")
            if current is None or current.commit_lsn != commit_lsn:
                raise ValueError("a commit does not fit its begin")
            yield current
            current = None
        elif kind == "R":
            relation = _relation(reader)
            relations[relation.oid] = relation
        elif kind == "Y":
            reader.take("I"), reader.text(), reader.text()
        elif kind == "O":
            reader.take("q"), reader.text()
        elif kind in "IUDT" and current is not None:
            current.changes.append(_truncate(reader, relations) if kind == "T" else _change(kind, reader, relations))
        else:
            raise ValueError(f"unknown message {kind!r} at byte {reader.at - 1}")
        if reader.take("B") != 0x0A:
            raise ValueError(f"no newline after a message at byte {reader.at - 1}")
    if current is not None:
        raise ValueError("the capture ends inside a transaction")


def _relation(reader: _Reader) -> Relation:
    oid, schema, table, identity = reader.take("I"), reader.text(), reader.text(), reader.letter()
    names, flags = [], []
    for _column in range(reader.take("h")):
        flags.append(bool(reader.take("B") & 1))
        names.append(reader.text())
        reader.take("I"), reader.take("i")
    return Relation(oid, schema or "pg_catalog", table, identity, tuple(names), tuple(flags))


def _change(kind: str, reader: _Reader, relations: dict[int, Relation]) -> RowChange:
    relation = relations[reader.take("I")]
    old, old_is_key, new = None, False, None
    part = reader.letter()
    if part in "KO":
        old, old_is_key = reader.row(), part == "K"
        part = reader.letter() if kind == "U" else ""
    if part == "N":
        new = reader.row()
    return RowChange(kind, relation, old, old_is_key, new)


def _truncate(reader: _Reader, relations: dict[int, Relation]) -> Truncate:
    count, options = reader.take("i"), reader.take("B")
    tables = [relations[reader.take("I")] for _table in range(count)]
    return Truncate(tables, bool(options & 1), bool(options & 2))
