//! functions/maintain: which slots go, and when.

use std::sync::Arc;

use change_event::Clock;
use function_kit::{Deadline, Metric, Metrics, Registry};
use functions::{NOW_MS, TopicWriter, World, days, hours, minutes};
use ingest::Ingest;
use maintain::{Ages, Maintain, Settings};
use object_io::ObjectStore;
use test_kit::ManualClock;

const RUN: &str = r#"{"maintain":true}"#;
const DRY_RUN: &str = r#"{"maintain":true,"dry_run":true}"#;

/// A table with `batches` of one row each; all are committed if its freshness is 0, else the first is.
async fn staged(world: &World, freshness_seconds: u32, batches: i64) -> (TopicWriter, Ingest) {
    let topic = world.announce("orders", 1, freshness_seconds).await;
    let (mut agent, ingest) = (TopicWriter::new(&topic, 0), world.ingest());
    for id in 1..=batches {
        assert_eq!(world.deliver(&ingest, &[agent.insert(id, "a")]).await, []);
    }
    (agent, ingest)
}

/// Offsets that the slots of partition 0 begin at, with their incarnation.
async fn slots(world: &World) -> Vec<(u32, i64)> {
    let keys = world.keys("control/i/").await;
    let place = |key: &String| {
        let parts: Vec<&str> = key.split('/').collect();
        (parts[4].parse().unwrap(), parts[6].parse().unwrap())
    };
    keys.iter().map(place).collect()
}

