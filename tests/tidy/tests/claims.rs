//! What the documents claim: links lead somewhere, commands exist, and a promise that is called proven names tests that
//! are there.

use crate::tree::{self, TextFile};

/// Marks of a promise in docs/SEMANTICS.md.
const PROVEN: &str = "*proven by ";
const OPEN: &str = "*not yet";

fn markdown(files: &[TextFile]) -> impl Iterator<Item = &TextFile> {
    files.iter().filter(|file| file.has_extension("md"))
}

/// Links to files and headings of this repository that lead nowhere.
fn dead_links(files: &[TextFile], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in markdown(files) {
        for target in links(&file.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() {
                file.path.clone()
            } else {
                resolve(&file.path, path)
            };
            if !exists(&path) {
                complaints.push(format!("{}: link to {target} leads nowhere", file.path));
            } else if !heading.is_empty()
                && let Some(other) = files.iter().find(|other| other.path == path)
                && !headings(&other.text).any(|slug| slug == heading)
            {
                complaints.push(format!("{}: {path} has no heading #{heading}", file.path));
            }
        }
    }
    complaints
}

/// Targets of `[text](target)` outside code blocks.
fn links(text: &str) -> Vec<&str> {
    prose(text)
        .flat_map(|line| {
            line.match_indices("](")
                .map(move |(start, _)| &line[start + 2..])
        })
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .collect()
}

/// Lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    })
}

/// Headings as GitHub links to them.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| slug(line.trim_start_matches('#')))
}

fn slug(title: &str) -> String {
    title
        .trim()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// `path` as seen from the folder of `from`.
fn resolve(from: &str, path: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// Mentions of `docs/….md` or `docs/adr/NNN`, in any file, that lead nowhere.
fn dead_mentions(files: &[TextFile]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files
        .iter()
        .filter(|file| !file.path.starts_with("tests/tidy/"))
    {
        for (start, _) in file.text.match_indices("docs/") {
            let before = file.text[..start].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_')) {
                continue;
            }
            let legal = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
            let mention = file.text[start..]
                .split(|c| !legal(c))
                .next()
                .unwrap_or_default();
            let mention = mention.trim_end_matches(['.', '/', '-']);
            if mention != "docs" && !files.iter().any(|other| other.path.starts_with(mention)) {
                complaints.push(format!("{}: {mention} is not there", file.path));
            }
        }
    }
    complaints
}

/// Sections of docs/operations.md that an error or alarm sends its reader to and that are not there. In the code such a
/// mention is `docs/operations.md, \"A gap\"`, or `«a gap»` for the quotes.
fn missing_ways_out(files: &[TextFile]) -> Vec<String> {
    const PAGE: &str = "docs/operations.md";
    let slugs: Vec<String> = files
        .iter()
        .filter(|file| file.path == PAGE)
        .flat_map(|file| headings(&file.text))
        .collect();
    let mut complaints = Vec::new();
    for file in files
        .iter()
        .filter(|file| file.has_extension("rs") && !file.path.starts_with("tests/tidy/"))
    {
        for (start, _) in file.text.match_indices(PAGE) {
            // Names of sections stand close by; what is further on speaks of something else.
            let near: String = file.text[start + PAGE.len()..].chars().take(60).collect();
            let named = ["\\\"", "«"]
                .iter()
                .find_map(|open| near.split_once(open))
                .map(|(_, rest)| rest);
            let Some((name, _)) = named.and_then(|rest| rest.split_once(['\\', '»'])) else {
                continue;
            };
            if !slugs.contains(&slug(name)) {
                complaints.push(format!("{}: {PAGE} has no section {name:?}", file.path));
            }
        }
    }
    complaints
}

/// Metrics and failpoints that docs/operations.md does not tell of. Their names are constants in files of these names.
fn untold_names(files: &[TextFile]) -> Vec<String> {
    let page = files.iter().find(|file| file.path == "docs/operations.md");
    let told = |name: &str| page.is_some_and(|page| page.text.contains(name));
    let mut complaints = Vec::new();
    for file in files {
        let names: Vec<&str> = match file.name() {
            "failpoint.rs" | "failpoints.rs" => constants(&file.text, ".").collect(),
            "metrics.rs" if file.path.starts_with("capture-agent/") => {
                constants(&file.text, "firn_agent_").collect()
            }
            "metric.rs" => file
                .text
                .lines()
                .filter_map(|line| {
                    line.trim()
                        .strip_prefix("Self::")?
                        .split_once(" => \"")?
                        .1
                        .split('"')
                        .next()
                })
                .filter(|name| name.contains('_'))
                .collect(),
            _ => Vec::new(),
        };
        for name in names.into_iter().filter(|name| !told(name)) {
            complaints.push(format!(
                "{}: docs/operations.md does not tell of {name}",
                file.path
            ));
        }
    }
    complaints
}

/// Values of text constants that hold `part`.
fn constants<'a>(text: &'a str, part: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(|line| {
            line.strip_prefix("pub const ")?
                .split_once(": &str = \"")?
                .1
                .split('"')
                .next()
        })
        .filter(move |value| value.contains(part))
}

