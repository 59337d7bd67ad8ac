//! The agent's settings: one TOML file per source database.
//!
//! Flow: file -> [`read`] -> **here** -> [`Config`], complete and in range, or the list of everything that is wrong.
//!
//! # Invariants
//! - Secrets stand elsewhere (environment or a file) and print as `<redacted>`.
//! - This is the only place of the agent that reads environment variables.

mod read;
mod sections;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use toml::de::DeTable;

use source_postgres::SslMode;

pub use read::Problem;
use read::{Problems, Section};

/// Freshness unless the file says otherwise: the value that a registration without an opinion has.
pub const FRESHNESS_SECONDS_DEFAULT: u32 = change_event::registration::FRESHNESS_DEFAULT_SECONDS;
/// One partition keeps a table's order whole; more are for tables whose rate asks for it.
pub const PARTITIONS_DEFAULT: u32 = 1;
/// What a broker with three zones wants; a single broker needs 1.
pub const REPLICATION_FACTOR_DEFAULT: u32 = 3;
/// Four Kafka transactions a second: their cost is a marker per partition, and freshness is seconds anyway.
pub const TRANSACTION_MAX_MS_DEFAULT: u64 = 250;
/// At about 100 bytes a row this is the byte bound too.
pub const TRANSACTION_MAX_ROWS_DEFAULT: u64 = 20_000;
/// A quarter of what the default queue holds, so that one transaction never fills it.
pub const TRANSACTION_MAX_BYTES_DEFAULT: u64 = 16 * 1024 * 1024;
/// A Lambda payload is 6 MB of base64: 4 MB of bytes and the rest for headers and names.
pub const RECORD_MAX_BYTES_DEFAULT: u64 = 4_000_000;
/// Room of the producer's queue; the agent's other buffers together stay below it.
pub const MEMORY_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// Loopback: the page shows names of tables, and who may see it is for the operator to say.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:9187";
/// The registered port of PostgreSQL.
pub const PORT_DEFAULT: u16 = 5432;

/// A text that never prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret text in.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Gives it out, to whom it is for.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Everything that one agent needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[source]`
    pub source: SourceConfig,
    /// `[kafka]`
    pub kafka: KafkaConfig,
    /// `[lake]`
    pub lake: LakeConfig,
    /// `[object_store]`
    pub object_store: ObjectStoreConfig,
    /// `[topics]`
    pub topics: TopicsConfig,
    /// `[limits]`
    pub limits: LimitsConfig,
    /// `[http]`
    pub http: HttpConfig,
    /// `[envelope]`
    pub envelope: EnvelopeConfig,
}

/// `[source]`: the database.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Name of the source, prefix of its topics, fixed for ever: letters, digits and `_`.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Role with LOGIN and REPLICATION that may SELECT the tables.
    pub user: String,
    /// Its password; absent where the server trusts the connection.
    pub password: Option<Secret>,
    /// Database to capture.
    pub database: String,
    /// Replication slot, created by the agent. Default `firn_<name>`.
    pub slot: String,
    /// Publication, created by the agent if it is missing. Default `firn_<name>`.
    pub publication: String,
    /// Tables to capture: `schema.table`, or `schema.*` for all of a schema; `public.*` unless set. Decided at the first start:
    /// tables that come later are not captured by this version.
    pub tables: Vec<String>,
    /// Encryption of the connection, in libpq's words; only `disable` (default) is implemented, the others are refused.
    pub ssl_mode: SslMode,
}

/// `[kafka]`: the broker.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port`, several parted by commas.
    pub bootstrap_servers: String,
    /// Fences a second agent; one per source, fixed for ever. Default `firn-<source name>`.
    pub transactional_id: String,
    /// `[kafka.properties]`: further librdkafka settings, without secrets.
    pub properties: BTreeMap<String, String>,
    /// `[kafka.secrets]`: librdkafka settings whose values are secrets, by reference.
    pub secrets: BTreeMap<String, Secret>,
}

/// `[lake]`: where the tables live.
#[derive(Debug, Clone)]
pub struct LakeConfig {
    /// Bucket of the deployment: control objects, quarantine and tables.
    pub bucket: String,
    /// Glue database of the tables.
    pub database: String,
    /// Seconds between two commits of a table, 0 to 86 400; 0 commits each batch. Fresher costs more commits.
    pub freshness_seconds: u32,
    /// `[lake.tables."schema.table"]`
    pub tables: BTreeMap<String, LakeTableConfig>,
}

