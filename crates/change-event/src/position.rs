//! Places in a source log, comparable as bytes.
//!
//! A [`Position`] is the order key of a row change within one source. Its bytes travel in the record header and its
//! hexadecimal text is the lake column `_pos`: both sort like the position itself.
//!
//! # Invariants
//! - `a < b` as values, as bytes and as text are the same relation.
//! - A copied row sorts before every streamed change of a transaction that committed at or after its copy.
//!
//! # Source
//! PostgreSQL manual, "Write-Ahead Log Internals": a log sequence number is a 64-bit byte position, printed as
//! two hexadecimal numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A log sequence number of PostgreSQL: bytes since the start of the write-ahead log.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let malformed = || PositionError::MalformedLsn {
            text: text.to_owned(),
        };
        let (high, low) = text.split_once('/').ok_or_else(malformed)?;
        let half = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_source| malformed());
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// The two ways by which a row reaches a topic; progress is kept for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// A row of a table copy.
    Copy,
    /// A change of the source log.
    Stream,
}

/// The order key of a row change within one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Identity of the log (timeline or server); it rises when the log is continued elsewhere.
    pub incarnation: u32,
    /// Commit position of the transaction; for a copied row, the position of its copy.
    pub commit_lsn: Lsn,
    /// Place behind the commit position.
    pub place: Place,
}

/// Where a row stands behind its commit position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A row of a table copy: sorts before the streamed changes at the same commit position.
    Copy {
        /// Number of the copy of this table, rising.
        copy_id: u32,
        /// Number of the chunk in the copy, from 0.
        chunk: u32,
        /// Number of the row in the chunk, from 0.
        row: u64,
    },
    /// A streamed change.
    Stream {
        /// Number of the row change in its transaction, from 1; a key change takes two.
        ordinal: u64,
    },
}

const LANE_COPY: u8 = 0;
const LANE_STREAM: u8 = 1;

/// Bytes or text that are no position.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum PositionError {
    /// Not `hex/hex`.
    #[error("malformed log sequence number {text:?}")]
    MalformedLsn {
        /// What was given.
        text: String,
    },
    /// Not a position of a known lane and length.
    #[error("malformed position of {length} bytes")]
    MalformedPosition {
        /// Number of bytes given.
        length: usize,
    },
}

impl Position {
    /// A streamed change.
    #[must_use]
    pub const fn stream(incarnation: u32, commit_lsn: Lsn, ordinal: u64) -> Self {
        Self {
            incarnation,
            commit_lsn,
            place: Place::Stream { ordinal },
        }
    }

    /// A copied row.
    #[must_use]
    pub const fn copy(incarnation: u32, copy_lsn: Lsn, copy_id: u32, chunk: u32, row: u64) -> Self {
        Self {
            incarnation,
            commit_lsn: copy_lsn,
            place: Place::Copy {
                copy_id,
                chunk,
                row,
            },
        }
    }

    /// The lane it belongs to.
    #[must_use]
    pub const fn lane(&self) -> Lane {
        match self.place {
            Place::Copy { .. } => Lane::Copy,
            Place::Stream { .. } => Lane::Stream,
        }
    }

