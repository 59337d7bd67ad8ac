//! When a table is combined: inline if it is due, else by one message.

use function_kit::Metric;
use functions::{TopicWriter, World};

#[tokio::test]
async fn first_batch_is_combined_and_the_burst_behind_it_sends_one_message() {
    let world = World::new();
    let topic = world.announce("orders", 1, 60).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;
    assert_eq!(world.ids_in("orders").await, ["1"]);
    assert_eq!(world.queue.take(), []);
    world.clock.advance_ms(20_000);
    for id in 2..5 {
        world.deliver(&ingest, &[agent.insert(id, "x")]).await;
    }
    assert_eq!(
        world.queue.take(),
        [(format!("{{\"topic\":\"{topic}\"}}"), 40)]
    );
    assert_eq!(world.ids_in("orders").await, ["1"]);
    // The message appears.
    world.clock.advance_ms(40_000);
    let event =
        format!(r#"{{"Records":[{{"messageId":"m","body":"{{\"topic\":\"{topic}\"}}"}}]}}"#);
    world.commit(&event).await;
    assert_eq!(world.ids_in("orders").await, ["1", "2", "3", "4"]);
    // Committed by another: the function sees it and sends the next message.
    world.clock.advance_ms(1_000);
    world.deliver(&ingest, &[agent.insert(5, "x")]).await;
    assert_eq!(
        world.queue.take(),
        [(format!("{{\"topic\":\"{topic}\"}}"), 59)]
    );
}

#[tokio::test]
async fn freshness_beyond_the_queue_sends_message_after_message() {
    let world = World::new();
    let topic = world.announce("orders", 1, 3600).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;
    world.clock.advance_ms(1_000);
    world.deliver(&ingest, &[agent.insert(2, "b")]).await;
    let longest = (format!("{{\"topic\":\"{topic}\"}}"), 900);
    assert_eq!(world.queue.take(), std::slice::from_ref(&longest));
    world.clock.advance_ms(899_000);
    world.deliver(&ingest, &[agent.insert(3, "c")]).await;
    assert_eq!(world.queue.take(), [], "one is under way");
    world.clock.advance_ms(1_000);
    world.deliver(&ingest, &[agent.insert(4, "d")]).await;
    assert_eq!(world.queue.take(), [longest], "it has appeared");
}

#[tokio::test]
async fn table_that_is_due_is_combined_by_the_next_batch() {
    let world = World::new();
    let topic = world.announce("orders", 1, 2).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;
    world.clock.advance_ms(2_000);
    world.deliver(&ingest, &[agent.insert(2, "b")]).await;
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
    assert_eq!(world.sum(Metric::CommitsTotal), 2);
}

#[tokio::test]
async fn failed_combine_leaves_a_message_and_no_failure() {
    let world = World::new();
    let topic = world.announce("orders", 1, 60).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;
    world.clock.advance_ms(60_000);
    world.store.silence(Some("/metadata/"));
    assert_eq!(world.deliver(&ingest, &[agent.insert(2, "b")]).await, []);
    assert_eq!(world.queue.take().len(), 1);
    assert_eq!(world.sum(Metric::CombineFailuresTotal), 1);
    world.store.silence(None);
    world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
}
