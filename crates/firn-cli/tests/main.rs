//! The binary against the local cloud at `FIRN_AWS_ENDPOINT`: an operator's day. Without it there is nothing to test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test helpers"
)]

mod rebuild;

use std::process::Command;
use std::sync::Arc;

use change_event::partition::PartitionMap;
use change_event::{
    Clock, Column, ColumnType, CopyAnswer, IdSource, Lsn, Position, RandomIds, SourceSchema,
    SystemClock, TopicRegistration, layout,
};
use glue_catalog::GlueCatalog;
use iceberg::spec::{MAIN_BRANCH, SnapshotReference, SnapshotRetention};
use object_io::{ObjectStore, S3Store};
use table_commit::{
    Catalog, CombineOutcome, Committer, Frontier, Intent, LoadedTable, SlotOutcome, TableName,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TOPIC: &str = "shop.public.orders";

/// A table with a key and nothing else.
fn schema() -> SourceSchema {
    let column = Column {
        id: 1,
        name: "id".to_owned(),
        field_id: 100,
        lake_name: "id".to_owned(),
        column_type: ColumnType::Int,
        source_type: "integer".to_owned(),
        key: true,
    };
    SourceSchema {
        version: 1,
        table_schema: "public".to_owned(),
        table_name: "orders".to_owned(),
        position: Position::stream(1, Lsn(1), 1),
        inferred: false,
        columns: vec![column],
        retired: Vec::new(),
        next_field_id: 101,
    }
}

/// A deployment of its own in the local cloud.
struct Deployment {
    endpoint: String,
    bucket: String,
    database: String,
    store: Arc<dyn ObjectStore>,
    catalog: GlueCatalog,
    committer: Committer,
}

/// An unsigned request: bucket and database are made by no SDK that this package may name.
async fn request(endpoint: &str, head: &str, body: &str) {
    let address = endpoint.strip_prefix("http://").expect("a local address");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!(
        "{head} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n"
    );
    let signed =
        "Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/glue/aws4_request\r\n";
    let typed =
        "Content-Type: application/x-amz-json-1.1\r\nX-Amz-Target: AWSGlue.CreateDatabase\r\n";
    let more = if head.starts_with("POST") {
        format!("{signed}{typed}")
    } else {
        String::new()
    };
    let text = format!("{text}{more}\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{head}: {answer}");
}

impl Deployment {
    async fn new() -> Option<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "./dev test says where the local cloud is"
        )]
        let endpoint = std::env::var("FIRN_AWS_ENDPOINT").ok()?;
        let id: String = RandomIds.next_id().chars().take(12).collect();
        let (bucket, database) = (format!("firn-{id}"), format!("firn_{id}"));
        request(&endpoint, &format!("PUT /{bucket}"), "").await;
        let input = format!(r#"{{"DatabaseInput":{{"Name":"{database}"}}}}"#);
        request(&endpoint, "POST /", &input).await;
        let sdk = function_kit::aws::sdk_config().await;
        let sdk = sdk.into_builder().endpoint_url(&endpoint).build();
        let store: Arc<dyn ObjectStore> = Arc::new(S3Store::new(&sdk, &bucket, true));
        let catalog = GlueCatalog::new(&sdk);
        let committer = Committer::new(
            Arc::clone(&store),
            Arc::new(catalog.clone()),
            Arc::new(SystemClock),
            Arc::new(RandomIds),
        );
        Some(Self {
            endpoint,
            bucket,
            database,
            store,
            catalog,
            committer,
        })
    }

    fn registration(&self) -> TopicRegistration {
        TopicRegistration {
            topic: TOPIC.to_owned(),
            source: "shop".to_owned(),
            table_schema: "public".to_owned(),
            table_name: "orders".to_owned(),
            lake_database: self.database.clone(),
            lake_table: "public__orders".to_owned(),
            topic_incarnation: 1,
            partition_map: PartitionMap::first(1),
            freshness_seconds: 60,
        }
    }

    fn name(&self) -> TableName {
        TableName::of(&self.registration())
    }

    async fn announce(&self) -> LoadedTable {
        let registration = self.registration();
        let body = serde_json::to_vec(&registration).unwrap();
        let key = layout::registration(TOPIC);
        self.store.put(&key, body.into()).await.unwrap();
        self.committer
            .ensure_table(&registration, &schema())
            .await
            .unwrap()
    }

    /// A batch of markers: the frontier moves, there is no row.
    async fn stage(&self, count: u64) -> Frontier {
        let table = self.committer.load(&self.name()).await.unwrap().unwrap();
        let chain = table.chain(0);
        let frontier = table.frontier(0).unwrap();
        let walk = chain.walk(self.store.as_ref(), frontier, 99).await.unwrap();
        let after = Frontier {
            offset: walk.tail.offset + i64::try_from(count).unwrap(),
            epoch: 1,
            pseq: walk.tail.pseq + count,
            ..walk.tail
        };
        let (id, now_ms) = (RandomIds.next_id(), SystemClock.now_ms());
        let intent = Intent::new(id, &walk.tail, &after, Vec::new(), now_ms);
        let won = chain.win(self.store.as_ref(), &walk.tail, &intent).await;
        assert_eq!(won.unwrap(), SlotOutcome::Won);
        after
    }

    async fn commit(&self) -> i64 {
        match self.committer.combine(&self.name()).await.unwrap() {
            CombineOutcome::Committed(combined) => combined.snapshot_id,
            other => panic!("not committed but {other:?}"),
        }
    }

    /// Somebody sets the table to an older snapshot.
    async fn roll_back(&self, snapshot_id: i64) {
        let table = self.committer.load(&self.name()).await.unwrap().unwrap();
        let retention = SnapshotRetention::branch(None, None, None);
        let back = SnapshotReference::new(snapshot_id, retention);
        let builder = table.metadata.as_ref().clone().into_builder(None);
        let moved = builder.set_ref(MAIN_BRANCH, back).unwrap().build().unwrap();
        let location = format!(
            "{}/metadata/stranger.metadata.json",
            moved.metadata.location()
        );
        let key = location.strip_prefix(self.store.uri_prefix()).unwrap();
        let body = serde_json::to_vec(&moved.metadata).unwrap();
        self.store.put(key, body.into()).await.unwrap();
        let swapped = self
            .catalog
            .swap(&table.name, &table.pointer, &location, &moved.metadata)
            .await;
        assert_eq!(swapped.unwrap(), table_commit::SwapOutcome::Swapped);
    }

    /// What `firn` prints and whether it ends with 0.
    async fn firn(&self, words: &[&str]) -> (String, bool) {
        let (told, success, error) = self.firn_with_progress(words).await;
        assert_eq!(error, "", "{words:?}");
        (told, success)
    }

    /// The same, and what it said on the way.
    async fn firn_with_progress(&self, words: &[&str]) -> (String, bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_firn"));
        command
            .env("USER", "ada")
            .env("AWS_ENDPOINT_URL", &self.endpoint);
        command
            .args(["--bucket", &self.bucket, "--path-style"])
            .args(words);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        (told, output.status.success(), error)
    }
}

