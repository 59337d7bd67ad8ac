//! Every choice of a run, drawn from one seed.
//!
//! # Invariants
//! - A choice depends on the seed, its stream and its number in the stream alone: leaving a fault out changes no draw of
//!   another stream, so that a schedule can be shrunk.

use std::collections::BTreeSet;

/// What a choice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// How the world is set up.
    Setup,
    /// What the source database does.
    Workload,
    /// What happens next.
    Schedule,
    /// What goes wrong.
    Fault,
}

const STREAMS: usize = 4;

/// The choices of one run.
#[derive(Debug)]
pub(crate) struct Choices {
    seed: u64,
    drawn: [u64; STREAMS],
    left_out: BTreeSet<u64>,
    struck: Vec<u64>,
    calm: bool,
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

impl Choices {
    /// The choices of this seed, without the faults of these numbers.
    #[must_use]
    pub(crate) fn new(seed: u64, left_out: BTreeSet<u64>) -> Self {
        Self {
            seed,
            drawn: [0; STREAMS],
            left_out,
            struck: Vec::new(),
            calm: false,
        }
    }

    fn next(&mut self, stream: Stream) -> (u64, u64) {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let place = stream as usize;
        let index = self.drawn[place];
        self.drawn[place] += 1;
        let root = mix(self.seed.wrapping_mul(STEP) ^ (place as u64 + 1));
        (
            index,
            mix(root.wrapping_add((index + 1).wrapping_mul(STEP))),
        )
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub(crate) fn below(&mut self, stream: Stream, bound: u64) -> u64 {
        let (_, value) = self.next(stream);
        value.checked_rem(bound).unwrap_or(0)
    }

    /// An index into something of this length.
    pub(crate) fn index(&mut self, stream: Stream, length: usize) -> usize {
        usize::try_from(self.below(stream, length as u64)).unwrap_or(0)
    }

    /// True in `percent` of a hundred draws.
    pub(crate) fn chance(&mut self, stream: Stream, percent: u64) -> bool {
        self.below(stream, 100) < percent
    }

    /// One of some.
    pub(crate) fn one_of<T: Copy>(&mut self, stream: Stream, of: &[T]) -> T {
        of[self.index(stream, of.len())]
    }

    /// Whether something goes wrong here, in so many of a thousand cases; if so, a number to draw from what it is.
    pub(crate) fn fault(&mut self, per_mille: u64) -> Option<u64> {
        let (index, value) = self.next(Stream::Fault);
        if value % 1000 >= per_mille || self.calm || self.left_out.contains(&index) {
            return None;
        }
        self.struck.push(index);
        Some(value >> 20)
    }

    /// Nothing goes wrong from here on.
    pub(crate) const fn calm(&mut self) {
        self.calm = true;
    }

    /// Numbers of the faults that struck.
    #[must_use]
    pub(crate) fn struck(&self) -> &[u64] {
        &self.struck
    }
}
