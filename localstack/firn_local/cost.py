"""What a reader of a replication slot costs: CPU time and memory of the reader and of its walsender, from /proc.

Always holds: a reader that ends is looked at once more before it is reaped, so nothing of its CPU time is missed; a
walsender, which PostgreSQL reaps, is missed by one interval at most.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

TICKS = os.sysconf("SC_CLK_TCK")
LOOK_SECONDS = 0.02
TIMEOUT_SECONDS = 900


@dataclass(frozen=True)
class Cost:
    """What one run of a reader took."""

    wall_seconds: float
    reader_seconds: float
    walsender_seconds: float
    peak_bytes: int


def measure(session: psycopg.Connection[tuple[object, ...]], slot: str, pid: int, done: Callable[[], bool]) -> Cost:
    """Watches a reader until it is done. Wall time runs from the moment that the slot is in use."""
    begin = time.monotonic()
    deadline = begin + TIMEOUT_SECONDS
    sender: int | None = None
    sender_seconds, peak = 0.0, 0
    while not done():
        if sender is None and (sender := _walsender(session, slot)) is not None:
            begin = time.monotonic()
        if sender is not None:
            sender_seconds = max(sender_seconds, cpu_seconds(sender))
        peak = max(peak, peak_bytes(pid))
        if time.monotonic() > deadline:
            raise SystemExit(f"dev: the reader of {slot} did not reach the end in {TIMEOUT_SECONDS} s")
        time.sleep(LOOK_SECONDS)
    return Cost(time.monotonic() - begin, cpu_seconds(pid), sender_seconds, peak)


def _walsender(session: psycopg.Connection[tuple[object, ...]], slot: str) -> int | None:
    row = session.execute("SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", (slot,)).fetchone()
    return int(str(row[0])) if row and row[0] is not None else None


def has_ended(pid: int) -> bool:
    """Whether a child has ended and waits to be reaped."""
    return _stat(pid)[0] == "Z"


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, of all its threads; 0 if it is gone."""
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_bytes(pid: int) -> int:
    """Most memory that a process ever held; 0 if it is gone, or has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _stat(pid: int) -> list[str]:
    # The second field is the program's name in parentheses, which may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
