//! Requests are the bill: what a batch, a commit and an idle table may cost.

use commit::Commit;
use function_kit::Metric;
use functions::{TopicWriter, World};
use ingest::Ingest;
use test_kit::Requests;

/// A message per body, as the queue hands them over.
fn messages(bodies: &[String]) -> String {
    let records: Vec<_> = bodies
        .iter()
        .zip(1..)
        .map(|(body, id)| serde_json::json!({"messageId": format!("{id}"), "body": body}))
        .collect();
    serde_json::json!({"Records": records}).to_string()
}

fn message(topic: &str) -> String {
    messages(&[serde_json::json!({"topic": topic}).to_string()])
}

#[tokio::test]
async fn warm_batch_costs_two_puts_and_nothing_else() {
    let world = World::new();
    let topic = world.announce("orders", 1, 60).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    assert_eq!(world.deliver(&ingest, &[agent.insert(1, "a")]).await, []);
    for id in [2, 4, 6] {
        world.store.take();
        let records = [agent.insert(id, "b"), agent.insert(id + 1, "c")];
        assert_eq!(world.deliver(&ingest, &records).await, []);
        let cost = world.store.take();
        assert_eq!((cost.puts, cost.count()), (2, 2), "{cost:?}");
    }
    assert_eq!(world.queue.take().len(), 1, "one message for the burst");
}

#[tokio::test]
async fn warm_commit_costs_at_most_four_puts_two_catalog_calls_and_a_get_per_slot_and_partition() {
    for partitions in [1, 3, 8] {
        let world = World::new();
        let topic = world.announce("orders", partitions, 1).await;
        let mut agents: Vec<TopicWriter> = (0..partitions)
            .map(|partition| TopicWriter::new(&topic, partition))
            .collect();
        let (ingest, commit) = (world.ingest(), world.committing());
        let (mut merges, mut counted, mut warm) = (0, 0, false);
        for round in 0..120_u64 {
            let mut slots = 0;
            let inline = world.sum(Metric::CommitsTotal);
            for (agent, number) in agents.iter_mut().zip(0..) {
                // Some partitions have none, some two. The first has always one, and two at first: a table that had nothing
                // under way when it became due is committed inline by the next batch.
                let count = match number {
                    0 => 1 + u64::from(round == 0),
                    _ => (round + number) % 3,
                };
                for _ in 0..count {
                    assert_eq!(world.deliver(&ingest, &[agent.insert(1, "a")]).await, []);
                    slots += 1;
                }
            }
            world.queue.take();
            // All within the five minutes for which a registration is believed.
            world.clock.advance_ms(1_000);
            let before = world.sum(Metric::CommitsTotal);
            world.store.take();
            world.commit_by(&commit, &message(&topic)).await;
            let cost = world.store.take();
            let committed = world.sum(Metric::CommitsTotal) > before;
            // After a commit that ingest made inline, the function has that one's files to read.
            warm &= before == inline;
            if !committed || !std::mem::replace(&mut warm, true) {
                continue;
            }
            counted += 1;
            assert!(cost.puts <= 4, "round {round}: {cost:?}");
            assert_eq!(cost.catalog, 2, "round {round}: {cost:?}");
            assert_eq!(
                cost.gets,
                slots + u64::from(partitions),
                "round {round}: {cost:?}"
            );
            assert_eq!((cost.lists, cost.deletes), (0, 0));
            merges += u64::from(cost.puts == 4);
        }
        assert!(counted > 20, "{counted} warm commits");
        let files: usize = world.rows("orders").await.len();
        assert!(files < 800 || merges > 0, "{files} files and no merge seen");
    }
}

#[tokio::test]
async fn batch_that_commits_inline_pays_for_both_and_no_more() {
    let world = World::new();
    let topic = world.announce("orders", 2, 0).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    assert_eq!(world.deliver(&ingest, &[agent.insert(1, "a")]).await, []);
    for id in 2..5 {
        world.store.take();
        assert_eq!(world.deliver(&ingest, &[agent.insert(id, "a")]).await, []);
        let cost = world.store.take();
        // Two for the batch; manifest, list and metadata; its own slot and the ends of two chains.
        assert_eq!((cost.puts, cost.catalog, cost.gets), (5, 2, 3), "{cost:?}");
        assert_eq!(
            world.ids_in("orders").await.len(),
            usize::try_from(id).unwrap()
        );
    }
    assert_eq!(world.queue.take(), []);
}

