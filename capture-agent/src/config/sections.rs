//! Each table of the file: its settings, defaults and ranges.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use source_postgres::{SslMode, TablePattern};

use super::read::{Problems, SecretReference, Section};
use super::{
    EnvelopeConfig, HttpConfig, KafkaConfig, LISTEN_DEFAULT, LakeConfig, LakeTableConfig,
    LimitsConfig, ObjectStoreConfig, PORT_DEFAULT, Secret, SourceConfig, TopicsConfig,
};

/// Longest name of a slot in PostgreSQL (NAMEDATALEN - 1).
const IDENTIFIER_MAX_BYTES: usize = 63;

/// librdkafka settings that the agent owns, because its promises hang on them.
const OWNED_PROPERTIES: [&str; 11] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "message.timeout.ms",
    "metadata.broker.list",
    "request.required.acks",
    "transactional.id",
];

fn is_plain_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_slot_name(text: &str) -> bool {
    text.len() <= IDENTIFIER_MAX_BYTES
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Holds a secret, by its name.
fn is_secret_property(name: &str) -> bool {
    ["password", "secret", ".pem", "oauthbearer.config"]
        .iter()
        .any(|part| name.contains(part))
}

impl SourceConfig {
    pub(super) fn read(problems: &mut Problems<'_>, mut section: Section<'_, '_>) -> Self {
        let name = section.text(problems, "name");
        if !(name.is_empty() || is_plain_name(&name) && name.len() <= 40) {
            problems.add(
                section.span_of("name"),
                &section.field("name"),
                "must be 1 to 40 letters, digits and _ (it is the prefix of topics and object keys)",
            );
        }
        let host = section.text(problems, "host");
        let port = section.number(
            problems,
            "port",
            u64::from(PORT_DEFAULT),
            1..=u64::from(u16::MAX),
        );
        let user = section.text(problems, "user");
        let password = section
            .secret(problems, "password")
            .and_then(|secret| resolve(problems, &secret));
        let database = section.text(problems, "database");
        let slot = section.optional_text(problems, "slot").unwrap_or_default();
        if !is_slot_name(&slot) {
            problems.add(
                section.span_of("slot"),
                &section.field("slot"),
                "must be 1 to 63 lower-case letters, digits and _ (PostgreSQL's rule for slots)",
            );
        }
        let publication = section
            .optional_text(problems, "publication")
            .unwrap_or_default();
        let tables = section.texts(problems, "tables");
        for (pattern, span) in &tables {
            if TablePattern::parse(pattern).is_none() {
                let constraint = "must hold patterns of two parts: schema.table or schema.*";
                problems.add(Some(span.clone()), &section.field("tables"), constraint);
            }
        }
        let mut tables: Vec<String> = tables.into_iter().map(|(pattern, _)| pattern).collect();
        if tables.is_empty() {
            tables.push("public.*".to_owned());
        }
        let ssl_mode = read_ssl_mode(problems, &mut section);
        section.finish(problems);
        let port = u16::try_from(port).unwrap_or(PORT_DEFAULT);
        Self {
            name,
            host,
            port,
            user,
            password,
            database,
            slot,
            publication,
            tables,
            ssl_mode,
        }
    }
}

fn read_ssl_mode(problems: &mut Problems<'_>, section: &mut Section<'_, '_>) -> SslMode {
    let Some(text) = section.optional_text(problems, "ssl_mode") else {
        return SslMode::Disable;
    };
    match text.parse() {
        Ok(SslMode::Disable) => SslMode::Disable,
        Ok(SslMode::Prefer | SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull)
        | Err(_) => {
            problems.add(
                section.span_of("ssl_mode"),
                &section.field("ssl_mode"),
                "must be \"disable\": encryption is not implemented, use a private network or a tunnel",
            );
            SslMode::Disable
        }
    }
}

impl KafkaConfig {
    pub(super) fn read(problems: &mut Problems<'_>, mut section: Section<'_, '_>) -> Self {
        let bootstrap_servers = section.text(problems, "bootstrap_servers");
        let transactional_id = section
            .optional_text(problems, "transactional_id")
            .unwrap_or_default();
        let plain = section.section(problems, "properties");
        let properties = plain.properties(problems);
        for name in properties.keys() {
            let field = plain.field(name);
            if OWNED_PROPERTIES.contains(&name.as_str()) {
                problems.add(plain.span_of(name), &field, "is set by the agent itself");
            } else if is_secret_property(name) {
                let constraint = "holds a secret: move it to [kafka.secrets] as a reference";
                problems.add(plain.span_of(name), &field, constraint);
            }
        }
        let secrets = read_secrets(problems, &mut section);
        section.finish(problems);
        Self {
            bootstrap_servers,
            transactional_id,
            properties,
            secrets,
        }
    }
}

fn read_secrets(
    problems: &mut Problems<'_>,
    section: &mut Section<'_, '_>,
) -> BTreeMap<String, Secret> {
    let mut secrets = BTreeMap::new();
    let table = section.section(problems, "secrets");
    for (name, entry) in table.named_secrets(problems) {
        if let Some(secret) = resolve(problems, &entry) {
            secrets.insert(name, secret);
        }
    }
    secrets
}

impl LakeConfig {
    pub(super) fn read(problems: &mut Problems<'_>, mut section: Section<'_, '_>) -> Self {
        let bucket = section.text(problems, "bucket");
        let database = section.text(problems, "database");
        let freshness_seconds =
            read_freshness(problems, &mut section).unwrap_or(super::FRESHNESS_SECONDS_DEFAULT);
        let mut tables = BTreeMap::new();
        let by_table = section.section(problems, "tables");
        for (table, mut entry) in by_table.named_sections(problems) {
            let name = entry.optional_text(problems, "name");
            if name.as_deref().is_some_and(|name| !is_slot_name(name)) {
                let constraint = "must be 1 to 63 lower-case letters, digits and _";
                problems.add(entry.span_of("name"), &entry.field("name"), constraint);
            }
            let freshness_seconds = read_freshness(problems, &mut entry);
            entry.finish(problems);
            tables.insert(
                table,
                LakeTableConfig {
                    name,
                    freshness_seconds,
                },
            );
        }
        section.finish(problems);
        Self {
            bucket,
            database,
            freshness_seconds,
            tables,
        }
    }
}

fn read_freshness(problems: &mut Problems<'_>, section: &mut Section<'_, '_>) -> Option<u32> {
    let seconds = section.optional_number(problems, "freshness_seconds", 0..=86_400)?;
    u32::try_from(seconds).ok()
}

impl ObjectStoreConfig {
    pub(super) fn read(problems: &mut Problems<'_>, mut section: Section<'_, '_>) -> Self {
        let endpoint = section.optional_text(problems, "endpoint");
        let known = ["http://", "https://", "file:///"];
        if endpoint
            .as_ref()
            .is_some_and(|url| !known.iter().any(|scheme| url.starts_with(scheme)))
        {
            let constraint = "must begin with http://, https:// or file:/// (a local folder)";
            problems.add(
                section.span_of("endpoint"),
                &section.field("endpoint"),
                constraint,
            );
        }
        let region = section.optional_text(problems, "region");
        let path_style = section.flag(problems, "path_style", endpoint.is_some());
        section.finish(problems);
        Self {
            endpoint,
            region,
            path_style,
        }
    }
}

impl TopicsConfig {
    pub(super) fn read(problems: &mut Problems<'_>, mut section: Section<'_, '_>) -> Self {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let partitions = small(section.number(
            problems,
            "partitions",
            u64::from(super::PARTITIONS_DEFAULT),
            1..=1024,
        ));
        let replication_factor = small(section.number(
            problems,
            "replication_factor",
            u64::from(super::REPLICATION_FACTOR_DEFAULT),
            1..=15,
        ));
        let retention_hours = section.number(problems, "retention_hours", 0, 0..=1_000_000);
        let mut tables = BTreeMap::new();
        let by_table = section.section(problems, "tables");
        for (table, mut entry) in by_table.named_sections(problems) {
            if let Some(partitions) = entry.optional_number(problems, "partitions", 1..=1024) {
                tables.insert(table, small(partitions));
            }
            entry.finish(problems);
        }
        section.finish(problems);
        Self {
            partitions,
            replication_factor,
            retention_hours,
            tables,
        }
    }
}

