"""Reads the lake as strangers do: PyIceberg and DuckDB, from the metadata location that Glue names.

Flow: Glue -> metadata location -> rows of a table -> `compare`; both readers -> `agreement`.

Always holds: nothing here knows firn's code; of firn's own it reads only what it documents (`_pos`, `_unavailable`,
`_exact`, schema documents, registrations).
"""

from __future__ import annotations

import bisect
import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import StaticTable

from .deploy import client
from .pgoutput import UNAVAILABLE, Value
from .render import column_texts, plain_values
from .services import CREDENTIALS
from .sourcelog import TableName

FIRST_SOURCE_FIELD_ID = 100
FIRN_COLUMNS = ("_op", "_pos", "_source_ts", "_schema_version", "_unavailable", "_exact")


@dataclass(frozen=True)
class Position:
    """`_pos` taken apart: a streamed change has an ordinal, a copied row a copy, chunk and row number."""

    incarnation: int
    commit_lsn: int
    ordinal: int | None = None
    copy: tuple[int, int, int] | None = None

    @classmethod
    def parse(cls, text: str) -> Position:
        """Reads the hexadecimal text (crates/change-event/src/position.rs)."""
        data = bytes.fromhex(text)
        incarnation, lsn = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:12], "big")
        if data[12] == 1 and len(data) == 21:
            return cls(incarnation, lsn, ordinal=int.from_bytes(data[13:], "big"))
        if data[12] == 0 and len(data) == 29:
            numbers = (data[13:17], data[17:21], data[21:])
            copy_id, chunk, row = (int.from_bytes(number, "big") for number in numbers)
            return cls(incarnation, lsn, copy=(copy_id, chunk, row))
        raise ValueError(f"_pos of {len(data)} bytes in lane {data[12]}")


@dataclass(frozen=True)
class LakeRow:
    """One row of a lake table in the words of the source."""

    op: str
    position: Position
    source_us: int
    version: int
    values: dict[str, Value]
    """By source column name, for the live columns of the row's schema version."""
    stray: tuple[str, ...] = ()
    """Lake columns that hold a value though the row's schema version does not have them."""


@dataclass(frozen=True)
class LakeTable:
    """A table that stands in Glue."""

    name: TableName
    lake_name: str
    topic: str
    source: str
    metadata_location: str


@dataclass(frozen=True)
class Summary:
    """The last snapshot of a table."""

    lake_name: str
    rows: int
    snapshot_id: int | None
    committed_ms: int


class DiskIO(PyArrowFileIO):
    """Reads objects where the local cloud keeps them: the same bytes, without its one thread between."""

    def new_input(self, location: str) -> Any:
        """The object's file; over the network where the name of the key has none."""
        path = Path(self.properties["firn.disk"]) / location.removeprefix("s3://")
        return super().new_input(str(path) if path.is_file() else location)


class Content:
    """All rows of a table: the streamed ones in the order of the log, taken piece by piece, and the copied ones."""

    def __init__(self, arrow: pa.Table, rows: Callable[[pa.Table], list[LakeRow]]) -> None:
        self.arrow, self._rows = arrow, rows
        lanes = pc.utf8_slice_codeunits(arrow["_pos"], 24, 26)
        streamed, self._copied = (arrow.filter(pc.equal(lanes, lane)) for lane in ("01", "00"))
        if len(streamed) + len(self._copied) != len(arrow):
            raise ValueError("a _pos lies in no lane")
        self._streamed = streamed.take(pc.sort_indices(pc.utf8_slice_codeunits(streamed["_pos"], 8)))
        self._places: list[str] = pc.utf8_slice_codeunits(self._streamed["_pos"], 8, 24).to_pylist()
        self._taken = 0

    def versions(self) -> list[int]:
        """Schema versions that its rows have."""
        return sorted(self.arrow["_schema_version"].unique().to_pylist())

    def copy_places(self) -> set[int]:
        """The positions at which the copied rows say that they were copied; one, if all is well."""
        places = pc.utf8_slice_codeunits(self._copied["_pos"], 8, 24).unique().to_pylist()
        return {int(place, 16) for place in places}

    def copied(self) -> list[LakeRow]:
        """The copied rows."""
        return self._rows(self._copied)

    def take(self, end_lsn: int | None) -> list[LakeRow]:
        """The streamed rows up to a position, or all, that were not taken before."""
        begin, end = self._taken, len(self._places)
        if end_lsn is not None:
            end = bisect.bisect_right(self._places, f"{end_lsn:016x}", lo=begin)
        self._taken = end
        return self._rows(self._streamed.slice(begin, end - begin))


