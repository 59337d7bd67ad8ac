//! The configuration of all AWS clients of a function.
//!
//! Credentials, region and endpoint (`AWS_ENDPOINT_URL`, also per service) come from the environment as the SDK reads it. TLS is
//! rustls on ring: one crypto library in the bootstrap, and no C toolchain to build it.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};

/// Loads the configuration.
pub async fn sdk_config() -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::Ring))
        .build_https();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .load()
        .await
}
