//! The numbers over HTTP: for Prometheus, and for whoever waits until everything is delivered.
//!
//! - `/metrics`: all counters, and the lag of every partition as the broker says it now.
//! - `/tail`: `{"reached":bool,"lag_records":n,"strays":n,"in_flight":n,"topics_waiting":n}`; reached is true when every record
//!   of every registered topic was taken by the function and no delivery that a fault added is left.
//! - `/healthz`: answers while the process lives.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::error::EventSourceError;
use crate::metrics::Metrics;
use crate::records::KafkaTopics;

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Pages {
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The broker, for the ends of partitions.
    pub topics: KafkaTopics,
}

/// Whether everything is delivered.
#[derive(Debug, Serialize)]
struct Tail {
    reached: bool,
    lag_records: Option<i64>,
    strays: u64,
    in_flight: u64,
    topics_waiting: u64,
}

/// Takes the address.
///
/// # Errors
/// [`EventSourceError::Listen`] (Halt).
pub async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), EventSourceError> {
    let failed = |source| EventSourceError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Serves the pages until the process ends.
pub async fn serve(listener: TcpListener, pages: Pages) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/tail", get(tail))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(pages);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

async fn metrics(State(pages): State<Pages>) -> String {
    let lags = pages.topics.lags(pages.metrics.partitions()).await;
    pages.metrics.render(&lags)
}

async fn tail(State(pages): State<Pages>) -> Json<Tail> {
    // In this order: a record that is delivered while the lags are read is seen as a lag, an invocation or neither, never less.
    let lags = pages.topics.lags(pages.metrics.partitions()).await;
    let lag_records = lags.iter().map(|lag| lag.records).sum::<Option<i64>>();
    let (strays, in_flight) = (pages.metrics.strays(), pages.metrics.in_flight());
    let topics_waiting = pages.metrics.topics_waiting();
    let reached = lag_records == Some(0) && strays == 0 && in_flight == 0 && topics_waiting == 0;
    Json(Tail {
        reached,
        lag_records,
        strays,
        in_flight,
        topics_waiting,
    })
}
