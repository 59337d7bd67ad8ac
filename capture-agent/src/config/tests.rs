use super::*;

const GOOD: &str = r#"
[source]
name = "shop"
host = "127.0.0.1"
port = 5433
user = "firn"
database = "shop"
tables = ["public.*", "billing.invoices"]

[kafka]
bootstrap_servers = "127.0.0.1:9092"

[kafka.properties]
"linger.ms" = 5

[lake]
bucket = "lake"
database = "shop"
freshness_seconds = 2

[lake.tables."public.orders"]
freshness_seconds = 0

[object_store]
endpoint = "http://127.0.0.1:4566"
region = "us-east-1"

[topics]
replication_factor = 1

[topics.tables."public.orders"]
partitions = 4
"#;

fn problems(text: &str) -> Vec<String> {
    match Config::parse(text) {
        Err(ConfigError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn good_file_is_read_and_names_follow_the_source() {
    let config = Config::parse(GOOD).expect("a good file");
    assert_eq!(config.source.slot, "firn_shop");
    assert_eq!(config.kafka.transactional_id, "firn-shop");
    assert_eq!(config.kafka.properties["linger.ms"], "5");
    assert!(
        config.object_store.path_style,
        "an endpoint of one's own wants path style"
    );
    assert_eq!(config.topics.tables["public.orders"], 4);
    assert_eq!(
        config.lake.tables["public.orders"].freshness_seconds,
        Some(0)
    );
    assert_eq!(config.limits.transaction_max_ms, TRANSACTION_MAX_MS_DEFAULT);
}

#[test]
fn every_problem_is_reported_with_field_and_line() {
    let text = r#"[source]
name = "my shop"
host = 5
user = "firn"
database = "shop"
password = "hunter2"
colour = "blue"
tables = ["public"]
[kafka]
[kafka.properties]
"acks" = "1"
"sasl.password" = "hunter2"
[lake]
bucket = "lake"
database = "shop"
freshness_seconds = -1
[limits]
transaction_max_ms = 5
[extra]
"#;
    let found = problems(text);
    let expected = [
        "line 2: source.name: must be 1 to 40 letters",
        "line 3: source.host: must be a text in quotes",
        "line 6: source.password: must be a reference",
        "line 7: source.colour: unknown setting; known here: ",
        "line 8: source.tables: must hold patterns of two parts",
        "line 9: kafka.bootstrap_servers: must be set",
        "line 11: kafka.properties.acks: is set by the agent itself",
        "line 12: kafka.properties.sasl.password: holds a secret",
        "line 16: lake.freshness_seconds: must be a whole number from 0 to 86400",
        "line 18: limits.transaction_max_ms: must be a whole number from 10 to 10000",
        "line 19: extra: unknown setting",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            found.starts_with(expected),
            "{found} should start with {expected}"
        );
        assert!(!found.contains("hunter2"));
    }
}

#[test]
fn broken_syntax_is_reported_with_what_could_be_read() {
    let found = problems("[source]\nname = \nhost = \"h\"\n");
    assert!(
        found
            .iter()
            .any(|problem| problem.starts_with("line 2: not TOML")),
        "{found:#?}"
    );
    assert!(
        found
            .iter()
            .any(|problem| problem.contains("kafka.bootstrap_servers")),
        "{found:#?}"
    );
}

#[test]
fn secret_comes_from_a_file_and_never_prints() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("password");
    std::fs::write(&path, "hunter2\n").expect("written");
    let text = GOOD.replace(
        "user = \"firn\"",
        &format!(
            "user = \"firn\"\npassword = {{ file = \"{}\" }}",
            path.display()
        ),
    );
    let config = Config::parse(&text).expect("a good file");
    assert_eq!(
        config.source.password.as_ref().map(Secret::reveal),
        Some("hunter2")
    );
    let printed = format!("{config:?}");
    assert!(printed.contains("<redacted>") && !printed.contains("hunter2"));
}

#[test]
fn missing_secret_names_the_variable() {
    let text = GOOD.replace(
        "user = \"firn\"",
        "user = \"firn\"\npassword = { env = \"FIRN_TEST_NO_SUCH_VARIABLE\" }",
    );
    let found = problems(&text);
    assert_eq!(
        found,
        ["line 7: source.password: environment variable FIRN_TEST_NO_SUCH_VARIABLE is not set"]
    );
}

#[test]
fn encryption_that_is_not_implemented_is_refused() {
    let found = problems(&GOOD.replace(
        "user = \"firn\"",
        "user = \"firn\"
ssl_mode = \"verify-full\"",
    ));
    assert!(
        found[0].starts_with("line 7: source.ssl_mode: must be \"disable\""),
        "{found:?}"
    );
}

#[test]
fn example_file_lacks_nothing_but_its_secret() {
    let found = problems(include_str!("../../example.toml"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].contains("FIRN_SHOP_PASSWORD is not set"),
        "{found:?}"
    );
}
