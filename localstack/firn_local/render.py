"""Values of the lake as the text that PostgreSQL prints for them.

Flow: Arrow column of a lake table -> here -> `compare`.

Always holds: numbers are taken as whole numbers (days, microseconds) and turned into dates by own arithmetic, because
Python's dates end in the years 1 and 9999 and PostgreSQL's do not.

Source: PostgreSQL manual, "Date/Time Output"; the calendar is Howard Hinnant's "chrono-Compatible Low-Level Date
Algorithms".
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa

DAY_US = 86_400_000_000


def date_text(days: int) -> str:
    """Days since 1970 as `2024-02-29` or `0044-03-15 BC`."""
    shifted = days + 719_468
    era, day_of_era = divmod(shifted, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_index = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_index + 2) // 5 + 1
    month = month_index + 3 if month_index < 10 else month_index - 9
    year = year_of_era + era * 400 + (month <= 2)
    if year > 0:
        return f"{year:04d}-{month:02d}-{day:02d}"
    return f"{1 - year:04d}-{month:02d}-{day:02d} BC"


def time_text(microseconds: int) -> str:
    """Microseconds of a day as `23:59:59.5`."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{fraction:06d}".rstrip("0") if fraction else text


def timestamp_text(microseconds: int, zone: str = "") -> str:
    """Microseconds since 1970 as `2024-02-29 23:59:59.5+00`."""
    days, rest = divmod(microseconds, DAY_US)
    date, _space, era = date_text(days).partition(" ")
    return f"{date} {time_text(rest)}{zone}" + (f" {era}" if era else "")


def _decimal_text(value: Decimal) -> str:
    return format(value, "f")


def _boolean_text(value: bool) -> str:
    return "t" if value else "f"


def _float_text(value: float) -> str:
    # The shortest text that reads back as the same 32 bits; Python prints 64.
    return next(
        text for digits in range(1, 18) if _bits("f", float(text := f"{value:.{digits}g}")) == _bits("f", value)
    )


def _binary_text(value: bytes) -> str:
    return "\\x" + value.hex()


def _uuid_text(value: bytes) -> str:
    return str(uuid.UUID(bytes=value))


_TEXT_OF: dict[str, Callable[[Any], str]] = {
    "boolean": _boolean_text,
    "int": str,
    "long": str,
    "float": _float_text,
    "double": repr,
    "decimal": _decimal_text,
    "string": str,
    "carrier": str,
    "binary": _binary_text,
    "date": date_text,
    "time": time_text,
    "timestamp": timestamp_text,
    "timestamp_tz": lambda value: timestamp_text(value, "+00"),
    "uuid": _uuid_text,
}


def column_texts(column: pa.ChunkedArray, column_type: str) -> list[str | None]:
    """The texts of a lake column whose values were written under a type of the schema document."""
    text_of = _TEXT_OF[column_type]
    return [None if value is None else text_of(value) for value in plain_values(column)]


def plain_values(column: pa.ChunkedArray) -> list[Any]:
    """Python values, with dates and times as whole numbers and extension types as what they are stored as."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
    elif pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_time64(kind) or pa.types.is_timestamp(kind):
        if kind.unit != "us":
            raise ValueError(f"a lake column has the unit {kind.unit}")
        column = column.cast(pa.int64())
    return column.to_pylist()


def same_text(column_type: str, left: str, right: str) -> bool:
    """Whether two texts are the same value: the same text, or for floats the same number to the bit."""
    if left == right:
        return True
    form = {"float": "f", "double": "d"}.get(column_type)
    return form is not None and _bits(form, float(left)) == _bits(form, float(right))


def _bits(form: str, value: float) -> bytes:
    return struct.pack(form, value)
