//! Which mappings are missing. Pure.

use std::collections::BTreeSet;

use change_event::partition::fnv1a_64;
use function_kit::mappings::KafkaMapping;

use crate::config::Target;

/// Lambda's bound for the name of a consumer group.
const GROUP_ID_LENGTH_MAX: usize = 200;

/// The mappings of announced topics that have none, by topic, at most as many as one run makes.
#[must_use]
pub fn missing(announced: &[String], mapped: &[String], target: &Target) -> Vec<KafkaMapping> {
    let mapped: BTreeSet<&String> = mapped.iter().collect();
    let announced: BTreeSet<&String> = announced.iter().collect();
    let count = usize::try_from(target.creations_max).unwrap_or(usize::MAX);
    announced
        .difference(&mapped)
        .take(count)
        .map(|topic| KafkaMapping {
            function_name: target.ingest_function.clone(),
            cluster_arn: target.cluster_arn.clone(),
            topic: (*topic).clone(),
            consumer_group_id: consumer_group_id(&target.ingest_function, topic),
            batch_size: target.batch_size,
            window_seconds: target.window_seconds,
            poller_group: target.poller_group.clone(),
            pollers_min: 1,
            pollers_max: target.pollers_max,
        })
        .collect()
}

/// The consumer group of a topic: always the same, and within Lambda's bound for any topic.
#[must_use]
pub fn consumer_group_id(function: &str, topic: &str) -> String {
    let plain = format!("{function}.{topic}");
    if plain.len() <= GROUP_ID_LENGTH_MAX {
        return plain;
    }
    // Topics and functions are ASCII by their own rules; what is cut off still counts in the hash.
    let head: String = plain.chars().take(GROUP_ID_LENGTH_MAX - 17).collect();
    format!("{head}.{:016x}", fnv1a_64(plain.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            ingest_function: "firn-ingest".to_owned(),
            cluster_arn: "arn:aws:kafka:eu-central-1:1:cluster/c/1".to_owned(),
            poller_group: Some("firn".to_owned()),
            pollers_max: 4,
            batch_size: 10_000,
            window_seconds: None,
            creations_max: 2,
        }
    }

    fn topics(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_announced_topics_without_a_mapping_are_planned() {
        let plan = missing(
            &topics(&["p.a.b", "p.a.c"]),
            &topics(&["p.a.b", "p.gone.x"]),
            &target(),
        );
        assert_eq!(plan.len(), 1);
        assert_eq!(plan[0].topic, "p.a.c");
        assert_eq!(plan[0].consumer_group_id, "firn-ingest.p.a.c");
        assert_eq!(plan[0].poller_group.as_deref(), Some("firn"));
    }

    #[test]
    fn everything_mapped_plans_nothing() {
        assert!(missing(&topics(&["a"]), &topics(&["a", "a"]), &target()).is_empty());
    }

    #[test]
    fn one_run_makes_a_bounded_number() {
        let plan = missing(&topics(&["d", "c", "b", "a"]), &[], &target());
        let planned: Vec<_> = plan.iter().map(|mapping| mapping.topic.as_str()).collect();
        assert_eq!(planned, ["a", "b"]);
    }

    #[test]
    fn long_topics_keep_apart_and_within_the_bound() {
        let (one, other) = ("t".repeat(248) + "1", "t".repeat(248) + "2");
        let ids = [consumer_group_id("f", &one), consumer_group_id("f", &other)];
        assert!(
            ids.iter().all(|id| id.len() <= GROUP_ID_LENGTH_MAX),
            "{ids:?}"
        );
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids[0], consumer_group_id("f", &one));
    }
}
