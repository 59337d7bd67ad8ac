//! A connection to PostgreSQL: simple queries and the commands of replication.
//!
//! Flow: **here** -> `stream` (once replication starts), `copy` (while a table is copied), `catalog`.
//!
//! # Invariants
//! - One query at a time; a connection whose query was cancelled or failed on the wire is not used again.
//! - A slot is created only by [`Connection::create_slot`], never on the way to something else.
//!
//! # Source
//! PostgreSQL manual, "Streaming Replication Protocol". Its grammar knows neither `E''` strings nor, before PostgreSQL 15,
//! anything but options in parentheses as written here.

use std::fmt;

use bytes::{Buf as _, Bytes};
use change_event::Lsn;
use postgres_protocol::message::frontend;
use tokio::net::{TcpStream, UnixStream};

use crate::auth;
use crate::config::{ConnectOptions, SslMode};
use crate::error::{Answering, SourceError};
use crate::stream::ReplicationStream;
use crate::wire::{Transport, Wire, server_message};

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    pub(crate) wire: Wire,
    /// A query was sent and its end not yet seen.
    pub(crate) busy: bool,
}

/// One row of an answer, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Vec<Option<String>>);

impl Row {
    /// The text of a column; `None` for NULL and behind the last column.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index)?.as_deref()
    }

    /// The value of a column, read from its text.
    ///
    /// # Errors
    /// [`SourceError::UnexpectedAnswer`] (Halt) if it is NULL or reads as no such value.
    pub fn parse<T: std::str::FromStr>(&self, index: usize) -> Result<T, SourceError> {
        self.get(index)
            .and_then(|text| text.parse().ok())
            .ok_or(SourceError::UnexpectedAnswer {
                what: "a value is NULL or malformed",
            })
    }

    /// Likewise, with `None` for NULL.
    ///
    /// # Errors
    /// [`SourceError::UnexpectedAnswer`] (Halt) if it reads as no such value.
    pub fn parse_optional<T: std::str::FromStr>(
        &self,
        index: usize,
    ) -> Result<Option<T>, SourceError> {
        self.get(index).map(|_| self.parse(index)).transpose()
    }

    /// A boolean column.
    ///
    /// # Errors
    /// [`SourceError::UnexpectedAnswer`] (Halt) if it is neither `t` nor `f`.
    pub fn flag(&self, index: usize) -> Result<bool, SourceError> {
        match self.get(index) {
            Some("t") => Ok(true),
            Some("f") => Ok(false),
            _ => Err(SourceError::UnexpectedAnswer {
                what: "a value is no boolean",
            }),
        }
    }

    /// A text column.
    ///
    /// # Errors
    /// [`SourceError::UnexpectedAnswer`] (Halt) if it is NULL.
    pub fn text(&self, index: usize) -> Result<String, SourceError> {
        self.parse(index)
    }
}

/// Answer of `IDENTIFY_SYSTEM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// Identity of the cluster, the same for its standbys.
    pub system_id: String,
    /// Timeline; it rises with each promotion.
    pub timeline: u32,
    /// Whether it was a standby right before it named its timeline.
    pub in_recovery: bool,
    /// End of the flushed log.
    pub flush_lsn: Lsn,
    /// Database of the connection.
    pub database: String,
}

/// The end of a former timeline, of a server that was promoted since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineSwitch {
    /// The timeline that ended.
    pub timeline: u32,
    /// Where the next one begins: what lies before is the log of both.
    pub until: Lsn,
}

/// What `CREATE_REPLICATION_SLOT` gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedSlot {
    /// Its name.
    pub slot: String,
    /// Position from which the slot streams: the copy of the snapshot holds everything before it.
    pub consistent_point: Lsn,
    /// Snapshot for table copies; it lives until the next command of this connection.
    pub snapshot: String,
}

