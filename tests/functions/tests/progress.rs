//! Redelivery, overlap, gaps, fencing, partial failure, the end of time.

use change_event::Predecessor;
use function_kit::Metric;
use functions::{TopicWriter, World, event};
use table_commit::{AdoptOutcome, CommitError, GapOutcome, GapPlace, Operator, TableName};

#[tokio::test]
async fn redelivered_batch_adds_nothing() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let records = [agent.insert(1, "a"), agent.insert(2, "b")];
    for ingest in [world.ingest(), world.ingest()] {
        assert_eq!(world.deliver(&ingest, &records).await, []);
        assert_eq!(world.deliver(&ingest, &records).await, []);
    }
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
    assert_eq!(world.sum(Metric::IntentsTotal), 1);
    assert_eq!(world.sum(Metric::DuplicatesTotal), 6);
}

#[tokio::test]
async fn overlapping_batches_of_two_writers_give_each_row_once() {
    let world = World::new();
    let topic = world.announce("orders", 1, 3600).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let records: Vec<_> = (0..9).map(|id| agent.insert(id, "x")).collect();
    // Two warm functions that know nothing of each other.
    let (one, other) = (world.ingest(), world.ingest());
    assert_eq!(world.deliver(&one, &records[0..3]).await, []);
    assert_eq!(world.deliver(&other, &records[1..5]).await, []);
    assert_eq!(world.deliver(&one, &records[2..7]).await, []);
    assert_eq!(world.deliver(&other, &records[0..9]).await, []);
    world.commit(r#"{"sweep":true}"#).await;
    let expected: Vec<_> = (0..9).map(|id| id.to_string()).collect();
    assert_eq!(world.ids_in("orders").await, expected);
}

#[tokio::test]
async fn batches_that_warm_functions_take_in_turns_have_no_gap() {
    let world = World::new();
    let topic = world.announce("orders", 1, 3600).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let (one, other) = (world.ingest(), world.ingest());
    for id in 0..6 {
        let ingest = if id % 3 == 0 { &one } else { &other };
        assert_eq!(world.deliver(ingest, &[agent.insert(id, "x")]).await, []);
    }
    assert_eq!(world.sum(Metric::GapsTotal), 0);
    world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(world.ids_in("orders").await.len(), 6);
}

#[tokio::test]
async fn gap_fails_its_partition_from_the_gap_on_and_no_other() {
    let world = World::new();
    let topic = world.announce("orders", 2, 0).await;
    let (mut agent, mut neighbour) = (TopicWriter::new(&topic, 0), TopicWriter::new(&topic, 1));
    let first = agent.insert(1, "a");
    let missing = agent.insert(2, "b");
    let behind = agent.insert(3, "c");
    let other = neighbour.insert(4, "d");
    let ingest = world.ingest();
    let failed = world
        .deliver(&ingest, &[first, behind.clone(), other])
        .await;
    assert_eq!(failed, [(format!("{topic}-0"), 2)]);
    assert_eq!(world.ids_in("orders").await.len(), 2);
    assert_eq!(world.sum(Metric::GapsTotal), 1);
    assert_eq!(world.sum(Metric::HaltsTotal), 1);
    // What was missing comes after all.
    assert_eq!(world.deliver(&ingest, &[missing, behind]).await, []);
    assert_eq!(world.ids_in("orders").await.len(), 4);
}

#[tokio::test]
async fn offsets_reset_to_latest_are_a_gap_and_to_earliest_double_nothing() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let all = [1, 2, 3, 4].map(|id| agent.insert(id, "a"));
    assert_eq!(world.deliver(&world.ingest(), &all[..2]).await, []);
    // A consumer group made anew, at the end; the function knows nothing.
    let failed = world.deliver(&world.ingest(), &all[3..]).await;
    assert_eq!(failed, [(format!("{topic}-0"), 3)]);
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
    assert_eq!(world.sum(Metric::GapsTotal), 1);
    // And one at the beginning.
    assert_eq!(world.deliver(&world.ingest(), &all).await, []);
    assert_eq!(world.ids_in("orders").await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn gap_is_passed_when_an_operator_accepted_it() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let first = agent.insert(1, "a");
    let missing = agent.insert(2, "b");
    let behind = [agent.insert(3, "c"), agent.insert(4, "d")];
    let ingest = world.ingest();
    world.deliver(&ingest, &[first]).await;
    assert_eq!(
        world.deliver(&ingest, &behind).await,
        [(format!("{topic}-0"), 2)]
    );
    let place = GapPlace {
        partition: 0,
        incarnation: 1,
        offset: 2,
        covered: Predecessor { epoch: 1, pseq: 1 },
        found: Predecessor { epoch: 1, pseq: 3 },
    };
    let operator = Operator {
        by: "ada".to_owned(),
        why: "it is gone".to_owned(),
    };
    let table = world.table("orders").await.name;
    let accepting = world.committer.accept_gap(&table, &place, &operator);
    assert!(matches!(
        accepting.await.unwrap(),
        GapOutcome::Accepted { .. }
    ));
    // The function is as warm as it was.
    assert_eq!(world.deliver(&ingest, &behind).await, []);
    assert_eq!(world.deliver(&ingest, &[missing]).await, []);
    assert_eq!(world.ids_in("orders").await, ["1", "3", "4"]);
    assert_eq!(world.sum(Metric::GapsTotal), 1);
}

#[tokio::test]
async fn fenced_agent_and_aborted_attempt_are_dropped() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let first = agent.insert(1, "a");
    // An attempt that was aborted, read all the same, and done again by the next epoch.
    let mut aborted = agent.clone();
    let lost = aborted.insert(2, "b");
    agent.restart();
    agent.offset = aborted.offset;
    let again = agent.insert(2, "b");
    let next = agent.insert(3, "c");
    let mut zombie = aborted.clone();
    zombie.offset = agent.offset;
    let late = zombie.insert(9, "z");
    let records = [first, lost, again, next, late];
    assert_eq!(world.deliver(&world.ingest(), &records).await, []);
    assert_eq!(world.ids_in("orders").await, ["1", "2", "3"]);
    assert_eq!(world.sum(Metric::GapsTotal), 0);
}

