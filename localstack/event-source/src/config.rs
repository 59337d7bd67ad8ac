//! The command line, checked as a whole before anything starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::batch::BatchLimits;
use crate::error::EventSourceError;
use crate::fault::FaultOptions;
use crate::payload::PAYLOAD_BYTES_MAX;
use crate::poller::PollerTimes;

/// Largest batch of a Kafka event source, records (Lambda's own bound).
pub const BATCH_RECORDS_MAX: u32 = 10_000;

/// What becomes of records in open and aborted transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Isolation {
    /// They are not delivered.
    ReadCommitted,
    /// They are delivered like any other.
    ReadUncommitted,
}

impl Isolation {
    /// As the Kafka client spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadCommitted => "read_committed",
            Self::ReadUncommitted => "read_uncommitted",
        }
    }
}

/// How header bytes are spelled as numbers; which one Lambda sends is not documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum HeaderBytes {
    /// -128..=127, as Java prints a byte.
    Signed,
    /// 0..=255.
    Unsigned,
    /// Drawn for each header.
    Mixed,
}

/// Feeds Kafka topics to a Lambda function, as an event source mapping does on AWS.
#[derive(Debug, Clone, Parser)]
#[command(name = "event-source", version, about)]
pub struct Options {
    /// Kafka brokers, host:port separated by commas
    #[arg(long)]
    pub bootstrap_servers: String,

    /// Bucket that holds control/registry/ (default: the variable FIRN_BUCKET); endpoint and credentials as the AWS SDK finds them
    #[arg(long, conflicts_with = "folder")]
    pub bucket: Option<String>,

    /// Local folder instead of a bucket
    #[arg(long)]
    pub folder: Option<PathBuf>,

    /// Function to invoke
    #[arg(long, default_value = "firn-ingest")]
    pub function: String,

    /// Records in a batch at most, 1 to 10000
    #[arg(long, default_value_t = BATCH_RECORDS_MAX, value_parser = clap::value_parser!(u32).range(1..=i64::from(BATCH_RECORDS_MAX)))]
    pub batch_size: u32,

    /// How long a batch fills from its first record, milliseconds
    #[arg(long, default_value_t = 500)]
    pub window_ms: u64,

    /// Bytes of a payload's JSON at most; a single record above it is dropped and counted
    #[arg(long, default_value_t = PAYLOAD_BYTES_MAX)]
    pub payload_bytes_max: usize,

    /// One poller per topic, whose payloads hold several partitions (default: one poller per partition)
    #[arg(long)]
    pub merge_partitions: bool,

    /// Which records of transactions are read
    #[arg(long, value_enum, default_value_t = Isolation::ReadCommitted)]
    pub isolation: Isolation,

    /// How header bytes are spelled
    #[arg(long, value_enum, default_value_t = HeaderBytes::Mixed)]
    pub header_bytes: HeaderBytes,

    /// Seeded faults: seed=7,duplicate=0.05,recut=0.05,late=0.02,abandon=0.01 (shares of batches; kill = abandon)
    #[arg(long, default_value = "")]
    pub faults: FaultOptions,

    /// Address of /metrics, /tail and /healthz; port 0 takes a free one and prints it
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,

    /// How often the registry and the topics' partitions are read, milliseconds; SIGHUP reads them at once
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..))]
    pub registry_interval_ms: u64,

    /// Prefix of the consumer groups, one per topic
    #[arg(long, default_value = "firn-")]
    pub group_prefix: String,

    /// ARN that events name as their source
    #[arg(
        long,
        default_value = "arn:aws:kafka:us-east-1:000000000000:cluster/firn-local/00000000-0000-0000-0000-000000000000-1"
    )]
    pub event_source_arn: String,

    /// How long a call waits for the function, seconds
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=900))]
    pub invoke_timeout_seconds: u64,

    /// Invocations at a time, over all topics
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub concurrency_max: u32,

    /// Wait after a batch's first failure, milliseconds; it doubles
    #[arg(long, default_value_t = 200)]
    pub retry_min_ms: u64,

    /// Longest wait between two tries of a batch, milliseconds
    #[arg(long, default_value_t = 5_000)]
    pub retry_max_ms: u64,

    /// How long running invocations are waited for at SIGTERM, seconds
    #[arg(long, default_value_t = 10)]
    pub shutdown_seconds: u64,
}

impl Options {
    /// Checks what single options cannot say.
    ///
    /// # Errors
    /// [`EventSourceError::Configuration`] (Halt) with every problem.
    pub fn validate(&self) -> Result<(), EventSourceError> {
        let mut problems = Vec::new();
        if self.retry_max_ms < self.retry_min_ms {
            problems.push("--retry-max-ms must not be below --retry-min-ms");
        }
        if self.payload_bytes_max < 1_000 || self.payload_bytes_max > PAYLOAD_BYTES_MAX {
            problems.push("--payload-bytes-max must lie in 1000..=6291556");
        }
        if self.bootstrap_servers.is_empty() {
            problems.push("--bootstrap-servers is empty");
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(EventSourceError::Configuration(problems.join("; ")))
        }
    }

    /// What bounds a batch.
    #[must_use]
    pub fn batch_limits(&self) -> BatchLimits {
        let records_max = usize::try_from(self.batch_size).unwrap_or(usize::MAX);
        BatchLimits {
            records_max,
            payload_bytes_max: self.payload_bytes_max,
        }
    }

    /// How pollers wait.
    #[must_use]
    pub const fn poller_times(&self) -> PollerTimes {
        PollerTimes {
            window: Duration::from_millis(self.window_ms),
            retry_min: Duration::from_millis(self.retry_min_ms),
            retry_max: Duration::from_millis(self.retry_max_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, String> {
        let all = ["event-source", "--bootstrap-servers", "127.0.0.1:9092"]
            .iter()
            .chain(arguments);
        let options = Options::try_parse_from(all).map_err(|error| error.to_string())?;
        options.validate().map_err(|error| error.to_string())?;
        Ok(options)
    }

    #[test]
    fn defaults_are_those_of_the_service() {
        let options = parse(&[]).expect("valid");
        assert_eq!(options.batch_limits().records_max, 10_000);
        assert_eq!(options.batch_limits().payload_bytes_max, 6_291_556);
        assert_eq!(options.poller_times().window, Duration::from_millis(500));
        assert_eq!(options.isolation, Isolation::ReadCommitted);
    }

    #[test]
    fn wrong_settings_are_refused() {
        for wrong in [
            &["--batch-size", "0"][..],
            &["--batch-size", "10001"],
            &["--faults", "late=3"],
            &["--isolation", "serializable"],
            &["--payload-bytes-max", "10", "--retry-max-ms", "1"],
            &["--bucket", "b", "--folder", "f"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(
            parse(&[
                "--isolation",
                "read_uncommitted",
                "--faults",
                "seed=1,late=0.5"
            ])
            .is_ok()
        );
    }
}
