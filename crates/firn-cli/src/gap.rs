//! `firn gap accept | recopy`: goes on without records that are missing, or with a new copy of the table in their place.

use table_commit::recopy::{CopyState, subject_of_gap};
use table_commit::{GapOutcome, TableName};

use crate::arguments::GapArguments;
use crate::desk::{CliError, Desk, NOT_DONE};

/// Asks for the copy first: an acceptance whose copy was forgotten would be a hole for good, a copy too many is none.
pub(crate) async fn recopy(desk: &mut Desk, asked: &GapArguments) -> Result<(), CliError> {
    let registration = desk.registration(&asked.topic).await?;
    let (table, place) = (TableName::of(&registration), asked.place());
    let stands = matches!(
        desk.committer.examine_gap(&table, &place).await?,
        GapOutcome::Stands { .. } | GapOutcome::AcceptedBefore(_)
    );
    if stands {
        let subject = subject_of_gap(&registration.topic, &place);
        let copy = match desk.operator(&asked.change)? {
            None => desk.committer.examine_copy(&registration, &subject).await?,
            Some(operator) => {
                let committer = desk.committer.clone();
                committer
                    .ask_for_copy(&registration, &subject, &operator)
                    .await?
            }
        };
        tell_copy(desk, &copy);
    }
    accept(desk, asked).await
}

fn tell_copy(desk: &mut Desk, copy: &CopyState) {
    match copy {
        CopyState::NotAsked { key, refused } => {
            if let Some(reason) = refused {
                desk.say(format!("the agent refused the copy before: {reason}"));
            }
            desk.say(format!("a new copy is asked for by {key}"));
        }
        CopyState::Asked { key } => desk.say(format!(
            "a new copy is asked for by {key}; the agent answers when it is announced"
        )),
        CopyState::Copied(answer) => desk.say(format!("a new copy is announced: {answer:?}")),
    }
}

pub(crate) async fn accept(desk: &mut Desk, asked: &GapArguments) -> Result<(), CliError> {
    let registration = desk.registration(&asked.topic).await?;
    let (table, place) = (TableName::of(&registration), asked.place());
    let outcome = match desk.operator(&asked.change)? {
        None => desk.committer.examine_gap(&table, &place).await?,
        Some(operator) => {
            let accepting = desk.committer.accept_gap(&table, &place, &operator);
            accepting.await?
        }
    };
    let partition = place.partition;
    desk.say(format!(
        "{table}, partition {partition} of {}",
        registration.topic
    ));
    match outcome {
        GapOutcome::Stands {
            slot_key,
            tail,
            after,
        } => {
            desk.say(format!(
                "  the gap stands: taken up to record {} before offset {}, found record {} at offset {}",
                tail.last_record(),
                tail.offset,
                place.found,
                place.offset
            ));
            desk.say(format!(
                "  accepting it wins slot {slot_key} and goes on at offset {} with record {}",
                after.offset, place.found
            ));
            desk.say("  the records in between are given up: they are dropped if they come after all");
            desk.say(format!("{NOT_DONE} --apply --why REASON"));
        }
        GapOutcome::Accepted { slot_key, after } => desk.say(format!(
            "  accepted by slot {slot_key}: the partition goes on at offset {} with record {}",
            after.offset, place.found
        )),
        GapOutcome::AcceptedBefore(operator) => desk.say(format!(
            "  it was accepted before, by {}: {}",
            operator.by, operator.why
        )),
        GapOutcome::Passed { tail } => desk.refuse(format!(
            "  the gap does not stand: the chain ends at {}:{} (incarnation:offset) behind record {}; see the newest line of \
             firn-ingest's log",
            tail.incarnation,
            tail.offset,
            tail.last_record()
        )),
        GapOutcome::NoGap => desk.refuse(format!(
            "  nothing is missing between record {} and record {}",
            place.covered, place.found
        )),
    }
    Ok(())
}
