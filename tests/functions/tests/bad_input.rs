//! Records that can never succeed are set aside; everything around them goes on.

use change_event::RecordKind;
use function_kit::Metric;
use functions::{TopicWriter, World, event};
use serde_json::{Value, json};

/// One bad record between two good ones: both good ones are rows, the bad one is in quarantine, nothing fails.
async fn set_aside(bad: impl FnOnce(&mut TopicWriter) -> Value) -> (String, Value) {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let records = [agent.insert(1, "a"), bad(&mut agent), agent.insert(3, "c")];
    assert_eq!(world.deliver(&world.ingest(), &records).await, []);
    assert_eq!(world.ids_in("orders").await, ["1", "3"]);
    assert_eq!(world.sum(Metric::QuarantinedTotal), 1);
    let mut objects = world.quarantine().await;
    assert_eq!(objects.len(), 1);
    // Delivered again, it is known.
    assert_eq!(world.deliver(&world.ingest(), &records).await, []);
    assert_eq!(world.sum(Metric::QuarantinedTotal), 1);
    objects.remove(0)
}

fn change(agent: &mut TopicWriter, value: &[u8]) -> Value {
    let header = agent.header(RecordKind::Change);
    agent.record(Some(&header), Some(value))
}

#[tokio::test]
async fn value_that_is_no_envelope_is_set_aside_with_its_place() {
    let (key, object) = set_aside(|agent| change(agent, b"not json")).await;
    assert_eq!(
        key,
        "quarantine/shop/public-2eorders/shop.public.orders-00000-00000000000000000001.json"
    );
    assert_eq!(object["topic"], "shop.public.orders");
    assert_eq!(
        (object["partition"].as_i64(), object["offset"].as_i64()),
        (Some(0), Some(1))
    );
    assert_eq!(object["value"], "bm90IGpzb24=");
    assert_eq!(object["key"], "eyJpZCI6MX0=");
    assert!(object["header"].is_string() && object["position"].is_string());
    assert!(
        object["reason"].as_str().unwrap().contains("not JSON"),
        "{object}"
    );
}

