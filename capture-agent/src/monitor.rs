//! Looks at the slot from the server's side, so that the agent can say how long until it is lost.
//!
//! # Invariants
//! - A connection of its own: it sees the slot also while the session is busy, waiting or broken.

use std::convert::Infallible;
use std::time::Duration;

use change_event::Lsn;
use source_postgres::{Catalog, SourceError};

use crate::context::Context;
use crate::source::connect_options;
use crate::status::lossy;

/// Seconds between two looks: two cheap queries.
const INTERVAL: Duration = Duration::from_secs(2);
/// Weight of the newest look in the rate of the log.
const RATE_WEIGHT: f64 = 0.2;

/// Watches until the task is ended.
pub async fn watch(context: Context) -> Infallible {
    let mut catalog = None;
    let mut last: Option<(i64, Lsn)> = None;
    let mut failing = false;
    loop {
        match look(&context, &mut catalog, &mut last).await {
            Ok(()) => failing = false,
            Err(error) => {
                catalog = None;
                if !failing {
                    tracing::warn!(%error, "the slot cannot be watched");
                }
                failing = true;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn look(
    context: &Context,
    catalog: &mut Option<Catalog>,
    last: &mut Option<(i64, Lsn)>,
) -> Result<(), SourceError> {
    let catalog = match catalog {
        Some(catalog) => catalog,
        None => catalog.insert(Catalog::connect(&connect_options(&context.config)).await?),
    };
    let now_ms = context.clock.now_ms();
    let current = catalog.current_wal_lsn().await?;
    let state = catalog.slot_state(&context.config.source.slot).await?;
    let rate = last.replace((now_ms, current)).map(|(then_ms, then)| {
        let elapsed_ms = u64::try_from(now_ms.saturating_sub(then_ms))
            .unwrap_or(0)
            .max(1);
        lossy(current.0.saturating_sub(then.0)) * 1000.0 / lossy(elapsed_ms)
    });
    context.status.update(|snapshot| {
        let slot = &mut snapshot.slot;
        slot.current_wal_lsn = current;
        if let Some(rate) = rate {
            let smoothed = slot.wal_bytes_per_second.unwrap_or(rate);
            slot.wal_bytes_per_second = Some(smoothed + RATE_WEIGHT * (rate - smoothed));
        }
        match &state {
            Some(state) => {
                slot.wal_status = if state.is_lost() {
                    "lost".to_owned()
                } else {
                    state
                        .wal_status
                        .map_or_else(String::new, |status| format!("{status:?}").to_lowercase())
                };
                slot.safe_wal_size_bytes = state.safe_wal_size_bytes;
                slot.retained_bytes = state.retained_bytes.unwrap_or(0);
                slot.confirmed_flush_lsn = state.confirmed_flush_lsn.unwrap_or_default();
            }
            None => slot.wal_status.clear(),
        }
    });
    Ok(())
}
