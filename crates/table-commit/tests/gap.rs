//! An operator accepts a gap: what the partition takes then, and what races leave.

use std::sync::Arc;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use change_event::{CopyAnswer, Lsn, Position, Predecessor, RecordHeader, RecordKind};
use object_io::{ListPage, ObjectError, ObjectStore, PutOutcome};
use table_commit::act::acts;
use table_commit::recopy::{CopyState, subject_of_gap};
use table_commit::{
    ActKind, Chain, CombineOutcome, CommitError, Committer, Frontier, GapOutcome, GapPlace, Intent,
    Operator, RecordIdentity, SlotOutcome, Verdict, judge,
};
use test_kit::{FaultPlan, FaultyCatalog, FaultyStore, SeededIds};

use crate::commit::{combine, stage, world};
use crate::support::{NOW_MS, World, name, registration};

pub(crate) fn operator() -> Operator {
    Operator {
        by: "ada".to_owned(),
        why: "retention was too short".to_owned(),
    }
}

fn record(offset: i64, epoch: u64, pseq: u64, predecessor: Option<Predecessor>) -> RecordIdentity {
    let header = RecordHeader {
        kind: RecordKind::Change,
        topic_incarnation: 1,
        schema_version: 1,
        epoch,
        pseq,
        predecessor,
        position: Position::stream(1, Lsn(1_000 + pseq), 1),
    };
    RecordIdentity {
        offset,
        header: Some(header),
    }
}

fn place_of(tail: &Frontier, record: &RecordIdentity) -> GapPlace {
    match judge(tail, record) {
        Verdict::Gap(gap) => GapPlace::of(0, &gap),
        other => panic!("no gap but {other:?}"),
    }
}

async fn tail(world: &World) -> Frontier {
    let table = world.table().await;
    let frontier = table.frontier(0).unwrap();
    table
        .chain(0)
        .walk(world.store.as_ref(), frontier, 99)
        .await
        .unwrap()
        .tail
}

async fn accept(world: &World, place: &GapPlace) -> GapOutcome {
    world
        .committer
        .accept_gap(&name(), place, &operator())
        .await
        .unwrap()
}

#[tokio::test]
async fn accepted_gap_lets_the_partition_go_on_with_the_record_that_showed_it() {
    let world = world().await;
    // Three rows are there; numbers 4 and 5 are missing, or a whole epoch, or the beginning of one.
    let missing = |epoch, pseq, predecessor: Option<u64>| {
        let predecessor = predecessor.map(|pseq| Predecessor { epoch: 1, pseq });
        record(10, epoch, pseq, predecessor)
    };
    for (index, found) in [
        missing(1, 6, None),
        missing(2, 1, Some(9)),
        missing(3, 4, None),
    ]
    .iter()
    .enumerate()
    {
        let world = if index == 0 {
            world.clone()
        } else {
            crate::commit::world().await
        };
        let before = stage(&world, 0, "a", 3, 1).await;
        let place = place_of(&before, found);
        let GapOutcome::Stands { after, .. } =
            world.committer.examine_gap(&name(), &place).await.unwrap()
        else {
            panic!("it stands")
        };
        assert_eq!(tail(&world).await, before, "a look changes nothing");
        assert!(matches!(
            accept(&world, &place).await,
            GapOutcome::Accepted { .. }
        ));
        assert_eq!(tail(&world).await, after);
        assert_eq!(judge(&after, found), Verdict::Accept { row: true });
        assert_eq!((after.offset, after.stream), (10, before.stream));

        // Again, while it is staged and after it was committed.
        assert_eq!(
            accept(&world, &place).await,
            GapOutcome::AcceptedBefore(operator())
        );
        assert!(matches!(
            combine(&world).await,
            CombineOutcome::Committed(_)
        ));
        assert_eq!(
            accept(&world, &place).await,
            GapOutcome::AcceptedBefore(operator())
        );
        let table = world.table().await;
        assert_eq!(table.frontier(0), Some(&after));
        let written = acts(&table.metadata);
        assert_eq!(written.len(), 1);
        assert_eq!(
            (&written[0].kind, &written[0].operator, written[0].at_ms),
            (&ActKind::GapAccepted(place), &operator(), NOW_MS)
        );
    }
}

