"""Aborted transactions are counted from a partition's file, committed and open ones are not."""

from __future__ import annotations

import struct
from pathlib import Path

from firn_local.kafkalog import Aborted, aborted


def batch(producer: int, epoch: int, count: int, control: int | None = None, transactional: bool = True) -> bytes:
    attributes = (0x10 if transactional else 0) | (0x20 if control is not None else 0)
    body = b"\x00" * 10
    if control is not None:
        body = bytes([0x20, 0, 0, 0, 8]) + struct.pack(">hh", 0, control) + b"\x0c" + b"\x00" * 6 + b"\x00"
    rest = struct.pack(">ibIhiqqqhii", 0, 2, 0, attributes, 0, 0, 0, producer, epoch, 0, count) + body
    return struct.pack(">qi", 0, len(rest)) + rest


def write(folder: Path, topic: str, *batches: bytes) -> None:
    (folder / topic).mkdir()
    (folder / topic / "00000000000000000000.log").write_bytes(b"".join(batches))


def test_aborted_transaction_counts_once_over_its_partitions(tmp_path: Path) -> None:
    for partition in range(2):
        write(tmp_path, f"shop.public.item-{partition}", batch(7, 1, 5), batch(7, 1, 1), batch(7, 2, 1, control=0))
    assert aborted(tmp_path, "shop.", "shop.progress") == Aborted(1, 12)


def test_committed_open_and_plain_batches_do_not_count(tmp_path: Path) -> None:
    batches = (batch(7, 1, 5), batch(7, 1, 1, control=1), batch(8, 1, 3), batch(9, 0, 2, transactional=False))
    write(tmp_path, "shop.public.item-0", *batches)
    assert aborted(tmp_path, "shop.", "shop.progress") == Aborted(0, 0)


def test_other_topics_and_a_batch_cut_off_are_passed_over(tmp_path: Path) -> None:
    lost = (batch(7, 1, 5), batch(7, 2, 1, control=0))
    write(tmp_path, "shop.progress-0", *lost)
    write(tmp_path, "other-0", *lost)
    write(tmp_path, "shop.public.item-0", *lost, batch(7, 3, 5)[:40])
    assert aborted(tmp_path, "shop.", "shop.progress") == Aborted(1, 5)