/// Where and what to stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationStart {
    /// Slot.
    pub slot: String,
    /// Publications.
    pub publications: Vec<String>,
    /// First position wanted; the server starts at the slot's `confirmed_flush_lsn` if that is later. `Lsn(0)`: from there.
    pub start_lsn: Lsn,
}

impl Connection {
    /// Connects for SQL.
    ///
    /// # Errors
    /// [`SourceError::Connect`] (Retry); [`SourceError::AuthenticationFailed`], [`SourceError::SslModeUnsupported`] and others
    /// (Halt).
    pub async fn connect(options: &ConnectOptions) -> Result<Self, SourceError> {
        Self::open(options, false).await
    }

    /// Connects for replication; such a connection also answers queries.
    ///
    /// # Errors
    /// As [`Connection::connect`].
    pub async fn connect_replication(options: &ConnectOptions) -> Result<Self, SourceError> {
        Self::open(options, true).await
    }

    async fn open(options: &ConnectOptions, replication: bool) -> Result<Self, SourceError> {
        if options.ssl_mode != SslMode::Disable {
            let mode = options.ssl_mode.as_str().to_owned();
            return Err(SourceError::SslModeUnsupported { mode });
        }
        let opening = async {
            let failed = |source| SourceError::Connect {
                address: options.address(),
                source,
            };
            let transport: Box<dyn Transport> = if options.is_unix() {
                Box::new(
                    UnixStream::connect(options.address())
                        .await
                        .map_err(failed)?,
                )
            } else {
                let address = (options.host.as_str(), options.port);
                let stream = TcpStream::connect(address).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                Box::new(stream)
            };
            let mut wire = Wire::new(transport);
            auth::start_up(&mut wire, options, replication).await?;
            Ok(Self { wire, busy: false })
        };
        match tokio::time::timeout(options.connect_timeout, opening).await {
            Ok(opened) => opened,
            Err(_elapsed) => Err(SourceError::Connect {
                address: options.address(),
                source: std::io::ErrorKind::TimedOut.into(),
            }),
        }
    }

