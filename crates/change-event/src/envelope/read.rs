//! Reads envelopes: the functions' hot path.

use crate::envelope::Operation;

/// A value that is no envelope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Not JSON, or not in the encoding that JSON demands.
    #[error("not JSON at byte {offset}")]
    NotJson {
        /// Where reading stopped.
        offset: usize,
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
    /// [`EnvelopeError`] (Quarantine); it never holds values of the row.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        Err(EnvelopeError::NotJson { offset: bytes.len() })
    }
}

/// A row image, borrowed from the record's bytes.
#[derive(Debug, Clone, Copy)]
pub struct ImageView<'a> {
    text: &'a str,
}

impl<'a> ImageView<'a> {
    /// The image's JSON text.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }
}
