//! A table is built anew from its topic and swapped in, while functions are at work.

use std::collections::BTreeMap;
use std::sync::Arc;

use change_event::{Clock, IdSource, TopicRegistration};
use functions::{TopicWriter, World, event};
use ingest::Rebuilder;
use object_io::ObjectStore;
use serde_json::Value;
use table_commit::{CommitError, Draft, Former, Frontier, Operator, Plan, SwapIn, TableName};
use test_kit::SeededIds;

/// An operator at work on the table `orders`.
struct Surgery<'a> {
    world: &'a World,
    registration: TopicRegistration,
    former: Former,
    plan: Plan,
    draft: Draft,
    rebuilder: Rebuilder,
}

fn ada() -> Operator {
    Operator {
        by: "ada".to_owned(),
        why: "a column was dropped in the lake".to_owned(),
    }
}

impl<'a> Surgery<'a> {
    /// Begins, or goes on with what another began.
    async fn begin(world: &'a World, seed: u64) -> Self {
        let registration = world.registration("orders").await;
        let committer = &world.committer;
        let (former, _) = committer.examine_rebuild(&registration).await.unwrap();
        let plan = committer.plan_rebuild(&former, &ada()).await.unwrap();
        let draft = committer.draft(&former, &plan).unwrap();
        let rebuilder = Rebuilder::new(
            draft.clone(),
            registration.clone(),
            Arc::clone(&world.store) as Arc<dyn ObjectStore>,
            (
                Arc::clone(&world.clock) as Arc<dyn Clock>,
                Arc::new(SeededIds::new(seed)) as Arc<dyn IdSource>,
            ),
        );
        Self {
            world,
            registration,
            former,
            plan,
            draft,
            rebuilder,
        }
    }

    async fn take(&self, records: &[Value]) {
        self.rebuilder.take(&event(records)).await.unwrap();
        self.rebuilder.combine().await.unwrap();
    }

    async fn seal(&self) -> BTreeMap<u32, Frontier> {
        let committer = &self.world.committer;
        let sealing = committer.seal(&self.registration, &self.former, &self.plan);
        sealing.await.unwrap()
    }

    async fn check(&self, ends: &BTreeMap<u32, Frontier>) -> Result<(), CommitError> {
        let (table, _) = self.rebuilder.combine().await.unwrap().unwrap();
        self.world.committer.check_rebuilt(&table, ends).await
    }

    async fn swap(&self, ends: &BTreeMap<u32, Frontier>) -> Result<SwapIn, CommitError> {
        let name = TableName::of(&self.registration);
        let (built, operator) = ((&self.draft, ends), ada());
        let committer = &self.world.committer;
        committer
            .swap_in(&name, &self.former, built, &operator)
            .await
    }
}

async fn ids(world: &World) -> Vec<String> {
    let mut ids = world.ids_in("orders").await;
    ids.sort();
    ids
}

fn stands(swapped: &SwapIn) -> bool {
    matches!(swapped, SwapIn::Stands { .. })
}