    /// Runs one or more statements; gives the rows of all of them, in order, as text.
    ///
    /// Not cancel safe: drop the connection if the future is dropped.
    ///
    /// # Errors
    /// [`SourceError::Server`] and others, by what the server says; the connection remains usable after those.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, SourceError> {
        self.command(sql, Answering::Query).await
    }

    pub(crate) async fn command(
        &mut self,
        sql: &str,
        answering: Answering<'_>,
    ) -> Result<Vec<Row>, SourceError> {
        self.send(sql).await?;
        let mut rows = Vec::new();
        let mut error = None;
        loop {
            let mut frame = self.wire.frame().await?;
            match frame.tag {
                b'D' => rows.push(data_row(&mut frame.body)?),
                b'E' => {
                    let message = server_message(&frame.body, answering);
                    let fatal = is_fatal(&message.severity);
                    let answer = answering.error(message);
                    if fatal {
                        return Err(answer);
                    }
                    error.get_or_insert(answer);
                }
                b'Z' => break,
                b'N' => {
                    let notice = server_message(&frame.body, answering);
                    tracing::debug!(sqlstate = notice.sqlstate, "notice of the server");
                }
                b'T' | b'C' | b'I' | b'S' | b'A' => {}
                _ => {
                    return Err(SourceError::Protocol {
                        what: "unexpected frame in an answer",
                    });
                }
            }
        }
        self.busy = false;
        error.map_or(Ok(rows), Err)
    }

    /// Sends a query; from now on the connection is busy.
    pub(crate) async fn send(&mut self, sql: &str) -> Result<(), SourceError> {
        if self.busy {
            return Err(SourceError::Protocol {
                what: "the connection has an unfinished query",
            });
        }
        self.busy = true;
        frontend::query(sql, &mut self.wire.outgoing).map_err(|_source| SourceError::Protocol {
            what: "a zero byte in a query",
        })?;
        self.wire.flush().await
    }

    /// Which server this is; only on a replication connection.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, SourceError> {
        // First: who was no standby here has ended its promotion, and the timeline it names next is the one it writes.
        let rows = self.query("SELECT pg_is_in_recovery()").await?;
        let in_recovery = first(&rows)?.flag(0)?;
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        let row = first(&rows)?;
        Ok(SystemIdentity {
            in_recovery,
            system_id: row.text(0)?,
            timeline: row.parse(1)?,
            flush_lsn: row.parse(2)?,
            database: row.text(3)?,
        })
    }

    /// The timelines that led to one above 1, oldest first; only on a replication connection.
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn timeline_history(
        &mut self,
        timeline: u32,
    ) -> Result<Vec<TimelineSwitch>, SourceError> {
        let rows = self.query(&format!("TIMELINE_HISTORY {timeline}")).await?;
        timeline_switches(&first(&rows)?.text(1)?)
    }

    /// Creates a permanent logical slot and exports its snapshot; only on a replication connection.
    ///
    /// It waits for every transaction that is open now. The snapshot ends with the next command of this connection.
    ///
    /// # Errors
    /// [`SourceError::SlotExists`], [`SourceError::NoFreeSlot`], [`SourceError::RightMissing`] (Halt) and others.
    pub async fn create_slot(&mut self, slot: &str) -> Result<CreatedSlot, SourceError> {
        // Since 17 standbys may keep a copy of the slot, if it asks for it.
        let rows = self
            .query("SELECT current_setting('server_version_num')::int >= 170000 AND NOT pg_is_in_recovery()")
            .await?;
        let options = if first(&rows)?.flag(0)? {
            "(SNAPSHOT 'export', FAILOVER)"
        } else {
            "EXPORT_SNAPSHOT"
        };
        self.create_slot_as(slot, "", options).await
    }

    /// Likewise, for a slot that ends with this connection: it is made for its snapshot and the position of that, not to stream.
    ///
    /// # Errors
    /// As [`Connection::create_slot`].
    pub async fn create_temporary_slot(&mut self, slot: &str) -> Result<CreatedSlot, SourceError> {
        self.create_slot_as(slot, "TEMPORARY ", "EXPORT_SNAPSHOT")
            .await
    }

    async fn create_slot_as(
        &mut self,
        slot: &str,
        temporary: &str,
        options: &str,
    ) -> Result<CreatedSlot, SourceError> {
        // Keywords without parentheses are what 14 knows.
        let sql = format!(
            "CREATE_REPLICATION_SLOT {} {temporary}LOGICAL pgoutput {options}",
            quote_identifier(slot)
        );
        let rows = self.command(&sql, Answering::CreateSlot { slot }).await?;
        let row = first(&rows)?;
        Ok(CreatedSlot {
            slot: row.text(0)?,
            consistent_point: row.parse(1)?,
            snapshot: row.text(2)?,
        })
    }

    /// Drops a slot that nobody uses; only on a replication connection.
    ///
    /// # Errors
    /// [`SourceError::SlotMissing`] (Halt), [`SourceError::SlotActive`] (Retry) and others.
    pub async fn drop_slot(&mut self, slot: &str) -> Result<(), SourceError> {
        let sql = format!("DROP_REPLICATION_SLOT {}", quote_identifier(slot));
        self.command(&sql, Answering::StartReplication { slot })
            .await
            .map(|_rows| ())
    }

    /// Starts streaming; the connection goes into the stream.
    ///
    /// # Errors
    /// [`SourceError::SlotMissing`], [`SourceError::SlotLost`], [`SourceError::WalRemoved`] (Halt), [`SourceError::SlotActive`]
    /// (Retry) and others.
    pub async fn start_replication(
        mut self,
        start: &ReplicationStart,
    ) -> Result<ReplicationStream, SourceError> {
        let publications: Vec<String> = start
            .publications
            .iter()
            .map(|name| quote_identifier(name))
            .collect();
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {}, messages 'true')",
            quote_identifier(&start.slot),
            start.start_lsn,
            quote_replication_literal(&publications.join(","))
        );
        self.send(&sql).await?;
        let answering = Answering::StartReplication { slot: &start.slot };
        loop {
            let frame = self.wire.frame().await?;
            match frame.tag {
                b'W' => return Ok(ReplicationStream::new(self.wire, start.slot.clone())),
                b'E' => return Err(answering.error(server_message(&frame.body, answering))),
                b'N' | b'S' => {}
                _ => {
                    return Err(SourceError::Protocol {
                        what: "unexpected answer to a start",
                    });
                }
            }
        }
    }
}

