//! Which manifests a commit rewrites, so that neither the manifest list nor the work of a commit grows with history. Pure.
//!
//! New entries join the newest small manifest (the hot one) until that is full. Full manifests are merged as in a
//! log-structured tree: when a tier holds enough of them, its oldest become one of the next tier. So an entry is written
//! again a few times in all, and a table of `n` files has about `n / merged_entries_max` manifests and a few dozen.
//!
//! # Invariants
//! - A commit merges at most once, and no more than the limits say: its worst case does not depend on history.
//! - Only data manifests of our partition spec are touched, whoever wrote them.
//! - Neighbours in age are merged, so that a manifest spans few days and readers can pass over it.

use iceberg::spec::{ManifestContentType, ManifestFile};

use crate::manifest_file::SPEC_ID;
use crate::table::Limits;

/// What a commit rewrites of its parent's manifests, by their place in the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Choice {
    /// Takes the new entries.
    pub(crate) hot: Option<usize>,
    /// Become one manifest; none or at least two.
    pub(crate) merge: Vec<usize>,
}

/// A manifest that may be rewritten.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    index: usize,
    entries: usize,
    bytes: usize,
    /// Oldest and newest commit in it.
    age: (i64, i64),
}

/// Picks what a commit with new files rewrites.
pub(crate) fn choose(manifests: &[ManifestFile], limits: &Limits) -> Choice {
    let mut candidates: Vec<Candidate> = manifests
        .iter()
        .enumerate()
        .filter_map(|(index, manifest)| candidate(index, manifest))
        .collect();
    let hot = candidates
        .iter()
        .filter(|candidate| candidate.entries < limits.manifest_entries_max)
        .max_by_key(|candidate| candidate.age.1)
        .map(|candidate| candidate.index);
    candidates.retain(|candidate| Some(candidate.index) != hot && !is_full(candidate, limits));
    candidates.sort_by_key(|candidate| candidate.age);
    Choice {
        hot,
        merge: merge(&candidates, limits),
    }
}

fn candidate(index: usize, manifest: &ManifestFile) -> Option<Candidate> {
    let counts = [
        manifest.added_files_count,
        manifest.existing_files_count,
        manifest.deleted_files_count,
    ];
    let entries = counts.into_iter().try_fold(0usize, |sum, count| {
        Some(sum + usize::try_from(count?).ok()?)
    })?;
    let ours = manifest.content == ManifestContentType::Data
        && manifest.partition_spec_id == SPEC_ID
        && manifest.key_metadata.is_none();
    ours.then_some(Candidate {
        index,
        entries,
        bytes: usize::try_from(manifest.manifest_length).unwrap_or(usize::MAX),
        age: (manifest.min_sequence_number, manifest.sequence_number),
    })
}

/// So large that no second one of its kind fits beside it.
fn is_full(candidate: &Candidate, limits: &Limits) -> bool {
    candidate.entries > limits.merged_entries_max / 2
        || candidate.bytes > limits.merged_bytes_max / 2
}

/// The oldest of the lowest tier that holds enough; `candidates` by age.
fn merge(candidates: &[Candidate], limits: &Limits) -> Vec<usize> {
    let fan_in = limits.manifests_per_merge.max(2);
    let tier_of = |candidate: &Candidate| tier(candidate.entries, limits);
    let Some(top) = candidates.iter().map(tier_of).max() else {
        return Vec::new();
    };
    for tier in 0..=top {
        let members = || candidates.iter().filter(|one| tier_of(one) == tier);
        if members().count() < fan_in {
            continue;
        }
        let (mut entries, mut bytes) = (0usize, 0usize);
        return members()
            .take(fan_in)
            .take_while(|one| {
                entries = entries.saturating_add(one.entries);
                bytes = bytes.saturating_add(one.bytes);
                entries <= limits.merged_entries_max && bytes <= limits.merged_bytes_max
            })
            .map(|one| one.index)
            .collect();
    }
    Vec::new()
}

