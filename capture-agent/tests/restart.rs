//! Agents that die, agents that meet, and what the topics hold afterwards.

use std::path::Path;

use capture_agent::failpoints;

use crate::bench::Bench;
use crate::topic;

const ISOLATION_LEVELS: [&str; 2] = ["read_committed", "read_uncommitted"];

/// Both tables have a key; the second one is empty when it is copied, so that its changes alone rebuild it.
pub(crate) const TABLES: &str = "CREATE TABLE copied (id bigint PRIMARY KEY, note text);
    INSERT INTO copied SELECT g, 'n' || g FROM generate_series(1, 5000) g;
    CREATE TABLE streamed (id bigint PRIMARY KEY, note text);";

/// Inserts, updates, deletes, a key change, a record by reference, a change of shape and a rolled-back part, in one
/// transaction.
pub(crate) fn changes(round: u32) -> String {
    let from = round * 1000;
    format!(
        "BEGIN; INSERT INTO streamed (id, note) SELECT g, 'n' FROM generate_series({from}, {from} + 299) g;
         UPDATE streamed SET note = 'u' WHERE id BETWEEN {from} AND {from} + 99;
         DELETE FROM streamed WHERE id BETWEEN {from} + 200 AND {from} + 249;
         UPDATE streamed SET id = {from} + 500 WHERE id = {from};
         UPDATE streamed SET note = repeat('x', 5000) WHERE id = {from} + 1;
         ALTER TABLE streamed ADD COLUMN c{round} int;
         UPDATE streamed SET c{round} = {round} WHERE id = {from} + 2;
         SAVEPOINT a; DELETE FROM streamed; ROLLBACK TO a; COMMIT;"
    )
}

pub(crate) fn compare(bench: &Bench) {
    let sql =
        "SELECT id || ':' || coalesce(note, '') FROM streamed ORDER BY id::text COLLATE \"C\"";
    let expected = bench.postgres.sql(sql).expect("the table");
    assert!(!expected.trim().is_empty(), "there is something to compare");
    let servers = bench.kafka.bootstrap_servers();
    for isolation in ISOLATION_LEVELS {
        let copied = topic::read(&servers, &bench.bucket(), "s.public.copied", isolation);
        assert_eq!(copied.copied_rows, 5000, "{isolation}");
        let streamed = topic::read(&servers, &bench.bucket(), "s.public.streamed", isolation);
        let rows = streamed.rows();
        let found: Vec<String> = rows
            .iter()
            .map(|(id, row)| format!("{id}:{}", row["note"].as_str().unwrap_or_default()))
            .collect();
        assert_eq!(found.join("\n"), expected.trim(), "{isolation}");
        if isolation == "read_committed" {
            assert_eq!(streamed.dropped, 0, "nothing committed is committed twice");
        }
    }
}

pub(crate) async fn kill_at_every_failpoint_of_the_copy_doubles_and_loses_nothing(programs: &Path) {
    let Some(bench) = Bench::start(programs).await else {
        return;
    };
    bench.postgres.sql(TABLES).expect("tables");
    let of_the_copy = [
        failpoints::BEFORE_INIT_TRANSACTIONS,
        failpoints::AFTER_INIT_TRANSACTIONS,
        failpoints::AFTER_EPOCH_CLAIM,
        failpoints::AFTER_SLOT_CREATED,
        failpoints::AFTER_COPY_FILE_PUT,
        failpoints::AFTER_COPY_MANIFEST_PUT,
        failpoints::BEFORE_ANNOUNCEMENT_COMMIT,
        failpoints::AFTER_ANNOUNCEMENT_COMMIT,
    ];
    for failpoint in of_the_copy {
        let status = bench.agent(failpoint).ended().await;
        assert_eq!(status.code(), None, "killed at {failpoint}");
    }
    let mut agent = bench.agent("");
    bench.postgres.sql(&changes(1)).expect("changes");
    bench.caught_up().await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    compare(&bench);
}

