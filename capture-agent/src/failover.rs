//! Whether the server that answers goes on with the log that progress speaks of: the same server, or a promoted standby.
//!
//! Flow: `session` (progress, `IDENTIFY_SYSTEM`) -> **here**, with `TIMELINE_HISTORY` where the timeline rose -> where to go on.
//!
//! A promotion ends the old timeline at its switch point: what lies before is the log of both servers, what lies behind is
//! another one. So a position before the switch point keeps its incarnation and one behind it gets the next: a change that
//! is sent again has the position it had, and a new one sorts behind all of them.
//!
//! # Invariants
//! - The incarnation rises only once our last change was found at or before the switch point; no match is Halt.
//! - Of the log behind the switch point nothing counts as handed over, though the old server said it held no row of ours.
//!
//! # Source
//! PostgreSQL manual, "Streaming Replication Protocol" (`TIMELINE_HISTORY`) and "Timelines"; `timeline.c`: a line per former
//! timeline, with the position at which the next one began.

use source_postgres::Connection;
use source_postgres::client::{SystemIdentity, TimelineSwitch};

use crate::error::AgentError;
use crate::progress::{PastLog, PositionRecord};

/// The position from which this server goes on: as it is, or under the next incarnation.
///
/// # Errors
/// [`AgentError::SourceChanged`], [`AgentError::SourceDiverged`] (Halt); [`AgentError::SourceInRecovery`] (Retry);
/// [`AgentError::Source`].
pub(crate) async fn followed(
    source_name: &str,
    position: &PositionRecord,
    identity: &SystemIdentity,
    replication: &mut Connection,
) -> Result<PositionRecord, AgentError> {
    same_system(source_name, position, identity)?;
    if identity.in_recovery {
        return Err(AgentError::SourceInRecovery {
            source_name: source_name.to_owned(),
        });
    }
    if identity.timeline == position.timeline && position.past.is_empty() {
        return Ok(position.clone());
    }
    // Two standbys that are promoted side by side may give their timelines the same number.
    let history = match identity.timeline {
        1 => Vec::new(),
        timeline => replication.timeline_history(timeline).await?,
    };
    let next = follow(source_name, position, identity, &history)?;
    if next.incarnation > position.incarnation {
        tracing::warn!(
            from_timeline = position.timeline,
            timeline = next.timeline,
            incarnation = next.incarnation,
            from = %next.end_lsn,
            "the source was switched over to a promoted standby, and its log goes on from ours"
        );
    }
    Ok(next)
}

fn same_system(
    source_name: &str,
    position: &PositionRecord,
    identity: &SystemIdentity,
) -> Result<(), AgentError> {
    if position.system_id == identity.system_id {
        return Ok(());
    }
    Err(AgentError::SourceChanged {
        source_name: source_name.to_owned(),
        what: "system identifier",
        expected: position.system_id.clone(),
        found: identity.system_id.clone(),
    })
}

fn follow(
    source_name: &str,
    position: &PositionRecord,
    identity: &SystemIdentity,
    history: &[TimelineSwitch],
) -> Result<PositionRecord, AgentError> {
    let changed = |what, expected: String, found: String| AgentError::SourceChanged {
        source_name: source_name.to_owned(),
        what,
        expected,
        found,
    };
    let until = |timeline: u32| {
        let switch = history.iter().find(|switch| switch.timeline == timeline);
        switch.map(|switch| switch.until)
    };
    for past in &position.past {
        if until(past.timeline) != Some(past.until) {
            let found = until(past.timeline).map_or("none".to_owned(), |lsn| lsn.to_string());
            let expected = past.until.to_string();
            return Err(changed("switch point of its timelines", expected, found));
        }
    }
    if identity.timeline == position.timeline {
        return Ok(position.clone());
    }
    let Some(until) = until(position.timeline).filter(|_| identity.timeline > position.timeline)
    else {
        let (expected, found) = (position.timeline.to_string(), identity.timeline.to_string());
        return Err(changed("timeline", expected, found));
    };
    // A commit record that begins before the switch point lies before it whole. A copy's position is no record.
    let shared =
        position.commit_lsn < until || (position.ordinal == 0 && position.commit_lsn == until);
    if !shared {
        return Err(AgentError::SourceDiverged {
            source_name: source_name.to_owned(),
            timeline: position.timeline,
            position: position.commit_lsn,
            until,
        });
    }
    let mut next = position.clone();
    next.past.push(PastLog {
        timeline: position.timeline,
        incarnation: position.incarnation,
        until,
    });
    next.timeline = identity.timeline;
    next.incarnation += 1;
    next.end_lsn = position.end_lsn.min(until);
    Ok(next)
}

