//! AWS Glue as the catalog: a compare-and-set on `VersionId`.
//!
//! Flow: table-commit's [`Catalog`] port -> **here** -> `GetTable`, `CreateTable`, `UpdateTable`.
//!
//! # Invariants
//! - No `UpdateTable` without a `VersionId`: it would succeed unconditionally.
//! - The SDK's retries are off for the calls that create and move: an answer belongs to one attempt.
//! - What others set on the Glue table (parameters, comments, owner, retention) stays.
//! - A move is built from the very record whose version it compares.
//!
//! # Source
//! AWS Glue Web API, `UpdateTable` (`VersionId`, `SkipArchive`, errors); Iceberg's `GlueTableOperations` for the parameters
//! that other engines look for.

mod answer;
mod columns;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_glue::Client;
use aws_sdk_glue::config::retry::RetryConfig;
use aws_sdk_glue::error::{BuildError, SdkError};
use aws_sdk_glue::types::{StorageDescriptor, Table, TableInput};
use iceberg::spec::TableMetadata;

use table_commit::{
    Catalog, CatalogError, CreateOutcome, Pointer, PointerVersion, SwapOutcome, TableName,
};

use crate::answer::{Answer, classify};

const TABLE_TYPE: &str = "table_type";
const ICEBERG: &str = "ICEBERG";
const METADATA_LOCATION: &str = "metadata_location";
const PREVIOUS_METADATA_LOCATION: &str = "previous_metadata_location";
/// What engines other than Iceberg's own look for in a table that lies in a bucket.
const EXTERNAL_TABLE: &str = "EXTERNAL_TABLE";

/// The Glue Data Catalog of an account and region.
#[derive(Debug, Clone)]
pub struct GlueCatalog {
    client: Client,
}

impl GlueCatalog {
    /// The catalog that this configuration reaches.
    #[must_use]
    pub fn new(config: &SdkConfig) -> Self {
        Self {
            client: Client::new(config),
        }
    }

    async fn get(&self, table: &TableName) -> Result<Option<Table>, CatalogError> {
        let request = self
            .client
            .get_table()
            .database_name(&table.database)
            .name(&table.table);
        match request.send().await {
            Ok(answer) => Ok(answer.table),
            Err(SdkError::ServiceError(answer)) if answer.err().is_entity_not_found_exception() => {
                Ok(None)
            }
            Err(error) => Err(match classify(&error) {
                Answer::Refused => refused("get", table, error),
                Answer::Throttled | Answer::Conflict | Answer::Exists | Answer::Unknown => {
                    unavailable("get", table, error)
                }
            }),
        }
    }

    /// The record that the pointer was read from.
    async fn record(
        &self,
        table: &TableName,
        from: &Pointer,
    ) -> Result<Option<Arc<Table>>, CatalogError> {
        if let Some(record) = from
            .record
            .clone()
            .and_then(|record| record.downcast::<Table>().ok())
        {
            return Ok(Some(record));
        }
        let current = self.get(table).await?;
        Ok(current
            .filter(|current| current.version_id() == Some(&from.version.0))
            .map(Arc::new))
    }
}

#[async_trait]
impl Catalog for GlueCatalog {
    async fn pointer(&self, table: &TableName) -> Result<Option<Pointer>, CatalogError> {
        let Some(record) = self.get(table).await? else {
            return Ok(None);
        };
        let parameter = |name| record.parameters().and_then(|all| all.get(name)).cloned();
        let is_iceberg =
            parameter(TABLE_TYPE).is_some_and(|kind| kind.eq_ignore_ascii_case(ICEBERG));
        let Some(metadata_location) = parameter(METADATA_LOCATION).filter(|_| is_iceberg) else {
            return Err(CatalogError::NotIceberg {
                table: table.clone(),
            });
        };
        let version = record
            .version_id()
            .filter(|version| !version.is_empty())
            .map(str::to_owned);
        let version = version.ok_or_else(|| CatalogError::NoVersion {
            table: table.clone(),
        })?;
        let record: Arc<dyn Any + Send + Sync> = Arc::new(record);
        Ok(Some(Pointer {
            metadata_location,
            version: PointerVersion(version),
            record: Some(record),
        }))
    }

