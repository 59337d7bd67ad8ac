//! `firn status` and `firn check`: how tables stand.

use change_event::{Disposition, TopicRegistration};
use table_commit::inspect::FoundReport;
use table_commit::{PartitionReport, TableReport};

use crate::arguments::Subjects;
use crate::desk::{CliError, Desk, words};

/// Slots of a partition that are walked for a status.
const STATUS_SLOTS: usize = 1_000;

/// Says how the tables stand; with `closely`, every staged slot and file is looked at and trouble ends the command with 1.
pub(crate) async fn run(desk: &mut Desk, asked: &Subjects, closely: bool) -> Result<(), CliError> {
    let topics = if asked.subjects.is_empty() {
        desk.registry.topics().await?
    } else {
        asked.subjects.clone()
    };
    if topics.is_empty() {
        desk.say("no topic is registered: no agent has announced one");
    }
    for name in topics {
        let registration = match desk.registration(&name).await {
            Ok(registration) => registration,
            Err(error) => {
                desk.refuse(format!("{name}\n  TROUBLE {}", words(&error)));
                continue;
            }
        };
        let limit = if closely { usize::MAX } else { STATUS_SLOTS };
        let report = desk.committer.inspect(&registration, limit, closely).await;
        tell(desk, &report, closely);
        tell_copies(desk, &registration).await?;
    }
    Ok(())
}

fn tell(desk: &mut Desk, report: &TableReport, closely: bool) {
    desk.say(format!("{}  (topic {})", report.table, report.topic));
    match &report.found {
        Some(found) => tell_found(desk, found),
        None if report.troubles.is_empty() => {
            desk.say("  no table yet: its first record makes it");
        }
        None => {}
    }
    for trouble in &report.troubles {
        let kind = match trouble.disposition() {
            Disposition::Halt => "HALT",
            Disposition::Retry
            | Disposition::Refresh
            | Disposition::Verify
            | Disposition::Quarantine => "TROUBLE",
        };
        let line = format!("  {kind} {}", words(trouble));
        if closely {
            desk.refuse(line);
        } else {
            desk.say(line);
        }
    }
}

/// Says which new copies the agent was asked for and has not announced.
async fn tell_copies(desk: &mut Desk, registration: &TopicRegistration) -> Result<(), CliError> {
    for open in desk.committer.open_copies(registration).await? {
        let (ago, by) = (
            desk.ago(open.request.requested_ms),
            &open.request.requested_by,
        );
        desk.say(format!(
            "  a new copy was asked for {ago} ago by {by}, and is not announced yet ({})",
            open.key
        ));
    }
    Ok(())
}

fn tell_found(desk: &mut Desk, found: &FoundReport) {
    let (table, state) = (&found.table, &found.table.state);
    let committed = match state.committed_ms {
        0 => "nothing committed yet".to_owned(),
        ms => format!("committed {} ago", desk.ago(ms)),
    };
    desk.say(format!(
        "  {committed}, every {} s; schema version {}",
        table.freshness_seconds(),
        state.schema_version
    ));
    for partition in &found.partitions {
        let line = partition_line(desk, partition);
        desk.say(line);
    }
    for act in &found.acts {
        let (ago, what) = (desk.ago(act.at_ms), act.kind.words());
        let operator = &act.operator;
        desk.say(format!(
            "  {ago} ago, {}: {what} ({})",
            operator.by, operator.why
        ));
    }
}

fn partition_line(desk: &Desk, report: &PartitionReport) -> String {
    let frontier = &report.frontier;
    let accepted = match frontier.gaps_accepted {
        0 => String::new(),
        1 => ", 1 gap accepted".to_owned(),
        count => format!(", {count} gaps accepted"),
    };
    let staged = match report.oldest_ms {
        None => "nothing staged".to_owned(),
        Some(oldest_ms) => {
            let (count, rows) = (report.staged_count, report.staged_rows);
            let more = if report.at_end { "" } else { " and more" };
            let age = desk.ago(oldest_ms);
            format!("{count}{more} staged, {rows} rows, the oldest {age} ago")
        }
    };
    format!(
        "  partition {}: committed to {}:{} (incarnation:offset), record {} (epoch:number){accepted}; {staged}",
        report.partition,
        frontier.incarnation,
        frontier.offset,
        frontier.last_record()
    )
}
