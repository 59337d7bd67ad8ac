"""How long after a fault commits come again, held against the bar. Pure but for the clock.

Flow: moments of commits as the proxy saw them + the moment at which a fault's cause ended -> seconds, by kind of fault.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

Commit = tuple[float, str]
# A table that committed so often in so many seconds before a fault is expected to go on.
BUSY_COMMITS, BUSY_SECONDS = 2, 20.0


def busy(commits: Iterable[Commit], moment: float) -> set[str]:
    """The tables that the workload keeps writing."""
    counts = Counter(table for when, table in commits if moment - BUSY_SECONDS <= when <= moment)
    return {table for table, count in counts.items() if count >= BUSY_COMMITS}


def after(commits: Iterable[Commit], ended: float, tables: set[str]) -> tuple[float | None, float | None]:
    """Seconds until any table committed, and until each of `tables` had; None if that has not come."""
    first: dict[str, float] = {}
    for when, table in commits:
        if when > ended:
            first.setdefault(table, when - ended)
    soonest = min(first.values(), default=None)
    every = max((first[table] for table in tables), default=soonest) if tables <= set(first) else None
    return soonest, every


@dataclass
class Recovery:
    """What was measured, by kind of fault."""

    seconds_max: float
    any_table: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    every_table: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, any_table: float, every_table: float) -> None:
        """One fault."""
        self.any_table[kind].append(any_table)
        self.every_table[kind].append(every_table)

    @property
    def faults(self) -> int:
        """Faults measured."""
        return sum(map(len, self.any_table.values()))

    @property
    def in_time(self) -> bool:
        """Whether after every fault the next commit came within the bar."""
        return all(seconds <= self.seconds_max for times in self.any_table.values() for seconds in times)

    def show(self) -> None:
        """Prints it as a table."""
        print(f"{'fault':36} {'count':>5} {'next commit after':>20} {'every busy table':>20}  seconds: median, longest")
        for kind in sorted(self.any_table):
            cells = [
                f"{statistics.median(times):11.1f} {max(times):8.1f}"
                for times in (self.any_table[kind], self.every_table[kind])
            ]
            print(f"{kind:36} {len(self.any_table[kind]):5} {' '.join(cells)}")
