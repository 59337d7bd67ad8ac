//! The slot's mark in object storage, and what mark, slot and progress together say is to be done.
//!
//! # The state machine
//! ```text
//! mark       progress  manifest  slot     what it means                              what is done
//! -          -         -         -        a new source                               a copy of a new number
//! -          -         -         there    someone else's slot                        Halt
//! copying n  -         -         any      a crash before copy n was complete         drop the slot, a copy of a new number
//! copying n  -         n         there    copy n is complete, perhaps announced      announce copy n again, as it stands
//! copying n  -         n         -        complete, perhaps announced, slot lost     Halt
//! streaming  -         any       any      announced, and the topic of progress lost  Halt
//! any        there     any       there    in service                                 go on
//! any        there     any       -        the slot is lost                           Halt
//! ```
//! A copy writes the mark `copying n`, creates the slot, copies all tables under the slot's one snapshot into data files that nobody
//! knows of, and writes the manifest of all announcements. Then all of them go out *together with the first position record* in
//! one Kafka transaction; the mark becomes `streaming` after it.
//!
//! Why the manifest: a reader with `read_uncommitted` may have seen an announcement whose transaction was aborted. Announced again it
//! says the same at the same position, and is a duplicate; a new copy would be rows twice. Before the manifest nothing was
//! announced, and the files of an abandoned copy are orphans.
//!
//! # Invariants
//! - A slot is created only for a new source or after a crash before anything was announced; never to replace one that served.

use change_event::{Lsn, layout};
use object_io::ObjectStore;
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use crate::objects;
use crate::progress::PositionRecord;
use crate::tables::CapturedName;

/// How far the slot's life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// The first copy is under way.
    Copying,
    /// The copy is announced; the slot may never be replaced.
    Streaming,
}

/// The mark that a source had a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotMark {
    /// How far it is.
    pub state: SlotState,
    /// Name of the slot.
    pub slot: String,
    /// Number of the table copy.
    pub copy_id: u32,
    /// Server's system identifier.
    pub system_id: String,
    /// The tables of the first copy; those that were taken in later are in the ledger.
    pub tables: Vec<CapturedName>,
}

/// What is to be done at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Copy the tables.
    Copy {
        /// A slot of an abandoned copy is in the way.
        drop_slot: bool,
    },
    /// Announce a complete copy, whether or not it was before.
    Announce {
        /// Number of the copy.
        copy_id: u32,
    },
    /// Go on streaming.
    Resume(PositionRecord),
}

/// What is known about a source at start.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Name of the source.
    pub source_name: &'a str,
    /// Name of the slot.
    pub slot: &'a str,
    /// The progress topic.
    pub progress_topic: &'a str,
    /// The mark in object storage.
    pub mark: Option<&'a SlotMark>,
    /// The position in the progress topic.
    pub position: Option<&'a PositionRecord>,
    /// Whether the mark's copy has a manifest.
    pub manifest_exists: bool,
    /// Whether the server has the slot.
    pub slot_exists: bool,
    /// From where the slot would go on.
    pub confirmed: Option<Lsn>,
}

impl Known<'_> {
    /// Decides.
    ///
    /// # Errors
    /// [`AgentError::SlotGone`], [`AgentError::SlotMoved`], [`AgentError::ForeignSlot`], [`AgentError::ProgressLost`]
    /// (Halt).
    pub fn plan(&self) -> Result<Plan, AgentError> {
        match (self.mark, self.position) {
            (_, Some(position)) if self.slot_exists => {
                // Nothing is acknowledged before a position record says it: who is ahead of it was moved by others.
                match self
                    .confirmed
                    .filter(|confirmed| *confirmed > position.end_lsn)
                {
                    Some(confirmed) => Err(AgentError::SlotMoved {
                        slot: self.slot.to_owned(),
                        position: position.end_lsn,
                        confirmed,
                    }),
                    None => Ok(Plan::Resume(position.clone())),
                }
            }
            (_, Some(position)) => Err(self.slot_gone(position.end_lsn.to_string())),
            (None, None) if self.slot_exists => Err(AgentError::ForeignSlot {
                slot: self.slot.to_owned(),
            }),
            (None, None) => Ok(Plan::Copy { drop_slot: false }),
            (
                Some(SlotMark {
                    state: SlotState::Streaming,
                    ..
                }),
                None,
            ) => Err(AgentError::ProgressLost {
                source_name: self.source_name.to_owned(),
                topic: self.progress_topic.to_owned(),
            }),
            (
                Some(SlotMark {
                    state: SlotState::Copying,
                    copy_id,
                    slot,
                    ..
                }),
                None,
            ) => {
                if self.slot_exists && slot != self.slot {
                    return Err(AgentError::ForeignSlot {
                        slot: self.slot.to_owned(),
                    });
                }
                if self.manifest_exists {
                    return if self.slot_exists {
                        Ok(Plan::Announce { copy_id: *copy_id })
                    } else {
                        Err(self.slot_gone(format!("copy {copy_id}")))
                    };
                }
                Ok(Plan::Copy {
                    drop_slot: self.slot_exists,
                })
            }
        }
    }

    fn slot_gone(&self, position: String) -> AgentError {
        AgentError::SlotGone {
            slot: self.slot.to_owned(),
            position,
            source_name: self.source_name.to_owned(),
            mark: layout::slot_mark(self.source_name),
        }
    }
}

