//! `firn rebuild` over a real broker's topic and the local cloud.

use std::time::Duration;

use change_event::envelope::{ChangeOrigin, EnvelopeWriter};
use change_event::header::HEADER_NAME;
use change_event::{Cell, Operation, RecordHeader, RecordKind};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::util::Timeout;
use test_kit::kafka::KafkaBroker;

use super::{Deployment, Lsn, Position, SourceSchema, TOPIC, layout, says, schema};

/// Longest that a broker may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// So many inserts, in a transaction of Kafka as an agent's, behind one that was aborted.
async fn fill(servers: &str, schema: &SourceSchema, count: u64) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await;
    assert_eq!(made.unwrap(), [Ok(TOPIC.to_owned())]);
    config.set("transactional.id", "firn-shop");
    let producer: ThreadedProducer<_> = config.create().unwrap();
    producer
        .init_transactions(Timeout::After(PATIENCE))
        .unwrap();
    for aborted in [true, false] {
        producer.begin_transaction().unwrap();
        for pseq in 1..=count {
            let header = RecordHeader {
                kind: RecordKind::Change,
                topic_incarnation: 1,
                schema_version: 1,
                epoch: 1,
                pseq,
                predecessor: None,
                position: Position::stream(1, Lsn(100 + pseq), 1),
            };
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            let headers = OwnedHeaders::new().insert(Header {
                key: HEADER_NAME,
                value: Some(&bytes),
            });
            let value = envelope(schema, pseq);
            let record = BaseRecord::to(TOPIC).partition(0).key("k").payload(&value);
            producer
                .send(record.headers(headers))
                .map_err(|(error, _)| error)
                .unwrap();
        }
        if aborted {
            producer.flush(Timeout::After(PATIENCE)).unwrap();
            producer
                .abort_transaction(Timeout::After(PATIENCE))
                .unwrap();
        } else {
            producer
                .commit_transaction(Timeout::After(PATIENCE))
                .unwrap();
        }
    }
}

fn envelope(schema: &SourceSchema, id: u64) -> Vec<u8> {
    let origin = ChangeOrigin {
        commit_us: 1_770_000_000_000_000,
        commit_lsn: Lsn(100 + id),
        transaction_id: 5,
        ordinal: 1,
        handled_ms: 1_770_000_000_000,
    };
    let (id, mut out) = (id.to_string(), Vec::new());
    let none: Option<(Vec<Cell<'_>>, bool)> = None;
    EnvelopeWriter::new(schema, "shop", "shop")
        .write_envelope(
            &mut out,
            Operation::Create,
            &origin,
            none,
            Some(vec![Cell::Text(&id)]),
        )
        .unwrap();
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn table_is_rebuilt_from_a_topic_of_a_real_broker() {
    let Some(cloud) = Deployment::new().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = KafkaBroker::start(folder.path()).await.unwrap() else {
        return;
    };
    let servers = broker.bootstrap_servers();
    let schema = schema();
    fill(&servers, &schema, 25_000).await;
    let old = cloud.announce().await;
    let key = layout::schema_document("shop", TOPIC, 1);
    let body = serde_json::to_vec(&schema).unwrap();
    cloud.store.put(&key, body.into()).await.unwrap();
    // What stands has taken three records, in a table that somebody has spoilt.
    cloud.stage(3).await;
    cloud.commit().await;

    let table = cloud.name().to_string();
    let look = ["rebuild", &table, "--bootstrap-servers", &servers];
    let told = cloud.firn(&look).await;
    says(&told, "stands, and is read as it is", true);
    says(&told, "nothing is changed", true);
    let apply = [&look[..], &["--apply", "--why", "it is spoilt"]].concat();
    let (told, success, progress) = cloud.firn_with_progress(&apply).await;
    says(&(told, success), "done: the table is s3://", true);
    assert!(progress.contains("25000 rows staged"), "{progress}");
    let new = cloud.committer.load(&cloud.name()).await.unwrap().unwrap();
    assert_ne!(new.metadata.uuid(), old.metadata.uuid());
    let summary = new.metadata.current_snapshot().unwrap().summary();
    assert_eq!(summary.additional_properties["total-records"], "25000");
    assert_eq!(new.frontier(0).unwrap().pseq, 25_000);
    let status = cloud.firn(&["status", TOPIC]).await;
    says(&status, "rebuilt in the place of", true);
}