/// 0 up to a merge of full hot manifests, then one more for each such factor.
fn tier(entries: usize, limits: &Limits) -> u32 {
    let factor = limits.manifests_per_merge.max(2);
    let mut end = limits.manifest_entries_max.max(1).saturating_mul(factor);
    let mut tier = 0;
    while entries >= end {
        end = end.saturating_mul(factor);
        tier += 1;
    }
    tier
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        intents_per_commit_max: 500,
        tries_max: 10,
        snapshots_kept: 100,
        manifest_entries_max: 10,
        manifests_per_merge: 4,
        merged_entries_max: 400,
        merged_bytes_max: 400_000,
    };

    fn manifest(entries: u32, oldest: i64, newest: i64) -> ManifestFile {
        ManifestFile {
            manifest_path: format!("m{oldest}-{newest}"),
            manifest_length: i64::from(entries) * 1000,
            partition_spec_id: SPEC_ID,
            content: ManifestContentType::Data,
            sequence_number: newest,
            min_sequence_number: oldest,
            added_snapshot_id: newest,
            added_files_count: Some(0),
            existing_files_count: Some(entries),
            deleted_files_count: Some(0),
            added_rows_count: Some(0),
            existing_rows_count: Some(0),
            deleted_rows_count: Some(0),
            partitions: None,
            key_metadata: None,
            first_row_id: None,
        }
    }

    /// Commits `files` each time; gives the manifests at the end, and the most that one commit merged.
    fn commits(count: i64, files: u32, limits: &Limits) -> (Vec<ManifestFile>, usize) {
        let (mut list, mut most): (Vec<ManifestFile>, usize) = (Vec::new(), 0);
        for commit in 1..=count {
            let choice = choose(&list, limits);
            let entries = |indices: &[usize]| -> u32 {
                let counts = indices
                    .iter()
                    .map(|index| list[*index].existing_files_count);
                counts.map(Option::unwrap_or_default).sum()
            };
            let oldest = |indices: &[usize]| {
                let ages = indices.iter().map(|index| list[*index].min_sequence_number);
                ages.min().unwrap_or(commit)
            };
            let hot: Vec<usize> = choice.hot.into_iter().collect();
            let mut next = vec![manifest(entries(&hot) + files, oldest(&hot), commit)];
            if !choice.merge.is_empty() {
                let merged = entries(&choice.merge);
                most = most.max(usize::try_from(merged).unwrap());
                next.push(manifest(merged, oldest(&choice.merge), commit));
            }
            let rewritten = |index: &usize| hot.contains(index) || choice.merge.contains(index);
            let kept = (0..list.len()).filter(|index| !rewritten(index));
            next.extend(kept.map(|index| list[index].clone()));
            list = next;
        }
        (list, most)
    }

    #[test]
    fn list_stays_short_and_no_commit_merges_more_than_the_limit() {
        for files in [1, 3, 7, 10, 40, 150] {
            let (list, most) = commits(4_000, files, &LIMITS);
            let total: u32 = list
                .iter()
                .map(|one| one.existing_files_count.unwrap())
                .sum();
            assert_eq!(total, 4_000 * files, "nothing is lost");
            let full = usize::try_from(total).unwrap() / (LIMITS.merged_entries_max / 2);
            assert!(
                list.len() <= full + 3 * 4,
                "{files}: {} manifests",
                list.len()
            );
            assert!(most <= LIMITS.merged_entries_max, "{files}: {most}");
        }
    }

    #[test]
    fn newest_small_manifest_is_hot_and_the_oldest_of_a_tier_are_merged() {
        let list = [
            manifest(3, 60, 61),
            manifest(45, 40, 50),
            manifest(2, 1, 9),
            manifest(12, 10, 20),
            manifest(30, 20, 30),
            manifest(25, 30, 40),
        ];
        assert_eq!(
            choose(&list, &LIMITS),
            Choice {
                hot: Some(0),
                merge: vec![2, 3, 4, 5]
            }
        );
        assert_eq!(
            choose(&list[..5], &LIMITS).merge,
            [0usize; 0],
            "three of a tier wait"
        );
    }

    #[test]
    fn manifests_of_others_specs_deletes_and_keys_are_left_alone() {
        let mut list: Vec<ManifestFile> = (0..8).map(|age| manifest(5, age, age)).collect();
        list[0].content = ManifestContentType::Deletes;
        list[1].partition_spec_id = SPEC_ID + 1;
        list[2].key_metadata = Some(vec![1]);
        list[3].existing_files_count = None;
        let choice = choose(&list, &LIMITS);
        assert_eq!((choice.hot, choice.merge), (Some(7), vec![]));
        list.push(manifest(5, 3, 3));
        assert_eq!(choose(&list, &LIMITS).merge, [8, 4, 5, 6]);
    }

    #[test]
    fn merge_stops_at_the_limit_of_bytes() {
        let mut list: Vec<ManifestFile> = (0..5).map(|age| manifest(20, age, age)).collect();
        for one in &mut list {
            one.manifest_length = 150_000;
        }
        assert_eq!(choose(&list, &LIMITS).merge, [0, 1]);
        for one in &mut list {
            one.manifest_length = 250_000;
        }
        assert_eq!(choose(&list, &LIMITS).merge, [0usize; 0], "each is full");
    }
}
