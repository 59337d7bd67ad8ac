//! The status page: one HTML document, no script, refreshed by the browser.
//!
//! # Invariants
//! - Every text is escaped; nothing on it is a row value.

use std::fmt::Write as _;

use crate::config::Config;
use crate::status::{AgentState, Snapshot, TableStatus, lossy};

/// Seconds between two refreshes.
const REFRESH_SECONDS: u32 = 2;

/// Log held by a slot without a bound that deserves a look: ten checkpoints' worth at PostgreSQL's default of 1 GB.
const RETAINED_WARNING_BYTES: i64 = 10 * 1024 * 1024 * 1024;

const STYLE: &str = include_str!("page.css");

/// The page.
#[must_use]
pub fn render(config: &Config, snapshot: &Snapshot, now_ms: i64) -> String {
    let mut out = String::with_capacity(16 * 1024);
    let name = escape(&config.source.name);
    let state = snapshot.state;
    // Writing into a String cannot fail.
    let _infallible = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\"><title>firn · {name} · {}</title>\
         <style>{STYLE}</style></head><body><main><header><h1><span class=\"mark\">firn</span> {name}</h1>\
         <p class=\"badge {}\">{}</p><p class=\"where\">{}:{}/{} → {}</p></header>",
        state.word(),
        state.word(),
        state.word(),
        escape(&config.source.host),
        config.source.port,
        escape(&config.source.database),
        escape(&config.kafka.bootstrap_servers),
    );
    if let Some(error) = &snapshot.last_error {
        let class = if state == AgentState::Halted {
            "error halted"
        } else {
            "error"
        };
        let _infallible = write!(
            out,
            "<section class=\"{class}\"><h2>Last failure</h2><p>{}</p></section>",
            escape(error)
        );
    }
    cards(&mut out, snapshot, now_ms);
    tables(&mut out, snapshot, now_ms);
    positions(&mut out, snapshot, now_ms);
    out.push_str("</main></body></html>\n");
    out
}

fn cards(out: &mut String, snapshot: &Snapshot, now_ms: i64) {
    let safety = match (
        snapshot.slot.wal_status.as_str(),
        snapshot.seconds_until_slot_is_lost(),
    ) {
        ("lost", _) => ("lost".to_owned(), "bad"),
        ("", _) => ("no slot".to_owned(), "warn"),
        (_, Some(seconds)) => {
            let class = if seconds < 3_600.0 { "bad" } else { "good" };
            (format!("{} left", duration(seconds)), class)
        }
        ("unreserved", None) => ("at risk".to_owned(), "bad"),
        // Nothing bounds the log: the slot is not lost, but the source's disk may fill.
        (_, None) if snapshot.slot.retained_bytes > RETAINED_WARNING_BYTES => {
            ("growing".to_owned(), "warn")
        }
        (_, None) => ("healthy".to_owned(), "good"),
    };
    let bound = match snapshot.slot.safe_wal_size_bytes {
        Some(safe) => format!(
            "{} may still be written",
            bytes(u64::try_from(safe).unwrap_or(0))
        ),
        None => "no bound on kept log".to_owned(),
    };
    let retained = bytes(u64::try_from(snapshot.slot.retained_bytes).unwrap_or(0));
    let total = format!("{} since start", count(snapshot.totals.records));
    let cards = [
        (
            "Events / s",
            format!("{:.0}", snapshot.records_per_second(now_ms)),
            total,
            "",
        ),
        (
            "Lag",
            duration(snapshot.lag_seconds(now_ms)),
            "source commit to topic".to_owned(),
            if snapshot.lag_seconds(now_ms) > 60.0 {
                "warn"
            } else {
                ""
            },
        ),
        (
            "Log behind",
            bytes(snapshot.lag_bytes()),
            "written, not yet durable in Kafka".to_owned(),
            "",
        ),
        (
            "Slot",
            safety.0,
            format!("holds {retained}; {bound}"),
            safety.1,
        ),
    ];
    out.push_str("<section class=\"cards\">");
    for (title, value, note, class) in cards {
        let _infallible = write!(
            out,
            "<div class=\"card {class}\"><h2>{title}</h2><p class=\"value\">{}</p><p class=\"note\">{}</p></div>",
            escape(&value),
            escape(&note)
        );
    }
    out.push_str("</section>");
}

