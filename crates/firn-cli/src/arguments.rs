//! What the operator asks for, as typed. Parsing only.
//!
//! # Invariants
//! - Nothing is changed without `--apply`, and nothing is applied without `--why`.
//! - What a look showed is typed again to apply it (`--at`, `--head`), so that what changed since is seen.

use std::str::FromStr;

use change_event::Predecessor;
use clap::{Args, Parser, Subcommand};
use table_commit::{GapPlace, Head};

/// The operator's command of firn: looks at tables and leads them out of halts. Changes nothing without --apply.
#[derive(Debug, Parser)]
#[command(name = "firn", version)]
pub(crate) struct Arguments {
    /// The deployment's bucket (BucketName of the stack; default: FIRN_BUCKET).
    #[arg(long, global = true)]
    pub(crate) bucket: Option<String>,
    /// For stand-ins of S3 without a host name per bucket (default: FIRN_S3_PATH_STYLE).
    #[arg(long, global = true)]
    pub(crate) path_style: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How tables stand: frontiers, what is staged behind them and how old it is, halts, what operators did.
    Status(Subjects),
    /// The same with a closer look: every staged slot and file. Ends with 1 if anything is wrong.
    Check(Subjects),
    /// Records are missing before one that was found: see docs/operations.md, "A gap".
    #[command(subcommand)]
    Gap(GapCommand),
    /// A table's head was moved to another snapshot: see docs/operations.md, "A rolled-back table".
    #[command(subcommand)]
    Rollback(RollbackCommand),
    /// A table was dropped, or has lost its state: see docs/operations.md, "A dropped table" and docs/operations.md, "A lost state".
    Adopt(AdoptArguments),
    /// Builds a table anew from its topic and swaps it in: see docs/operations.md, "Rebuild a table".
    Rebuild(RebuildArguments),
}

/// What to look at.
#[derive(Debug, Args)]
pub(crate) struct Subjects {
    /// Topics, or tables as DATABASE.TABLE; all of the registry if none.
    pub(crate) subjects: Vec<String>,
}

/// How a change is made.
#[derive(Debug, Args)]
pub(crate) struct Change {
    /// Do it; without this it is only said what would be done.
    #[arg(long, requires = "why")]
    pub(crate) apply: bool,
    /// Why, in your words; it is kept with the table.
    #[arg(long)]
    pub(crate) why: Option<String>,
    /// Who you are (default: USER); it is kept with the table.
    #[arg(long)]
    pub(crate) by: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GapCommand {
    /// Gives the missing records up: the partition goes on with the record that showed the gap.
    Accept(GapArguments),
    /// The same, after asking the agent for a new copy of the table.
    Recopy(GapArguments),
}

/// A gap, as the log of firn-ingest spells it.
#[derive(Debug, Args)]
pub(crate) struct GapArguments {
    /// The topic.
    pub(crate) topic: String,
    /// The partition.
    pub(crate) partition: u32,
    /// Incarnation and offset of the record that showed it.
    #[arg(long, value_name = "INCARNATION:OFFSET")]
    pub(crate) at: Pair<u32, i64>,
    /// The last record that was taken.
    #[arg(long, value_name = "EPOCH:NUMBER")]
    pub(crate) covered: Pair<u64, u64>,
    /// The record that showed it.
    #[arg(long, value_name = "EPOCH:NUMBER")]
    pub(crate) found: Pair<u64, u64>,
    #[command(flatten)]
    pub(crate) change: Change,
}

impl GapArguments {
    pub(crate) const fn place(&self) -> GapPlace {
        GapPlace {
            partition: self.partition,
            incarnation: self.at.0,
            offset: self.at.1,
            covered: record(self.covered),
            found: record(self.found),
        }
    }
}

const fn record(Pair(epoch, pseq): Pair<u64, u64>) -> Predecessor {
    Predecessor { epoch, pseq }
}

#[derive(Debug, Subcommand)]
pub(crate) enum RollbackCommand {
    /// What was rolled back stays away; the table goes on from the head as it is.
    Accept(RollbackArguments),
    /// What was rolled back is combined once more from the slots that are still there.
    Replay(RollbackArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArguments {
    /// The table as DATABASE.TABLE, or its topic.
    pub(crate) table: String,
    /// The head that you were shown: a snapshot id, or `none`. Needed to apply.
    #[arg(long, required_if_eq("apply", "true"), value_parser = head)]
    pub(crate) head: Option<Head>,
    #[command(flatten)]
    pub(crate) change: Change,
}

fn head(text: &str) -> Result<Head, String> {
    match text {
        "none" => Ok(Head(None)),
        id => id
            .parse()
            .map(|id| Head(Some(id)))
            .map_err(|_malformed| "neither a snapshot id nor `none`".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct AdoptArguments {
    /// The table as DATABASE.TABLE, or its topic.
    pub(crate) table: String,
    /// Frontier of a partition, for a table of which no snapshot says how far it is. Once for each partition; others
    /// begin at the beginning.
    #[arg(
        long,
        value_name = "PARTITION=INCARNATION:OFFSET:EPOCH:NUMBER",
        requires = "schema_version"
    )]
    pub(crate) frontier: Vec<GivenFrontier>,
    /// Version of the source schema that the table's columns are of; with --frontier.
    #[arg(long)]
    pub(crate) schema_version: Option<u32>,
    #[command(flatten)]
    pub(crate) change: Change,
}

#[derive(Debug, Args)]
pub(crate) struct RebuildArguments {
    /// The table as DATABASE.TABLE, or its topic.
    pub(crate) table: String,
    #[command(flatten)]
    pub(crate) kafka: KafkaArguments,
    #[command(flatten)]
    pub(crate) change: Change,
}

/// How the topics are reached.
#[derive(Debug, Args)]
pub(crate) struct KafkaArguments {
    /// Brokers, as HOST:PORT with commas between them.
    #[arg(long)]
    pub(crate) bootstrap_servers: String,
    /// A setting of librdkafka without a secret in it. Once for each.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) kafka_property: Vec<Property>,
    /// A setting of librdkafka that is a secret, by the environment variable that holds it. Once for each.
    #[arg(long, value_name = "NAME=VARIABLE")]
    pub(crate) kafka_secret: Vec<Property>,
}

/// A name and a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Property {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("not of the form NAME=VALUE")?;
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Two numbers with a colon between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair<A, B>(pub(crate) A, pub(crate) B);

impl<A: FromStr, B: FromStr> FromStr for Pair<A, B> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (one, other) = text.split_once(':')?;
            Some(Self(one.parse().ok()?, other.parse().ok()?))
        };
        parsed().ok_or_else(|| "not two numbers with a colon between them".to_owned())
    }
}

/// A frontier as an operator gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GivenFrontier {
    pub(crate) partition: u32,
    pub(crate) incarnation: u32,
    pub(crate) offset: i64,
    pub(crate) epoch: u64,
    pub(crate) pseq: u64,
}

