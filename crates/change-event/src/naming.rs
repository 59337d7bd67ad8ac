//! Names that outlive their source: topics and lake tables.
//!
//! # Invariants
//! - [`topic_name`] is injective: two tables never share a topic, whatever their names hold.

/// Schema and table under which firn writes what is no row change (TRUNCATE) into the lake.
pub const EVENTS_SCHEMA: &str = "firn";
/// See [`EVENTS_SCHEMA`].
pub const EVENTS_TABLE: &str = "events";

/// Name of the topic of a table: `<prefix>.<schema>.<table>`, each part escaped.
///
/// Letters, digits and `_` stand for themselves; every other byte (UTF-8) becomes `-hh`. So a `.` only separates parts and
/// a `-` only begins an escape.
#[must_use]
pub fn topic_name(prefix: &str, schema: &str, table: &str) -> String {
    format!("{prefix}.{}.{}", escape(schema), escape(table))
}

/// Name of the progress topic of all agents with this prefix. Two parts, so it is no table's topic.
#[must_use]
pub fn progress_topic_name(prefix: &str) -> String {
    format!("{prefix}.firn-progress")
}

/// Default name of a table in the lake: `<schema>__<table>`, lower case, every byte outside `[a-z0-9_]` as `_hh`.
///
/// Not injective (Glue folds case): the agent refuses two captured tables with one lake name at start.
#[must_use]
pub fn lake_table_name(schema: &str, table: &str) -> String {
    let fold = |text: &str| {
        let mut out = String::with_capacity(text.len());
        for byte in text.to_lowercase().bytes() {
            match byte {
                b'a'..=b'z' | b'0'..=b'9' | b'_' => out.push(char::from(byte)),
                _ => out.push_str(&format!("_{byte:02x}")),
            }
        }
        out
    };
    format!("{}__{}", fold(schema), fold(table))
}

/// The injective escape of one part of a topic name or object key.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => out.push(char::from(byte)),
            _ => out.push_str(&format!("-{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn topic_names_are_plain_where_they_can_be_and_never_meet() {
        assert_eq!(
            topic_name("shop", "public", "order_lines"),
            "shop.public.order_lines"
        );
        let awkward = [
            ("a.b", "c"),
            ("a", "b.c"),
            ("a-2eb", "c"),
            ("A", "b"),
            ("a", "B"),
            ("a b", "ü\""),
        ];
        let names: HashSet<_> = awkward.iter().map(|(s, t)| topic_name("p", s, t)).collect();
        assert_eq!(names.len(), awkward.len());
        for name in names {
            let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            assert!(name.chars().all(legal), "{name}");
        }
    }

    #[test]
    fn lake_names_suit_glue_and_athena() {
        assert_eq!(lake_table_name("public", "Orders"), "public__orders");
        assert_eq!(lake_table_name("public", "a b"), "public__a_20b");
    }
}
