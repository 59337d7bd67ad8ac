"""What both forms of `./dev chaos` share: the pipeline under a workload, failpoints, and waiting with open eyes.

Always holds: whoever died comes back at once on what it has on disk, as a service manager would bring it back.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import failpoints
from .cloud import Cloud
from .console import step
from .deploy import client
from .patience import KeepingSupervisor, PatientWorkload
from .processes import ServiceError
from .victims import Place, Tally, Victims

ISOLATIONS = ("read_committed", "read_uncommitted")
FAULTS = "duplicate=0.05,recut=0.05,late=0.02,abandon=0.02"
COPY_SECONDS_MAX = 180.0
DEED_SECONDS_MAX = 120.0
# So long a quiet commit function is waited for before it is called by hand.
SWEEP_AFTER_SECONDS = 5.0


@dataclass(frozen=True)
class ChaosOptions:
    """What the command line says."""

    seconds: float
    minutes: float | None
    seed: int
    rate: float
    build: bool
    kills: int
    isolations: tuple[str, ...]


class Storm:
    """The pipeline of one run, and the ways to make its parts die."""

    def __init__(
        self,
        cloud: Cloud,
        supervisor: KeepingSupervisor,
        workload: PatientWorkload,
        options: ChaosOptions,
        isolations: Sequence[str],
        more: Sequence[str] = (),
    ) -> None:
        self._cloud, self._supervisor, self._workload = cloud, supervisor, workload
        self._options = options
        self._random = random.Random(f"{options.seed}/chaos")
        self.tally = Tally()

        def words() -> list[str]:
            isolation = self._random.choice(isolations)
            return ["--isolation", isolation, "--faults", f"seed={options.seed},{FAULTS}", *more]

        self._victims = Victims(cloud, supervisor, words, self._random)

    def first_start(self) -> None:
        """Starts the pipeline with every failpoint of the copy armed: the agent dies until it has passed them all."""
        with step("the agent copies the tables, and dies at each failpoint on the way"):
            for key in failpoints.OF_THE_COPY:
                self._arm(key)
            self._victims.start()
            self._wait(self._victims.streaming, "the agent to stream", COPY_SECONDS_MAX)
            for key in failpoints.OF_THE_COPY:
                self._await_death(key)

    def calm(self) -> None:
        """Lets all parts come back."""
        with step("all parts come back"):
            self._flow()
        self.tally.survivors = self._victims.agents()

    def _flow(self, since: Place | None = None) -> None:
        """Waits until all parts work: what was written before a moment is in Kafka, and batches are delivered."""
        place = since or self._victims.look()
        self._wait(lambda: self._victims.recovered(place), "records to flow again", DEED_SECONDS_MAX)

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
