//! Takes in tables that are new, and copies tables while the stream goes on: a task beside the loop of a session.
//!
//! Flow: `census`, `requests`, `ledger` -> **here** -> `recopy` (one table) -> `asks` -> the loop announces.
//!
//! A table that matches the configuration is captured first and copied then: it is written into the ledger, gets its lane, is added to
//! the publication, and owes a copy. So its changes are on its topic from the moment at which it was published, in the order of the
//! log, those before the position of its copy too. They cannot be left out: which copy will be the one that is announced
//! is known only when it is complete, and a stream does not wait for it, nor goes back.
//!
//! # Invariants
//! - One copy at a time. Before the next one begins, what became of the last one is settled and written down.
//! - Everything here may be done again: a failure is logged, and the next round begins as a new session would.
//! - The failure of one table stops no other, and never the stream.
//! - A captured table that leaves the publication has a gap: that is shown until a new copy is announced, never passed over.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use change_event::CopyAnswer;
use object_io::failpoint;
use source_postgres::Catalog;
use source_postgres::catalog::NamedTable;

use crate::asks::Port;
use crate::census::{self, Census};
use crate::context::Context;
use crate::copy::Target;
use crate::copy_id::Purpose;
use crate::error::AgentError;
use crate::failpoints;
use crate::ledger::{Debt, Ledger, Reason};
use crate::recopy::{Recopy, SourceLog};
use crate::requests::{self, OpenRequest};
use crate::settlement::Settlement;
use crate::source::connect_options;
use crate::supervisor::in_words;
use crate::tables::CapturedName;
use crate::topics::{TopicRequest, Topics};

/// How often the catalog and the requests are looked at: three listings and as many questions to the catalog.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// The task.
#[derive(Debug)]
pub struct Copier {
    context: Context,
    port: Port,
    ledger: Ledger,
    captured: Vec<Target>,
    settlement: Settlement,
    /// Tables that cannot be captured and why, as they were logged last.
    unfit: BTreeMap<String, String>,
    /// What is wrong with captured tables, by number.
    troubles: BTreeMap<u32, String>,
}

/// Why a copy is made.
#[derive(Debug, Default)]
struct Due {
    debt: Option<u32>,
    requests: Vec<String>,
}

impl Copier {
    /// Of a session that captures `captured`, and whose progress says that copy `announced` was the last one.
    #[must_use]
    pub fn new(
        context: &Context,
        port: Port,
        ledger: Ledger,
        captured: Vec<Target>,
        log: SourceLog,
        announced: u32,
    ) -> Self {
        Self {
            context: context.clone(),
            port,
            ledger,
            captured,
            settlement: Settlement::new(context.source_name(), log, announced),
            unfit: BTreeMap::new(),
            troubles: BTreeMap::new(),
        }
    }

