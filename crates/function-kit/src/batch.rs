//! Batches as event source mappings hand them over, and the answers that name what must come again.
//!
//! # Source
//! Lambda developer guide, "Reporting batch item failures" for SQS; for Kafka the shape is read from Powertools for
//! Lambda 3.37 (no page of the guide shows it): `partition` is `<topic>-<partition>`, everything from `offset` on comes again.

use serde::{Deserialize, Serialize};

/// Answer to a Kafka event: the first failed offset of each failed partition. Empty: all of it is done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KafkaBatchResponse {
    /// One for each failed partition.
    pub batch_item_failures: Vec<KafkaItemFailure>,
}

/// One failed partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KafkaItemFailure {
    /// Where the partition comes again from.
    pub item_identifier: KafkaItemIdentifier,
}

/// A place in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaItemIdentifier {
    /// `<topic>-<partition>`, as the event's key spells it.
    pub partition: String,
    /// First offset that is not done.
    pub offset: i64,
}

impl KafkaBatchResponse {
    /// Adds a failed partition.
    pub fn fail(&mut self, partition: String, offset: i64) {
        self.batch_item_failures.push(KafkaItemFailure {
            item_identifier: KafkaItemIdentifier { partition, offset },
        });
    }
}

/// An SQS event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqsEvent {
    /// Its messages.
    #[serde(rename = "Records")]
    pub records: Vec<SqsMessage>,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SqsMessage {
    /// Identity in the batch.
    pub message_id: String,
    /// What was sent.
    pub body: String,
}

/// Answer to an SQS event: the messages that must come again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SqsBatchResponse {
    /// One for each failed message.
    pub batch_item_failures: Vec<SqsItemFailure>,
}

/// One failed message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SqsItemFailure {
    /// Its `messageId`.
    pub item_identifier: String,
}

impl SqsBatchResponse {
    /// Adds a failed message.
    pub fn fail(&mut self, message_id: String) {
        self.batch_item_failures.push(SqsItemFailure {
            item_identifier: message_id,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafka_answer_is_spelled_as_lambda_reads_it() {
        let mut response = KafkaBatchResponse::default();
        response.fail("shop.public.a-0".to_owned(), 123);
        assert_eq!(
            serde_json::to_string(&response).expect("it serializes"),
            r#"{"batchItemFailures":[{"itemIdentifier":{"partition":"shop.public.a-0","offset":123}}]}"#
        );
        let none = serde_json::to_string(&KafkaBatchResponse::default()).expect("it serializes");
        assert_eq!(none, r#"{"batchItemFailures":[]}"#);
    }

    #[test]
    fn sqs_event_is_read_and_its_answer_spelled() {
        let event = r#"{"Records":[{"messageId":"m1","body":"{}","attributes":{"a":"b"},"eventSource":"aws:sqs"}]}"#;
        let event: SqsEvent = serde_json::from_str(event).expect("it is an SQS event");
        let mut response = SqsBatchResponse::default();
        response.fail(event.records[0].message_id.clone());
        assert_eq!(
            serde_json::to_string(&response).expect("it serializes"),
            r#"{"batchItemFailures":[{"itemIdentifier":"m1"}]}"#
        );
    }
}
