//! What the stream says about changes.

use std::path::Path;
use std::time::Duration;

use change_event::Lsn;
use change_event::evolution::next_schema;
use change_event::position::Position;
use source_postgres::decode::decode;
use source_postgres::relation::{observe_catalog, observe_relation};
use source_postgres::{Frame, Message, SourceError, TableName};
use test_kit::postgres::PostgresOptions;

use crate::support::{
    catalog, end_of, next, next_payload, sql, start, start_with, stream_of, transaction,
    wait_until, words,
};

pub(crate) async fn every_kind_of_change_arrives_in_order(programs: &Path) {
    let server = start(programs);
    let mut admin = sql(&server).await;
    admin
        .query(
            "CREATE TABLE public.a (id int PRIMARY KEY, t text, big text);
             ALTER TABLE public.a ALTER big SET STORAGE EXTERNAL;
             CREATE TABLE public.f (id int PRIMARY KEY, big text);
             ALTER TABLE public.f ALTER big SET STORAGE EXTERNAL;
             ALTER TABLE public.f REPLICA IDENTITY FULL;
             CREATE TABLE public.c (id int PRIMARY KEY, a int REFERENCES public.a)",
        )
        .await
        .unwrap();
    let mut stream = stream_of(&server, "public.a, public.f, public.c").await;
    admin
        .query(
            "BEGIN; INSERT INTO public.a VALUES (1, 'x', repeat('y', 9000)), (2, NULL, '');
             UPDATE public.a SET t = 'z' WHERE id = 1; UPDATE public.a SET id = 3 WHERE id = 1;
             DELETE FROM public.a WHERE id = 2;
             SELECT pg_logical_emit_message(true, 'firn', 'hello'); COMMIT",
        )
        .await
        .unwrap();
    let expected = [
        "begin",
        "relation a (id t big)",
        "insert (1 x [9000])",
        "insert (2 null )",
        "update (1 z unavailable)",
        "update (1 null null) -> (3 z unavailable)",
        "delete (2 null null)",
        "message true firn hello",
        "commit",
    ];
    assert_eq!(transaction(&mut stream).await, expected);

    admin
        .query("INSERT INTO public.f VALUES (1, repeat('y', 9000))")
        .await
        .unwrap();
    admin.query("UPDATE public.f SET id = 2").await.unwrap();
    transaction(&mut stream).await;
    // The old row has the value, the new one has not.
    let update = &transaction(&mut stream).await[1];
    assert_eq!(update, "update (1 [9000]) -> (2 unavailable)");

    admin
        .query("ALTER TABLE public.a RENAME t TO u")
        .await
        .unwrap();
    admin.query("UPDATE public.a SET u = 'v'").await.unwrap();
    let renamed = transaction(&mut stream).await;
    assert_eq!(
        renamed[1..3],
        ["relation a (id u big)", "update (3 v unavailable)"]
    );

    admin
        .query("TRUNCATE public.a RESTART IDENTITY CASCADE")
        .await
        .unwrap();
    let truncated = transaction(&mut stream).await;
    assert_eq!(truncated[truncated.len() - 2], "truncate 2 true true");

    admin
        .query("SELECT pg_logical_emit_message(false, 'firn', 'alone')")
        .await
        .unwrap();
    admin
        .query("INSERT INTO public.c VALUES (1, NULL)")
        .await
        .unwrap();
    assert_eq!(
        words(&next_payload(&mut stream).await),
        "message false firn alone"
    );
    transaction(&mut stream).await;

    admin
        .query("BEGIN; INSERT INTO public.c VALUES (2, NULL); ROLLBACK")
        .await
        .unwrap();
    admin
        .query("INSERT INTO public.c VALUES (3, NULL)")
        .await
        .unwrap();
    let only = transaction(&mut stream).await;
    assert_eq!(only[only.len() - 2], "insert (3 null)");
}

