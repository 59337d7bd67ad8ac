"""Counts aborted transactions in the broker's own files, which no client shows.

Source: Kafka protocol, "Record Batch" (magic 2) and "Control Records": attribute bit 4 is transactional, bit 5 control;
the key of a control record is version, then type, 0 for ABORT.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# baseOffset, batchLength | partitionLeaderEpoch, magic, crc, attributes, lastOffsetDelta, two timestamps, producerId,
# producerEpoch, baseSequence, count.
_LENGTH = struct.Struct(">qi")
_HEADER = struct.Struct(">ibIhiqqqhii")
_CONTROL = 0x20
_TRANSACTIONAL = 0x10
_ABORT = 0


@dataclass(frozen=True)
class Aborted:
    """What was sent and never committed."""

    transactions: int
    records: int


def aborted(log: Path, topic_prefix: str, but: str) -> Aborted:
    """Aborted transactions, and their records, in the topics of a prefix but for one topic."""
    transactions: set[tuple[int, int]] = set()
    records = 0
    for partition in sorted(log.iterdir()):
        topic = partition.name.rpartition("-")[0]
        if not partition.is_dir() or not topic.startswith(topic_prefix) or topic == but:
            continue
        pending: Counter[int] = Counter()
        for segment in sorted(partition.glob("*.log")):
            for producer, epoch, control, count in _batches(segment.read_bytes()):
                if control is None:
                    pending[producer] += count
                elif (left := pending.pop(producer, 0)) and control == _ABORT:
                    transactions.add((producer, epoch))
                    records += left
    return Aborted(len(transactions), records)


def _batches(data: bytes) -> Iterator[tuple[int, int, int | None, int]]:
    """Producer, epoch, type of control record or None, and number of records, of each transactional batch."""
    at = 0
    while at + _LENGTH.size + _HEADER.size <= len(data):
        _offset, length = _LENGTH.unpack_from(data, at)
        begin = at + _LENGTH.size
        at = begin + length
        _leader, magic, _crc, attributes, _delta, _first, _last, producer, epoch, _sequence, count = (
            _HEADER.unpack_from(data, begin)
        )
        if magic != 2 or length <= 0 or not attributes & _TRANSACTIONAL:
            if length <= 0:
                return
            continue
        if attributes & _CONTROL:
            # length, attributes, two deltas and the key's length are one byte each in a control record; then the key.
            yield producer, epoch, _control_type(data[begin + _HEADER.size : at]), 0
        else:
            yield producer, epoch, None, count


def _control_type(record: bytes) -> int:
    key = record[5:9]
    return int.from_bytes(key[2:4], "big")