class Lake:
    """The lake of one run."""

    def __init__(self, endpoint: str, bucket: str, database: str, disk: Path | None = None) -> None:
        self._endpoint, self._bucket, self._database = endpoint, bucket, database
        self._disk = disk
        self._store, self._glue = client("s3", endpoint), client("glue", endpoint)
        self._summaries: dict[str, Summary] = {}

    def tables(self) -> dict[TableName, LakeTable]:
        """Every registered table that Glue has, by its name in the source."""
        locations: dict[str, str] = {}
        for page in self._glue.get_paginator("get_tables").paginate(DatabaseName=self._database):
            for entry in page["TableList"]:
                locations[entry["Name"]] = entry["Parameters"]["metadata_location"]
        found = {}
        for registration in self._documents("control/registry/"):
            name = (registration["table_schema"], registration["table_name"])
            if (lake_name := registration["lake_table"]) in locations:
                found[name] = LakeTable(
                    name, lake_name, registration["topic"], registration["source"], locations[lake_name]
                )
        return found

    def summaries(self) -> list[Summary]:
        """The last snapshot of every table, by name."""
        return [self._summary(table) for _name, table in sorted(self.tables().items())]

    def _summary(self, table: LakeTable) -> Summary:
        if (known := self._summaries.get(table.metadata_location)) is None:
            metadata = self._open(table).metadata
            snapshot = metadata.current_snapshot()
            count = snapshot.summary["total-records"] if snapshot and snapshot.summary else None
            known = Summary(
                table.lake_name,
                int(count or 0),
                snapshot.snapshot_id if snapshot else None,
                snapshot.timestamp_ms if snapshot else 0,
            )
            self._summaries[table.metadata_location] = known
        return known

    def data_files(self) -> set[str]:
        """Addresses of all files that any snapshot of any table names."""
        named: set[str] = set()
        for table in self.tables().values():
            opened = self._open(table)
            manifests = {}
            for snapshot in opened.snapshots():
                manifests |= {manifest.manifest_path: manifest for manifest in snapshot.manifests(opened.io)}
            for manifest in manifests.values():
                named |= {entry.data_file.file_path for entry in manifest.fetch_manifest_entry(opened.io)}
        return named

    def content(self, table: LakeTable) -> Content:
        """All rows of a table, by PyIceberg."""
        opened = self._open(table)
        current = {field.field_id: field.name for field in opened.schema().fields}

        def rows(part: pa.Table) -> list[LakeRow]:
            found: list[LakeRow] = []
            for version in sorted(set(part["_schema_version"].to_pylist())):
                of_version = part.filter(pc.equal(part["_schema_version"], version))
                found.extend(_rows_of_version(of_version, current, self._schema_document(table, version)))
            return found

        return Content(opened.scan().to_arrow(), rows)

    def column_types(self, table: LakeTable, version: int) -> dict[str, str]:
        """Lake type by source column name, as a version of the schema document says."""
        columns = self._schema_document(table, version)["columns"]
        return {column["name"]: column["column_type"]["type"] for column in columns}

    def late_tables(self, source: str) -> tuple[int, int]:
        """How many tables the agent took in while it streamed, and how many copies they still owe."""
        folder = f"control/agent/{source}/table/"
        keys = [key.removeprefix(folder) for key in self._keys(folder)]
        owed, paid = (sum(f"/{kind}-" in key for key in keys) for kind in ("owed", "paid"))
        return len({key.partition("/")[0] for key in keys}), owed - paid

    def _open(self, table: LakeTable) -> StaticTable:
        properties = {
            "s3.endpoint": self._endpoint,
            "s3.access-key-id": CREDENTIALS["AWS_ACCESS_KEY_ID"],
            "s3.secret-access-key": CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            "s3.region": CREDENTIALS["AWS_REGION"],
        }
        if self._disk is not None:
            properties |= {"py-io-impl": "firn_local.lake.DiskIO", "firn.disk": str(self._disk)}
        return StaticTable.from_metadata(table.metadata_location, properties)

    def _documents(self, prefix: str) -> list[dict[str, Any]]:
        return [self._document(key) for key in self._keys(prefix)]

    def _keys(self, prefix: str) -> list[str]:
        pages = self._store.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def _document(self, key: str) -> dict[str, Any]:
        return json.loads(self._store.get_object(Bucket=self._bucket, Key=key)["Body"].read())

    @cache  # noqa: B019 - a lake lives as long as its run
    def _schema_document(self, table: LakeTable, version: int) -> dict[str, Any]:
        return self._document(f"control/schema/{table.source}/{table.topic}/{version:010}.json")


