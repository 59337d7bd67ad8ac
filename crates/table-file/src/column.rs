//! Columns that grow value by value, and shrink again when a row turns out bad.
//!
//! Arrow's builders cannot take a value back; these can, so that a row is appended in one pass and taken back whole.
//!
//! # Invariants
//! - A column's values, offsets and validity always have the same length.
//! - What [`Column::push`] refuses, it has not appended.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray, ListArray,
    MapArray, PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use change_event::ColumnType;
use change_event::envelope::{Cell, RawCell};

use crate::schema::{arrow_type, exact_entries, exact_fields, unavailable_element};
use crate::text::{self, Reading};

/// A value on its way into a column.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Input<'a> {
    Null,
    Bool(bool),
    /// A JSON number's text.
    Number(&'a str),
    /// A JSON string's text.
    Text(&'a str),
    /// The source's text, whatever the type.
    Source(&'a str),
}

impl<'a> Input<'a> {
    /// The input of an envelope's cell; `scratch` holds its text if that had escapes.
    pub(crate) fn of_raw(cell: RawCell<'a>, scratch: &'a mut String) -> Self {
        match cell {
            RawCell::Null => Self::Null,
            RawCell::Bool(value) => Self::Bool(value),
            RawCell::Number(text) => Self::Number(text),
            RawCell::String(text) => Self::Text(text.unescape(scratch)),
        }
    }

    /// The input of a source's cell, or `None` if it is unavailable.
    pub(crate) const fn of_cell(cell: Cell<'a>) -> Option<Self> {
        match cell {
            Cell::Null => Some(Self::Null),
            Cell::Unavailable => None,
            Cell::Text(text) => Some(Self::Source(text)),
        }
    }

    /// Its text, for `_exact`.
    pub(crate) const fn text(self) -> &'a str {
        match self {
            Self::Null | Self::Bool(_) => "",
            Self::Number(text) | Self::Text(text) | Self::Source(text) => text,
        }
    }
}

/// How a value went into a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// As it is, or as the NULL that it is.
    Native,
    /// As NULL: the lake's type has no such value.
    Beyond,
    /// Not at all: it is no value of the column's type.
    Malformed,
    /// Not at all: the column has reached two gigabytes.
    Full,
}

/// Values of changing length, behind one another.
#[derive(Debug)]
struct Bytes {
    /// One more than there are values.
    offsets: Vec<i32>,
    data: Vec<u8>,
}

impl Bytes {
    fn new() -> Self {
        Self {
            offsets: vec![0],
            data: Vec::new(),
        }
    }

    /// Ends a value at the end of the data; false, and the value taken back, if that is too far.
    fn close(&mut self) -> bool {
        if let Ok(end) = i32::try_from(self.data.len()) {
            self.offsets.push(end);
            return true;
        }
        self.reopen();
        false
    }

    /// Drops data behind the last value.
    fn reopen(&mut self) {
        let end = self
            .offsets
            .last()
            .map_or(0, |end| usize::try_from(*end).unwrap_or(0));
        self.data.truncate(end);
    }

    fn truncate(&mut self, values: usize) {
        self.offsets.truncate(values + 1);
        self.reopen();
    }
}

#[derive(Debug)]
enum Values {
    Boolean(BooleanBufferBuilder),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u32,
        scale: u32,
    },
    Text(Bytes),
    Binary(Bytes),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Timestamp(Vec<i64>),
    TimestampTz(Vec<i64>),
    Uuid(Vec<u8>),
}

/// A growing column.
#[derive(Debug)]
pub(crate) struct Column {
    values: Values,
    validity: BooleanBufferBuilder,
    null_count: usize,
    data_type: DataType,
}

