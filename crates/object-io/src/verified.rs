//! A create-only write whose lost or doubtful answer is resolved by reading back.
//!
//! # Invariants
//! - An attempt is never repeated before the object was read: a repeated write that meets its own first success would
//!   otherwise look like another's.
//! - A body says who wrote it (an id, or content that only one writer can have), so that equal bytes mean "ours".

use bytes::Bytes;

use crate::{ObjectError, ObjectStore, PutOutcome};

/// Times a write that certainly did not land is sent again.
const TRIES: u32 = 4;

/// How a verified create-only write ended.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifiedPut {
    /// The object is there with our body, by this call or by an earlier one with the same body.
    Created,
    /// The object is there with another body, given here.
    ExistsOther(Bytes),
    /// No answer, and none by reading back: it may still come to be.
    Unknown,
}

/// Creates an object unless one is there, and reads back whenever the answer does not settle whose it is.
///
/// A write that was not answered and is not there when read is sent again, at most four times: the key is create-only,
/// so that a late first attempt and its repetition cannot both win, and both hold the same bytes.
///
/// # Errors
/// Those of [`ObjectStore::put_if_absent`]. A failed read is no error but [`VerifiedPut::Unknown`].
pub async fn put_if_absent_verified(
    store: &dyn ObjectStore,
    key: &str,
    body: Bytes,
) -> Result<VerifiedPut, ObjectError> {
    for _ in 0..TRIES {
        match store.put_if_absent(key, body.clone()).await? {
            PutOutcome::Created => return Ok(VerifiedPut::Created),
            PutOutcome::Exists | PutOutcome::Unknown => {}
        }
        match store.get(key).await {
            Ok(Some(found)) if found == body => return Ok(VerifiedPut::Created),
            Ok(Some(found)) => return Ok(VerifiedPut::ExistsOther(found)),
            Ok(None) | Err(_) => {}
        }
    }
    Ok(VerifiedPut::Unknown)
}
