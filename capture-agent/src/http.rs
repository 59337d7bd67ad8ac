//! `/healthz`, `/metrics` and the status page.
//!
//! # Invariants
//! - Read only, and never a row value.
//! - `/healthz` is 503 only when a person is needed: a restart would not help while the agent waits by itself.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::context::Context;
use crate::error::AgentError;
use crate::status::AgentState;
use crate::{metrics, page};

/// Opens the address and serves until the agent stops.
///
/// # Errors
/// [`AgentError::Listen`] (Halt) if the address cannot be had.
pub async fn serve(context: Context) -> Result<(), AgentError> {
    let address = context.config.http.listen;
    let failed = |source| AgentError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    if let Ok(bound) = listener.local_addr() {
        tracing::info!(address = %bound, "status page");
    }
    let mut until = context.clone();
    tokio::spawn(async move {
        let served = axum::serve(listener, router(context))
            .with_graceful_shutdown(async move { until.stopping().await })
            .await;
        if let Err(error) = served {
            tracing::warn!(%error, "the status page ended");
        }
    });
    Ok(())
}

/// The routes.
pub fn router(context: Context) -> Router {
    Router::new()
        .route("/", get(status_page))
        .route("/healthz", get(health))
        .route("/metrics", get(prometheus))
        .with_state(context)
}

async fn status_page(State(context): State<Context>) -> Html<String> {
    Html(page::render(
        &context.config,
        &context.status.snapshot(),
        context.clock.now_ms(),
    ))
}

async fn health(State(context): State<Context>) -> (StatusCode, String) {
    let snapshot = context.status.snapshot();
    let code = match snapshot.state {
        AgentState::Halted => StatusCode::SERVICE_UNAVAILABLE,
        AgentState::Starting
        | AgentState::Copying
        | AgentState::Streaming
        | AgentState::Waiting
        | AgentState::Stopping => StatusCode::OK,
    };
    (code, format!("{}\n", snapshot.state.word()))
}

async fn prometheus(State(context): State<Context>) -> impl IntoResponse {
    let text = metrics::render(
        context.source_name(),
        &context.status.snapshot(),
        context.clock.now_ms(),
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
