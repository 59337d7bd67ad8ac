//! Places where a test makes the process die, to see that nothing is lost or doubled.
//!
//! A failpoint does nothing unless it is armed, in one of two ways:
//! - for a process that the test starts: `FIRN_FAILPOINTS="name,other*3"` aborts it the first time `name` is reached, or the
//!   third time `other` is;
//! - for processes that run already, such as warm functions: a file `name` in the folder `FIRN_FAILPOINT_FOLDER`. Whoever
//!   reaches the failpoint and wins the file's removal aborts, so that one file is one death. A file `<function>/name` does
//!   so to the function of that name alone.
//!
//! # Invariants
//! - With neither variable set, a failpoint costs one atomic read and changes nothing.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

/// Environment variable that arms failpoints of the process.
pub const VARIABLE: &str = "FIRN_FAILPOINTS";

/// Environment variable that names a folder in which files arm failpoints of running processes.
pub const FOLDER_VARIABLE: &str = "FIRN_FAILPOINT_FOLDER";

/// Where Lambda tells a function its own name.
const FUNCTION_VARIABLE: &str = "AWS_LAMBDA_FUNCTION_NAME";

/// What can make this process die.
#[derive(Debug)]
struct Arming {
    armed: Option<Armed>,
    /// Any process's folder, and that of this function alone.
    folders: Vec<PathBuf>,
}

impl Arming {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that arms failpoints, for every deployable"
    )]
    fn from_environment() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self::new(
            &set(VARIABLE).unwrap_or_default(),
            set(FOLDER_VARIABLE).map(PathBuf::from),
            set(FUNCTION_VARIABLE),
        )
    }

    fn new(armed: &str, folder: Option<PathBuf>, function: Option<String>) -> Self {
        let own = folder
            .iter()
            .zip(function)
            .map(|(folder, name)| folder.join(name));
        let mut folders: Vec<PathBuf> = own.collect();
        folders.extend(folder);
        Self {
            armed: Armed::parse(armed),
            folders,
        }
    }

    fn due(&self, name: &str) -> bool {
        self.armed.as_ref().is_some_and(|armed| armed.due(name))
            || self
                .folders
                .iter()
                .any(|folder| std::fs::remove_file(folder.join(name)).is_ok())
    }
}

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
        if armed.is_empty() {
            None
        } else {
            Some(Self(Mutex::new(armed)))
        }
    }

    /// Whether this hit is the one that aborts.
    fn due(&self, name: &str) -> bool {
        let Ok(mut armed) = self.0.lock() else {
            return false;
        };
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
    static ARMING: OnceLock<Arming> = OnceLock::new();
    if ARMING.get_or_init(Arming::from_environment).due(name) {
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
        assert_eq!(
            [armed.due("b"), armed.due("b"), armed.due("b")],
            [false, false, true]
        );
        assert!(!armed.due("c"));
    }

    fn temporary_folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("firn-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn file_in_the_folder_is_one_death() {
        let folder = temporary_folder("failpoint");
        std::fs::write(folder.join("a"), "").unwrap();
        let arming = Arming::new("", Some(folder.clone()), None);
        assert_eq!(
            [arming.due("b"), arming.due("a"), arming.due("a")],
            [false, true, false]
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn file_in_a_functions_folder_is_the_death_of_that_function() {
        let folder = temporary_folder("failpoint-function");
        std::fs::create_dir_all(folder.join("one")).unwrap();
        std::fs::write(folder.join("one").join("a"), "").unwrap();
        let due = |function: &str| {
            Arming::new("", Some(folder.clone()), Some(function.to_owned())).due("a")
        };
        assert_eq!([due("other"), due("one"), due("one")], [false, true, false]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn nothing_set_arms_nothing() {
        assert!(Armed::parse("").is_none());
        assert!(Armed::parse(" , ").is_none());
    }
}