#[tokio::test]
async fn envelopes_that_lack_or_twist_something_are_set_aside() {
    let tail = r#""source":{"ts_us":1770000000000000,"ts_ms":1770000000000},"op":"c","ts_ms":1770000000000"#;
    let after = |row: &str| format!(r#"{{"before":null,"after":{row},{tail}}}"#);
    for value in [
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        r#"{"before":null,"after":{"id":2,"a":"x"}}"#.to_owned(),
        after("null"),
        after(r#"{"a":"x"}"#),
        after(r#"{"id":null,"a":"x"}"#),
        after(r#"{"id":"two","a":"x"}"#),
        after(r#"{"id":99999999999,"a":"x"}"#),
        after(r#"{"id":1.5,"a":"x"}"#),
        after(r#"{"id":2,"a":5}"#),
        after(r#"{"id":2,"a":"x","unknown":1}"#),
        after(r#"{"id":2,"a":"x"}"#).replace("\"c\"", "\"?\""),
        after(r#"{"id":2,"a":"x"}"#).replace("\"c\"", "\"t\""),
    ] {
        let (_, object) = set_aside(|agent| change(agent, value.as_bytes())).await;
        assert!(!object["reason"].as_str().unwrap().is_empty(), "{value}");
    }
}

#[tokio::test]
async fn headerless_record_on_a_firn_topic_is_set_aside() {
    let (_, object) = set_aside(|agent| agent.raw(None, Some(b"{}"))).await;
    assert_eq!(object["reason"], "no firn header: not written by an agent");
}

#[tokio::test]
async fn unreadable_header_is_set_aside() {
    for bytes in [&b""[..], &[9, 9], &[1, 0, 0]] {
        let (_, object) = set_aside(|agent| agent.raw(Some(bytes), Some(b"{}"))).await;
        assert!(
            object["reason"].as_str().unwrap().contains("header"),
            "{object}"
        );
    }
}

#[tokio::test]
async fn record_of_odd_shape_is_set_aside_as_it_came() {
    let (_, object) = set_aside(|agent| {
        let mut record = agent.raw(None, None);
        record["value"] = json!({"not": "text"});
        record
    })
    .await;
    assert!(
        object["record"].as_str().unwrap().contains("not"),
        "{object}"
    );
}

#[tokio::test]
async fn reference_that_leads_elsewhere_and_announcement_of_foreign_files_are_set_aside() {
    let reference = json!({"firn_reference": "tables/secret", "size_bytes": 1}).to_string();
    let (_, object) = set_aside(|agent| {
        let header = agent.header(RecordKind::Reference);
        agent.record(Some(&header), Some(reference.as_bytes()))
    })
    .await;
    assert!(
        object["reason"].as_str().unwrap().starts_with("reference"),
        "{object}"
    );
    let (_, object) = set_aside(|agent| {
        let header = agent.header(RecordKind::CopyAnnouncement);
        agent.record(Some(&header), Some(b"{\"copy_id\":1}"))
    })
    .await;
    assert!(
        object["reason"]
            .as_str()
            .unwrap()
            .starts_with("copy announcement"),
        "{object}"
    );
}

#[tokio::test]
async fn place_that_cannot_be_is_set_aside_beside_the_rest() {
    for (member, value) in [
        ("offset", json!(-1)),
        ("offset", json!("x")),
        ("partition", json!(-3)),
    ] {
        let world = World::new();
        let topic = world.announce("orders", 1, 0).await;
        let mut agent = TopicWriter::new(&topic, 0);
        let mut odd = agent.clone().insert(8, "x");
        odd[member] = value;
        let records = [agent.insert(1, "a"), odd];
        assert_eq!(world.deliver(&world.ingest(), &records).await, []);
        assert_eq!(world.ids_in("orders").await, ["1"]);
        let objects = world.quarantine().await;
        assert_eq!(objects.len(), 1);
        assert!(
            objects[0]
                .0
                .starts_with("quarantine/shop/public-2eorders/unplaced-"),
            "{objects:?}"
        );
    }
}

#[tokio::test]
async fn unknown_topic_is_set_aside_and_known_ones_go_on() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let (mut agent, mut stranger) = (TopicWriter::new(&topic, 0), TopicWriter::new("x.y.z", 4));
    let records = [
        stranger.insert(1, "a"),
        agent.insert(1, "a"),
        stranger.insert(2, "b"),
    ];
    assert_eq!(world.deliver(&world.ingest(), &records).await, []);
    assert_eq!(world.ids_in("orders").await, ["1"]);
    let objects = world.quarantine().await;
    assert_eq!(objects.len(), 2);
    assert!(
        objects[0]
            .0
            .starts_with("quarantine/unregistered/x-2ey-2ez/"),
        "{objects:?}"
    );
}

#[tokio::test]
async fn two_topics_in_one_group_go_each_to_its_own() {
    let world = World::new();
    let (orders, items) = (
        world.announce("orders", 1, 0).await,
        world.announce("items", 1, 0).await,
    );
    let (mut agent, mut other) = (TopicWriter::new(&orders, 0), TopicWriter::new(&items, 0));
    let records = json!([agent.insert(1, "a"), other.insert(2, "b")]);
    let payload = json!({"eventSource": "aws:kafka", "records": {format!("{orders}-0"): records}});
    let payload = serde_json::to_vec(&payload).unwrap();
    let response = world
        .ingest()
        .handle(&payload, world.deadline(60_000))
        .await
        .unwrap();
    assert!(response.batch_item_failures.is_empty());
    assert_eq!(world.ids_in("orders").await, ["1"]);
    assert_eq!(world.ids_in("items").await, ["2"]);
}

#[tokio::test]
async fn quarantine_that_cannot_be_written_fails_the_batch() {
    let world = World::new();
    let topic = world.announce("orders", 1, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let records = [agent.insert(1, "a"), change(&mut agent, b"x")];
    world.store.silence(Some("quarantine/"));
    assert_eq!(
        world.deliver(&world.ingest(), &records).await,
        [(format!("{topic}-0"), 0)]
    );
    assert_eq!(world.sum(Metric::IntentsTotal), 0);
    world.store.silence(None);
    assert_eq!(world.deliver(&world.ingest(), &records).await, []);
    assert_eq!(world.ids_in("orders").await, ["1"]);
}

#[tokio::test]
async fn event_that_is_none_of_ours_fails_as_a_whole() {
    let world = World::new();
    for payload in [
        &b"{}"[..],
        b"nope",
        br#"{"eventSource":"aws:sqs","records":{}}"#,
    ] {
        let failure = world
            .ingest()
            .handle(payload, world.deadline(60_000))
            .await
            .unwrap_err();
        assert_eq!(failure.error_type, "InvalidEvent");
    }
    let empty = world
        .ingest()
        .handle(&event(&[]), world.deadline(60_000))
        .await
        .unwrap();
    assert!(empty.batch_item_failures.is_empty());
}
