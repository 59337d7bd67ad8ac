//! Decodes one message of `pgoutput`, protocol version 1, text format.
//!
//! Flow: replication stream -> **here** -> the agent's transactions.
//!
//! # Invariants
//! - Pure: bytes in, message out; malformed bytes give an error, never a panic.
//! - No allocation for a row: a [`Tuple`] borrows its bytes, which are checked once, in [`decode`].
//! - A column marked "unchanged TOAST" is [`Cell::Unavailable`], never NULL.
//!
//! # Source
//! PostgreSQL 18 manual, "Logical Replication Message Formats". The manual does not say that under `REPLICA IDENTITY FULL` every
//! column is flagged as part of the key (`logicalrep_write_attrs` in `proto.c`).

use change_event::disposition::Disposition;
use change_event::{Cell, Lsn};

/// Microseconds from the Unix epoch to PostgreSQL's, 2000-01-01.
pub const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Bytes that are no message of protocol version 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before it is complete.
    #[error("message {tag:?} is cut short")]
    Truncated {
        /// Kind of the message.
        tag: char,
    },
    /// The message goes on after its end.
    #[error("message {tag:?} has {count} bytes too many")]
    TrailingBytes {
        /// Kind of the message.
        tag: char,
        /// How many.
        count: usize,
    },
    /// A kind of message that protocol version 1 does not have.
    #[error("unknown kind of message {tag:?}")]
    UnknownMessage {
        /// Its tag.
        tag: char,
    },
    /// A part of a message that the protocol does not have.
    #[error("message {tag:?} has an unknown part {part:?}")]
    UnknownPart {
        /// Kind of the message.
        tag: char,
        /// The byte that names the part.
        part: char,
    },
    /// A name is not UTF-8.
    #[error("message {tag:?} holds a name that is not UTF-8")]
    MalformedName {
        /// Kind of the message.
        tag: char,
    },
    /// A value is not UTF-8: the database stores bytes of another encoding (`SQL_ASCII`).
    #[error("column {column_index} of a row of relation {relation_oid} is not UTF-8")]
    MalformedText {
        /// Table, as the server numbers it.
        relation_oid: u32,
        /// Place of the column in the row, from 0.
        column_index: usize,
    },
    /// A value in binary format, which was not asked for.
    #[error("column {column_index} of a row of relation {relation_oid} is in binary format")]
    BinaryColumn {
        /// Table, as the server numbers it.
        relation_oid: u32,
        /// Place of the column in the row, from 0.
        column_index: usize,
    },
}

impl DecodeError {
    /// What may be done about it: a row that is not text goes to quarantine, anything else means that we do not understand the
    /// stream.
    #[must_use]
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::MalformedText { .. } => Disposition::Quarantine,
            Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::UnknownMessage { .. }
            | Self::UnknownPart { .. }
            | Self::MalformedName { .. }
            | Self::BinaryColumn { .. } => Disposition::Halt,
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins; its row changes follow, all of them, and then its commit.
    Begin {
        /// Position of the commit record: the order key of the transaction.
        final_lsn: Lsn,
        /// Commit time, microseconds since the Unix epoch.
        commit_us: i64,
        /// Transaction id.
        xid: u32,
    },
    /// The transaction ends.
    Commit {
        /// Position of the commit record, equal to `final_lsn` of its begin.
        commit_lsn: Lsn,
        /// Position behind the commit record: what is acknowledged once the transaction is durable.
        end_lsn: Lsn,
        /// Commit time, microseconds since the Unix epoch.
        commit_us: i64,
    },
    /// The transaction came from another server by replication.
    Origin {
        /// Position of its commit there.
        commit_lsn: Lsn,
        /// Name of the origin.
        name: &'a str,
    },
    /// The shape of a table, before its first row in a session and whenever it changed.
    Relation(RelationMessage),
    /// Name of a type that is not built in, before a relation that uses it.
    Type {
        /// Type.
        type_oid: u32,
        /// Its schema; empty means `pg_catalog`.
        schema: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// INSERT of a row.
    Insert {
        /// Table.
        relation_oid: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// UPDATE of a row.
    Update {
        /// Table.
        relation_oid: u32,
        /// The row before, if the replica identity is full or a key column changed.
        old: Option<OldTuple<'a>>,
        /// The row after.
        new: Tuple<'a>,
    },
    /// DELETE of a row.
    Delete {
        /// Table.
        relation_oid: u32,
        /// The row before.
        old: OldTuple<'a>,
    },
    /// TRUNCATE of one or several tables.
    Truncate {
        /// Tables, those of CASCADE included.
        relation_oids: Vec<u32>,
        /// CASCADE was given.
        cascade: bool,
        /// RESTART IDENTITY was given.
        restart_identity: bool,
    },
    /// What `pg_logical_emit_message` wrote.
    Logical {
        /// Part of the transaction around it; otherwise it stands alone, outside of any.
        transactional: bool,
        /// Position of the message.
        lsn: Lsn,
        /// Prefix.
        prefix: &'a str,
        /// Content.
        content: &'a [u8],
    },
}

/// Which columns of the old row the log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// The columns of an index.
    Index,
    /// All.
    Full,
    /// None: the server refuses UPDATE and DELETE.
    Nothing,
}

impl ReplicaIdentity {
    /// The letter of `pg_class.relreplident`.
    #[must_use]
    pub fn from_letter(letter: u8) -> Option<Self> {
        match letter {
            b'd' => Some(Self::Default),
            b'i' => Some(Self::Index),
            b'f' => Some(Self::Full),
            b'n' => Some(Self::Nothing),
            _ => None,
        }
    }
}

/// The shape of a table at its place in the stream. It has no `attnum`: see [`crate::relation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationMessage {
    /// Table.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// What the log holds of old rows.
    pub replica_identity: ReplicaIdentity,
    /// Columns as tuples hold them.
    pub columns: Vec<RelationColumn>,
}

