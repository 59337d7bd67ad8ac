//! Settings of the function, from its environment.

use function_kit::{ConfigError, Environment};

/// Settings of the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `FIRN_BUCKET`: the deployment's bucket.
    pub bucket: String,
    /// `FIRN_S3_PATH_STYLE`: for stand-ins of S3 without a host name per bucket.
    pub s3_path_style: bool,
    /// `FIRN_CLOCK_OFFSET_MS`: by how much a test moves the clock.
    pub clock_offset_ms: i64,
}

impl Config {
    /// Reads them.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn from_environment(mut environment: Environment) -> Result<Self, ConfigError> {
        let config = Self {
            bucket: environment.required("FIRN_BUCKET"),
            s3_path_style: environment.flag("FIRN_S3_PATH_STYLE"),
            clock_offset_ms: environment.clock().offset_ms,
        };
        environment.finish(config)
    }
}