#[tokio::test]
async fn silent_store_fails_the_partition_that_needs_it_only() {
    let world = World::new();
    let (orders, items) = (
        world.announce("orders", 1, 0).await,
        world.announce("items", 1, 0).await,
    );
    let (mut agent, mut other) = (TopicWriter::new(&orders, 0), TopicWriter::new(&items, 0));
    let ingest = world.ingest();
    world
        .deliver(&ingest, &[agent.insert(1, "a"), other.insert(1, "a")])
        .await;
    world.store.silence(Some("tables/lake/public__items/data"));
    let records = [agent.insert(2, "b"), other.insert(2, "b")];
    assert_eq!(
        world.deliver(&ingest, &records).await,
        [(format!("{items}-0"), 1)]
    );
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
    world.store.silence(None);
    assert_eq!(world.deliver(&ingest, &records).await, []);
    assert_eq!(world.ids_in("items").await, ["1", "2"]);
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
}

#[tokio::test]
async fn invocation_without_time_stages_nothing_and_all_comes_again() {
    let world = World::new();
    let topic = world.announce("orders", 2, 0).await;
    let (mut agent, mut other) = (TopicWriter::new(&topic, 0), TopicWriter::new(&topic, 1));
    agent.offset = 40;
    let payload = event(&[agent.insert(1, "a"), other.insert(2, "b")]);
    let response = world
        .ingest()
        .handle(&payload, world.deadline(1_000))
        .await
        .unwrap();
    let failed: Vec<_> = response
        .batch_item_failures
        .iter()
        .map(|failure| {
            (
                failure.item_identifier.partition.as_str(),
                failure.item_identifier.offset,
            )
        })
        .collect();
    assert_eq!(
        failed,
        [
            (format!("{topic}-0").as_str(), 40),
            (format!("{topic}-1").as_str(), 0)
        ]
    );
    assert_eq!(world.sum(Metric::IntentsTotal), 0);
}

#[tokio::test]
async fn cached_tail_is_not_used_after_an_hour() {
    let world = World::new();
    let topic = world.announce("orders", 1, 3600).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;
    world.clock.advance_ms(3_600_001);
    world.store.take();
    assert_eq!(world.deliver(&ingest, &[agent.insert(2, "b")]).await, []);
    assert!(world.store.take().gets > 0);
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
}

#[tokio::test]
async fn nothing_is_taken_while_the_oldest_batch_waits_for_half_a_day() {
    let world = World::new();
    let topic = world.announce("orders", 1, 3600).await;
    let mut agent = TopicWriter::new(&topic, 0);
    world
        .deliver(&world.ingest(), &[agent.insert(1, "a")])
        .await;
    let waiting = agent.insert(2, "b");
    world
        .deliver(&world.ingest(), std::slice::from_ref(&waiting))
        .await;
    world.clock.advance_ms(12 * 3_600_000);
    let late = agent.insert(3, "c");
    let failed = world
        .deliver(&world.ingest(), std::slice::from_ref(&late))
        .await;
    assert_eq!(failed, [(format!("{topic}-0"), 2)]);
    world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(world.deliver(&world.ingest(), &[late]).await, []);
}

