//! Tables that come, leave and are copied anew while the agent streams.

use std::path::Path;

use capture_agent::failpoints;
use change_event::{CopyAnswer, CopyRequest, layout};

use crate::bench::Bench;
use crate::topic::{self, Accepted};

const TABLES: &str = "CREATE TABLE copied (id bigint PRIMARY KEY, note text);
    INSERT INTO copied SELECT g, 'n' || g FROM generate_series(1, 2000) g;
    CREATE TABLE streamed (id bigint PRIMARY KEY, note text); INSERT INTO streamed VALUES (0, 'first');";

const LATE: &str = "BEGIN; CREATE TABLE late (id bigint PRIMARY KEY, note text);
    INSERT INTO late SELECT g, 'n' || g FROM generate_series(1, 1000) g; COMMIT;";

/// Changes of a table with the columns `id` and `note`: rows come, change, change their key and go.
fn changes(table: &str, round: u32) -> String {
    let from = 10_000 + round * 100;
    format!(
        "BEGIN; INSERT INTO {table} SELECT g, 'r' FROM generate_series({from}, {from} + 49) g;
         UPDATE {table} SET note = 'u{round}' WHERE id % 7 = {round} % 7;
         UPDATE {table} SET id = id + 5000000 WHERE id IN ({from}, {from} + 1);
         DELETE FROM {table} WHERE id IN ({from} + 2, {from} + 3); COMMIT;"
    )
}

fn change(bench: &Bench, tables: &[&str], round: u32) {
    for table in tables {
        bench.postgres.sql(&changes(table, round)).expect("changes");
    }
}

async fn first_copy(bench: &Bench) {
    bench.postgres.sql(TABLES).expect("tables");
    let mut agent = bench.agent("");
    bench
        .until("streaming", || agent.log().contains("\"streaming\""))
        .await;
    assert!(agent.stop().await.success(), "{}", agent.log());
}

fn read(bench: &Bench, table: &str, isolation: &str) -> Accepted {
    let servers = bench.kafka.bootstrap_servers();
    let topic = format!("s.public.{table}");
    topic::read(&servers, &bench.bucket(), &topic, isolation)
}

/// Folds what the topic holds, at both isolation levels, and holds it against the table; gives the number of its copies.
fn compare(bench: &Bench, table: &str, has_hole: bool) -> usize {
    let sql = format!("SELECT id || ':' || coalesce(note, '') FROM {table}");
    let answer = bench.postgres.sql(&sql).expect("the table");
    let expected: topic::Rows = answer
        .lines()
        .filter_map(|line| line.trim().split_once(':'))
        .map(|(id, note)| (id.to_owned(), note.to_owned()))
        .collect();
    let mut copies = 0;
    for isolation in ["read_committed", "read_uncommitted"] {
        let accepted = read(bench, table, isolation);
        assert_eq!(accepted.folded(has_hole), expected, "{table} {isolation}");
        copies = accepted.copies.len();
        if isolation == "read_committed" {
            assert_eq!(accepted.dropped, 0, "nothing committed is committed twice");
        }
    }
    copies
}

fn ask(bench: &Bench, id: &str, topic: &str) {
    let request = CopyRequest {
        topic: topic.to_owned(),
        requested_by: "test".to_owned(),
        requested_ms: 0,
    };
    let path = bench.bucket().join(layout::copy_request("s", id));
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(path, serde_json::to_vec(&request).expect("JSON")).expect("written");
}

fn answer(bench: &Bench, id: &str) -> Option<CopyAnswer> {
    let path = bench.bucket().join(layout::copy_answer("s", id));
    let body = std::fs::read(path).ok()?;
    Some(serde_json::from_slice(&body).expect("an answer"))
}

