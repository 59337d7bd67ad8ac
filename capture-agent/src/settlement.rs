//! What became of the copies beside the stream: announced and written down, given up, or not wanted any more.
//!
//! Flow: `copy_id` (numbers, manifests) -> **[`Settlement::settle`]** -> `asks` (the loop announces) -> `ledger`, `requests`.
//!
//! # Invariants
//! - Copies are announced in the order of their numbers, each once: the last number is in the position that the loop commits.
//! - What is announced is written down before the next one is: the last number alone says what is.
//! - What a copy is for is done by one copy. A fenced agent may have made another one beside ours; its rows are announced only if
//!   nobody else's were.

use std::collections::BTreeSet;

use change_event::{CopyAnswer, layout};
use object_io::ObjectStore;

use crate::asks::Port;
use crate::copy::CopyManifest;
use crate::copy_id::{self, Purpose};
use crate::error::AgentError;
use crate::ledger::{Ledger, Payment};
use crate::recopy::SourceLog;
use crate::{objects, requests};

/// What a session knows of its copies.
#[derive(Debug)]
pub struct Settlement {
    source_name: String,
    log: SourceLog,
    /// Number of the last copy that is announced.
    announced: u32,
    /// Number of the last copy whose announcement is written down.
    booked: Option<u32>,
    /// Numbers of complete copies that are not announced.
    unwanted: BTreeSet<u32>,
}

impl Settlement {
    /// Of a session whose progress says that copy `announced` was the last one.
    #[must_use]
    pub fn new(source_name: &str, log: SourceLog, announced: u32) -> Self {
        Self {
            source_name: source_name.to_owned(),
            log,
            announced,
            booked: None,
            unwanted: BTreeSet::new(),
        }
    }

    /// The log that copies are of.
    #[must_use]
    pub const fn log(&self) -> &SourceLog {
        &self.log
    }

    /// Announces what is complete, gives up what is not, and writes down what is announced.
    ///
    /// # Errors
    /// [`AgentError::Objects`], [`AgentError::ObjectUnknown`], [`AgentError::Document`], [`AgentError::StreamOrder`]: it may be
    /// done again.
    pub async fn settle(
        &mut self,
        store: &dyn ObjectStore,
        port: &Port,
        ledger: &mut Ledger,
    ) -> Result<(), AgentError> {
        for manifest in copy_id::settle(store, &self.source_name, self.announced).await? {
            self.book(store, ledger).await?;
            if !self.is_wanted(store, ledger, &manifest).await? {
                continue;
            }
            let copy_id = manifest.copy_id;
            port.passed(manifest.copy_lsn).await?;
            port.announce(manifest).await?;
            self.announced = copy_id;
        }
        self.book(store, ledger).await
    }

    async fn is_wanted(
        &mut self,
        store: &dyn ObjectStore,
        ledger: &Ledger,
        manifest: &CopyManifest,
    ) -> Result<bool, AgentError> {
        let copy_id = manifest.copy_id;
        let purpose = copy_id::purpose(store, &self.source_name, copy_id)
            .await?
            .unwrap_or_default();
        let is_wanted = self.log.holds(manifest)
            && (ledger.is_owed(&purpose)
                || requests::any_open(store, &self.source_name, &purpose.requests).await?);
        if !is_wanted && self.unwanted.insert(copy_id) {
            tracing::warn!(
                copy_id,
                "a complete copy is not announced: another one took its place"
            );
        }
        Ok(is_wanted)
    }

    /// Writes down that the last announced copy did what it was for.
    async fn book(
        &mut self,
        store: &dyn ObjectStore,
        ledger: &mut Ledger,
    ) -> Result<(), AgentError> {
        let copy_id = self.announced;
        if self.booked == Some(copy_id) {
            return Ok(());
        }
        if let Some(purpose) = copy_id::purpose(store, &self.source_name, copy_id).await? {
            if let (Some(table), Some(number)) = (&purpose.table, purpose.debt) {
                let payment = Payment { copy_id };
                ledger
                    .pay(store, &self.source_name, table.oid, number, &payment)
                    .await?;
            }
            self.answer(store, &purpose).await?;
        }
        self.booked = Some(copy_id);
        Ok(())
    }

