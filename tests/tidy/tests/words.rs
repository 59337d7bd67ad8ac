//! One word for one thing (docs/glossary.md). Only words that have no second, innocent meaning here are checked; the rest
//! is for the reader.

use crate::tree::{self, TextFile};

/// What is not said, and what is said for it. Compared in lower case.
const NOT_SAID: [(&str, &str); 15] = [
    ("dead letter", "quarantine"),
    ("dead-letter", "quarantine"),
    ("dead_letter", "quarantine"),
    ("dlq", "quarantine"),
    ("error queue", "quarantine"),
    ("poison queue", "quarantine"),
    ("initial snapshot", "table copy"),
    ("initial sync", "table copy"),
    ("fencing token", "epoch"),
    ("wal offset", "position"),
    ("log offset", "position"),
    ("source offset", "position"),
    ("binlog offset", "position"),
    ("white\u{6c}ist", "allow list"),
    ("black\u{6c}ist", "deny list"),
];

/// Marks of unfinished work. Compared as written.
const UNFINISHED: [&str; 4] = ["TO\u{44}O", "FIX\u{4d}E", "XX\u{58}", "HAC\u{4b}"];

/// Where the words stand because they are named, or are not ours.
const EXEMPT: [&str; 4] = ["tests/tidy/", "docs/glossary.md", "Cargo.lock", "LICENSE"];

fn complaints(files: &[TextFile]) -> Vec<String> {
    let checked = |file: &&TextFile| {
        !EXEMPT.iter().any(|exempt| file.path.starts_with(exempt))
            && ["rs", "ts", "py", "md", "toml", "yml", "sh"]
                .iter()
                .any(|e| file.has_extension(e))
    };
    let mut complaints = Vec::new();
    for file in files.iter().filter(checked) {
        for (index, line) in file.text.lines().enumerate() {
            let place = format!("{}:{}", file.path, index + 1);
            let lower = line.to_lowercase();
            for (word, instead) in NOT_SAID {
                if holds_word(&lower, word) {
                    complaints.push(format!(
                        "{place}: says {word:?}; the word here is {instead:?}"
                    ));
                }
            }
            for mark in UNFINISHED {
                if holds_word(line, mark) {
                    complaints.push(format!("{place}: unfinished ({mark})"));
                }
            }
        }
    }
    complaints
}

/// `word` stands in `line` with no letter or digit beside it.
fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, found)| {
        let before = line[..start].chars().next_back();
        let after = line[start + found.len()..].chars().next();
        let inside = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !inside(before) && !inside(after)
    })
}

#[test]
fn files_say_the_word_of_the_glossary() {
    tree::expect_none(&complaints(tree::files()));
}

#[test]
fn other_words_and_unfinished_marks_are_named() {
    let wrong = |path: &str, text: &str| complaints(&[TextFile::new(path, text)]).len();
    assert_eq!(wrong("docs/a.md", "goes to a Dead-Letter topic"), 1);
    assert_eq!(
        wrong("crates/a/src/b.rs", "//! the wal offset\nlet dlq = 1;"),
        2
    );
    assert_eq!(
        wrong("crates/a/src/b.rs", &format!("// {}: later", UNFINISHED[0])),
        1
    );
    assert_eq!(wrong("docs/glossary.md", "not: dead letter"), 0);
    assert_eq!(
        wrong("docs/a.md", "sadlqs, Kafka offset, log of offsets"),
        0
    );
}
