"""Starts and ends processes, and leaves none behind.

Every child has its own process group, dies with this script (parent-death signal) and carries `FIRN_RUN_ID` in its
environment. A guardian process outlives a killed script and ends whatever still carries the mark: grandchildren too,
such as the function processes that ministack leaves when it is killed.

Source: prctl(2), PR_SET_PDEATHSIG; it is set after the change of user, which would clear it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .paths import postgres_account

RUN_ID = "FIRN_RUN_ID"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ServiceError(Exception):
    """A process that did not start, or ended by itself; the text says where its log is."""


def marked(run_id: str) -> list[int]:
    """Ids of all processes that carry the mark of the run; never this one.

    PostgreSQL writes over its environment, so it is known by its data folder.
    """
    mark, folder = f"{RUN_ID}={run_id}".encode(), f"/run/{run_id}/".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            postgres = command.split(b"\0")[0].endswith(b"/postgres") and folder in command
            if postgres or mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def sweep(run_id: str, spare: Sequence[int] = ()) -> int:
    """Ends all processes of the run, gently and then not; gives how many there were."""
    first = [pid for pid in marked(run_id) if pid not in spare]
    _signal(first, signal.SIGTERM)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(pid not in spare for pid in marked(run_id)):
        time.sleep(0.05)
    for _attempt in range(20):
        left = [pid for pid in marked(run_id) if pid not in spare]
        if not left:
            break
        _signal(left, signal.SIGKILL)
        time.sleep(0.05)
    return len(first)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


class Process:
    """One supervised child."""

    def __init__(self, name: str, child: subprocess.Popen[bytes], log: Path, stop: signal.Signals) -> None:
        self.name, self.child, self.log, self._stop = name, child, log, stop

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.child.pid

    def check(self) -> None:
        """Raises if it has ended."""
        if (code := self.child.poll()) is not None:
            raise ServiceError(f"{self.name} ended with {code}; the end of {self.log}:\n{tail(self.log)}")

    def stop(self, patience_seconds: float = 10) -> None:
        """Asks it to end, and ends it if it does not."""
        if self.child.poll() is None:
            self.child.send_signal(self._stop)
            try:
                self.child.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self.child.wait()

    def kill(self) -> None:
        """Ends it as a crash would."""
        self.child.kill()
        self.child.wait()


class Supervisor:
    """Owns all processes of one run; use as a context manager."""

    def __init__(self, run_id: str, folder: Path) -> None:
        self.run_id, self.folder = run_id, folder
        self.processes: dict[str, Process] = {}
        self.spared: frozenset[str] = frozenset()
        self._guardian: subprocess.Popen[bytes] | None = None
        # The parent-death signal follows the thread that started the child: one thread, as old as the supervisor.
        self._spawner = ThreadPoolExecutor(1, "spawner")

    def __enter__(self) -> Supervisor:
        self._guardian = subprocess.Popen(
            [sys.executable, "-m", "firn_local.guardian", self.run_id],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
        )
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _raise_interrupt)
        return self

    def __exit__(self, *_exc: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(list(self.processes.values())):
            process.stop()
        if self._guardian is not None and self._guardian.stdin is not None:
            self._guardian.stdin.close()
            self._guardian.wait()
        self._spawner.shutdown()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        *,
        stop: signal.Signals = signal.SIGTERM,
        as_postgres: bool = False,
    ) -> Process:
        """Starts a child whose output goes to `<name>.log` of the run's folder."""
        account = postgres_account() if as_postgres else None
        log = self.folder / f"{name}.log"
        with log.open("ab") as out:
            child = self._spawner.submit(
                subprocess.Popen,
                [str(word) for word in command],
                env={**os.environ, **(env or {}), RUN_ID: self.run_id},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                preexec_fn=_before_exec(stop if as_postgres else signal.SIGKILL),
            ).result()
        process = Process(name, child, log, stop)
        self.processes[name] = process
        return process

    def check(self) -> None:
        """Raises if any child has ended by itself, but for those that are killed on purpose just now."""
        for name, process in self.processes.items():
            if name not in self.spared:
                process.check()

    def wait_until(self, ready: Callable[[], bool], what: str, timeout_seconds: float = 60) -> None:
        """Waits for a condition while watching that all children live."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ServiceError(f"waited {timeout_seconds:.0f} s for {what}; logs are in {self.folder}")
            time.sleep(0.05)


def _raise_interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _before_exec(on_parent_death: signal.Signals) -> Callable[[], None]:
    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(on_parent_death))

    return prepare


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    with contextlib.suppress(OSError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    return ""
