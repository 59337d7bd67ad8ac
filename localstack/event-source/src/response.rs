//! What a function's answer means for the batch: done, done up to an offset per partition, or all of it again.
//!
//! # Invariants
//! - What is not understood is a failure of the whole batch: redelivery is safe, a wrong commit is not.
//! - Of several failures in a partition the lowest offset counts; everything from it on comes again.
//!
//! # Source
//! AWS Lambda developer guide, "Reporting batch item failures": success is an empty or null answer, or an empty or null
//! `batchItemFailures`; a bad identifier fails the whole batch. The Kafka identifier is
//! `{"partition":"<topic>-<partition>","offset":n}` (Powertools 3.37).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::payload::RenderedRecord;

/// What is to be done after an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Settlement {
    /// Records that are done, in their order.
    pub done: Vec<RenderedRecord>,
    /// Records that come again, in their order.
    pub again: Vec<RenderedRecord>,
}

/// An answer that Lambda does not understand.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ResponseError {
    /// Not the JSON of a batch response.
    #[error("answer is no batch response")]
    Malformed,
    /// A failure names a partition or offset that was not in the batch.
    #[error("answer names a record that was not in the batch")]
    ForeignRecord,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemFailure {
    item_identifier: ItemIdentifier,
}

#[derive(Deserialize)]
struct ItemIdentifier {
    partition: String,
    offset: i64,
}

/// Lowest failed offset of each partition that has one, by the function's answer to a batch of `topic`.
///
/// # Errors
/// [`ResponseError`] (Retry: the whole batch again).
pub fn first_failures(
    topic: &str,
    batch: &[RenderedRecord],
    answer: &[u8],
) -> Result<BTreeMap<i32, i64>, ResponseError> {
    let mut firsts = BTreeMap::new();
    let failures = item_failures(answer)?;
    if failures.is_empty() {
        return Ok(firsts);
    }
    let mut labels = BTreeMap::new();
    for record in batch {
        labels
            .entry(record.partition)
            .or_insert_with(|| format!("{topic}-{}", record.partition));
    }
    for ItemFailure {
        item_identifier: ItemIdentifier { partition, offset },
    } in failures
    {
        let number = labels
            .iter()
            .find(|(_, label)| **label == partition)
            .map(|(number, _)| *number);
        let number = number.ok_or(ResponseError::ForeignRecord)?;
        if !batch
            .iter()
            .any(|record| record.partition == number && record.offset == offset)
        {
            return Err(ResponseError::ForeignRecord);
        }
        firsts
            .entry(number)
            .and_modify(|first: &mut i64| *first = offset.min(*first))
            .or_insert(offset);
    }
    Ok(firsts)
}

/// The failures that an answer names; none is a success.
fn item_failures(answer: &[u8]) -> Result<Vec<ItemFailure>, ResponseError> {
    if answer.trim_ascii().is_empty() {
        return Ok(Vec::new());
    }
    let malformed = |_error: serde_json::Error| ResponseError::Malformed;
    let response: Option<Map<String, Value>> = serde_json::from_slice(answer).map_err(malformed)?;
    let failures = response.and_then(|mut fields| fields.remove("batchItemFailures"));
    let failures: Option<Vec<ItemFailure>> =
        serde_json::from_value(failures.unwrap_or_default()).map_err(malformed)?;
    Ok(failures.unwrap_or_default())
}

/// Splits a batch: from the first failure of its partition on, a record comes again.
///
/// Shape: `batch` in delivery order; both parts of the result keep it.
#[must_use]
pub fn split(batch: Vec<RenderedRecord>, first_failures: &BTreeMap<i32, i64>) -> Settlement {
    let (again, done) = batch.into_iter().partition(|record| {
        first_failures
            .get(&record.partition)
            .is_some_and(|first| record.offset >= *first)
    });
    Settlement { done, again }
}

/// The offset to commit for each partition of `done`: the one after its last record.
#[must_use]
pub fn next_offsets(done: &[RenderedRecord]) -> BTreeMap<i32, i64> {
    done.iter()
        .map(|record| (record.partition, record.offset + 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Vec<RenderedRecord> {
        let record = |(partition, offset)| RenderedRecord {
            partition,
            offset,
            json: "{}".to_owned(),
        };
        // Offsets have holes: transaction markers take some.
        [(0, 5), (1, 1), (0, 6), (1, 3), (0, 9)].map(record).into()
    }

    fn settle(
        topic: &str,
        batch: Vec<RenderedRecord>,
        answer: &[u8],
    ) -> Result<Settlement, ResponseError> {
        first_failures(topic, &batch, answer).map(|failures| split(batch, &failures))
    }

    fn places(records: &[RenderedRecord]) -> Vec<(i32, i64)> {
        records
            .iter()
            .map(|record| (record.partition, record.offset))
            .collect()
    }

    #[test]
    fn every_spelling_of_success_is_one() {
        let answers = [
            "",
            " ",
            "null",
            "{}",
            r#"{"batchItemFailures":[]}"#,
            r#"{"batchItemFailures":null}"#,
        ];
        for answer in answers {
            let settled = settle("t-x", batch(), answer.as_bytes()).expect("success");
            assert_eq!(settled.again, [], "{answer}");
            assert_eq!(
                next_offsets(&settled.done),
                BTreeMap::from([(0, 10), (1, 4)])
            );
        }
    }

    #[test]
    fn failures_bring_back_their_partition_from_the_lowest_offset() {
        let answer = br#"{"batchItemFailures":[
            {"itemIdentifier":{"partition":"t-x-0","offset":9}},{"itemIdentifier":{"partition":"t-x-0","offset":6}}]}"#;
        let settled = settle("t-x", batch(), answer).expect("partial");
        assert_eq!(places(&settled.again), [(0, 6), (0, 9)]);
        assert_eq!(places(&settled.done), [(0, 5), (1, 1), (1, 3)]);
        assert_eq!(
            next_offsets(&settled.done),
            BTreeMap::from([(0, 6), (1, 4)])
        );
    }

    #[test]
    fn what_is_not_understood_fails_the_batch() {
        for answer in [
            "[]",
            "nonsense",
            "\"ok\"",
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{}]}"#,
        ] {
            assert_eq!(
                settle("t", batch(), answer.as_bytes()),
                Err(ResponseError::Malformed),
                "{answer}"
            );
        }
        for (partition, offset) in [("t-2", 5), ("u-0", 5), ("t-0", 7)] {
            let answer = format!(
                r#"{{"batchItemFailures":[{{"itemIdentifier":{{"partition":"{partition}","offset":{offset}}}}}]}}"#
            );
            assert_eq!(
                settle("t", batch(), answer.as_bytes()),
                Err(ResponseError::ForeignRecord)
            );
        }
    }
}
