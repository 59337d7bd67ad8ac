"""Data files of the lake that nothing names: neither a snapshot that a table still has, nor an intent.

Source: Iceberg specification, "Manifest Lists"; docs of firn's object layout (ARCHITECTURE.md, "Object layout").
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

_ADDRESS = re.compile(rb'"(s3://[^"]+[.]parquet)"')


@dataclass
class Orphans:
    """What stands below `tables/*/data`, and what of it is not named."""

    bytes_all: int = 0
    files_all: int = 0
    bytes_lost: int = 0
    bytes_strange: int = 0
    """Of files that another engine replaced, or wrote and lost its race with."""
    names: list[str] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the bytes."""
        return self.bytes_lost / self.bytes_all if self.bytes_all else 0.0


def orphans(named: set[str], bucket: Path, strange: set[str]) -> Orphans:
    """Looks through the bucket's folder; `named` is what snapshots name, `strange` what another engine answers for."""
    named = named | _of_intents(bucket)
    found = Orphans()
    for path in sorted((bucket / "tables").glob("*/*/data/**/*.parquet")):
        size = path.stat().st_size
        found.files_all += 1
        found.bytes_all += size
        address = f"s3://{bucket.name}/{path.relative_to(bucket)}"
        if address in strange:
            found.bytes_strange += size
        elif address not in named:
            found.bytes_lost += size
            found.names.append(str(path.relative_to(bucket)))
    return found


def _of_intents(bucket: Path) -> set[str]:
    named: set[str] = set()
    for path in (bucket / "control" / "i").glob("**/*"):
        if path.is_file() and not path.name.endswith(".meta.json"):
            named.update(name.decode() for name in _ADDRESS.findall(path.read_bytes()))
    return named
