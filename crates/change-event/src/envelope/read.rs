//! Reads envelopes: the functions' hot path.
//!
//! Flow: record bytes -> **here** -> row images -> `table-file`.
//!
//! # Invariants
//! - Nothing is built and nothing is copied: an image is a piece of the record, its fields are walked where they stand.
//! - The whole value is looked at before anything of it is given away, so walking an image cannot find broken JSON.
//! - Errors name members and columns, never values.
//! - Any bytes give an envelope or an error, never a panic.
//!
//! # Source
//! docs/ENVELOPE.md. A scanner of our own because building `serde_json` values dominated the function's time
//! (docs/PERFORMANCE.md); tests hold it against `serde_json`.

use crate::envelope::Operation;
use crate::json::{JsonError, Scanner, Value};
pub use crate::json::{RawCell, RawString};

/// A value that is no envelope: the record goes to quarantine.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Not JSON.
    #[error("not JSON")]
    Json(#[from] JsonError),
    /// JSON, but no object.
    #[error("not an object")]
    NotObject,
    /// A member that every envelope has is not there.
    #[error("no member {member:?}")]
    Missing {
        /// Its path.
        member: &'static str,
    },
    /// A member stands twice.
    #[error("member {member:?} twice")]
    Duplicate {
        /// Its path.
        member: &'static str,
    },
    /// A member of another type than its own.
    #[error("member {member:?} is not {expected}")]
    WrongType {
        /// Its path.
        member: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// `op` is none of c, u, d, r, t.
    #[error("unknown operation")]
    UnknownOperation,
    /// A column holds an array or an object.
    #[error("column {column:?} holds an array or object")]
    NestedValue {
        /// Name of the column.
        column: String,
    },
}

/// An envelope, borrowed from the record's bytes.
#[derive(Debug, Clone, Copy)]
pub struct EnvelopeView<'a> {
    /// What happened.
    pub operation: Operation,
    /// The row before, if the envelope has one.
    pub before: Option<ImageView<'a>>,
    /// The row after, if the envelope has one.
    pub after: Option<ImageView<'a>>,
    /// Commit time at the source, microseconds since the epoch.
    pub source_ts_us: i64,
    /// When the agent handled it, milliseconds since the epoch, if said.
    pub ts_ms: Option<i64>,
}

impl<'a> EnvelopeView<'a> {
    /// Reads an envelope, bare or as the `payload` beside an inline `schema`.
    ///
    /// # Errors
    /// [`EnvelopeError`] (Quarantine).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        let mut scanner = Scanner::of_bytes(bytes)?;
        let mut members = Members::default();
        match scanner.peek() {
            Some(b'{') => members.read_object(&mut scanner, true)?,
            Some(_) => {
                scanner.skip(0)?;
                return Err(if scanner.at_end() {
                    EnvelopeError::NotObject
                } else {
                    scanner.malformed().into()
                });
            }
            None => return Err(scanner.malformed().into()),
        }
        if !scanner.at_end() {
            return Err(scanner.malformed().into());
        }
        members.into_envelope()
    }
}

/// The members read so far. The outer option says whether the member was there.
#[derive(Default)]
struct Members<'a> {
    operation: Option<Operation>,
    before: Option<Option<ImageView<'a>>>,
    after: Option<Option<ImageView<'a>>>,
    source_ts_us: Option<i64>,
    source: Option<()>,
    ts_ms: Option<Option<i64>>,
    payload: Option<()>,
}

impl<'a> Members<'a> {
    /// Reads the members of an envelope; with `outermost`, a `payload` may hold them instead.
    fn read_object(
        &mut self,
        scanner: &mut Scanner<'a>,
        outermost: bool,
    ) -> Result<(), EnvelopeError> {
        scanner.expect(b'{')?;
        let mut first = true;
        while let Some(name) = scanner.member(first)? {
            first = false;
            match &*name.to_text() {
                "before" => set(&mut self.before, image(scanner, "before")?, "before")?,
                "after" => set(&mut self.after, image(scanner, "after")?, "after")?,
                "op" => set(&mut self.operation, operation(scanner)?, "op")?,
                "ts_ms" => set(
                    &mut self.ts_ms,
                    optional_integer(scanner, "ts_ms")?,
                    "ts_ms",
                )?,
                "source" => {
                    set(&mut self.source, (), "source")?;
                    self.read_source(scanner)?;
                }
                "payload" if outermost => {
                    set(&mut self.payload, (), "payload")?;
                    if scanner.peek() != Some(b'{') {
                        scanner.skip(1)?;
                        return Err(not_object("payload"));
                    }
                    self.read_object(scanner, false)?;
                }
                _ => scanner.skip(1)?,
            }
        }
        Ok(())
    }