/// Sub-commands of `./dev` that are written in a document and that the script does not know.
fn unknown_commands(files: &[TextFile]) -> Vec<String> {
    let script: Vec<&TextFile> = files
        .iter()
        .filter(|file| {
            file.path == "dev" || (file.path.starts_with("localstack/") && file.has_extension("py"))
        })
        .collect();
    let known = |command: &str| {
        let forms = [
            format!("{command})"),
            format!("\"{command}\""),
            format!("'{command}'"),
            format!("{command}|"),
        ];
        script
            .iter()
            .any(|file| forms.iter().any(|form| file.text.contains(form.as_str())))
    };
    let mut complaints = Vec::new();
    for file in markdown(files) {
        for (start, _) in file.text.match_indices("./dev ") {
            let rest = &file.text[start + "./dev ".len()..];
            let command = rest
                .split(|c: char| !c.is_ascii_lowercase())
                .next()
                .unwrap_or_default();
            if !command.is_empty() && !known(command) {
                complaints.push(format!("{}: ./dev {command} does not exist", file.path));
            }
        }
    }
    complaints
}

/// Promises without a mark, and marks that name a test which is not there.
fn unproven_claims(files: &[TextFile]) -> Vec<String> {
    let Some(page) = files.iter().find(|file| file.path == "docs/SEMANTICS.md") else {
        return vec!["docs/SEMANTICS.md is not there".to_owned()];
    };
    let mut complaints = Vec::new();
    for section in page.text.split("\n### ").skip(1) {
        let title = section.lines().next().unwrap_or_default();
        let section = section.split("\n## ").next().unwrap_or_default();
        if !section.contains(PROVEN) && !section.contains(OPEN) {
            complaints.push(format!(
                "docs/SEMANTICS.md: {title:?} is marked neither proven nor open"
            ));
        }
    }
    for (start, _) in page.text.match_indices(PROVEN) {
        let rest = &page.text[start + PROVEN.len()..];
        let mark = rest.split_once('*').map_or(rest, |(mark, _)| mark);
        let names: Vec<&str> = mark.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            complaints.push(format!(
                "docs/SEMANTICS.md: a mark names no test: {}",
                mark.trim_end()
            ));
        }
        for name in names.into_iter().filter(|name| !name.starts_with("./dev ")) {
            if !is_test(files, name) {
                complaints.push(format!("docs/SEMANTICS.md: there is no test {name}"));
            }
        }
    }
    complaints
}

fn is_test(files: &[TextFile], name: &str) -> bool {
    files.iter().any(|file| {
        let forms = match file.path.rsplit_once('.').map(|(_, extension)| extension) {
            Some("rs") => [format!("fn {name}("), format!("fn {name}<")],
            Some("ts") => [format!("test('{name}'"), format!("test(\"{name}\"")],
            Some("py") => [format!("def {name}("), format!("def test_{name}(")],
            _ => return false,
        };
        forms.iter().any(|form| file.text.contains(form.as_str()))
    })
}

