"""`./dev bench`: what the agent and the way into a file cost, beside a floor, in the same run.

`agent`: the same content of a slot is read twice, by `pg_recvlogical` to /dev/null and by the agent to Kafka. CPU
seconds are those of the reader and of its walsender, from /proc. `ingest`: the Rust program `bench`, in process.

Always holds: the programs are those of the release profile; the machine may be busy, so CPU counts and not wall time.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from .agent import AgentSettings
from .build import cargo
from .cloud import fetch
from .console import say, step
from .deploy import client
from .gate import run
from .paths import TARGET, postgres_account
from .processes import Supervisor
from .runs import Run
from .services import Kafka, Ministack, Postgres, free_port

SOURCE = BUCKET = "bench"
ROWS = 1_000_000
TICKS = os.sysconf("SC_CLK_TCK")
TIMEOUT_SECONDS = 900

_FILL = """
CREATE PROCEDURE fill(rows bigint) LANGUAGE plpgsql AS $$
DECLARE i bigint := 0;
BEGIN
    WHILE i < rows LOOP
        INSERT INTO narrow
        SELECT g, (g % 1000)::int, substr(md5(g::text), 1, 20), timestamptz '2026-01-01 00:00:00Z' + g * interval '1 ms'
        FROM generate_series(i, least(i + 999, rows - 1)) g;
        COMMIT;
        i := i + 1000;
    END LOOP;
END $$
"""


def bench(what: str, rest: Sequence[str]) -> int:
    """Measures one thing; `rest` is for it."""
    packages = ("bench", "capture-agent")
    with step("release programs (the first time about fifteen minutes on two cores)"):
        words = [word for name in packages for word in ("--package", name)]
        if cargo("build", "--release", "--locked", *words).returncode:
            return 1
    release = TARGET / "release"
    if what == "ingest":
        return run([release / "bench", "ingest", *rest])[0]
    return _agent(release / "capture-agent", int(rest[0]) if rest else ROWS)


@dataclass(frozen=True)
class Cost:
    """What one reader of the slot took."""

    name: str
    wall_seconds: float
    reader_seconds: float
    walsender_seconds: float

    def line(self, rows: int) -> str:
        """A row of the table."""
        micros = [1e6 * seconds / rows for seconds in (self.reader_seconds, self.walsender_seconds)]
        return f"{self.name:16} {rows / self.wall_seconds:12,.0f} {micros[0]:14.2f} {micros[1]:14.2f}"


class _Slot:
    """CPU seconds of the walsender of a slot, as long as it lives."""

    def __init__(self, session: psycopg.Connection[tuple[object, ...]], name: str) -> None:
        self._session, self._name, self.seconds = session, name, 0.0

    def look(self) -> int:
        """Reads the walsender's CPU time; gives the acknowledged position."""
        row = self._session.execute(
            "SELECT active_pid, coalesce(confirmed_flush_lsn - '0/0', 0) "
            "FROM pg_replication_slots WHERE slot_name = %s",
            (self._name,),
        ).fetchone()
        if row is None:
            return 0
        if row[0] is not None:
            self.seconds = max(self.seconds, _cpu_seconds(int(str(row[0]))))
        return int(str(row[1]))


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def _agent(program: Path, rows: int) -> int:
    started = Run.create()
    with Supervisor(started.run_id, started.folder) as supervisor:
        postgres, kafka, ministack = Postgres(supervisor), Kafka(supervisor), Ministack(supervisor)
        with step("PostgreSQL, Kafka, local cloud"):
            postgres.start()
            kafka.start()
            ministack.start()
        client("s3", ministack.endpoint).create_bucket(Bucket=BUCKET)
        with psycopg.connect(postgres.dsn(), autocommit=True) as session:
            session.execute(f"CREATE DATABASE {SOURCE}")
        settings = AgentSettings(
            SOURCE, postgres.port, kafka.bootstrap, BUCKET, SOURCE, ministack.endpoint, free_port(), partitions=1
        )
        config = settings.write(started.folder / "agent.toml")
        command = [program, "run", "--config", config]
        env = {"RUST_LOG": "warn", **ministack.client_env()}
        with psycopg.connect(postgres.dsn(SOURCE), autocommit=True) as session:
            session.execute("CREATE TABLE narrow (id bigint PRIMARY KEY, a int, b text, ts timestamptz)")
            agent = supervisor.start("capture-agent", command, env)
            streaming = f'firn_agent_state{{source="{SOURCE}",state="streaming"}} 1'
            supervisor.wait_until(lambda: streaming in fetch(settings.metrics), "the agent to stream")
            agent.stop()
            supervisor.processes.pop("capture-agent")
            with step(f"{rows:,} inserts in transactions of 1,000"):
                session.execute(_FILL.encode())
                session.execute("CALL fill(%s)", (rows,))
            end = int(str(session.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()[0]))
            floor = _floor(postgres, session, settings.slot, started.folder)

            def reach_end(slot: _Slot) -> bool:
                supervisor.check()
                return slot.look() >= end

            begin = time.monotonic()
            agent = supervisor.start("capture-agent", command, env)
            cost = _measure("capture-agent", agent.pid, _Slot(session, settings.slot), reach_end, begin)
            records = sum(
                float(line.rsplit(" ", 1)[1])
                for line in fetch(settings.metrics).splitlines()
                if line.startswith("firn_agent_records_total{")
            )
    print(f"{'reader':16} {'events/s':>12} {'CPU µs/event':>14} {'walsender µs':>14}")
    print(floor.line(rows))
    print(cost.line(rows))
    print(
        f"ratio of CPU: {cost.reader_seconds / floor.reader_seconds:.1f}, of time: "
        f"{cost.wall_seconds / floor.wall_seconds:.1f}; {records:,.0f} records committed, load {os.getloadavg()[0]:.1f}"
    )
    if records != rows:
        say(f"expected {rows:,} records")
        return 1
    return 0