/// A column of a [`RelationMessage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Part of the replica identity; under [`ReplicaIdentity::Full`] every column is.
    pub key: bool,
    /// Name.
    pub name: String,
    /// Type.
    pub type_oid: u32,
    /// Type modifier (`atttypmod`), -1 if none.
    pub typmod: i32,
}

/// The row before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// Only the columns of the replica identity have a value, the others are NULL.
    Key(Tuple<'a>),
    /// The whole row.
    Full(Tuple<'a>),
}

impl<'a> OldTuple<'a> {
    /// The tuple, of either kind.
    #[must_use]
    pub const fn tuple(&self) -> Tuple<'a> {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => *tuple,
        }
    }
}

/// A row image; checked, so that reading it cannot fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    column_count: usize,
    bytes: &'a [u8],
}

impl<'a> Tuple<'a> {
    /// Number of columns.
    #[must_use]
    pub const fn column_count(&self) -> usize {
        self.column_count
    }

    /// Size of the image on the wire, in bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// One cell per column, in the order of the relation message.
    #[must_use]
    pub const fn cells(&self) -> Cells<'a> {
        Cells {
            remaining: self.column_count,
            reader: Reader {
                tag: 'T',
                rest: self.bytes,
            },
        }
    }
}

/// See [`Tuple::cells`].
#[derive(Debug, Clone)]
pub struct Cells<'a> {
    remaining: usize,
    reader: Reader<'a>,
}

impl<'a> Iterator for Cells<'a> {
    type Item = Cell<'a>;

    fn next(&mut self) -> Option<Cell<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        // `decode` has read the same bytes the same way, so an error cannot be here.
        self.reader.cell(0, 0).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Cells<'_> {}

/// Decodes the payload of one `XLogData` frame.
///
/// # Errors
/// [`DecodeError`]: Quarantine if a value is not UTF-8, otherwise Halt.
pub fn decode(payload: &[u8]) -> Result<Message<'_>, DecodeError> {
    let Some((tag, rest)) = payload.split_first() else {
        return Err(DecodeError::Truncated { tag: '\0' });
    };
    let mut reader = Reader {
        tag: char::from(*tag),
        rest,
    };
    let message = match tag {
        b'B' => Message::Begin {
            final_lsn: reader.lsn()?,
            commit_us: reader.time_us()?,
            xid: reader.u32()?,
        },
        b'C' => {
            reader.u8()?; // flags, unused
            Message::Commit {
                commit_lsn: reader.lsn()?,
                end_lsn: reader.lsn()?,
                commit_us: reader.time_us()?,
            }
        }
        b'O' => Message::Origin {
            commit_lsn: reader.lsn()?,
            name: reader.name()?,
        },
        b'R' => Message::Relation(relation(&mut reader)?),
        b'Y' => Message::Type {
            type_oid: reader.u32()?,
            schema: reader.name()?,
            name: reader.name()?,
        },
        b'I' => {
            let relation_oid = reader.u32()?;
            reader.expect(b'N')?;
            Message::Insert {
                relation_oid,
                new: reader.tuple(relation_oid)?,
            }
        }
        b'U' => update(&mut reader)?,
        b'D' => {
            let relation_oid = reader.u32()?;
            let old = match reader.u8()? {
                b'K' => OldTuple::Key(reader.tuple(relation_oid)?),
                b'O' => OldTuple::Full(reader.tuple(relation_oid)?),
                part => return Err(reader.unknown_part(part)),
            };
            Message::Delete { relation_oid, old }
        }
        b'T' => truncate(&mut reader)?,
        b'M' => {
            let transactional = reader.u8()? & 1 == 1;
            let lsn = reader.lsn()?;
            let prefix = reader.name()?;
            let size_bytes = reader.length()?;
            Message::Logical {
                transactional,
                lsn,
                prefix,
                content: reader.take(size_bytes)?,
            }
        }
        _ => return Err(DecodeError::UnknownMessage { tag: reader.tag }),
    };
    reader.finish()?;
    Ok(message)
}