    async fn create(
        &self,
        table: &TableName,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<CreateOutcome, CatalogError> {
        let input = TableInput::builder()
            .name(&table.table)
            .table_type(EXTERNAL_TABLE)
            .set_parameters(Some(parameters(None, metadata_location)))
            .storage_descriptor(descriptor(table, None, metadata)?)
            .build()
            .map_err(|error| malformed("create", table, error))?;
        let request = self
            .client
            .create_table()
            .database_name(&table.database)
            .table_input(input);
        let sent = request
            .customize()
            .config_override(without_retries())
            .send()
            .await;
        let Err(error) = sent else {
            return Ok(CreateOutcome::Created);
        };
        match classify(&error) {
            Answer::Exists => Ok(CreateOutcome::Exists),
            Answer::Refused => Err(refused("create", table, error)),
            Answer::Throttled => Err(unavailable("create", table, error)),
            // A creation compares nothing, so that a conflict says nothing about it.
            Answer::Conflict | Answer::Unknown => Ok(CreateOutcome::Unknown),
        }
    }

    async fn swap(
        &self,
        table: &TableName,
        from: &Pointer,
        metadata_location: &str,
        metadata: &TableMetadata,
    ) -> Result<SwapOutcome, CatalogError> {
        if from.version.0.is_empty() {
            return Err(CatalogError::NoVersion {
                table: table.clone(),
            });
        }
        let Some(record) = self.record(table, from).await? else {
            return Ok(SwapOutcome::Conflict);
        };
        let input = moved(table, &record, metadata_location, metadata)?;
        let request = self
            .client
            .update_table()
            .database_name(&table.database)
            .table_input(input)
            .version_id(&from.version.0)
            .skip_archive(true);
        let sent = request
            .customize()
            .config_override(without_retries())
            .send()
            .await;
        let Err(error) = sent else {
            return Ok(SwapOutcome::Swapped);
        };
        match classify(&error) {
            Answer::Conflict => Ok(SwapOutcome::Conflict),
            Answer::Refused => Err(refused("swap", table, error)),
            Answer::Throttled => Err(unavailable("swap", table, error)),
            // Glue has no such answer to a move; whatever it means, it is not known to mean "not done".
            Answer::Exists | Answer::Unknown => Ok(SwapOutcome::Unknown),
        }
    }
}

/// The current record with the pointer moved: everything that is not Iceberg's stays as it is.
fn moved(
    table: &TableName,
    record: &Table,
    metadata_location: &str,
    metadata: &TableMetadata,
) -> Result<TableInput, CatalogError> {
    let record = record.clone();
    let parameters = parameters(record.parameters, metadata_location);
    let descriptor = descriptor(table, record.storage_descriptor, metadata)?;
    TableInput::builder()
        .name(record.name)
        .set_description(record.description)
        .set_owner(record.owner)
        .set_last_access_time(record.last_access_time)
        .set_last_analyzed_time(record.last_analyzed_time)
        .retention(record.retention)
        .set_partition_keys(record.partition_keys)
        .set_view_original_text(record.view_original_text)
        .set_view_expanded_text(record.view_expanded_text)
        .table_type(
            record
                .table_type
                .unwrap_or_else(|| EXTERNAL_TABLE.to_owned()),
        )
        .set_target_table(record.target_table)
        .set_parameters(Some(parameters))
        .storage_descriptor(descriptor)
        .build()
        .map_err(|error| malformed("swap", table, error))
}

fn parameters(
    current: Option<HashMap<String, String>>,
    metadata_location: &str,
) -> HashMap<String, String> {
    let mut parameters = current.unwrap_or_default();
    let previous = parameters.insert(METADATA_LOCATION.to_owned(), metadata_location.to_owned());
    if let Some(previous) = previous {
        parameters.insert(PREVIOUS_METADATA_LOCATION.to_owned(), previous);
    }
    parameters.insert(TABLE_TYPE.to_owned(), ICEBERG.to_owned());
    parameters
}

fn descriptor(
    table: &TableName,
    current: Option<StorageDescriptor>,
    metadata: &TableMetadata,
) -> Result<StorageDescriptor, CatalogError> {
    let mut descriptor = current.unwrap_or_else(|| StorageDescriptor::builder().build());
    let comments = descriptor.columns.take().unwrap_or_default();
    let columns = columns::glue_columns(metadata.current_schema(), &comments)
        .map_err(|error| malformed("swap", table, error))?;
    descriptor.columns = Some(columns);
    descriptor
        .location
        .get_or_insert_with(|| metadata.location().to_owned());
    Ok(descriptor)
}

fn without_retries() -> aws_sdk_glue::config::Builder {
    aws_sdk_glue::config::Builder::new().retry_config(RetryConfig::disabled())
}

type Source = Box<dyn std::error::Error + Send + Sync>;

fn refused(operation: &'static str, table: &TableName, source: impl Into<Source>) -> CatalogError {
    CatalogError::Refused {
        operation,
        table: table.clone(),
        source: source.into(),
    }
}

fn unavailable(
    operation: &'static str,
    table: &TableName,
    source: impl Into<Source>,
) -> CatalogError {
    CatalogError::Unavailable {
        operation,
        table: table.clone(),
        source: source.into(),
    }
}

fn malformed(operation: &'static str, table: &TableName, source: BuildError) -> CatalogError {
    refused(operation, table, source)
}

#[cfg(test)]
mod tests {
    use iceberg::TableCreation;
    use iceberg::spec::{NestedField, PrimitiveType, Schema, TableMetadataBuilder, Type};

