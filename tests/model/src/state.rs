//! The pipeline's state: acknowledgements, slots, table, workers, and what is under way.
//!
//! # Invariants
//! - Frontiers and intents are numbers here; `world` knows what they stand for.
//! - Two workers of a kind are alike: [`State::canonical`] puts them in order.

/// Offsets of a partition that a slot may be named by, over all of the topic's lives.
pub(crate) const PLACES: usize = 26;
/// Chains: two tables one after the other, of two partitions.
pub(crate) const CHAINS: usize = 4;

/// Everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Records of each partition before which all are acknowledged.
    pub(crate) acked: [u8; 2],
    /// The intent in each slot; 0 for none.
    pub(crate) slots: [[u8; PLACES]; CHAINS],
    pub(crate) table: Table,
    pub(crate) ingests: [Ingest; 2],
    pub(crate) combiners: [Combiner; 2],
    /// An abandoned PUT that may land yet.
    pub(crate) late_put: Option<LatePut>,
    /// An abandoned swap that may land yet: as long as the pointer did not move.
    pub(crate) late_swap: Option<Commit>,
    /// What was so when the last day ended.
    pub(crate) day: Day,
    pub(crate) faults: Faults,
}

/// The table, as its metadata says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    /// Which of the tables of this name.
    pub(crate) uuid: u8,
    /// Where its chains begin.
    pub(crate) start: [u8; 2],
    /// The state property.
    pub(crate) frontier: [u8; 2],
    /// Whether the second partition is in the state.
    pub(crate) registered: bool,
    pub(crate) schema: u8,
    /// Changes of which a row is in it.
    pub(crate) present: u8,
    /// The head is another's snapshot.
    pub(crate) head_foreign: bool,
    /// The head is older than the state's snapshot.
    pub(crate) rolled_back: bool,
    /// What the snapshot before held, if there is one and it matters.
    pub(crate) before: Option<([u8; 2], u8)>,
}

/// An invocation of ingest, on one batch of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Ingest {
    pub(crate) at: IngestAt,
    pub(crate) partition: u8,
    /// The table that it knows.
    pub(crate) table: u8,
    /// Its records, without those that every frontier from here on drops.
    pub(crate) from: u8,
    pub(crate) to: u8,
    /// The chain's tail, as it believes.
    pub(crate) tail: u8,
    /// The chain was walked on from the tail that was believed.
    pub(crate) caught_up: bool,
    /// What it races for a slot with.
    pub(crate) intent: u8,
    /// Its PUT is under way, abandoned.
    pub(crate) floating: bool,
    /// The slot holds its intent.
    pub(crate) landed: bool,
}

/// The next call of an ingest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum IngestAt {
    #[default]
    Idle,
    /// GET the slots from its tail on.
    Walk,
    /// Have the partition registered.
    Register,
    /// PUT its intent.
    Put,
    /// GET the slot: no answer came.
    ReadBack,
    /// Answer the event source.
    Ack,
}

/// What a swap does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Commit {
    pub(crate) frontier: [u8; 2],
    /// Records whose rows it adds, by partition.
    pub(crate) rows: [u32; 2],
    /// Newest schema of its files.
    pub(crate) schema: u8,
    /// Files of another table are in it.
    pub(crate) foreign_files: bool,
    /// Its files were removed.
    pub(crate) discarded: bool,
    /// The frontier is left for a second write.
    pub(crate) data_only: bool,
}

/// A combiner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Combiner {
    pub(crate) at: CombinerAt,
    pub(crate) commit: Commit,
    /// The pointer moved since it loaded the table.
    pub(crate) stale: bool,
}

/// The next call of a combiner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) enum CombinerAt {
    #[default]
    Idle,
    /// Compare-and-set.
    Swap,
    /// Append again what had no answer: only a mutant does.
    Verify,
}

/// An abandoned PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LatePut {
    pub(crate) chain: u8,
    pub(crate) place: u8,
    pub(crate) intent: u8,
}

/// The end of the last day. No worker and no call lives longer than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Day {
    /// Which table was there.
    pub(crate) table: u8,
    /// Where the table was.
    pub(crate) committed: [u8; 2],
    /// Where the chains ended: every slot before is a day old.
    pub(crate) end: [u8; 2],
}

/// Faults that happen once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Faults {
    pub(crate) rolled_back: bool,
    /// Changes that an operator let go.
    pub(crate) forgiven: u8,
    pub(crate) recreated: bool,
    pub(crate) reset: bool,
    /// The topic's first life ended.
    pub(crate) deleted: bool,
    /// Partitions of which records were not acknowledged by then.
    pub(crate) unread: u8,
}

impl State {
    /// The state that stands for this and for those with workers exchanged.
    pub(crate) fn canonical(mut self, combiners: u8) -> Self {
        self.ingests.sort_unstable();
        self.combiners[..usize::from(combiners)].sort_unstable();
        self
    }

    /// What is left when every worker is gone and nothing is under way.
    pub(crate) fn at_rest(&self) -> Self {
        Self {
            ingests: [Ingest::default(); 2],
            combiners: [Combiner::default(); 2],
            late_put: None,
            late_swap: None,
            ..*self
        }
    }

    /// The pointer moved: whoever compares with the old version loses.
    pub(crate) fn pointer_moved(&mut self) {
        self.late_swap = None;
        for combiner in &mut self.combiners {
            combiner.stale |= combiner.at == CombinerAt::Swap;
        }
    }
}
