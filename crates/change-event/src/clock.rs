//! Time and identity as arguments, so that a test or a replay owns them.
//!
//! # Invariants
//! - The only reads of the machine's clock and of its randomness in the workspace are the two adapters here.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall-clock time.
pub trait Clock: Debug + Send + Sync {
    /// Microseconds since the Unix epoch.
    fn now_us(&self) -> i64;

    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64 {
        self.now_us() / 1000
    }
}

/// Ids for attempts, files and intents.
pub trait IdSource: Debug + Send + Sync {
    /// 128 bits that nobody else gets, as 32 lower-case hexadecimal digits.
    fn next_id(&self) -> String;

    /// A positive id for an Iceberg snapshot.
    fn next_snapshot_id(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one home of the system clock"
    )]
    fn now_us(&self) -> i64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|since| i64::try_from(since.as_micros()).ok())
            .unwrap_or(0)
    }
}

/// The machine's clock, moved: what a test makes of a machine whose clock is wrong. By 0 it is [`SystemClock`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ShiftedClock {
    /// Milliseconds that it is ahead; negative if it is behind.
    pub offset_ms: i64,
}

impl Clock for ShiftedClock {
    fn now_us(&self) -> i64 {
        SystemClock
            .now_us()
            .saturating_add(self.offset_ms.saturating_mul(1000))
    }
}

/// Ids from the machine's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl IdSource for RandomIds {
    #[expect(clippy::disallowed_methods, reason = "the one home of random ids")]
    fn next_id(&self) -> String {
        uuid::Uuid::new_v4().simple().to_string()
    }

    #[expect(clippy::disallowed_methods, reason = "the one home of random ids")]
    fn next_snapshot_id(&self) -> i64 {
        let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
        // One bit less than i64 holds: readers that parse ids as signed never see a negative one.
        i64::try_from((high ^ low) >> 1).unwrap_or(i64::MAX)
    }
}