    /// Appends the byte-comparable form: 21 bytes for a streamed change, 29 for a copied row.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.incarnation.to_be_bytes());
        out.extend_from_slice(&self.commit_lsn.0.to_be_bytes());
        match self.place {
            Place::Copy {
                copy_id,
                chunk,
                row,
            } => {
                out.push(LANE_COPY);
                out.extend_from_slice(&copy_id.to_be_bytes());
                out.extend_from_slice(&chunk.to_be_bytes());
                out.extend_from_slice(&row.to_be_bytes());
            }
            Place::Stream { ordinal } => {
                out.push(LANE_STREAM);
                out.extend_from_slice(&ordinal.to_be_bytes());
            }
        }
    }

    /// Reads what [`Position::encode`] wrote; all bytes must be used.
    ///
    /// # Errors
    /// [`PositionError::MalformedPosition`] on an unknown lane or a wrong length.
    pub fn decode(bytes: &[u8]) -> Result<Self, PositionError> {
        let malformed = PositionError::MalformedPosition {
            length: bytes.len(),
        };
        let parse = || -> Option<Self> {
            let (incarnation, rest) = bytes.split_first_chunk::<4>()?;
            let (lsn, rest) = rest.split_first_chunk::<8>()?;
            let (lane, rest) = rest.split_first()?;
            let place = match *lane {
                LANE_COPY => {
                    let (copy_id, rest) = rest.split_first_chunk::<4>()?;
                    let (chunk, rest) = rest.split_first_chunk::<4>()?;
                    Place::Copy {
                        copy_id: u32::from_be_bytes(*copy_id),
                        chunk: u32::from_be_bytes(*chunk),
                        row: u64::from_be_bytes(rest.try_into().ok()?),
                    }
                }
                LANE_STREAM => Place::Stream {
                    ordinal: u64::from_be_bytes(rest.try_into().ok()?),
                },
                _ => return None,
            };
            Some(Self {
                incarnation: u32::from_be_bytes(*incarnation),
                commit_lsn: Lsn(u64::from_be_bytes(*lsn)),
                place,
            })
        };
        parse().ok_or(malformed)
    }

    /// Writes the text of the lake column `_pos`: the encoded bytes in lower-case hexadecimal, replacing `out`.
    pub fn write_hex(&self, out: &mut String) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut bytes = Vec::with_capacity(29);
        self.encode(&mut bytes);
        out.clear();
        for byte in bytes {
            for nibble in [byte >> 4, byte & 0xF] {
                out.push(char::from(
                    DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'),
                ));
            }
        }
    }

    /// The text of the lake column `_pos`.
    #[must_use]
    pub fn to_hex(&self) -> String {
        let mut out = String::with_capacity(58);
        self.write_hex(&mut out);
        out
    }

    /// Reads what [`Position::to_hex`] gave.
    ///
    /// # Errors
    /// [`PositionError::MalformedPosition`] if it is not hexadecimal or no position.
    pub fn from_hex(text: &str) -> Result<Self, PositionError> {
        let malformed = PositionError::MalformedPosition { length: text.len() };
        let digit = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|value| u8::try_from(value).ok())
        };
        let mut bytes = Vec::with_capacity(29);
        for pair in text.as_bytes().chunks(2) {
            match pair {
                [high, low] => match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => bytes.push(high << 4 | low),
                    _ => return Err(malformed),
                },
                _ => return Err(malformed),
            }
        }
        Self::decode(&bytes)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Copy {
                copy_id,
                chunk,
                row,
            } => {
                write!(
                    f,
                    "{} copy {copy_id} chunk {chunk} row {row}",
                    self.commit_lsn
                )
            }
            Place::Stream { ordinal } => write!(f, "{} change {ordinal}", self.commit_lsn),
        }
    }
}

impl Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_position() -> impl Strategy<Value = Position> {
        let number = prop_oneof![0..3u64, Just(u64::MAX)];
        (
            0..3u32,
            number.clone(),
            any::<bool>(),
            0..2u32,
            0..2u32,
            number,
        )
            .prop_map(|(incarnation, lsn, copy, copy_id, chunk, last)| {
                if copy {
                    Position::copy(incarnation, Lsn(lsn), copy_id, chunk, last)
                } else {
                    Position::stream(incarnation, Lsn(lsn), last)
                }
            })
    }

    proptest! {
        #[test]
        fn value_bytes_and_text_sort_alike(a in any_position(), b in any_position()) {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            a.encode(&mut x);
            b.encode(&mut y);
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
            prop_assert_eq!(a.cmp(&b), a.to_hex().cmp(&b.to_hex()));
            prop_assert_eq!(Position::decode(&x), Ok(a));
            prop_assert_eq!(Position::from_hex(&a.to_hex()), Ok(a));
        }

        #[test]
        fn any_bytes_give_a_position_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(position) = Position::decode(&bytes) {
                let mut again = Vec::new();
                position.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }

    #[test]
    fn lsn_reads_and_prints_as_the_server_does() {
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert!("16B374D848".parse::<Lsn>().is_err());
    }

    #[test]
    fn copied_row_sorts_before_the_stream_at_its_position() {
        let copied = Position::copy(1, Lsn(10), 7, 3, u64::MAX);
        assert!(copied < Position::stream(1, Lsn(10), 1));
        assert!(copied > Position::stream(1, Lsn(9), u64::MAX));
    }
}
