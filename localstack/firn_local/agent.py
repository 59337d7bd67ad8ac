"""The capture agent's configuration, as the local cloud needs it; also an example of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AgentSettings:
    """What differs from one run to the next."""

    source: str
    postgres_port: int
    kafka: str
    bucket: str
    lake_database: str
    endpoint: str
    listen_port: int
    freshness_seconds: int = 2
    partitions: int = 2
    database: str | None = None

    @property
    def slot(self) -> str:
        """The agent's slot, and its publication."""
        return f"firn_{self.source}"

    @property
    def metrics(self) -> str:
        """Address of its metrics."""
        return f"http://127.0.0.1:{self.listen_port}/metrics"

    def write(self, path: Path) -> Path:
        """Writes the configuration file."""
        path.write_text(f"""# The agent of this run: how a configuration looks.
[source]
name = "{self.source}"
host = "127.0.0.1"
port = {self.postgres_port}
user = "postgres"
database = "{self.database or self.source}"
slot = "{self.slot}"
tables = ["public.*"]

[kafka]
bootstrap_servers = "{self.kafka}"

[lake]
bucket = "{self.bucket}"
database = "{self.lake_database}"
freshness_seconds = {self.freshness_seconds}

[object_store]
endpoint = "{self.endpoint}"
path_style = true

[topics]
partitions = {self.partitions}
replication_factor = 1

[http]
listen = "127.0.0.1:{self.listen_port}"
""")
        return path
