//! How an operator asks a running agent for a new copy of a table, and what the agent answers.
//!
//! Flow: operator's command -> **request object** -> agent copies while it streams -> **answer object** -> operator.
//!
//! # Invariants
//! - Both objects are create-only: a request is never changed, and is answered once.
//! - [`CopyAnswer::Copied`] is written after the announcements of the copy are committed to the topic, never before.
//! - The copy is of a moment after the request: what the answer names holds every row that stood in the table when it was asked for.

use serde::{Deserialize, Serialize};

use crate::position::Lsn;

/// A request for a new copy of one table; its id is in its key ([`crate::layout::copy_request`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyRequest {
    /// Topic of the table, as it is registered: it stays when the table is renamed.
    pub topic: String,
    /// Who asks and why, for people.
    pub requested_by: String,
    /// When, milliseconds since the epoch, by the clock of who asks.
    pub requested_ms: i64,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case", deny_unknown_fields)]
pub enum CopyAnswer {
    /// The table was copied, and its files are announced on its topic.
    Copied {
        /// Number of the copy, in the position of each of its rows.
        copy_id: u32,
        /// Position of the copy: it holds what was committed before, and no more.
        copy_lsn: Lsn,
        /// Rows in its files; without those set aside.
        row_count: u64,
    },
    /// It cannot be copied; another request may be made once the reason is gone.
    Refused {
        /// Why, with what leads out of it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_and_answers_read_back_as_written() {
        let request =
            r#"{"topic":"shop.public.orders","requested_by":"gap recopy","requested_ms":7}"#;
        let read: CopyRequest = serde_json::from_str(request).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), request);
        let answers = [
            r#"{"outcome":"copied","copy_id":4,"copy_lsn":77,"row_count":5000}"#,
            r#"{"outcome":"refused","reason":"dropped"}"#,
        ];
        for answer in answers {
            let read: CopyAnswer = serde_json::from_str(answer).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), answer);
        }
    }

    #[test]
    fn request_with_unknown_words_is_refused() {
        let request = r#"{"topic":"t","requested_by":"x","requested_ms":7,"table":"t"}"#;
        assert!(serde_json::from_str::<CopyRequest>(request).is_err());
    }
}
