"""The whole pipeline on this machine: servers, the deployed stack, the event source and the agent.

Flow: PostgreSQL -> capture-agent -> Kafka -> event-source -> firn-ingest, firn-commit, firn-ddl in the local cloud.
"""

from __future__ import annotations

import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from .agent import AgentSettings
from .console import step
from .deploy import Stack, deploy
from .lake import Lake
from .paths import BINARIES
from .processes import Process, Supervisor
from .proxy import Proxy
from .runs import Run
from .services import Kafka, Ministack, Postgres, free_port

DATABASE = SOURCE = "shop"
AGENT_SLOT = "firn_shop"


class Cloud:
    """All parts of one run."""

    def __init__(self, run: Run, supervisor: Supervisor, proxy: Proxy | None = None) -> None:
        """With a proxy, S3 and Glue are reached through it, and failpoints can be armed."""
        self.run, self._supervisor, self.proxy = run, supervisor, proxy
        self.postgres, self.kafka = Postgres(supervisor), Kafka(supervisor)
        self.ministack = Ministack(supervisor)
        self.stack: Stack | None = None
        self.agent_port, self.event_source_port = free_port(), free_port()
        # Of each table's topic; an agent that starts again adds what is missing.
        self.partitions = 2

    @property
    def status_page(self) -> str:
        """Address of the agent's status page."""
        return f"http://127.0.0.1:{self.agent_port}/"

    @property
    def lake(self) -> Lake:
        """The lake of the deployed stack."""
        assert self.stack is not None, "deployed first"
        disk = self.ministack.objects if self.proxy else None
        return Lake(self.ministack.endpoint, self.stack.bucket, self.stack.database, disk)

    def dsn(self) -> str:
        """The source database."""
        return self.postgres.dsn(DATABASE)

    def start_servers(self) -> None:
        """PostgreSQL, Kafka and the local cloud with firn's stack, at the same time."""
        with step("PostgreSQL, Kafka, local cloud, firn's stack"), ThreadPoolExecutor() as pool:
            waiting = [pool.submit(part) for part in (self._start_postgres, self.kafka.start, self._start_cloud)]
            for part in waiting:
                part.result()
        assert self.stack is not None
        self.run.publish(
            endpoint=self.ministack.endpoint,
            bucket=self.stack.bucket,
            database=self.stack.database,
            kafka=self.kafka.bootstrap,
            postgres=self.dsn(),
            status_page=self.status_page,
        )

    def _start_postgres(self) -> None:
        self.postgres.start()
        with psycopg.connect(self.postgres.dsn(), autocommit=True) as session:
            session.execute(f"CREATE DATABASE {DATABASE}")

    def _start_cloud(self) -> None:
        if self.proxy is not None:
            self.proxy.start(self.ministack.port)
        self.ministack.start(self._chaos_env())
        self.stack = deploy(self.run.folder, self.ministack.endpoint)
        self.programs.mkdir()
        for name in ("capture-agent", "event-source"):
            shutil.copy2(BINARIES / name, self.programs)

    @property
    def programs(self) -> Path:
        """The run's own copies: what is started again is what was started first, whatever is built meanwhile."""
        return self.run.folder / "programs"

    def _chaos_env(self) -> dict[str, str]:
        """What the functions inherit beside the cloud's own address."""
        if self.proxy is None:
            return {}
        services = {f"AWS_ENDPOINT_URL_{service}": self.proxy.endpoint for service in ("S3", "GLUE")}
        return {"FIRN_FAILPOINT_FOLDER": str(self.failpoint_folder), **services}

    def start_event_source(self, extra: Sequence[str] = (), name: str = "event-source") -> Process:
        """Starts the stand-in for Lambda's Kafka event source mapping; one of another name takes any port."""
        assert self.stack is not None
        port = self.event_source_port if name == "event-source" else 0
        return self._supervisor.start(
            name,
            [
                self.programs / "event-source",
                "--bootstrap-servers",
                self.kafka.bootstrap,
                "--bucket",
                self.stack.bucket,
                "--function",
                self.stack.ingest_function,
                "--listen",
                f"127.0.0.1:{port}",
                *extra,
            ],
            self._env(),
        )

    def start_agent(self) -> Process:
        """Writes the agent's configuration and starts it."""
        assert self.stack is not None
        settings = AgentSettings(
            source=SOURCE,
            postgres_port=self.postgres.port,
            kafka=self.kafka.bootstrap,
            bucket=self.stack.bucket,
            lake_database=self.stack.database,
            endpoint=(self.proxy or self.ministack).endpoint,
            listen_port=self.agent_port,
            partitions=self.partitions,
        )
        config = settings.write(self.run.folder / "agent.toml")
        return self._supervisor.start(
            "capture-agent", [self.programs / "capture-agent", "run", "--config", config], self._env()
        )

    def _env(self) -> dict[str, str]:
        return {"RUST_LOG": os.environ.get("RUST_LOG", "info"), **self.ministack.client_env(), **self._chaos_env()}

    def check(self) -> None:
        """Raises if any part has ended by itself."""
        self._supervisor.check()

    @property
    def failpoint_folder(self) -> Path:
        """Where a file arms a failpoint of a running process."""
        return self.run.folder / "failpoints"

    def spare(self, names: Sequence[str]) -> None:
        """Names the parts that may end: whoever kills them revives them."""
        self._supervisor.spared = frozenset(names)

    def alive(self, name: str) -> bool:
        """Whether a part runs."""
        return self._supervisor.processes[name].child.poll() is None

    def pid(self, name: str) -> int:
        """Process id of a part."""
        return self._supervisor.processes[name].pid

    def wait_for_streaming(self, timeout_seconds: float = 120) -> None:
        """Waits until the agent has copied the tables and streams."""

        def streaming() -> bool:
            return 'firn_agent_state{source="shop",state="streaming"} 1' in fetch(f"{self.status_page}metrics")

        self._supervisor.wait_until(streaming, "the agent to copy the tables and stream", timeout_seconds)

    def wait(self, ready, what: str, timeout_seconds: float) -> None:
        """Waits for a condition while watching all parts."""
        self._supervisor.wait_until(ready, what, timeout_seconds)


def fetch(url: str) -> str:
    """Text of a local page; empty while nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except (OSError, urllib.error.URLError):
        return ""
