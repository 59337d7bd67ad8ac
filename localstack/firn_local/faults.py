"""The long form of `./dev chaos`: one fault after the other, of every kind that is here, for so many minutes.

Flow: a fault that the seed draws -> its cause ends -> commits come again, timed -> a short pause -> the next.

Always holds: a fault is over before the next begins, except for the event source's own (doubled, late, abandoned and
re-cut batches), which go on all the time. The first round has every kind once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from . import failpoints, recovery, special
from .agent import AgentSettings
from .cloud import Cloud
from .console import say
from .deploy import client
from .orphans import Orphans, orphans
from .patience import KeepingSupervisor, PatientWorkload
from .processes import ServiceError
from .proxy import Rule
from .services import listening
from .storm import DEED_SECONDS_MAX, ISOLATIONS, ChaosOptions, Storm
from .stranger import Stranger
from .verify import Verdict
from .victims import AGENT, EVENT_SOURCE

# The event source gives an invocation up after this, and hands its batch to another; a frozen function stays longer.
INVOKE_SECONDS = 10
FROZEN_SECONDS = (3.0, 7.0)
TURMOIL_SECONDS = (4.0, 8.0)
PAUSE_SECONDS = (0.5, 2.0)
# So long after its sender gave up a late request arrives.
LATE_SECONDS = (1.0, 6.0)
SKEW_MS = 300_000
FAILPOINT_SECONDS_MAX = 12.0
# What lies between two looks at the proxy.
LOOK_SECONDS = 0.2
# A function is due when it was not called for a while: a kill or a freeze waits so long for one.
FUNCTION_SECONDS_MAX = 30.0
ORPHANS_MAX = 0.05
FAULTS_A_MINUTE, KINDS_MIN, CHANGES_A_MINUTE = 5, 10, 2_000_000 / 30
FUNCTIONS = ("firn-ingest", "firn-commit", "firn-ddl")


class Faults(Storm):
    """The faults of one run, and how long it took to recover from each."""

    def __init__(
        self, cloud: Cloud, supervisor: KeepingSupervisor, workload: PatientWorkload, options: ChaosOptions
    ) -> None:
        # Fewer and larger batches than Lambda's own half second: the local cloud shares two processors with everything.
        more = ["--invoke-timeout-seconds", str(INVOKE_SECONDS), "--window-ms", "1000"]
        super().__init__(cloud, supervisor, workload, options, ISOLATIONS, more)
        assert cloud.proxy is not None
        assert cloud.stack is not None
        self._proxy, self._stack = cloud.proxy, cloud.stack
        self._minutes = options.minutes or 0
        self._recovery = recovery.Recovery(max(2 * AgentSettings.freshness_seconds, 10))
        self._stranger = Stranger(cloud.ministack.endpoint, cloud.stack.database, options.seed)
        self._missed = 0

    def kinds(self) -> list[tuple[str, int, Callable[[], float | None]]]:
        """Every kind of fault: its name, how often it is drawn, and what does it."""
        kills = {
            AGENT: 3,
            EVENT_SOURCE: 3,
            "firn-ingest": 4,
            "firn-commit": 2,
            "firn-ddl": 1,
            "kafka": 2,
            "postgres": 2,
        }
        frozen = {AGENT: 2, EVENT_SOURCE: 2, "kafka": 2}
        zombies = {"firn-ingest": 3, "firn-commit": 2, "firn-ddl": 1}
        return [
            *((f"kill -9 {name}", weight, self._kill(name)) for name, weight in kills.items()),
            *((f"SIGSTOP {name}", weight, self._freeze(name)) for name, weight in frozen.items()),
            *((f"zombie {name}", weight, self._zombie(name)) for name, weight in zombies.items()),
            ("zombie capture-agent", 2, self._zombie_agent),
            ("zombie event-source", 2, self._zombie_event_source),
            ("second capture-agent", 2, self._second_agent),
            ("second event-source", 2, self._second_event_source),
            *((name, 2, self._turmoil(rules)) for name, rules in TURMOIL.items()),
            *((f"clock of {name} {sign:+}", 1, self._skew(name, sign)) for name in FUNCTIONS for sign in (-5, 5)),
            ("stranger sets a property", 2, self._property),
            ("stranger compacts", 4, self._compact),
            ("death at a failpoint", 4, self._failpoint),
        ]

    def rage(self) -> None:
        """Faults until the time is over."""
        kinds = self.kinds()
        queue = self._random.sample(kinds, len(kinds))
        begin = time.monotonic()
        end = begin + 60 * self._minutes
        while time.monotonic() < end:
            name, _weight, cause = queue.pop() if queue else self._random.choices(kinds, [kind[1] for kind in kinds])[0]
            self._meet(name, cause, begin)
            self._pause(min(self._random.uniform(*PAUSE_SECONDS), max(end - time.monotonic(), 0)))

    def _meet(self, name: str, cause: Callable[[], float | None], begin: float) -> None:
        self._proxy.look()
        busy = recovery.busy(self._proxy.commits, time.monotonic())
        tables = {table for table in busy if not special.is_late(table)}
        ended = cause()
        if ended is None:
            self._missed += 1
            return
        first: float | None = None
        every: float | None = None

        def recovered() -> bool:
            nonlocal first, every
            self._proxy.look()
            first, every = recovery.after(self._proxy.commits, ended, tables)
            time.sleep(LOOK_SECONDS)
            return first is not None and every is not None

        try:
            self._wait(recovered, f"commits after {name}", DEED_SECONDS_MAX)
        except ServiceError:
            say(f"after {name}: {first}, {every}; of {sorted(tables)}")
            raise
        assert first is not None
        assert every is not None
        self._recovery.add(name, first, every)
        number = self._recovery.faults
        say(f"{time.monotonic() - begin:5.0f} s  {number:3} {name}: commit after {first:.1f} s, all {every:.1f} s")

    def _kill(self, name: str) -> Callable[[], float | None]:
        def cause() -> float | None:
            if not self._soon(lambda: self._victims.kill(name)):
                return None
            if name in self._supervisor.keepers:
                dead = self._supervisor.processes[name]
                self._wait(
                    lambda: self._supervisor.processes[name] is not dead, f"{name} to come back", DEED_SECONDS_MAX
                )
            if name == "kafka":
                self._wait(lambda: listening(self._cloud.kafka.port), "the broker", DEED_SECONDS_MAX)
            return time.monotonic()

        return cause

    def _soon(self, deed: Callable[[], object]) -> bool:
        """Does a deed as soon as there is a process for it; False if there is none for too long."""
        with contextlib.suppress(ServiceError):
            self._wait(deed, "a process", FUNCTION_SECONDS_MAX)
            return True
        self._check()
        return False

    def _freeze(self, name: str) -> Callable[[], float | None]:
        def cause() -> float:
            pids = self._victims.freeze(name)
            self._pause(self._random.uniform(*FROZEN_SECONDS))
            self._victims.thaw(pids)
            return time.monotonic()

        return cause

    def _zombie(self, name: str) -> Callable[[], float | None]:
        """Function processes stand still until their batches were handed to others, and go on then."""

        def cause() -> float | None:
            pids: list[int] = []

            def freeze() -> bool:
                pids.extend(self._victims.freeze(name, 3))
                return bool(pids)

            if not self._soon(freeze):
                return None
            self._pause(INVOKE_SECONDS + 2)
            self._victims.thaw(pids)
            return time.monotonic()

        return cause

    def _zombie_agent(self) -> float:
        self._victims.second_agent(DEED_SECONDS_MAX, self._random.uniform(*FROZEN_SECONDS))
        return time.monotonic()

    def _second_agent(self) -> float:
        self._victims.second_agent(DEED_SECONDS_MAX)
        return time.monotonic()

    def _zombie_event_source(self) -> float:
        pids = self._victims.freeze(EVENT_SOURCE)
        with self._victims.second_event_source():
            self._pause(self._random.uniform(*FROZEN_SECONDS))
            self._victims.thaw(pids)
            self._pause(2)
        return time.monotonic()

    def _second_event_source(self) -> float:
        with self._victims.second_event_source():
            self._pause(self._random.uniform(*TURMOIL_SECONDS))
        return time.monotonic()

    def _turmoil(self, rules: Sequence[Rule]) -> Callable[[], float | None]:
        def cause() -> float:
            self._proxy.set(*rules)
            self._pause(self._random.uniform(*TURMOIL_SECONDS))
            self._proxy.set()
            return time.monotonic()

        return cause

    def _skew(self, name: str, sign: int) -> Callable[[], float | None]:
        def cause() -> float:
            self._set_clock(name, SKEW_MS if sign > 0 else -SKEW_MS)
            self._pause(self._random.uniform(*TURMOIL_SECONDS))
            self._set_clock(name, 0)
            return time.monotonic()

        return cause

    def _set_clock(self, name: str, offset_ms: int) -> None:
        functions = client("lambda", self._cloud.ministack.endpoint)
        variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        variables["FIRN_CLOCK_OFFSET_MS"] = str(offset_ms)
        functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})

    def _property(self) -> float | None:
        return time.monotonic() if self._stranger.set_property() else None

    def _compact(self) -> float | None:
        return time.monotonic() if self._stranger.compact() else None

    def _failpoint(self) -> float | None:
        key = self._random.choice(failpoints.OF_THE_STREAM)
        path = self._cloud.failpoint_folder / key
        self._arm(key)
        with contextlib.suppress(ServiceError):
            self._wait(lambda: not path.exists(), f"death at {key}", FAILPOINT_SECONDS_MAX)
            self.tally.deaths[key] += 1
            return time.monotonic()
        path.unlink(missing_ok=True)
        self._check()
        return None

    def report(self, verdict: Verdict) -> bool:
        """Prints what happened and holds it against the bars; gives whether all are met."""
        self._recovery.show()
        print(
            f"not met: {self._missed} (no process of a function, a place not reached, every race lost by the stranger)"
        )
        self._proxy.look()
        print(
            "of single requests: " + ", ".join(f"{name} {count}" for name, count in sorted(self._proxy.drawn.items()))
        )
        print(
            "deaths at failpoints: " + ", ".join(f"{key} {count}" for key, count in sorted(self.tally.deaths.items()))
        )
        print(f"races lost by the stranger: {self._stranger.lost_races}; commits of firn: {len(self._proxy.commits)}")
        left = orphans(
            self._cloud.lake.data_files(),
            self._cloud.ministack.objects / self._stack.bucket,
            self._stranger.replaced,
        )
        _show_orphans(left)
        total = verdict.total
        kinds, changes = len(self._recovery.any_table), total.changed
        bars = [
            (
                f"faults: {self._recovery.faults} of {kinds} kinds",
                self._recovery.faults >= FAULTS_A_MINUTE * self._minutes,
            ),
            (f"kinds: {kinds}", kinds >= KINDS_MIN),
            (f"changes: {changes}", changes >= CHANGES_A_MINUTE * self._minutes),
            (f"lost {total.missing}, twice {total.extra}, wrong or out of order {total.differing}", verdict.equal),
            (f"next commit within {self._recovery.seconds_max:.0f} s of the end of each cause", self._recovery.in_time),
            (f"bytes that nothing names: {left.share:.2%}", left.share <= ORPHANS_MAX),
            (f"agents left: {self.tally.survivors}", self.tally.survivors == 1),
        ]
        for words, met in bars:
            print(f"{'met   ' if met else 'MISSED'}  {words}")
        return all(met for _words, met in bars)


def _show_orphans(left: Orphans) -> None:
    print(
        f"data files: {left.files_all}, {left.bytes_all} bytes; named by no snapshot and no intent: "
        f"{len(left.names)}, {left.bytes_lost} bytes; replaced or given up by the stranger: {left.bytes_strange} bytes"
    )


TURMOIL: dict[str, tuple[Rule, ...]] = {
    "S3 refuses and fails": (Rule("refuse", 0.15, "s3"), Rule("fail", 0.1, "s3")),
    "S3 is slow": (Rule("delay", 0.5, "s3", (0.2, 2.0)),),
    "S3's answers are lost": (
        Rule("lost", 0.1, "s3.(Put|Get)"),
        Rule("reset", 0.05, "s3"),
        Rule("fail_after", 0.1, "s3.Put"),
    ),
    "S3's writes come late": (Rule("late", 0.2, "s3.Put", LATE_SECONDS),),
    "Glue refuses and fails": (Rule("refuse", 0.3, "glue"), Rule("fail", 0.2, "glue")),
    "Glue is slow": (Rule("delay", 0.6, "glue", (0.2, 2.0)),),
    "Glue's answers are lost": (
        Rule("lost", 0.3, "glue"),
        Rule("reset", 0.1, "glue"),
        Rule("fail_after", 0.2, "glue.Update"),
    ),
    "Glue's writes come late": (Rule("late", 0.5, "glue.Update", LATE_SECONDS),),
}
