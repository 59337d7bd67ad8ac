//! The shape of a source file: it says what it is, it is of a size that is read, and its name is a word.

use crate::tree::{self, TextFile};

/// Look for a seam here (HOUSE-STYLE: 150 to 400 is pleasant). Tests do not count.
const LINES_MAX: usize = 500;

/// `main.rs` wires, and fits on a screen.
const MAIN_LINES_MAX: usize = 150;

/// Files that are longer for a reason. Path, the most lines it may have, the reason.
const LONGER: [(&str, usize, &str); 4] = [
    (
        "capture-agent/src/session.rs",
        620,
        "one session from its claim to its end, in the order of its steps",
    ),
    (
        "crates/change-event/src/json.rs",
        560,
        "one scanner, a function for each kind of value",
    ),
    (
        "crates/source-postgres/src/decode.rs",
        580,
        "one decoder, a function for each message",
    ),
    (
        "crates/table-file/src/column.rs",
        580,
        "one builder for each lake type, side by side",
    ),
];

/// Names that say nothing about what is inside.
const NO_NAMES: [&str; 9] = [
    "util", "utils", "common", "helper", "helpers", "manager", "misc", "base", "shared",
];

fn complaints(files: &[TextFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files {
        let source = ["rs", "ts", "py"]
            .iter()
            .any(|extension| file.has_extension(extension));
        if !source {
            continue;
        }
        let stem = file
            .name()
            .rsplit_once('.')
            .map_or(file.name(), |(stem, _)| stem);
        if NO_NAMES.contains(&stem) || stem.starts_with("base_") {
            complaints.push(format!(
                "{}: the name says nothing about what is inside",
                file.path
            ));
        }
        if file.has_extension("rs") {
            complaints.extend(shape_of(file));
        }
    }
    complaints
}

fn shape_of(file: &TextFile) -> Vec<String> {
    let mut complaints = Vec::new();
    // The tests of a file, in a file of their own, are introduced by the one they belong to.
    let beside = file.path.contains("/src/") && file.name().ends_with("tests.rs");
    if !beside && !file.text.starts_with("//! ") {
        complaints.push(format!(
            "{}: does not begin with what it is (`//! …`)",
            file.path
        ));
    }
    // Packages below tests/ have a src/ of their own, which counts.
    let integration =
        file.path.split('/').any(|part| part == "tests") && !file.path.contains("/src/");
    if beside || integration {
        return complaints;
    }
    let count = file
        .text
        .lines()
        .take_while(|line| *line != "#[cfg(test)]")
        .count();
    let allowed = match LONGER.iter().find(|(path, ..)| *path == file.path) {
        Some((_, allowed, _)) => *allowed,
        None if file.name() == "main.rs" => MAIN_LINES_MAX,
        None => LINES_MAX,
    };
    if count > allowed {
        complaints.push(format!(
            "{}: {count} lines without tests, {allowed} at most",
            file.path
        ));
    }
    complaints
}

#[test]
fn source_files_say_what_they_are_and_are_of_a_readable_size() {
    tree::expect_none(&complaints(tree::files()));
}

#[test]
fn headless_long_and_nameless_files_are_named() {
    let long = format!("//! Long.\n{}", "let a = 1;\n".repeat(LINES_MAX));
    let tested = format!(
        "//! Short.\n#[cfg(test)]\n{}",
        "let a = 1;\n".repeat(LINES_MAX)
    );
    let wrong = |path: &str, text: &str| complaints(&[TextFile::new(path, text)]).len();
    assert_eq!(wrong("crates/a/src/b.rs", "fn main() {}\n"), 1);
    assert_eq!(wrong("crates/a/src/b.rs", &long), 1);
    assert_eq!(
        wrong(
            "crates/a/src/main.rs",
            &format!("//! M.\n{}", "\n".repeat(MAIN_LINES_MAX))
        ),
        1
    );
    assert_eq!(wrong("crates/a/src/utils.rs", "//! U.\n"), 1);
    assert_eq!(wrong("localstack/helpers.py", "\n"), 1);
    assert_eq!(wrong("crates/a/src/b.rs", &tested), 0);
    assert_eq!(wrong("crates/a/tests/b.rs", &long), 0);
    assert_eq!(wrong("tests/bench/src/b.rs", &long), 1);
}
