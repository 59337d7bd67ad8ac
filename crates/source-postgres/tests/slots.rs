//! Slots: created by hand only, acknowledged, missing, in use, lost.

use std::path::Path;

use change_event::disposition::Disposition;
use source_postgres::catalog::WalStatus;
use source_postgres::{Frame, SourceError};
use test_kit::postgres::PostgresOptions;

use crate::support::{
    catalog, end_of, from_slot, major_version, next, next_payload, replication, sql, start,
    start_with, stream_of, wait_until,
};

pub(crate) async fn acknowledged_keepalive_moves_an_idle_slot(programs: &Path) {
    let server = start(programs);
    let mut admin = sql(&server).await;
    admin
        .query("CREATE TABLE public.a (id int PRIMARY KEY); CREATE TABLE public.b (t text)")
        .await
        .unwrap();
    let mut stream = stream_of(&server, "public.a").await;
    let acknowledger = stream.acknowledger();

    // Log that nothing of it is for the stream.
    admin
        .query("INSERT INTO public.b SELECT repeat('x', 100) FROM generate_series(1, 10000)")
        .await
        .unwrap();
    let tip = catalog(&server).await.current_wal_lsn().await.unwrap();
    loop {
        if let Frame::KeepAlive { wal_end, .. } = next(&mut stream).await.unwrap() {
            acknowledger.acknowledge(wal_end);
            if wal_end >= tip {
                break;
            }
        }
    }
    let question = format!(
        "SELECT confirmed_flush_lsn >= '{tip}' FROM pg_replication_slots WHERE slot_name = 's'"
    );
    wait_until(&mut admin, &question).await;

    // The last acknowledgement leaves with the stream.
    admin
        .query("INSERT INTO public.a VALUES (1)")
        .await
        .unwrap();
    next_payload(&mut stream).await;
    let tip = catalog(&server).await.current_wal_lsn().await.unwrap();
    acknowledger.acknowledge(tip);
    stream.stop().await;
    wait_until(&mut admin, &format!(
        "SELECT NOT active AND confirmed_flush_lsn >= '{tip}' FROM pg_replication_slots WHERE slot_name = 's'"
    ))
    .await;
}

pub(crate) async fn missing_slot_is_an_error_and_is_not_created(programs: &Path) {
    let server = start(programs);
    let mut admin = sql(&server).await;
    admin.query("CREATE PUBLICATION p").await.unwrap();
    let error = replication(&server)
        .await
        .start_replication(&from_slot("gone"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, SourceError::SlotMissing { .. }),
        "{error:?}"
    );
    assert_eq!(error.disposition(), Disposition::Halt);
    assert_eq!(
        catalog(&server).await.slot_state("gone").await.unwrap(),
        None
    );
    assert!(
        admin
            .query("SELECT 1 FROM pg_replication_slots")
            .await
            .unwrap()
            .is_empty()
    );
}

pub(crate) async fn slot_in_use_and_slot_lost_are_told_apart(programs: &Path) {
    let small = PostgresOptions::default()
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("max_wal_size", "32MB")
        .setting("min_wal_size", "32MB")
        .setting("max_replication_slots", "1");
    let server = start_with(programs, &small);
    let mut admin = sql(&server).await;
    admin
        .query("CREATE TABLE public.a (id int PRIMARY KEY)")
        .await
        .unwrap();
    let mut stream = stream_of(&server, "public.a").await;

    let state = catalog(&server)
        .await
        .slot_state("s")
        .await
        .unwrap()
        .unwrap();
    assert!(
        state.active && state.active_pid.is_some() && !state.is_lost(),
        "{state:?}"
    );
    assert_eq!(state.wal_status, Some(WalStatus::Reserved));
    let busy = replication(&server)
        .await
        .start_replication(&from_slot("s"))
        .await
        .unwrap_err();
    assert!(matches!(busy, SourceError::SlotActive { .. }), "{busy:?}");
    assert_eq!(busy.disposition(), Disposition::Retry);
    let taken = replication(&server)
        .await
        .create_slot("s")
        .await
        .unwrap_err();
    assert!(matches!(taken, SourceError::SlotExists { .. }), "{taken:?}");
    let full = replication(&server)
        .await
        .create_slot("t")
        .await
        .unwrap_err();
    assert!(matches!(full, SourceError::NoFreeSlot { .. }), "{full:?}");

    // More log than the slot may hold, then a checkpoint: the server gives the slot up, and the stream with it.
    for _ in 0..4 {
        admin
            .query(
                "SELECT pg_switch_wal(); CREATE TABLE public.x (); DROP TABLE public.x; CHECKPOINT",
            )
            .await
            .unwrap();
    }
    wait_until(
        &mut admin,
        "SELECT wal_status = 'lost' AND NOT active FROM pg_replication_slots",
    )
    .await;
    let ended = end_of(&mut stream).await;
    assert_eq!(ended.disposition(), Disposition::Retry, "{ended:?}");
    let lost = replication(&server)
        .await
        .start_replication(&from_slot("s"))
        .await
        .unwrap_err();
    assert!(matches!(lost, SourceError::SlotLost { .. }), "{lost:?}");
    assert_eq!(lost.disposition(), Disposition::Halt);
    let state = catalog(&server)
        .await
        .slot_state("s")
        .await
        .unwrap()
        .unwrap();
    assert!(state.is_lost(), "{state:?}");
    // Known since PostgreSQL 17.
    let reason = (major_version(&server).await >= 17).then_some("wal_removed");
    assert_eq!(state.invalidation_reason.as_deref(), reason);
}

pub(crate) async fn server_that_goes_away_ends_the_stream_with_a_retry(programs: &Path) {
    let server = start(programs);
    sql(&server)
        .await
        .query("CREATE TABLE public.a (id int PRIMARY KEY)")
        .await
        .unwrap();
    let mut stream = stream_of(&server, "public.a").await;
    let restarting = tokio::task::spawn_blocking(move || {
        server.restart().unwrap();
        server
    });
    let ended = end_of(&mut stream).await;
    assert_eq!(ended.disposition(), Disposition::Retry, "{ended:?}");
    assert!(matches!(
        stream.next().await,
        Err(SourceError::ConnectionClosed)
    ));

    let server = restarting.await.unwrap();
    let mut stream = replication(&server)
        .await
        .start_replication(&from_slot("s"))
        .await
        .unwrap();
    sql(&server)
        .await
        .query("INSERT INTO public.a VALUES (1)")
        .await
        .unwrap();
    next_payload(&mut stream).await;
}
