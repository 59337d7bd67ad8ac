//! Settings of the command: what is typed, or else the environment.

use function_kit::{ConfigError, Environment};

use crate::arguments::Arguments;

/// Settings of the command.
#[derive(Debug)]
pub(crate) struct Config {
    /// The deployment's bucket.
    pub(crate) bucket: String,
    /// For stand-ins of S3 without a host name per bucket.
    pub(crate) s3_path_style: bool,
    /// Who the operator is, unless it is typed.
    pub(crate) user: Option<String>,
}

impl Config {
    /// Reads them.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub(crate) fn read(
        arguments: &Arguments,
        mut environment: Environment,
    ) -> Result<Self, ConfigError> {
        let bucket = match &arguments.bucket {
            Some(bucket) => bucket.clone(),
            None => environment.required("FIRN_BUCKET"),
        };
        let config = Self {
            bucket,
            s3_path_style: environment.flag("FIRN_S3_PATH_STYLE") || arguments.path_style,
            user: environment.optional("USER"),
        };
        environment.finish(config)
    }
}
