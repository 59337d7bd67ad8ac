"""What the script says, and how: one line per step, to standard error where output is data."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(text: str) -> None:
    """A line for the person at the terminal."""
    print(f"dev: {text}", file=sys.stderr, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Says what begins, and how long it took if that was worth saying."""
    say(text)
    begin = time.monotonic()
    yield
    took = time.monotonic() - begin
    if took > 3:
        say(f"  {took:.0f} s")


def duration(text: str) -> float:
    """Seconds of `90`, `60s`, `5m` or `1h`."""
    units = {"s": 1, "m": 60, "h": 3600}
    factor = units.get(text[-1:], 0)
    try:
        return float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no duration like 60s, 5m or 1h") from None
