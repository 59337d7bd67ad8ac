//! Keys of the control objects that agent and functions share. They lie outside every table's location, because orphan
//! removal walks those. Intents have their keys in `table-commit`.
//!
//! # Invariants
//! - A number in a key is zero-padded, so that a listing is in its order.

use crate::naming::escape;
use crate::position::Position;

/// One version of a source schema: created once, never changed.
#[must_use]
pub fn schema_document(source: &str, topic: &str, version: u32) -> String {
    format!(
        "control/schema/{}/{topic}/{version:010}.json",
        escape(source)
    )
}

/// What an operator plans to rebuild in the place of a table , by that table's identity: created once.
#[must_use]
pub fn rebuild_plan(former_uuid: &str) -> String {
    format!("control/rebuild/{former_uuid}.json")
}

/// Folder of the registrations of all topics.
pub const REGISTRY: &str = "control/registry/";

/// Registration of one topic ([`crate::registration::TopicRegistration`]).
#[must_use]
pub fn registration(topic: &str) -> String {
    format!("{REGISTRY}{topic}.json")
}

/// Claim of an epoch by an agent: created once.
#[must_use]
pub fn epoch_claim(source: &str, epoch: u64) -> String {
    format!("{}{epoch:020}", epoch_claims(source))
}

/// Folder of the epoch claims of a source.
#[must_use]
pub fn epoch_claims(source: &str) -> String {
    format!("control/agent/{}/epoch/", escape(source))
}

/// Claim of a topic incarnation: created once.
#[must_use]
pub fn incarnation_claim(topic: &str, incarnation: u32) -> String {
    format!("{}{incarnation:010}", incarnation_claims(topic))
}

/// Folder of the incarnation claims of a topic.
#[must_use]
pub fn incarnation_claims(topic: &str) -> String {
    format!("control/topic/{topic}/incarnation/")
}

/// A version of a topic's partition map, decided once: created once.
#[must_use]
pub fn partition_map(topic: &str, incarnation: u32, version: u32) -> String {
    format!("control/topic/{topic}/map/{incarnation:010}-{version:010}.json")
}

/// The mark that a source had a slot: who finds it without the slot has lost the slot.
#[must_use]
pub fn slot_mark(source: &str) -> String {
    format!("control/agent/{}/slot.json", escape(source))
}

/// Folder of what is said of tables that were taken in, or left the publication, after the first copy.
#[must_use]
pub fn captured_tables(source: &str) -> String {
    format!("control/agent/{}/table/", escape(source))
}

/// A captured table owes a copy for the `number`th time: created once.
#[must_use]
pub fn copy_owed(source: &str, oid: u32, number: u32) -> String {
    format!(
        "{}{oid:010}/owed-{number:010}.json",
        captured_tables(source)
    )
}

/// The copy that a table owed is announced: created once.
#[must_use]
pub fn copy_paid(source: &str, oid: u32, number: u32) -> String {
    format!(
        "{}{oid:010}/paid-{number:010}.json",
        captured_tables(source)
    )
}

/// All announcements of a table copy, written before the first of them is sent: whoever announces it again says the same.
#[must_use]
pub fn copy_manifest(source: &str, copy_id: u32) -> String {
    format!("{}{copy_id:010}.json", copy_manifests(source))
}

/// Folder of the manifests of a source's table copies.
#[must_use]
pub fn copy_manifests(source: &str) -> String {
    format!("control/agent/{}/copy/", escape(source))
}

/// Claim of the number of a table copy: created once, so that no number is given twice.
#[must_use]
pub fn copy_claim(source: &str, copy_id: u32) -> String {
    format!("{}{copy_id:010}.json", copy_claims(source))
}

/// Folder of the claims of a source's table copies.
#[must_use]
pub fn copy_claims(source: &str) -> String {
    format!("control/agent/{}/copy-claim/", escape(source))
}

/// Request for a new copy of a table ([`crate::copy_request::CopyRequest`]): created once by who asks.
#[must_use]
pub fn copy_request(source: &str, id: &str) -> String {
    format!("{}{id}.json", copy_requests(source))
}

/// Folder of the requests for copies of a source's tables.
#[must_use]
pub fn copy_requests(source: &str) -> String {
    format!("control/agent/{}/copy-request/", escape(source))
}

/// What became of a request ([`crate::copy_request::CopyAnswer`]): created once by the agent.
#[must_use]
pub fn copy_answer(source: &str, id: &str) -> String {
    format!("{}{id}.json", copy_answers(source))
}