impl Column {
    pub(crate) fn new(column_type: ColumnType) -> Self {
        let values = match column_type {
            ColumnType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            ColumnType::Int => Values::Int(Vec::new()),
            ColumnType::Long => Values::Long(Vec::new()),
            ColumnType::Float => Values::Float(Vec::new()),
            ColumnType::Double => Values::Double(Vec::new()),
            ColumnType::Decimal { precision, scale } => Values::Decimal {
                values: Vec::new(),
                precision,
                scale,
            },
            ColumnType::String | ColumnType::Carrier => Values::Text(Bytes::new()),
            ColumnType::Binary => Values::Binary(Bytes::new()),
            ColumnType::Date => Values::Date(Vec::new()),
            ColumnType::Time => Values::Time(Vec::new()),
            ColumnType::Timestamp => Values::Timestamp(Vec::new()),
            ColumnType::TimestampTz => Values::TimestampTz(Vec::new()),
            ColumnType::Uuid => Values::Uuid(Vec::new()),
        };
        let validity = BooleanBufferBuilder::new(0);
        Self {
            values,
            validity,
            null_count: 0,
            data_type: arrow_type(column_type),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.validity.len()
    }

    /// Bytes in memory, about.
    pub(crate) fn size_bytes(&self) -> usize {
        let values = match &self.values {
            Values::Boolean(values) => values.len() / 8,
            Values::Int(values) | Values::Date(values) => values.len() * 4,
            Values::Float(values) => values.len() * 4,
            Values::Double(values) => values.len() * 8,
            Values::Long(values)
            | Values::Time(values)
            | Values::Timestamp(values)
            | Values::TimestampTz(values) => values.len() * 8,
            Values::Decimal { values, .. } => values.len() * 16,
            Values::Text(values) | Values::Binary(values) => {
                values.data.len() + values.offsets.len() * 4
            }
            Values::Uuid(values) => values.len(),
        };
        values + self.len() / 8
    }

    /// Appends a value.
    #[inline]
    pub(crate) fn push(&mut self, input: Input<'_>) -> Pushed {
        let pushed = match (&mut self.values, input) {
            (_, Input::Null) => {
                self.push_null();
                return Pushed::Native;
            }
            (Values::Boolean(values), Input::Bool(value)) => {
                values.append(value);
                Pushed::Native
            }
            (Values::Boolean(values), Input::Source(text)) => match text {
                "t" | "f" => {
                    values.append(text == "t");
                    Pushed::Native
                }
                _ => Pushed::Malformed,
            },
            (Values::Int(values), Input::Number(text) | Input::Source(text)) => {
                keep(values, text::int(text))
            }
            (Values::Long(values), Input::Number(text) | Input::Source(text)) => {
                keep(values, text::long(text))
            }
            (Values::Float(values), input) => keep(values, float(input)),
            (Values::Double(values), input) => keep(values, float(input)),
            (values, Input::Text(text) | Input::Source(text)) => push_text(values, text),
            (_, Input::Bool(_) | Input::Number(_)) => Pushed::Malformed,
        };
        match pushed {
            Pushed::Native => self.validity.append(true),
            Pushed::Beyond => self.push_null(),
            Pushed::Malformed | Pushed::Full => {}
        }
        pushed
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int(values) | Values::Date(values) => values.push(0),
            Values::Float(values) => values.push(0.0),
            Values::Double(values) => values.push(0.0),
            Values::Decimal { values, .. } => values.push(0),
            Values::Long(values)
            | Values::Time(values)
            | Values::Timestamp(values)
            | Values::TimestampTz(values) => values.push(0),
            Values::Text(values) | Values::Binary(values) => {
                let end = values.offsets.last().copied().unwrap_or(0);
                values.offsets.push(end);
            }
            Values::Uuid(values) => values.extend_from_slice(&[0; 16]),
        }
        self.validity.append(false);
        self.null_count += 1;
    }

    /// Takes back all values from `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        while self.validity.len() > rows {
            let last = self.validity.len() - 1;
            self.null_count -= usize::from(!self.validity.get_bit(last));
            self.validity.truncate(last);
        }
        match &mut self.values {
            Values::Boolean(values) => {
                if values.len() > rows {
                    values.truncate(rows);
                }
            }
            Values::Int(values) | Values::Date(values) => values.truncate(rows),
            Values::Float(values) => values.truncate(rows),
            Values::Double(values) => values.truncate(rows),
            Values::Decimal { values, .. } => values.truncate(rows),
            Values::Long(values)
            | Values::Time(values)
            | Values::Timestamp(values)
            | Values::TimestampTz(values) => values.truncate(rows),
            Values::Text(values) | Values::Binary(values) => values.truncate(rows),
            Values::Uuid(values) => values.truncate(rows * 16),
        }
    }

    /// The Arrow array of what was pushed.
    pub(crate) fn finish(mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = (self.null_count > 0).then(|| NullBuffer::new(self.validity.finish()));
        let data_type = self.data_type;
        Ok(match self.values {
            Values::Boolean(mut values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Int(values) => primitive::<Int32Type>(values, nulls, data_type)?,
            Values::Date(values) => primitive::<Date32Type>(values, nulls, data_type)?,
            Values::Long(values) => primitive::<Int64Type>(values, nulls, data_type)?,
            Values::Float(values) => primitive::<Float32Type>(values, nulls, data_type)?,
            Values::Double(values) => primitive::<Float64Type>(values, nulls, data_type)?,
            Values::Decimal { values, .. } => {
                primitive::<Decimal128Type>(values, nulls, data_type)?
            }
            Values::Time(values) => primitive::<Time64MicrosecondType>(values, nulls, data_type)?,
            Values::Timestamp(values) | Values::TimestampTz(values) => {
                primitive::<TimestampMicrosecondType>(values, nulls, data_type)?
            }
            Values::Text(values) => Arc::new(text_array(values, nulls)?),
            Values::Binary(values) => Arc::new(BinaryArray::try_new(
                OffsetBuffer::new(ScalarBuffer::from(values.offsets)),
                Buffer::from_vec(values.data),
                nulls,
            )?),
            Values::Uuid(values) => Arc::new(FixedSizeBinaryArray::try_new(
                16,
                Buffer::from_vec(values),
                nulls,
            )?),
        })
    }
}

