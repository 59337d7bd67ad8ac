//! What an event asks for: some tables, or all of them. Pure.

use std::collections::BTreeMap;

use function_kit::ddl::CombineRequest;
use function_kit::failure::INVALID_EVENT;
use function_kit::{Failure, SqsEvent};
use serde::Deserialize;

/// What an event asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The tables of these topics, each with the messages that named it.
    Messages(BTreeMap<String, Vec<String>>),
    /// Every registered table.
    Sweep,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SweepEvent {
    sweep: bool,
}

impl Request {
    /// Reads an event: `{"sweep":true}` of a schedule, or messages of SQS with bodies `{"topic":…}`.
    ///
    /// A message that says something else is passed over: it is a hint that helps nobody, now or later.
    ///
    /// # Errors
    /// [`Failure`] `InvalidEvent` for any other event.
    pub fn parse(payload: &[u8]) -> Result<Self, Failure> {
        if let Ok(SweepEvent { sweep: true }) = serde_json::from_slice(payload) {
            return Ok(Self::Sweep);
        }
        let event: SqsEvent =
            serde_json::from_slice(payload).map_err(|error| Failure::of(INVALID_EVENT, &error))?;
        let mut messages: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for message in event.records {
            match serde_json::from_str::<CombineRequest>(&message.body) {
                Ok(request) => messages
                    .entry(request.topic)
                    .or_default()
                    .push(message.message_id),
                Err(_malformed) => {
                    tracing::warn!(message_id = %message.message_id, "message names no topic: passed over");
                }
            }
        }
        Ok(Self::Messages(messages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_topic_are_one_request() {
        let event = br#"{"Records":[
            {"messageId":"1","body":"{\"topic\":\"a\"}"},
            {"messageId":"2","body":"nonsense"},
            {"messageId":"3","body":"{\"topic\":\"b\"}"},
            {"messageId":"4","body":"{\"topic\":\"a\"}"}]}"#;
        let of = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let expected = BTreeMap::from([
            ("a".to_owned(), of(&["1", "4"])),
            ("b".to_owned(), of(&["3"])),
        ]);
        assert_eq!(Request::parse(event), Ok(Request::Messages(expected)));
    }

    #[test]
    fn schedule_sweeps_and_anything_else_is_refused() {
        assert_eq!(Request::parse(br#"{"sweep":true}"#), Ok(Request::Sweep));
        for event in [&br#"{"sweep":false}"#[..], b"{}", b"[", br#"{"Records":1}"#] {
            assert!(Request::parse(event).is_err());
        }
    }
}
