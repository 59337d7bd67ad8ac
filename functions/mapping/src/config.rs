//! Settings of the function, from its environment.

use function_kit::{ConfigError, Environment};

/// Most mappings made in one run: Lambda takes about one creation a second, and the schedule comes again.
const CREATIONS_MAX: u32 = 50;

/// Lambda's bound for pollers of one mapping.
const POLLERS_BOUND: u32 = 2000;

/// Settings of the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `FIRN_BUCKET`: the deployment's bucket.
    pub bucket: String,
    /// `FIRN_S3_PATH_STYLE`: for stand-ins of S3 without a host name per bucket.
    pub s3_path_style: bool,
    /// `FIRN_CLOCK_OFFSET_MS`: by how much a test moves the clock.
    pub clock_offset_ms: i64,
    /// Where topics are and who takes them; `None` without `FIRN_CLUSTER_ARN`, where something else polls the topics.
    pub target: Option<Target>,
}

/// Where topics are and who takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `FIRN_INGEST_FUNCTION`: name of functions/ingest.
    pub ingest_function: String,
    /// `FIRN_CLUSTER_ARN`: the MSK cluster.
    pub cluster_arn: String,
    /// `FIRN_POLLER_GROUP`: pool of provisioned pollers that all mappings share; without it Lambda polls on demand.
    pub poller_group: Option<String>,
    /// `FIRN_MAXIMUM_POLLERS`: most pollers of one mapping (1 to 2000, 2): one moves 5 MB/s or 5 invocations.
    pub pollers_max: u32,
    /// `FIRN_BATCH_SIZE`: most records of a batch (1 to 10,000, which is the default: fewer, larger files).
    pub batch_size: u32,
    /// `FIRN_BATCH_WINDOW_SECONDS`: how long a batch fills (0 to 300); unset is Lambda's 500 ms. Fresher against larger
    /// files; once set, 500 ms cannot be had back.
    pub window_seconds: Option<u32>,
    /// `FIRN_CREATIONS_MAX`: most mappings made in one run (1 to 1000).
    pub creations_max: u32,
}

impl Config {
    /// Reads them.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn from_environment(mut environment: Environment) -> Result<Self, ConfigError> {
        let target = environment
            .optional("FIRN_CLUSTER_ARN")
            .map(|cluster_arn| Target {
                ingest_function: environment.required("FIRN_INGEST_FUNCTION"),
                cluster_arn,
                poller_group: environment.optional("FIRN_POLLER_GROUP"),
                pollers_max: environment.number("FIRN_MAXIMUM_POLLERS", 2, 1, POLLERS_BOUND),
                batch_size: environment.number("FIRN_BATCH_SIZE", 10_000, 1, 10_000),
                window_seconds: environment
                    .optional("FIRN_BATCH_WINDOW_SECONDS")
                    .map(|_| environment.number("FIRN_BATCH_WINDOW_SECONDS", 0, 0, 300)),
                creations_max: environment.number("FIRN_CREATIONS_MAX", CREATIONS_MAX, 1, 1000),
            });
        let config = Self {
            bucket: environment.required("FIRN_BUCKET"),
            s3_path_style: environment.flag("FIRN_S3_PATH_STYLE"),
            clock_offset_ms: environment.clock().offset_ms,
            target,
        };
        environment.finish(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cluster_there_is_no_target() {
        let environment = Environment::of(&[("FIRN_BUCKET", "b"), ("FIRN_CLUSTER_ARN", "")]);
        let config = Config::from_environment(environment).expect("valid");
        assert_eq!(config.target, None);
    }

    #[test]
    fn window_is_lambdas_own_unless_set() {
        let variables = [
            ("FIRN_BUCKET", "b"),
            ("FIRN_CLUSTER_ARN", "arn"),
            ("FIRN_INGEST_FUNCTION", "f"),
        ];
        let target = |more: &[(&str, &str)]| {
            let environment = Environment::of(&[&variables[..], more].concat());
            Config::from_environment(environment)
                .expect("valid")
                .target
                .expect("a cluster")
        };
        assert_eq!(target(&[]).window_seconds, None);
        assert_eq!(
            target(&[("FIRN_BATCH_WINDOW_SECONDS", "3")]).window_seconds,
            Some(3)
        );
    }
}
