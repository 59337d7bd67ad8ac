"""`./dev chaos`: the demo, in which every part dies at every failpoint and at random, and the comparison at its end.

Flow: servers, stack, witness, workload -> first start through all failpoints of the copy -> failpoints of the stream,
random kills and a second agent, in an order that the seed gives -> all comes back -> tail -> verify -> table.

Always holds: a death is SIGKILL or SIGABRT, as in a crash; whoever died comes back at once on what it has on disk. The
local cloud itself never dies: it stands for S3, Glue and Lambda. PostgreSQL stops as with `pg_ctl stop -m immediate`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from . import failpoints
from .build import build
from .cloud import DATABASE, SOURCE, Cloud
from .console import say, step
from .demo import compare_at_the_end
from .deploy import client
from .kafkalog import Aborted, aborted
from .patience import KeepingSupervisor, PatientWorkload
from .processes import ServiceError
from .runs import Run
from .sourcelog import Witness
from .victims import AGENT, EVENT_SOURCE, Place, Tally, Victims
from .workload import create_shop

ISOLATIONS = ("read_committed", "read_uncommitted")
# Of the random kills, so that no seed leaves one out.
AT_LEAST = {AGENT: 3, EVENT_SOURCE: 3, "kafka": 2, "postgres": 2, "firn-ingest": 2, "firn-commit": 1, "firn-ddl": 1}
WEIGHTS = {AGENT: 5, EVENT_SOURCE: 4, "kafka": 1, "postgres": 1, "firn-ingest": 5, "firn-commit": 3, "firn-ddl": 2}
# Where the failpoints of a process are named otherwise than itself.
PARTS = {"agent": AGENT, "ingest": "firn-ingest"}
FAULTS = "duplicate=0.05,recut=0.05,late=0.02,abandon=0.02"
SPECIAL_INTERVAL_SECONDS = 4.0
PAUSE_SECONDS = (0.2, 3.0)
# A death may come while another part is still down.
WAITS_FOR_RECOVERY = 0.7
COPY_SECONDS_MAX = 180.0
DEED_SECONDS_MAX = 120.0
# So long a quiet commit function is waited for before it is called by hand.
SWEEP_AFTER_SECONDS = 5.0


@dataclass(frozen=True)
class ChaosOptions:
    """What the command line says."""

    seconds: float
    seed: int
    rate: float
    build: bool
    kills: int
    isolations: tuple[str, ...]


def chaos(options: ChaosOptions) -> int:
    """One run for each isolation level; gives the exit code."""
    if options.build:
        build()
    passed = [_run(options, isolation) for isolation in options.isolations]
    for isolation, good in zip(options.isolations, passed, strict=True):
        print(f"{isolation}: {'passed' if good else 'FAILED'}")
    return 0 if all(passed) else 1


def _run(options: ChaosOptions, isolation: str) -> bool:
    run = Run.create()
    with KeepingSupervisor(run.run_id, run.folder) as supervisor:
        cloud = Cloud(run, supervisor, chaos=True)
        cloud.start_servers()
        create_shop(cloud.dsn())
        witness = Witness(cloud.postgres, DATABASE, run.folder)
        witness.open()
        workload = PatientWorkload(cloud.dsn(), options.seed, options.rate)
        workload.start()
        storm = Storm(cloud, supervisor, workload, options, isolation)
        try:
            storm.first_start()
            workload.start_special(SPECIAL_INTERVAL_SECONDS)
            say(f"status page {cloud.status_page}   logs {run.folder}")
            storm.rage()
        finally:
            workload.stop()
        storm.calm()
        say(f"workload of seed {options.seed}: {workload.changes} rows, {workload.schema_changes} schema changes")
        equal = compare_at_the_end(cloud, witness) == 0
        lost = aborted(run.folder / "kafka", f"{SOURCE}.", f"{SOURCE}.firn-progress")
        return _report(storm.tally, lost, isolation, options) and equal


class Storm:
    """The deaths of one run, and what came of them."""

    def __init__(
        self,
        cloud: Cloud,
        supervisor: KeepingSupervisor,
        workload: PatientWorkload,
        options: ChaosOptions,
        isolation: str,
    ) -> None:
        self._cloud, self._supervisor, self._workload = cloud, supervisor, workload
        self._options = options
        self._random = random.Random(f"{options.seed}/chaos")
        self.tally = Tally()
        faults = ["--isolation", isolation, "--faults", f"seed={options.seed},{FAULTS}"]
        self._victims = Victims(cloud, supervisor, faults, self._random)

    def first_start(self) -> None:
        """Starts the pipeline with every failpoint of the copy armed: the agent dies until it has passed them all."""
        with step("the agent copies the tables, and dies at each failpoint on the way"):
            for key in failpoints.OF_THE_COPY:
                self._arm(key)
            self._victims.start()
            self._wait(self._victims.streaming, "the agent to stream", COPY_SECONDS_MAX)
            for key in failpoints.OF_THE_COPY:
                self._await_death(key)

    def rage(self) -> None:
        """All other deaths, in an order that the seed gives; no shorter than was asked for."""
        begin = time.monotonic()
        deeds: list[Callable[[], None]] = [self._at_failpoint(key) for key in failpoints.OF_THE_STREAM]
        deeds += [self._at_restart(key) for key in failpoints.OF_A_RESTART]
        deeds += [self._at_random(name) for name in self._drawn()]
        deeds.append(_named(self._second_agent, "a second agent"))
        self._random.shuffle(deeds)
        for number, deed in enumerate(deeds, 1):
            say(f"{number}/{len(deeds)} after {time.monotonic() - begin:.0f} s: {deed.__name__}")
            deed()
            self._pause(self._random.uniform(*PAUSE_SECONDS))
        self._pause(self._options.seconds - (time.monotonic() - begin))

    def calm(self) -> None:
        """Lets all parts come back."""
        with step("all parts come back"):
            self._flow()

    def _flow(self, since: Place | None = None) -> None:
        """Waits until all parts work: what was written before a moment is in Kafka, and batches are delivered."""
        place = since or self._victims.look()
        self._wait(lambda: self._victims.recovered(place), "records to flow again", DEED_SECONDS_MAX)

    def _drawn(self) -> list[str]:
        names = [name for name, count in AT_LEAST.items() for _ in range(count)]
        free = max(self._options.kills - len(names), 0)
        return names + self._random.choices(list(WEIGHTS), list(WEIGHTS.values()), k=free)

    def _at_failpoint(self, key: str) -> Callable[[], None]:
        def die() -> None:
            self._arm(key)
            self._await_death(key)
            self._come_back(PARTS.get(key.partition(".")[0], key.partition("/")[0]), self._victims.look())

        return _named(die, f"death at {key}")

    def _at_restart(self, key: str) -> Callable[[], None]:
        def die() -> None:
            place = self._victims.look()
            self._arm(key)
            self._victims.kill(AGENT)
            self._await_death(key)
            self._come_back(AGENT, place)

        return _named(die, f"restart, and death at {key}")

    def _at_random(self, name: str) -> Callable[[], None]:
        def die() -> None:
            place = self._victims.look()
            self._wait(lambda: self._victims.kill(name), f"a process of {name} to kill", DEED_SECONDS_MAX)
            self.tally.kills[name] += 1
            self._come_back(name, place)

        return _named(die, f"kill of {name}")

    def _second_agent(self) -> None:
        self._flow()
        begin = time.monotonic()
        code = self._victims.second_agent(DEED_SECONDS_MAX)
        self.tally.fenced = f"the first exits with {code} after {time.monotonic() - begin:.1f} s"
        self._flow()
        self.tally.survivors = self._victims.agents()

    def _arm(self, key: str) -> None:
        path = self._cloud.failpoint_folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def _await_death(self, key: str) -> None:
        path = self._cloud.failpoint_folder / key
        begin = swept = time.monotonic()

        def dead() -> bool:
            nonlocal swept
            if key.startswith("firn-commit/") and time.monotonic() - swept > SWEEP_AFTER_SECONDS:
                swept = time.monotonic()
                self._sweep()
            return not path.exists()

        self._wait(dead, f"death at {key}", DEED_SECONDS_MAX)
        self.tally.deaths[key] += 1
        self.tally.reached_after[key].append(time.monotonic() - begin)

    def _sweep(self) -> None:
        assert self._cloud.stack is not None
        functions = client("lambda", self._cloud.ministack.endpoint)
        functions.invoke(
            FunctionName=self._cloud.stack.commit_function, InvocationType="Event", Payload=b'{"sweep": true}'
        )

    def _come_back(self, name: str, since: Place) -> None:
        if self._random.random() < WAITS_FOR_RECOVERY:
            begin = time.monotonic()
            self._flow(since)
            self.tally.recovery[name].append(time.monotonic() - begin)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._check()
            time.sleep(min(left, 0.1))

    def _wait(self, ready: Callable[[], object], what: str, seconds: float) -> None:
        def watched() -> bool:
            self._check()
            return bool(ready())

        self._cloud.wait(watched, what, seconds)

    def _check(self) -> None:
        self._cloud.check()
        if self._workload.failure is not None:
            raise ServiceError(f"the workload failed: {self._workload.failure!r}")


def _named(deed: Callable[[], None], name: str) -> Callable[[], None]:
    def named() -> None:
        deed()

    named.__name__ = name
    return named


def _report(tally: Tally, lost: Aborted, isolation: str, options: ChaosOptions) -> bool:
    """Prints what died where; gives whether nothing was left out."""
    print(f"seed {options.seed}, event source reads {isolation}")
    tally.show()
    print(f"aborted Kafka transactions: {lost.transactions}, with {lost.records} records")
    wanted = {*failpoints.OF_THE_COPY, *failpoints.OF_A_RESTART, *failpoints.OF_THE_STREAM}
    left_out = [key for key in sorted(wanted) if not tally.deaths[key]]
    for key in left_out:
        print(f"NOT REACHED: {key}")
    kills = sum(tally.kills.values())
    return not left_out and kills >= options.kills and lost.transactions > 0 and tally.survivors == 1