def _measure(name: str, pid: int, slot: _Slot, done: Callable[[_Slot], bool], begin: float) -> Cost:
    reader = 0.0
    while not done(slot):
        reader = max(reader, _cpu_seconds(pid))
        if time.monotonic() - begin > TIMEOUT_SECONDS:
            raise SystemExit(f"dev: {name} did not reach the end in {TIMEOUT_SECONDS} s")
        time.sleep(0.02)
    wall = time.monotonic() - begin
    return Cost(name, wall, max(reader, _cpu_seconds(pid)), slot.seconds)


def _floor(postgres: Postgres, session: psycopg.Connection[tuple[object, ...]], slot: str, folder: Path) -> Cost:
    session.execute("SELECT pg_copy_logical_replication_slot(%s, 'floor')", (slot,))
    end = str(session.execute("SELECT pg_current_wal_lsn()").fetchone()[0])
    account = postgres_account()
    begin = time.monotonic()
    with subprocess.Popen(
        [
            postgres.programs / "pg_recvlogical",
            "-d",
            postgres.dsn(SOURCE),
            "--slot",
            "floor",
            "--start",
            "--endpos",
            end,
            "--no-loop",
            "-o",
            "proto_version=1",
            "-o",
            f"publication_names={slot}",
            "-f",
            "/dev/null",
            "-F",
            "0",
        ],
        cwd=folder,
        user=account.uid if account else None,
    ) as reader:
        cost = _measure(
            "pg_recvlogical", reader.pid, _Slot(session, "floor"), lambda looked: _ended(reader, looked), begin
        )
    session.execute("SELECT pg_drop_replication_slot('floor')")
    return cost


def _ended(reader: subprocess.Popen[bytes], slot: _Slot) -> bool:
    slot.look()
    # A zombie still tells its CPU time: it is reaped after it was measured.
    state = Path(f"/proc/{reader.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state == "Z"
