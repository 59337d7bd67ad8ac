//! Settings of the function, from its environment.

use function_kit::{ConfigError, Environment};

/// Tables combined at a time: a combine mostly waits for answers.
const CONCURRENCY: usize = 8;

/// Settings of the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `FIRN_BUCKET`: the deployment's bucket.
    pub bucket: String,
    /// `FIRN_S3_PATH_STYLE`: for stand-ins of S3 without a host name per bucket.
    pub s3_path_style: bool,
    /// `FIRN_CLOCK_OFFSET_MS`: by how much a test moves the clock.
    pub clock_offset_ms: i64,
    /// `FIRN_DDL_FUNCTION`: name of functions/ddl.
    pub ddl_function: String,
    /// `FIRN_QUEUE_URL`: the queue that feeds this function.
    pub queue_url: String,
    /// `FIRN_CONCURRENCY`: tables combined at a time (1 to 64, 8): more is faster and takes more memory.
    pub concurrency: usize,
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
            ddl_function: environment.required("FIRN_DDL_FUNCTION"),
            queue_url: environment.required("FIRN_QUEUE_URL"),
            concurrency: environment.number("FIRN_CONCURRENCY", CONCURRENCY, 1, 64),
        };
        environment.finish(config)
    }
}
