"""What the lake must hold, from the source alone: the log through a second slot, the tables at that slot's snapshot.

Flow: `Witness.open` before the agent starts -> workload -> `Witness.close` -> `SourceLog`.

Always holds: the witness's slot is older than the agent's copy, so that nothing can fall between; it is read by
`pg_recvlogical` and decoded by `pgoutput`, neither of which is ours to ship.

Source: PostgreSQL manual, "Streaming Replication Protocol" (CREATE_REPLICATION_SLOT … SNAPSHOT 'export'). A transaction
is streamed by a slot if its commit record begins at or after the slot's consistent point (snapbuild.c,
SnapBuildXactNeedsSkip); otherwise its rows are in the snapshot.
"""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from .paths import postgres_account
from .pgoutput import UNAVAILABLE, Relation, RowChange, Transaction, Truncate, Tuple, Value, transactions
from .processes import ServiceError
from .services import Postgres

SLOT = PUBLICATION = "witness"
# How the agent asks for text (crates/change-event/src/schema.rs, ColumnType).
SESSION = {
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "timezone": "UTC",
    "bytea_output": "hex",
}
PGOPTIONS = " ".join(f"-c {name}={value}" for name, value in SESSION.items())
TableName = tuple[str, str]
# firn's own table of events, with a row for each truncated table.
EVENTS: TableName = ("firn", "events")
Row = dict[str, Value]


def parse_lsn(text: str) -> int:
    """`16/B374D848` as a number."""
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def format_lsn(lsn: int) -> str:
    """A number as `16/B374D848`."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


@dataclass(frozen=True)
class Change:
    """One row change of the log: `c`, `u`, `d`, or `t` for a TRUNCATE of the table."""

    op: str
    commit_lsn: int
    ordinal: int
    commit_us: int
    row: Row
    """Values by source column name: the new row, or of a deleted row what the log has."""
    before: Row | None = None
    """The old row under REPLICA IDENTITY FULL."""


@dataclass
class Table:
    """A captured table: its rows at the witness's snapshot, and its changes since, in log order."""

    key: tuple[str, ...]
    dump: list[Row] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    late: bool = False
    """It came while the agent streamed: its changes are in the lake from the moment at which it was published."""

    def rows_at(self, lsn: int) -> list[Row]:
        """The rows that a snapshot at a consistent point sees: the dump, and every earlier change applied."""
        keyed = {self.key_of(row): row for row in self.dump} if self.key else {}
        loose = [] if self.key else list(self.dump)
        old: Row = {}
        for change in self.changes:
            if change.commit_lsn >= lsn:
                break
            if change.op == "t":
                keyed.clear()
                loose.clear()
            elif change.op == "d":
                # A key change is a delete and then an insert: what that leaves unavailable stood in the deleted row.
                old = keyed.pop(self.key_of(change.row), {}) if self.key else change.row
                if not self.key:
                    loose.remove(old)
            else:
                if change.op == "u":
                    old = keyed.pop(self.key_of(change.row), {}) if self.key else change.before or {}
                    if not self.key:
                        loose.remove(old)
                row = {name: old.get(name) if value is UNAVAILABLE else value for name, value in change.row.items()}
                if self.key:
                    keyed[self.key_of(row)] = row
                else:
                    loose.append(row)
        return list(keyed.values()) if self.key else loose

    def key_of(self, row: Row) -> tuple[Value, ...]:
        """The key of a row."""
        return tuple(row[name] for name in self.key)


class SourceLog:
    """All that the lake must hold: the tables as the witness saw them, and the log since, read in its order."""

    def __init__(self, tables: dict[TableName, Table], log: Callable[[], Iterable[Transaction]]) -> None:
        self.tables, self._log = tables, log

    def windows(self, changes_max: int) -> Iterator[Window]:
        """The log in pieces of whole transactions, each of about so many changes."""
        window = Window()
        for transaction in self._log():
            for name, change in _numbered(self.tables, transaction):
                window.changes.setdefault(name, []).append(change)
                window.count += 1
            window.end_lsn = transaction.commit_lsn
            if window.count >= changes_max:
                yield window
                window = Window()
        yield window


@dataclass
class Window:
    """A piece of the log: changes by table, and the position that it reaches to."""

    changes: dict[TableName, list[Change]] = field(default_factory=dict)
    count: int = 0
    end_lsn: int = 0


class Witness:
    """The second reader: opened before the agent starts, closed after the workload has ended."""

    def __init__(self, postgres: Postgres, database: str, folder: Path) -> None:
        self._postgres, self._database, self._folder = postgres, database, folder
        self.tables: dict[TableName, Table] = {}

    def open(self) -> None:
        """Makes publication and slot, and dumps all tables in the slot's snapshot."""
        dsn = self._postgres.dsn(self._database)
        with psycopg.connect(dsn, autocommit=True) as session:
            session.execute(f"CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES")
        with psycopg.connect(dsn, autocommit=True, replication="database") as replication:
            made = replication.pgconn.exec_(
                f"CREATE_REPLICATION_SLOT {SLOT} LOGICAL pgoutput (SNAPSHOT 'export')".encode()
            )
            snapshot = made.get_value(0, 2)
            if snapshot is None:
                raise ServiceError(f"no slot for the witness: {made.error_message.decode()}")
            self.tables = dump(dsn, snapshot.decode())

    def close(self) -> SourceLog:
        """Takes the log up to now, and drops slot and publication."""
        dsn = self._postgres.dsn(self._database)
        capture = self._folder / "witness.pgoutput"
        with psycopg.connect(dsn, autocommit=True) as session:
            end = str(session.execute("SELECT pg_current_wal_lsn()").fetchone()[0])
            _receive(self._postgres, dsn, end, capture)
            session.execute(f"SELECT pg_drop_replication_slot('{SLOT}')")
            session.execute(f"DROP PUBLICATION {PUBLICATION}")
        return SourceLog(self.tables, lambda: _captured(capture))


