//! What the loop does for the copier between two frames: a new lane, a document, an announcement.
//!
//! Flow: `asks` -> `capture` -> **here** -> outbox, documents.
//!
//! # Invariants
//! - Announcements and the number of their copy are in one Kafka transaction, and nothing else is.

use change_event::evolution::ObservedTable;
use change_event::{Position, SourceSchema, TopicRegistration};
use object_io::failpoint;

use crate::broker::TransactionalProducer;
use crate::copy::{self, CopyManifest};
use crate::error::AgentError;
use crate::failpoints;
use crate::frames::Frames;
use crate::progress::{PositionRecord, Progress};
use crate::source::TableLookup;
use crate::status::TableStatus;
use crate::tables::CapturedName;

impl<P: TransactionalProducer, C: TableLookup> Frames<P, C> {
    /// Puts the changes of a table on its topic from now on; gives its lane.
    ///
    /// # Errors
    /// Whatever ends the session.
    pub async fn take_in(
        &mut self,
        name: CapturedName,
        registration: TopicRegistration,
        progress: &Progress,
    ) -> Result<usize, AgentError> {
        let (oid, topic) = (name.oid, registration.topic.clone());
        let line = TableStatus {
            copied_rows: Some(0),
            ..TableStatus::of(&registration)
        };
        self.context
            .status
            .update(|snapshot| snapshot.tables.push(line));
        let lane = self.outbox.add_lane(registration, progress);
        self.tables.add(&self.context, name, lane, &topic).await?;
        if let Some(relation) = self.tables.take_passed_over(oid) {
            self.relation(&relation, self.outbox.position()).await?;
        }
        Ok(lane)
    }

    /// The document for the shape of a captured table that a copy reads; `None` if the stream has come to a newer one, before
    /// which this one was never seen.
    ///
    /// # Errors
    /// Whatever ends the session.
    pub async fn document(
        &mut self,
        oid: u32,
        observed: ObservedTable,
        position: Position,
    ) -> Result<Option<SourceSchema>, AgentError> {
        if self.tables.is_overtaken(oid, &observed, position) {
            return Ok(None);
        }
        let document = self
            .tables
            .document(&self.context, oid, observed, position)
            .await?;
        Ok(Some(document))
    }

    /// Announces a complete copy, in a Kafka transaction of its own with the number that says so.
    ///
    /// # Errors
    /// Whatever ends the session; the next one reads back whether it is announced.
    pub async fn announce(&mut self, manifest: &CopyManifest) -> Result<(), AgentError> {
        // Its files are made by the newest partition map, which holds from before its position.
        self.barriers(self.outbox.reached().end_lsn).await?;
        self.commit().await?;
        let reached = self.outbox.reached().clone();
        self.outbox.begin_at(PositionRecord {
            copy_id: manifest.copy_id,
            ..reached
        })?;
        copy::announce(&mut self.outbox, manifest).await?;
        self.outbox.delivered().await?;
        failpoint::hit(failpoints::BEFORE_ANNOUNCEMENT_COMMIT);
        self.commit().await?;
        failpoint::hit(failpoints::AFTER_ANNOUNCEMENT_COMMIT);
        let (copy_id, announcements) = (manifest.copy_id, manifest.announcements.len());
        tracing::info!(copy_id, announcements, "copy announced");
        Ok(())
    }
}