#[tokio::test]
async fn rebuilt_table_has_every_change_once_while_a_warm_function_stages_for_the_old_one() {
    let world = World::new();
    let topic = world.announce("orders", 2, 0).await;
    let [mut one, mut two] = [0, 1].map(|partition| TopicWriter::new(&topic, partition));
    let ingest = world.ingest();
    let mut log = vec![one.insert(1, "a"), two.insert(2, "a"), one.insert(3, "a")];
    assert_eq!(world.deliver(&ingest, &log).await, []);
    let old = world.table("orders").await.metadata.uuid();

    let surgery = Surgery::begin(&world, 99).await;
    surgery.take(&log).await;
    // The old table goes on meanwhile.
    log.push(one.insert(4, "a"));
    assert_eq!(world.deliver(&ingest, &log[3..]).await, []);
    let ends = surgery.seal().await;
    let late = [two.insert(5, "a"), one.insert(6, "a")];
    assert_eq!(
        world.deliver(&ingest, &late).await.len(),
        2,
        "sealed chains take nothing"
    );
    assert_eq!(ids(&world).await, ["1", "2", "3", "4"]);
    assert_eq!(world.table("orders").await.metadata.uuid(), old);
    assert!(
        matches!(
            surgery.check(&ends).await,
            Err(CommitError::RebuiltTooLittle { partition: 0, .. })
        ),
        "what was taken meanwhile is not in the draft yet"
    );
    surgery.take(&log).await;
    surgery.check(&ends).await.unwrap();
    assert!(stands(&surgery.swap(&ends).await.unwrap()));

    assert_ne!(world.table("orders").await.metadata.uuid(), old);
    assert_eq!(ids(&world).await, ["1", "2", "3", "4"]);
    // The same function, still warm: it may stage for the old table once more, is refused, and looks again.
    let _again = world.deliver(&ingest, &late).await;
    assert_eq!(world.deliver(&ingest, &late).await, []);
    // What was acknowledged before comes once more.
    assert_eq!(world.deliver(&world.ingest(), &log).await, []);
    assert_eq!(ids(&world).await, ["1", "2", "3", "4", "5", "6"]);
    let acts = table_commit::act::acts(&world.table("orders").await.metadata);
    assert!(
        acts.iter()
            .any(|act| act.kind.words() == format!("rebuilt in the place of {old}"))
    );
}

#[tokio::test]
async fn interrupted_rebuild_is_gone_on_with_by_who_comes_next() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let log = [agent.insert(1, "a"), agent.insert(2, "a")];
    assert_eq!(world.deliver(&world.ingest(), &log).await, []);
    let first = Surgery::begin(&world, 98).await;
    first.take(&log[..1]).await;
    let sealed = first.seal().await;

    let second = Surgery::begin(&world, 99).await;
    assert_eq!(second.plan, first.plan);
    let ends = second.seal().await;
    assert_eq!(ends, sealed);
    second.take(&log).await;
    second.check(&ends).await.unwrap();
    assert!(stands(&second.swap(&ends).await.unwrap()));
    // The first wakes up, with less: what they both built stands, and is left as it is, commits on it too.
    let third = [agent.insert(3, "a")];
    assert_eq!(world.deliver(&world.ingest(), &third).await, []);
    assert!(stands(&first.swap(&sealed).await.unwrap()));
    assert_eq!(ids(&world).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn dropped_table_is_rebuilt() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let log = [agent.insert(1, "a"), agent.insert(2, "a")];
    let ingest = world.ingest();
    assert_eq!(world.deliver(&ingest, &log).await, []);
    world.drop_table("orders");
    let surgery = Surgery::begin(&world, 99).await;
    assert!(surgery.former.is_dropped());
    let ends = surgery.seal().await;
    surgery.take(&log).await;
    surgery.check(&ends).await.unwrap();
    assert!(stands(&surgery.swap(&ends).await.unwrap()));
    let more = [agent.insert(3, "a")];
    // The warm function stages for the dropped table first, is refused, and looks again.
    assert_eq!(world.deliver(&ingest, &more).await.len(), 1);
    assert_eq!(world.deliver(&ingest, &more).await, []);
    assert_eq!(ids(&world).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn partition_that_came_after_the_seals_is_not_left_behind() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let [mut one, mut two] = [0, 1].map(|partition| TopicWriter::new(&topic, partition));
    let mut log = vec![one.insert(1, "a")];
    assert_eq!(world.deliver(&world.ingest(), &log).await, []);
    let surgery = Surgery::begin(&world, 99).await;
    surgery.take(&log).await;
    let ends = surgery.seal().await;
    world.raise(&topic, 2).await;
    let new = [two.insert(2, "a")];
    assert_eq!(
        world.deliver(&world.ingest(), &new).await,
        [],
        "a chain that is not sealed takes it"
    );
    assert_eq!(surgery.swap(&ends).await.unwrap(), SwapIn::MorePartitions);

    let again = Surgery::begin(&world, 98).await;
    let ends = again.seal().await;
    assert_eq!(ends.len(), 2);
    log.extend([one.barrier(2), new[0].clone()]);
    again.take(&log).await;
    again.check(&ends).await.unwrap();
    assert!(stands(&again.swap(&ends).await.unwrap()));
    assert_eq!(ids(&world).await, ["1", "2"]);
}