    async fn answer(&self, store: &dyn ObjectStore, purpose: &Purpose) -> Result<(), AgentError> {
        if purpose.requests.is_empty() {
            return Ok(());
        }
        let key = layout::copy_manifest(&self.source_name, self.announced);
        let manifest: Option<CopyManifest> = objects::read(store, &key).await?;
        let Some(manifest) = manifest else {
            return Err(AgentError::StreamOrder {
                what: "a copy manifest that went away",
            });
        };
        let answer = CopyAnswer::Copied {
            copy_id: manifest.copy_id,
            copy_lsn: manifest.copy_lsn,
            row_count: manifest.row_count(),
        };
        for id in &purpose.requests {
            requests::answer(store, &self.source_name, id, &answer).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use change_event::{Lsn, RandomIds, SystemClock};
    use object_io::MemoryStore;

    use super::*;
    use crate::asks::{self, Ask, Asks};
    use crate::ledger::{Debt, Reason};
    use crate::tables::CapturedName;

    fn table(oid: u32) -> CapturedName {
        CapturedName {
            oid,
            table_schema: "public".to_owned(),
            table_name: format!("t{oid}"),
        }
    }

    fn purpose(oid: u32, debt: Option<u32>, requests: &[&str]) -> Purpose {
        Purpose {
            table: Some(table(oid)),
            debt,
            requests: requests.iter().map(|id| (*id).to_owned()).collect(),
        }
    }

    async fn complete(store: &MemoryStore, purpose: &Purpose, timeline: u32) -> u32 {
        let copy_id = copy_id::claim(store, &SystemClock, &RandomIds, "s", purpose)
            .await
            .unwrap();
        let manifest = CopyManifest {
            copy_lsn: Lsn(u64::from(copy_id) * 10),
            system_id: "7".to_owned(),
            timeline,
            abandoned: false,
            ..CopyManifest::abandoned(copy_id)
        };
        let key = layout::copy_manifest("s", copy_id);
        objects::write(store, &key, &manifest).await.unwrap();
        copy_id
    }

    /// A loop that has passed everything; gives the numbers that it announced.
    async fn announce_all(mut asks: Asks) -> Vec<u32> {
        let mut announced = Vec::new();
        loop {
            match asks.next().await {
                Ask::Passed { done, .. } => done.send(()).unwrap(),
                Ask::Announce { manifest, done } => {
                    announced.push(manifest.copy_id);
                    done.send(()).unwrap();
                    if manifest.copy_id == 99 {
                        return announced;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    async fn settled(store: &MemoryStore, announced: u32) -> Vec<u32> {
        let log = SourceLog {
            incarnation: 1,
            system_id: "7".to_owned(),
            timeline: 1,
            past: Vec::new(),
        };
        let mut settlement = Settlement::new("s", log, announced);
        let mut ledger = Ledger::load(store, "s").await.unwrap();
        let (port, asks) = asks::channel();
        let answering = tokio::spawn(announce_all(asks));
        settlement.settle(store, &port, &mut ledger).await.unwrap();
        settlement.settle(store, &port, &mut ledger).await.unwrap();
        let last = CopyManifest::abandoned(99);
        port.announce(last).await.unwrap();
        let mut numbers = answering.await.unwrap();
        numbers.pop();
        numbers
    }

    #[tokio::test]
    async fn copies_of_two_agents_for_one_purpose_are_announced_once_and_each_is_written_down() {
        let store = MemoryStore::new("lake");
        let mut ledger = Ledger::load(&store, "s").await.unwrap();
        for oid in [1, 2] {
            let (table, reason) = (table(oid), Reason::New);
            ledger
                .owe(&store, "s", Debt { table, reason })
                .await
                .unwrap();
        }
        let ours = complete(&store, &purpose(1, Some(1), &[]), 1).await;
        let theirs = complete(&store, &purpose(1, Some(1), &[]), 1).await;
        let other = complete(&store, &purpose(2, Some(1), &["a"]), 1).await;
        let left = complete(&store, &purpose(2, Some(1), &["b"]), 2).await;
        assert_eq!((ours, theirs, other, left), (1, 2, 3, 4));
        assert_eq!(settled(&store, 0).await, [1, 3]);
        // What is paid and answered is not done again, by whichever number the next session begins.
        assert_eq!(settled(&store, 1).await, [] as [u32; 0]);
        assert_eq!(settled(&store, 3).await, [] as [u32; 0]);
        let ledger = Ledger::load(&store, "s").await.unwrap();
        assert_eq!((ledger.debt(1), ledger.debt(2)), (None, None));
        let open = ["a".to_owned(), "b".to_owned()];
        assert!(!requests::any_open(&store, "s", &open[..1]).await.unwrap());
        assert!(
            requests::any_open(&store, "s", &open[1..]).await.unwrap(),
            "a copy of another log answers nothing"
        );
    }

    #[tokio::test]
    async fn copy_that_was_announced_before_a_crash_is_written_down_after_it() {
        let store = MemoryStore::new("lake");
        let copy_id = complete(&store, &purpose(1, None, &["a"]), 1).await;
        assert_eq!(settled(&store, copy_id).await, [] as [u32; 0]);
        let key = layout::copy_answer("s", "a");
        let answer: Option<CopyAnswer> = objects::read(&store, &key).await.unwrap();
        assert!(matches!(
            answer,
            Some(CopyAnswer::Copied { copy_id: 1, .. })
        ));
    }
}
