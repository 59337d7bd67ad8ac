//! From a record to a row in a Parquet file.

use bytes::Bytes;
use change_event::{Lsn, Position, RecordKind};
use function_kit::Metric;
use functions::{TopicWriter, World};
use object_io::ObjectStore as _;
use serde_json::json;
use table_file::{ChangeBatch, ChangeRow, CopyAnnouncement, RowImage, encode};

#[tokio::test]
async fn records_become_rows_in_order() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let records = [agent.insert(1, "eins"), agent.insert(2, "zwei")];
    assert_eq!(world.deliver(&world.ingest(), &records).await, []);
    let rows = world.rows("orders").await;
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (rows[0]["id"].as_str(), rows[0]["a"].as_str()),
        ("1", "\"eins\"")
    );
    assert_eq!(
        (rows[1]["id"].as_str(), rows[1]["_op"].as_str()),
        ("2", "\"c\"")
    );
    assert_eq!(rows[0]["_schema_version"], "1");
    assert!(rows[0]["_pos"] < rows[1]["_pos"]);
    assert_eq!(world.sum(Metric::RowsTotal), 2);
    assert_eq!(world.sum(Metric::CommitsTotal), 1);
}

#[tokio::test]
async fn record_by_reference_is_the_row_it_stands_for() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let header = agent.header(RecordKind::Reference);
    let envelope = agent.envelope(7, Some("large"));
    let key = "control/reference/shop/x/1.json";
    world
        .store
        .put(key, Bytes::from(envelope.clone()))
        .await
        .unwrap();
    let value = json!({"firn_reference": key, "size_bytes": envelope.len()}).to_string();
    let record = agent.record(Some(&header), Some(value.as_bytes()));
    assert_eq!(world.deliver(&world.ingest(), &[record]).await, []);
    assert_eq!(world.ids_in("orders").await, ["7"]);
}

#[tokio::test]
async fn many_references_are_staged_in_portions() {
    let world = World::new();
    let topic = world.announce("orders", 1, 60).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let mut records = Vec::new();
    for id in 1..=5 {
        let header = agent.header(RecordKind::Reference);
        let key = format!("control/reference/shop/x/{id}.json");
        let envelope = Bytes::from(agent.envelope(id, Some("large")));
        world.store.put(&key, envelope).await.unwrap();
        // What the agent says of its size counts, before it is fetched.
        let value = json!({"firn_reference": key, "size_bytes": 30 << 20}).to_string();
        records.push(agent.record(Some(&header), Some(value.as_bytes())));
    }
    records.push(agent.insert(6, "small"));
    let ingest = world.ingest();
    assert_eq!(world.deliver(&ingest, &records).await, []);
    assert_eq!(world.sum(Metric::IntentsTotal), 3, "two, two and the rest");
    assert_eq!(world.deliver(&ingest, &records).await, [], "again");
    assert_eq!(world.sum(Metric::RowsTotal), 6);
}

#[tokio::test]
async fn reference_without_its_object_comes_again() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let first = agent.insert(1, "a");
    let header = agent.header(RecordKind::Reference);
    let value =
        json!({"firn_reference": "control/reference/shop/x/2.json", "size_bytes": 9}).to_string();
    let record = agent.record(Some(&header), Some(value.as_bytes()));
    let ingest = world.ingest();
    let failed = world.deliver(&ingest, &[first, record.clone()]).await;
    assert_eq!(failed, [(format!("{topic}-0"), 1)]);
    assert_eq!(world.ids_in("orders").await, ["1"]);
    let envelope = agent.envelope(2, None);
    world
        .store
        .put("control/reference/shop/x/2.json", Bytes::from(envelope))
        .await
        .unwrap();
    assert_eq!(world.deliver(&ingest, &[record]).await, []);
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
}

#[tokio::test]
async fn files_of_a_table_copy_are_taken_over_once() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    world.deliver(&ingest, &[agent.insert(1, "a")]).await;

    let schema = functions::schema(1);
    let mut batch = ChangeBatch::new(&schema);
    let cells = [
        change_event::Cell::Text("9"),
        change_event::Cell::Text("copied"),
    ];
    let position = Position::copy(1, Lsn(50), 1, 0, 0);
    batch
        .push(&ChangeRow {
            operation: change_event::Operation::Read,
            position,
            source_ts_us: functions::NOW_MS * 1000,
            before: None,
            after: Some(RowImage::Cells(&cells)),
        })
        .unwrap();
    let file = encode(&batch.finish().unwrap()[0]).unwrap();
    let key = "tables/lake/public__orders/data/copy-1.parquet";
    world.store.put(key, file.bytes).await.unwrap();
    let mut staged = file.staged;
    staged.path = format!("s3://lake/{key}");
    let mut header = agent.header(RecordKind::CopyAnnouncement);
    header.position = position;
    let value = serde_json::to_vec(&CopyAnnouncement {
        copy_id: 1,
        files: vec![staged],
    })
    .unwrap();
    let announced = agent.record(Some(&header), Some(&value));
    // Announced again by the next agent: the same position.
    agent.restart();
    let mut again = agent.header(RecordKind::CopyAnnouncement);
    again.position = position;
    let again = agent.record(Some(&again), Some(&value));
    assert_eq!(
        world
            .deliver(&ingest, &[announced, again, agent.insert(2, "b")])
            .await,
        []
    );
    let mut ids = world.ids_in("orders").await;
    ids.sort();
    assert_eq!(ids, ["1", "2", "9"]);
}

#[tokio::test]
async fn marker_and_tombstone_only_move_the_frontier() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let insert = agent.insert(1, "a");
    let tombstone = agent.raw(None, None);
    let marker = agent.header(RecordKind::Marker);
    let marker = agent.record(Some(&marker), Some(b"{\"op\":\"t\"}"));
    let records = [insert, tombstone, marker, agent.insert(2, "b")];
    assert_eq!(world.deliver(&world.ingest(), &records).await, []);
    assert_eq!(world.ids_in("orders").await, ["1", "2"]);
    assert_eq!(world.quarantine().await, []);
    let frontier = *world.table("orders").await.frontier(0).unwrap();
    assert_eq!((frontier.offset, frontier.pseq), (4, 3));
}
