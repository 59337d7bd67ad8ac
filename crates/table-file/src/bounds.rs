//! Lower and upper bounds of a column, from Parquet's statistics to Iceberg's binary form.
//!
//! # Invariants
//! - A bound is at or below (above) every value; where that cannot be said, there is none.
//! - Text is cut to 16 characters and binary to 16 bytes; a cut upper bound is raised in its last place, or left out.
//! - NaN is never in a bound.
//! - UUID columns have none: engines disagree whether their bytes compare signed, and a reader that compares otherwise than
//!   the writer would pass over rows.
//!
//! # Source
//! Iceberg specification, "Binary single-value serialization" and "Column metrics".

use arrow::datatypes::DataType;
use parquet::data_type::AsBytes;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;

/// Iceberg's default for `write.metadata.metrics.default` is `truncate(16)`.
const LENGTH_MAX: usize = 16;

/// A value of a bound. Comparison holds within a column: one variant.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Bound {
    Boolean(bool),
    Int(i32),
    Long(i64),
    Float(f32),
    Double(f64),
    Decimal(i128),
    Text(String),
    Binary(Vec<u8>),
}

/// Lower and upper bound of a column.
#[derive(Debug)]
pub(crate) struct Range {
    lower: Bound,
    upper: Bound,
}

impl Range {
    /// The range of a column over its chunks, one per row group; `None` if it is not known, or there is no value.
    pub(crate) fn of_chunks(data_type: &DataType, chunks: &[&ColumnChunkMetaData]) -> Option<Self> {
        let mut range: Option<Self> = None;
        for chunk in chunks {
            let statistics = chunk.statistics()?;
            let nulls = statistics
                .null_count_opt()
                .and_then(|count| i64::try_from(count).ok())?;
            if nulls == chunk.num_values() {
                continue;
            }
            let Some(next) = Self::of_statistics(data_type, statistics) else {
                if matches!(data_type, DataType::Float32 | DataType::Float64) {
                    // Nothing but NaN.
                    continue;
                }
                return None;
            };
            range = Some(match range {
                None => next,
                Some(Self { lower, upper }) => Self {
                    lower: if next.lower < lower {
                        next.lower
                    } else {
                        lower
                    },
                    upper: if next.upper > upper {
                        next.upper
                    } else {
                        upper
                    },
                },
            });
        }
        range
    }

    fn of_statistics(data_type: &DataType, statistics: &Statistics) -> Option<Self> {
        let decimal = matches!(data_type, DataType::Decimal128(_, _));
        let (lower, upper) = match statistics {
            Statistics::Boolean(s) => {
                (Bound::Boolean(*s.min_opt()?), Bound::Boolean(*s.max_opt()?))
            }
            Statistics::Int32(s) if decimal => (
                Bound::Decimal((*s.min_opt()?).into()),
                Bound::Decimal((*s.max_opt()?).into()),
            ),
            Statistics::Int64(s) if decimal => (
                Bound::Decimal((*s.min_opt()?).into()),
                Bound::Decimal((*s.max_opt()?).into()),
            ),
            Statistics::Int32(s) => (Bound::Int(*s.min_opt()?), Bound::Int(*s.max_opt()?)),
            Statistics::Int64(s) => (Bound::Long(*s.min_opt()?), Bound::Long(*s.max_opt()?)),
            Statistics::Float(s) => (Bound::Float(*s.min_opt()?), Bound::Float(*s.max_opt()?)),
            Statistics::Double(s) => (Bound::Double(*s.min_opt()?), Bound::Double(*s.max_opt()?)),
            Statistics::FixedLenByteArray(s) if decimal => (
                signed(s.min_opt()?.as_bytes())?,
                signed(s.max_opt()?.as_bytes())?,
            ),
            Statistics::ByteArray(s) => {
                let (min, max) = (s.min_opt()?.as_bytes(), s.max_opt()?.as_bytes());
                if *data_type == DataType::Utf8 {
                    (text(min)?, text(max)?)
                } else {
                    (Bound::Binary(min.to_vec()), Bound::Binary(max.to_vec()))
                }
            }
            Statistics::FixedLenByteArray(_) | Statistics::Int96(_) => return None,
        };
        Some(Self { lower, upper })
    }

    /// The lower bound's bytes.
    pub(crate) fn lower(&self) -> Option<Vec<u8>> {
        Some(match &self.lower {
            Bound::Text(value) => value
                .chars()
                .take(LENGTH_MAX)
                .collect::<String>()
                .into_bytes(),
            Bound::Binary(value) => value.iter().take(LENGTH_MAX).copied().collect(),
            other => fixed(other)?,
        })
    }

