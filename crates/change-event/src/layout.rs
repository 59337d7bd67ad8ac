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

/// Location of a lake table below the bucket.
#[must_use]
pub fn table_location(database: &str, table: &str) -> String {
    format!("tables/{database}/{table}")
}
