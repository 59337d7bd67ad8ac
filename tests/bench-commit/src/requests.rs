//! `bench-commit requests`: what a warm batch, a commit and an idle table ask for, counted.

use std::io::Write;

use commit::Commit;
use function_kit::Metric;
use functions::{TopicWriter, World};
use test_kit::Requests;

/// With a second between them, all within the five minutes for which a registration is believed.
const COMMITS: u64 = 200;

/// Counts and prints. Gives what is above its bar.
pub(crate) fn run(out: &mut impl Write) -> std::io::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let mut failures = Vec::new();
    writeln!(
        out,
        "| what | PUT | GET | LIST | Glue | bar |\n|---|---|---|---|---|---|"
    )?;
    for (partitions, slots) in [(1, 1), (8, 1), (8, 4), (32, 3)] {
        let measured = runtime.block_on(measure(partitions, slots));
        let all = u64::from(partitions) * slots;
        let budget = all + u64::from(partitions);
        let rows = [
            ("warm batch: typical".to_owned(), measured.batch, (2, 1, 0)),
            (
                "… the dearest, which looks at the table once in five commits".to_owned(),
                measured.dearest_batch,
                (2, 1, 1),
            ),
            (
                format!("commit of {all} slots over {partitions} partitions: typical"),
                measured.typical,
                (4, budget, 2),
            ),
            (
                format!("… the dearest of {COMMITS}"),
                measured.dearest,
                (4, budget, 2),
            ),
            ("idle table, an hour".to_owned(), measured.idle, (0, 0, 0)),
        ];
        for (name, cost, (puts, gets, glue)) in rows {
            writeln!(
                out,
                "| {name} | {} | {} | {} | {} | {puts} PUT, {gets} GET, {glue} Glue |",
                cost.puts, cost.gets, cost.lists, cost.catalog
            )?;
            let above = cost.puts > puts || cost.gets > gets || cost.catalog > glue;
            if above || cost.lists > 0 {
                failures.push(format!("{name}: {cost:?}"));
            }
        }
    }
    Ok(failures)
}

struct Measured {
    batch: Requests,
    dearest_batch: Requests,
    typical: Requests,
    dearest: Requests,
    idle: Requests,
}

async fn measure(partitions: u32, slots: u64) -> Measured {
    let world = World::new();
    let topic = world.announce("orders", partitions, 1).await;
    let mut agents: Vec<TopicWriter> = (0..partitions)
        .map(|partition| TopicWriter::new(&topic, partition))
        .collect();
    let (ingest, commit) = (world.ingest(), world.committing());
    // Both see the table for the first time: the first batch is committed inline, the next one sends a message.
    for _ in 0..2 {
        for agent in &mut agents {
            assert_eq!(world.deliver(&ingest, &[agent.insert(1, "a")]).await, []);
        }
    }
    look(&world, &commit).await;
    let (mut batches, mut commits) = (Vec::new(), Vec::new());
    for _ in 0..COMMITS {
        for agent in &mut agents {
            for _ in 0..slots {
                world.store.take();
                assert_eq!(world.deliver(&ingest, &[agent.insert(1, "a")]).await, []);
                batches.push(world.store.take());
            }
        }
        commits.extend(look(&world, &commit).await);
    }
    for costs in [&mut batches, &mut commits] {
        costs.sort_by_key(|cost| (cost.puts, cost.count()));
    }
    // What the messages under way still ask for, and then an hour of nothing.
    while look(&world, &commit).await.is_some() {}
    world.store.take();
    for _ in 0..3_600 {
        assert!(look(&world, &commit).await.is_none(), "nothing was staged");
    }
    Measured {
        batch: batches[batches.len() / 2],
        dearest_batch: batches[batches.len() - 1],
        typical: commits[commits.len() / 2],
        dearest: commits[commits.len() - 1],
        idle: world.store.take(),
    }
}

/// A second passes, and the messages that are there by then are answered. Gives the requests of the commit, if one was made.
async fn look(world: &World, commit: &Commit) -> Option<Requests> {
    world.clock.advance_ms(1_000);
    let mut cost = None;
    for (body, _) in world.queue.take() {
        let event = serde_json::json!({"Records": [{"messageId": "1", "body": body}]});
        let before = world.sum(Metric::CommitsTotal);
        world.store.take();
        world.commit_by(commit, &event.to_string()).await;
        if world.sum(Metric::CommitsTotal) > before {
            cost = Some(world.store.take());
        }
    }
    cost
}