#[tokio::test]
async fn process_that_others_left_far_behind_asks_the_table_instead_of_walking_every_slot() {
    let world = World::new();
    let topic = world.announce("orders", 1, 1).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let (one, other) = (world.ingest(), world.ingest());
    assert_eq!(world.deliver(&one, &[agent.insert(0, "a")]).await, []);
    assert_eq!(world.deliver(&other, &[agent.insert(1, "a")]).await, []);
    for id in 2..40 {
        assert_eq!(world.deliver(&other, &[agent.insert(id, "a")]).await, []);
        world.clock.advance_ms(1_000);
        world.commit(r#"{"sweep":true}"#).await;
    }
    assert_eq!(world.deliver(&other, &[agent.insert(40, "a")]).await, []);
    world.store.take();
    assert_eq!(world.deliver(&one, &[agent.insert(41, "a")]).await, []);
    let cost = world.store.take();
    // Four slots, the table's metadata, the slot behind its frontier and the free one; and once more the table, to see
    // whether it is due.
    assert!(cost.gets <= 8, "{cost:?}");
    assert_eq!(cost.puts, 2, "{cost:?}");
    world.clock.advance_ms(1_000);
    world.commit(r#"{"sweep":true}"#).await;
    assert_eq!(world.ids_in("orders").await.len(), 42);
}

/// A queue and a function that takes from it, second by second.
struct Clockwork<'a> {
    world: &'a World,
    commit: &'a Commit,
    /// Bodies, and the second in which they appear.
    under_way: Vec<(String, i64)>,
    second: i64,
    sent: usize,
}

impl Clockwork<'_> {
    async fn tick(&mut self) {
        self.take();
        self.world.clock.advance_ms(1_000);
        self.second += 1;
        let second = self.second;
        let (due, later): (Vec<_>, Vec<_>) =
            self.under_way.drain(..).partition(|(_, at)| *at <= second);
        self.under_way = later;
        // Each in an invocation of its own: the queue need not gather them.
        for (body, _) in due {
            self.world.commit_by(self.commit, &messages(&[body])).await;
            self.take();
        }
    }

    fn take(&mut self) {
        for (body, delay) in self.world.queue.take() {
            self.under_way.push((body, self.second + i64::from(delay)));
            self.sent += 1;
        }
    }
}

#[tokio::test]
async fn many_writers_make_no_more_commits_than_freshness_asks_for_and_leave_no_tail() {
    const WRITERS: u32 = 6;
    const FRESHNESS: u32 = 5;
    let world = World::new();
    let topic = world.announce("orders", WRITERS, FRESHNESS).await;
    let mut writers: Vec<(TopicWriter, Ingest)> = (0..WRITERS)
        .map(|partition| (TopicWriter::new(&topic, partition), world.ingest()))
        .collect();
    let commit = world.committing();
    let mut clockwork = Clockwork {
        world: &world,
        commit: &commit,
        under_way: Vec::new(),
        second: 0,
        sent: 0,
    };
    let mut id = 0;
    for _ in 0..100 {
        for (agent, ingest) in &mut writers {
            id += 1;
            assert_eq!(world.deliver(ingest, &[agent.insert(id, "a")]).await, []);
        }
        clockwork.tick().await;
    }
    // The burst is over: its tail is there when it is due, and then nothing happens any more.
    for _ in 0..=FRESHNESS {
        clockwork.tick().await;
    }
    assert_eq!(
        world.ids_in("orders").await.len(),
        usize::try_from(id).unwrap()
    );
    let commits = world.sum(Metric::CommitsTotal);
    assert!((15..=22).contains(&commits), "{commits} commits in 105 s");
    // Each writer one for each time that the table is due, and the function one more.
    assert!(clockwork.sent <= 22 * 7, "{} messages", clockwork.sent);
    for _ in 0..3 * FRESHNESS {
        clockwork.tick().await;
    }
    world.store.take();
    for _ in 0..10 * FRESHNESS {
        clockwork.tick().await;
    }
    assert_eq!(
        world.store.take(),
        Requests::default(),
        "an idle table costs nothing"
    );
    assert_eq!(clockwork.under_way, []);
}

#[tokio::test]
async fn table_that_nobody_combines_is_combined_by_its_writers() {
    let world = World::new();
    let topic = world.announce("orders", 1, 2).await;
    let mut agent = TopicWriter::new(&topic, 0);
    let ingest = world.ingest();
    for id in 0..60 {
        assert_eq!(world.deliver(&ingest, &[agent.insert(id, "a")]).await, []);
        world.clock.advance_ms(1_000);
        // Nobody answers.
        world.queue.take();
    }
    let commits = world.sum(Metric::CommitsTotal);
    assert!((3..=30).contains(&commits), "{commits} commits in a minute");
}
