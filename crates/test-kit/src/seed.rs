//! Randomness, ids and time from one seed.
//!
//! # Source
//! SplitMix64 (Steele, Lea, Flood 2014): one word of state, any seed is a good seed.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use change_event::{Clock, IdSource};

/// A stream of numbers from a seed, shared by whoever holds it.
#[derive(Debug)]
pub struct Seed(AtomicU64);

impl Seed {
    /// The stream of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut word = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// A number below `bound`; 0 if the bound is 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// True in `percent` of a hundred draws.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Another stream, drawn from this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::new(self.next())
    }
}

/// Ids from a seed.
#[derive(Debug)]
pub struct SeededIds(Seed);

impl SeededIds {
    /// The ids of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Seed::new(seed))
    }
}

impl IdSource for SeededIds {
    fn next_id(&self) -> String {
        format!("{:016x}{:016x}", self.0.next(), self.0.next())
    }

    fn next_snapshot_id(&self) -> i64 {
        i64::try_from(self.0.next() >> 1).unwrap_or(i64::MAX)
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows this time, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn new(now_ms: i64) -> Self {
        Self(AtomicI64::new(now_ms * 1000))
    }

    /// Moves the clock; backwards, too.
    pub fn advance_ms(&self, by_ms: i64) {
        self.0.fetch_add(by_ms * 1000, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
