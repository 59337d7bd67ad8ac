//! A topic gets more partitions while its table is fed.

use function_kit::Metric;
use functions::{TopicWriter, World};

async fn ids(world: &World) -> Vec<String> {
    let mut ids = world.ids_in("orders").await;
    ids.sort();
    ids
}

#[tokio::test]
async fn rows_of_a_larger_map_wait_until_every_old_partition_has_passed_its_barrier() {
    let world = World::new();
    let topic = world.announce("orders", 2, 0).await;
    let [mut one, mut two, mut new] =
        [0, 1, 2].map(|partition| TopicWriter::new(&topic, partition));
    let ingest = world.ingest();
    assert_eq!(world.deliver(&ingest, &[one.insert(1, "a")]).await, []);
    world.raise(&topic, 3).await;
    // The function is warm and knows the smaller map.
    let across = [one.insert(2, "a"), one.barrier(2), one.insert(3, "a")];
    assert_eq!(world.deliver(&ingest, &across).await, []);
    assert_eq!(ids(&world).await, ["1", "2"]);
    assert_eq!(
        world.table("orders").await.state.partitions.len(),
        3,
        "every partition is registered before anything of the larger map is staged"
    );
    // A partition that is new, and an old one that has more of the smaller map.
    assert_eq!(world.deliver(&ingest, &[new.insert(4, "a")]).await, []);
    assert_eq!(ids(&world).await, ["1", "2"]);
    assert_eq!(world.deliver(&ingest, &[two.insert(5, "a")]).await, []);
    assert_eq!(ids(&world).await, ["1", "2", "5"]);
    assert_eq!(world.deliver(&ingest, &[two.barrier(2)]).await, []);
    assert_eq!(ids(&world).await, ["1", "2", "3", "4", "5"]);
    // Everything comes once more.
    assert_eq!(world.deliver(&world.ingest(), &across).await, []);
    assert_eq!(ids(&world).await.len(), 5);
    assert_eq!(
        world.sum(Metric::GapsTotal) + world.sum(Metric::QuarantinedTotal),
        0
    );
}