impl LimitsConfig {
    pub(super) fn read(problems: &mut Problems<'_>, mut section: Section<'_, '_>) -> Self {
        const KIB: u64 = 1024;
        const MIB: u64 = 1024 * KIB;
        let mut number = |name, default, range| section.number(problems, name, default, range);
        let limits = Self {
            transaction_max_ms: number(
                "transaction_max_ms",
                super::TRANSACTION_MAX_MS_DEFAULT,
                10..=10_000,
            ),
            transaction_max_rows: number(
                "transaction_max_rows",
                super::TRANSACTION_MAX_ROWS_DEFAULT,
                1..=1_000_000,
            ),
            transaction_max_bytes: number(
                "transaction_max_bytes",
                super::TRANSACTION_MAX_BYTES_DEFAULT,
                64 * KIB..=KIB * MIB,
            ),
            record_max_bytes: number(
                "record_max_bytes",
                super::RECORD_MAX_BYTES_DEFAULT,
                1_000..=super::RECORD_MAX_BYTES_DEFAULT,
            ),
            memory_bytes: number(
                "memory_bytes",
                super::MEMORY_BYTES_DEFAULT,
                16 * MIB..=2 * KIB * MIB,
            ),
        };
        section.finish(problems);
        limits
    }
}

impl HttpConfig {
    pub(super) fn read(problems: &mut Problems<'_>, mut section: Section<'_, '_>) -> Self {
        let text = section
            .optional_text(problems, "listen")
            .unwrap_or_else(|| LISTEN_DEFAULT.to_owned());
        let listen = text
            .parse::<SocketAddr>()
            .unwrap_or_else(|_not_an_address| {
                let constraint = "must be an address and a port: 127.0.0.1:9187";
                problems.add(
                    section.span_of("listen"),
                    &section.field("listen"),
                    constraint,
                );
                SocketAddr::from(([127, 0, 0, 1], 0))
            });
        section.finish(problems);
        Self { listen }
    }
}

impl EnvelopeConfig {
    pub(super) fn read(problems: &mut Problems<'_>, mut section: Section<'_, '_>) -> Self {
        let inline_schema = section.flag(problems, "inline_schema", false);
        section.finish(problems);
        Self { inline_schema }
    }
}

/// Fetches a secret from where it is kept.
#[expect(
    clippy::disallowed_methods,
    reason = "the agent's one reader of environment variables"
)]
fn resolve(problems: &mut Problems<'_>, reference: &SecretReference) -> Option<Secret> {
    match reference {
        SecretReference::Environment { name, field, span } => match std::env::var(name) {
            Ok(text) => Some(Secret::new(text)),
            Err(_unset) => {
                problems.add(
                    Some(span.clone()),
                    field,
                    format!("environment variable {name} is not set"),
                );
                None
            }
        },
        SecretReference::File { path, field, span } => match std::fs::read_to_string(path) {
            Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) => {
                problems.add(
                    Some(span.clone()),
                    field,
                    format!("file {path} cannot be read: {}", error.kind()),
                );
                None
            }
        },
    }
}
