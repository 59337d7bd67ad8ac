//! Reads envelopes: the functions' hot path.

/// A value that is no envelope.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvelopeError {}

/// An envelope, borrowed from the record's bytes.
#[derive(Debug)]
pub struct EnvelopeView;

/// A row image, borrowed from the record's bytes.
#[derive(Debug)]
pub struct ImageView;
