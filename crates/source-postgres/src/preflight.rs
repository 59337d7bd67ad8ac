//! Everything that would stop a capture, found before it starts, with the way out in words.
//!
//! Flow: `catalog` -> **here** -> `capture-agent check` and the agent's start-up.
//!
//! # Invariants
//! - Nothing is changed, and every problem is reported, not the first.

use std::collections::BTreeMap;

use change_event::naming::lake_table_name;

use crate::catalog::{Catalog, CatalogTable, ServerFacts, SlotState, TablePattern};
use crate::client::{quote_identifier, quote_literal};
use crate::decode::ReplicaIdentity;
use crate::error::SourceError;

/// Oldest and newest major version that the decoder was tried with.
const MAJOR_VERSIONS: std::ops::RangeInclusive<u32> = 14..=18;

/// What is to be captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureRequest {
    /// Tables.
    pub tables: Vec<TablePattern>,
    /// Slot that will be used, or created.
    pub slot: String,
    /// Publication that will be used, or created.
    pub publication: String,
}

/// Kind of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The server's version was never tried.
    ServerVersion,
    /// `wal_level` is not `logical`.
    WalLevel,
    /// The server is a standby.
    Standby,
    /// The database does not check that text is text.
    Encoding,
    /// The role may not replicate.
    ReplicationRight,
    /// The role may not read a table.
    ReadRight,
    /// The role may not make the publication what it should be.
    PublicationRight,
    /// The publication cannot be narrowed to the tables.
    Publication,
    /// A pattern includes no table.
    MissingTable,
    /// A table is a partition: its rows come as those of its root.
    Partition,
    /// A table is not logged.
    Unlogged,
    /// A table has no usable replica identity.
    ReplicaIdentity,
    /// Two tables have one name in the lake.
    LakeName,
    /// No slot is free for ours.
    NoFreeSlot,
    /// No process is free for our stream.
    NoFreeWalSender,
    /// A slot of our name is lost, of another kind, or of another database.
    Slot,
}

/// Something that stops a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Kind.
    pub kind: ProblemKind,
    /// Table, slot, setting or role.
    pub subject: String,
    /// What is wrong.
    pub problem: String,
    /// What leads out of it, with the SQL.
    pub fix: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.subject, self.problem, self.fix)
    }
}

fn problem(
    kind: ProblemKind,
    subject: impl ToString,
    problem: impl Into<String>,
    fix: impl Into<String>,
) -> Problem {
    Problem {
        kind,
        subject: subject.to_string(),
        problem: problem.into(),
        fix: fix.into(),
    }
}

/// Every problem; empty if the capture may start.
///
/// # Errors
/// As [`crate::Connection::query`]; a problem is no error.
pub async fn preflight(
    catalog: &mut Catalog,
    request: &CaptureRequest,
) -> Result<Vec<Problem>, SourceError> {
    let facts = catalog.server_facts().await?;
    let tables = catalog.tables(&request.tables).await?;
    let mut problems = server_problems(&facts);
    problems.extend(slot_problems(
        catalog.slot_state(&request.slot).await?,
        &facts,
        request,
    ));
    for pattern in &request.tables {
        if !tables.iter().any(|table| pattern.includes(&table.name)) {
            problems.push(problem(
                ProblemKind::MissingTable,
                pattern,
                "no such table",
                "create it, or take it out of the configuration; case counts",
            ));
        }
    }
    for table in &tables {
        problems.extend(table_problems(table, &facts));
    }
    problems.extend(lake_name_problems(&tables));
    problems.extend(publication_problems(catalog, request, &tables, &facts).await?);
    Ok(problems)
}

/// What keeps one table from being captured; empty if nothing does.
///
/// # Errors
/// As [`crate::Connection::query`]; a problem is no error.
pub async fn table_preflight(
    catalog: &mut Catalog,
    table: &CatalogTable,
) -> Result<Vec<Problem>, SourceError> {
    Ok(table_problems(table, &catalog.server_facts().await?))
}

