//! How to reach the server, and the settings under which it prints values.
//!
//! # Invariants
//! - Every session, copying or streaming, gets [`SESSION_SETTINGS`]: the same value has the same text on both ways.
//! - A password prints as `<redacted>`.
//!
//! # Source
//! PostgreSQL manual, "Client Connection Defaults"; the settings in the start-up packet win over those of role and database.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::error::SourceError;

/// Settings that decide how a value is printed, or what a session may see.
///
/// - `search_path`: types and `regclass` values print with their schema, whoever logs in.
/// - `row_security=off`: a policy that would hide rows from a copy is an error instead of a gap.
/// - `client_min_messages`: a publication that is missing is only a warning to PostgreSQL 18, which must reach us.
/// - time-outs of role or database must not cut a long copy.
pub const SESSION_SETTINGS: [(&str, &str); 10] = [
    ("datestyle", "ISO"),
    ("intervalstyle", "postgres"),
    ("extra_float_digits", "1"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("search_path", "pg_catalog"),
    ("row_security", "off"),
    ("client_min_messages", "warning"),
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// Time for a connection to be made and authenticated: a server in recovery answers at once, so silence is a fault.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// A password; it prints as `<redacted>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Keeps `text` from being printed.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The password itself, for the authentication exchange only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl fmt::Display for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Whether the connection is encrypted; the words are those of libpq.
///
/// Only [`SslMode::Disable`] is implemented. The others are known so that a configuration that asks for encryption is
/// refused instead of being served in clear text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SslMode {
    /// Clear text.
    #[default]
    Disable,
    /// Encrypted if the server can; not implemented.
    Prefer,
    /// Encrypted; not implemented.
    Require,
    /// Encrypted, certificate checked; not implemented.
    VerifyCa,
    /// Encrypted, certificate and host name checked; not implemented.
    VerifyFull,
}

impl SslMode {
    /// The word of libpq.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl FromStr for SslMode {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        [
            Self::Disable,
            Self::Prefer,
            Self::Require,
            Self::VerifyCa,
            Self::VerifyFull,
        ]
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or_else(|| SourceError::SslModeUnsupported {
            mode: text.to_owned(),
        })
    }
}

/// How to reach and enter the server.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Host name or address; a folder (beginning with `/`) means the Unix socket in it.
    pub host: String,
    /// Port; also part of the name of a Unix socket.
    pub port: u16,
    /// Role.
    pub user: String,
    /// Needed unless the server trusts us.
    pub password: Option<Password>,
    /// Database.
    pub database: String,
    /// Only [`SslMode::Disable`] is implemented.
    pub ssl_mode: SslMode,
    /// Longest time to connect and authenticate.
    pub connect_timeout: Duration,
    /// What `pg_stat_activity` shows.
    pub application_name: String,
}

impl ConnectOptions {
    /// Options with the defaults: clear text, no password, [`CONNECT_TIMEOUT_DEFAULT`], application name `firn`.
    #[must_use]
    pub fn new(
        host: impl Into<String>,
        port: u16,
        user: impl Into<String>,
        database: impl Into<String>,
    ) -> Self {
        Self {
            host: host.into(),
            port,
            user: user.into(),
            password: None,
            database: database.into(),
            ssl_mode: SslMode::Disable,
            connect_timeout: CONNECT_TIMEOUT_DEFAULT,
            application_name: "firn".to_owned(),
        }
    }

    /// Every problem as field and constraint; empty if there is none.
    #[must_use]
    pub fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (field, value) in [
            ("host", &self.host),
            ("user", &self.user),
            ("database", &self.database),
        ] {
            if value.is_empty() {
                problems.push(format!("{field}: must not be empty"));
            }
        }
        if self.port == 0 {
            problems.push("port: must not be 0".to_owned());
        }
        if self.ssl_mode != SslMode::Disable {
            problems.push(format!(
                "ssl_mode: {:?} is not implemented, only \"disable\" is",
                self.ssl_mode.as_str()
            ));
        }
        problems
    }

    pub(crate) fn address(&self) -> String {
        if self.is_unix() {
            format!("{}/.s.PGSQL.{}", self.host.trim_end_matches('/'), self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_in_options_prints_redacted() {
        let mut options = ConnectOptions::new("h", 1, "u", "d");
        options.password = Some(Password::new("secret"));
        let printed = format!("{options:?} {}", Password::new("secret"));
        assert!(
            printed.contains("<redacted>") && !printed.contains("secret"),
            "{printed}"
        );
    }

    #[test]
    fn encryption_that_is_not_implemented_is_refused() {
        let mut options = ConnectOptions::new("h", 1, "u", "d");
        assert_eq!(options.validate(), Vec::<String>::new());
        options.ssl_mode = "verify-full".parse().unwrap();
        assert!(options.validate().concat().contains("only \"disable\""));
        assert!("tls".parse::<SslMode>().is_err());
    }
}
