"""The short form of `./dev chaos`: every failpoint once, and kills at random, in an order that the seed gives."""

from __future__ import annotations

import time
from collections.abc import Callable

from . import failpoints
from .cloud import SOURCE
from .console import say
from .kafkalog import Aborted, aborted
from .storm import DEED_SECONDS_MAX, Storm
from .victims import AGENT, EVENT_SOURCE, Place

# Of the random kills, so that no seed leaves one out.
AT_LEAST = {AGENT: 3, EVENT_SOURCE: 3, "kafka": 2, "postgres": 2, "firn-ingest": 2, "firn-commit": 1, "firn-ddl": 1}
WEIGHTS = {AGENT: 5, EVENT_SOURCE: 4, "kafka": 1, "postgres": 1, "firn-ingest": 5, "firn-commit": 3, "firn-ddl": 2}
# Where the failpoints of a process are named otherwise than itself.
PARTS = {"agent": AGENT, "ingest": "firn-ingest"}
PAUSE_SECONDS = (0.2, 3.0)
# A death may come while another part is still down.
WAITS_FOR_RECOVERY = 0.7


class Deaths(Storm):
    """The deaths of one run, and what came of them."""

    def rage(self) -> None:
        """All deaths but those of the copy; no shorter than was asked for."""
        begin = time.monotonic()
        deeds: list[Callable[[], None]] = [self._at_failpoint(key) for key in failpoints.OF_THE_STREAM]
        deeds += [self._at_restart(key) for key in failpoints.OF_A_RESTART]
        deeds += [self._at_raise(key) for key in failpoints.OF_A_RAISE]
        deeds += [self._at_new_table(key) for key in failpoints.OF_A_NEW_TABLE]
        deeds += [self._at_random(name) for name in self._drawn()]
        deeds.append(_named(self._second_agent, "a second agent"))
        self._random.shuffle(deeds)
        for number, deed in enumerate(deeds, 1):
            say(f"{number}/{len(deeds)} after {time.monotonic() - begin:.0f} s: {deed.__name__}")
            deed()
            self._pause(self._random.uniform(*PAUSE_SECONDS))
        self._pause(self._options.seconds - (time.monotonic() - begin))

    def report(self) -> bool:
        """Prints what died where; gives whether nothing was left out."""
        lost: Aborted = aborted(self._cloud.run.folder / "kafka", f"{SOURCE}.", f"{SOURCE}.firn-progress")
        self.tally.show()
        print(f"aborted Kafka transactions: {lost.transactions}, with {lost.records} records")
        wanted = {
            *failpoints.OF_THE_COPY,
            *failpoints.OF_A_RESTART,
            *failpoints.OF_A_RAISE,
            *failpoints.OF_A_NEW_TABLE,
            *failpoints.OF_THE_STREAM,
        }
        left_out = [key for key in sorted(wanted) if not self.tally.deaths[key]]
        for key in left_out:
            print(f"NOT REACHED: {key}")
        kills = sum(self.tally.kills.values())
        enough = kills >= self._options.kills and lost.transactions > 0
        return not left_out and enough and self.tally.survivors == 1

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

    def _at_raise(self, key: str) -> Callable[[], None]:
        restart = self._at_restart(key)

        def die() -> None:
            self._cloud.partitions += 1
            restart()

        return _named(die, f"one partition more, and death at {key}")

    def _at_new_table(self, key: str) -> Callable[[], None]:
        def die() -> None:
            place = self._victims.look()
            self._arm(key)
            self._victims.make_table(key.rpartition(".")[2])
            self._await_death(key)
            self._come_back(AGENT, place)

        return _named(die, f"new table, and death at {key}")

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
        self.tally.fenced = f"one of the two exits with {code} after {time.monotonic() - begin:.1f} s"
        self._flow()

    def _come_back(self, name: str, since: Place) -> None:
        if self._random.random() < WAITS_FOR_RECOVERY:
            begin = time.monotonic()
            self._flow(since)
            self.tally.recovery[name].append(time.monotonic() - begin)


def _named(deed: Callable[[], None], name: str) -> Callable[[], None]:
    def named() -> None:
        deed()

    named.__name__ = name
    return named