fn keep<T>(values: &mut Vec<T>, reading: Reading<T>) -> Pushed {
    match reading {
        Reading::Fits(value) => {
            values.push(value);
            Pushed::Native
        }
        Reading::Beyond => Pushed::Beyond,
        Reading::Malformed => Pushed::Malformed,
    }
}

fn float<F: text::Float>(input: Input<'_>) -> Reading<F> {
    match input {
        Input::Number(text) => text::float_number(text),
        Input::Text(text) => text::float_name(text),
        Input::Source(text) => match text::float_name(text) {
            Reading::Malformed => text::float_number(text),
            named => named,
        },
        Input::Null | Input::Bool(_) => Reading::Malformed,
    }
}

#[inline]
fn push_text(values: &mut Values, text: &str) -> Pushed {
    match values {
        Values::Text(values) => {
            values.data.extend_from_slice(text.as_bytes());
            if values.close() {
                Pushed::Native
            } else {
                Pushed::Full
            }
        }
        Values::Binary(values) => match text::bytea(text, &mut values.data) {
            Reading::Fits(()) if values.close() => Pushed::Native,
            Reading::Fits(()) => Pushed::Full,
            Reading::Beyond | Reading::Malformed => {
                values.reopen();
                Pushed::Malformed
            }
        },
        Values::Decimal {
            values,
            precision,
            scale,
        } => keep(values, text::decimal(text, *precision, *scale)),
        Values::Date(values) => keep(values, text::date(text)),
        Values::Time(values) => keep(values, text::time(text)),
        Values::Timestamp(values) => keep(values, text::timestamp(text)),
        Values::TimestampTz(values) => keep(values, text::timestamp_tz(text)),
        Values::Uuid(values) => match text::uuid(text) {
            Reading::Fits(bytes) => {
                values.extend_from_slice(&bytes);
                Pushed::Native
            }
            Reading::Beyond | Reading::Malformed => Pushed::Malformed,
        },
        Values::Boolean(_)
        | Values::Int(_)
        | Values::Long(_)
        | Values::Float(_)
        | Values::Double(_) => Pushed::Malformed,
    }
}

fn primitive<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: DataType,
) -> Result<ArrayRef, ArrowError> {
    let array = PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), nulls)?;
    Ok(Arc::new(array.with_data_type(data_type)))
}

fn text_array(values: Bytes, nulls: Option<NullBuffer>) -> Result<StringArray, ArrowError> {
    let offsets = OffsetBuffer::new(ScalarBuffer::from(values.offsets));
    StringArray::try_new(offsets, Buffer::from_vec(values.data), nulls)
}

/// The four columns that every row has, and the two that few rows fill.
#[derive(Debug)]
pub(crate) struct OwnColumns {
    op: Bytes,
    pos: Bytes,
    source_ts: Vec<i64>,
    /// Names in `_unavailable`, over all rows.
    unavailable: Bytes,
    /// Per row, the end of its names.
    unavailable_ends: Vec<i32>,
    exact_names: Bytes,
    exact_texts: Bytes,
    exact_ends: Vec<i32>,
}

