"""Builds the Rust programs: one profile and one selection of packages for demo and tests alike.

Always holds: every call takes the whole workspace. `-p one-crate` after a `--workspace` build resolves features anew
and compiles dozens of dependencies again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .console import step
from .paths import ROOT, TARGET

WHOLE = ("--workspace", "--all-targets", "--locked")


def cargo_program() -> str:
    """Path of cargo, also where rustup's folder is not on the search path."""
    found = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if found is None:
        raise SystemExit("dev: Rust is missing; ./dev doctor says how to get it")
    return found


def cargo_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment for cargo: the target folder outside the tree."""
    return {**os.environ, "CARGO_TARGET_DIR": str(TARGET), **(extra or {})}


def cargo(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Runs cargo in the workspace, its output on the terminal."""
    command: Sequence[str] = [cargo_program(), *words]
    return subprocess.run(command, cwd=ROOT, env=cargo_env(env))


def build() -> None:
    """Builds everything that demo and tests need."""
    with step("Rust programs (the first time about ten minutes on two cores)"):
        if cargo("build", *WHOLE).returncode:
            raise SystemExit("dev: the build failed")