/// The first row of an answer that has one.
pub(crate) fn first(rows: &[Row]) -> Result<&Row, SourceError> {
    rows.first()
        .ok_or(SourceError::UnexpectedAnswer { what: "no row" })
}

/// Reads a history file: a line per former timeline with number, end, and a reason; the server skips the same lines.
fn timeline_switches(text: &str) -> Result<Vec<TimelineSwitch>, SourceError> {
    const MALFORMED: SourceError = SourceError::UnexpectedAnswer {
        what: "a malformed timeline history",
    };
    let lines = text.lines().map(str::trim_start);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace();
            let timeline = words.next().and_then(|word| word.parse().ok());
            let until = words.next().and_then(|word| word.parse().ok());
            match (timeline, until) {
                (Some(timeline), Some(until)) => Ok(TimelineSwitch { timeline, until }),
                _ => Err(MALFORMED),
            }
        })
        .collect()
}

pub(crate) fn is_fatal(severity: &str) -> bool {
    matches!(severity, "FATAL" | "PANIC")
}

fn data_row(body: &mut Bytes) -> Result<Row, SourceError> {
    let cut = |_source| SourceError::Protocol {
        what: "a row is cut short",
    };
    let count = body.try_get_u16().map_err(cut)?;
    let mut cells = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let Ok(size) = usize::try_from(body.try_get_i32().map_err(cut)?) else {
            cells.push(None);
            continue;
        };
        if size > body.len() {
            return Err(SourceError::Protocol {
                what: "a row is cut short",
            });
        }
        let text = String::from_utf8(body.split_to(size).to_vec()).map_err(|_source| {
            SourceError::UnexpectedAnswer {
                what: "a text is not UTF-8",
            }
        })?;
        cells.push(Some(text));
    }
    Ok(Row(cells))
}

/// An identifier in double quotes.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string for SQL, whatever `standard_conforming_strings` says.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

/// A string for a replication command, where a backslash is a backslash.
fn quote_replication_literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl fmt::Display for CreatedSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} from {}", self.slot, self.consistent_point)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_in_names_are_doubled() {
        assert_eq!(quote_identifier("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_replication_literal("\"it's\\\""), "'\"it''s\\\"'");
        assert_eq!(quote_literal("it's"), "'it''s'");
    }

    #[test]
    fn timeline_history_reads_as_the_server_writes_it() {
        let file =
            "1\t0/3000158\tno recovery target specified\n\n\n# by hand\n2\t1/A0\tbefore 2026\n";
        let switches = timeline_switches(file).unwrap();
        let pairs: Vec<_> = switches
            .iter()
            .map(|switch| (switch.timeline, switch.until))
            .collect();
        assert_eq!(pairs, [(1, Lsn(0x300_0158)), (2, Lsn(0x1_0000_00A0))]);
        assert!(timeline_switches("1").is_err());
        assert!(timeline_switches("one\t0/1\n").is_err());
    }

    #[test]
    fn row_cut_short_is_an_error() {
        let mut whole = Bytes::from_static(b"\0\x02\0\0\0\x01a\xFF\xFF\xFF\xFF");
        assert_eq!(
            data_row(&mut whole).unwrap(),
            Row(vec![Some("a".to_owned()), None])
        );
        assert!(data_row(&mut Bytes::from_static(b"\0\x01\0\0\0\x09a")).is_err());
    }
}