fn server_problems(facts: &ServerFacts) -> Vec<Problem> {
    let mut found = Vec::new();
    let major = facts.version_number / 10_000;
    if !MAJOR_VERSIONS.contains(&major) {
        let (oldest, newest) = MAJOR_VERSIONS.into_inner();
        found.push(problem(
            ProblemKind::ServerVersion,
            format!("server {}", facts.version),
            format!("only PostgreSQL {oldest} to {newest} are supported"),
            "upgrade the server, or firn",
        ));
    }
    if facts.wal_level != "logical" {
        found.push(problem(
            ProblemKind::WalLevel,
            "wal_level",
            format!(
                "it is {:?}, logical replication needs \"logical\"",
                facts.wal_level
            ),
            "ALTER SYSTEM SET wal_level = 'logical'; then restart the server (Amazon RDS: set \
             rds.logical_replication = 1 in the parameter group and reboot)",
        ));
    }
    if facts.in_recovery {
        found.push(problem(
            ProblemKind::Standby,
            "server",
            "it is a standby, where no publication can be created and a slot waits for the primary",
            "connect to the primary",
        ));
    }
    if facts.encoding == "SQL_ASCII" {
        found.push(problem(
            ProblemKind::Encoding,
            format!("database {}", facts.database),
            "its encoding SQL_ASCII does not say which characters its bytes are",
            "move it to a database with ENCODING 'UTF8'",
        ));
    }
    if !facts.superuser && !facts.replication {
        let role = quote_identifier(&facts.role);
        found.push(problem(
            ProblemKind::ReplicationRight,
            format!("role {}", facts.role),
            "it may not replicate",
            format!(
                "ALTER ROLE {role} WITH REPLICATION; (Amazon RDS: GRANT rds_replication TO {role};)"
            ),
        ));
    }
    if facts.wal_sender_count >= facts.wal_sender_count_max {
        found.push(problem(
            ProblemKind::NoFreeWalSender,
            "max_wal_senders",
            format!("all {} are in use", facts.wal_sender_count_max),
            format!(
                "ALTER SYSTEM SET max_wal_senders = {}; then restart the server, or end a stream",
                facts.wal_sender_count_max + 5
            ),
        ));
    }
    found
}

fn slot_problems(
    state: Option<SlotState>,
    facts: &ServerFacts,
    request: &CaptureRequest,
) -> Vec<Problem> {
    let subject = format!("slot {}", request.slot);
    let drop_slot = format!(
        "SELECT pg_drop_replication_slot({});",
        quote_literal(&request.slot)
    );
    let Some(state) = state else {
        if facts.slot_count < facts.slot_count_max {
            return Vec::new();
        }
        return vec![problem(
            ProblemKind::NoFreeSlot,
            subject,
            format!("all {} replication slots are in use", facts.slot_count_max),
            format!(
                "ALTER SYSTEM SET max_replication_slots = {}; then restart the server, or drop a slot \
                 that nobody needs: SELECT slot_name FROM pg_replication_slots WHERE NOT active;",
                facts.slot_count_max + 5
            ),
        )];
    };
    let wrong = if state.plugin.as_deref() != Some("pgoutput") {
        format!(
            "its output plugin is {}",
            state.plugin.as_deref().unwrap_or("none")
        )
    } else if state.database.as_deref() != Some(facts.database.as_str()) {
        format!(
            "it belongs to database {}",
            state.database.as_deref().unwrap_or("none")
        )
    } else if state.is_lost() {
        let reason = state
            .invalidation_reason
            .as_deref()
            .unwrap_or("its log was removed");
        let fix = format!(
            "changes since {} are lost to it: {drop_slot} then copy the tables again",
            state.confirmed_flush_lsn.unwrap_or_default()
        );
        return vec![problem(
            ProblemKind::Slot,
            subject,
            format!("it is lost ({reason})"),
            fix,
        )];
    } else {
        return Vec::new();
    };
    vec![problem(
        ProblemKind::Slot,
        subject,
        wrong,
        format!("name another slot in the configuration, or, if nobody needs it: {drop_slot}"),
    )]
}