    fn read_source(&mut self, scanner: &mut Scanner<'a>) -> Result<(), EnvelopeError> {
        if scanner.peek() != Some(b'{') {
            scanner.skip(1)?;
            return Err(not_object("source"));
        }
        scanner.expect(b'{')?;
        let mut first = true;
        while let Some(name) = scanner.member(first)? {
            first = false;
            if name.matches("ts_us") {
                match optional_integer(scanner, "source.ts_us")? {
                    Some(value) => set(&mut self.source_ts_us, value, "source.ts_us")?,
                    None => {
                        return Err(EnvelopeError::Missing {
                            member: "source.ts_us",
                        });
                    }
                }
            } else {
                scanner.skip(2)?;
            }
        }
        Ok(())
    }

    fn into_envelope(self) -> Result<EnvelopeView<'a>, EnvelopeError> {
        let missing = |member| EnvelopeError::Missing { member };
        Ok(EnvelopeView {
            operation: self.operation.ok_or_else(|| missing("op"))?,
            before: self.before.flatten(),
            after: self.after.flatten(),
            source_ts_us: self.source_ts_us.ok_or_else(|| missing("source.ts_us"))?,
            ts_ms: self.ts_ms.flatten(),
        })
    }
}

fn set<T>(slot: &mut Option<T>, value: T, member: &'static str) -> Result<(), EnvelopeError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(EnvelopeError::Duplicate { member }),
    }
}

const fn not_object(member: &'static str) -> EnvelopeError {
    EnvelopeError::WrongType {
        member,
        expected: "an object",
    }
}

fn image<'a>(
    scanner: &mut Scanner<'a>,
    member: &'static str,
) -> Result<Option<ImageView<'a>>, EnvelopeError> {
    let is_object = scanner.peek() == Some(b'{');
    let start = scanner.at();
    scanner.skip(1)?;
    match scanner.since(start) {
        text if is_object => Ok(Some(ImageView { text })),
        "null" => Ok(None),
        _ => Err(not_object(member)),
    }
}

fn operation(scanner: &mut Scanner<'_>) -> Result<Operation, EnvelopeError> {
    match scanner.value()? {
        Value::Scalar(RawCell::String(letter)) => {
            Operation::from_letter(&letter.to_text()).ok_or(EnvelopeError::UnknownOperation)
        }
        Value::Scalar(_) | Value::Nested => Err(EnvelopeError::WrongType {
            member: "op",
            expected: "a string",
        }),
    }
}

fn optional_integer(
    scanner: &mut Scanner<'_>,
    member: &'static str,
) -> Result<Option<i64>, EnvelopeError> {
    let wrong = EnvelopeError::WrongType {
        member,
        expected: "a 64-bit integer",
    };
    match scanner.value()? {
        Value::Scalar(RawCell::Number(text)) => text.parse().map(Some).map_err(|_source| wrong),
        Value::Scalar(RawCell::Null) => Ok(None),
        Value::Scalar(RawCell::Bool(_) | RawCell::String(_)) | Value::Nested => Err(wrong),
    }
}

/// A row image, borrowed from the record's bytes.
#[derive(Debug, Clone, Copy)]
pub struct ImageView<'a> {
    text: &'a str,
}

impl<'a> ImageView<'a> {
    /// The image's JSON text, an object.
    #[must_use]
    pub const fn text(&self) -> &'a str {
        self.text
    }

    /// Its fields, in the order of the record.
    #[must_use]
    pub const fn fields(&self) -> ImageFields<'a> {
        ImageFields {
            scanner: Scanner::new(self.text),
            state: FieldsState::Before,
        }
    }
}

impl<'a> IntoIterator for ImageView<'a> {
    type Item = Result<(RawString<'a>, RawCell<'a>), EnvelopeError>;
    type IntoIter = ImageFields<'a>;

    fn into_iter(self) -> ImageFields<'a> {
        self.fields()
    }
}

/// The fields of an image: name and value.
///
/// Shape: [`EnvelopeError::NestedValue`] in place of a field whose value is no scalar; nothing comes after it.
#[derive(Debug, Clone)]
pub struct ImageFields<'a> {
    scanner: Scanner<'a>,
    state: FieldsState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldsState {
    Before,
    Within,
    After,
}

impl<'a> ImageFields<'a> {
    fn step(&mut self) -> Result<Option<(RawString<'a>, RawCell<'a>)>, EnvelopeError> {
        let first = self.state == FieldsState::Before;
        if first {
            self.scanner.expect(b'{')?;
            self.state = FieldsState::Within;
        }
        let Some(name) = self.scanner.member(first)? else {
            return Ok(None);
        };
        match self.scanner.value()? {
            Value::Scalar(cell) => Ok(Some((name, cell))),
            Value::Nested => Err(EnvelopeError::NestedValue {
                column: name.to_text().into_owned(),
            }),
        }
    }
}

impl<'a> Iterator for ImageFields<'a> {
    type Item = Result<(RawString<'a>, RawCell<'a>), EnvelopeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.state == FieldsState::After {
            return None;
        }
        let step = self.step().transpose();
        if !matches!(step, Some(Ok(_))) {
            self.state = FieldsState::After;
        }
        step
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