pub(crate) async fn slow_consumer_is_not_dropped_by_the_server(programs: &Path) {
    let hasty = PostgresOptions::default().setting("wal_sender_timeout", "12s");
    let server = start_with(programs, &hasty);
    let mut admin = sql(&server).await;
    admin
        .query("CREATE TABLE public.a (id int PRIMARY KEY, t text)")
        .await
        .unwrap();
    let mut stream = stream_of(&server, "public.a").await;
    // Far more than the stream and the sockets between hold.
    admin
        .query("INSERT INTO public.a SELECT n, repeat('x', 1000) FROM generate_series(1, 60000) n")
        .await
        .unwrap();
    next_payload(&mut stream).await;
    // Nothing is read while the server could give us up twice.
    let log = "SELECT now() > state_change + interval '25 s' FROM pg_stat_activity WHERE query LIKE 'START_REPLICATION%'";
    tokio::time::timeout(Duration::from_secs(40), wait_until(&mut admin, log))
        .await
        .unwrap();

    let mut insert_count = 0;
    loop {
        let frame = match stream.try_next_buffered().unwrap() {
            Some(frame) => frame,
            None => next(&mut stream).await.unwrap(),
        };
        let Frame::Data { payload, .. } = frame else {
            continue;
        };
        match decode(&payload).unwrap() {
            Message::Insert { .. } => insert_count += 1,
            Message::Commit { .. } => break,
            _ => {}
        }
    }
    assert_eq!(insert_count, 60_000);
    assert!(!server.log().unwrap().contains("replication timeout"));
}

pub(crate) async fn publication_dropped_under_the_stream_is_an_error(programs: &Path) {
    let server = start(programs);
    let mut admin = sql(&server).await;
    admin
        .query("CREATE TABLE public.a (id int PRIMARY KEY)")
        .await
        .unwrap();
    let mut stream = stream_of(&server, "public.a").await;
    admin
        .query("INSERT INTO public.a VALUES (1)")
        .await
        .unwrap();
    transaction(&mut stream).await;
    admin.query("DROP PUBLICATION p").await.unwrap();
    admin
        .query("INSERT INTO public.a VALUES (2)")
        .await
        .unwrap();
    let ended = end_of(&mut stream).await;
    assert!(
        matches!(ended, SourceError::PublicationMissing { .. }),
        "{ended:?}"
    );
}

pub(crate) async fn renamed_and_added_columns_keep_their_identity(programs: &Path) {
    let server = start(programs);
    let mut admin = sql(&server).await;
    admin
        .query(
            "CREATE TYPE public.mood AS ENUM ('sad', 'glad');
             CREATE TABLE public.a (id bigint PRIMARY KEY, gone int, t varchar(10), m public.mood);
             ALTER TABLE public.a DROP gone",
        )
        .await
        .unwrap();
    let name = TableName::new("public", "a");
    let before = catalog(&server).await.table(&name).await.unwrap().unwrap();
    let at = |lsn| Position::stream(1, Lsn(lsn), 1);
    let v1 = next_schema(None, &observe_catalog(&before), at(1)).unwrap();
    let shape = |schema: &change_event::SourceSchema| -> Vec<(i32, String)> {
        schema
            .columns
            .iter()
            .map(|column| (column.id, column.lake_name.clone()))
            .collect()
    };
    assert_eq!(
        shape(&v1),
        [(1, "id".into()), (3, "t".into()), (4, "m".into())]
    );

    let mut stream = stream_of(&server, "public.a").await;
    // All of it before the first message is read: the catalog is ahead of the stream.
    admin
        .query("INSERT INTO public.a VALUES (1, 'x', 'glad')")
        .await
        .unwrap();
    admin
        .query("ALTER TABLE public.a RENAME t TO u")
        .await
        .unwrap();
    admin
        .query("INSERT INTO public.a VALUES (2, 'x', 'sad')")
        .await
        .unwrap();
    admin
        .query("ALTER TABLE public.a ADD n numeric(10, 2)")
        .await
        .unwrap();
    admin
        .query("INSERT INTO public.a VALUES (3, 'x', 'sad', 1.50)")
        .await
        .unwrap();
    let after = catalog(&server).await.table(&name).await.unwrap().unwrap();

    let mut schema = v1.clone();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let payload = next_payload(&mut stream).await;
        if let Message::Relation(relation) = decode(&payload).unwrap() {
            let observed = observe_relation(&relation, Some(&after), Some(&schema), false);
            seen.push(observed.inferred);
            if let Some(next) = next_schema(Some(&schema), &observed, at(2)) {
                schema = next;
            }
        }
    }
    assert_eq!(seen, [true, true, false]);
    assert_eq!(
        schema.version, 3,
        "the first message is the shape of the document"
    );
    let expected = [
        (1, "id".into()),
        (3, "u".into()),
        (4, "m".into()),
        (5, "n".into()),
    ];
    assert_eq!(shape(&schema), expected);
    assert!(schema.retired.is_empty() && schema.columns[0].key);
    assert_eq!(schema.columns[2].source_type, "public.mood");
}
