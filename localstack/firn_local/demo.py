"""`./dev demo`: the pipeline on this machine, watched; with an end, compared change for change.

Flow: servers and stack -> shop -> witness -> workload -> agent -> live view -> (end of the workload -> tail -> verify).

Always holds: the witness opens before the agent's slot exists, and the workload writes while the agent copies, so that
the seam between copy and stream is tested by every run. Schema changes begin once the agent streams.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

import psycopg

from .alarms import alarms
from .build import build
from .cloud import AGENT_SLOT, DATABASE, SOURCE, Cloud, fetch
from .console import say, step
from .deploy import client
from .processes import Supervisor
from .runs import Run
from .sourcelog import TableName, Witness, parse_lsn
from .special import STEPS_A_ROUND
from .verify import Verdict, verify
from .view import View
from .workload import Workload, create_shop

SPECIAL_INTERVAL_SECONDS = 12.0
TAIL_SECONDS_MAX = 300.0


@dataclass(frozen=True)
class DemoOptions:
    """What the command line says."""

    seconds: float | None
    seed: int
    rate: float
    build: bool


def demo(options: DemoOptions) -> int:
    """Runs the demo; gives the exit code."""
    if options.build:
        build()
    run = Run.create()
    with Supervisor(run.run_id, run.folder) as supervisor:
        cloud = Cloud(run, supervisor)
        cloud.start_servers()
        create_shop(cloud.dsn())
        witness = Witness(cloud.postgres, DATABASE, run.folder)
        if options.seconds is not None:
            witness.open()
        workload = Workload(cloud.dsn(), options.seed, options.rate)
        workload.start()
        cloud.start_event_source()
        cloud.start_agent()
        with step("the agent copies the tables"):
            cloud.wait_for_streaming()
        interval = SPECIAL_INTERVAL_SECONDS
        if options.seconds is not None:
            interval = min(interval, options.seconds / (STEPS_A_ROUND + 1))
        workload.start_special(interval)
        say(f'status page {cloud.status_page}   logs {run.folder}   query it: ./dev query "select …"')
        try:
            _watch(cloud, workload, options.seconds)
        finally:
            workload.stop()
        if options.seconds is None:
            return 0
        say(f"workload of seed {options.seed}: {workload.changes} rows, {workload.schema_changes} schema changes")
        return exit_code(compare_at_the_end(cloud, witness).equal)


def _watch(cloud: Cloud, workload: Workload, seconds: float | None) -> None:
    view = View(cloud, workload)
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        cloud.check()
        if workload.failure is not None:
            break
        view.show(None if end is None else end - time.monotonic())
        time.sleep(1 if end is None else max(0.0, min(1.0, end - time.monotonic())))


def compare_at_the_end(cloud: Cloud, witness: Witness) -> Verdict:
    """Waits until the lake holds the log, and compares; an alarm that was raised makes it unequal."""
    with step("the tail of the log"):
        _wait_for_copies(cloud, set(witness.tables))
        _wait_for_agent(cloud)
        log = witness.close()
        _wait_for_tail(cloud)
    with step("source log against lake"):
        verdict = verify(log, cloud.lake, cloud.ministack.endpoint, cloud.run.folder)
    raised = alarms(cloud.ministack.endpoint)
    for alarm in raised:
        print(f"alarm: {alarm}")
    return replace(verdict, equal=verdict.equal and not raised)


def exit_code(equal: bool) -> int:
    """0 only if source log and lake are equal, and nothing raised an alarm."""
    return 0 if equal else 1


def _wait_for_copies(cloud: Cloud, first: set[TableName]) -> None:
    """Every table that came after the first ones was taken in, and is copied."""
    with psycopg.connect(cloud.dsn(), autocommit=True) as session:
        late = {(schema, table) for schema, table in session.execute(_TABLES).fetchall()} - first

    def copied() -> bool:
        cloud.check()
        tables, owed = cloud.lake.late_tables(SOURCE)
        return tables >= len(late) and owed == 0

    cloud.wait(copied, "tables that came late to be copied", TAIL_SECONDS_MAX)


_TABLES = "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = 'public'"


def _wait_for_agent(cloud: Cloud) -> None:
    with psycopg.connect(cloud.dsn(), autocommit=True) as session:
        end = parse_lsn(str(session.execute("SELECT pg_current_wal_lsn()").fetchone()[0]))
        query = f"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{AGENT_SLOT}'"

        def acknowledged() -> bool:
            found = session.execute(query).fetchone()
            return found is not None and found[0] is not None and parse_lsn(str(found[0])) >= end

        cloud.wait(acknowledged, "the agent to acknowledge the end of the log", TAIL_SECONDS_MAX)


def _wait_for_tail(cloud: Cloud) -> None:
    """Every record was taken by firn-ingest, and a sweep finds nothing left to commit, or the time is over."""

    def delivered() -> bool:
        tail = fetch(f"http://127.0.0.1:{cloud.event_source_port}/tail")
        return bool(tail) and json.loads(tail)["reached"]

    cloud.wait(delivered, "every record to be delivered to firn-ingest", TAIL_SECONDS_MAX)
    assert cloud.stack is not None
    functions = client("lambda", cloud.ministack.endpoint)
    deadline = time.monotonic() + TAIL_SECONDS_MAX
    while time.monotonic() < deadline:
        answer = functions.invoke(FunctionName=cloud.stack.commit_function, Payload=json.dumps({"sweep": True}))
        swept = json.loads(answer["Payload"].read())
        if "FunctionError" not in answer and swept["committed"] == swept["failed"] == 0:
            return
        cloud.check()
        time.sleep(0.5)
    say(f"after {TAIL_SECONDS_MAX:.0f} s a sweep still finds something to commit")