def _captured(capture: Path) -> Iterator[Transaction]:
    """The transactions of a capture, without holding it in memory."""
    if capture.stat().st_size:
        with capture.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield from transactions(content)


def dump(dsn: str, snapshot: str) -> dict[TableName, Table]:
    """Every table of a database as its output functions print it, in an exported snapshot."""
    tables: dict[TableName, Table] = {}
    with psycopg.connect(dsn, options=PGOPTIONS) as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        named = session.execute(_TABLES).fetchall()
        for schema, table, quoted, key in named:
            answer = session.pgconn.exec_(f"SELECT * FROM {quoted}".encode())
            names = [answer.fname(column).decode() for column in range(answer.nfields)]
            rows: list[Row] = [
                {name: _text(answer.get_value(row, column)) for column, name in enumerate(names)}
                for row in range(answer.ntuples)
            ]
            tables[schema, table] = Table(tuple(key or ()), rows)
    return tables


_TABLES = """
SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname),
       (SELECT array_agg(a.attname::text ORDER BY a.attnum)
        FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
        WHERE i.indrelid = c.oid AND i.indisprimary)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 1, 2
"""


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _receive(postgres: Postgres, dsn: str, end: str, capture: Path) -> None:
    account = postgres_account()
    capture.touch()
    if account:
        os.chown(capture, account.uid, account.gid)
    received = subprocess.run(
        [
            postgres.programs / "pg_recvlogical",
            "-d",
            dsn,
            "--slot",
            SLOT,
            "--start",
            "--endpos",
            end,
            "--no-loop",
            "-o",
            "proto_version=1",
            "-o",
            f"publication_names={PUBLICATION}",
            "-f",
            capture,
        ],
        env={"PATH": os.environ["PATH"], "PGOPTIONS": PGOPTIONS},
        capture_output=True,
        timeout=1200,
    )
    if received.returncode:
        raise ServiceError(f"pg_recvlogical failed:\n{received.stderr.decode()}")


def _numbered(tables: dict[TableName, Table], transaction: Transaction) -> Iterator[tuple[TableName, Change]]:
    """The changes of a transaction with their ordinals, by table; a TRUNCATE is one in its table, and an event.

    An update of key columns counts as two changes: delete of the old key, insert of the new row.
    """
    ordinal = 0
    when = transaction.commit_us
    for event in transaction.changes:
        if isinstance(event, Truncate):
            for relation in event.relations:
                ordinal += 1
                name = (relation.schema, relation.table)
                yield name, Change("t", transaction.commit_lsn, ordinal, when, {})
                yield EVENTS, Change("c", transaction.commit_lsn, ordinal, when, _event_row(transaction, name, event))
            continue
        name = (event.relation.schema, event.relation.table)
        for op, row, before in _split(_table(tables, event.relation), event):
            ordinal += 1
            yield name, Change(op, transaction.commit_lsn, ordinal, when, row, before)


def _table(tables: dict[TableName, Table], relation: Relation) -> Table:
    """The table of a change; one that was not dumped came later, and its rows are all in the log."""
    table = tables.setdefault((relation.schema, relation.table), Table(key=(), late=True))
    if table.late and not table.key:
        pairs = zip(relation.columns, relation.key_flags, strict=True)
        table.key = tuple(column for column, is_key in pairs if is_key)
    return table


def _event_row(transaction: Transaction, name: TableName, event: Truncate) -> Row:
    return {
        "event": "truncate",
        "table_schema": name[0],
        "table_name": name[1],
        "cascade": "t" if event.cascade else "f",
        "restart_identity": "t" if event.restart_identity else "f",
        "transaction_id": str(transaction.xid),
    }


def _split(table: Table, event: RowChange) -> list[tuple[str, Row, Row | None]]:
    names = event.relation.columns
    new = _named(names, event.new) if event.new is not None else None
    old = _named(names, event.old) if event.old is not None else None
    full = None if event.old_is_key else old
    if event.kind == "D":
        return [("d", _deleted(table, event, old or {}), full)]
    if new is None:
        raise ValueError("an insert or update without a new row")
    if event.kind == "I":
        return [("c", new, None)]
    if old is not None and table.key and table.key_of(old) != table.key_of(new):
        return [("d", _deleted(table, event, old), full), ("c", new, full)]
    return [("u", new, full)]


def _deleted(table: Table, event: RowChange, old: Row) -> Row:
    return {name: old[name] for name in table.key} if event.old_is_key else old


def _named(names: tuple[str, ...], values: Tuple) -> Row:
    if len(names) != len(values):
        raise ValueError(f"a row of {len(values)} values for {len(names)} columns")
    return dict(zip(names, values, strict=True))
