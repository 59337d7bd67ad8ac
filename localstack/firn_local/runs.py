"""One folder per run of the local cloud: logs, data, and what another process must know to talk to it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Any

from .paths import runs_folder

KEEP_RUNS = 6


class Run:
    """A run's folder and the facts it publishes in `run.json`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run_id = folder, folder.name

    @classmethod
    def create(cls) -> Run:
        """A new run; older ones beyond the last few are removed."""
        runs = runs_folder()
        folder = runs / f"{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        folder.mkdir(mode=0o755)
        (folder / "pid").write_text(str(os.getpid()))
        link = runs / f".{folder.name}"
        link.symlink_to(folder.name)
        link.replace(runs / "current")
        old = sorted(entry for entry in runs.iterdir() if entry.is_dir() and not entry.is_symlink())
        for entry in old[:-KEEP_RUNS]:
            if Run(entry).script_pid() is None:
                shutil.rmtree(entry, ignore_errors=True)
        return cls(folder)

    @classmethod
    def beside(cls, other: Run) -> Run:
        """A run inside another's folder, which stays the current one."""
        folder = other.folder / f"later-{secrets.token_hex(2)}"
        folder.mkdir(mode=0o755)
        return cls(folder)

    @classmethod
    def current(cls) -> Run:
        """The last run, which may still be going on."""
        link = runs_folder() / "current"
        if not link.exists():
            raise SystemExit("dev: nothing has run yet; start with ./dev demo")
        return cls(link.resolve())

    def publish(self, **facts: Any) -> None:
        """Adds facts to `run.json`."""
        path = self.folder / "run.json"
        merged = {**self.facts(), **facts}
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(merged, indent=1))
        temporary.replace(path)

    def facts(self) -> dict[str, Any]:
        """What was published so far."""
        path = self.folder / "run.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def script_pid(self) -> int | None:
        """Id of the script that owns the run, if it is alive."""
        try:
            pid = int((self.folder / "pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if b"firn_local" in command else None