#[tokio::test]
async fn gap_without_an_offset_between_is_accepted_too() {
    let world = world().await;
    let before = stage(&world, 0, "a", 3, 1).await;
    // The broker lost what was written last, and gave the same offsets again.
    let mut found = record(before.offset, 2, 1, None);
    found.header.as_mut().unwrap().predecessor = Some(Predecessor { epoch: 1, pseq: 9 });
    let place = place_of(&before, &found);
    assert!(matches!(
        accept(&world, &place).await,
        GapOutcome::Accepted { .. }
    ));
    let after = tail(&world).await;
    assert_eq!((after.offset, after.gaps_accepted), (before.offset, 1));
    assert_eq!(judge(&after, &found), Verdict::Accept { row: true });
    let next = stage(&world, 0, "b", 2, 1).await;
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    assert_eq!(world.table().await.frontier(0), Some(&next));
}

#[tokio::test]
async fn gap_that_closed_between_look_and_acceptance_is_left_alone() {
    let world = world().await;
    let before = stage(&world, 0, "a", 3, 1).await;
    let place = place_of(&before, &record(10, 1, 6, None));
    assert!(matches!(
        world.committer.examine_gap(&name(), &place).await.unwrap(),
        GapOutcome::Stands { .. }
    ));
    let passed = stage(&world, 0, "late", 1, 1).await;
    assert_eq!(
        accept(&world, &place).await,
        GapOutcome::Passed { tail: passed }
    );
    assert_eq!(tail(&world).await, passed);
    let next = place_of(&passed, &record(10, 1, 6, None));
    let made_anew = GapPlace {
        incarnation: 2,
        ..next
    };
    assert!(matches!(
        accept(&world, &made_anew).await,
        GapOutcome::Passed { .. }
    ));
    let none = GapPlace {
        found: Predecessor { epoch: 1, pseq: 5 },
        ..next
    };
    assert_eq!(accept(&world, &none).await, GapOutcome::NoGap);
    let unknown = GapPlace {
        partition: 9,
        ..next
    };
    let error = world
        .committer
        .examine_gap(&name(), &unknown)
        .await
        .unwrap_err();
    assert!(
        matches!(error, CommitError::NotRegistered { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn commit_between_look_and_acceptance_changes_nothing() {
    let world = world().await;
    let before = stage(&world, 0, "a", 3, 1).await;
    let place = place_of(&before, &record(10, 1, 6, None));
    let looked = world.committer.examine_gap(&name(), &place).await.unwrap();
    assert!(matches!(
        combine(&world).await,
        CombineOutcome::Committed(_)
    ));
    let (GapOutcome::Stands { slot_key, .. }, GapOutcome::Accepted { slot_key: won, .. }) =
        (looked, accept(&world, &place).await)
    else {
        panic!("it stands")
    };
    assert_eq!(slot_key, won);
}

/// Somebody wins the slot in the moment before our first write.
#[derive(Debug)]
struct Overtaken {
    inner: Arc<dyn ObjectStore>,
    first: Mutex<Option<Bytes>>,
}

#[async_trait]
impl ObjectStore for Overtaken {
    fn uri_prefix(&self) -> &str {
        self.inner.uri_prefix()
    }
    async fn get(&self, key: &str) -> Result<Option<Bytes>, ObjectError> {
        self.inner.get(key).await
    }
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, ObjectError> {
        let first = self.first.lock().unwrap().take();
        if let Some(first) = first {
            assert_eq!(
                self.inner.put_if_absent(key, first).await?,
                PutOutcome::Created
            );
        }
        self.inner.put_if_absent(key, body).await
    }
    async fn put(&self, key: &str, body: Bytes) -> Result<(), ObjectError> {
        self.inner.put(key, body).await
    }
    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage, ObjectError> {
        self.inner.list_page(prefix, after, limit).await
    }
    async fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn ingest_that_wins_the_slot_first_leaves_no_acceptance() {
    let world = world().await;
    let before = stage(&world, 0, "a", 3, 1).await;
    let place = place_of(&before, &record(10, 1, 6, None));
    let late = Frontier {
        offset: 4,
        pseq: 4,
        ..before
    };
    let intent = Intent::new("late".to_owned(), &before, &late, Vec::new(), NOW_MS);
    let store = Overtaken {
        inner: world.store.clone(),
        first: Mutex::new(Some(intent.to_bytes("").unwrap())),
    };
    let committer = Committer::new(
        Arc::new(store),
        world.catalog.clone(),
        world.clock.clone(),
        Arc::new(SeededIds::new(8)),
    );
    assert_eq!(
        committer
            .accept_gap(&name(), &place, &operator())
            .await
            .unwrap(),
        GapOutcome::Passed { tail: late }
    );
    assert_eq!(tail(&world).await, late);
}

#[tokio::test]
async fn operators_and_combiners_that_race_with_faults_accept_once() {
    for seed in 0..60 {
        let world = world().await;
        let before = stage(&world, 0, "a", 3, 1).await;
        let place = place_of(&before, &record(10, 1, 6, None));
        let plan = FaultPlan::new(seed, 40);
        let one = |ids| {
            Committer::new(
                Arc::new(FaultyStore::new(world.store.clone(), plan.clone())),
                Arc::new(FaultyCatalog::new(world.catalog.clone(), plan.clone())),
                world.clock.clone(),
                Arc::new(SeededIds::new(ids)),
            )
        };
        let (first, second, combiner) = (
            one(seed * 3 + 100),
            one(seed * 3 + 101),
            one(seed * 3 + 102),
        );
        let insist = |committer: Committer| async move {
            loop {
                match committer.accept_gap(&name(), &place, &operator()).await {
                    Ok(outcome) => return outcome,
                    Err(error) => assert_ne!(
                        error.disposition(),
                        change_event::Disposition::Halt,
                        "{error}"
                    ),
                }
            }
        };
        let combining = async {
            for _ in 0..5 {
                drop(combiner.combine(&name()).await);
            }
        };
        let (first, second, ()) = tokio::join!(insist(first), insist(second), combining);
        for outcome in [first, second] {
            assert!(
                matches!(
                    outcome,
                    GapOutcome::Accepted { .. } | GapOutcome::AcceptedBefore(_)
                ),
                "seed {seed}: {outcome:?}"
            );
        }
        plan.calm();
        drop(combine(&world).await);
        let table = world.table().await;
        assert_eq!(acts(&table.metadata).len(), 1, "seed {seed}");
        assert_eq!(table.frontier(0), Some(&place.behind(&before)));
    }
}

#[tokio::test]
async fn acceptance_that_counts_wrong_does_not_continue_a_chain() {
    let world = world().await;
    let chain: Chain = world.table().await.chain(0);
    let start = Frontier::start(1);
    let counted = Frontier {
        offset: 3,
        gaps_accepted: 1,
        ..start
    };
    // A batch is no acceptance.
    let batch = Intent::new("x".to_owned(), &start, &counted, Vec::new(), 0);
    let won = chain.win(world.store.as_ref(), &start, &batch).await;
    assert_eq!(won.unwrap(), SlotOutcome::Won);
    let error = world.committer.combine(&name()).await.unwrap_err();
    assert!(matches!(error, CommitError::BrokenChain { .. }), "{error}");
}

#[tokio::test]
async fn copy_is_asked_for_once_and_again_after_a_refusal() {
    let world = world().await;
    let (registration, place) = (
        registration(2),
        GapPlace {
            partition: 0,
            incarnation: 1,
            offset: 10,
            covered: Predecessor { epoch: 1, pseq: 3 },
            found: Predecessor { epoch: 1, pseq: 6 },
        },
    );
    let subject = subject_of_gap(&registration.topic, &place);
    let by = operator();
    let ask = || async {
        let asking = world.committer.ask_for_copy(&registration, &subject, &by);
        asking.await.unwrap()
    };
    let look = || async {
        let looking = world.committer.examine_copy(&registration, &subject);
        looking.await.unwrap()
    };
    assert!(matches!(
        look().await,
        CopyState::NotAsked { refused: None, .. }
    ));
    assert_eq!(world.store.list("control/agent/").await.unwrap().len(), 0);
    let CopyState::Asked { key } = ask().await else {
        panic!("asked")
    };
    assert_eq!(ask().await, CopyState::Asked { key: key.clone() });
    let requests = world.store.list("control/agent/shop/copy-request/").await;
    let requests: Vec<String> = requests
        .unwrap()
        .into_iter()
        .map(|object| object.key)
        .collect();
    assert_eq!(requests, std::slice::from_ref(&key));

    let open = || async { world.committer.open_copies(&registration).await.unwrap() };
    let keys: Vec<String> = open().await.into_iter().map(|copy| copy.key).collect();
    assert_eq!(keys, requests);

    let answer = |key: &str, answer: CopyAnswer| {
        let key = key.replace("copy-request", "copy-answer");
        let store = world.store.clone();
        async move {
            let body = serde_json::to_vec(&answer).unwrap();
            store.put(&key, body.into()).await.unwrap();
        }
    };
    let reason = "dropped".to_owned();
    answer(&key, CopyAnswer::Refused { reason }).await;
    let CopyState::Asked { key: second } = ask().await else {
        panic!("asked again")
    };
    assert_ne!(second, key);
    let copied = CopyAnswer::Copied {
        copy_id: 2,
        copy_lsn: Lsn(7),
        row_count: 3,
    };
    answer(&second, copied.clone()).await;
    assert_eq!(ask().await, CopyState::Copied(copied));
    assert_eq!(open().await, []);
}
