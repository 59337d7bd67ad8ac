"""`./dev bench agent`: the capture path beside `pg_recvlogical` to /dev/null, on the same content of a slot.

Four readers take turns, each on a slot of its own that holds the same inserts:

    pg_recvlogical    to /dev/null: what any reader of a slot pays
    decode            firn's client decodes every row and throws it away
    envelope          … and writes its key and envelope into a buffer that is thrown away
    capture-agent     the agent itself, until every record is committed on a real broker

An agent refuses a slot that it did not make, so one agent per run is started before the rows are written, makes its
slot and ends; later each goes on from there, as after a restart. The other readers get copies of a slot kept back.

Always holds: CPU time is of whole processes, start-up included; wall time runs from when the slot is in use.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from .agent import AgentSettings
from .cloud import fetch
from .console import step
from .cost import Cost, has_ended, measure
from .deploy import client
from .processes import Supervisor
from .runs import Run
from .services import Kafka, Ministack, Postgres, free_port

BUCKET = "bench"
TABLES = ("narrow", "wide")
KEPT = "kept"
READERS = ("pg_recvlogical", "decode", "envelope", "capture-agent")

_COLUMNS = {
    "narrow": (
        "id bigint PRIMARY KEY, a int, b text, ts timestamptz",
        "g, (g % 1000)::int, substr(md5(g::text), 1, 20), timestamptz '2026-01-01 00:00:00Z' + g * interval '1 ms'",
    ),
    "wide": (
        "id bigint PRIMARY KEY, customer uuid, email text, status text, amount numeric(12,2), tax numeric(12,2), "
        "currency text, express boolean, weight double precision, lines int, warehouse int, region smallint, "
        "placed timestamptz, paid timestamptz, shipped date, street text, city text, country text, "
        "details jsonb, note text",
        "g, md5(g::text)::uuid, 'customer.' || g || '@example.com', (array['new', 'paid', 'packed'])[1 + g % 3], "
        "(g % 100000) / 100.0, (g % 20000) / 100.0, 'EUR', g % 4 = 0, g / 7.0, (g % 9)::int, (g % 40)::int, "
        "(g % 12)::int, timestamptz '2026-01-01 00:00:00Z' + g * interval '1 ms', "
        "CASE WHEN g % 3 > 0 THEN timestamptz '2026-01-01 00:00:05Z' + g * interval '1 ms' END, "
        "date '2026-01-02' + (g % 30)::int, (g % 300) || ' Long \"Winding\" Road', 'Springfield', 'DE', "
        "jsonb_build_object('sku', substr(md5(g::text), 1, 8), 'count', g % 5, 'gift', false), "
        "repeat(md5(g::text), 2)",
    ),
}

_FILL = """
CREATE PROCEDURE fill(rows bigint) LANGUAGE plpgsql AS $$
DECLARE i bigint := 0;
BEGIN
    WHILE i < rows LOOP
        INSERT INTO {table} SELECT {values} FROM generate_series(i, least(i + 999, rows - 1)) g;
        COMMIT;
        i := i + 1000;
    END LOOP;
