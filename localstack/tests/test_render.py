"""Values of the lake print as PostgreSQL prints them; the calendar is right where Python has none."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from firn_local.render import column_texts, date_text, same_text, time_text, timestamp_text


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (0, "1970-01-01"),
        (11016, "2000-02-29"),
        (-719162, "0001-01-01"),
        (-719163, "0001-12-31 BC"),
        (-735160, "0044-03-15 BC"),
        (2145042905, "5874897-12-31"),
    ],
)
def test_dates_at_the_edges(days: int, text: str):
    assert date_text(days) == text


def test_calendar_agrees_with_python_where_python_has_one():
    first = datetime.date(1, 1, 1).toordinal()
    epoch = datetime.date(1970, 1, 1).toordinal()
    for ordinal in range(first, datetime.date(9999, 12, 31).toordinal(), 997):
        assert date_text(ordinal - epoch) == datetime.date.fromordinal(ordinal).isoformat()


def test_times_and_timestamps_drop_trailing_zeros_of_the_fraction_only():
    assert time_text(86_399_999_999) == "23:59:59.999999"
    assert time_text(36_000_000_000) == "10:00:00"
    assert timestamp_text(-1) == "1969-12-31 23:59:59.999999"
    assert timestamp_text(100_000, "+00") == "1970-01-01 00:00:00.1+00"
    assert timestamp_text(-62_135_596_800_000_001, "+00") == "0001-12-31 23:59:59.999999+00 BC"


@pytest.mark.parametrize(
    ("values", "arrow_type", "column_type", "texts"),
    [
        ([True, None], pa.bool_(), "boolean", ["t", None]),
        ([Decimal("-0.50")], pa.decimal128(38, 2), "decimal", ["-0.50"]),
        ([0.1], pa.float32(), "float", ["0.1"]),
        ([b"\x00\xff"], pa.binary(), "binary", ["\\x00ff"]),
        ([bytes(16)], pa.binary(16), "uuid", ["00000000-0000-0000-0000-000000000000"]),
        ([5], pa.date32(), "date", ["1970-01-06"]),
        ([1], pa.timestamp("us", "UTC"), "timestamp_tz", ["1970-01-01 00:00:00.000001+00"]),
    ],
)
def test_column_prints(values: list[object], arrow_type: pa.DataType, column_type: str, texts: list[str | None]):
    assert column_texts(pa.chunked_array([pa.array(values, arrow_type)]), column_type) == texts


def test_floats_are_the_same_to_the_bit_or_not():
    assert same_text("double", "1e+20", "100000000000000000000.0")
    assert same_text("float", "123456.7", "123456.7")
    assert same_text("double", "NaN", "nan")
    assert not same_text("double", "0", "-0.0")
    assert not same_text("string", "1", "1.0")
