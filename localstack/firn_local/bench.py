"""`./dev bench`: what the agent and the way into a file cost, beside a floor, in the same run; and what commits cost.

`agent` is `bench_agent`. `ingest` is the Rust program `bench` alone, in process. `commit` is the Rust program
`bench-commit`: all that it can measure, or the one that is named behind it; it fails if something is above its bar.

Always holds: the programs are those of the release profile, in a target folder of their own; the machine may be busy,
so CPU time counts and not wall time.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .bench_agent import TABLES, AgentBench, Options
from .build import cargo
from .console import step
from .gate import run
from .paths import TARGET_RELEASE

PACKAGES = {
    "agent": ("bench", "capture-agent"),
    "ingest": ("bench", "capture-agent"),
    "commit": ("bench-commit",),
}
COMMIT = (["requests"], ["flat"], ["load"])


def bench(what: str, rest: Sequence[str]) -> int:
    """Measures one thing; `rest` is for it."""
    options = _options(rest) if what == "agent" else None
    programs = _released(PACKAGES[what])
    if programs is None:
        return 1
    if what == "commit":
        return max(run([programs / "bench-commit", *words])[0] for words in ([rest] if rest else COMMIT))
    if options is None:
        return run([programs / "bench", "ingest", *rest])[0]
    return AgentBench(programs, options).run()


def model(only: Sequence[str]) -> int:
    """Searches the protocol's model: all of it, or what is named."""
    programs = _released(["model"])
    return 1 if programs is None else run([programs / "model", *only])[0]


def _released(packages: Sequence[str]) -> Path | None:
    with step("release programs (the first time about fifteen minutes on two cores)"):
        words = [word for name in packages for word in ("--package", name)]
        if cargo("build", "--release", "--locked", *words, env={"CARGO_TARGET_DIR": str(TARGET_RELEASE)}).returncode:
            return None
    return TARGET_RELEASE / "release"


def _options(rest: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="dev bench agent", description="the capture path beside pg_recvlogical")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the narrow table; the wide one has a fifth")
    parser.add_argument("--runs", type=int, default=3, help="of each reader, in turns; least and median are printed")
    parser.add_argument("--table", choices=TABLES, action="append", help="only this table")
    arguments = parser.parse_args(rest)
    return Options(arguments.rows, arguments.runs, arguments.table or list(TABLES))
