//! Removes objects, as many as a run may.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, stream};
use object_io::{ListedObject, ObjectError, ObjectStore};

/// Removals at a time.
const REMOVALS_AT_ONCE: usize = 32;

/// Removes objects until the run's bound, or only says which.
#[derive(Debug)]
pub(crate) struct Remover<'a> {
    store: &'a dyn ObjectStore,
    dry_run: bool,
    left: AtomicU64,
}

impl<'a> Remover<'a> {
    pub(crate) fn new(store: &'a dyn ObjectStore, dry_run: bool, removals_max: u64) -> Self {
        Self {
            store,
            dry_run,
            left: AtomicU64::new(removals_max),
        }
    }

    pub(crate) const fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// How many more may go.
    pub(crate) fn left(&self) -> usize {
        usize::try_from(self.left.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Removes the first of `objects`, at most [`Remover::left`], and calls `removed` with each.
    ///
    /// # Errors
    /// Those of the store, at the first removal that fails.
    pub(crate) async fn remove(
        &self,
        what: &'static str,
        objects: &[ListedObject],
        mut removed: impl FnMut(&ListedObject),
    ) -> Result<(), ObjectError> {
        if self.dry_run {
            for object in objects {
                tracing::info!(
                    key = object.key,
                    bytes = object.size_bytes,
                    "{what}: would be removed"
                );
            }
            return Ok(());
        }
        let mut removals = stream::iter(objects.iter().take(self.left()))
            .map(|object| async move {
                self.store.delete(&object.key).await?;
                Ok::<_, ObjectError>(object)
            })
            .buffer_unordered(REMOVALS_AT_ONCE);
        while let Some(ended) = removals.next().await {
            let object = ended?;
            tracing::info!(
                key = object.key,
                bytes = object.size_bytes,
                "{what}: removed"
            );
            self.left.fetch_sub(1, Ordering::Relaxed);
            removed(object);
        }
        Ok(())
    }
}