#[tokio::test]
async fn topic_made_anew_goes_on_where_the_old_one_ended() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    let old = [agent.insert(1, "a"), agent.insert(2, "b")];
    assert_eq!(world.deliver(&ingest, &old).await, []);
    agent.recreate();
    let new = [agent.insert(3, "c"), agent.insert(4, "d")];
    assert_eq!(world.deliver(&ingest, &new).await, []);
    // Late batches of both, to a function that knows nothing.
    assert_eq!(world.deliver(&world.ingest(), &old).await, []);
    assert_eq!(world.deliver(&world.ingest(), &new).await, []);
    assert_eq!(world.ids_in("orders").await, ["1", "2", "3", "4"]);
    let frontier = *world.table("orders").await.frontier(0).unwrap();
    assert_eq!(
        (frontier.incarnation, frontier.offset, frontier.epoch),
        (2, 2, 2)
    );
}

#[tokio::test]
async fn topic_replaced_behind_the_agents_back_halts_its_partition() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world
        .deliver(&ingest, &[agent.insert(1, "a"), agent.insert(2, "b")])
        .await;
    agent.restart();
    agent.offset = 0;
    let failed = world.deliver(&ingest, &[agent.insert(3, "c")]).await;
    assert_eq!(failed, [(format!("{topic}-0"), 0)]);
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
    assert_eq!(world.sum(Metric::HaltsTotal), 1);
}

#[tokio::test]
async fn warm_function_sees_that_nothing_is_committed_for_half_a_day() {
    let world = World::new();
    let topic = world.announce("orders", 1, 86_400).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(0, "a")]).await;
    let mut failed = Vec::new();
    for id in 1..30 {
        world.clock.advance_ms(30 * 60_000);
        failed = world.deliver(&ingest, &[agent.insert(id, "x")]).await;
        if !failed.is_empty() {
            assert!(id >= 24, "after {id} half hours");
            break;
        }
    }
    assert_eq!(failed.len(), 1);
}

#[tokio::test]
async fn table_that_was_made_between_two_looks_was_not_dropped() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let registration = world.registration("orders").await;
    let name = TableName::of(&registration);
    // A sweep looks and finds no table; then another makes it and puts it on record; then the sweep asks the record.
    assert!(world.committer.load(&name).await.unwrap().is_none());
    let mut agent = TopicWriter::new(&topic, 0);
    assert_eq!(
        world
            .deliver(&world.ingest(), &[agent.insert(1, "a")])
            .await,
        []
    );
    world.committer.may_be_made(&name, 1).await.unwrap();
    world.drop_table("orders");
    assert!(matches!(
        world.committer.may_be_made(&name, 1).await,
        Err(CommitError::TableDropped { .. })
    ));
}

#[tokio::test]
async fn dropped_table_halts_and_put_back_it_holds_what_was_staged_meanwhile() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;
    world.drop_table("orders");
    // Staged for the table that is gone; the look behind it sees that.
    let second = agent.insert(2, "b");
    world.deliver(&ingest, &[second]).await;
    // It is never made anew in silence, and a topic that is quiet from here on shows it too.
    let third = agent.insert(3, "c");
    let failed = world.deliver(&ingest, std::slice::from_ref(&third)).await;
    assert_eq!(failed, [(format!("{topic}-0"), 2)]);
    let halts = world.sum(Metric::HaltsTotal);
    assert!(halts > 0);
    world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(world.sum(Metric::HaltsTotal), halts + 1);

    let operator = Operator {
        by: "ada".to_owned(),
        why: "dropped by mistake".to_owned(),
    };
    let registration = world.registration("orders").await;
    let look = world.committer.examine_adoption(&registration, None).await;
    assert!(matches!(look.unwrap(), AdoptOutcome::Dropped { .. }));
    let adopted = world.committer.adopt(&registration, None, &operator).await;
    assert!(matches!(adopted.unwrap(), AdoptOutcome::PutBack { .. }));
    let again = world.committer.adopt(&registration, None, &operator).await;
    assert_eq!(again.unwrap(), AdoptOutcome::HasState);
    assert_eq!(world.deliver(&ingest, &[third]).await, []);
    world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(world.ids_in("orders").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn dropped_table_whose_topic_is_made_anew_too_begins_anew() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let first = agent.insert(1, "a");
    assert_eq!(world.deliver(&world.ingest(), &[first]).await, []);
    world.drop_table("orders");
    let mut registration = world.registration("orders").await;
    registration.topic_incarnation = 2;
    world.register(&registration).await;
    agent.recreate();
    agent.predecessor = None;
    let again = agent.insert(1, "a");
    assert_eq!(world.deliver(&world.ingest(), &[again]).await, []);
    assert_eq!(world.ids_in("orders").await, ["1"]);
}
