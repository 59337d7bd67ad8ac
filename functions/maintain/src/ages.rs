//! How old something must be, and how old it is.

use std::ops::RangeInclusive;

use bytes::Bytes;
use change_event::layout::MAINTAIN_CLOCK;
use object_io::{ListedObject, ObjectError, ObjectStore};

const HOUR_MS: i64 = 3_600_000;

/// A slot may not go before: far longer than any invocation lives, and longer than the hour for which a warm function
/// believes the tail of a chain.
pub(crate) const SLOT_HOURS_MIN: i64 = 24;
/// A week, so that a table that was rolled back can be filled again from its intents.
pub(crate) const SLOT_HOURS: i64 = 168;
/// A file may not go before: longer than any invocation lives, and than the 12 hours after which an uncommitted intent stops
/// a table.
pub(crate) const ORPHAN_HOURS_MIN: i64 = 24;
/// Three days: a weekend in which somebody may look at what a failure left.
pub(crate) const ORPHAN_HOURS: i64 = 72;
/// Most hours of either: ten years.
pub(crate) const HOURS_MAX: i64 = 87_600;

/// Between the write of a batch's file and that of the intent that names it lies less than an invocation's life, which is 15
/// minutes at most.
const NAMED_WITHIN_MS: i64 = 6 * HOUR_MS;
/// What two dates of one store may be off by.
const DATES_OFF_MS: i64 = HOUR_MS;

/// How old things must be before they are removed, at one moment of the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    slot_ms: i64,
    orphan_ms: i64,
}

impl Ages {
    /// Slots and orphans that are older than so many hours go; what is less than the least is raised to it.
    #[must_use]
    pub fn hours(slot: i64, orphan: i64) -> Self {
        Self {
            slot_ms: slot.clamp(SLOT_HOURS_MIN, HOURS_MAX) * HOUR_MS,
            orphan_ms: orphan.clamp(ORPHAN_HOURS_MIN, HOURS_MAX) * HOUR_MS,
        }
    }

    pub(crate) const fn is_old_slot(&self, object: &ListedObject, now_ms: i64) -> bool {
        now_ms.saturating_sub(object.modified_ms) >= self.slot_ms
    }

    pub(crate) const fn is_old_file(&self, object: &ListedObject, now_ms: i64) -> bool {
        now_ms.saturating_sub(object.modified_ms) >= self.orphan_ms
    }
}

impl Default for Ages {
    fn default() -> Self {
        Self::hours(SLOT_HOURS, ORPHAN_HOURS)
    }
}

/// When a batch's files were written that an intent of this date names.
pub(crate) const fn written_within(intent_ms: i64) -> RangeInclusive<i64> {
    intent_ms.saturating_sub(NAMED_WITHIN_MS)..=intent_ms.saturating_add(DATES_OFF_MS)
}

/// The time by the store's clock, in milliseconds: it dates an object that is written for this.
///
/// # Errors
/// Those of the store; [`ObjectError::Unavailable`] if it gives no date.
pub(crate) async fn store_now_ms(store: &dyn ObjectStore) -> Result<i64, ObjectError> {
    store.put(MAINTAIN_CLOCK, Bytes::new()).await?;
    let page = store.list_page(MAINTAIN_CLOCK, None, 1).await?;
    match page.objects.first() {
        Some(clock) if clock.key == MAINTAIN_CLOCK && clock.modified_ms < i64::MAX => {
            Ok(clock.modified_ms)
        }
        Some(_) | None => Err(ObjectError::Unavailable {
            operation: "list",
            key: MAINTAIN_CLOCK.to_owned(),
            source: "the store gives no date".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_age_is_less_than_the_least() {
        let object = |hours: i64| ListedObject {
            key: String::new(),
            size_bytes: 0,
            modified_ms: -hours * HOUR_MS,
        };
        let ages = Ages::hours(0, -5);
        assert!(!ages.is_old_slot(&object(23), 0) && !ages.is_old_file(&object(23), 0));
        assert!(ages.is_old_slot(&object(24), 0) && ages.is_old_file(&object(24), 0));
        let undated = ListedObject {
            modified_ms: i64::MAX,
            ..object(0)
        };
        assert!(!ages.is_old_slot(&undated, 0) && !ages.is_old_file(&undated, 0));
    }
}
