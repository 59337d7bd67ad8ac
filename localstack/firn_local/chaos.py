"""Kills every part of the pipeline while it works, so that the comparison at the end proves something.

Flow: `demo --chaos N` -> here: each named failpoint once, then N kills at random, then everything is left to recover.

Always holds: a kill is SIGKILL, as a crash is. Agent, broker and event source come back at once on what they had on disk;
the local cloud starts functions anew by itself. PostgreSQL and the local cloud stay: they are the world.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from .cloud import Cloud
from .paths import ROOT
from .processes import marked

FAULTS = "duplicate=0.05,recut=0.05,late=0.02,abandon=0.02"
KEPT = ("capture-agent", "event-source", "kafka")
# How often each part is the victim: the broker takes longest to come back.
WEIGHTS = {"capture-agent": 6, "event-source": 4, "kafka": 1, "firn-ingest": 6, "firn-commit": 3, "firn-ddl": 2}
# Every commit to Kafka reaches these: armed while the tables are copied, they would hide those of the copy.
LATE = ("agent.after_produce", "agent.before_commit", "agent.after_commit", "agent.after_acknowledge")


def failpoints() -> list[str]:
    """Names of all failpoints, from the sources that define them."""
    found: list[str] = []
    for folder in ("capture-agent", "crates", "functions"):
        for path in sorted((ROOT / folder).glob("**/failpoints.rs")):
            found += re.findall(r'^pub const \w+: &str = "(\w+\.\w+)";', path.read_text(), re.MULTILINE)
    return found


class Chaos:
    """Kills and revives in a thread of its own."""

    def __init__(self, cloud: Cloud, seed: int, kills: int) -> None:
        self._cloud, self._kills = cloud, kills
        self._random = random.Random(f"{seed}/chaos")
        self._folder = cloud.failpoint_folder
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._revive: dict[str, Callable[[], object]] = {}
        self.deaths: Counter[str] = Counter()
        self.armed = failpoints()
        self.failure: BaseException | None = None

    def arm_early(self) -> None:
        """Arms the failpoints, each one death of whoever reaches it first. Called before the agent starts."""
        self._folder.mkdir(mode=0o755, exist_ok=True)
        self._arm([name for name in self.armed if name not in LATE])

    def _arm(self, names: Iterable[str]) -> None:
        for name in names:
            (self._folder / name).touch()

    def keep(self, revive: dict[str, Callable[[], object]]) -> None:
        """Starts reviving what dies."""
        self._revive = revive
        self._cloud.spare(KEPT)
        self._spawn(self._keep)

    def start_kills(self, seconds: float) -> None:
        """Arms the other failpoints and starts the random kills, spread over the time that is left."""
        self._arm(LATE)
        self._spawn(lambda: self._kill_at_random(seconds))

    def stop(self) -> None:
        """Ends the killing; what failpoints are left are disarmed, and all parts live again."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        self._reach_count()
        for name in self.unreached():
            (self._folder / name).unlink(missing_ok=True)
        for name in KEPT:
            if not self._cloud.alive(name):
                self._revive[name]()
        self._cloud.spare(())
        if self.failure is not None:
            raise self.failure

    def unreached(self) -> list[str]:
        """Failpoints at which nothing has died yet."""
        return [name for name in self.armed if (self._folder / name).exists()]

    def report(self) -> None:
        """Prints how often each part died, and where."""
        for name, count in sorted(self.deaths.items()):
            print(f"  died {count:3} times: {name}")
        for name in self.armed:
            if not self.deaths[name]:
                print(f"  never reached: {name}")

    def _reach_count(self) -> None:
        waiting = set(self.unreached())
        for name in self.armed:
            if name not in waiting and not self.deaths[name]:
                self.deaths[name] = 1

    def _spawn(self, body: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                body()
            except BaseException as error:
                self.failure = self.failure or error

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _keep(self) -> None:
        while not self._stopping.wait(0.2):
            for name in KEPT:
                if not self._cloud.alive(name):
                    self._revive[name]()

    def _kill_at_random(self, seconds: float) -> None:
        pause = seconds / (self._kills + 1)
        for _number in range(self._kills):
            if self._stopping.wait(self._random.uniform(0.5, 1.5) * pause):
                return
            names = [name for name in WEIGHTS if self._victims(name)]
            if not names:
                continue
            name = self._random.choices(names, [WEIGHTS[name] for name in names])[0]
            for pid in self._victims(name)[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.deaths[f"{name} (at random)"] += 1

    def _victims(self, name: str) -> list[int]:
        if name in KEPT:
            return [self._cloud.pid(name)] if self._cloud.alive(name) else []
        mark = f"AWS_LAMBDA_FUNCTION_NAME={name}".encode()
        found = []
        for pid in marked(self._cloud.run.run_id):
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
        self._random.shuffle(found)
        return found
