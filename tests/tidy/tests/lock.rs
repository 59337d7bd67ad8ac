//! What must not be in the lock file, and what must be there once.

use crate::tree;

/// Prefixes of packages that never come in: a query engine that nobody asked for, and a TLS library that wants a C++
/// tool chain (everything here is on ring).
const BANNED: [&str; 2] = ["datafusion", "aws-lc"];

/// Two versions of one of these would be two types of one name in our own signatures.
const ONCE: [&str; 8] = [
    "arrow",
    "arrow-array",
    "arrow-schema",
    "parquet",
    "iceberg",
    "rustls",
    "aws-smithy-types",
    "rdkafka-sys",
];

fn complaints(lock: &str) -> Vec<String> {
    let names: Vec<&str> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .collect();
    let banned = names
        .iter()
        .filter(|name| BANNED.iter().any(|prefix| name.starts_with(prefix)))
        .map(|name| format!("Cargo.lock holds {name}"));
    let doubled = ONCE
        .iter()
        .map(|once| (once, names.iter().filter(|name| name == &once).count()))
        .filter(|(_, count)| *count > 1)
        .map(|(once, count)| format!("Cargo.lock holds {count} versions of {once}"));
    banned.chain(doubled).collect()
}

#[test]
fn lock_file_holds_one_arrow_and_no_query_engine() {
    let lock = tree::files()
        .iter()
        .find(|file| file.path == "Cargo.lock")
        .expect("there is a lock file");
    assert!(
        lock.text.contains("name = \"parquet\""),
        "the lock file is the one with parquet in it"
    );
    tree::expect_none(&complaints(&lock.text));
}

#[test]
fn second_arrow_and_banned_package_are_named() {
    let lock = "[[package]]\nname = \"arrow\"\n[[package]]\nname = \"arrow\"\n[[package]]\nname = \"datafusion-common\"\n";
    assert_eq!(
        complaints(lock),
        [
            "Cargo.lock holds datafusion-common",
            "Cargo.lock holds 2 versions of arrow"
        ]
    );
}