impl OwnColumns {
    pub(crate) fn new() -> Self {
        Self {
            op: Bytes::new(),
            pos: Bytes::new(),
            source_ts: Vec::new(),
            unavailable: Bytes::new(),
            unavailable_ends: vec![0],
            exact_names: Bytes::new(),
            exact_texts: Bytes::new(),
            exact_ends: vec![0],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.source_ts.len()
    }

    pub(crate) fn size_bytes(&self) -> usize {
        [
            &self.op,
            &self.pos,
            &self.unavailable,
            &self.exact_names,
            &self.exact_texts,
        ]
        .iter()
        .map(|bytes| bytes.data.len() + bytes.offsets.len() * 4)
        .sum::<usize>()
            + self.len() * 16
    }

    /// Adds a name to the row that is being built; false if there is no more room.
    pub(crate) fn push_unavailable(&mut self, name: &str) -> bool {
        push_bytes(&mut self.unavailable, name.as_bytes())
    }

    /// Adds an exact text to the row that is being built; false if there is no more room.
    pub(crate) fn push_exact(&mut self, name: &str, text: &str) -> bool {
        push_bytes(&mut self.exact_names, name.as_bytes())
            && push_bytes(&mut self.exact_texts, text.as_bytes())
    }

    /// Ends the row; false, and nothing appended, if there is no more room.
    pub(crate) fn push_row(&mut self, op: &str, position: &[u8], source_ts: i64) -> bool {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let rows = self.len();
        for byte in position {
            let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0');
            self.pos
                .data
                .extend_from_slice(&[digit(byte >> 4), digit(byte & 0xF)]);
        }
        if !self.pos.close() || !push_bytes(&mut self.op, op.as_bytes()) {
            self.truncate(rows);
            return false;
        }
        self.source_ts.push(source_ts);
        self.unavailable_ends.push(count(&self.unavailable));
        self.exact_ends.push(count(&self.exact_names));
        true
    }

    /// Takes back all rows from `rows` on, and the row that is being built.
    pub(crate) fn truncate(&mut self, rows: usize) {
        let end = |ends: &Vec<i32>| {
            ends.get(rows)
                .or(ends.last())
                .map_or(0, |end| usize::try_from(*end).unwrap_or(0))
        };
        self.op.truncate(rows);
        self.pos.truncate(rows);
        self.source_ts.truncate(rows);
        self.unavailable.truncate(end(&self.unavailable_ends));
        self.exact_names.truncate(end(&self.exact_ends));
        self.exact_texts.truncate(end(&self.exact_ends));
        self.unavailable_ends.truncate(rows + 1);
        self.exact_ends.truncate(rows + 1);
    }

    /// The six arrays, in schema order.
    pub(crate) fn finish(self, schema_version: i32) -> Result<Vec<ArrayRef>, ArrowError> {
        let rows = self.len();
        let zone = arrow_type(ColumnType::TimestampTz);
        let unavailable = ListArray::try_new(
            unavailable_element(),
            OffsetBuffer::new(ScalarBuffer::from(self.unavailable_ends.clone())),
            Arc::new(text_array(self.unavailable, None)?),
            not_empty(&self.unavailable_ends),
        )?;
        let entries = StructArray::try_new(
            exact_fields(),
            vec![
                Arc::new(text_array(self.exact_names, None)?),
                Arc::new(text_array(self.exact_texts, None)?),
            ],
            None,
        )?;
        let exact = MapArray::try_new(
            exact_entries(),
            OffsetBuffer::new(ScalarBuffer::from(self.exact_ends.clone())),
            entries,
            not_empty(&self.exact_ends),
            false,
        )?;
        Ok(vec![
            Arc::new(text_array(self.op, None)?),
            Arc::new(text_array(self.pos, None)?),
            primitive::<TimestampMicrosecondType>(self.source_ts, None, zone)?,
            primitive::<Int32Type>(vec![schema_version; rows], None, DataType::Int32)?,
            Arc::new(unavailable),
            Arc::new(exact),
        ])
    }
}

fn push_bytes(bytes: &mut Bytes, value: &[u8]) -> bool {
    bytes.data.extend_from_slice(value);
    bytes.close()
}

/// Number of values; their offsets fit 32 bits, so there are fewer than that unless most are empty.
fn count(bytes: &Bytes) -> i32 {
    i32::try_from(bytes.offsets.len() - 1).unwrap_or(i32::MAX)
}

/// Lists without an element are NULL.
fn not_empty(ends: &[i32]) -> Option<NullBuffer> {
    Some(
        ends.windows(2)
            .map(|pair| matches!(pair, [start, end] if start < end))
            .collect(),
    )
}