#[cfg(test)]
mod tests {
    use change_event::{Lsn, Position};

    use super::*;

    fn position(commit_lsn: u64, ordinal: u64, end_lsn: u64) -> PositionRecord {
        PositionRecord {
            system_id: "7".to_owned(),
            timeline: 1,
            incarnation: 1,
            past: Vec::new(),
            commit_lsn: Lsn(commit_lsn),
            ordinal,
            end_lsn: Lsn(end_lsn),
            epoch: 4,
            copy_id: 1,
        }
    }

    fn server(timeline: u32) -> SystemIdentity {
        SystemIdentity {
            in_recovery: false,
            system_id: "7".to_owned(),
            timeline,
            flush_lsn: Lsn(500),
            database: "shop".to_owned(),
        }
    }

    fn switch(timeline: u32, until: u64) -> TimelineSwitch {
        TimelineSwitch {
            timeline,
            until: Lsn(until),
        }
    }

    #[test]
    fn last_change_before_the_switch_point_goes_on_under_the_next_incarnation() {
        // The old server had said that up to 120 nothing more is ours; the log goes another way from 100 on.
        let next = follow("shop", &position(90, 3, 120), &server(2), &[switch(1, 100)]).unwrap();
        assert_eq!(
            (next.timeline, next.incarnation, next.end_lsn),
            (2, 2, Lsn(100))
        );
        assert_eq!(next.position(), Position::stream(1, Lsn(90), 3));
        assert_eq!(
            next.position_of(Lsn(99), 1),
            Position::stream(1, Lsn(99), 1)
        );
        assert_eq!(
            next.position_of(Lsn(100), 1),
            Position::stream(2, Lsn(100), 1)
        );
        // And the same again, from what progress then says.
        let history = [switch(1, 100)];
        assert_eq!(follow("shop", &next, &server(2), &history).unwrap(), next);
        let mut later = next.clone();
        later.commit_lsn = Lsn(150);
        let history = [switch(1, 100), switch(2, 200), switch(3, 210)];
        let third = follow("shop", &later, &server(4), &history).unwrap();
        let incarnations =
            [99, 100, 199, 200].map(|lsn| third.position_of(Lsn(lsn), 1).incarnation);
        assert_eq!(incarnations, [1, 2, 2, 3]);
    }

    #[test]
    fn copy_that_ends_at_the_switch_point_goes_on() {
        let history = [switch(1, 100)];
        assert!(follow("shop", &position(100, 0, 100), &server(2), &history).is_ok());
    }

    #[test]
    fn change_behind_the_switch_point_halts_with_words() {
        for commit_lsn in [100, 101] {
            let behind = position(commit_lsn, 1, 120);
            let error = follow("shop", &behind, &server(2), &[switch(1, 100)]).unwrap_err();
            assert!(
                matches!(error, AgentError::SourceDiverged { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("Source failed over"), "{error}");
        }
    }

    #[test]
    fn another_branch_of_the_log_halts() {
        let mut switched = position(90, 3, 95);
        switched.timeline = 2;
        switched.incarnation = 2;
        switched.past.push(PastLog {
            timeline: 1,
            incarnation: 1,
            until: Lsn(80),
        });
        // Back to the old server; a timeline that ours is no part of; a second standby with a timeline of the same number.
        let others = [
            (server(1), vec![]),
            (server(3), vec![switch(1, 80)]),
            (server(2), vec![switch(1, 85)]),
        ];
        for (identity, history) in others {
            let error = follow("shop", &switched, &identity, &history).unwrap_err();
            assert!(matches!(error, AgentError::SourceChanged { .. }), "{error}");
        }
        assert!(follow("shop", &switched, &server(2), &[switch(1, 80)]).is_ok());
    }
}
