"""`./dev simulate`: production code under every fault that a seed draws, and its mutants, which must all be caught.

Flow: release build of `tests/simulation` -> `simulate`; with `--mutants`: scratch copy of the tree -> one patch ->
build -> `simulate` until it is caught -> the patch taken back -> the next.

Always holds: a mutant is a patch of production code, in `tests/simulation/mutants`; the tree itself is never changed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .build import cargo_env, cargo_program
from .console import say, step
from .gate import run
from .paths import CACHE, ROOT, TARGET_RELEASE

MUTANTS = ROOT / "tests" / "simulation" / "mutants"
# Within how many seeds each mutant must be caught.
MUTANT_SEEDS = 1000


def simulate(seeds: int, first: int, mutants: bool) -> int:
    """Runs seeds, or shows that mutants are caught."""
    if mutants:
        return _mutants(first)
    with step("the simulator (the first time about ten minutes on two cores)"):
        if _build(ROOT):
            return 1
    return run([TARGET_RELEASE / "release" / "simulate", "--seeds", str(seeds), "--from", str(first)])[0]


def _build(tree: Path) -> int:
    own = {
        "CARGO_TARGET_DIR": str(TARGET_RELEASE),
        "RUSTC_WORKSPACE_WRAPPER": str(tree / "localstack" / "firn_local" / "rustc-wrapper"),
    }
    words = ["build", "--release", "--locked", "--package", "simulation"]
    return subprocess.run([cargo_program(), *words], cwd=tree, env=cargo_env(own)).returncode


def _copy(tree: Path) -> None:
    """The tree as it stands, with what is not committed; times are kept, so that the unchanged is not built anew."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    shutil.rmtree(tree, ignore_errors=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def _patch(tree: Path, patch: Path, *words: str) -> bool:
    command = ["git", "apply", *words, str(patch)]
    # Outside of any repository, so that paths are the tree's own.
    return subprocess.run(command, cwd=tree, env={**cargo_env(), "GIT_DIR": "/dev/null"}).returncode == 0


def _mutants(first: int) -> int:
    tree = CACHE / "mutants" / "firn"
    _copy(tree)
    missed = []
    patches = sorted(MUTANTS.glob("*.patch"))
    for patch in patches:
        if not _patch(tree, patch):
            say(f"{patch.stem}: the patch does not apply any more")
            missed.append(patch.stem)
            continue
        built = _build(tree) == 0
        code, output = 0, "it does not build"
        if built:
            words = ["--seeds", str(MUTANT_SEEDS), "--from", str(first), "--no-shrink"]
            code, output = run([TARGET_RELEASE / "release" / "simulate", *words])
        caught = code != 0
        say(f"{patch.stem}: {'caught' if caught else 'MISSED'}: {output.splitlines()[0] if output else ''}")
        if not caught:
            missed.append(patch.stem)
        _patch(tree, patch, "--reverse")
    say(f"{len(patches) - len(missed)} of {len(patches)} mutants caught")
    return 1 if missed else 0