impl FromStr for GivenFrontier {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (partition, rest) = text.split_once('=')?;
            let mut numbers = rest.split(':');
            let frontier = Self {
                partition: partition.parse().ok()?,
                incarnation: numbers.next()?.parse().ok()?,
                offset: numbers.next()?.parse().ok()?,
                epoch: numbers.next()?.parse().ok()?,
                pseq: numbers.next()?.parse().ok()?,
            };
            numbers.next().is_none().then_some(frontier)
        };
        parsed()
            .ok_or_else(|| "not of the form PARTITION=INCARNATION:OFFSET:EPOCH:NUMBER".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn command_of_the_log_reads_back_as_the_same_gap() {
        let place = GapPlace {
            partition: 3,
            incarnation: 2,
            offset: 300,
            covered: Predecessor { epoch: 1, pseq: 7 },
            found: Predecessor { epoch: 2, pseq: 5 },
        };
        let Command::Gap(GapCommand::Accept(parsed)) =
            parse(&place.command("shop.public.orders")).unwrap().command
        else {
            panic!("gap accept")
        };
        assert_eq!(
            (parsed.place(), parsed.topic.as_str()),
            (place, "shop.public.orders")
        );
        assert!(!parsed.change.apply);
    }

    #[test]
    fn nothing_is_applied_without_a_reason_or_without_what_was_shown() {
        assert!(parse("firn rollback accept lake.t").is_ok());
        assert!(parse("firn rollback accept lake.t --apply --why w").is_err());
        assert!(parse("firn rollback accept lake.t --apply --head 1").is_err());
        assert!(parse("firn rollback accept lake.t --apply --head none --why w").is_ok());
        assert!(parse("firn rebuild lake.t --bootstrap-servers b:1").is_ok());
        assert!(parse("firn rebuild lake.t --bootstrap-servers b:1 --apply").is_err());
        assert!(parse("firn adopt lake.t --apply").is_err());
        assert!(parse("firn adopt lake.t --frontier 0=1:2:3:4").is_err());
        assert!(parse("firn adopt lake.t --frontier 0=1:2:3:4 --schema-version 1").is_ok());
        assert!(parse("firn adopt lake.t --frontier 0=1:2:3:4:5 --schema-version 1").is_err());
    }
}
