//! The deployment's bucket, as the configuration names it.
//!
//! `file:///folder` as endpoint keeps the bucket in a local folder: one machine, no cloud, for tests and benchmarks. Otherwise it is S3.
//! Credentials come from the AWS environment (variables, profile, instance or container role), never from the file.

use std::path::Path;
use std::sync::Arc;

use aws_config::{BehaviorVersion, Region};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use object_io::{FolderStore, ObjectStore, S3Store};

use crate::config::Config;

/// Opens the bucket.
pub async fn open(config: &Config) -> Arc<dyn ObjectStore> {
    let folder = config
        .object_store
        .endpoint
        .as_deref()
        .and_then(|url| url.strip_prefix("file://"));
    if let Some(folder) = folder {
        return Arc::new(FolderStore::new(
            &Path::new(folder).join(&config.lake.bucket),
        ));
    }
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .build_https();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(region) = &config.object_store.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &config.object_store.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let sdk = loader.load().await;
    Arc::new(S3Store::new(
        &sdk,
        &config.lake.bucket,
        config.object_store.path_style,
    ))
}
