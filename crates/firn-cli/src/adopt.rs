//! `firn adopt`: puts a dropped table back, or gives a table the state that it lost.

use change_event::TopicRegistration;
use table_commit::adopt::{Adoption, GivenState};
use table_commit::{AdoptOutcome, Frontier, TableName};

use crate::arguments::AdoptArguments;
use crate::desk::{CliError, Desk, NOT_DONE};

pub(crate) async fn run(desk: &mut Desk, asked: &AdoptArguments) -> Result<(), CliError> {
    let registration = desk.registration(&asked.table).await?;
    desk.say(TableName::of(&registration).to_string());
    let given = given(desk, &registration, asked).await?;
    let outcome = match desk.operator(&asked.change)? {
        None => {
            let examining = desk
                .committer
                .examine_adoption(&registration, given.as_ref());
            examining.await?
        }
        Some(operator) => {
            let adopting = desk
                .committer
                .adopt(&registration, given.as_ref(), &operator);
            adopting.await?
        }
    };
    match outcome {
        AdoptOutcome::Found(adoption) => {
            tell(desk, &adoption);
            desk.say(format!("{NOT_DONE} --apply --why REASON"));
        }
        AdoptOutcome::Adopted(adoption) => {
            tell(desk, &adoption);
            desk.say("  done: the next commit goes on from there");
        }
        AdoptOutcome::Dropped { metadata_location } => {
            desk.say(format!(
                "  it was dropped; {metadata_location} would be put back, and what was staged since is committed next"
            ));
            desk.say(format!("{NOT_DONE} --apply --why REASON"));
        }
        AdoptOutcome::PutBack { metadata_location } => {
            desk.say(format!("  done: the table is {metadata_location} again"));
        }
        AdoptOutcome::HasState => desk.say("  it has a state: nothing to do"),
        AdoptOutcome::NothingFound => desk.refuse(
            "  no snapshot says how far it is; give what you know with --frontier and --schema-version",
        ),
        AdoptOutcome::NotOurs { column } => desk.refuse(format!(
            "  it was not made by firn: column {column} is not there; rename it, or capture into another name"
        )),
    }
    Ok(())
}

async fn given(
    desk: &Desk,
    registration: &TopicRegistration,
    asked: &AdoptArguments,
) -> Result<Option<GivenState>, CliError> {
    let Some(version) = asked.schema_version.filter(|_| !asked.frontier.is_empty()) else {
        return Ok(None);
    };
    let document = desk.registry.document(registration, version).await?;
    let document = document.ok_or_else(|| CliError::NoDocument {
        topic: registration.topic.clone(),
        version,
    })?;
    let partitions = asked.frontier.iter().map(|given| {
        let frontier = Frontier {
            offset: given.offset,
            epoch: given.epoch,
            pseq: given.pseq,
            ..Frontier::start(given.incarnation)
        };
        (given.partition, frontier)
    });
    Ok(Some(GivenState {
        partitions: partitions.collect(),
        document,
    }))
}

fn tell(desk: &mut Desk, adoption: &Adoption) {
    match adoption.snapshot_id {
        Some(id) => desk.say(format!(
            "  snapshot {id} is the newest that says how far it is:"
        )),
        None => desk.say("  as given:"),
    }
    for (partition, frontier) in &adoption.state.partitions {
        desk.say(format!(
            "  partition {partition} goes on behind {}:{} (incarnation:offset), record {}",
            frontier.incarnation,
            frontier.offset,
            frontier.last_record()
        ));
    }
}
