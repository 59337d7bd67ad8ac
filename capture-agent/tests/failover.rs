//! The source is switched over to a promoted standby, which has all that we delivered, or has not.

use std::path::Path;

use capture_agent::failpoints;
use test_kit::postgres::{PostgresOptions, PostgresServer};

use crate::bench::Bench;
use crate::restart::{TABLES, changes, compare};
use crate::topic;

const STANDBY_SLOT: &str = "SELECT pg_create_physical_replication_slot('standby', true)";

/// A standby that follows the bench's server.
fn standby_of(bench: &Bench, programs: &Path) -> PostgresServer {
    bench.postgres.sql(STANDBY_SLOT).expect("a slot");
    let options = PostgresOptions::default()
        .setting("primary_slot_name", "standby")
        .setting("hot_standby_feedback", "on");
    PostgresServer::standby(programs, &options, &bench.postgres).expect("a standby")
}

/// Waits until the standby has replayed what the primary has written.
async fn replayed(bench: &Bench, standby: &PostgresServer) {
    let end = bench
        .postgres
        .sql("SELECT pg_current_wal_lsn()")
        .expect("a position");
    let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{}'", end.trim());
    bench
        .until("the standby follows", || {
            standby.sql(&sql).is_ok_and(|answer| answer.trim() == "t")
        })
        .await;
}

/// Copies the agent's slot to the standby, as its own worker would from time to time. The agent must run: the slot has to
/// come to where the standby could begin.
async fn slot_synced(bench: &Bench, standby: &PostgresServer) {
    let there =
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'firn_s' AND NOT temporary";
    bench
        .until("the slot is on the standby", || {
            // Where the standby is behind the slot, it says so and keeps it for the next try.
            drop(bench.postgres.sql("SELECT pg_log_standby_snapshot()"));
            drop(standby.sql("SELECT pg_sync_replication_slots()"));
            standby.sql(there).is_ok_and(|answer| answer.trim() == "1")
        })
        .await;
}

fn has_failover_slots(bench: &Bench) -> bool {
    let sql = "SELECT current_setting('server_version_num')::int >= 170000";
    bench.postgres.sql(sql).expect("a version").trim() == "t"
}

pub(crate) async fn promoted_standby_goes_on_where_the_primary_ended(programs: &Path) {
    let Some(mut bench) = Bench::start(programs).await else {
        return;
    };
    if !has_failover_slots(&bench) {
        eprintln!("skipped: slots of standbys came with PostgreSQL 17");
        return;
    }
    bench.postgres.sql(TABLES).expect("tables");
    let standby = standby_of(&bench, programs);
    let mut agent = bench.agent("");
    bench
        .until("streaming", || agent.log().contains("\"streaming\""))
        .await;
    bench.postgres.sql(&changes(1)).expect("changes");
    bench.caught_up().await;
    slot_synced(&bench, &standby).await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    // Delivered and not committed, whole on the standby: these positions come again.
    bench.postgres.sql(&changes(2)).expect("changes");
    let status = bench.agent(failpoints::BEFORE_COMMIT).ended().await;
    assert_eq!(status.code(), None, "killed before the commit");
    replayed(&bench, &standby).await;

    drop(std::mem::replace(&mut bench.postgres, standby));
    let mut agent = bench.agent("");
    bench
        .until("waiting", || agent.log().contains("s is a standby"))
        .await;
    bench.postgres.promote().expect("promoted");
    bench.postgres.sql(&changes(3)).expect("changes");
    bench.caught_up().await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    compare(&bench);
    let servers = bench.kafka.bootstrap_servers();
    let streamed = topic::read(
        &servers,
        &bench.bucket(),
        "s.public.streamed",
        "read_committed",
    );
    let incarnation = |position: &change_event::Position| position.incarnation;
    let positions = || streamed.changes.iter().map(|(position, _)| position);
    assert_eq!(positions().map(incarnation).min(), Some(1));
    assert_eq!(positions().map(incarnation).max(), Some(2));

    // And once more on the same server: it is the one that progress speaks of now.
    let mut agent = bench.agent("");
    bench.postgres.sql(&changes(4)).expect("changes");
    bench.caught_up().await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    compare(&bench);
}

pub(crate) async fn change_behind_the_switch_point_halts_with_words(programs: &Path) {
    let Some(mut bench) = Bench::start(programs).await else {
        return;
    };
    bench.postgres.sql(TABLES).expect("tables");
    let standby = standby_of(&bench, programs);
    let mut agent = bench.agent("");
    bench
        .until("streaming", || agent.log().contains("\"streaming\""))
        .await;
    bench.postgres.sql(&changes(1)).expect("changes");
    bench.caught_up().await;
    replayed(&bench, &standby).await;
    // The standby hears no more of the primary, which goes on.
    standby.stop().expect("stopped");
    bench.postgres.sql(&changes(2)).expect("changes");
    bench.caught_up().await;
    assert!(agent.stop().await.success(), "{}", agent.log());

    drop(std::mem::replace(&mut bench.postgres, standby));
    bench.postgres.restart().expect("started");
    bench.postgres.promote().expect("promoted");
    let mut agent = bench.agent("");
    assert_eq!(agent.ended().await.code(), Some(2), "{}", agent.log());
    assert!(
        agent.log().contains("Source failed over"),
        "{}",
        agent.log()
    );
}