/// `[lake.tables."schema.table"]`: what one table wants differently.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LakeTableConfig {
    /// Name in the lake; default `<schema>__<table>`.
    pub name: Option<String>,
    /// Seconds between two commits.
    pub freshness_seconds: Option<u32>,
}

/// `[object_store]`: the store that holds the bucket. Credentials come from the AWS environment.
#[derive(Debug, Clone)]
pub struct ObjectStoreConfig {
    /// URL of the store; default that of AWS in the region; `file:///folder` for a folder of this machine.
    pub endpoint: Option<String>,
    /// Region; default from the AWS environment.
    pub region: Option<String>,
    /// Bucket in the path instead of the host name, as most local stores want it.
    pub path_style: bool,
}

/// `[topics]`: how missing topics are created.
#[derive(Debug, Clone)]
pub struct TopicsConfig {
    /// Partitions of a topic, 1 to 1024. The map stored with the topic wins over this.
    pub partitions: u32,
    /// Copies of each partition, 1 to 15.
    pub replication_factor: u32,
    /// Hours that the broker keeps records, 0 for ever (default): the records are the way back after a failure downstream.
    pub retention_hours: u64,
    /// `[topics.tables."schema.table"]`: partitions of single tables.
    pub tables: BTreeMap<String, u32>,
}

/// `[limits]`: bounds of work and memory.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// A Kafka transaction ends after this many milliseconds, 10 to 10 000. Less is fresher and costs more markers.
    pub transaction_max_ms: u64,
    /// … or after this many records, 1 to 1 000 000.
    pub transaction_max_rows: u64,
    /// … or after this many bytes, 64 KiB to 1 GiB.
    pub transaction_max_bytes: u64,
    /// A larger record travels by reference, 64 KiB to 4 000 000 bytes.
    pub record_max_bytes: u64,
    /// Room of the producer's queue in bytes, 16 MiB to 2 GiB.
    pub memory_bytes: u64,
}

/// `[http]`: health, metrics and the status page.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Address to listen on.
    pub listen: SocketAddr,
}

/// `[envelope]`: the form of the records.
#[derive(Debug, Clone, Copy)]
pub struct EnvelopeConfig {
    /// Debezium's schema beside each envelope and key, as its consumers in Kafka Connect want it: two to three kilobytes more in
    /// each record. Default false. firn's own functions read both forms, and a topic may hold both.
    pub inline_schema: bool,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {path}")]
    Unreadable {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is wrong, in these places.
    #[error("{} problem(s) in the configuration:{}", .0.len(), list(.0))]
    Invalid(Vec<Problem>),
}

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("\n  {problem}"))
        .collect()
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem of the file (Halt).
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.display().to_string(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Reads and checks the text of a file.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem of the text (Halt).
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut problems = Problems::new(text);
        let (document, syntax) = DeTable::parse_recoverable(text);
        for error in &syntax {
            problems.add(error.span(), "", format!("not TOML: {}", error.message()));
        }
        let mut root = Section::root(document.get_ref());
        let config = Self::read(&mut problems, &mut root);
        root.finish(&mut problems);
        let config = config.with_defaults_by_name();
        let found = problems.into_vec();
        if found.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid(found))
        }
    }

    fn read(problems: &mut Problems<'_>, root: &mut Section<'_, '_>) -> Self {
        let mut section = |name| root.section(problems, name);
        let source = section("source");
        let kafka = section("kafka");
        let lake = section("lake");
        let object_store = section("object_store");
        let topics = section("topics");
        let limits = section("limits");
        let http = section("http");
        let envelope = section("envelope");
        Self {
            source: SourceConfig::read(problems, source),
            kafka: KafkaConfig::read(problems, kafka),
            lake: LakeConfig::read(problems, lake),
            object_store: ObjectStoreConfig::read(problems, object_store),
            topics: TopicsConfig::read(problems, topics),
            limits: LimitsConfig::read(problems, limits),
            http: HttpConfig::read(problems, http),
            envelope: EnvelopeConfig::read(problems, envelope),
        }
    }

    /// Names that follow from the source's name unless they are set.
    fn with_defaults_by_name(mut self) -> Self {
        let name = &self.source.name;
        for text in [&mut self.source.slot, &mut self.source.publication] {
            if text.is_empty() {
                *text = format!("firn_{}", name.to_lowercase());
            }
        }
        if self.kafka.transactional_id.is_empty() {
            self.kafka.transactional_id = format!("firn-{name}");
        }
        self
    }
}

#[cfg(test)]
mod tests;