#[test]
fn links_lead_somewhere() {
    let root = tree::root();
    tree::expect_none(&dead_links(tree::files(), |path| root.join(path).exists()));
    tree::expect_none(&dead_mentions(tree::files()));
    tree::expect_none(&missing_ways_out(tree::files()));
    tree::expect_none(&untold_names(tree::files()));
}

#[test]
fn commands_in_the_documents_exist() {
    tree::expect_none(&unknown_commands(tree::files()));
}

#[test]
fn promises_are_proven_by_tests_that_exist_or_are_marked_open() {
    tree::expect_none(&unproven_claims(tree::files()));
}

#[test]
fn dead_link_is_named() {
    let page = TextFile::new(
        "docs/a.md",
        "# A B\n[x](b.md) [y](../c.md) [z](#a-b) [w](#c) [u](https://example.org)\n",
    );
    let files = [page];
    let complaints = dead_links(&files, |path| path == "c.md" || path == "docs/a.md");
    assert_eq!(
        complaints,
        [
            "docs/a.md: link to b.md leads nowhere",
            "docs/a.md: docs/a.md has no heading #c"
        ]
    );
    let code = TextFile::new(
        "src/a.rs",
        "// see docs/a.md and docs/adr/009, not my-docs/b.md\n",
    );
    assert_eq!(
        dead_mentions(&[files[0].clone(), code]),
        ["src/a.rs: docs/adr/009 is not there"]
    );
}

#[test]
fn section_that_an_error_names_and_that_is_missing_is_named() {
    let page = TextFile::new("docs/operations.md", "## Ways out\n### A gap\n");
    let code = "#[error(\"see docs/operations.md, \\\"A gap\\\"\")] #[error(\"see docs/operations.md says under «lost»\")]";
    let files = [page, TextFile::new("crates/a/src/error.rs", code)];
    assert_eq!(
        missing_ways_out(&files),
        ["crates/a/src/error.rs: docs/operations.md has no section \"lost\""]
    );
}

#[test]
fn metric_or_failpoint_that_is_not_told_of_is_named() {
    let page = TextFile::new("docs/operations.md", "`a.b` `x_total`");
    let failpoints = "pub const A: &str = \"a.b\";\npub const C: &str = \"c.d\";\n";
    let metrics = "            Self::X => \"x_total\",\n            Self::Y => \"y_total\",\n";
    let files = [
        page,
        TextFile::new("crates/a/src/failpoints.rs", failpoints),
        TextFile::new("crates/a/src/metric.rs", metrics),
    ];
    assert_eq!(
        untold_names(&files),
        [
            "crates/a/src/failpoints.rs: docs/operations.md does not tell of c.d",
            "crates/a/src/metric.rs: docs/operations.md does not tell of y_total",
        ]
    );
}

#[test]
fn unknown_command_is_named() {
    let files = [
        TextFile::new("README.md", "`./dev demo` and `./dev fly`"),
        TextFile::new("dev", "demo) run ;;"),
    ];
    assert_eq!(
        unknown_commands(&files),
        ["README.md: ./dev fly does not exist"]
    );
}

#[test]
fn promise_without_mark_and_mark_without_test_are_named() {
    let page = "# S\n\n### 1. A\n*proven by `seen`, `unseen`*\n\n### 2. B\nnothing\n\n### 3. C\n*not yet*\n\n### 4. D\n*proven by hand*\n";
    let files = [
        TextFile::new("docs/SEMANTICS.md", page),
        TextFile::new("crates/a/src/b.rs", "#[test]\nfn seen() {}\n"),
    ];
    assert_eq!(
        unproven_claims(&files),
        [
            "docs/SEMANTICS.md: \"2. B\" is marked neither proven nor open",
            "docs/SEMANTICS.md: there is no test unseen",
            "docs/SEMANTICS.md: a mark names no test: hand",
        ]
    );
}
