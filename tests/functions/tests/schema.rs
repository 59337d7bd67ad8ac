//! A newer schema version, and functions/ddl.

use function_kit::Metric;
use functions::{TopicWriter, World, schema};

#[tokio::test]
async fn first_record_makes_the_table_and_the_second_version_widens_it() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    assert_eq!(world.deliver(&ingest, &[agent.insert(1, "a")]).await, []);
    assert_eq!(world.ddl.calls(), 1);
    world.publish(&topic, &schema(2)).await;
    let old = agent.insert(2, "b");
    agent.schema_version = 2;
    assert_eq!(
        world.deliver(&ingest, &[old, agent.insert(3, "c")]).await,
        []
    );
    assert_eq!(world.ddl.calls(), 2);
    let rows = world.rows("orders").await;
    let b: Vec<_> = rows
        .iter()
        .map(|row| row.get("b").map(String::as_str))
        .collect();
    assert_eq!(b, [None, None, Some("7")]);
    let table = world.table("orders").await;
    assert_eq!(table.state.schema_version, 2);
    assert!(table.metadata.current_schema().field_by_name("b").is_some());
    assert_eq!(world.sum(Metric::SchemaChangesTotal), 1);
}

#[tokio::test]
async fn version_without_a_document_comes_again_and_what_stands_before_it_is_taken() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let first = agent.insert(1, "a");
    agent.schema_version = 2;
    let second = agent.insert(2, "b");
    let ingest = world.ingest();
    let failed = world.deliver(&ingest, &[first, second.clone()]).await;
    assert_eq!(failed, [(format!("{topic}-0"), 1)]);
    assert_eq!(world.ids_in("orders").await, ["1"]);
    assert_eq!(world.quarantine().await, []);
    world.publish(&topic, &schema(2)).await;
    assert_eq!(world.deliver(&ingest, &[second]).await, []);
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
}

#[tokio::test]
async fn ddl_that_is_down_fails_the_batch_until_it_is_back() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let record = agent.insert(1, "a");
    world.ddl.set_down(true);
    let ingest = world.ingest();
    let failed = world.deliver(&ingest, std::slice::from_ref(&record)).await;
    assert_eq!(failed, [(format!("{topic}-0"), 0)]);
    world.ddl.set_down(false);
    assert_eq!(world.deliver(&ingest, &[record]).await, []);
    assert_eq!(world.ids_in("orders").await, ["1"]);
}

#[tokio::test]
async fn new_partition_is_registered_before_its_first_record_is_taken() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;
    // The agent takes a larger map, and says so before it uses it.
    world.announce("orders", 3, 0).await;
    let mut third = TopicWriter::new(&topic, 2);
    assert_eq!(world.deliver(&ingest, &[third.insert(2, "b")]).await, []);
    assert_eq!(world.table("orders").await.state.partitions.len(), 3);
    assert_eq!(world.ids_in("orders").await.len(), 2);
}
