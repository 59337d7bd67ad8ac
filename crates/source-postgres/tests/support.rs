//! Servers, connections and streams for the tests.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use change_event::{Cell, Lsn};
use source_postgres::decode::decode;
use source_postgres::{
    Catalog, ConnectOptions, Connection, Frame, Message, ReplicationStart, ReplicationStream,
    SourceError, Tuple,
};
use test_kit::postgres::{PostgresOptions, PostgresServer, SUPERUSER};

/// Longest wait for something that has to come.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

pub(crate) fn start(programs: &Path) -> PostgresServer {
    start_with(programs, &PostgresOptions::default())
}

pub(crate) fn start_with(programs: &Path, options: &PostgresOptions) -> PostgresServer {
    PostgresServer::start(programs, options).unwrap()
}

pub(crate) fn options(server: &PostgresServer) -> ConnectOptions {
    ConnectOptions::new("127.0.0.1", server.port(), SUPERUSER, "postgres")
}

pub(crate) async fn sql(server: &PostgresServer) -> Connection {
    Connection::connect(&options(server)).await.unwrap()
}

pub(crate) async fn catalog(server: &PostgresServer) -> Catalog {
    Catalog::connect(&options(server)).await.unwrap()
}

pub(crate) async fn replication(server: &PostgresServer) -> Connection {
    Connection::connect_replication(&options(server))
        .await
        .unwrap()
}

pub(crate) fn from_slot(slot: &str) -> ReplicationStart {
    ReplicationStart {
        slot: slot.to_owned(),
        publications: vec!["p".to_owned()],
        start_lsn: Lsn(0),
    }
}

/// Slot `s` and publication `p` of all that `tables` says, and the stream of both.
pub(crate) async fn stream_of(server: &PostgresServer, tables: &str) -> ReplicationStream {
    sql(server)
        .await
        .query(&format!("CREATE PUBLICATION p FOR TABLE {tables}"))
        .await
        .unwrap();
    replication(server).await.create_slot("s").await.unwrap();
    replication(server)
        .await
        .start_replication(&from_slot("s"))
        .await
        .unwrap()
}

/// A change as words: what the stream says, in a form that reads well in a test.
pub(crate) fn words(payload: &[u8]) -> String {
    match decode(payload).unwrap() {
        Message::Begin { .. } => "begin".to_owned(),
        Message::Commit { .. } => "commit".to_owned(),
        Message::Relation(relation) => {
            let columns: Vec<&str> = relation.columns.iter().map(|c| c.name.as_str()).collect();
            format!("relation {} ({})", relation.table, columns.join(" "))
        }
        Message::Type { name, .. } => format!("type {name}"),
        Message::Origin { name, .. } => format!("origin {name}"),
        Message::Insert { new, .. } => format!("insert {}", cells(new)),
        Message::Update { old, new, .. } => match old {
            Some(old) => format!("update {} -> {}", cells(old.tuple()), cells(new)),
            None => format!("update {}", cells(new)),
        },
        Message::Delete { old, .. } => format!("delete {}", cells(old.tuple())),
        Message::Truncate {
            relation_oids,
            cascade,
            restart_identity,
        } => {
            format!(
                "truncate {} {cascade} {restart_identity}",
                relation_oids.len()
            )
        }
        Message::Logical {
            transactional,
            prefix,
            content,
            ..
        } => {
            format!(
                "message {transactional} {prefix} {}",
                String::from_utf8_lossy(content)
            )
        }
    }
}

fn cells(tuple: Tuple<'_>) -> String {
    let cells: Vec<String> = tuple.cells().map(cell_words).collect();
    format!("({})", cells.join(" "))
}

/// Long texts by their length.
pub(crate) fn cell_words(cell: Cell<'_>) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Unavailable => "unavailable".to_owned(),
        Cell::Text(text) if text.len() > 40 => format!("[{}]", text.len()),
        Cell::Text(text) => text.to_owned(),
    }
}

pub(crate) async fn next(stream: &mut ReplicationStream) -> Result<Frame, SourceError> {
    tokio::time::timeout(PATIENCE, stream.next())
        .await
        .expect("a frame in time")
}

/// The payload of the next message.
pub(crate) async fn next_payload(stream: &mut ReplicationStream) -> bytes::Bytes {
    loop {
        if let Frame::Data { payload, .. } = next(stream).await.unwrap() {
            return payload;
        }
    }
}

/// All messages up to and with the next commit. A transaction without any is passed over: PostgreSQL 14 sends those too.
pub(crate) async fn transaction(stream: &mut ReplicationStream) -> Vec<String> {
    let mut said = Vec::new();
    loop {
        said.push(words(&next_payload(stream).await));
        if said.last().is_some_and(|words| words == "commit") {
            if said.len() > 2 {
                return said;
            }
            said.clear();
        }
    }
}

/// Major version of the server.
pub(crate) async fn major_version(server: &PostgresServer) -> u32 {
    catalog(server)
        .await
        .server_facts()
        .await
        .unwrap()
        .version_number
        / 10_000
}

/// What ends the stream.
pub(crate) async fn end_of(stream: &mut ReplicationStream) -> SourceError {
    let reading = async {
        loop {
            if let Err(error) = stream.next().await {
                return error;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("an end in time")
}

/// Asks again until the answer is `t`; the server answers at its own pace.
pub(crate) async fn wait_until(connection: &mut Connection, question: &str) {
    let waiting = async {
        while connection.query(question).await.unwrap()[0].get(0) != Some("t") {
            // The server itself waits: nothing here sleeps.
            connection.query("SELECT pg_sleep(0.05)").await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("not yet: {question}"));
}
