//! Seeded misbehaviour: what a Kafka event source may do to a function, on request.
//!
//! # Invariants
//! - The same seed gives the same draws to the same poller; which batch meets which draw depends on timing.
//! - Without `--faults` nothing is drawn.
//! - No fault loses a record: each adds a delivery or cuts one differently.

use std::str::FromStr;
use std::time::Duration;

/// Longest time a duplicate waits before it is delivered again: longer than a usual batch takes, so that newer batches run by.
const DUPLICATE_DELAY_MS_MAX: u64 = 2_000;
/// A late delivery waits for at least this many newer batches.
const LATE_BATCHES_MIN: u64 = 2;
/// Spread of the newer batches that a late delivery waits for.
const LATE_BATCHES_SPREAD: u64 = 5;
/// Longest time until a call is abandoned: about the time in which an invocation does its work.
const ABANDON_AFTER_MS_MAX: u64 = 300;

/// Shares of batches that meet each fault.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FaultOptions {
    /// Seed of all draws; drawn itself if not given.
    pub seed: Option<u64>,
    /// The batch is delivered twice: at the same time by a second poller, or a little later.
    pub duplicate: f64,
    /// The offsets' commit covers a part of the batch only; the rest comes again with other boundaries.
    pub recut: f64,
    /// The batch is delivered again after newer ones.
    pub late: f64,
    /// The call is dropped while the function may still run, and the batch is delivered again.
    pub abandon: f64,
}

impl FromStr for FaultOptions {
    type Err = String;

    /// Reads `seed=7,duplicate=0.05,recut=0.05,late=0.02,abandon=0.01`; `kill` is another word for `abandon`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut options = Self::default();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("fault {part:?} has no value: name=share"))?;
            let share = || match value.parse::<f64>() {
                Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
                _ => Err(format!("fault {name}={value}: the share must lie in 0..=1")),
            };
            match name {
                "seed" => {
                    options.seed = Some(
                        value
                            .parse()
                            .map_err(|error| format!("seed {value}: {error}"))?,
                    );
                }
                "duplicate" => options.duplicate = share()?,
                "recut" => options.recut = share()?,
                "late" => options.late = share()?,
                "abandon" | "kill" => options.abandon = share()?,
                _ => {
                    return Err(format!(
                        "unknown fault {name:?}: known are seed, duplicate, recut, late, abandon (or kill)"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// A small, stable generator (SplitMix64, Steele et al. 2014): a seed means the same in every version of every library.
#[derive(Debug, Clone)]
pub struct SeededRandom(u64);

impl SeededRandom {
    /// A generator for one use of a seed; `salt` names the use.
    #[must_use]
    pub fn new(seed: u64, salt: &str) -> Self {
        let salted = salt.bytes().fold(seed, |state, byte| {
            let mut mixed = Self(state ^ u64::from(byte));
            mixed.next_u64()
        });
        Self(salted)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.next_u64() % bound
        }
    }

    /// True with probability `share`.
    pub fn chance(&mut self, share: f64) -> bool {
        // The upper 32 bits as a fraction of 2^32 are exact in an f64.
        let fraction =
            f64::from(u32::try_from(self.next_u64() >> 32).unwrap_or(0)) / 4_294_967_296.0;
        fraction < share
    }
}

/// What is to go wrong with one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryFaults {
    /// Deliver the payload a second time after this wait (zero: at the same time).
    pub duplicate_after: Option<Duration>,
    /// After a success keep only this many records as done, and cut the next batch at this size.
    pub recut: Option<Recut>,
    /// Deliver again after so many newer batches.
    pub late_after_batches: Option<u64>,
    /// Drop the call after this time.
    pub abandon_after: Option<Duration>,
}

/// Other batch boundaries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recut {
    /// Records of the delivered batch whose offsets count as committed.
    pub keep_records: usize,
    /// Largest size of the next batch.
    pub next_batch_records: usize,
}

/// Draws faults for one poller.
#[derive(Debug, Clone)]
pub struct FaultSchedule {
    options: FaultOptions,
    random: SeededRandom,
}

impl FaultSchedule {
    /// The schedule of the poller that `salt` names.
    #[must_use]
    pub fn new(options: FaultOptions, seed: u64, salt: &str) -> Self {
        Self {
            options,
            random: SeededRandom::new(seed, salt),
        }
    }

    /// Draws what happens to the next delivery, of `record_count` records.
    pub fn draw(&mut self, record_count: usize) -> DeliveryFaults {
        let FaultOptions {
            duplicate,
            recut,
            late,
            abandon,
            ..
        } = self.options;
        let random = &mut self.random;
        let mut faults = DeliveryFaults::default();
        if random.chance(duplicate) {
            let at_once = random.chance(0.5);
            let wait_ms = if at_once {
                0
            } else {
                random.below(DUPLICATE_DELAY_MS_MAX)
            };
            faults.duplicate_after = Some(Duration::from_millis(wait_ms));
        }
        if random.chance(recut) {
            let count = u64::try_from(record_count).unwrap_or(u64::MAX);
            let mut draw = |from| usize::try_from(from + random.below(count)).unwrap_or(0);
            faults.recut = Some(Recut {
                keep_records: draw(0),
                next_batch_records: draw(1),
            });
        }
        if random.chance(late) {
            faults.late_after_batches = Some(LATE_BATCHES_MIN + random.below(LATE_BATCHES_SPREAD));
        }
        if random.chance(abandon) {
            faults.abandon_after = Some(Duration::from_millis(random.below(ABANDON_AFTER_MS_MAX)));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_back_and_refuse_what_they_do_not_know() {
        let options: FaultOptions = "seed=7, duplicate=0.05,recut=1,kill=0.5"
            .parse()
            .expect("valid");
        let expected = FaultOptions {
            seed: Some(7),
            duplicate: 0.05,
            recut: 1.0,
            late: 0.0,
            abandon: 0.5,
        };
        assert_eq!(options, expected);
        assert_eq!("".parse::<FaultOptions>(), Ok(FaultOptions::default()));
        for wrong in [
            "late=2",
            "late=-1",
            "late",
            "freeze=0.1",
            "seed=x",
            "late=NaN",
        ] {
            assert!(wrong.parse::<FaultOptions>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn same_seed_draws_the_same_and_no_option_draws_nothing() {
        let all: FaultOptions = "duplicate=0.3,recut=0.3,late=0.3,abandon=0.3"
            .parse()
            .expect("valid");
        let draws = |options, seed, salt| {
            let mut schedule = FaultSchedule::new(options, seed, salt);
            (0..200).map(|_| schedule.draw(10)).collect::<Vec<_>>()
        };
        assert_eq!(draws(all, 7, "t-0"), draws(all, 7, "t-0"));
        assert_ne!(draws(all, 7, "t-0"), draws(all, 7, "t-1"));
        let none = draws(FaultOptions::default(), 7, "t-0");
        assert!(
            none.iter()
                .all(|faults| *faults == DeliveryFaults::default())
        );
        let recuts: Vec<_> = draws(all, 7, "t-0")
            .iter()
            .filter_map(|faults| faults.recut)
            .collect();
        assert!((30..90).contains(&recuts.len()), "{}", recuts.len());
        assert!(
            recuts
                .iter()
                .all(|r| r.keep_records < 10 && (1..=10).contains(&r.next_batch_records))
        );
    }
}
