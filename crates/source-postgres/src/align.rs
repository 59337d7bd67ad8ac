//! Which column of a relation message is which column of the catalog, when the two no longer agree.
//!
//! Flow: `relation` -> **here**.
//!
//! The columns of a message come in the order of their `attnum`, so an assignment is a strictly rising list of numbers. Of all of those,
//! the one with the strongest evidence is taken: a name that the previous document has first, then a name that the catalog has,
//! then equal types.
//!
//! # Invariants
//! - Pure, and the same input gives the same numbers.
//! - Numbers rise strictly; a column for which there is no evidence gets a number that nothing has.

use std::collections::BTreeMap;

/// What is known about a number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Name and printed type in the previous document.
    pub(crate) previous: Option<(String, String)>,
    /// Name and printed type in the catalog.
    pub(crate) catalog: Option<(String, String)>,
}

/// A column of the message: name, and printed type if it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unnumbered {
    pub(crate) name: String,
    pub(crate) source_type: Option<String>,
}

/// The previous document is of a moment before the message, the catalog of one after it: the catalog alone is the weaker witness, and
/// both are stronger than either.
const PREVIOUS_NAME: u32 = 16;
const CATALOG_NAME: u32 = 12;
const SAME_TYPE: u32 = 2;
const KNOWN: u32 = 1;

/// Gives each column its number.
pub(crate) fn align(columns: &[Unnumbered], known: &BTreeMap<i32, Candidate>) -> Vec<i32> {
    let last = known.keys().next_back().copied().unwrap_or(0);
    let nothing = Candidate::default();
    // Numbers behind all known ones: there is always an assignment.
    let fresh = (1..)
        .take(columns.len())
        .map(|step| (last.saturating_add(step), &nothing));
    let candidates: Vec<(i32, &Candidate)> = known
        .iter()
        .map(|(id, candidate)| (*id, candidate))
        .chain(fresh)
        .collect();

    // `best[j]`: the highest score with the columns so far in the first `j` candidates; a step that took candidate `j` is noted, so that
    // the way can be walked back. The earliest candidate wins a tie.
    let mut best: Vec<Option<u32>> = vec![Some(0); candidates.len() + 1];
    let mut steps: Vec<Vec<bool>> = Vec::with_capacity(columns.len());
    for column in columns {
        let mut next: Vec<Option<u32>> = vec![None];
        let mut taken = Vec::with_capacity(candidates.len());
        for ((_, candidate), before) in candidates.iter().zip(&best) {
            let with = before.map(|score| score + evidence(column, candidate));
            let without = next.last().copied().flatten();
            taken.push(with > without);
            next.push(with.max(without));
        }
        best = next;
        steps.push(taken);
    }

    let mut ids = Vec::with_capacity(columns.len());
    let mut end = candidates.len();
    for taken in steps.iter().rev() {
        let chosen = taken.iter().take(end).rposition(|took| *took).unwrap_or(0);
        ids.extend(candidates.get(chosen).map(|(id, _)| *id));
        end = chosen;
    }
    ids.reverse();
    ids
}

fn evidence(column: &Unnumbered, candidate: &Candidate) -> u32 {
    let witness = |seen: &Option<(String, String)>, name_weight| {
        seen.as_ref().map_or(0, |(name, source_type)| {
            let same_name = u32::from(*name == column.name) * name_weight;
            let same_type = u32::from(column.source_type.as_ref() == Some(source_type)) * SAME_TYPE;
            KNOWN + same_name + same_type
        })
    };
    witness(&candidate.previous, PREVIOUS_NAME) + witness(&candidate.catalog, CATALOG_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen<'a> = (&'a str, &'a str);

    fn known(entries: &[(i32, Option<Seen<'_>>, Option<Seen<'_>>)]) -> BTreeMap<i32, Candidate> {
        let owned = |seen: &Option<Seen<'_>>| seen.map(|(n, t)| (n.to_owned(), t.to_owned()));
        entries
            .iter()
            .map(|(id, previous, catalog)| {
                (
                    *id,
                    Candidate {
                        previous: owned(previous),
                        catalog: owned(catalog),
                    },
                )
            })
            .collect()
    }

    fn aligned(columns: &[Seen<'_>], known: &BTreeMap<i32, Candidate>) -> Vec<i32> {
        let columns: Vec<Unnumbered> = columns
            .iter()
            .map(|(name, source_type)| Unnumbered {
                name: (*name).to_owned(),
                source_type: Some((*source_type).to_owned()),
            })
            .collect();
        align(&columns, known)
    }

    const ID: Seen<'_> = ("id", "bigint");

    #[test]
    fn renamed_column_is_found_between_its_neighbours() {
        let known = known(&[
            (1, Some(ID), None),
            (2, Some(("a", "text")), None),
            (3, Some(("b", "text")), None),
        ]);
        assert_eq!(
            aligned(&[ID, ("c", "text"), ("b", "text")], &known),
            [1, 2, 3]
        );
        // Renamed and of another type: order is all there is.
        assert_eq!(
            aligned(&[ID, ("c", "integer"), ("b", "text")], &known),
            [1, 2, 3]
        );
    }

    #[test]
    fn dropped_and_added_again_has_the_number_of_the_catalog() {
        let known = known(&[
            (1, Some(ID), Some(ID)),
            (2, Some(("a", "text")), None),
            (3, Some(("b", "text")), Some(("b", "text"))),
            (4, None, Some(("a", "text"))),
            (5, None, Some(("later", "text"))),
        ]);
        assert_eq!(
            aligned(&[ID, ("b", "text"), ("a", "text")], &known),
            [1, 3, 4]
        );
    }

    #[test]
    fn swapped_names_keep_their_places_when_the_catalog_agrees() {
        let known = known(&[
            (1, Some(ID), Some(ID)),
            (2, Some(("a", "text")), Some(("b", "text"))),
            (3, Some(("b", "text")), Some(("a", "text"))),
            (4, None, Some(("later", "text"))),
        ]);
        assert_eq!(
            aligned(&[ID, ("b", "text"), ("a", "text")], &known),
            [1, 2, 3]
        );
    }

    #[test]
    fn column_added_and_renamed_later_gets_the_earliest_free_number() {
        let known = known(&[
            (1, Some(ID), Some(ID)),
            (2, None, Some(("renamed", "text"))),
            (3, None, Some(("later", "text"))),
        ]);
        assert_eq!(aligned(&[ID, ("x", "text")], &known), [1, 2]);
    }

    #[test]
    fn column_that_nothing_knows_gets_a_number_that_nothing_has() {
        let known = known(&[(1, Some(ID), Some(ID)), (2, None, None)]);
        // Number 2 is dropped in the catalog: as good as any, and never another column's.
        assert_eq!(
            aligned(&[ID, ("x", "text"), ("y", "text")], &known),
            [1, 2, 3]
        );
        assert_eq!(
            aligned(&[("x", "text"), ("y", "text")], &BTreeMap::new()),
            [1, 2]
        );
        assert_eq!(aligned(&[], &known), [0; 0]);
    }
}
