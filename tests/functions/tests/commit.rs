//! functions/commit: messages, sweep, failures.

use commit::{Answer, SweepSummary};
use function_kit::Metric;
use functions::{TopicWriter, World, schema};

fn messages(bodies: &[(&str, &str)]) -> String {
    let records: Vec<_> = bodies
        .iter()
        .map(|(id, topic)| {
            let body = serde_json::json!({"topic": topic}).to_string();
            serde_json::json!({"messageId": id, "body": body})
        })
        .collect();
    serde_json::json!({"Records": records}).to_string()
}

fn failed(answer: &Answer) -> Vec<&str> {
    match answer {
        Answer::Messages(response) => response
            .batch_item_failures
            .iter()
            .map(|item| item.item_identifier.as_str())
            .collect(),
        Answer::Sweep(_) => panic!("an answer to messages"),
    }
}

#[tokio::test]
async fn messages_of_one_table_make_one_snapshot_and_a_silent_table_comes_again() {
    let world = World::new();
    let (orders, items) = (
        world.announce("orders", 1, 3600).await,
        world.announce("items", 1, 3600).await,
    );
    let (mut agent, mut other) = (TopicWriter::new(&orders, 0), TopicWriter::new(&items, 0));
    let ingest = world.ingest();
    world
        .deliver(&ingest, &[agent.insert(1, "a"), other.insert(1, "a")])
        .await;
    world
        .deliver(&ingest, &[agent.insert(2, "b"), other.insert(2, "b")])
        .await;
    world.clock.advance_ms(3_600_000);
    let before = world.sum(Metric::CommitsTotal);
    world.store.silence(Some("public__items/metadata"));
    let event = messages(&[
        ("1", &orders),
        ("2", &items),
        ("3", &orders),
        ("4", "x.y.z"),
    ]);
    assert_eq!(failed(&world.commit(&event).await), ["2"]);
    assert_eq!(world.sum(Metric::CommitsTotal), before + 1);
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
    world.store.silence(None);
    assert_eq!(
        failed(&world.commit(&messages(&[("2", &items)])).await),
        [""; 0]
    );
    assert_eq!(world.ids_in("items").await, ["1", "2"]);
}

#[tokio::test]
async fn message_for_a_table_that_is_not_due_becomes_one_for_when_it_is() {
    let world = World::new();
    let topic = world.announce("orders", 1, 60).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    for id in [1, 2] {
        world.deliver(&ingest, &[agent.insert(id, "a")]).await;
    }
    world.queue.take();
    world.clock.advance_ms(20_000);
    let commit = world.committing();
    for _ in 0..3 {
        let answer = world.commit_by(&commit, &messages(&[("1", &topic)])).await;
        assert_eq!(failed(&answer), [""; 0]);
    }
    assert_eq!(
        world.queue.take(),
        [(format!("{{\"topic\":\"{topic}\"}}"), 40)]
    );
    assert_eq!(world.ids_in("orders").await, ["1"]);
    world.clock.advance_ms(40_000);
    world.commit_by(&commit, &messages(&[("1", &topic)])).await;
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
    assert_eq!(world.queue.take(), []);
}

#[tokio::test]
async fn process_that_lost_a_race_lets_the_one_that_won_go_first() {
    let world = World::new();
    let topic = world.announce("orders", 1, 60).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(0, "a")]).await;
    let (one, other) = (world.committing(), world.committing());
    let event = messages(&[("1", &topic)]);
    for id in 1..6 {
        world.deliver(&ingest, &[agent.insert(id, "a")]).await;
        world.clock.advance_ms(60_000);
        // Both look before either commits: on one thread, each call gives way to the other.
        world.store.give_way(true);
        tokio::join!(
            world.commit_by(&one, &event),
            world.commit_by(&other, &event)
        );
        world.store.give_way(false);
    }
    assert_eq!(world.sum(Metric::ConflictsTotal), 1, "one race was lost");
    assert_eq!(world.ids_in("orders").await.len(), 6);
}

#[tokio::test]
async fn sweep_combines_every_table_and_passes_over_announced_ones() {
    let world = World::new();
    let (orders, _empty) = (
        world.announce("orders", 1, 3600).await,
        world.announce("items", 1, 3600).await,
    );
    let mut agent = TopicWriter::new(&orders, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;
    world.deliver(&ingest, &[agent.insert(2, "b")]).await;
    let answer = world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(
        answer,
        Answer::Sweep(SweepSummary {
            tables: 2,
            committed: 1,
            failed: 0
        })
    );
    let answer = world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(
        answer,
        Answer::Sweep(SweepSummary {
            tables: 2,
            committed: 0,
            failed: 0
        })
    );
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
}

#[tokio::test]
async fn staged_batch_of_a_newer_version_is_committed_after_the_schema() {
    let world = World::new();
    let topic = world.announce("orders", 1, 3600).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;
    world.publish(&topic, &schema(2)).await;
    agent.schema_version = 2;
    world.deliver(&ingest, &[agent.insert(2, "b")]).await;
    world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(world.rows("orders").await[1]["b"], "7");
}