/// Folder of the answers to the requests for copies of a source's tables.
#[must_use]
pub fn copy_answers(source: &str) -> String {
    format!("control/agent/{}/copy-answer/", escape(source))
}

/// Folder of what agents write about themselves.
pub const AGENTS: &str = "control/agent/";

/// Whether an object is a [`copy_manifest`] of any source.
#[must_use]
pub fn is_copy_manifest(key: &str) -> bool {
    let name = key
        .strip_prefix(AGENTS)
        .and_then(|rest| rest.split_once('/'));
    name.is_some_and(|(_, rest)| rest.starts_with("copy/"))
}

/// Written by each run of functions/maintain, which reads the store's clock from its date.
pub const MAINTAIN_CLOCK: &str = "control/maintain/clock";

/// How far functions/maintain saw a table: what is behind it may go once this is a day old.
#[must_use]
pub fn frontier_note(table_uuid: &str) -> String {
    format!("control/maintain/frontier/{table_uuid}.json")
}

/// An envelope too large for the topic.
#[must_use]
pub fn reference(source: &str, topic: &str, id: &str) -> String {
    format!("control/reference/{}/{topic}/{id}.json", escape(source))
}

/// A record that can never succeed.
#[must_use]
pub fn quarantine(source: &str, table: &str, topic: &str, partition: u32, offset: i64) -> String {
    format!(
        "quarantine/{}/{}/{topic}-{partition:05}-{offset:020}.json",
        escape(source),
        escape(table)
    )
}

/// A row change that the agent cannot write as an envelope; it has no offset yet, so its position names it.
#[must_use]
pub fn source_quarantine(source: &str, table: &str, topic: &str, position: Position) -> String {
    format!(
        "quarantine/{}/{}/{topic}-at-{}.json",
        escape(source),
        escape(table),
        position.to_hex()
    )
}

/// Who wrote a data file of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataFileKind {
    /// functions/ingest, for a batch.
    Batch,
    /// An agent, for a table copy.
    Copied,
}

/// Name of a data file with the rows of a batch. `id` is of an [`IdSource`](crate::IdSource).
#[must_use]
pub fn batch_file(id: &str) -> String {
    format!("{id}.parquet")
}

/// Name of a data file with copied rows. `id` is of an [`IdSource`](crate::IdSource).
#[must_use]
pub fn copied_file(id: &str) -> String {
    format!("copy-{id}.parquet")
}

/// Whose a data file of this name is, or `None` for names that firn never gives: such a file is another's.
#[must_use]
pub fn data_file_kind(name: &str) -> Option<DataFileKind> {
    let stem = name.strip_suffix(".parquet")?;
    let (kind, id) = match stem.strip_prefix("copy-") {
        Some(id) => (DataFileKind::Copied, id),
        None => (DataFileKind::Batch, stem),
    };
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (id.len() == 32 && id.bytes().all(digit)).then_some(kind)
}

/// Location of a lake table below the bucket.
#[must_use]
pub fn table_location(database: &str, table: &str) -> String {
    format!("tables/{database}/{table}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IdSource, RandomIds};

    #[test]
    fn names_we_give_are_ours_and_others_are_not() {
        let id = RandomIds.next_id();
        assert_eq!(data_file_kind(&batch_file(&id)), Some(DataFileKind::Batch));
        assert_eq!(
            data_file_kind(&copied_file(&id)),
            Some(DataFileKind::Copied)
        );
        for name in [
            "00000-0-8f7a4c1e-3c2b-4a47-9a42-ffb0b9c1de10-00001.parquet",
            "0123456789ABCDEF0123456789ABCDEF.parquet",
            "0123456789abcdef0123456789abcde.parquet",
            "copy-copy-0123456789abcdef0123456789abcdef.parquet",
            "0123456789abcdef0123456789abcdef.parquet.crc",
            "day=1/0123456789abcdef0123456789abcdef.parquet",
            "",
        ] {
            assert_eq!(data_file_kind(name), None, "{name}");
        }
    }

    #[test]
    fn copy_manifests_are_told_from_other_objects_of_agents() {
        assert!(is_copy_manifest(&copy_manifest("shop.eu", 7)));
        for key in [
            slot_mark("shop"),
            epoch_claim("copy", 1),
            "copy/1.json".to_owned(),
        ] {
            assert!(!is_copy_manifest(&key), "{key}");
        }
    }
}
