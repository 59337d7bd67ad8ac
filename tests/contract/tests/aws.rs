//! S3 and Glue, or what stands in for them at `FIRN_AWS_ENDPOINT`. Without it there is nothing to test and no failure.

use std::sync::Arc;

use aws_config::SdkConfig;
use change_event::{IdSource, RandomIds};
use contract::{catalog_cases, catalog_suite, store_suite};
use glue_catalog::GlueCatalog;
use object_io::S3Store;
use table_commit::{Catalog, TableName};

use crate::local::metadata;

/// Configuration for the endpoint, credentials and region as the environment has them; `None` without an endpoint.
pub(crate) async fn config() -> Option<SdkConfig> {
    config_for("FIRN_AWS_ENDPOINT").await
}

/// The same for the endpoint that a variable names.
async fn config_for(variable: &str) -> Option<SdkConfig> {
    #[expect(
        clippy::disallowed_methods,
        reason = "./dev test says where the local clouds are"
    )]
    let endpoint = std::env::var(variable).ok()?;
    Some(
        function_kit::aws::sdk_config()
            .await
            .into_builder()
            .endpoint_url(endpoint)
            .build(),
    )
}

pub(crate) fn fresh(name: &str) -> String {
    let id: String = RandomIds.next_id().chars().take(12).collect();
    format!("{name}-{id}")
}

pub(crate) async fn create_bucket(config: &SdkConfig, bucket: &str) {
    let config = aws_sdk_s3::config::Builder::from(config)
        .force_path_style(true)
        .build();
    let client = aws_sdk_s3::Client::from_conf(config);
    client.create_bucket().bucket(bucket).send().await.unwrap();
}

pub(crate) async fn create_database(config: &SdkConfig, database: &str) {
    let client = aws_sdk_glue::Client::new(config);
    let input = aws_sdk_glue::types::DatabaseInput::builder()
        .name(database)
        .build()
        .unwrap();
    client
        .create_database()
        .database_input(input)
        .send()
        .await
        .unwrap();
}

/// Names and types of the columns that Glue shows.
pub(crate) async fn glue_columns(config: &SdkConfig, table: &TableName) -> Vec<(String, String)> {
    let client = aws_sdk_glue::Client::new(config);
    let request = client
        .get_table()
        .database_name(&table.database)
        .name(&table.table);
    let answer = request.send().await.unwrap().table.unwrap();
    let columns = answer.storage_descriptor.unwrap().columns.unwrap();
    columns
        .into_iter()
        .map(|column| (column.name, column.r#type.unwrap()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_keeps_the_contract() {
    let Some(config) = config().await else { return };
    let bucket = fresh("contract");
    create_bucket(&config, &bucket).await;
    let store = Arc::new(S3Store::new(&config, &bucket, true));
    store_suite(store, "contract/").await.unwrap();
}

#[tokio::test]
async fn absent_bucket_is_refused_and_not_empty() {
    use object_io::{ObjectError, ObjectStore};
    let Some(config) = config().await else { return };
    let store = S3Store::new(&config, &fresh("no-such-bucket"), true);
    for answer in [
        store.get("a").await.map(drop),
        store.put_if_absent("a", "x".into()).await.map(drop),
    ] {
        assert!(
            matches!(answer, Err(ObjectError::Refused { .. })),
            "{answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn glue_keeps_the_contract() {
    let Some(config) = config().await else { return };
    let database = fresh("contract").replace('-', "_");
    create_database(&config, &database).await;
    let table = TableName {
        database,
        table: "t".to_owned(),
    };
    let catalog: Arc<dyn Catalog> = Arc::new(GlueCatalog::new(&config));
    catalog_suite(catalog, &table, &metadata("s3://b/tables/d/t"))
        .await
        .unwrap();
}

/// Moto takes `UpdateTable` without a look at `VersionId`: lost updates, as the suite must say.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn catalog_that_compares_no_version_fails_the_compare_and_set_cases_and_no_other() {
    let Some(config) = config_for("FIRN_MOTO_ENDPOINT").await else {
        return;
    };
    let database = fresh("contract").replace('-', "_");
    create_database(&config, &database).await;
    let table = TableName {
        database,
        table: "t".to_owned(),
    };
    let catalog: Arc<dyn Catalog> = Arc::new(GlueCatalog::new(&config));
    let cases = catalog_cases(catalog, &table, &metadata("s3://b/tables/d/t")).await;
    let failed: Vec<&str> = cases
        .iter()
        // Its threads also race for a creation, with a winner most of the time.
        .filter(|(case, ended)| *case != "creates once" && ended.is_err())
        .map(|(case, _)| *case)
        .collect();
    assert_eq!(
        failed,
        [
            "refuses a stale version",
            "lands once unheard",
            "counts every move once"
        ]
    );
}

#[tokio::test]
async fn glue_creates_no_database() {
    let Some(config) = config().await else { return };
    let table = TableName {
        database: fresh("none").replace('-', "_"),
        table: "t".to_owned(),
    };
    let created = GlueCatalog::new(&config)
        .create(&table, "s3://b/m.json", &metadata("s3://b/t"))
        .await;
    assert!(created.is_err(), "{created:?}");
}
