"""What lets a run live through deaths on purpose: parts that come back, and applications that connect again."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psycopg

from . import special
from .processes import Supervisor
from .workload import Shopper, Workload

CRASHES = (-signal.SIGKILL, -signal.SIGABRT)
# An error after which a service manager starts the program again.
EXIT_FAILURE = 1
PAUSE_SECONDS = 0.2


class KeepingSupervisor(Supervisor):
    """Starts again what died, at the next look; any other end is an error, as ever."""

    def __init__(self, run_id: str, folder: Path) -> None:
        super().__init__(run_id, folder)
        self.keepers: dict[str, Callable[[], object]] = {}
        self.ends: Counter[tuple[str, int]] = Counter()

    def check(self) -> None:
        """Raises if any child has ended by itself that does not come back."""
        for name, process in list(self.processes.items()):
            code = process.child.poll()
            if code is None or name in self.spared or self.processes[name] is not process:
                continue
            keeper = self.keepers.get(name)
            if keeper is None or code not in (*CRASHES, EXIT_FAILURE):
                process.check()
            else:
                self.ends[name, code] += 1
                keeper()


class PatientWorkload(Workload):
    """A workload whose sessions connect again when the server was away."""

    def _shop(self, shopper: Shopper) -> None:
        while not self._stopping.is_set():
            try:
                super()._shop(shopper)
            except (psycopg.OperationalError, psycopg.InterfaceError):
                self._stopping.wait(PAUSE_SECONDS)

    def _special(self, interval_seconds: float) -> None:
        rounds = special.steps(self._seed)
        statements = next(rounds)
        while not self._stopping.wait(interval_seconds):
            try:
                self._once(statements)
            except (psycopg.errors.DuplicateColumn, psycopg.errors.UndefinedColumn, psycopg.errors.UniqueViolation):
                # It was committed, and only the answer got lost.
                pass
            except (psycopg.OperationalError, psycopg.InterfaceError):
                continue
            statements = next(rounds)

    def _once(self, statements: list[special.Statement]) -> None:
        with psycopg.connect(self._dsn) as session:
            counts = [max(session.execute(one.sql.encode(), one.values).rowcount, 0) for one in statements]
        self._count(sum(counts))
        self.schema_changes += sum(one.sql.startswith("ALTER") for one in statements)