END $$
"""


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    rows: int
    runs: int
    tables: Sequence[str]


class AgentBench:
    """One call of it."""

    def __init__(self, programs: Path, options: Options) -> None:
        self._programs, self._options = programs, options

    def run(self) -> int:
        """Measures each table and prints its figures."""
        started = Run.create()
        before = os.getloadavg()[0]
        with Supervisor(started.run_id, started.folder) as supervisor:
            servers = _Servers(supervisor)
            with step("PostgreSQL, Kafka, local cloud"):
                servers.start()
            for table in self._options.tables:
                rows = self._options.rows // (1 if table == "narrow" else 5)
                with psycopg.connect(servers.postgres.dsn(), autocommit=True) as session:
                    session.execute(f"CREATE DATABASE {table}".encode())
                with psycopg.connect(servers.postgres.dsn(table), autocommit=True) as session:
                    bench = _TableBench(self._programs, servers, session, table, rows)
                    bench.prepare(self._options.runs)
                    costs = bench.measure()
                _print(table, rows, costs)
        print(f"load average {before:.1f} before, {os.getloadavg()[0]:.1f} after, {os.cpu_count()} processors")
        return 0


class _Servers:
    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.postgres, self.kafka = Postgres(supervisor), Kafka(supervisor)
        self.cloud = Ministack(supervisor)

    def start(self) -> None:
        self.postgres.start()
        self.kafka.start()
        self.cloud.start()
        client("s3", self.cloud.endpoint).create_bucket(Bucket=BUCKET)


class _TableBench:
    """One table in a database of its own, and the slots on it."""

    def __init__(
        self,
        programs: Path,
        servers: _Servers,
        session: psycopg.Connection[tuple[object, ...]],
        table: str,
        rows: int,
    ) -> None:
        self._programs, self._servers, self._session = programs, servers, session
        self._table, self._rows = table, rows
        self._agents: list[AgentSettings] = []
        self._end = ""

    def prepare(self, runs: int) -> None:
        """Makes table and slots, then the rows."""
        columns, values = _COLUMNS[self._table]
        self._session.execute(f"CREATE TABLE {self._table} ({columns})".encode())
        with step(f"{self._table}: {runs} agents make their slots"):
            for number in range(runs):
                self._make_slot(f"{self._table}{number}")
        self._session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (KEPT,))
        with step(f"{self._table}: {self._rows:,} inserts in transactions of 1,000"):
            self._session.execute(_FILL.format(table=self._table, values=values).encode())
            self._session.execute("CALL fill(%s)", (self._rows,))
        self._end = self._text("SELECT pg_current_wal_lsn()")

    def measure(self) -> dict[str, list[Cost]]:
        """All runs of all readers, in turns."""
        costs: dict[str, list[Cost]] = {name: [] for name in READERS}
        with step(f"{self._table}: {len(self._agents)} runs of {len(READERS)} readers"):
            for agent in self._agents:
                costs["pg_recvlogical"].append(self._copied(self._pg_recvlogical))
                costs["decode"].append(self._copied(lambda slot: self._stream(slot, "rows")))
                costs["envelope"].append(self._copied(lambda slot: self._stream(slot, "envelopes")))
                costs["capture-agent"].append(self._agent(agent))
        self._session.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        return costs

    def _make_slot(self, source: str) -> None:
        servers = self._servers
        settings = AgentSettings(
            source,
            servers.postgres.port,
            servers.kafka.bootstrap,
            BUCKET,
            source,
            servers.cloud.endpoint,
            free_port(),
            partitions=1,
            database=self._table,
        )
        settings.write(servers.supervisor.folder / f"{source}.toml")
        self._agents.append(settings)
        with _Running(self._programs, servers, settings):
            streaming = f'firn_agent_state{{source="{source}",state="streaming"}} 1'
            servers.supervisor.wait_until(lambda: streaming in fetch(settings.metrics), "the agent to stream")

    def _agent(self, settings: AgentSettings) -> Cost:
        total = "firn_agent_records_total{"

        def all_committed() -> bool:
            self._servers.supervisor.check()
            lines = fetch(settings.metrics).splitlines()
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(total)) >= self._rows

        with _Running(self._programs, self._servers, settings) as pid:
            return measure(self._session, settings.slot, pid, all_committed)

    def _copied(self, reader: Callable[[str], list[str | Path]]) -> Cost:
        slot = "copied"
        self._session.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", (KEPT, slot))
        command = [str(word) for word in reader(slot)]
        folder = self._servers.supervisor.folder
        with (
            (folder / "readers.log").open("ab") as log,
            subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process,
        ):
            cost = measure(self._session, slot, process.pid, lambda: has_ended(process.pid))
        if process.returncode:
            raise SystemExit(f"dev: {command[0]} ended with {process.returncode}; see {folder}/readers.log")
        self._session.execute("SELECT pg_drop_replication_slot(%s)", (slot,))
        return cost

    def _pg_recvlogical(self, slot: str) -> list[str | Path]:
        words = f"--slot {slot} --start --endpos {self._end} --no-loop -F 0 -s 10 -o proto_version=1".split()
        publication = f"publication_names={self._agents[0].slot}"
        where = ["-d", self._servers.postgres.dsn(self._table), "-f", "/dev/null", "-o", publication]
        return [self._servers.postgres.programs / "pg_recvlogical", *where, *words]

    def _stream(self, slot: str, goal: str) -> list[str | Path]:
        words = f"--port {self._servers.postgres.port} --database {self._table} --slot {slot} --end {self._end}"
        publication = self._agents[0].slot
        return [self._programs / "bench", "stream", *words.split(), "--publication", publication, "--to", goal]

    def _text(self, sql: str) -> str:
        row = self._session.execute(sql.encode()).fetchone()
        return str(row[0]) if row else ""


class _Running:
    """An agent from its start to its end in order; gives its process id."""

    def __init__(self, programs: Path, servers: _Servers, settings: AgentSettings) -> None:
        self._program, self._servers, self._settings = programs / "capture-agent", servers, settings

    def __enter__(self) -> int:
        supervisor = self._servers.supervisor
        config = supervisor.folder / f"{self._settings.source}.toml"
        env = {"RUST_LOG": "warn", **self._servers.cloud.client_env()}
        self._process = supervisor.start("capture-agent", [self._program, "run", "--config", config], env)
        return self._process.pid

    def __exit__(self, *_exc: object) -> None:
        self._process.stop()
        self._servers.supervisor.processes.pop("capture-agent", None)


def _print(table: str, rows: int, costs: dict[str, list[Cost]]) -> None:
    """Best and median of each figure; the ratio is that of the least CPU times."""
    floor = min(cost.reader_seconds for cost in costs[READERS[0]])
    runs = len(costs[READERS[0]])
    print(f"\n{table}: {rows:,} inserts in transactions of 1,000; best (median) of {runs} runs in turns")
    print(f"{'reader':15} {'events/s':>19} {'CPU µs/event':>15} {'ratio':>6} {'walsender µs':>15} {'peak MB':>8}")
    for name in READERS:
        rate = _pair([rows / cost.wall_seconds for cost in costs[name]], max, ",.0f")
        reader = _pair([1e6 * cost.reader_seconds / rows for cost in costs[name]], min, ".2f")
        sender = _pair([1e6 * cost.walsender_seconds / rows for cost in costs[name]], min, ".2f")
        ratio = min(cost.reader_seconds for cost in costs[name]) / floor
        peak = max(cost.peak_bytes for cost in costs[name]) / 1e6
        print(f"{name:15} {rate:>19} {reader:>15} {ratio:6.2f} {sender:>15} {peak:8.0f}")
    sys.stdout.flush()


def _pair(values: Sequence[float], best: Callable[[Sequence[float]], float], form: str) -> str:
    return f"{best(values):{form}} ({statistics.median(values):{form}})"