#[tokio::test]
async fn slot_goes_when_it_was_committed_a_day_ago_and_is_a_week_old() {
    let world = World::new();
    let (mut agent, warm) = staged(&world, 0, 3).await;
    assert_eq!(world.maintain(RUN).await.counts.removed_slots, 0);
    world.clock.advance_ms(days(7) - 1);
    assert_eq!(world.maintain(RUN).await.counts.removed_slots, 0);
    world.clock.advance_ms(1);
    let dry = world.maintain(DRY_RUN).await;
    assert_eq!((dry.counts.old_slots, dry.counts.removed_slots), (2, 0));
    assert_eq!(world.maintain(RUN).await.counts.removed_slots, 2);
    // The newest stays.
    assert_eq!(slots(&world).await, [(1, 2)]);
    assert_eq!(world.sum(Metric::RemovedSlotsTotal), 2);
    for (ingest, id) in [(warm, 4), (world.ingest(), 5)] {
        assert_eq!(world.deliver(&ingest, &[agent.insert(id, "a")]).await, []);
    }
    assert_eq!(world.ids_in("orders").await, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn uncommitted_slot_stays_however_old_it_is() {
    let world = World::new();
    staged(&world, 3600, 3).await;
    for _ in 0..6 {
        world.maintain(RUN).await;
        world.clock.advance_ms(days(5));
    }
    assert_eq!(slots(&world).await, [(1, 1), (1, 2)]);
    world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(world.ids_in("orders").await, ["1", "2", "3"]);
}

#[tokio::test]
async fn old_slot_that_is_committed_only_now_stays_for_another_day() {
    let world = World::new();
    staged(&world, 3600, 3).await;
    world.maintain(RUN).await;
    world.clock.advance_ms(days(8));
    // A function may have loaded the table before this, and be about to walk from its frontier.
    world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(world.maintain(RUN).await.counts.removed_slots, 1);
    assert_eq!(slots(&world).await, [(1, 1), (1, 2)]);
    world.clock.advance_ms(hours(24) - 1);
    assert_eq!(world.maintain(RUN).await.counts.removed_slots, 0);
    world.clock.advance_ms(1);
    assert_eq!(world.maintain(RUN).await.counts.removed_slots, 1);
}

#[tokio::test]
async fn age_is_judged_by_the_stores_clock() {
    let world = World::new();
    staged(&world, 0, 3).await;
    world.maintain(RUN).await;
    world.clock.advance_ms(days(2));
    let ahead: Arc<dyn Clock> = Arc::new(ManualClock::new(NOW_MS + days(365)));
    let store = Arc::clone(&world.store) as Arc<dyn ObjectStore>;
    let ports = maintain::Ports {
        registry: Registry::new(Arc::clone(&store)),
        store,
        committer: world.committer.clone(),
        clock: Arc::clone(&ahead),
        metrics: Metrics::new(
            "maintain",
            Arc::clone(&ahead),
            Arc::new(world.metrics.clone()),
        ),
    };
    let settings = Settings {
        ages: Ages::default(),
        removals_max: 100,
    };
    let deadline = Deadline::after(minutes(14), ahead.as_ref());
    let function = Maintain::new(ports, settings);
    let summary = function.handle(RUN.as_bytes(), deadline).await.unwrap();
    assert_eq!((summary.done, summary.counts.removed_slots), (1, 0));
    assert_eq!(slots(&world).await.len(), 3);
}

#[tokio::test]
async fn sealed_chain_of_an_older_incarnation_goes_but_for_its_last_slot() {
    let world = World::new();
    let (mut agent, ingest) = staged(&world, 0, 2).await;
    agent.recreate();
    for id in 3..5 {
        assert_eq!(world.deliver(&ingest, &[agent.insert(id, "a")]).await, []);
    }
    assert_eq!(
        slots(&world).await,
        [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)]
    );
    world.maintain(RUN).await;
    world.clock.advance_ms(days(7));
    assert_eq!(world.maintain(RUN).await.counts.removed_slots, 3);
    assert_eq!(slots(&world).await, [(1, 2), (2, 1)]);
}

#[tokio::test]
async fn table_that_was_set_back_since_its_note_keeps_its_slots() {
    let world = World::new();
    staged(&world, 0, 3).await;
    world.maintain(RUN).await;
    let notes = world.keys("control/maintain/frontier/").await;
    let note = world.store.get(&notes[0]).await.unwrap().unwrap();
    let note = String::from_utf8(note.to_vec()).unwrap();
    // Further than the table is; and of a table that no operator had set back yet.
    for other in [
        note.replace("\"offset\":3", "\"offset\":4"),
        note.replace("\"partitions\"", "\"acts\":\"[]\",\"partitions\""),
        "{}".to_owned(),
    ] {
        assert_ne!(other, note);
        world.store.put(&notes[0], other.into()).await.unwrap();
        world.clock.advance_ms(days(8));
        assert_eq!(world.maintain(RUN).await.counts.removed_slots, 0);
        assert_eq!(
            world.store.get(&notes[0]).await.unwrap(),
            Some(note.clone().into())
        );
    }
    world.clock.advance_ms(days(1));
    assert_eq!(world.maintain(RUN).await.counts.removed_slots, 2);
}

#[tokio::test]
async fn slots_of_dropped_tables_and_strangers_stay() {
    let world = World::new();
    staged(&world, 0, 3).await;
    for stranger in [
        "control/i/x/y/0000000001/00000/00000000000000000000",
        "control/i/readme",
    ] {
        world.store.put(stranger, "x".into()).await.unwrap();
    }
    world.maintain(RUN).await;
    world.drop_table("orders");
    let before = world.keys("control/i/").await;
    world.clock.advance_ms(days(30));
    world.maintain(RUN).await;
    assert_eq!(world.keys("control/i/").await, before);
}

#[tokio::test]
async fn bound_of_a_run_is_kept_and_the_next_one_goes_on() {
    let world = World::new();
    staged(&world, 0, 6).await;
    world.maintain(RUN).await;
    world.clock.advance_ms(days(7));
    let settings = Settings {
        ages: Ages::default(),
        removals_max: 2,
    };
    for left in [4, 2, 1, 1] {
        let deadline = world.deadline(minutes(14));
        let function = world.maintainer(settings);
        let summary = function.handle(RUN.as_bytes(), deadline).await.unwrap();
        assert!(summary.counts.removed_slots <= 2, "{summary:?}");
        assert_eq!(slots(&world).await.len(), left);
    }
}
