"""Where things are: the repository, the cache outside it, the state of runs.

Always holds: nothing is written into the repository. PostgreSQL refuses to run as root, so for root its programs and
every run's folder lie where an unprivileged user can reach them.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(os.environ.get("FIRN_ROOT") or Path(__file__).resolve().parents[2])
CACHE = Path(os.environ.get("FIRN_CACHE") or Path.home() / ".cache" / "firn")
VENV = CACHE / "venv"
PACKAGE_VENV = CACHE / "venv-package"
MOTO_VENV = CACHE / "venv-moto"
TARGET = CACHE / "target"
TARGET_RELEASE = CACHE / "target-release"
BINARIES = TARGET / "debug"


@dataclass(frozen=True)
class Account:
    """The user that PostgreSQL runs as, where that is not the caller."""

    uid: int
    gid: int


def postgres_account() -> Account | None:
    """`postgres` or `nobody` for root, None for everybody else."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise SystemExit("dev: PostgreSQL refuses root, and there is neither a user postgres nor nobody")


def _reachable(folder: Path) -> bool:
    folder.mkdir(parents=True, exist_ok=True)
    return all(part.stat().st_mode & stat.S_IXOTH for part in (folder, *folder.parents))


def state_folder() -> Path:
    """Folder of PostgreSQL's programs and of the runs: the cache, or `/var/tmp/firn-root` if the cache is closed."""
    if os.geteuid() != 0 or _reachable(CACHE):
        return CACHE
    folder = Path("/var/tmp/firn-root")
    folder.mkdir(mode=0o755, exist_ok=True)
    return folder


def runs_folder() -> Path:
    """Folder that holds one folder per run, and `current`, a link to the last."""
    folder = state_folder() / "run"
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder
