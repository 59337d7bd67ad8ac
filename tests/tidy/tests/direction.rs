//! Data runs source log -> change event -> topic -> batch -> Parquet -> commit, and dependencies point upstream only.
//!
//! A new edge is a new line in [`MAY_NAME`], in a commit of its own with a reason.

use crate::tree::{self, Package};

/// Who may name whom, besides itself. Tests of a crate may also name `test-kit`.
const MAY_NAME: [(&str, &[&str]); 15] = [
    // 1: vocabulary and ports
    ("change-event", &[]),
    ("object-io", &["change-event"]),
    // Registrations and schema documents are objects that every function reads.
    ("function-kit", &["change-event", "object-io"]),
    // 2: the source
    ("source-postgres", &["change-event"]),
    // 3 and 4: neither knows the sources
    ("table-file", &["change-event"]),
    ("table-commit", &["change-event", "object-io", "table-file"]),
    // 5: adapters; the core never names one
    ("glue-catalog", &["change-event", "table-commit"]),
    (
        "test-kit",
        &["change-event", "object-io", "table-file", "table-commit"],
    ),
    // 6: deployables; they never name each other
    (
        "capture-agent",
        &["change-event", "object-io", "source-postgres", "table-file"],
    ),
    ("ingest", FUNCTION),
    ("commit", FUNCTION),
    ("ddl", FUNCTION),
    ("mapping", FUNCTION),
    // The operator's command reads the registry and works on tables as the functions do.
    ("firn-cli", OPERATOR),
    ("maintain", FUNCTION),
];

const FUNCTION: &[&str] = &[
    "change-event",
    "object-io",
    "function-kit",
    "table-file",
    "table-commit",
    "glue-catalog",
];

/// A rebuild is ingest over the whole topic: the very code, so that a table that was rebuilt is as it would have been.
const OPERATOR: &[&str] = &[
    "change-event",
    "object-io",
    "function-kit",
    "table-file",
    "table-commit",
    "glue-catalog",
    "ingest",
];

/// The local event source stands where AWS stands: it sees topics and functions, and no table.
const EVENT_SOURCE: &[&str] = &["change-event", "object-io", "function-kit"];

fn complaints(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        if package.folder.starts_with("tests/") {
            continue;
        }
        let allowed = match package.name.as_str() {
            "event-source" => EVENT_SOURCE,
            name => match MAY_NAME.iter().find(|(known, _)| *known == name) {
                Some((_, allowed)) => allowed,
                None => {
                    complaints.push(format!(
                        "{name}: stands in no layer; give it a line in MAY_NAME"
                    ));
                    continue;
                }
            },
        };
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| dependency.ours)
        {
            let for_tests = dependency.dev && dependency.name == "test-kit";
            if !for_tests && !allowed.contains(&dependency.name.as_str()) {
                complaints.push(format!(
                    "wrong edge: {} -> {}",
                    package.name, dependency.name
                ));
            }
        }
    }
    complaints
}

#[test]
fn dependencies_point_upstream() {
    tree::expect_none(&complaints(&tree::packages()));
}

#[test]
fn edge_downstream_is_named() {
    let edge = |from: &str, folder: &str, to: &str, dev| Package {
        name: from.to_owned(),
        folder: folder.to_owned(),
        dependencies: vec![tree::Dependency {
            name: to.to_owned(),
            dev,
            ours: true,
            features: Vec::new(),
        }],
    };
    let wrong = |package| complaints(&[package]);
    assert_eq!(
        wrong(edge(
            "change-event",
            "crates/change-event",
            "table-file",
            false
        )),
        ["wrong edge: change-event -> table-file"]
    );
    assert_eq!(
        wrong(edge(
            "table-commit",
            "crates/table-commit",
            "glue-catalog",
            true
        )),
        ["wrong edge: table-commit -> glue-catalog"]
    );
    assert_eq!(
        wrong(edge("ingest", "functions/ingest", "commit", false)),
        ["wrong edge: ingest -> commit"]
    );
    assert_eq!(
        wrong(edge("object-io", "crates/object-io", "test-kit", false)).len(),
        1
    );
    assert_eq!(
        wrong(edge("shed", "crates/shed", "object-io", false)).len(),
        1
    );
    assert!(wrong(edge("object-io", "crates/object-io", "test-kit", true)).is_empty());
    assert!(wrong(edge("contract", "tests/contract", "glue-catalog", false)).is_empty());
}
