"""`./dev doctor`: what this machine lacks, and how to get it. Standard library only: it runs before all else."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from .paths import CACHE, ROOT

DISK_GB = 12
MEMORY_GB = 4


def _rust() -> str | None:
    rustup = shutil.which("rustup") or shutil.which("rustup", path=str(Path.home() / ".cargo" / "bin"))
    if rustup is None:
        return "Rust is missing: install rustup (https://rustup.rs), then open a new shell"
    channel = re.search(r'channel = "([^"]+)"', (ROOT / "rust-toolchain.toml").read_text())
    wanted = channel.group(1) if channel else ""
    have = subprocess.run([rustup, "toolchain", "list"], capture_output=True, text=True, cwd="/").stdout
    if wanted not in have:
        return (
            f"toolchain {wanted} is missing: rustup toolchain install {wanted} --component rustfmt --component clippy"
        )
    return None


def _program(name: str, package: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(name) else f"{name} is missing: apt install {package}"


def _python() -> str | None:
    if sys.version_info < (3, 10):  # noqa: UP036 - said in words rather than by a syntax error
        return f"Python {sys.version.split()[0]} is too old: 3.10 or later, apt install python3"
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "Python's venv is missing: apt install python3-venv"
    return None


def _disk() -> str | None:
    folder = CACHE
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    used = sum(path.stat().st_size for path in CACHE.rglob("*") if path.is_file()) / 1e9 if CACHE.exists() else 0
    if free + used < DISK_GB:
        return f"{free:.0f} GB free at {folder}; about {DISK_GB} are needed (FIRN_CACHE moves the cache)"
    return None


def _memory() -> str | None:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return None if pages >= MEMORY_GB else f"{pages:.1f} GB of memory; {MEMORY_GB} are needed"


def _loopback() -> str | None:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return None
    except OSError as error:
        return f"no port of the loopback address can be had: {error}"


def _processor() -> str | None:
    machine = os.uname()
    if machine.sysname != "Linux":
        return f"{machine.sysname}: only Linux is supported (processes are supervised by prctl and /proc)"
    return None


CHECKS: dict[str, Callable[[], str | None]] = {
    "Linux": _processor,
    "Rust": _rust,
    "C compiler": _program("cc", "build-essential"),
    "make": _program("make", "build-essential"),
    "Python 3.10": _python,
    "loopback ports": _loopback,
    "disk": _disk,
    "memory": _memory,
}


def problems() -> Iterator[str]:
    """Prints each check; gives what is missing."""
    for name, check in CHECKS.items():
        problem = check()
        print(f"{'ok     ' if problem is None else 'MISSING'}  {name}{'' if problem is None else f': {problem}'}")
        if problem is not None:
            yield problem


if __name__ == "__main__":
    sys.exit(1 if list(problems()) else 0)