/// Reads the mark.
///
/// # Errors
/// [`AgentError::Objects`], [`AgentError::Document`].
pub async fn read_mark(
    store: &dyn ObjectStore,
    source_name: &str,
) -> Result<Option<SlotMark>, AgentError> {
    objects::read(store, &layout::slot_mark(source_name)).await
}

/// Writes the mark.
///
/// # Errors
/// [`AgentError::Objects`].
pub async fn write_mark(
    store: &dyn ObjectStore,
    source_name: &str,
    mark: &SlotMark,
) -> Result<(), AgentError> {
    objects::write(store, &layout::slot_mark(source_name), mark).await
}

#[cfg(test)]
mod tests {

    use super::*;

    fn mark(state: SlotState) -> SlotMark {
        SlotMark {
            state,
            slot: "firn_shop".to_owned(),
            copy_id: 3,
            system_id: "7".to_owned(),
            tables: Vec::new(),
        }
    }

    fn position() -> PositionRecord {
        PositionRecord {
            system_id: "7".to_owned(),
            timeline: 1,
            incarnation: 1,
            past: Vec::new(),
            commit_lsn: Lsn(10),
            ordinal: 0,
            end_lsn: Lsn(10),
            epoch: 2,
            copy_id: 3,
        }
    }

    fn plan(
        mark: Option<&SlotMark>,
        position: Option<&PositionRecord>,
        slot_exists: bool,
    ) -> Result<Plan, AgentError> {
        plan_with(mark, position, false, slot_exists)
    }

    fn plan_with(
        mark: Option<&SlotMark>,
        position: Option<&PositionRecord>,
        manifest_exists: bool,
        slot_exists: bool,
    ) -> Result<Plan, AgentError> {
        Known {
            source_name: "shop",
            slot: "firn_shop",
            progress_topic: "shop.firn-progress",
            mark,
            position,
            manifest_exists,
            slot_exists,
            confirmed: slot_exists.then_some(Lsn(10)),
        }
        .plan()
    }

    #[test]
    fn new_source_is_copied_and_a_foreign_slot_is_left_alone() {
        assert_eq!(
            plan(None, None, false).unwrap(),
            Plan::Copy { drop_slot: false }
        );
        assert!(matches!(
            plan(None, None, true),
            Err(AgentError::ForeignSlot { .. })
        ));
        let renamed = SlotMark {
            slot: "other".to_owned(),
            ..mark(SlotState::Copying)
        };
        assert!(matches!(
            plan(Some(&renamed), None, true),
            Err(AgentError::ForeignSlot { .. })
        ));
    }

    #[test]
    fn crash_during_the_copy_begins_a_new_one() {
        let copying = mark(SlotState::Copying);
        assert_eq!(
            plan(Some(&copying), None, true).unwrap(),
            Plan::Copy { drop_slot: true }
        );
        assert_eq!(
            plan(Some(&copying), None, false).unwrap(),
            Plan::Copy { drop_slot: false }
        );
    }

    #[test]
    fn complete_copy_is_announced_as_it_stands() {
        let copying = mark(SlotState::Copying);
        assert_eq!(
            plan_with(Some(&copying), None, true, true).unwrap(),
            Plan::Announce { copy_id: 3 }
        );
        let gone = plan_with(Some(&copying), None, true, false).unwrap_err();
        assert!(matches!(gone, AgentError::SlotGone { .. }), "{gone}");
    }

    #[test]
    fn announced_copy_goes_on_whatever_the_mark_says() {
        let (copying, streaming) = (mark(SlotState::Copying), mark(SlotState::Streaming));
        let position = position();
        for mark in [None, Some(&copying), Some(&streaming)] {
            assert_eq!(
                plan(mark, Some(&position), true).unwrap(),
                Plan::Resume(position.clone())
            );
        }
    }

    #[test]
    fn slot_ahead_of_progress_halts() {
        let mark = mark(SlotState::Streaming);
        let position = position();
        let known = |confirmed| Known {
            source_name: "shop",
            slot: "firn_shop",
            progress_topic: "shop.firn-progress",
            mark: Some(&mark),
            position: Some(&position),
            manifest_exists: true,
            slot_exists: true,
            confirmed: Some(Lsn(confirmed)),
        };
        assert!(matches!(known(9).plan(), Ok(Plan::Resume(_))));
        let moved = known(11).plan().unwrap_err();
        assert!(matches!(moved, AgentError::SlotMoved { .. }), "{moved}");
    }

    #[test]
    fn lost_slot_and_lost_progress_halt_with_words() {
        let streaming = mark(SlotState::Streaming);
        let position = position();
        let gone = plan(Some(&streaming), Some(&position), false).unwrap_err();
        assert!(
            gone.to_string().contains("control/agent/shop/slot.json"),
            "{gone}"
        );
        for slot_exists in [true, false] {
            let lost = plan(Some(&streaming), None, slot_exists).unwrap_err();
            assert!(matches!(lost, AgentError::ProgressLost { .. }), "{lost}");
        }
    }
}