fn table_problems(table: &CatalogTable, facts: &ServerFacts) -> Vec<Problem> {
    let mut found = Vec::new();
    let quoted = table.name.quoted();
    if table.partition {
        found.push(problem(
            ProblemKind::Partition,
            &table.name,
            "it is a partition, and its rows come as those of its root",
            "name the partitioned table itself",
        ));
    }
    if !table.logged {
        found.push(problem(
            ProblemKind::Unlogged,
            &table.name,
            "it is unlogged, so its changes are in no log",
            format!("ALTER TABLE {quoted} SET LOGGED;"),
        ));
    }
    if !table.readable {
        let role = quote_identifier(&facts.role);
        let schema = quote_identifier(&table.name.schema);
        found.push(problem(
            ProblemKind::ReadRight,
            &table.name,
            format!("role {} may not read it", facts.role),
            format!(
                "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {quoted} TO {role};"
            ),
        ));
    }
    if !table.identity_is_usable() {
        let why = match table.replica_identity {
            ReplicaIdentity::Nothing => "its replica identity is NOTHING",
            ReplicaIdentity::Index => "the index of its replica identity is gone",
            ReplicaIdentity::Default | ReplicaIdentity::Full => {
                "it has no primary key (or a deferrable one)"
            }
        };
        found.push(problem(
            ProblemKind::ReplicaIdentity,
            &table.name,
            format!("{why}, so the server would refuse the application's UPDATE and DELETE"),
            format!(
                "ALTER TABLE {quoted} ADD PRIMARY KEY (…); or ALTER TABLE {quoted} REPLICA IDENTITY \
                 USING INDEX …; or, at the price of whole old rows in the log, ALTER TABLE {quoted} \
                 REPLICA IDENTITY FULL;"
            ),
        ));
    }
    found
}

fn lake_name_problems(tables: &[CatalogTable]) -> Vec<Problem> {
    let mut by_name: BTreeMap<String, Vec<&CatalogTable>> = BTreeMap::new();
    for table in tables {
        let name = lake_table_name(&table.name.schema, &table.name.table);
        by_name.entry(name).or_default().push(table);
    }
    let mut found = Vec::new();
    for (lake_name, sharing) in by_name.into_iter().filter(|(_, sharing)| sharing.len() > 1) {
        let names: Vec<String> = sharing.iter().map(|table| table.name.to_string()).collect();
        found.push(problem(
            ProblemKind::LakeName,
            names.join(", "),
            format!("all of them would be the lake table {lake_name:?}"),
            "rename all but one, or take all but one out of the configuration",
        ));
    }
    found
}

async fn publication_problems(
    catalog: &mut Catalog,
    request: &CaptureRequest,
    tables: &[CatalogTable],
    facts: &ServerFacts,
) -> Result<Vec<Problem>, SourceError> {
    let subject = format!("publication {}", request.publication);
    let name = quote_identifier(&request.publication);
    let state = catalog.publication(&request.publication).await?;
    if state.as_ref().is_some_and(|state| state.wide) {
        return Ok(vec![problem(
            ProblemKind::Publication,
            subject,
            "it publishes all tables, of the database or of a schema",
            format!("DROP PUBLICATION {name}; or name another one in the configuration"),
        )]);
    }
    let right = state.as_ref().is_some_and(|state| {
        state.complete
            && !state.filtered
            && state.tables.len() == tables.len()
            && tables
                .iter()
                .all(|table| state.tables.contains(&table.name))
    });
    if right || facts.superuser {
        return Ok(Vec::new());
    }
    let list: Vec<String> = tables
        .iter()
        .map(|table| format!("ONLY {}", table.name.quoted()))
        .collect();
    let create = format!(
        "let an owner run: CREATE PUBLICATION {name} FOR TABLE {} WITH (publish_via_partition_root = true);",
        list.join(", ")
    );
    let mut found = Vec::new();
    if state.is_none() && !facts.may_create {
        found.push(problem(
            ProblemKind::PublicationRight,
            &subject,
            format!("role {} may not create it", facts.role),
            format!(
                "GRANT CREATE ON DATABASE {} TO {}; or {create}",
                quote_identifier(&facts.database),
                quote_identifier(&facts.role)
            ),
        ));
    }
    for table in tables.iter().filter(|table| !table.owned) {
        found.push(problem(
            ProblemKind::PublicationRight,
            &table.name,
            format!(
                "role {} may not publish it, for it is not its owner",
                facts.role
            ),
            format!("make the role a member of the owner's, or {create}"),
        ));
    }
    Ok(found)
}
