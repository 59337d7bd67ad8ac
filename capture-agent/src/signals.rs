//! SIGTERM and SIGINT as one signal to stop in order.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Listens; the value turns true at the first signal. A second one ends the process as usual.
#[must_use]
pub fn listen() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    let (terminate, interrupt) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
        tracing::warn!("signals cannot be listened to: the agent ends without order");
        // The sender must live, or its end would be the signal.
        tokio::spawn(async move { sender.closed().await });
        return receiver;
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop: the open transaction is finished first");
        if sender.send(true).is_ok() {
            // Kept alive until everybody has seen it.
            sender.closed().await;
        }
    });
    receiver
}
