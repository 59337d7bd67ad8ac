//! `firn rebuild`: builds a table anew from its topic beside the one that stands, and swaps it in.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use change_event::{Clock, IdSource, RandomIds, SystemClock, TopicRegistration};
use ingest::Rebuilder;
use object_io::ObjectStore;
use table_commit::{Former, Frontier, Operator, SwapIn, TableName};

use crate::arguments::RebuildArguments;
use crate::desk::{CliError, Desk, NOT_DONE};
use crate::topic::{Extent, TopicReader};

/// Times that partitions may come in between before a person is asked.
const TRIES_MAX: u32 = 5;

pub(crate) async fn run(
    desk: &mut Desk,
    store: &Arc<dyn ObjectStore>,
    asked: &RebuildArguments,
) -> Result<(), CliError> {
    let registration = desk.registration(&asked.table).await?;
    let (former, plan) = desk.committer.examine_rebuild(&registration).await?;
    let mut reader = TopicReader::open(&asked.kafka, &registration.topic)?;
    tell(desk, &registration, &former, &reader.extents()?);
    if let Some(plan) = &plan {
        let by = &plan.operator.by;
        let ago = desk.ago(plan.planned_ms);
        desk.say(format!(
            "  {by} began to rebuild it {ago} ago; that is gone on with"
        ));
    }
    let Some(operator) = desk.operator(&asked.change)? else {
        desk.say(format!("{NOT_DONE} --apply --why REASON"));
        return Ok(());
    };
    for _ in 0..TRIES_MAX {
        let registration = desk.registration(&asked.table).await?;
        let swapped = once(
            desk,
            store,
            (&registration, &former),
            &mut reader,
            &operator,
        )
        .await?;
        match swapped {
            SwapIn::Stands { metadata_location } => {
                desk.say(format!("  done: the table is {metadata_location}"));
                desk.say(format!(
                    "  its former files stay; when nobody reads them any more, and no sooner than a day from now, remove \
                     control/i/{}/ (until then a function may still stage there, and only the seals say no)",
                    former.uuid
                ));
                return Ok(());
            }
            SwapIn::NothingBuilt => {
                desk.refuse("  the topic holds nothing that makes a table; nothing is changed");
                return Ok(());
            }
            SwapIn::MorePartitions => {
                progress("partitions were added meanwhile: once more");
                reader = TopicReader::open(&asked.kafka, &registration.topic)?;
            }
        }
    }
    desk.refuse("  partitions came in between each time; run it again");
    Ok(())
}

fn tell(
    desk: &mut Desk,
    registration: &TopicRegistration,
    former: &Former,
    extents: &BTreeMap<i32, Extent>,
) {
    desk.say(TableName::of(registration).to_string());
    let what = if former.is_dropped() {
        "was dropped"
    } else {
        "stands, and is read as it is until the new one takes its place"
    };
    desk.say(format!("  the table {} {what}", former.uuid));
    for (partition, Extent { first, end }) in extents {
        desk.say(format!(
            "  partition {partition} of {} holds offsets {first} to {end}",
            registration.topic
        ));
    }
    if extents.values().any(|extent| extent.first > 0) {
        desk.say(
            "  the topic does not begin at its beginning: what its retention removed would not be in the new table, and \
             the first record behind it is refused as a gap",
        );
    }
}

/// Stages the topic for the draft, seals the chains of the standing table, stages what came meanwhile, swaps.
async fn once(
    desk: &Desk,
    store: &Arc<dyn ObjectStore>,
    (registration, former): (&TopicRegistration, &Former),
    reader: &mut TopicReader,
    operator: &Operator,
) -> Result<SwapIn, CliError> {
    let committer = &desk.committer;
    let plan = committer.plan_rebuild(former, operator).await?;
    let draft = committer.draft(former, &plan)?;
    let ports: (Arc<dyn Clock>, Arc<dyn IdSource>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let rebuilder = Rebuilder::new(
        draft.clone(),
        registration.clone(),
        Arc::clone(store),
        ports,
    );
    stage(reader, &rebuilder).await?;
    progress("the chains of the standing table are sealed; what came meanwhile follows");
    let ends: BTreeMap<u32, Frontier> = committer.seal(registration, former, &plan).await?;
    stage(reader, &rebuilder).await?;
    let Some((table, _)) = rebuilder.combine().await? else {
        return Ok(SwapIn::NothingBuilt);
    };
    committer.check_rebuilt(&table, &ends).await?;
    let name = TableName::of(registration);
    Ok(committer
        .swap_in(&name, former, (&draft, &ends), operator)
        .await?)
}

async fn stage(reader: &mut TopicReader, rebuilder: &Rebuilder) -> Result<(), CliError> {
    let (mut records, mut rows) = (0, 0);
    reader
        .read(async |payload: Vec<u8>, count: usize| {
            rows += rebuilder.take(&payload).await?;
            records += count;
            progress(&format!("{records} records read, {rows} rows staged"));
            Ok::<(), CliError>(())
        })
        .await?;
    rebuilder.combine().await?;
    Ok(())
}

/// Said at once: a long topic takes its time. Nobody is left to be told if standard error is gone.
fn progress(line: &str) {
    let _told = writeln!(std::io::stderr(), "{line}");
}