pub(crate) async fn kill_at_every_failpoint_of_the_stream_doubles_and_loses_nothing(
    programs: &Path,
) {
    let Some(bench) = Bench::start(programs).await else {
        return;
    };
    bench.postgres.sql(TABLES).expect("tables");
    let mut agent = bench.agent("");
    bench
        .until("streaming", || agent.log().contains("\"streaming\""))
        .await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    let of_the_stream = [
        failpoints::AFTER_SCHEMA_PUT,
        failpoints::AFTER_REFERENCE_PUT,
        failpoints::AFTER_PRODUCE,
        failpoints::BEFORE_COMMIT,
        failpoints::AFTER_COMMIT,
        failpoints::AFTER_ACKNOWLEDGE,
    ];
    for (round, failpoint) in (1..).zip(of_the_stream) {
        bench.postgres.sql(&changes(round)).expect("changes");
        let status = bench.agent(failpoint).ended().await;
        assert_eq!(status.code(), None, "killed at {failpoint}");
    }
    let mut agent = bench.agent("");
    bench.caught_up().await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    compare(&bench);
}

pub(crate) async fn second_agent_fences_the_first(programs: &Path) {
    let Some(bench) = Bench::start(programs).await else {
        return;
    };
    bench.postgres.sql(TABLES).expect("tables");
    let mut first = bench.agent("");
    bench
        .until("streaming", || first.log().contains("\"streaming\""))
        .await;
    let mut second = bench.agent("");
    let status = first.ended().await;
    assert_eq!(status.code(), Some(2), "the first halts\n{}", first.log());
    assert!(
        first
            .log()
            .contains("another agent has taken over source s"),
        "{}",
        first.log()
    );
    bench.postgres.sql(&changes(1)).expect("changes");
    bench.caught_up().await;
    assert!(second.stop().await.success(), "{}", second.log());
    compare(&bench);
}

pub(crate) async fn lost_progress_topic_halts_with_words(programs: &Path) {
    let Some(bench) = Bench::start(programs).await else {
        return;
    };
    bench.postgres.sql(TABLES).expect("tables");
    let mut agent = bench.agent("");
    bench
        .until("streaming", || agent.log().contains("\"streaming\""))
        .await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    topic::delete(&bench.kafka.bootstrap_servers(), "s.firn-progress").await;
    let mut agent = bench.agent("");
    assert_eq!(agent.ended().await.code(), Some(2), "{}", agent.log());
    assert!(
        agent.log().contains("holds no progress of it"),
        "{}",
        agent.log()
    );
}

pub(crate) async fn lost_slot_halts_with_words(programs: &Path) {
    let Some(bench) = Bench::start(programs).await else {
        return;
    };
    bench.postgres.sql(TABLES).expect("tables");
    let mut agent = bench.agent("");
    bench
        .until("streaming", || agent.log().contains("\"streaming\""))
        .await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    bench
        .postgres
        .sql("SELECT pg_drop_replication_slot('firn_s')")
        .expect("dropped");
    let mut agent = bench.agent("");
    assert_eq!(agent.ended().await.code(), Some(2));
    assert!(
        agent.log().contains("replication slot firn_s is gone"),
        "{}",
        agent.log()
    );
    let slots = bench
        .postgres
        .sql("SELECT count(*) FROM pg_replication_slots")
        .expect("slots");
    assert_eq!(slots.trim(), "0", "no slot is made in its place");

    // Somebody helps, and makes a slot of that name: what was written meanwhile is in no slot.
    for sql in [
        "CREATE TABLE meanwhile (id int)",
        "SELECT pg_create_logical_replication_slot('firn_s', 'pgoutput')",
    ] {
        bench.postgres.sql(sql).expect("made anew");
    }
    let mut agent = bench.agent("");
    assert_eq!(agent.ended().await.code(), Some(2));
    assert!(
        agent.log().contains("made anew or advanced by others"),
        "{}",
        agent.log()
    );
}
