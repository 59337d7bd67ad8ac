"""`./dev test`: everything that must pass, cheapest first. The last line, `N passed, N failed`, sums up all runners.

Always holds: a failed step does not hide the others, except that nothing runs on a workspace that does not build.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .build import WHOLE, cargo_env, cargo_program
from .console import say
from .deploy import FUNCTIONS, synthesize
from .paths import ROOT, VENV
from .processes import ServiceError, Supervisor
from .provision import node_modules, tool_env
from .runs import Run
from .services import CREDENTIALS, Ministack, Moto

HERE = Path(__file__).parent
DEMO_SECONDS = "20s"
# Advisories need a database that is no package of a registry.
DENIED = ("bans", "licenses", "sources")


@dataclass
class Count:
    """Tests that a step ran."""

    passed: int = 0
    failed: int = 0

    def add(self, other: Count) -> None:
        """Adds another step's tests."""
        self.passed += other.passed
        self.failed += other.failed


def run(command: Sequence[str | Path], env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> tuple[int, str]:
    """Runs a program, shows its output as it comes, and gives exit code and output."""
    lines = []
    with subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        env={**cargo_env(), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return child.returncode, "".join(lines)


def whole(code: int) -> Count:
    """A step that passes or fails as one."""
    return Count(passed=int(code == 0), failed=int(code != 0))


def counted(code: int, output: str, passed: str, failed: str) -> Count:
    """The tests that a runner's closing lines name; a runner that fails without naming a failed test counts as one."""
    count = Count(*(sum(map(int, re.findall(pattern, output))) for pattern in (passed, failed)))
    if code != 0 and count.failed == 0:
        count.failed = 1
    return count


def format_check() -> Count:
    """rustfmt and ruff."""
    count = whole(run([cargo_program(), "fmt", "--all", "--check"])[0])
    ruff = VENV / "bin" / "ruff"
    for words in (["check"], ["format", "--check"]):
        count.add(whole(run([ruff, *words, "--no-cache", ROOT / "localstack"])[0]))
    return count


def lint() -> Count:
    """Clippy over the workspace, without checking its dependencies a second time."""
    driver = subprocess.run(["rustup", "which", "clippy-driver"], capture_output=True, text=True, cwd=ROOT)
    if driver.returncode:
        raise ServiceError("clippy is missing: rustup component add clippy rustfmt")
    env = {
        "RUSTC_WORKSPACE_WRAPPER": str(HERE / "clippy-wrapper"),
        "FIRN_CLIPPY_DRIVER": driver.stdout.strip(),
        "FIRN_NO_LINKER": str(HERE / "no-linker"),
    }
    return whole(run([cargo_program(), "build", *WHOLE, "--keep-going"], env)[0])


def build() -> Count:
    """The workspace, as the demo has it."""
    return whole(run([cargo_program(), "build", *WHOLE])[0])


def rust_tests() -> Count:
    """All tests of the workspace, with the servers' programs and a local cloud at hand."""
    started = Run.create()
    with Supervisor(started.run_id, started.folder) as supervisor:
        ministack = Ministack(supervisor)
        ministack.start()
        moto = Moto(supervisor)
        moto.start()
        # Not AWS_ENDPOINT_URL: the SDK would prefer it to the endpoint that a test gives.
        endpoints = {"FIRN_AWS_ENDPOINT": ministack.endpoint, "FIRN_MOTO_ENDPOINT": moto.endpoint}
        env = {**tool_env(), **CREDENTIALS, **endpoints}
        code, output = run(
            [
                cargo_program(),
                "nextest",
                "run",
                "--workspace",
                "--locked",
                "--no-fail-fast",
                "--color=never",
                "--status-level=fail",
                "--final-status-level=fail",
                "--hide-progress-bar",
            ],
            env,
        )
    summary = "".join(line for line in output.splitlines() if line.strip().startswith("Summary ["))
    return counted(code, summary, r"(\d+) passed", r"(\d+) (?:failed|timed out)")


def documentation() -> Count:
    """Doc tests, and rustdoc's warnings as errors, from the same build."""
    env = {"RUSTDOC": str(HERE / "rustdoc-wrapper"), "FIRN_RUSTDOC_OUT": str(Run.current().folder / "doc")}
    code, output = run([cargo_program(), "test", "--doc", "--workspace", "--locked", "--no-fail-fast"], env)
    count = counted(code, output, r"test result: .* (\d+) passed", r"test result: .* (\d+) failed")
    count.passed += code == 0
    return count


def dependencies() -> Count:
    """No unused dependency; bans, licenses and sources as deny.toml says."""
    count = whole(run([cargo_program(), "shear"])[0])
    count.add(whole(run([cargo_program(), "deny", "--log-level", "error", "--offline", "check", *DENIED])[0]))
    return count


def python_tests() -> Count:
    """The comparison's own tests."""
    code, output = run([VENV / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "localstack/tests"])
    return counted(code, output, r"(\d+) passed", r"(\d+) failed")


def infrastructure() -> Count:
    """The CDK app: types, assertions, synthesis, cfn-lint."""
    folder = Run.create().folder
    bootstraps = folder / "bootstraps"
    for name in FUNCTIONS:
        (bootstraps / f"firn-{name}").mkdir(parents=True)
        (bootstraps / f"firn-{name}" / "bootstrap").write_bytes(b"")
    app = node_modules(ROOT / "infra" / "cdk")
    npm = VENV / "bin" / "npm"
    count = whole(run([npm, "run", "check"], cwd=app)[0])
    code, output = run([npm, "test"], cwd=app)
    count.add(counted(code, output, r"(?:ℹ|#) pass (\d+)", r"(?:ℹ|#) fail (\d+)"))
    cluster = "arn:aws:kafka:us-east-1:111122223333:cluster/shop/00000000-0000-0000-0000-000000000000-1"
    assembly = synthesize(
        folder, {"bootstraps": str(bootstraps), "clusterArn": cluster, "topics": ["shop.public.orders"]}
    )
    template = assembly / "FirnStack.template.json"
    count.add(whole(run([VENV / "bin" / "cfn-lint", "--non-zero-exit-code", "error", template])[0]))
    return count


def debezium_consumer() -> Count:
    """Kafka Connect with Debezium's ExtractNewRecordState on a topic of the agent's."""
    return whole(run([VENV / "bin" / "python", ROOT / "localstack" / "debezium_consumer.py"])[0])


def short_demo() -> Count:
    """The whole pipeline, compared change for change."""
    return whole(run([ROOT / "dev", "demo", "--no-build", "--for", DEMO_SECONDS])[0])


STEPS: dict[str, Callable[[], Count]] = {
    "format": format_check,
    "python": python_tests,
    "dependencies": dependencies,
    "clippy": lint,
    "build": build,
    "tests": rust_tests,
    "documentation": documentation,
    "infrastructure": infrastructure,
    "debezium": debezium_consumer,
    "demo": short_demo,
}


def gate(only: Sequence[str] | None) -> int:
    """Runs the steps; gives the exit code."""
    unknown = set(only or ()) - set(STEPS)
    if unknown:
        raise SystemExit(f"dev: no such step: {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}")
    total, failed_steps = Count(), []
    for name, step in STEPS.items():
        if only and name not in only:
            continue
        say(f"test: {name}")
        begin = time.monotonic()
        try:
            count = step()
        except ServiceError as error:
            say(str(error))
            count = Count(failed=1)
        say(f"test: {name}: {count.passed} passed, {count.failed} failed, {time.monotonic() - begin:.0f} s")
        total.add(count)
        if count.failed:
            failed_steps.append(name)
            if name == "build":
                break
    if failed_steps:
        say(f"failed: {', '.join(failed_steps)}")
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    return 1 if total.failed or not total.passed else 0
