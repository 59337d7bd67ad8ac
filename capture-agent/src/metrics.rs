//! The agent's metrics in Prometheus' text format.
//!
//! # Invariants
//! - Names are constants and end in their unit: `_total`, `_seconds`, `_bytes`; labels are names of tables, never values.
//!
//! # Source
//! Prometheus documentation, "Exposition formats".

use std::fmt::{Display, Write as _};

use crate::status::{AgentState, Snapshot};

/// Records committed to topics, by table.
pub const RECORDS: &str = "firn_agent_records_total";
/// Bytes of keys and values committed.
pub const BYTES: &str = "firn_agent_record_bytes_total";
/// Kafka transactions committed.
pub const TRANSACTIONS: &str = "firn_agent_kafka_transactions_total";
/// Source transactions seen whole.
pub const SOURCE_TRANSACTIONS: &str = "firn_agent_source_transactions_total";
/// Records that travelled by reference.
pub const REFERENCES: &str = "firn_agent_reference_records_total";
/// Row changes set aside.
pub const QUARANTINED: &str = "firn_agent_quarantined_records_total";
/// Changes passed over because they were committed before.
pub const REPLAYED: &str = "firn_agent_replayed_changes_total";
/// Sessions begun.
pub const SESSIONS: &str = "firn_agent_sessions_total";
/// Rows copied.
pub const COPIED_ROWS: &str = "firn_agent_copied_rows_total";
/// 1 for the state that the agent is in.
pub const STATE: &str = "firn_agent_state";
/// Epoch of the session.
pub const EPOCH: &str = "firn_agent_epoch";
/// Source log that is not yet durable downstream.
pub const LAG_BYTES: &str = "firn_agent_lag_bytes";
/// Age of the last committed source transaction.
pub const LAG_SECONDS: &str = "firn_agent_lag_seconds";
/// Log that the slot holds.
pub const SLOT_RETAINED_BYTES: &str = "firn_agent_slot_retained_bytes";
/// Log that may be written before the slot is in danger.
pub const SLOT_SAFE_BYTES: &str = "firn_agent_slot_safe_wal_bytes";
/// Time until then at the present rate.
pub const SLOT_SAFE_SECONDS: &str = "firn_agent_slot_safe_seconds";
/// 1 if the slot is lost.
pub const SLOT_LOST: &str = "firn_agent_slot_lost";
/// Captured tables some of whose changes or rows are missing.
pub const TROUBLED_TABLES: &str = "firn_agent_troubled_tables";
/// Tables that match the configuration and cannot be captured.
pub const UNCAPTURED_TABLES: &str = "firn_agent_uncaptured_tables";
/// Age of the process.
pub const UPTIME_SECONDS: &str = "firn_agent_uptime_seconds";

/// Writes all metrics.
#[must_use]
pub fn render(source_name: &str, snapshot: &Snapshot, now_ms: i64) -> String {
    let mut out = Exposition {
        out: String::with_capacity(4096),
        source: escape(source_name),
    };
    counters(&mut out, snapshot);
    gauges(&mut out, snapshot, now_ms);
    out.out
}

fn counters(out: &mut Exposition, snapshot: &Snapshot) {
    out.head(RECORDS, "counter", "Records committed to topics.");
    for table in &snapshot.tables {
        let labels = format!(",table=\"{}\"", escape(&table.table));
        out.sample(RECORDS, &labels, table.records);
    }
    let totals = &snapshot.totals;
    let counters = [
        (BYTES, "Bytes of keys and values committed.", totals.bytes),
        (
            TRANSACTIONS,
            "Kafka transactions committed.",
            totals.transactions,
        ),
        (
            SOURCE_TRANSACTIONS,
            "Source transactions seen whole.",
            totals.source_transactions,
        ),
        (
            REFERENCES,
            "Records that travelled by reference.",
            totals.references,
        ),
        (QUARANTINED, "Row changes set aside.", totals.quarantined),
        (
            REPLAYED,
            "Changes that were committed before a restart.",
            totals.replayed,
        ),
        (SESSIONS, "Sessions begun.", totals.sessions),
        (COPIED_ROWS, "Rows copied.", totals.copied_rows),
    ];
    for (name, help, value) in counters {
        out.head(name, "counter", help);
        out.sample(name, "", value);
    }
}

fn gauges(out: &mut Exposition, snapshot: &Snapshot, now_ms: i64) {
    out.head(STATE, "gauge", "1 for the state that the agent is in.");
    for state in AgentState::ALL {
        let labels = format!(",state=\"{}\"", state.word());
        out.sample(STATE, &labels, u8::from(state == snapshot.state));
    }
    let slot = &snapshot.slot;
    out.gauge(EPOCH, "Epoch of the session.", snapshot.epoch);
    out.gauge(
        LAG_BYTES,
        "Source log not yet durable downstream.",
        snapshot.lag_bytes(),
    );
    let help = "Age of the last committed source transaction.";
    out.gauge(LAG_SECONDS, help, snapshot.lag_seconds(now_ms));
    out.gauge(
        SLOT_RETAINED_BYTES,
        "Log that the slot holds.",
        slot.retained_bytes,
    );
    if let Some(bytes) = slot.safe_wal_size_bytes {
        out.gauge(
            SLOT_SAFE_BYTES,
            "Log that may be written before the slot is in danger.",
            bytes,
        );
    }
    if let Some(seconds) = snapshot.seconds_until_slot_is_lost() {
        out.gauge(
            SLOT_SAFE_SECONDS,
            "Time until the slot is in danger.",
            seconds,
        );
    }
    out.gauge(
        SLOT_LOST,
        "1 if the slot is lost.",
        u8::from(slot.wal_status == "lost"),
    );
    let troubled = snapshot
        .tables
        .iter()
        .filter(|table| table.problem.is_some());
    out.gauge(
        TROUBLED_TABLES,
        "Captured tables some of whose changes or rows are missing.",
        troubled.count(),
    );
    out.gauge(
        UNCAPTURED_TABLES,
        "Tables that match the configuration and cannot be captured.",
        snapshot.not_captured.len(),
    );
    let uptime = (now_ms - snapshot.started_ms).max(0) / 1000;
    out.gauge(UPTIME_SECONDS, "Age of the process.", uptime);
}

struct Exposition {
    out: String,
    source: String,
}

impl Exposition {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail.
        let _infallible = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _infallible = writeln!(
            self.out,
            "{name}{{source=\"{}\"{labels}}} {value}",
            self.source
        );
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }
}

fn escape(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::TableStatus;

    #[test]
    fn every_sample_has_help_and_type_and_labels_are_escaped() {
        let mut snapshot = Snapshot::default();
        snapshot.tables.push(TableStatus {
            table: "public.a\"b".to_owned(),
            records: 7,
            ..TableStatus::default()
        });
        let text = render("shop", &snapshot, 1000);
        assert!(
            text.contains("firn_agent_records_total{source=\"shop\",table=\"public.a\\\"b\"} 7\n"),
            "{text}"
        );
        assert!(text.contains("firn_agent_state{source=\"shop\",state=\"starting\"} 1\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split('{').next().unwrap();
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }
}