    /// The upper bound's bytes.
    pub(crate) fn upper(&self) -> Option<Vec<u8>> {
        match &self.upper {
            Bound::Text(value) if value.chars().count() > LENGTH_MAX => {
                raised_text(value.chars().take(LENGTH_MAX).collect())
            }
            Bound::Text(value) => Some(value.clone().into_bytes()),
            Bound::Binary(value) if value.len() > LENGTH_MAX => {
                raised_binary(value.iter().take(LENGTH_MAX).copied().collect())
            }
            Bound::Binary(value) => Some(value.clone()),
            other => fixed(other),
        }
    }
}

fn text(bytes: &[u8]) -> Option<Bound> {
    std::str::from_utf8(bytes)
        .ok()
        .map(|text| Bound::Text(text.to_owned()))
}

/// A decimal of Parquet's fixed bytes: big-endian, two's complement.
fn signed(bytes: &[u8]) -> Option<Bound> {
    let first = *bytes.first()?;
    if bytes.len() > 16 {
        return None;
    }
    let start = if first & 0x80 == 0 { 0i128 } else { -1 };
    Some(Bound::Decimal(
        bytes
            .iter()
            .fold(start, |value, byte| value << 8 | i128::from(*byte)),
    ))
}

/// The bytes of a value of fixed meaning; NaN has none.
fn fixed(bound: &Bound) -> Option<Vec<u8>> {
    Some(match bound {
        Bound::Boolean(value) => vec![u8::from(*value)],
        Bound::Int(value) => value.to_le_bytes().to_vec(),
        Bound::Long(value) => value.to_le_bytes().to_vec(),
        Bound::Float(value) => (!value.is_nan()).then(|| value.to_le_bytes().to_vec())?,
        Bound::Double(value) => (!value.is_nan()).then(|| value.to_le_bytes().to_vec())?,
        Bound::Decimal(value) => shortest(*value),
        Bound::Text(_) | Bound::Binary(_) => return None,
    })
}

/// The fewest bytes of big-endian two's complement that say the value.
fn shortest(value: i128) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let mut rest: &[u8] = &bytes;
    while let [first, second, ..] = rest {
        let redundant = match first {
            0x00 => second & 0x80 == 0,
            0xFF => second & 0x80 != 0,
            _ => false,
        };
        if !redundant {
            break;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    rest.to_vec()
}

/// The least text of at most this length above every text that begins like this.
fn raised_text(mut characters: Vec<char>) -> Option<Vec<u8>> {
    while let Some(last) = characters.pop() {
        // Code points skip the surrogates.
        let next = match u32::from(last) + 1 {
            0xD800 => 0xE000,
            next => next,
        };
        if let Some(next) = char::from_u32(next) {
            characters.push(next);
            return Some(characters.into_iter().collect::<String>().into_bytes());
        }
    }
    None
}

fn raised_binary(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = bytes.pop() {
        if let Some(next) = last.checked_add(1) {
            bytes.push(next);
            return Some(bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range_of(text: &str) -> Range {
        Range {
            lower: Bound::Text(text.to_owned()),
            upper: Bound::Text(text.to_owned()),
        }
    }

    #[test]
    fn decimals_take_the_fewest_bytes() {
        for (value, bytes) in [
            (0, vec![0]),
            (1, vec![1]),
            (-1, vec![0xFF]),
            (127, vec![0x7F]),
            (128, vec![0, 0x80]),
            (-128, vec![0x80]),
            (-129, vec![0xFF, 0x7F]),
        ] {
            assert_eq!(shortest(value), bytes, "{value}");
        }
        assert_eq!(shortest(i128::MIN).len(), 16);
        assert_eq!(signed(&[0xFF, 0x7F]), Some(Bound::Decimal(-129)));
    }

    #[test]
    fn cut_upper_bound_is_raised_or_left_out() {
        let long = format!("{}z", "a".repeat(16));
        assert_eq!(
            range_of(&long).upper(),
            Some(format!("{}b", "a".repeat(15)).into_bytes())
        );
        assert_eq!(range_of(&long).lower(), Some("a".repeat(16).into_bytes()));
        let last = "\u{10FFFF}".repeat(17);
        assert_eq!(range_of(&last).upper(), None);
        let surrogate = format!("{}\u{D7FF}z", "a".repeat(15));
        let raised = format!("{}\u{E000}", "a".repeat(15));
        assert_eq!(range_of(&surrogate).upper(), Some(raised.into_bytes()));
        assert_eq!(raised_binary(vec![1, 0xFF]), Some(vec![2]));
        assert_eq!(raised_binary(vec![0xFF, 0xFF]), None);
    }

    proptest! {
        #[test]
        fn bounds_enclose_the_text(text in any::<String>()) {
            let range = range_of(&text);
            prop_assert!(range.lower().unwrap().as_slice() <= text.as_bytes());
            if let Some(upper) = range.upper() {
                prop_assert!(upper.as_slice() >= text.as_bytes());
            }
        }
    }
}
