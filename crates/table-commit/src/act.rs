//! What an operator did to a table, written down in the table itself.
//!
//! Flow: an operator's command -> **here** -> property [`ACTS_PROPERTY`], in the same metadata as what was done.
//!
//! # Invariants
//! - An act carries the id of its attempt, so that one whose answer was lost is found by reading back.
//! - What cannot be read (a newer firn wrote it) is kept as it is.

use iceberg::spec::TableMetadata;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gap::GapPlace;
use crate::rollback::Head;

/// Table property: what operators did, oldest first.
pub const ACTS_PROPERTY: &str = "firn.operator-acts";

/// Acts kept: metadata must not grow with a table's age, and fifty surgeries on one table are read by nobody.
const ACTS_KEPT: usize = 50;

/// Who does something to a table, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// A name that colleagues know.
    pub by: String,
    /// In the operator's words.
    pub why: String,
}

/// Something that an operator did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// Identity of the attempt.
    pub id: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Who and why.
    #[serde(flatten)]
    pub operator: Operator,
    /// What.
    #[serde(flatten)]
    pub kind: ActKind,
}

/// What an operator can do to a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum ActKind {
    /// Missing records were given up.
    GapAccepted(GapPlace),
    /// What was rolled back stays away.
    RollbackAccepted {
        /// The snapshot that the state named.
        state_snapshot_id: Option<i64>,
        /// The head that it names since.
        head_snapshot_id: Option<i64>,
    },
    /// What was rolled back is combined again.
    RollbackReplayed {
        /// The snapshot that the state named.
        state_snapshot_id: Option<i64>,
        /// The head that it names since.
        head_snapshot_id: Option<i64>,
    },
    /// A state was written back that had been lost.
    StateAdopted {
        /// The snapshot whose summary had it; none if the operator gave it.
        snapshot_id: Option<i64>,
    },
    /// The table was built anew and took another's place.
    Rebuilt {
        /// Identity of the table that stood there.
        former_uuid: String,
    },
}

impl ActKind {
    /// What was done, in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::GapAccepted(place) => format!(
                "gap accepted in partition {} before offset {}: records {} to {} are missing",
                place.partition,
                place.offset,
                place.first_missing(),
                place.found
            ),
            Self::RollbackAccepted {
                state_snapshot_id,
                head_snapshot_id,
            } => format!(
                "rollback from snapshot {} to {} accepted",
                Head(*state_snapshot_id),
                Head(*head_snapshot_id)
            ),
            Self::RollbackReplayed {
                state_snapshot_id,
                head_snapshot_id,
            } => format!(
                "rollback from snapshot {} to {} replayed",
                Head(*state_snapshot_id),
                Head(*head_snapshot_id)
            ),
            Self::StateAdopted { snapshot_id: None } => "state adopted as given".to_owned(),
            Self::StateAdopted {
                snapshot_id: Some(id),
            } => format!("state adopted from snapshot {id}"),
            Self::Rebuilt { former_uuid } => format!("rebuilt in the place of {former_uuid}"),
        }
    }
}

/// The acts that a table remembers, oldest first, without those that this version cannot read.
#[must_use]
pub fn acts(metadata: &TableMetadata) -> Vec<Act> {
    kept(metadata)
        .into_iter()
        .filter_map(|value| serde_json::from_value(value).ok())
        .collect()
}

/// The property with more acts behind those of the table; an act that is there already is not added again.
pub(crate) fn with_acts(metadata: &TableMetadata, new: &[Act]) -> String {
    let mut all = kept(metadata);
    for act in new {
        let known = |value: &Value| value.get("id").and_then(Value::as_str) == Some(&act.id);
        if !all.iter().any(known) {
            all.extend(serde_json::to_value(act));
        }
    }
    let surplus = all.len().saturating_sub(ACTS_KEPT);
    Value::Array(all.split_off(surplus)).to_string()
}

fn kept(metadata: &TableMetadata) -> Vec<Value> {
    let json = metadata.properties().get(ACTS_PROPERTY);
    match json.map(|json| serde_json::from_str(json)) {
        None => Vec::new(),
        Some(Ok(Value::Array(acts))) => acts,
        // Not ours; kept, in one piece.
        Some(Ok(other)) => vec![other],
        Some(Err(_)) => json
            .map(|text| Value::String(text.clone()))
            .into_iter()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use change_event::Predecessor;

    use super::*;

    #[test]
    fn act_reads_back_as_it_was_written() {
        let operator = Operator {
            by: "ada".to_owned(),
            why: "retention was too short".to_owned(),
        };
        let place = GapPlace {
            partition: 3,
            incarnation: 1,
            offset: 300,
            covered: Predecessor { epoch: 1, pseq: 7 },
            found: Predecessor { epoch: 2, pseq: 5 },
        };
        let kinds = [
            ActKind::GapAccepted(place),
            ActKind::RollbackAccepted {
                state_snapshot_id: Some(i64::MAX),
                head_snapshot_id: None,
            },
            ActKind::RollbackReplayed {
                state_snapshot_id: Some(1),
                head_snapshot_id: Some(2),
            },
            ActKind::StateAdopted {
                snapshot_id: Some(4),
            },
            ActKind::Rebuilt {
                former_uuid: "u".to_owned(),
            },
        ];
        for kind in kinds {
            let act = Act {
                id: "x".to_owned(),
                at_ms: 1,
                operator: operator.clone(),
                kind,
            };
            let json = serde_json::to_string(&act).unwrap();
            assert_eq!(serde_json::from_str::<Act>(&json).unwrap(), act, "{json}");
        }
    }
}
