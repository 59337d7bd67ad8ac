//! Times in a table's metadata when clocks disagree.
//!
//! Every reader refuses metadata whose logs go backwards by more than a minute. Two ways lead there, and neither may stop a
//! table: an engine that checks nothing commits by its own clock after one whose clock was ahead; and the library stamps a
//! change without a snapshot by the machine's clock, whatever the logs say.
//!
//! # Invariants
//! - Only times are changed, never what they stand beside; coverage is judged by the state, so that they serve people alone.
//! - Metadata with sound times is left as it is.

use iceberg::spec::TableMetadata;
use serde_json::Value;

/// Metadata whose only fault is that times go backwards, with each raised to the one before it. Engines that leave such
/// metadata write plain JSON.
pub(crate) fn rising(bytes: &[u8]) -> Option<TableMetadata> {
    let mut json = serde_json::from_slice(bytes).ok()?;
    adjust(&mut json, i64::max)?;
    serde_json::from_value(json).ok()
}

/// Metadata with no time in its logs after `now_ms`, so that what is stamped with that time may follow.
pub(crate) fn until(metadata: &TableMetadata, now_ms: i64) -> TableMetadata {
    if metadata.last_updated_ms() <= now_ms {
        return metadata.clone();
    }
    let lowered = || {
        let mut json = serde_json::to_value(metadata).ok()?;
        adjust(&mut json, |time, _before| time.min(now_ms))?;
        serde_json::from_value(json).ok()
    };
    lowered().unwrap_or_else(|| metadata.clone())
}

/// Changes each time of both logs, given the one before it, and then that of the last update, given the latest of them.
fn adjust(json: &mut Value, change: impl Fn(i64, i64) -> i64) -> Option<()> {
    let mut latest = 0;
    for log in ["snapshot-log", "metadata-log"] {
        let entries = json.get_mut(log).and_then(Value::as_array_mut);
        let mut before = 0;
        for entry in entries.into_iter().flatten() {
            let time = entry.get_mut("timestamp-ms")?;
            before = change(time.as_i64()?, before);
            *time = before.into();
        }
        latest = before.max(latest);
    }
    let updated = json.get_mut("last-updated-ms")?;
    *updated = change(updated.as_i64()?, latest).into();
    Some(())
}

#[cfg(test)]
mod tests {
    use iceberg::TableCreation;
    use iceberg::spec::TableMetadataBuilder;

    use super::*;

    /// Sound metadata, and the same with a log of two times.
    fn with_log(times: impl Fn(i64) -> [i64; 2]) -> (TableMetadata, Value) {
        let creation = TableCreation::builder()
            .name("t".to_owned())
            .location("s3://b/t".to_owned())
            .schema(table_file::base_schema().unwrap())
            .build();
        let builder = TableMetadataBuilder::from_table_creation(creation).unwrap();
        let sound = builder.build().unwrap().metadata;
        let mut json = serde_json::to_value(&sound).unwrap();
        let log = times(sound.last_updated_ms())
            .map(|at| serde_json::json!({"metadata-file": "s3://b/t/x", "timestamp-ms": at}));
        json["metadata-log"] = log.to_vec().into();
        (sound, json)
    }

    #[test]
    fn times_that_went_backwards_are_raised_and_other_faults_are_not_read() {
        let (sound, mut json) = with_log(|now| [now + 300_000, now]);
        let later = sound.last_updated_ms() + 300_000;
        let bytes = serde_json::to_vec(&json).unwrap();
        assert!(serde_json::from_slice::<TableMetadata>(&bytes).is_err());
        let read = rising(&bytes).unwrap();
        assert_eq!(read.last_updated_ms(), later);
        assert_eq!(read.metadata_log()[1].timestamp_ms, later);
        assert_eq!(read.current_schema(), sound.current_schema());

        json["current-schema-id"] = 7.into();
        assert!(rising(&serde_json::to_vec(&json).unwrap()).is_none());
    }

    #[test]
    fn change_without_a_snapshot_follows_a_clock_that_was_ahead() {
        let (sound, mut json) = with_log(|now| [now, now + 300_000]);
        let now_ms = sound.last_updated_ms();
        json["last-updated-ms"] = (now_ms + 300_000).into();
        let ahead: TableMetadata = serde_json::from_value(json).unwrap();
        let follow = |metadata: TableMetadata| {
            let builder = metadata.into_builder(Some("s3://b/t/y".to_owned()));
            let properties = std::collections::HashMap::from([("a".to_owned(), "b".to_owned())]);
            builder.set_properties(properties).unwrap().build()
        };
        assert!(follow(ahead.clone()).is_err());
        let lowered = until(&ahead, now_ms);
        assert_eq!(lowered.metadata_log()[1].timestamp_ms, now_ms);
        assert!(follow(lowered).is_ok());
        assert_eq!(until(&sound, now_ms), sound);
    }
}