fn relation(reader: &mut Reader<'_>) -> Result<RelationMessage, DecodeError> {
    let oid = reader.u32()?;
    let schema = match reader.name()? {
        "" => "pg_catalog",
        schema => schema,
    };
    let table = reader.name()?;
    let letter = reader.u8()?;
    let replica_identity =
        ReplicaIdentity::from_letter(letter).ok_or_else(|| reader.unknown_part(letter))?;
    let column_count = reader.u16()?;
    let mut columns = Vec::with_capacity(usize::from(column_count).min(reader.rest.len()));
    for _ in 0..column_count {
        columns.push(RelationColumn {
            key: reader.u8()? & 1 == 1,
            name: reader.name()?.to_owned(),
            type_oid: reader.u32()?,
            typmod: i32::from_be_bytes(reader.array()?),
        });
    }
    Ok(RelationMessage {
        oid,
        schema: schema.to_owned(),
        table: table.to_owned(),
        replica_identity,
        columns,
    })
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation_oid = reader.u32()?;
    let old = match reader.u8()? {
        b'K' => Some(OldTuple::Key(reader.tuple(relation_oid)?)),
        b'O' => Some(OldTuple::Full(reader.tuple(relation_oid)?)),
        b'N' => None,
        part => return Err(reader.unknown_part(part)),
    };
    if old.is_some() {
        reader.expect(b'N')?;
    }
    Ok(Message::Update {
        relation_oid,
        old,
        new: reader.tuple(relation_oid)?,
    })
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let count = reader.length()?;
    let options = reader.u8()?;
    let mut relation_oids = Vec::with_capacity(count.min(reader.rest.len() / 4));
    for _ in 0..count {
        relation_oids.push(reader.u32()?);
    }
    Ok(Message::Truncate {
        relation_oids,
        cascade: options & 1 == 1,
        restart_identity: options & 2 == 2,
    })
}

/// Reads a message from its front.
#[derive(Debug, Clone)]
struct Reader<'a> {
    tag: char,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(DecodeError::Truncated { tag: self.tag })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated { tag: self.tag })?;
        self.rest = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// A signed 32-bit length; a negative one is longer than any message.
    fn length(&mut self) -> Result<usize, DecodeError> {
        let tag = self.tag;
        usize::try_from(i32::from_be_bytes(self.array()?))
            .map_err(|_negative| DecodeError::Truncated { tag })
    }

    fn lsn(&mut self) -> Result<Lsn, DecodeError> {
        Ok(Lsn(u64::from_be_bytes(self.array()?)))
    }

    fn time_us(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?).saturating_add(POSTGRES_EPOCH_US))
    }

    fn name(&mut self) -> Result<&'a str, DecodeError> {
        let end = memchr::memchr(0, self.rest).ok_or(DecodeError::Truncated { tag: self.tag })?;
        let name = self.take(end)?;
        self.take(1)?;
        std::str::from_utf8(name).map_err(|_source| DecodeError::MalformedName { tag: self.tag })
    }

    fn expect(&mut self, part: u8) -> Result<(), DecodeError> {
        match self.u8()? {
            found if found == part => Ok(()),
            found => Err(self.unknown_part(found)),
        }
    }

    fn unknown_part(&self, part: u8) -> DecodeError {
        DecodeError::UnknownPart {
            tag: self.tag,
            part: char::from(part),
        }
    }

    fn cell(&mut self, relation_oid: u32, column_index: usize) -> Result<Cell<'a>, DecodeError> {
        match self.u8()? {
            b'n' => Ok(Cell::Null),
            b'u' => Ok(Cell::Unavailable),
            b't' => {
                let size_bytes = self.length()?;
                std::str::from_utf8(self.take(size_bytes)?)
                    .map(Cell::Text)
                    .map_err(|_source| DecodeError::MalformedText {
                        relation_oid,
                        column_index,
                    })
            }
            b'b' => Err(DecodeError::BinaryColumn {
                relation_oid,
                column_index,
            }),
            part => Err(self.unknown_part(part)),
        }
    }

    fn tuple(&mut self, relation_oid: u32) -> Result<Tuple<'a>, DecodeError> {
        let column_count = usize::from(self.u16()?);
        let start = self.rest;
        for column_index in 0..column_count {
            self.cell(relation_oid, column_index)?;
        }
        let used = start.len() - self.rest.len();
        let bytes = start.get(..used).unwrap_or_default();
        Ok(Tuple {
            column_count,
            bytes,
        })
    }

    fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes {
                tag: self.tag,
                count,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
