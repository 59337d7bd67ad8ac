//! The moment by which a handler must have returned.
//!
//! # Invariants
//! - No I/O outlives the return: whoever stops for the deadline drops its futures first.

use change_event::Clock;

/// A header below this is no time of day but a length: some local runtimes send it so (`cargo lambda watch`).
const RELATIVE_BELOW_MS: i64 = 86_400_000;

/// The end of an invocation by the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    at_ms: i64,
}

impl Deadline {
    /// From the runtime's header, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn from_header(header_ms: u64, clock: &dyn Clock) -> Self {
        let header_ms = i64::try_from(header_ms).unwrap_or(i64::MAX);
        let at_ms = if header_ms < RELATIVE_BELOW_MS {
            clock.now_ms() + header_ms
        } else {
            header_ms
        };
        Self { at_ms }
    }

    /// A deadline that lies `length_ms` ahead.
    #[must_use]
    pub fn after(length_ms: i64, clock: &dyn Clock) -> Self {
        Self {
            at_ms: clock.now_ms().saturating_add(length_ms),
        }
    }

    /// Milliseconds that are left; 0 when it has passed.
    #[must_use]
    pub fn remaining_ms(&self, clock: &dyn Clock) -> u64 {
        u64::try_from(self.at_ms.saturating_sub(clock.now_ms())).unwrap_or(0)
    }

    /// The same deadline, `reserve_ms` earlier.
    #[must_use]
    pub const fn earlier(&self, reserve_ms: i64) -> Self {
        Self {
            at_ms: self.at_ms.saturating_sub(reserve_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Noon;
    impl Clock for Noon {
        fn now_us(&self) -> i64 {
            1_800_000_000_000_000
        }
    }

    #[test]
    fn header_is_a_time_or_a_length() {
        assert_eq!(
            Deadline::from_header(1_800_000_000_500, &Noon).remaining_ms(&Noon),
            500
        );
        assert_eq!(
            Deadline::from_header(600_000, &Noon).remaining_ms(&Noon),
            600_000
        );
    }

    #[test]
    fn past_deadline_leaves_nothing() {
        assert_eq!(Deadline::after(-5, &Noon).remaining_ms(&Noon), 0);
        assert_eq!(
            Deadline::after(500, &Noon).earlier(200).remaining_ms(&Noon),
            300
        );
    }
}
