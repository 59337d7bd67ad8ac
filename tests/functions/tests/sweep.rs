//! The sweep over the registry finds everything that is staged, however it came to be forgotten.

use commit::{Answer, SweepSummary};
use functions::{TopicWriter, World};

const SWEEP: &str = r#"{"sweep":true}"#;

#[tokio::test]
async fn registration_written_before_a_crash_is_found_when_its_records_come() {
    let world = World::new();
    // The agent announced the topic and died before its first record; the schedule looks every minute.
    let topic = world.announce("orders", 1, 3600).await;
    let swept = |committed| {
        Answer::Sweep(SweepSummary {
            tables: 1,
            committed,
            failed: 0,
        })
    };
    assert_eq!(world.commit(SWEEP).await, swept(0));
    // Its successor writes the same registration once more, and its records are staged.
    world.announce("orders", 1, 3600).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;
    world.deliver(&ingest, &[agent.insert(2, "b")]).await;
    assert_eq!(world.commit(SWEEP).await, swept(1));
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
}

#[tokio::test]
async fn table_whose_last_message_was_lost_is_swept() {
    let world = World::new();
    let topic = world.announce("orders", 1, 3600).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    for id in 1..4 {
        world.deliver(&ingest, &[agent.insert(id, "a")]).await;
    }
    assert_eq!(world.queue.take().len(), 1);
    assert_eq!(world.ids_in("orders").await, ["1"]);
    world.commit(SWEEP).await;
    assert_eq!(world.ids_in("orders").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn partition_registered_late_is_swept() {
    let world = World::new();
    let topic = world.announce("orders", 1, 3600).await;
    let (mut first, mut late) = (TopicWriter::new(&topic, 0), TopicWriter::new(&topic, 2));
    world
        .deliver(&world.ingest(), &[first.insert(1, "a")])
        .await;
    world.announce("orders", 3, 3600).await;
    late.lsn = 200;
    assert_eq!(
        world.deliver(&world.ingest(), &[late.insert(2, "b")]).await,
        []
    );
    world.queue.take();
    assert_eq!(world.ids_in("orders").await, ["1"]);
    world.commit(SWEEP).await;
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
}
