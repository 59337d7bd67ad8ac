//! `firn rollback accept | replay`: makes the state of a table and its head one again.

use table_commit::{ReplayRefusal, Rollback, RollbackOutcome, TableName};

use crate::arguments::RollbackCommand;
use crate::desk::{CliError, Desk, NOT_DONE};

pub(crate) async fn run(desk: &mut Desk, command: &RollbackCommand) -> Result<(), CliError> {
    let (RollbackCommand::Accept(asked) | RollbackCommand::Replay(asked)) = command;
    let table = TableName::of(&desk.registration(&asked.table).await?);
    desk.say(table.to_string());
    let operator = desk.operator(&asked.change)?;
    let (Some(operator), Some(head)) = (operator, asked.head) else {
        return look(desk, &table, command).await;
    };
    let outcome = match command {
        RollbackCommand::Accept(_) => {
            let settling = desk.committer.accept_rollback(&table, head, &operator);
            settling.await?
        }
        RollbackCommand::Replay(_) => {
            let settling = desk.committer.replay_rollback(&table, head, &operator);
            settling.await?
        }
    };
    match outcome {
        RollbackOutcome::Settled => desk.say(format!(
            "  done: the state belongs to head {head}, and the next commit goes on from there"
        )),
        RollbackOutcome::NotRolledBack => desk.say("  it is not rolled back: nothing to do"),
        RollbackOutcome::HeadMoved { head: now } => desk.refuse(format!(
            "  nothing is done: its head is {now} by now, not {head}; look again"
        )),
        RollbackOutcome::HeadIsAhead => desk.refuse(HEAD_IS_AHEAD),
        RollbackOutcome::NoReplay(refusal) => refuse_replay(desk, &refusal),
    }
    Ok(())
}

async fn look(
    desk: &mut Desk,
    table: &TableName,
    command: &RollbackCommand,
) -> Result<(), CliError> {
    let Some(found) = desk.committer.examine_rollback(table).await? else {
        desk.say("  it is not rolled back: nothing to do");
        return Ok(());
    };
    let Rollback {
        state,
        head,
        head_is_ahead,
        replay,
    } = found;
    desk.say(format!(
        "  its state belongs to snapshot {state}, its head is {head}"
    ));
    match (command, replay) {
        (RollbackCommand::Accept(_), _) if head_is_ahead => {
            desk.refuse(HEAD_IS_AHEAD);
            return Ok(());
        }
        (RollbackCommand::Accept(_), _) => desk.say(
            "  accepting keeps away what was rolled back: the table goes on from its head with what comes next",
        ),
        (RollbackCommand::Replay(_), Err(refusal)) => {
            refuse_replay(desk, &refusal);
            return Ok(());
        }
        (RollbackCommand::Replay(_), Ok(replay)) => {
            desk.say(format!(
                "  a replay combines {} staged batches with {} rows once more:",
                replay.intent_count, replay.row_count
            ));
            for (partition, frontier) in &replay.partitions {
                desk.say(format!(
                    "  partition {partition} goes on behind {}:{} (incarnation:offset), record {}",
                    frontier.incarnation,
                    frontier.offset,
                    frontier.last_record()
                ));
            }
        }
    }
    desk.say(format!("{NOT_DONE} --head {head} --apply --why REASON"));
    Ok(())
}

const HEAD_IS_AHEAD: &str = "  its head holds rows that the state does not cover: accepting would bring them twice; \
                             `firn rollback replay` sets the state to what the head holds";

fn refuse_replay(desk: &mut Desk, refusal: &ReplayRefusal) {
    let instead = match refusal {
        ReplayRefusal::TooEarly { .. } => "try again then",
        ReplayRefusal::NoState
        | ReplayRefusal::SlotGone { .. }
        | ReplayRefusal::FileGone { .. } => "set the head forward again, or `firn rollback accept`",
    };
    desk.refuse(format!("  there is no replay: {refusal}; {instead}"));
}
