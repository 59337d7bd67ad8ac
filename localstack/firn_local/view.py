"""The live view of the demo: events a second, lag, the last snapshot of each table; lines without a terminal."""

from __future__ import annotations

import re
import sys
import time

from .cloud import Cloud, fetch
from .workload import Workload

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
LINE_INTERVAL_SECONDS = 5


class View:
    """Reads the agent's metrics and the lake's metadata, and paints them."""

    def __init__(self, cloud: Cloud, workload: Workload) -> None:
        self._cloud, self._workload = cloud, workload
        self._terminal = sys.stdout.isatty()
        self._height = 0
        self._last_line = 0.0
        self._earlier: tuple[float, float, int] | None = None

    def show(self, seconds_left: float | None) -> None:
        """Paints the present state."""
        now = time.monotonic()
        if not self._terminal and now - self._last_line < LINE_INTERVAL_SECONDS:
            return
        self._last_line = now
        samples = _samples(fetch(f"{self._cloud.status_page}metrics"))
        records = sum(value for name, _labels, value in samples if name == "firn_agent_records_total")
        single = {name: value for name, labels, value in samples if "table" not in labels}
        written = self._workload.changes
        earlier, self._earlier = self._earlier or (now, records, written), (now, records, written)
        span = max(now - earlier[0], 1e-9)
        lag = single.get("firn_agent_lag_seconds", 0)
        head = (
            f"{(written - earlier[2]) / span:.0f} changes/s in PostgreSQL, "
            f"{max(records - earlier[1], 0) / span:.0f} records/s in Kafka, "
            f"lag {lag:.1f} s, {self._workload.schema_changes} schema changes"
        )
        left = "" if seconds_left is None else f"   {max(seconds_left, 0):.0f} s left"
        if self._terminal:
            self._paint(
                [head + left, "", *self._table_lines(), "", f"agent {self._cloud.status_page}   Ctrl-C ends it"]
            )
        else:
            tables = self._cloud.lake.summaries()
            rows = sum(summary.rows for summary in tables)
            print(f"{head}   lake {rows} rows in {len(tables)} tables{left}", flush=True)

    def _table_lines(self) -> list[str]:
        lines = [f"{'table of the lake':28} {'rows':>9} {'snapshot':>20} {'seconds ago':>12}"]
        now_ms = time.time() * 1000
        for summary in self._cloud.lake.summaries():
            age = f"{(now_ms - summary.committed_ms) / 1000:.1f}" if summary.committed_ms else ""
            lines.append(f"{summary.lake_name:28} {summary.rows:9} {summary.snapshot_id or '':>20} {age:>12}")
        return lines

    def _paint(self, lines: list[str]) -> None:
        if self._height:
            sys.stdout.write(f"\x1b[{self._height}A")
        sys.stdout.write("".join(f"\x1b[2K{line}\n" for line in lines))
        if self._height > len(lines):
            sys.stdout.write("\x1b[J")
        sys.stdout.flush()
        self._height = len(lines)


def _samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    return [(name, dict(_LABEL.findall(labels or "")), float(value)) for name, labels, value in _SAMPLE.findall(text)]
