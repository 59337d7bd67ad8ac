//! The environment of a function, read once at start; each deployable's `config.rs` takes its settings from it.
//!
//! # Invariants
//! - All problems are reported at once, each naming its variable; values are never printed.

use std::collections::BTreeMap;
use std::str::FromStr;

use change_event::ShiftedClock;

/// Milliseconds by which a test moves the clock of a function; for tests only.
pub const CLOCK_OFFSET_VARIABLE: &str = "FIRN_CLOCK_OFFSET_MS";
/// No test needs a clock that is wrong by more than an hour.
const CLOCK_OFFSET_MS_MAX: i64 = 3_600_000;

/// A snapshot of the environment variables, and what was found wrong with them so far.
#[derive(Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    problems: Vec<String>,
}

/// A function whose environment does not suit it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("configuration: {}", problems.join("; "))]
pub struct ConfigError {
    /// One sentence for each variable.
    pub problems: Vec<String>,
}

impl Environment {
    /// The variables of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            variables,
            problems: Vec::new(),
        }
    }

    /// Given variables, for tests.
    #[must_use]
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            variables: variables.iter().map(owned).collect(),
            problems: Vec::new(),
        }
    }

    /// A text that must be there; empty counts as missing.
    pub fn required(&mut self, name: &str) -> String {
        match self.variables.get(name) {
            Some(value) if !value.is_empty() => value.clone(),
            _ => {
                self.problems.push(format!("{name} is not set"));
                String::new()
            }
        }
    }

    /// A text that may be missing; empty counts as missing.
    #[must_use]
    pub fn optional(&self, name: &str) -> Option<String> {
        self.variables
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    }

    /// A number between `low` and `high`, or `default`.
    pub fn number<T>(&mut self, name: &str, default: T, low: T, high: T) -> T
    where
        T: FromStr + PartialOrd + Copy + std::fmt::Display,
    {
        let Some(text) = self.optional(name) else {
            return default;
        };
        match text.parse::<T>() {
            Ok(value) if value >= low && value <= high => value,
            _ => {
                self.problems
                    .push(format!("{name} must be a number from {low} to {high}"));
                default
            }
        }
    }

    /// A switch: `1` or `true`, `0`, `false` or nothing.
    pub fn flag(&mut self, name: &str) -> bool {
        match self.optional(name).as_deref() {
            None | Some("0" | "false") => false,
            Some("1" | "true") => true,
            Some(_) => {
                self.problems.push(format!("{name} must be 1 or 0"));
                false
            }
        }
    }

    /// The clock of this process: the machine's, unless a test moved it.
    pub fn clock(&mut self) -> ShiftedClock {
        let bound = CLOCK_OFFSET_MS_MAX;
        let offset_ms = self.number(CLOCK_OFFSET_VARIABLE, 0, -bound, bound);
        ShiftedClock { offset_ms }
    }

    /// `config`, unless something was wrong.
    ///
    /// # Errors
    /// [`ConfigError`] (Halt) with every problem met since the snapshot was taken.
    pub fn finish<C>(self, config: C) -> Result<C, ConfigError> {
        if self.problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError {
                problems: self.problems,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use change_event::{Clock as _, SystemClock};

    use super::*;

    #[test]
    fn every_problem_is_reported_and_no_value_printed() {
        let mut env = Environment::of(&[("A", "secret"), ("B", ""), ("C", "secret")]);
        let number: u32 = env.number("A", 1, 0, 9);
        let text = env.required("B");
        let flag = env.flag("C");
        let error = env.finish(()).expect_err("three problems");
        assert_eq!((number, text.as_str(), flag), (1, "", false));
        assert_eq!(
            error.to_string(),
            "configuration: A must be a number from 0 to 9; B is not set; C must be 1 or 0"
        );
    }

    #[test]
    fn values_and_defaults_are_given() {
        let mut env = Environment::of(&[("A", "7"), ("B", "x"), ("C", "1")]);
        assert_eq!(env.number("A", 1u32, 0, 9), 7);
        assert_eq!(env.number("D", 4u32, 0, 9), 4);
        assert_eq!(env.required("B"), "x");
        assert_eq!(env.optional("E"), None);
        assert!(env.flag("C"));
        assert_eq!(env.clock().offset_ms, 0);
        assert!(env.finish(()).is_ok());
    }

    #[test]
    fn clock_is_moved_for_tests_only_and_within_an_hour() {
        let mut env = Environment::of(&[(CLOCK_OFFSET_VARIABLE, "-300000")]);
        let (moved, machine) = (env.clock().now_ms(), SystemClock.now_ms());
        assert!((299_000..=301_000).contains(&(machine - moved)));
        let mut env = Environment::of(&[(CLOCK_OFFSET_VARIABLE, "3600001")]);
        assert_eq!(env.clock().offset_ms, 0);
        assert!(env.finish(()).is_err());
    }
}
