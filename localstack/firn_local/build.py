"""Builds the Rust programs: one profile and one selection of packages for demo and tests alike.

Always holds:
- Every call takes the whole workspace. `-p one-crate` after a `--workspace` build resolves features anew and compiles
  dozens of dependencies again.
- Clones share the target folder, and so the dependencies, but never each other's crates: cargo tells crates of equal
  relative path apart by the wrapper's path alone, and judges what is fresh by times. Without it, a clone could be given
  what another one built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .console import step
from .paths import ROOT, TARGET

WRAPPER = Path(__file__).parent / "rustc-wrapper"
WHOLE = ("--workspace", "--all-targets", "--locked")


def cargo_program() -> str:
    """Path of cargo, also where rustup's folder is not on the search path."""
    found = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if found is None:
        raise SystemExit("dev: Rust is missing; ./dev doctor says how to get it")
    return found


def cargo_env(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment for cargo: the target folder outside the tree, this clone's crates apart."""
    own = {"CARGO_TARGET_DIR": str(TARGET), "RUSTC_WORKSPACE_WRAPPER": str(WRAPPER)}
    return {**os.environ, **own, **(extra or {})}


def cargo(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[bytes]:
    """Runs cargo in the workspace, its output on the terminal."""
    command: Sequence[str] = [cargo_program(), *words]
    return subprocess.run(command, cwd=ROOT, env=cargo_env(env))


def build() -> None:
    """Builds everything that demo and tests need."""
    with step("Rust programs (the first time about ten minutes on two cores)"):
        if cargo("build", *WHOLE).returncode:
            raise SystemExit("dev: the build failed")