    /// Runs until the session ends it.
    pub async fn run(mut self) -> Infallible {
        let mut connected = None;
        loop {
            if let Err(error) = self.round(&mut connected).await {
                tracing::warn!(error = in_words(&error), "tables are looked at again later");
                // A connection that failed is not used again.
                connected = None;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn round(&mut self, connected: &mut Option<Catalog>) -> Result<(), AgentError> {
        self.settle().await?;
        let catalog = match connected {
            Some(catalog) => catalog,
            None => {
                let options = connect_options(&self.context.config);
                connected.insert(Catalog::connect(&options).await?)
            }
        };
        let census = self.look(catalog).await?;
        self.note_departures(&census).await?;
        let store = Arc::clone(&self.context.store);
        let open = requests::open(store.as_ref(), self.context.source_name()).await?;
        self.refuse(&open, &census).await?;
        let mut failed = None;
        for target in self.captured.clone() {
            let Some((table, due)) = self.due(&target, &census, &open) else {
                continue;
            };
            match self.copy(catalog, &target, table, due).await {
                Ok(()) => self.trouble(&target, None),
                Err(error) => {
                    let words = format!("its copy is tried again: {}", in_words(&error));
                    self.trouble(&target, Some(words));
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn settle(&mut self) -> Result<(), AgentError> {
        let store = Arc::clone(&self.context.store);
        self.settlement
            .settle(store.as_ref(), &self.port, &mut self.ledger)
            .await
    }

    /// Looks at the catalog, and takes in what is new.
    async fn look(&mut self, catalog: &mut Catalog) -> Result<Census, AgentError> {
        let mut census = census::look(&self.context.config, catalog, &self.captured).await?;
        if !census.new.is_empty() {
            let mut refused = BTreeMap::new();
            for name in std::mem::take(&mut census.new) {
                // Of two new ones that want one name, the second is unfit from now on.
                if census::name_problem(&self.context.config, &self.captured, &name).is_some() {
                    continue;
                }
                let table = name.table().to_string();
                // Whatever it is, it is this table's trouble and no other's; it is tried again at the next look.
                if let Err(error) = self.take_in(name).await {
                    refused.insert(table, in_words(&error));
                }
            }
            census = census::look(&self.context.config, catalog, &self.captured).await?;
            census.unfit.extend(refused);
        }
        for (table, problem) in &census.unfit {
            if self.unfit.get(table) != Some(problem) {
                tracing::warn!(
                    table,
                    problem,
                    "a table that matches source.tables is not captured"
                );
            }
        }
        let lines: Vec<String> = census
            .unfit
            .iter()
            .map(|(table, problem)| format!("{table} ({problem})"))
            .collect();
        self.unfit.clone_from(&census.unfit);
        self.context
            .status
            .update(|snapshot| snapshot.not_captured = lines);
        Ok(census)
    }

    /// Captures a table from now on; it owes a copy.
    async fn take_in(&mut self, name: CapturedName) -> Result<(), AgentError> {
        let request = TopicRequest::of(&self.context.config, &name.table_schema, &name.table_name);
        let registration = Topics::open(&self.context).await?.ensure(&request).await?;
        let debt = Debt {
            table: name.clone(),
            reason: Reason::New,
        };
        let store = Arc::clone(&self.context.store);
        let source_name = &self.context.config.source.name;
        self.ledger.owe(store.as_ref(), source_name, debt).await?;
        failpoint::hit(failpoints::AFTER_COPY_OWED);
        let lane = self
            .port
            .take_in(name.clone(), registration.clone())
            .await?;
        tracing::info!(table = %name.table(), topic = registration.topic, "table taken in");
        self.captured.push(Target {
            name,
            lane,
            registration,
        });
        Ok(())
    }

    /// Captured tables that are no longer in the publication, or no longer there.
    async fn note_departures(&mut self, census: &Census) -> Result<(), AgentError> {
        let store = Arc::clone(&self.context.store);
        let publication = self.context.config.source.publication.clone();
        for target in self.captured.clone() {
            let oid = target.name.oid;
            let debt = self.ledger.debt(oid).map(|(_, reason)| reason);
            if let Some(table) = census.unpublished.get(&oid) {
                if debt.is_none() {
                    let debt = Debt {
                        table: target.name.clone(),
                        reason: Reason::Left,
                    };
                    let source_name = &self.context.config.source.name;
                    self.ledger.owe(store.as_ref(), source_name, debt).await?;
                }
                if debt != Some(Reason::New) {
                    let words = format!(
                        "it left publication {publication}: its changes since then are not in the stream. A new copy leads out of it: \
                         firn gap recopy, or ALTER PUBLICATION \"{publication}\" ADD TABLE ONLY {}",
                        table.name.quoted()
                    );
                    self.trouble(&target, Some(words));
                }
            } else if !census.published.contains_key(&oid) {
                self.note_dropped(&target);
            }
        }
        Ok(())
    }

    /// Shows that a table is gone: its topic and its lake table stay as they are.
    fn note_dropped(&mut self, target: &Target) {
        self.troubles.remove(&target.name.oid);
        let mut was_dropped = false;
        self.context.status.update(|snapshot| {
            if let Some(line) = snapshot.tables.get_mut(target.lane) {
                was_dropped = std::mem::replace(&mut line.dropped, true);
                line.problem = None;
            }
        });
        if !was_dropped {
            tracing::warn!(table = %target.name.table(), "a captured table was dropped at the source");
        }
    }

    /// Shows what is wrong with a captured table, or that nothing is; logs it when it begins.
    fn trouble(&mut self, target: &Target, words: Option<String>) {
        let changed = match &words {
            Some(words) => {
                self.troubles
                    .insert(target.name.oid, words.clone())
                    .as_ref()
                    != Some(words)
            }
            None => self.troubles.remove(&target.name.oid).is_some(),
        };
        if !changed {
            return;
        }
        let table = target.name.table().to_string();
        match &words {
            Some(problem) => tracing::warn!(table, problem, "a captured table needs attention"),
            None => tracing::info!(table, "a captured table is well again"),
        }
        self.context.status.update(|snapshot| {
            if let Some(line) = snapshot.tables.get_mut(target.lane) {
                line.problem = words;
            }
        });
    }

    /// Answers the requests that cannot be done.
    async fn refuse(&self, open: &[OpenRequest], census: &Census) -> Result<(), AgentError> {
        for asked in open {
            let reason = match &asked.request {
                None => "the request cannot be read".to_owned(),
                Some(request) => {
                    let target = self
                        .captured
                        .iter()
                        .find(|target| target.registration.topic == request.topic);
                    match target.map(|target| target.name.oid) {
                        None => format!("topic {} is not captured by this source", request.topic),
                        Some(oid) if census.shown(oid).is_none() => {
                            "the table was dropped at the source".to_owned()
                        }
                        Some(_) => continue,
                    }
                }
            };
            tracing::warn!(
                request = asked.id,
                reason,
                "a copy was asked for and is refused"
            );
            let (store, source_name) = (self.context.store.as_ref(), self.context.source_name());
            let answer = CopyAnswer::Refused { reason };
            requests::answer(store, source_name, &asked.id, &answer).await?;
        }
        Ok(())
    }

    /// Whether a table is to be copied now, and what for.
    fn due<'c>(
        &self,
        target: &Target,
        census: &'c Census,
        open: &[OpenRequest],
    ) -> Option<(&'c NamedTable, Due)> {
        let oid = target.name.oid;
        let table = census.shown(oid)?;
        let asked = open.iter().filter(|asked| {
            let topic = asked.request.as_ref().map(|request| &request.topic);
            topic == Some(&target.registration.topic)
        });
        let requests: Vec<String> = asked.map(|asked| asked.id.clone()).collect();
        let debt = self.ledger.debt(oid);
        let is_due = match debt.map(|(_, reason)| reason) {
            Some(Reason::New) => true,
            // Somebody put it back, or an operator asks for it.
            Some(Reason::Left) => census.published.contains_key(&oid) || !requests.is_empty(),
            None => !requests.is_empty(),
        };
        let debt = debt.map(|(number, _)| number);
        is_due.then_some((table, Due { debt, requests }))
    }

    /// Copies one table and sees to it that the copy is announced.
    async fn copy(
        &mut self,
        catalog: &mut Catalog,
        target: &Target,
        table: &NamedTable,
        due: Due,
    ) -> Result<(), AgentError> {
        // What a failure before this one has left.
        self.settle().await?;
        let publication = &self.context.config.source.publication;
        let Some(shown) = catalog.table_by_oid(table.oid).await? else {
            return Ok(());
        };
        catalog.publish(publication, &shown).await?;
        failpoint::hit(failpoints::AFTER_TABLE_PUBLISHED);
        // Nothing is held at the source while the stream is far behind.
        let end = catalog.current_wal_lsn().await?;
        self.port.passed(end).await?;
        let purpose = Purpose {
            table: Some(target.name.clone()),
            debt: due.debt,
            requests: due.requests,
        };
        let job = Recopy {
            context: &self.context,
            port: &self.port,
            log: self.settlement.log(),
            target,
            now: &shown.name,
            purpose: &purpose,
        };
        job.run().await?;
        self.settle().await
    }
}
