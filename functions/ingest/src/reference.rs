//! Envelopes that are objects: where they lie, and how many of them are taken at once.
//!
//! Flow: records of a batch -> **portions** -> [`crate::stage`].
//!
//! # Invariants
//! - Nothing outside of the folder of references is followed.
//! - A batch of many small records that stand for large objects is staged in portions: memory does not depend on how many
//!   there are.

use change_event::RecordKind;
use change_event::envelope::{Reference, bare_value};

use crate::error::Reason;
use crate::record::Record;
use crate::slice::Found;

/// Envelopes by reference lie here.
const FOLDER: &str = "control/reference/";

/// Bytes of referenced envelopes that are held at once, unless a single one is larger: they are in memory about three times
/// (envelope, columns, Parquet), and the function has 1769 MB.
const PORTION_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The key of the object that a record stands for.
///
/// # Errors
/// [`Reason::Reference`] (Quarantine).
pub(crate) fn key(value: &[u8]) -> Result<String, Reason> {
    let reference: Reference = serde_json::from_slice(bare_value(value))
        .map_err(|_source| Reason::Reference("it cannot be read"))?;
    if !reference.firn_reference.starts_with(FOLDER) {
        return Err(Reason::Reference(
            "it leads out of the folder of references",
        ));
    }
    Ok(reference.firn_reference)
}

/// Cuts records where what they refer to becomes too much: the portion to stage now, and the rest.
///
/// Shape: the portion has at least one record, unless there are none.
pub(crate) fn portion(records: &[Record]) -> (&[Record], &[Record]) {
    let mut bytes = 0u64;
    let cut = records.iter().position(|record| {
        let size_bytes = size_bytes(record);
        let full = size_bytes > 0 && bytes > 0 && bytes + size_bytes > PORTION_BYTES_MAX;
        bytes = bytes.saturating_add(size_bytes);
        full
    });
    records.split_at(cut.unwrap_or(records.len()))
}

/// Size of the envelope that a record refers to, as the agent that stored it says; 0 for one that carries its own, or cannot be read.
fn size_bytes(record: &Record) -> u64 {
    match (&record.found, &record.value) {
        (Found::Firn(header), Some(value)) if header.kind == RecordKind::Reference => {
            serde_json::from_slice::<Reference>(bare_value(value))
                .map_or(0, |reference| reference.size_bytes.min(u64::from(u32::MAX)))
        }
        _ => 0,
    }
}
