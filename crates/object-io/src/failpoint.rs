//! Places where a test makes the process die, to see that nothing is lost or doubled.
//!
//! A failpoint does nothing unless the environment names it: `FIRN_FAILPOINTS="name,other*3"` aborts the process the
//! first time `name` is reached, or the third time `other` is.
//!
//! # Invariants
//! - Unset, a failpoint costs one atomic read and changes nothing.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

/// Environment variable that arms failpoints.
pub const VARIABLE: &str = "FIRN_FAILPOINTS";

/// Hits left until each armed failpoint aborts.
#[derive(Debug)]
struct Armed(Mutex<HashMap<String, u32>>);

impl Armed {
    fn parse(text: &str) -> Option<Self> {
        let armed: HashMap<String, u32> = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| match part.split_once('*') {
                Some((name, count)) => (name.to_owned(), count.parse().unwrap_or(1).max(1)),
                None => (part.to_owned(), 1),
            })
            .collect();
        if armed.is_empty() { None } else { Some(Self(Mutex::new(armed))) }
    }

    /// Whether this hit is the one that aborts.
    fn due(&self, name: &str) -> bool {
        let Ok(mut armed) = self.0.lock() else { return false };
        match armed.get_mut(name) {
            Some(left) if *left > 1 => {
                *left -= 1;
                false
            }
            Some(_) => true,
            None => false,
        }
    }
}

/// Aborts the process if the failpoint is armed and this is its hit.
pub fn hit(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        #[expect(clippy::disallowed_methods, reason = "the one place that arms failpoints, for every deployable")]
        let text = std::env::var(VARIABLE).unwrap_or_default();
        Armed::parse(&text)
    });
    if armed.as_ref().is_some_and(|armed| armed.due(name)) {
        tracing::warn!(failpoint = name, "failpoint reached, aborting");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_failpoint_is_due_at_its_hit() {
        let armed = Armed::parse("a, b*3,").unwrap();
        assert!(armed.due("a"));
        assert_eq!([armed.due("b"), armed.due("b"), armed.due("b")], [false, false, true]);
        assert!(!armed.due("c"));
    }

    #[test]
    fn nothing_set_arms_nothing() {
        assert!(Armed::parse("").is_none());
        assert!(Armed::parse(" , ").is_none());
    }
}
