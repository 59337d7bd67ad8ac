"""The parts of a run that die on purpose: how each is found, killed and brought back, and the count of it all."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from .cloud import AGENT_SLOT, Cloud, fetch
from .patience import KeepingSupervisor
from .processes import Process, ServiceError, marked
from .services import free_port
from .special import late

AGENT, EVENT_SOURCE = "capture-agent", "event-source"
# The agent's exit code when it needs a person (capture-agent/src/logging.rs).
EXIT_HALT = 2


@dataclass
class Tally:
    """What died, how often, and how long it took to come back."""

    deaths: Counter[str] = field(default_factory=Counter)
    reached_after: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    kills: Counter[str] = field(default_factory=Counter)
    recovery: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    fenced: str = "not tried"
    survivors: int = 0

    def show(self) -> None:
        """Prints it as a table."""
        print(f"{'failpoint':40} {'deaths':>7}")
        for key, count in sorted(self.deaths.items()):
            print(f"{key:40} {count:7}")
        print(f"{'killed at random':40} {'kills':>7}")
        for name, count in sorted(self.kills.items()):
            print(f"{name:40} {count:7}")
        print(f"{'until records flow again after':40} {'median':>7} {'longest':>8}  seconds")
        for name, seconds in sorted(self.recovery.items()):
            print(f"{name:40} {statistics.median(seconds):7.1f} {max(seconds):8.1f}")
        print(f"second agent: {self.fenced}; agents left: {self.survivors}")


@dataclass(frozen=True)
class Place:
    """How far things were at a moment."""

    lsn: str
    delivered: int


class Victims:
    """Starts, kills and revives the parts of one cloud."""

    def __init__(
        self,
        cloud: Cloud,
        supervisor: KeepingSupervisor,
        event_source_words: Callable[[], Sequence[str]],
        draw: random.Random,
    ) -> None:
        self._cloud, self._supervisor, self._random = cloud, supervisor, draw
        self._words = event_source_words

    def start(self) -> None:
        """Starts event source and agent, which come back from now on whenever they die; the broker does too."""
        keepers = self._supervisor.keepers
        keepers[EVENT_SOURCE] = lambda: self._cloud.start_event_source(self._words())
        keepers[AGENT] = self._cloud.start_agent
        keepers["kafka"] = self._cloud.kafka.restart
        keepers[EVENT_SOURCE]()
        keepers[AGENT]()

    def kill(self, name: str) -> bool:
        """Kills a part as a crash would; False if it has no process just now."""
        if name == "postgres":
            self._stop_postgres()
            return True
        pids = self._pids(name)
        if not pids:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._random.choice(pids), signal.SIGKILL)
            return True
        return False

    def _pids(self, name: str) -> list[int]:
        process = self._supervisor.processes.get(name)
        if process is not None:
            return [process.pid] if process.child.poll() is None else []
        return self._marked_with(f"AWS_LAMBDA_FUNCTION_NAME={name}")

    def _marked_with(self, variable: str) -> list[int]:
        found = []
        for pid in sorted(marked(self._cloud.run.run_id)):
            with contextlib.suppress(OSError):
                if variable.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
        return found

    def _stop_postgres(self) -> None:
        process = self._cloud.postgres.process
        assert process is not None
        process.child.send_signal(signal.SIGQUIT)
        process.child.wait()
        self._cloud.postgres.restart()

    def streaming(self) -> bool:
        """Whether the agent says that it streams."""
        return 'state="streaming"} 1' in fetch(f"{self._cloud.status_page}metrics")

    def make_table(self, name: str) -> None:
        """Makes a table with rows in the source, for the agent to find."""
        with psycopg.connect(self._cloud.dsn()) as session:
            for statement in late(name, 0):
                session.execute(statement.sql.encode(), statement.values)

    def look(self) -> Place:
        """How far the source's log and the event source are."""
        with psycopg.connect(self._cloud.dsn(), autocommit=True) as session:
            found = session.execute("SELECT pg_current_wal_lsn()").fetchone()
            assert found is not None
        return Place(str(found[0]), self._delivered())

    def recovered(self, since: Place) -> bool:
        """Whether all that was written before a death is in Kafka, and the event source delivers again."""
        if not self.streaming() or self._delivered() == since.delivered:
            return False
        query = (
            f"SELECT confirmed_flush_lsn >= '{since.lsn}' FROM pg_replication_slots WHERE slot_name = '{AGENT_SLOT}'"
        )
        try:
            with psycopg.connect(self._cloud.dsn(), autocommit=True) as session:
                return bool((session.execute(query.encode()).fetchone() or [False])[0])
        except psycopg.OperationalError:
            return False

    def _delivered(self) -> int:
        """Records that the event source's present process has delivered."""
        text = fetch(f"http://127.0.0.1:{self._cloud.event_source_port}/metrics")
        return sum(map(int, re.findall(r"^firn_event_source_records_delivered_total\S* (\d+)$", text, re.MULTILINE)))

    def agents(self) -> int:
        """How many agents live."""
        program = str(self._cloud.programs / AGENT).encode()
        commands = (Path(f"/proc/{pid}/cmdline") for pid in marked(self._cloud.run.run_id))
        return sum(command.read_bytes().split(b"\0")[0] == program for command in commands)

    def freeze(self, name: str, most: int = 1) -> list[int]:
        """Stops processes of a part where they stand; gives which."""
        pids = self._pids(name)
        chosen = self._random.sample(pids, min(most, len(pids)))
        self.signal(chosen, signal.SIGSTOP)
        return chosen

    def thaw(self, pids: Sequence[int]) -> None:
        """Lets them go on."""
        self.signal(pids, signal.SIGCONT)

    @staticmethod
    def signal(pids: Sequence[int], number: signal.Signals) -> None:
        """Sends a signal to those that still are."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @contextlib.contextmanager
    def second_event_source(self) -> Iterator[None]:
        """A second event source on the same topics and groups, for a while."""
        name = f"{EVENT_SOURCE}-2"
        process = self._cloud.start_event_source(self._words(), name)
        try:
            yield
        finally:
            del self._supervisor.processes[name]
            process.stop()

    def second_agent(self, seconds: float, frozen_seconds: float = 0) -> int:
        """Starts a second agent; one of the two must halt, and the other is the agent. Gives the exit code.

        With `frozen_seconds` the first stands still meanwhile, and goes on when the second has fenced it.
        """
        # Whoever halts must not come back: a service manager has RestartPreventExitStatus for that.
        first, port = self._supervisor.processes.pop(AGENT), self._cloud.agent_port
        if frozen_seconds:
            first.child.send_signal(signal.SIGSTOP)
        written = first.log.stat().st_size
        self._cloud.agent_port = free_port()
        second = self._cloud.start_agent()
        # Neither is started again while both are there.
        keeper = self._supervisor.keepers.pop(AGENT)
        del self._supervisor.processes[AGENT]
        ended: Process | None = None
        try:
            self._rest(frozen_seconds)
            first.child.send_signal(signal.SIGCONT)
            deadline = time.monotonic() + seconds
            while (ended := _ended(first, second)) is None:
                if time.monotonic() > deadline:
                    raise ServiceError(f"two agents still lived {seconds:.0f} s after the second began")
                self._rest(0.05)
        finally:
            left = second if ended is first else first
            if ended is second:
                self._cloud.agent_port = port
            self._supervisor.processes[AGENT] = left
            self._supervisor.keepers[AGENT] = keeper
        code = ended.child.returncode
        if code != EXIT_HALT or "another agent has taken over" not in ended.log.read_text()[written:]:
            raise ServiceError(f"an agent ended with {code} instead of halting because it is fenced")
        return code

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            self._supervisor.check()
            if time.monotonic() >= end:
                return
            time.sleep(0.05)


def _ended(*processes: Process) -> Process | None:
    return next((process for process in processes if process.child.poll() is not None), None)
