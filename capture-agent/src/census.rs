//! Which tables there are, seen from time to time: new ones, those that left the publication, those that are gone.
//!
//! Flow: catalog -> **[`look`]** -> `copier`.
//!
//! # Invariants
//! - Nothing is changed here. A table that is unfit, or that left, is reported and stops no other.

use std::collections::{BTreeMap, HashSet};

use change_event::naming;
use source_postgres::catalog::NamedTable;
use source_postgres::{Catalog, table_preflight};

use crate::config::Config;
use crate::copy::Target;
use crate::error::AgentError;
use crate::source::capture_request;
use crate::tables::CapturedName;
use crate::topics::TopicRequest;

/// What one look found.
#[derive(Debug, Default)]
pub struct Census {
    /// Fit tables that match the configuration and are not captured.
    pub new: Vec<CapturedName>,
    /// Captured tables in the publication, with the name that each has now.
    pub published: BTreeMap<u32, NamedTable>,
    /// Captured tables that are there and not in the publication, likewise.
    pub unpublished: BTreeMap<u32, NamedTable>,
    /// Tables that match the configuration and cannot be captured, and why.
    pub unfit: BTreeMap<String, String>,
}

impl Census {
    /// A captured table as the catalog names it now; `None` if it was dropped.
    #[must_use]
    pub fn shown(&self, oid: u32) -> Option<&NamedTable> {
        self.published
            .get(&oid)
            .or_else(|| self.unpublished.get(&oid))
    }
}

/// Looks. A captured table that is in neither map was dropped at the source.
///
/// # Errors
/// [`AgentError::Source`].
pub async fn look(
    config: &Config,
    catalog: &mut Catalog,
    captured: &[Target],
) -> Result<Census, AgentError> {
    let request = capture_request(config);
    let publication = catalog.publication(&request.publication).await?;
    let is_published = |table: &NamedTable| {
        publication
            .as_ref()
            .is_some_and(|state| state.wide || state.tables.contains(&table.name))
    };
    let oids: Vec<u32> = captured.iter().map(|target| target.name.oid).collect();
    let known: HashSet<u32> = oids.iter().copied().collect();
    let mut census = Census::default();
    for table in catalog.named_tables(&request.tables, &oids).await? {
        if !known.contains(&table.oid) {
            let name = CapturedName {
                oid: table.oid,
                table_schema: table.name.schema.clone(),
                table_name: table.name.table.clone(),
            };
            let problem = match name_problem(config, captured, &name) {
                Some(problem) => Some(problem),
                None => problem(config, catalog, &table, is_published(&table)).await?,
            };
            match problem {
                None => census.new.push(name),
                Some(problem) => {
                    census.unfit.insert(table.name.to_string(), problem);
                }
            }
        } else if is_published(&table) {
            census.published.insert(table.oid, table);
        } else {
            census.unpublished.insert(table.oid, table);
        }
    }
    Ok(census)
}

/// Why a new table cannot have its topic or its lake table: a captured one has it.
#[must_use]
pub fn name_problem(config: &Config, captured: &[Target], new: &CapturedName) -> Option<String> {
    let table = new.table();
    let wanted = TopicRequest::of(config, &table.schema, &table.table);
    let events = TopicRequest::of(config, naming::EVENTS_SCHEMA, naming::EVENTS_TABLE);
    if wanted.lake_table == events.lake_table {
        return Some(format!(
            "lake table {} is that of firn's events: set name in [lake.tables.\"{table}\"]",
            wanted.lake_table
        ));
    }
    captured.iter().find_map(|other| {
        let taken = &other.registration;
        if taken.topic == wanted.topic {
            Some(format!(
                "topic {} holds the changes of another table that had its name: rename it",
                wanted.topic
            ))
        } else if taken.lake_table == wanted.lake_table {
            Some(format!(
                "lake table {} is that of {}: set name in [lake.tables.\"{table}\"]",
                wanted.lake_table,
                other.name.table()
            ))
        } else {
            None
        }
    })
}

/// What else keeps a new table from being captured.
async fn problem(
    config: &Config,
    catalog: &mut Catalog,
    table: &NamedTable,
    is_published: bool,
) -> Result<Option<String>, AgentError> {
    let name = &table.name;
    let Some(shown) = catalog.table_by_oid(table.oid).await? else {
        return Ok(Some("it went away".to_owned()));
    };
    let mut problems: Vec<String> = table_preflight(catalog, &shown)
        .await?
        .iter()
        .map(ToString::to_string)
        .collect();
    if !is_published && !shown.owned {
        let publication = &config.source.publication;
        problems.push(format!(
            "{name}: only its owner may publish it; let the owner run: BEGIN; LOCK TABLE {quoted} IN SHARE ROW EXCLUSIVE MODE; \
             ALTER PUBLICATION \"{publication}\" ADD TABLE ONLY {quoted}; COMMIT;",
            quoted = name.quoted()
        ));
    }
    Ok((!problems.is_empty()).then(|| problems.join("; ")))
}
