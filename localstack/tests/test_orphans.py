"""A data file that neither snapshot nor intent nor another engine answers for is an orphan."""

from __future__ import annotations

from pathlib import Path

from firn_local.orphans import orphans


def test_only_what_nothing_names_is_lost(tmp_path: Path):
    bucket = tmp_path / "lake"
    data = bucket / "tables" / "firn" / "orders" / "data"
    data.mkdir(parents=True)
    for number, name in enumerate(("named", "staged", "lost", "strange"), 1):
        (data / f"{name}.parquet").write_bytes(b"x" * number)
        (data / f"{name}.parquet.meta.json").write_text("{}")
    address = f"s3://lake/{data.relative_to(bucket)}"
    slot = bucket / "control" / "i" / "uuid" / "0"
    slot.parent.mkdir(parents=True)
    slot.write_text(f'{{"files": [{{"path": "{address}/staged.parquet"}}]}}')
    found = orphans({f"{address}/named.parquet"}, bucket, {f"{address}/strange.parquet"})
    assert found.names == ["tables/firn/orders/data/lost.parquet"]
    assert (found.files_all, found.bytes_all, found.bytes_lost, found.bytes_strange) == (4, 10, 3, 4)