def _rows_of_version(part: pa.Table, current: dict[int, str], document: dict[str, Any]) -> list[LakeRow]:
    live = document["columns"]
    texts = {}
    for column in live:
        texts[column["name"]] = column_texts(part[current[column["field_id"]]], column["column_type"]["type"])
    live_ids = {column["field_id"] for column in live}
    strays = [
        (name, part[name].is_valid().to_pylist())
        for field_id, name in current.items()
        if field_id >= FIRST_SOURCE_FIELD_ID and field_id not in live_ids and part[name].null_count < len(part)
    ]
    names = {column["lake_name"]: column["name"] for column in live}
    unavailable = part["_unavailable"].to_pylist() if "_unavailable" in part.column_names else [None] * len(part)
    exact = part["_exact"].to_pylist() if "_exact" in part.column_names else [None] * len(part)
    rows = []
    for index, (op, position, when) in enumerate(
        zip(part["_op"].to_pylist(), part["_pos"].to_pylist(), plain_values(part["_source_ts"]), strict=True)
    ):
        values: dict[str, Value] = {name: column[index] for name, column in texts.items()}
        stray = [name for name, valid in strays if valid[index]]
        for lake_name in unavailable[index] or []:
            stray.extend([lake_name] if values[names[lake_name]] is not None else [])
            values[names[lake_name]] = UNAVAILABLE
        for lake_name, text in exact[index] or []:
            stray.extend([lake_name] if values[names[lake_name]] is not None else [])
            values[names[lake_name]] = text
        rows.append(LakeRow(op, Position.parse(position), when, document["version"], values, tuple(stray)))
    return rows


def connect_duckdb(endpoint: str) -> duckdb.DuckDBPyConnection:
    """DuckDB with its extensions from their wheels: nothing is fetched."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    for name in ("httpfs", "avro", "iceberg"):
        spec = importlib.util.find_spec(f"duckdb_extension_{name}")
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"duckdb_extension_{name}")
        folder = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}"
        connection.execute(f"LOAD '{folder / f'{name}.duckdb_extension'}'")
    address = endpoint.removeprefix("http://")
    connection.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{CREDENTIALS['AWS_ACCESS_KEY_ID']}', "
        f"SECRET '{CREDENTIALS['AWS_SECRET_ACCESS_KEY']}', REGION '{CREDENTIALS['AWS_REGION']}', "
        f"ENDPOINT '{address}', URL_STYLE 'path', USE_SSL false)"
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def scan_sql(location: str) -> str:
    """DuckDB's table function for a metadata location."""
    codec = ", metadata_compression_codec => 'gzip'" if ".gz." in location else ""
    return f"iceberg_scan('{location}'{codec})"
