//! The source as the configuration names it, and the problems that stand before a first copy.

use std::collections::BTreeMap;

use change_event::naming::{EVENTS_SCHEMA, EVENTS_TABLE, lake_table_name};
use source_postgres::{
    CaptureRequest, Catalog, CatalogTable, ConnectOptions, Password, ProblemKind, SourceError,
    TablePattern, preflight,
};

use crate::config::{Config, Secret};

/// Says how a table looks now.
pub trait TableLookup: Send {
    /// The table of this number, whatever its name now is; `None` if it is gone.
    ///
    /// # Errors
    /// [`SourceError`] if the server does not answer.
    fn table_by_oid(
        &mut self,
        oid: u32,
    ) -> impl Future<Output = Result<Option<CatalogTable>, SourceError>> + Send;
}

impl TableLookup for Catalog {
    async fn table_by_oid(&mut self, oid: u32) -> Result<Option<CatalogTable>, SourceError> {
        Self::table_by_oid(self, oid).await
    }
}

/// How to reach and enter the server.
#[must_use]
pub fn connect_options(config: &Config) -> ConnectOptions {
    let source = &config.source;
    let mut options = ConnectOptions::new(
        source.host.clone(),
        source.port,
        source.user.clone(),
        source.database.clone(),
    );
    options.password = source
        .password
        .as_ref()
        .map(Secret::reveal)
        .map(Password::new);
    options.ssl_mode = source.ssl_mode;
    options.application_name = format!("firn {}", source.name);
    options
}

/// What is to be captured.
#[must_use]
pub fn capture_request(config: &Config) -> CaptureRequest {
    CaptureRequest {
        tables: config
            .source
            .tables
            .iter()
            .filter_map(|pattern| TablePattern::parse(pattern))
            .collect(),
        slot: config.source.slot.clone(),
        publication: config.source.publication.clone(),
    }
}

/// Everything that stands before a first copy, each with the way out; empty if nothing does.
///
/// # Errors
/// [`SourceError`]; a problem is no error.
pub async fn start_problems(
    config: &Config,
    catalog: &mut Catalog,
    request: &CaptureRequest,
) -> Result<Vec<String>, SourceError> {
    let found = preflight(catalog, request).await?;
    // Names in the lake are judged below, with what the configuration overrides.
    let found = found
        .into_iter()
        .filter(|problem| problem.kind != ProblemKind::LakeName);
    let mut problems: Vec<String> = found.map(|problem| problem.to_string()).collect();
    let mut by_lake_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let tables = catalog.tables(&request.tables).await?;
    let events = (EVENTS_SCHEMA.to_owned(), EVENTS_TABLE.to_owned());
    let names = tables
        .iter()
        .map(|table| (table.name.schema.clone(), table.name.table.clone()));
    for (schema, table) in names.chain([events.clone()]) {
        let name = format!("{schema}.{table}");
        let overridden = config
            .lake
            .tables
            .get(&name)
            .and_then(|table| table.name.clone());
        let lake_name = overridden.unwrap_or_else(|| lake_table_name(&schema, &table));
        by_lake_name.entry(lake_name).or_default().push(name);
    }
    for (lake_name, names) in by_lake_name
        .into_iter()
        .filter(|(_, names)| names.len() > 1)
    {
        problems.push(format!(
            "tables {}: all of them would be the lake table {lake_name}; set name in [lake.tables.\"…\"] for all but one",
            names.join(", ")
        ));
    }
    Ok(problems)
}