    use super::*;

    fn metadata() -> TableMetadata {
        let id = NestedField::required(1, "id", Type::Primitive(PrimitiveType::Long));
        let creation = TableCreation::builder()
            .name("t".to_owned())
            .location("s3://lake/tables/d/t".to_owned())
            .schema(
                Schema::builder()
                    .with_fields([Arc::new(id)])
                    .build()
                    .unwrap(),
            )
            .build();
        TableMetadataBuilder::from_table_creation(creation)
            .unwrap()
            .build()
            .unwrap()
            .metadata
    }

    #[test]
    fn move_keeps_what_others_set() {
        let column = aws_sdk_glue::types::Column::builder()
            .name("id")
            .comment("the key")
            .build()
            .unwrap();
        let kept = HashMap::from([
            ("classification".to_owned(), "parquet".to_owned()),
            (
                METADATA_LOCATION.to_owned(),
                "s3://lake/old.metadata.json".to_owned(),
            ),
        ]);
        let record = Table::builder()
            .name("t")
            .owner("somebody")
            .description("orders")
            .retention(7)
            .set_parameters(Some(kept))
            .storage_descriptor(
                StorageDescriptor::builder()
                    .columns(column)
                    .location("s3://x")
                    .build(),
            )
            .build()
            .unwrap();
        let name = TableName {
            database: "d".to_owned(),
            table: "t".to_owned(),
        };
        let input = moved(&name, &record, "s3://lake/new.metadata.json", &metadata()).unwrap();
        assert_eq!(
            (input.owner(), input.description(), input.retention()),
            (Some("somebody"), Some("orders"), 7)
        );
        let parameters = input.parameters().unwrap();
        assert_eq!(parameters["classification"], "parquet");
        assert_eq!(parameters[METADATA_LOCATION], "s3://lake/new.metadata.json");
        assert_eq!(
            parameters[PREVIOUS_METADATA_LOCATION],
            "s3://lake/old.metadata.json"
        );
        assert_eq!(parameters[TABLE_TYPE], ICEBERG);
        let descriptor = input.storage_descriptor().unwrap();
        assert_eq!(descriptor.location(), Some("s3://x"));
        assert_eq!(descriptor.columns()[0].comment(), Some("the key"));
        assert_eq!(descriptor.columns()[0].r#type(), Some("bigint"));
    }
}
