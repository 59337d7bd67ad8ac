//! The header that every record of a firn topic carries, one per record, named [`HEADER_NAME`].
//!
//! It is what makes the table able to tell a new record from a redelivered, doubled, fenced or missing one
//! (docs/SEMANTICS.md, "The accept rule"). One binary header rather than six named ones: a Lambda payload spells each
//! header byte as a decimal number, and six named headers would cost 250 bytes a record (docs/adr/002).
//!
//! # Layout
//! ```text
//! u8 format = 1 | u8 kind [ u32 map version, of a barrier ] | u32 topic incarnation | u32 schema version | u64 epoch | u64 pseq
//! u8 has predecessor (0, 1) [ u64 epoch | u64 pseq ] | position (21 or 29 bytes, crate::position)
//! ```
//! Integers are big-endian.

use std::fmt;

use crate::position::{Position, PositionError};

/// Name of the Kafka header.
pub const HEADER_NAME: &str = "firn";

const FORMAT: u8 = 1;

/// What a record stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// The value is the envelope of one row change.
    Change,
    /// The value is a [`crate::envelope::Reference`]; the envelope is an object.
    Reference,
    /// The value is a `CopyAnnouncement` of `table-file`: data files of a finished table copy.
    CopyAnnouncement,
    /// No row: the record only moves the frontier (a TRUNCATE seen by each partition, a change set aside).
    Marker,
    /// No row: what follows in the partition is written by this version of the partition map.
    Barrier {
        /// The version.
        map_version: u32,
    },
}

impl RecordKind {
    const fn code(self) -> u8 {
        match self {
            Self::Change => 0,
            Self::Reference => 1,
            Self::CopyAnnouncement => 2,
            Self::Marker => 3,
            Self::Barrier { .. } => 4,
        }
    }

    /// The kind, and the bytes behind it.
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (code, rest) = bytes.split_first()?;
        match *code {
            0 => Some((Self::Change, rest)),
            1 => Some((Self::Reference, rest)),
            2 => Some((Self::CopyAnnouncement, rest)),
            3 => Some((Self::Marker, rest)),
            4 => {
                let (version, rest) = rest.split_first_chunk()?;
                let map_version = u32::from_be_bytes(*version);
                Some((Self::Barrier { map_version }, rest))
            }
            _ => None,
        }
    }

    /// Whether a record of this kind stands for rows.
    #[must_use]
    pub const fn has_rows(self) -> bool {
        match self {
            Self::Change | Self::Reference | Self::CopyAnnouncement => true,
            Self::Marker | Self::Barrier { .. } => false,
        }
    }
}

/// The last committed record of a partition before an epoch began.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct Predecessor {
    /// Epoch of the agent that wrote it.
    pub epoch: u64,
    /// Its dense number in that epoch.
    pub pseq: u64,
}

/// `EPOCH:NUMBER`.
impl fmt::Display for Predecessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.pseq)
    }
}

/// The header of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// What the record stands for.
    pub kind: RecordKind,
    /// Topic incarnation: rises when the topic is made anew.
    pub topic_incarnation: u32,
    /// Version of the source schema by which the value is to be read.
    pub schema_version: u32,
    /// Fencing number of the agent; the higher wins.
    pub epoch: u64,
    /// Dense number 1, 2, 3 … per topic-partition and epoch.
    pub pseq: u64,
    /// On the first record of an epoch in a partition (`pseq` 1): the partition's last committed record, if any.
    pub predecessor: Option<Predecessor>,
    /// Order key of the row change.
    pub position: Position,
}

/// A header that cannot be read.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum HeaderError {
    /// Written by a newer firn, or not by firn.
    #[error("header of unknown format")]
    UnknownFormat,
    /// Shorter than its format says, or with an unknown code.
    #[error("malformed header of {length} bytes")]
    Malformed {
        /// Number of bytes given.
        length: usize,
    },
    /// The position in it cannot be read.
    #[error("malformed position in header")]
    Position(#[from] PositionError),
}

impl RecordHeader {
    /// Replaces `out` with the header's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&[FORMAT, self.kind.code()]);
        if let RecordKind::Barrier { map_version } = self.kind {
            out.extend_from_slice(&map_version.to_be_bytes());
        }
        out.extend_from_slice(&self.topic_incarnation.to_be_bytes());
        out.extend_from_slice(&self.schema_version.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.pseq.to_be_bytes());
        match self.predecessor {
            None => out.push(0),
            Some(Predecessor { epoch, pseq }) => {
                out.push(1);
                out.extend_from_slice(&epoch.to_be_bytes());
                out.extend_from_slice(&pseq.to_be_bytes());
            }
        }
        self.position.encode(out);
    }

    /// Reads what [`RecordHeader::encode`] wrote.
    ///
    /// # Errors
    /// [`HeaderError`], each a reason to quarantine the record.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let malformed = || HeaderError::Malformed {
            length: bytes.len(),
        };
        let (format, rest) = bytes.split_first().ok_or_else(malformed)?;
        if *format != FORMAT {
            return Err(HeaderError::UnknownFormat);
        }
        let (kind, rest) = RecordKind::decode(rest).ok_or_else(malformed)?;
        let (topic_incarnation, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (schema_version, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (epoch, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (pseq, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
        let (predecessor, rest) = match rest.split_first().ok_or_else(malformed)? {
            (0, rest) => (None, rest),
            (1, rest) => {
                let (epoch, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
                let (pseq, rest) = rest.split_first_chunk().ok_or_else(malformed)?;
                let predecessor = Predecessor {
                    epoch: u64::from_be_bytes(*epoch),
                    pseq: u64::from_be_bytes(*pseq),
                };
                (Some(predecessor), rest)
            }
            _ => return Err(malformed()),
        };
        Ok(Self {
            kind,
            topic_incarnation: u32::from_be_bytes(*topic_incarnation),
            schema_version: u32::from_be_bytes(*schema_version),
            epoch: u64::from_be_bytes(*epoch),
            pseq: u64::from_be_bytes(*pseq),
            predecessor,
            position: Position::decode(rest)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::position::Lsn;

    fn sample(kind: RecordKind, predecessor: Option<Predecessor>) -> RecordHeader {
        RecordHeader {
            kind,
            topic_incarnation: 2,
            schema_version: 9,
            epoch: 5,
            pseq: 1,
            predecessor,
            position: Position::stream(1, Lsn(77), 3),
        }
    }

    #[test]
    fn every_kind_reads_back() {
        let kinds = [
            RecordKind::Change,
            RecordKind::Reference,
            RecordKind::CopyAnnouncement,
            RecordKind::Marker,
            RecordKind::Barrier { map_version: 7 },
        ];
        for kind in kinds {
            for predecessor in [
                None,
                Some(Predecessor {
                    epoch: 4,
                    pseq: 1000,
                }),
            ] {
                let header = sample(kind, predecessor);
                let mut bytes = Vec::new();
                header.encode(&mut bytes);
                assert_eq!(RecordHeader::decode(&bytes), Ok(header));
                for end in 0..bytes.len() {
                    assert!(RecordHeader::decode(&bytes[..end]).is_err(), "cut at {end}");
                }
            }
        }
    }

    #[test]
    fn newer_format_is_refused() {
        assert_eq!(
            RecordHeader::decode(&[2, 0]),
            Err(HeaderError::UnknownFormat)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_header_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(header) = RecordHeader::decode(&bytes) {
                let mut again = Vec::new();
                header.encode(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
