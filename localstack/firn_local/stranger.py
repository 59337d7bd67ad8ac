"""Another engine at the lake's tables: PyIceberg through the Glue endpoint, setting properties and compacting.

Always holds: it changes no row. What it replaced is noted, because nobody but it can say that those files are not
orphans of the pipeline. It goes to the cloud directly: the proxy's faults are firn's.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import ArrowScan, write_file
from pyiceberg.manifest import DataFile
from pyiceberg.table import FileScanTask, Table, WriteTask

from .services import CREDENTIALS

# Files of one partition that a compaction puts together.
FILES = (4, 60)
# Races that it loses before it gives up: firn commits every two seconds.
TRIES = 12


@dataclass(frozen=True)
class _Partition:
    """The partition of a file that is there, as the writer of a new one wants it."""

    partition: object
    path: str

    def to_path(self) -> str:
        """Its folder."""
        return self.path


class Stranger:
    """The other engine."""

    def __init__(self, endpoint: str, database: str, seed: int) -> None:
        keys, region = (
            (CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]),
            CREDENTIALS["AWS_REGION"],
        )
        settings = {}
        for service in ("glue", "s3"):
            settings |= {
                f"{service}.endpoint": endpoint,
                f"{service}.access-key-id": keys[0],
                f"{service}.secret-access-key": keys[1],
                f"{service}.region": region,
            }
        self._catalog = GlueCatalog("stranger", **settings)
        self._database, self._random = database, random.Random(f"{seed}/stranger")
        self.replaced: set[str] = set()
        self.lost_races = 0

    def _drawn(self) -> Iterator[Table]:
        """All tables, in an order that is drawn."""
        names = sorted(self._catalog.list_tables(self._database))
        return map(self._catalog.load_table, self._random.sample(names, len(names)))

    def set_property(self) -> bool:
        """Sets a property of some table; False if it lost every race."""
        table = next(self._drawn())
        return self._race(table, lambda: table.transaction().set_properties({"stranger.was-here": uuid.uuid4().hex}))

    def compact(self) -> bool:
        """Puts files of one partition of some table together, as a rewrite does.

        False if no table has enough of them, or it lost every race.
        """
        found = ((table, self._files(table)) for table in self._drawn())
        table, tasks = next(((table, tasks) for table, tasks in found if len(tasks) >= FILES[0]), (None, []))
        if table is None:
            return False
        merged = self._merge(table, tasks)

        def transaction():
            transaction = table.transaction()
            with transaction.update_snapshot().overwrite() as overwrite:
                for task in tasks:
                    overwrite.delete_data_file(task.file)
                for file in merged:
                    overwrite.append_data_file(file)
            return transaction

        won = self._race(table, transaction)
        self.replaced |= {task.file.file_path for task in tasks} if won else {file.file_path for file in merged}
        return won

    def _race(self, table: Table, transaction) -> bool:
        for _attempt in range(TRIES):
            try:
                transaction().commit_transaction()
                return True
            except (CommitFailedException, ValidationException):
                self.lost_races += 1
                table.refresh()
        return False

    def _files(self, table: Table) -> list[FileScanTask]:
        """The smallest files of the partition that has the most."""
        by_partition: dict[str, list[FileScanTask]] = {}
        for task in table.scan().plan_files():
            by_partition.setdefault(repr(task.file.partition), []).append(task)
        most = max(by_partition.values(), key=len, default=[])
        return sorted(most, key=lambda task: task.file.file_size_in_bytes)[: FILES[1]]

    def _merge(self, table: Table, tasks: list[FileScanTask]) -> list[DataFile]:
        rows = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue()).to_table(tasks)
        record = tasks[0].file.partition
        partition = _Partition(record, table.spec().partition_to_path(record, table.schema()))
        task = WriteTask(uuid.uuid4(), 0, table.schema(), rows.to_batches(), partition_key=partition)  # type: ignore[arg-type]
        return list(write_file(table.io, table.metadata, iter([task])))
