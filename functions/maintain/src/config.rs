//! Settings of the function, from its environment.

use function_kit::{ConfigError, Environment};

use crate::ages::{Ages, HOURS_MAX, ORPHAN_HOURS, ORPHAN_HOURS_MIN, SLOT_HOURS, SLOT_HOURS_MIN};
use crate::handler::Settings;

/// Objects removed in one run: more than a busy table leaves behind in the six hours between two runs, and few enough to
/// read in the log if something is wrong.
const REMOVALS_MAX: u64 = 100_000;

/// Settings of the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `FIRN_BUCKET`: the deployment's bucket.
    pub bucket: String,
    /// `FIRN_S3_PATH_STYLE`: for stand-ins of S3 without a host name per bucket.
    pub s3_path_style: bool,
    /// `FIRN_INTENT_RETENTION_HOURS`: committed intents stay so long (24 to 87,600, 168): a table that was rolled back can be
    /// filled again from them. `FIRN_ORPHAN_AGE_HOURS`: files that nothing names stay so long (24 to 87,600, 72).
    /// `FIRN_REMOVALS_MAX`: objects removed in one run (1 to 10,000,000, 100,000); the next run goes on.
    pub settings: Settings,
}

impl Config {
    /// Reads them.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem.
    pub fn from_environment(mut environment: Environment) -> Result<Self, ConfigError> {
        let slot_hours = environment.number(
            "FIRN_INTENT_RETENTION_HOURS",
            SLOT_HOURS,
            SLOT_HOURS_MIN,
            HOURS_MAX,
        );
        let orphan_hours = environment.number(
            "FIRN_ORPHAN_AGE_HOURS",
            ORPHAN_HOURS,
            ORPHAN_HOURS_MIN,
            HOURS_MAX,
        );
        let config = Self {
            bucket: environment.required("FIRN_BUCKET"),
            s3_path_style: environment.flag("FIRN_S3_PATH_STYLE"),
            settings: Settings {
                ages: Ages::hours(slot_hours, orphan_hours),
                removals_max: environment.number("FIRN_REMOVALS_MAX", REMOVALS_MAX, 1, 10_000_000),
            },
        };
        environment.finish(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_can_only_be_raised() {
        let read = |hours: &str| {
            Config::from_environment(Environment::of(&[
                ("FIRN_BUCKET", "b"),
                ("FIRN_INTENT_RETENTION_HOURS", hours),
            ]))
        };
        assert_eq!(read("").unwrap().settings.ages, Ages::default());
        assert_eq!(
            read("336").unwrap().settings.ages,
            Ages::hours(336, ORPHAN_HOURS)
        );
        assert!(read("23").is_err());
    }
}
