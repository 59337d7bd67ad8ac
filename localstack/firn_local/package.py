"""`./dev package`: the functions' bootstraps as they go to AWS, built by cargo-lambda with an old enough libc.

Flow: this -> `target/lambda/firn-*/bootstrap` in the cache -> `infra/cdk` with `-c bootstraps=…`.
"""

from __future__ import annotations

import os

from .build import cargo_env, cargo_program
from .console import say
from .deploy import FUNCTIONS
from .gate import run
from .paths import PACKAGE_VENV, TARGET

SIZE_MB_MAX = 20


def package(arm64: bool) -> int:
    """Builds all functions in the shipping profile and says how large they are."""
    words = ["lambda", "build", "--profile", "lambda", "--locked", *(["--arm64"] if arm64 else [])]
    for name in FUNCTIONS:
        words += ["--package", name]
    path = f"{PACKAGE_VENV / 'bin'}:{os.environ['PATH']}"
    code, _output = run([cargo_program(), *words], {**cargo_env(), "PATH": path})
    if code:
        return code
    folder = TARGET / "lambda"
    for name in FUNCTIONS:
        built, named = folder / name, folder / f"firn-{name}"
        named.mkdir(exist_ok=True)
        (built / "bootstrap").replace(named / "bootstrap")
        size = (named / "bootstrap").stat().st_size / 1e6
        say(f"{named / 'bootstrap'}: {size:.1f} MB" + (" - too large" if size > SIZE_MB_MAX else ""))
    return 0