/// Whether every table that owes a copy has one.
fn is_paid(bench: &Bench) -> bool {
    let folder = bench.bucket().join(layout::captured_tables("s"));
    let Ok(tables) = std::fs::read_dir(folder) else {
        return false;
    };
    let names = |table: std::fs::DirEntry| -> Vec<String> {
        let files = std::fs::read_dir(table.path()).expect("a folder");
        files
            .map(|file| {
                file.expect("a file")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect()
    };
    let mut all = tables.map(|table| names(table.expect("a folder")));
    all.all(|names| {
        let of = |kind: &str| names.iter().filter(|name| name.starts_with(kind)).count();
        of("owed") == of("paid")
    })
}

pub(crate) async fn new_table_is_taken_in_and_copied_while_the_stream_goes_on(programs: &Path) {
    let Some(bench) = Bench::start(programs).await else {
        return;
    };
    first_copy(&bench).await;
    let mut agent = bench.agent("");
    bench
        .until("streaming", || {
            agent.log().matches("\"streaming\"").count() > 1
        })
        .await;
    bench.postgres.sql(LATE).expect("a table");
    // One that is unfit, one that goes away at once, and a captured one that goes away.
    bench
        .postgres
        .sql("CREATE TABLE unfit (note text); CREATE TABLE gone (id int PRIMARY KEY); DROP TABLE streamed")
        .expect("tables");
    let mut round = 0;
    let deadline = tokio::time::Instant::now() + crate::bench::PATIENCE * 2;
    while !is_paid(&bench) {
        assert!(tokio::time::Instant::now() < deadline, "{}", agent.log());
        round += 1;
        change(&bench, &["late", "copied"], round);
    }
    change(&bench, &["late", "copied"], round + 1);
    bench.postgres.sql("DROP TABLE gone").expect("dropped");
    bench.caught_up().await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    assert_eq!(compare(&bench, "late", false), 1);
    assert_eq!(compare(&bench, "copied", false), 1);
    let log = agent.log();
    assert!(log.contains("public.unfit"), "{log}");
    assert!(
        log.contains("a captured table was dropped at the source"),
        "{log}"
    );
}

pub(crate) async fn kill_at_every_failpoint_of_a_later_copy_doubles_and_loses_nothing(
    programs: &Path,
) {
    let Some(bench) = Bench::start(programs).await else {
        return;
    };
    first_copy(&bench).await;
    bench.postgres.sql(LATE).expect("a table");
    let of_a_new_table = [
        failpoints::AFTER_COPY_OWED,
        failpoints::AFTER_TABLE_PUBLISHED,
        failpoints::AFTER_COPY_CLAIM,
        failpoints::AFTER_SLOT_CREATED,
        failpoints::AFTER_COPY_FILE_PUT,
        failpoints::AFTER_COPY_MANIFEST_PUT,
        failpoints::BEFORE_ANNOUNCEMENT_COMMIT,
        failpoints::AFTER_ANNOUNCEMENT_COMMIT,
    ];
    for (round, failpoint) in (1..).zip(of_a_new_table) {
        change(&bench, &["late", "streamed"], round);
        let status = bench.agent(failpoint).ended().await;
        assert_eq!(status.code(), None, "killed at {failpoint}");
    }
    for (id, topic) in [("a", "copied"), ("b", "copied"), ("c", "nothing")] {
        ask(&bench, id, &format!("s.public.{topic}"));
    }
    let of_a_request = [
        failpoints::AFTER_COPY_CLAIM,
        failpoints::AFTER_SLOT_CREATED,
        failpoints::AFTER_COPY_FILE_PUT,
        failpoints::AFTER_COPY_MANIFEST_PUT,
        failpoints::BEFORE_ANNOUNCEMENT_COMMIT,
        failpoints::AFTER_ANNOUNCEMENT_COMMIT,
    ];
    for (round, failpoint) in (20..).zip(of_a_request) {
        change(&bench, &["late", "copied", "streamed"], round);
        let status = bench.agent(failpoint).ended().await;
        assert_eq!(status.code(), None, "killed at {failpoint}");
    }
    let mut agent = bench.agent("");
    change(&bench, &["late", "copied", "streamed"], 40);
    bench
        .until("answers", || {
            ["a", "b", "c"]
                .iter()
                .all(|id| answer(&bench, id).is_some())
        })
        .await;
    bench.caught_up().await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    assert!(is_paid(&bench), "what was announced is written down");
    assert_eq!(
        compare(&bench, "late", false),
        1,
        "an interrupted copy is no copy"
    );
    assert_eq!(compare(&bench, "copied", false), 2);
    assert_eq!(compare(&bench, "streamed", false), 1);
    check_answers(&bench);
}

/// One copy answers both requests for it, and what cannot be done is refused.
fn check_answers(bench: &Bench) {
    let Some(CopyAnswer::Copied {
        copy_id,
        copy_lsn,
        row_count,
    }) = answer(bench, "a")
    else {
        panic!("{:?}", answer(bench, "a"));
    };
    let copied = read(bench, "copied", "read_committed");
    let (at, rows) = copied.copies.last_key_value().expect("a copy");
    assert_eq!((*at, rows.len() as u64), (copy_lsn, row_count));
    assert!(
        copy_id > 2,
        "numbers of interrupted copies are not given again"
    );
    assert_eq!(
        answer(bench, "b"),
        answer(bench, "a"),
        "one copy answers both"
    );
    assert!(matches!(
        answer(bench, "c"),
        Some(CopyAnswer::Refused { .. })
    ));
}

pub(crate) async fn table_that_left_the_publication_is_shown_and_stops_no_other(programs: &Path) {
    let Some(bench) = Bench::start(programs).await else {
        return;
    };
    first_copy(&bench).await;
    bench
        .postgres
        .sql("ALTER PUBLICATION firn_s DROP TABLE copied")
        .expect("left");
    change(&bench, &["copied", "streamed"], 1);
    let mut agent = bench.agent("");
    bench
        .until("it is shown", || {
            agent.log().contains("it left publication firn_s")
        })
        .await;
    change(&bench, &["copied", "streamed"], 2);
    bench.caught_up().await;
    assert!(!is_paid(&bench), "nothing is done before somebody asks");
    assert!(agent.stop().await.success(), "{}", agent.log());
    assert_eq!(compare(&bench, "streamed", false), 1);
    ask(&bench, "a", "s.public.copied");
    let mut agent = bench.agent("");
    bench
        .until("an answer", || answer(&bench, "a").is_some())
        .await;
    change(&bench, &["copied", "streamed"], 3);
    bench.caught_up().await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    assert!(is_paid(&bench));
    assert_eq!(compare(&bench, "copied", true), 2);
    assert_eq!(compare(&bench, "streamed", false), 1);
}
