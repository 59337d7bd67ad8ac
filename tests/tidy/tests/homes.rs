//! Every outside world has one home. `deny.toml` says the same for the crates that it can see in the lock file.

use crate::tree::{self, Dependency, Package};

/// A crate that speaks to an outside world, and the packages that may name it. Packages below `tests/`, and the tests of
/// any package, may name those that are marked.
const HOMES: [(&str, &[&str], bool); 12] = [
    (
        "rdkafka",
        &["capture-agent", "event-source", "firn-cli"],
        true,
    ),
    ("aws-sdk-s3", &["object-io", "contract"], false),
    ("aws-sdk-glue", &["glue-catalog", "contract"], false),
    ("aws-sdk-lambda", &["function-kit"], false),
    ("aws-sdk-sqs", &["function-kit"], false),
    ("lambda_runtime", &["function-kit"], false),
    ("tokio-postgres", &["source-postgres"], true),
    ("postgres-protocol", &["source-postgres"], true),
    ("arrow", &["table-file"], true),
    ("parquet", &["table-file", "table-commit"], true),
    // The sources and the agent know no table format.
    (
        "iceberg",
        &[
            "table-file",
            "table-commit",
            "glue-catalog",
            "test-kit",
            "ingest",
            "commit",
            "ddl",
        ],
        true,
    ),
    ("axum", &["capture-agent", "event-source"], true),
];

/// Crates that compile without the S3 SDK.
const CORE: [&str; 5] = [
    "change-event",
    "source-postgres",
    "table-file",
    "table-commit",
    "test-kit",
];

fn complaints(packages: &[Package]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        for dependency in package
            .dependencies
            .iter()
            .filter(|dependency| !dependency.ours)
        {
            let Some((world, homes, tests)) =
                HOMES.iter().find(|(world, ..)| *world == dependency.name)
            else {
                continue;
            };
            let at_home = homes.contains(&package.name.as_str());
            let in_tests = dependency.dev || package.folder.starts_with("tests/");
            if !(at_home || *tests && in_tests) {
                complaints.push(format!(
                    "{} names {world}, whose home is {}",
                    package.name,
                    homes.join(", ")
                ));
            }
        }
        let asks_for_s3 = |dependency: &Dependency| {
            dependency.name == "object-io" && dependency.features.iter().any(|f| f == "s3")
        };
        if CORE.contains(&package.name.as_str()) && package.dependencies.iter().any(asks_for_s3) {
            complaints.push(format!(
                "{} asks for object-io's feature s3; only deployables do",
                package.name
            ));
        }
    }
    complaints
}

#[test]
fn every_outside_world_has_one_home() {
    tree::expect_none(&complaints(&tree::packages()));
}

#[test]
fn foreign_client_is_named() {
    let package = |name: &str, folder: &str, dependency: &str, feature: Option<&str>| Package {
        name: name.to_owned(),
        folder: folder.to_owned(),
        dependencies: vec![Dependency {
            name: dependency.to_owned(),
            dev: false,
            ours: dependency == "object-io",
            features: feature.map(str::to_owned).into_iter().collect(),
        }],
    };
    let wrong = |package| complaints(&[package]).len();
    assert_eq!(
        wrong(package("ingest", "functions/ingest", "rdkafka", None)),
        1
    );
    assert_eq!(
        wrong(package(
            "table-commit",
            "crates/table-commit",
            "aws-sdk-s3",
            None
        )),
        1
    );
    assert_eq!(
        wrong(package("bench", "tests/bench", "aws-sdk-glue", None)),
        1
    );
    assert_eq!(
        wrong(package(
            "table-commit",
            "crates/table-commit",
            "object-io",
            Some("s3")
        )),
        1
    );
    assert_eq!(wrong(package("bench", "tests/bench", "rdkafka", None)), 0);
    assert_eq!(
        wrong(package("object-io", "crates/object-io", "aws-sdk-s3", None)),
        0
    );
    assert_eq!(
        wrong(package(
            "ingest",
            "functions/ingest",
            "object-io",
            Some("s3")
        )),
        0
    );
}
