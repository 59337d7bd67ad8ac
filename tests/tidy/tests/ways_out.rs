//! Commands of `firn`, the operator's program, that a message or document sends its reader to: they exist.

use crate::tree::{self, TextFile};

/// Where the program's commands are declared, as clap's enums `Command` and `<Name>Command`.
const DECLARED: &str = "crates/firn-cli/src/arguments.rs";

/// `status`, `gap`, `gap accept` and so on.
fn commands(files: &[TextFile]) -> Vec<String> {
    let mut commands = Vec::new();
    let declared = files.iter().filter(|file| file.path == DECLARED);
    for declaration in declared.flat_map(|file| file.text.split("enum ").skip(1)) {
        let Some((parent, body)) = declaration.split_once("Command {") else {
            continue;
        };
        let body = body.split("\n}").next().unwrap_or_default();
        let variants = body.lines().filter_map(|line| {
            let name = line.strip_prefix("    ")?.split('(').next()?;
            let is_name = name.starts_with(|c: char| c.is_ascii_uppercase());
            is_name.then_some(name)
        });
        for variant in variants {
            let command = format!("{parent} {variant}").to_lowercase();
            commands.push(command.trim().to_owned());
        }
    }
    commands
}

/// Mentions of `firn …` that name no command of it, or no second word of one that has several.
fn unknown_commands(files: &[TextFile]) -> Vec<String> {
    let commands = commands(files);
    let known = |command: &str| commands.iter().any(|known| known == command);
    let mut complaints = Vec::new();
    for file in files {
        let speaks = file.has_extension("rs") || file.has_extension("md");
        // README.md says which commands are not there yet.
        if !speaks || file.path.starts_with("tests/tidy/") || file.path == "README.md" {
            continue;
        }
        for (start, mention) in file.text.match_indices("`firn ") {
            let rest = &file.text[start + mention.len()..];
            let mut words = rest.split('`').next().unwrap_or_default().split(' ');
            let first = words.next().unwrap_or_default();
            let second = words
                .next()
                .filter(|word| word.chars().all(|c| c.is_ascii_lowercase()));
            let prefix = format!("{first} ");
            let has_several = commands.iter().any(|command| command.starts_with(&prefix));
            let whole = match second {
                Some(second) if has_several => format!("{first} {second}"),
                _ => first.to_owned(),
            };
            if !known(&whole) {
                complaints.push(format!("{}: there is no command firn {whole}", file.path));
            }
        }
    }
    complaints
}

#[test]
fn commands_that_messages_and_documents_name_exist() {
    assert!(
        !commands(tree::files()).is_empty(),
        "{DECLARED} declares none"
    );
    tree::expect_none(&unknown_commands(tree::files()));
}

#[test]
fn command_that_firn_does_not_have_is_named() {
    let declared = "enum Command {\n    /// How.\n    Status(Subjects),\n    Gap(GapCommand),\n}\npub enum GapCommand {\n    Accept(A),\n}\n";
    let messages =
        "see `firn status` and `firn gap accept {topic}`, not `firn fly` nor `firn gap jump`";
    let files = [
        TextFile::new(DECLARED, declared),
        TextFile::new("crates/a/src/error.rs", messages),
    ];
    assert_eq!(
        unknown_commands(&files),
        [
            "crates/a/src/error.rs: there is no command firn fly",
            "crates/a/src/error.rs: there is no command firn gap jump",
        ]
    );
}