#[track_caller]
fn says((told, success): &(String, bool), part: &str, expected: bool) {
    assert!(told.contains(part), "{part:?} is not in:\n{told}");
    assert_eq!(*success, expected, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_accepts_a_gap_and_replays_a_rollback() {
    let Some(cloud) = Deployment::new().await else {
        return;
    };
    says(
        &cloud.firn(&["status"]).await,
        "no topic is registered",
        true,
    );
    cloud.announce().await;
    says(
        &cloud.firn(&["status"]).await,
        "nothing committed yet",
        true,
    );
    says(
        &cloud.firn(&["status", "nobody"]).await,
        "TROUBLE no registered",
        false,
    );

    let first = gap_is_accepted(&cloud).await;
    rollback_is_replayed(&cloud, first).await;
    says(&cloud.firn(&["check"]).await, "nothing staged", true);
    says(&cloud.firn(&["adopt", TOPIC]).await, "it has a state", true);
}

/// Looked at, accepted with a copy, accepted again. Gives the snapshot.
async fn gap_is_accepted(cloud: &Deployment) -> i64 {
    cloud.stage(3).await;
    let gap = [
        "gap",
        "recopy",
        TOPIC,
        "0",
        "--at",
        "1:10",
        "--covered",
        "1:3",
        "--found",
        "1:6",
    ];
    let look = cloud.firn(&gap).await;
    says(
        &look,
        "the gap stands: taken up to record 1:3 before offset 3",
        true,
    );
    says(&look, "nothing is changed", true);
    assert_eq!(cloud.store.list("control/agent/").await.unwrap().len(), 0);
    let apply = [&gap[..], &["--apply", "--why", "it is gone", "--by", "ada"]].concat();
    let applied = cloud.firn(&apply).await;
    says(&applied, "a new copy is asked for", true);
    says(&applied, "accepted by slot", true);
    says(
        &cloud.firn(&apply).await,
        "it was accepted before, by ada: it is gone",
        true,
    );
    let requests = cloud.store.list("control/agent/shop/copy-request/").await;
    let requests = requests.unwrap();
    let [request] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    copy_is_answered(cloud, &request.key).await;
    says(&cloud.firn(&apply).await, "a new copy is announced", true);
    let other = [
        "gap",
        "accept",
        TOPIC,
        "0",
        "--at",
        "1:20",
        "--covered",
        "1:4",
        "--found",
        "1:9",
    ];
    says(&cloud.firn(&other).await, "the gap does not stand", false);
    let first = cloud.commit().await;
    let status = cloud.firn(&["status", TOPIC]).await;
    says(&status, "record 1:5 (epoch:number), 1 gap accepted", true);
    says(
        &status,
        "ada: gap accepted in partition 0 before offset 10",
        true,
    );

    first
}

/// A request is shown until the agent answers it.
async fn copy_is_answered(cloud: &Deployment, request: &str) {
    let pending = "a new copy was asked for";
    says(&cloud.firn(&["status", TOPIC]).await, pending, true);
    let answer = request.replace("copy-request", "copy-answer");
    let copied = CopyAnswer::Copied {
        copy_id: 2,
        copy_lsn: Lsn(7),
        row_count: 3,
    };
    let body = serde_json::to_vec(&copied).unwrap();
    cloud.store.put(&answer, body.into()).await.unwrap();
    let status = cloud.firn(&["status", TOPIC]).await;
    assert!(!status.0.contains(pending), "{}", status.0);
}

/// Seen, looked at, replayed.
async fn rollback_is_replayed(cloud: &Deployment, first: i64) {
    let after = cloud.stage(4).await;
    cloud.commit().await;
    cloud.roll_back(first).await;
    let table = cloud.name().to_string();
    let check = cloud.firn(&["check"]).await;
    says(&check, "HALT", false);
    says(&check, &format!("firn rollback replay {table}"), false);
    let replay = ["rollback", "replay", &table];
    let look = cloud.firn(&replay).await;
    says(
        &look,
        "combines 1 staged batches with 0 rows once more",
        true,
    );
    says(&look, &format!("--head {first} --apply"), true);
    let head = first.to_string();
    let apply = [
        &replay[..],
        &["--head", &head, "--apply", "--why", "by mistake"],
    ]
    .concat();
    let wrong = [&replay[..], &["--head", "none", "--apply", "--why", "w"]].concat();
    says(
        &cloud.firn(&wrong).await,
        "nothing is done: its head is",
        false,
    );
    says(
        &cloud.firn(&apply).await,
        "done: the state belongs to head",
        true,
    );
    says(&cloud.firn(&apply).await, "it is not rolled back", true);
    cloud.commit().await;
    let table = cloud.committer.load(&cloud.name()).await.unwrap().unwrap();
    assert_eq!(table.frontier(0), Some(&after));
}
