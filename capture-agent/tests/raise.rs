//! The number of partitions is raised, by agents that die on the way.

use std::path::Path;

use capture_agent::failpoints;

use crate::bench::Bench;
use crate::restart::{TABLES, changes, compare};
use crate::topic;

pub(crate) async fn kill_at_every_failpoint_of_a_raise_keeps_each_change_once_and_each_key_in_order(
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
    let of_a_raise = [
        failpoints::AFTER_PARTITIONS_CREATED,
        failpoints::AFTER_MAP_REGISTERED,
        failpoints::AFTER_BARRIERS_SENT,
        failpoints::AFTER_BARRIERS_COMMIT,
    ];
    for (round, failpoint) in (1..).zip(of_a_raise) {
        // By the map as it is: at the broker, and never committed. It is sent again after the raise.
        bench.postgres.sql(&changes(round)).expect("changes");
        let status = bench.agent(failpoints::BEFORE_COMMIT).ended().await;
        assert_eq!(status.code(), None, "killed with map {round}");
        bench.partitions.set(2 + round);
        let status = bench.agent(failpoint).ended().await;
        assert_eq!(status.code(), None, "killed at {failpoint}");
    }
    let mut agent = bench.agent("");
    bench.postgres.sql(&changes(9)).expect("changes");
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
    assert!(
        streamed.by_map.len() > 2,
        "several maps wrote: {:?}",
        streamed.by_map
    );
    assert_eq!(streamed.partitions_used, 6);
}

pub(crate) async fn lower_number_of_partitions_halts_with_words(programs: &Path) {
    let Some(bench) = Bench::start(programs).await else {
        return;
    };
    bench.postgres.sql(TABLES).expect("tables");
    let mut agent = bench.agent("");
    bench
        .until("streaming", || agent.log().contains("\"streaming\""))
        .await;
    assert!(agent.stop().await.success(), "{}", agent.log());
    bench.partitions.set(1);
    let mut agent = bench.agent("");
    assert_eq!(agent.ended().await.code(), Some(2));
    assert!(
        agent.log().contains("partitions cannot be taken away"),
        "{}",
        agent.log()
    );
}