fn tables(out: &mut String, snapshot: &Snapshot, now_ms: i64) {
    out.push_str(
        "<section><h2>Tables</h2><div class=\"scroll\"><table><thead><tr><th>Source table</th><th>Topic</th>\
         <th>Lake table</th><th class=\"n\">Schema</th><th class=\"n\">Records</th><th>Copy</th><th>Last record</th>\
         </tr></thead><tbody>",
    );
    let mut sorted: Vec<&TableStatus> = snapshot.tables.iter().collect();
    // firn's own pseudo table last.
    sorted.sort_by_key(|table| (table.table.starts_with("firn."), table.table.as_str()));
    for table in sorted {
        let partitions = if table.partitions == 1 {
            String::new()
        } else {
            format!(" <span class=\"dim\">×{}</span>", table.partitions)
        };
        let version = match table.schema_version {
            0 => "–".to_owned(),
            version => format!("v{version}"),
        };
        let copy = match table.copied_rows {
            _ if table.dropped => "dropped at the source".to_owned(),
            Some(rows) if snapshot.state == AgentState::Copying => {
                format!("{} rows so far", count(rows))
            }
            Some(rows) => format!("{} rows", count(rows)),
            None => "done before".to_owned(),
        };
        let copy = if table.table.starts_with("firn.") {
            "–".to_owned()
        } else {
            copy
        };
        let last = table
            .last_record_ms
            .map_or_else(|| "–".to_owned(), |at_ms| ago(now_ms - at_ms));
        let _infallible = write!(
            out,
            "<tr><td class=\"name\">{}</td><td class=\"code\">{}{partitions}</td><td class=\"code\">{}</td>\
             <td class=\"n\">{version}</td><td class=\"n\">{}</td><td>{copy}</td><td>{last}</td></tr>",
            escape(&table.table),
            escape(&table.topic),
            escape(&table.lake_table),
            count(table.records)
        );
    }
    out.push_str("</tbody></table></div>");
    if !snapshot.not_captured.is_empty() {
        let _infallible = write!(
            out,
            "<p class=\"dim\">Not captured: {}</p>",
            escape(&snapshot.not_captured.join(", "))
        );
    }
    for table in &snapshot.tables {
        if let Some(problem) = &table.problem {
            let _infallible = write!(
                out,
                "<p class=\"warn\">{}: {}</p>",
                escape(&table.table),
                escape(problem)
            );
        }
    }
    out.push_str("</section>");
}

fn positions(out: &mut String, snapshot: &Snapshot, now_ms: i64) {
    let totals = &snapshot.totals;
    let rows = [
        ("Last committed change", snapshot.position.clone()),
        ("Slot acknowledged to", snapshot.acknowledged.to_string()),
        (
            "End of the source log",
            snapshot.slot.current_wal_lsn.to_string(),
        ),
        (
            "Slot",
            format!(
                "{} ({})",
                snapshot.slot.slot,
                known(&snapshot.slot.wal_status)
            ),
        ),
        ("Epoch", snapshot.epoch.to_string()),
        ("Sessions", count(totals.sessions)),
        ("Kafka transactions", count(totals.transactions)),
        ("Source transactions", count(totals.source_transactions)),
        ("Bytes to Kafka", bytes(totals.bytes)),
        ("Records by reference", count(totals.references)),
        ("Set aside (quarantine)", count(totals.quarantined)),
        (
            "Running for",
            duration(
                lossy(u64::try_from((now_ms - snapshot.started_ms).max(0)).unwrap_or(0)) / 1000.0,
            ),
        ),
    ];
    out.push_str("<section><h2>Positions and counts</h2><dl>");
    for (term, value) in rows {
        let class = if term.starts_with("Set aside") && totals.quarantined > 0 {
            " class=\"bad\""
        } else {
            ""
        };
        let _infallible = write!(
            out,
            "<div{class}><dt>{term}</dt><dd>{}</dd></div>",
            escape(&value)
        );
    }
    out.push_str(
        "</dl><p class=\"dim\"><a href=\"/metrics\">metrics</a> · <a href=\"/healthz\">health</a></p></section>",
    );
}

fn known(text: &str) -> &str {
    if text.is_empty() { "not there" } else { text }
}

fn ago(elapsed_ms: i64) -> String {
    let seconds = u64::try_from(elapsed_ms.max(0)).unwrap_or(0) / 1000;
    if seconds == 0 {
        "now".to_owned()
    } else {
        format!("{} ago", duration(lossy(seconds)))
    }
}

/// `12 345 678`.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = lossy(number);
    let mut unit = UNITS.iter();
    let mut name = unit.next().copied().unwrap_or("B");
    while value >= 1024.0 {
        let Some(next) = unit.next() else { break };
        value /= 1024.0;
        name = next;
    }
    if name == "B" {
        format!("{number} B")
    } else {
        format!("{value:.1} {name}")
    }
}

fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7_200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else if seconds < 172_800.0 {
        format!("{:.1} h", seconds / 3_600.0)
    } else {
        format!("{:.0} days", seconds / 86_400.0)
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(
            (bytes(512), bytes(1536)),
            ("512 B".to_owned(), "1.5 KiB".to_owned())
        );
        assert_eq!(
            (duration(0.25), duration(300.0)),
            ("0.2 s".to_owned(), "5 min".to_owned())
        );
    }

    #[test]
    fn names_are_escaped() {
        let config = Config::parse(
            "[source]\nname='s'\nhost='127.0.0.1'\nuser='u'\ndatabase='d<b>'\n[kafka]\nbootstrap_servers='k:1'\n\
             [lake]\nbucket='b'\ndatabase='d'\n",
        )
        .unwrap();
        let mut snapshot = Snapshot::default();
        snapshot.tables.push(TableStatus {
            table: "public.<t>".to_owned(),
            ..TableStatus::default()
        });
        snapshot.last_error = Some("a \"b\" & c".to_owned());
        let page = render(&config, &snapshot, 0);
        assert!(
            page.contains("public.&lt;t&gt;")
                && !page.contains("<t>")
                && page.contains("d&lt;b&gt;")
        );
        assert!(page.contains("a &quot;b&quot; &amp; c"));
    }
}
