//! The barrier rule: nothing of partition map v + 1 is taken before every partition of map v has passed its barrier.
//!
//! Flow: walks of all chains of a table -> **here** -> what one commit takes. Pure.
//!
//! With a larger map keys move between partitions, old ones too. What stood before a barrier was written by the older map, so
//! once every old partition has passed it, no earlier change of any key is outstanding.
//!
//! # Invariants
//! - The records of an intent are all of one map, that of the frontier it starts from: a batch is cut behind a barrier.
//! - A partition that a map brought begins at that map, so that only the partitions before it are waited for.

use crate::chain::Walk;
use crate::state::Frontier;

/// Cuts the walks of **all** registered partitions before the first intent of a map that not every one of them reaches in
/// its own walk.
pub(crate) fn hold_back<'a>(walks: impl Iterator<Item = (Frontier, &'a mut Walk)>) {
    let walks: Vec<(Frontier, &mut Walk)> = walks.collect();
    let reached = walks.iter().map(|(_, walk)| walk.tail.map_version).min();
    let Some(reached) = reached else { return };
    for (from, walk) in walks {
        let starts = std::iter::once(&from).chain(walk.intents.iter().map(|intent| &intent.after));
        let taken = starts
            .zip(&walk.intents)
            .take_while(|(start, _)| start.map_version <= reached)
            .count();
        walk.truncate(&from, taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intent::Intent;

    /// A walk from a frontier at map `from` over intents that end at these maps.
    fn walk(from: u32, maps: &[u32]) -> (Frontier, Walk) {
        let first = Frontier {
            map_version: from,
            ..Frontier::start(1)
        };
        let mut walk = Walk {
            tail: first,
            intents: Vec::new(),
            at_end: true,
        };
        for map_version in maps {
            let after = Frontier {
                offset: walk.tail.offset + 1,
                map_version: *map_version,
                ..walk.tail
            };
            let intent = Intent::new("i".to_owned(), &walk.tail, &after, Vec::new(), 0);
            walk.intents.push(intent);
            walk.tail = after;
        }
        (first, walk)
    }

    fn taken(mut walks: Vec<(Frontier, Walk)>) -> Vec<usize> {
        hold_back(walks.iter_mut().map(|(from, walk)| (*from, walk)));
        for (from, walk) in &walks {
            let tail = walk.intents.last().map_or(*from, |last| last.after);
            assert_eq!(walk.tail, tail, "the tail is that of what is left");
        }
        walks.iter().map(|(_, walk)| walk.intents.len()).collect()
    }

    #[test]
    fn one_map_holds_nothing_back() {
        assert_eq!(taken(vec![walk(1, &[1, 1]), walk(1, &[])]), [2, 0]);
        assert_eq!(taken(Vec::new()), [0; 0]);
    }

    #[test]
    fn nothing_of_the_next_map_before_every_old_partition_passed_its_barrier() {
        // The second old partition has not staged its barrier; the third partition is new.
        let waiting = vec![walk(1, &[1, 2, 2]), walk(1, &[1]), walk(2, &[2, 2])];
        assert_eq!(taken(waiting), [2, 1, 0]);
        let passed = vec![walk(1, &[1, 2, 2]), walk(1, &[1, 2]), walk(2, &[2, 2])];
        assert_eq!(taken(passed), [3, 2, 2]);
    }

    #[test]
    fn next_barrier_stands_for_one_that_was_lost_in_a_gap() {
        let waiting = vec![walk(1, &[1, 1]), walk(1, &[2, 2]), walk(2, &[2])];
        assert_eq!(taken(waiting), [2, 1, 0]);
        let raised_again = vec![
            walk(1, &[1, 3]),
            walk(1, &[2, 3]),
            walk(2, &[3]),
            walk(3, &[3]),
        ];
        assert_eq!(taken(raised_again), [2, 2, 1, 1]);
    }

    #[test]
    fn maps_are_passed_one_by_one() {
        let waiting = vec![walk(1, &[2, 2, 3, 3]), walk(1, &[2, 2]), walk(3, &[3])];
        assert_eq!(taken(waiting), [3, 2, 0]);
        let behind = vec![walk(1, &[2, 3, 3]), walk(2, &[3]), walk(1, &[])];
        assert_eq!(taken(behind), [1, 0, 0]);
    }
}
