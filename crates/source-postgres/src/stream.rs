//! The replication stream: frames of the server, and our status updates to it.
//!
//! Flow: socket -> a task of its own -> chunks of frames, bounded by bytes -> **[`ReplicationStream::next`]** -> `decode`.
//!
//! # Invariants
//! - Status updates leave on a timer, however slow the consumer is: the server never takes us for dead while we live.
//! - What is acknowledged only rises, and only what the consumer gave to [`Acknowledger::acknowledge`] is.
//! - At most [`BUFFERED_BYTES_MAX`] wait for the consumer, or one larger chunk; then the socket is not read.
//! - Frames come in order; an error comes after the frames before it, and then nothing.
//!
//! # Source
//! PostgreSQL manual, "Streaming Replication Protocol"; `walsender.c`. That the server sends one packet per message, and what reading
//! each of them costs, was measured: see [`NAP`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use change_event::{Clock as _, Lsn, SystemClock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::decode::POSTGRES_EPOCH_US;
use crate::error::{Answering, ServerMessage, SourceError};
use crate::wire::{FRAME_HEADER_BYTES, Wire, frame_size, server_message};

/// Longest time between two status updates: a sixth of the default `wal_sender_timeout` of 60 s.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Shortest time between two status updates for an acknowledgement that moved: it costs the server a write of the slot.
pub const ACKNOWLEDGE_INTERVAL: Duration = Duration::from_secs(1);

/// Silence after which the server is taken for dead. Each timed status asks for a reply, so a living server is never silent for
/// longer than [`STATUS_INTERVAL`].
pub const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What may wait for the consumer.
pub const BUFFERED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long to wait for the last acknowledgement to leave.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// A read that gives less than this, while the stream is busy, is followed by a [`NAP`].
const NAP_READ_BYTES: usize = 64 * 1024;

/// How long to let the socket fill: waking up for each small packet costs several times what decoding it does. What a fast server
/// sends in this time fits its socket buffers, and it is far below any freshness that is asked for.
const NAP: Duration = Duration::from_millis(4);

/// The stream is busy if reads follow each other faster than this.
const BUSY_GAP: Duration = Duration::from_millis(3);

/// One frame of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One message of the output plugin.
    Data {
        /// Position of the message; 0 for some kinds of message.
        wal_start: Lsn,
        /// End of the log at the server when it was sent.
        wal_end: Lsn,
        /// The message, for [`crate::decode::decode`].
        payload: Bytes,
    },
    /// The server lives, and has sent everything before `wal_end`. With no transaction in flight, `wal_end` may be acknowledged.
    KeepAlive {
        /// Everything before it was sent.
        wal_end: Lsn,
        /// The server asks for a status update; the stream sends it by itself.
        reply_requested: bool,
    },
}

/// Says how far the changes are durable downstream. Clones speak for the same stream.
#[derive(Debug, Clone, Default)]
pub struct Acknowledger(Arc<AtomicU64>);

impl Acknowledger {
    /// Everything before `lsn` is durable downstream; a position before the last one is ignored.
    pub fn acknowledge(&self, lsn: Lsn) {
        self.0.fetch_max(lsn.0, Ordering::AcqRel);
    }

    /// The highest position acknowledged; `Lsn(0)` before the first.
    #[must_use]
    pub fn acknowledged(&self) -> Lsn {
        Lsn(self.0.load(Ordering::Acquire))
    }
}

/// Whole frames, with the share of the buffer that they take.
#[derive(Debug)]
struct Chunk {
    frames: Bytes,
    _share: OwnedSemaphorePermit,
}

/// A running stream. Dropping it closes the connection; [`ReplicationStream::stop`] sends the last acknowledgement first.
#[derive(Debug)]
pub struct ReplicationStream {
    chunks: mpsc::UnboundedReceiver<Result<Chunk, SourceError>>,
    current: Option<Chunk>,
    acknowledger: Acknowledger,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Drop for ReplicationStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ReplicationStream {
    pub(crate) fn new(wire: Wire, slot: String) -> Self {
        let (sender, chunks) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let acknowledger = Acknowledger::default();
        let pump = Pump {
            wire,
            slot,
            sender,
            room: Arc::new(Semaphore::new(BUFFERED_BYTES_MAX)),
            acknowledger: acknowledger.clone(),
            received: Lsn(0),
            sent_acknowledged: Lsn(0),
            last_status: Instant::now(),
            last_read: Instant::now(),
        };
        let task = tokio::spawn(pump.run(stopped));
        Self {
            chunks,
            current: None,
            acknowledger,
            stop: Some(stop),
            task,
        }
    }

    /// The handle by which progress is acknowledged.
    #[must_use]
    pub fn acknowledger(&self) -> Acknowledger {
        self.acknowledger.clone()
    }

    /// The next frame. Cancel safe.
    ///
    /// # Errors
    /// What ended the stream, once; then [`SourceError::ConnectionClosed`] (Retry).
    pub async fn next(&mut self) -> Result<Frame, SourceError> {
        loop {
            if let Some(frame) = self.take_current()? {
                return Ok(frame);
            }
            let chunk = self
                .chunks
                .recv()
                .await
                .ok_or(SourceError::ConnectionClosed)??;
            self.current = Some(chunk);
        }
    }

    /// The next frame if one is here already; `None` if not. Call it until then, and [`ReplicationStream::next`] after.
    ///
    /// # Errors
    /// As [`ReplicationStream::next`].
    pub fn try_next_buffered(&mut self) -> Result<Option<Frame>, SourceError> {
        loop {
            if let Some(frame) = self.take_current()? {
                return Ok(Some(frame));
            }
            match self.chunks.try_recv() {
                Ok(chunk) => self.current = Some(chunk?),
                Err(mpsc::error::TryRecvError::Empty) => return Ok(None),
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    return Err(SourceError::ConnectionClosed);
                }
            }
        }
    }

    /// Sends the last acknowledgement and ends the stream.
    pub async fn stop(mut self) {
        // The chunks stay open until the task is done: a task that finds nobody to give a chunk to ends without a last word.
        // If it has ended before, there is nobody to tell.
        let told = self.stop.take().is_some_and(|stop| stop.send(()).is_ok());
        if told
            && tokio::time::timeout(STOP_TIMEOUT, &mut self.task)
                .await
                .is_err()
        {
            tracing::debug!("the last acknowledgement could not be sent in time");
        }
    }

    fn take_current(&mut self) -> Result<Option<Frame>, SourceError> {
        let Some(chunk) = &mut self.current else {
            return Ok(None);
        };
        let Some(size) = frame_size(&chunk.frames)? else {
            self.current = None;
            return Ok(None);
        };
        let mut body = chunk.frames.split_to(size);
        body.advance(FRAME_HEADER_BYTES);
        parse_frame(body).map(Some)
    }
}

/// Reads the body of a `CopyData` frame.
fn parse_frame(mut body: Bytes) -> Result<Frame, SourceError> {
    let cut = |_source| SourceError::Protocol {
        what: "a frame of the stream is cut short",
    };
    match body.try_get_u8().map_err(cut)? {
        b'w' => {
            let wal_start = Lsn(body.try_get_u64().map_err(cut)?);
            let wal_end = Lsn(body.try_get_u64().map_err(cut)?);
            body.try_get_u64().map_err(cut)?; // the server's clock
            Ok(Frame::Data {
                wal_start,
                wal_end,
                payload: body,
            })
        }
        b'k' => {
            let wal_end = Lsn(body.try_get_u64().map_err(cut)?);
            body.try_get_u64().map_err(cut)?; // the server's clock
            Ok(Frame::KeepAlive {
                wal_end,
                reply_requested: body.try_get_u8().map_err(cut)? == 1,
            })
        }
        _ => Err(SourceError::Protocol {
            what: "unknown frame in the stream",
        }),
    }
}

/// The task that owns the socket.
struct Pump {
    wire: Wire,
    slot: String,
    sender: mpsc::UnboundedSender<Result<Chunk, SourceError>>,
    room: Arc<Semaphore>,
    acknowledger: Acknowledger,
    /// End of the log as the server last told.
    received: Lsn,
    sent_acknowledged: Lsn,
    last_status: Instant,
    last_read: Instant,
}

/// What the front of the buffer holds.
#[derive(Debug, Default)]
struct Scan {
    /// Size of the whole `CopyData` frames at the front.
    size: usize,
    wal_end: Option<Lsn>,
    reply_requested: bool,
}

impl Pump {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let ended = tokio::select! {
            ended = self.pump() => ended,
            _ = &mut stopped => {
                // Dropped without `stop`: the task is aborted anyway.
                self.finish().await;
                return;
            }
        };
        if let Err(error) = ended {
            // Nobody listens any more: then nobody needs to know.
            drop(self.sender.send(Err(error)));
        }
    }

    async fn pump(&mut self) -> Result<(), SourceError> {
        self.status(true).await?;
        loop {
            while let Some(chunk) = self.take_frames().await? {
                self.hand_over(chunk).await?;
            }
            if !self.take_others()? {
                self.read().await?;
            }
        }
    }

    /// Cuts the whole frames off the front of the buffer and answers a keepalive among them.
    async fn take_frames(&mut self) -> Result<Option<Bytes>, SourceError> {
        let scan = scan(&self.wire.incoming)?;
        if let Some(wal_end) = scan.wal_end {
            self.received = self.received.max(wal_end);
        }
        if scan.reply_requested {
            self.status(false).await?;
        }
        if scan.size == 0 {
            return Ok(None);
        }
        Ok(Some(self.wire.incoming.split_to(scan.size).freeze()))
    }

    /// Gives a chunk to the consumer once there is room; the status timer runs on meanwhile.
    async fn hand_over(&mut self, frames: Bytes) -> Result<(), SourceError> {
        let share = u32::try_from(frames.len().min(BUFFERED_BYTES_MAX)).unwrap_or(u32::MAX);
        let mut waiting = std::pin::pin!(Arc::clone(&self.room).acquire_many_owned(share));
        let share = loop {
            let due = self.status_due();
            tokio::select! {
                biased;
                share = &mut waiting => break share,
                () = tokio::time::sleep_until(due) => self.status_tick().await?,
            }
        };
        let share = share.map_err(|_closed| SourceError::ConnectionClosed)?;
        // The wait was the consumer's: silence counts from here.
        self.last_read = Instant::now();
        self.sender
            .send(Ok(Chunk {
                frames,
                _share: share,
            }))
            .map_err(|_gone| SourceError::ConnectionClosed)
    }

    /// Handles whole frames at the front that are no data (an error, the end, a notice); gives whether data follows.
    fn take_others(&mut self) -> Result<bool, SourceError> {
        while let Some((tag, size)) = self.wire.buffered()? {
            if tag == b'd' {
                return Ok(true);
            }
            let mut body = self.wire.incoming.split_to(size).freeze();
            body.advance(FRAME_HEADER_BYTES);
            let answering = Answering::Streaming { slot: &self.slot };
            match tag {
                b'E' => return Err(answering.error(server_message(&body, answering))),
                b'N' => {
                    let notice = server_message(&body, answering);
                    if skips_publication(&notice) {
                        let slot = self.slot.clone();
                        return Err(SourceError::PublicationMissing {
                            slot,
                            server: notice,
                        });
                    }
                    tracing::debug!(slot = self.slot, sqlstate = notice.sqlstate, "notice");
                }
                b'S' => {}
                b'c' | b'C' | b'Z' => return Err(SourceError::ConnectionClosed),
                _ => {
                    return Err(SourceError::Protocol {
                        what: "unexpected frame in the stream",
                    });
                }
            }
        }
        Ok(false)
    }

    /// Reads once, with the status timer beside it and a nap behind it.
    async fn read(&mut self) -> Result<(), SourceError> {
        loop {
            let due = self.status_due();
            tokio::select! {
                biased;
                count = self.wire.fill() => {
                    let count = count?;
                    let gap = self.last_read.elapsed();
                    if count < NAP_READ_BYTES && gap < BUSY_GAP {
                        tokio::time::sleep(NAP).await;
                    }
                    self.last_read = Instant::now();
                    // A socket that always has more never lets the timer beside it speak.
                    if self.last_status.elapsed() >= ACKNOWLEDGE_INTERVAL {
                        self.status_tick().await?;
                    }
                    return Ok(());
                }
                () = tokio::time::sleep_until(due) => {
                    if self.last_read.elapsed() >= SILENCE_MAX {
                        let source = std::io::ErrorKind::TimedOut.into();
                        return Err(SourceError::ConnectionLost { source });
                    }
                    self.status_tick().await?;
                }
            }
        }
    }

    /// When to look at the timers again.
    fn status_due(&self) -> Instant {
        (self.last_status + STATUS_INTERVAL).min(Instant::now() + ACKNOWLEDGE_INTERVAL)
    }

    /// Sends a status update if the interval is over or the acknowledged position moved.
    async fn status_tick(&mut self) -> Result<(), SourceError> {
        if self.last_status.elapsed() >= STATUS_INTERVAL {
            self.status(true).await
        } else if self.acknowledger.acknowledged() > self.sent_acknowledged {
            self.status(false).await
        } else {
            Ok(())
        }
    }

    async fn status(&mut self, ask_for_reply: bool) -> Result<(), SourceError> {
        self.put_status(ask_for_reply);
        self.wire.flush().await
    }

    fn put_status(&mut self, ask_for_reply: bool) {
        let acknowledged = self.acknowledger.acknowledged();
        let out = &mut self.wire.outgoing;
        out.put_u8(b'd');
        out.put_i32(4 + 1 + 8 + 8 + 8 + 8 + 1);
        out.put_u8(b'r');
        out.put_u64(self.received.max(acknowledged).0); // written
        out.put_u64(acknowledged.0); // flushed: what the slot may forget
        out.put_u64(acknowledged.0); // applied
        // Only shown by the server (`pg_stat_replication.reply_time`): nothing that a replay could see.
        out.put_i64(SystemClock.now_us().saturating_sub(POSTGRES_EPOCH_US));
        out.put_u8(u8::from(ask_for_reply));
        self.sent_acknowledged = acknowledged;
        self.last_status = Instant::now();
    }

    /// The last status, the end of our side, good-bye; errors no longer matter.
    async fn finish(&mut self) {
        self.put_status(false);
        postgres_protocol::message::frontend::copy_done(&mut self.wire.outgoing);
        postgres_protocol::message::frontend::terminate(&mut self.wire.outgoing);
        if let Err(error) = self.wire.flush().await {
            tracing::debug!(slot = self.slot, %error, "no last acknowledgement");
            return;
        }
        // Until the server has closed: closing first, with bytes unread, would reset the connection under the last word.
        while self.wire.fill().await.is_ok() {
            self.wire.incoming.clear();
        }
    }
}

/// Whether the server goes on without a publication, which PostgreSQL 18 does with a warning of a code of its own
/// (`LoadPublications` in `pgoutput.c`; older ones end the stream with an error). Its changes would be missing unseen.
fn skips_publication(notice: &ServerMessage) -> bool {
    notice.severity == "WARNING" && notice.sqlstate == "55000"
}

/// Looks at the whole `CopyData` frames at the front; nothing is copied.
fn scan(bytes: &[u8]) -> Result<Scan, SourceError> {
    let mut found = Scan::default();
    let mut rest = bytes;
    while let Some(size) = frame_size(rest)? {
        let Some((frame, behind)) = rest.split_at_checked(size) else {
            break;
        };
        let Some((b'd', body)) = frame.split_first() else {
            break;
        };
        let body = body.get(FRAME_HEADER_BYTES - 1..).unwrap_or_default();
        let lsn_at = |at: usize| {
            let bytes = body.get(at..)?.first_chunk::<8>()?;
            Some(Lsn(u64::from_be_bytes(*bytes)))
        };
        match body.first() {
            Some(b'k') => {
                found.wal_end = lsn_at(1).max(found.wal_end);
                found.reply_requested |= body.get(17) == Some(&1);
            }
            Some(b'w') => found.wal_end = lsn_at(9).max(found.wal_end),
            _ => {}
        }
        found.size += size;
        rest = behind;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy_data(body: &[u8]) -> Vec<u8> {
        let mut frame = vec![b'd'];
        frame.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
        frame.extend_from_slice(body);
        frame
    }

    fn keepalive(lsn: u64, reply: u8) -> Vec<u8> {
        let mut body = vec![b'k'];
        body.extend_from_slice(&lsn.to_be_bytes());
        body.extend_from_slice(&[0; 8]);
        body.push(reply);
        copy_data(&body)
    }

    #[test]
    fn scan_stops_at_a_frame_cut_short_or_of_another_kind() {
        let mut bytes = [keepalive(5, 0), keepalive(9, 1)].concat();
        let whole = bytes.len();
        bytes.extend_from_slice(&keepalive(11, 1)[..9]);
        let found = scan(&bytes).unwrap();
        assert_eq!(
            (found.size, found.wal_end, found.reply_requested),
            (whole, Some(Lsn(9)), true)
        );
        bytes.truncate(whole);
        bytes.extend_from_slice(b"N\0\0\0\x05\0");
        assert_eq!(scan(&bytes).unwrap().size, whole);
    }

    #[test]
    fn acknowledged_position_never_goes_back() {
        let acknowledger = Acknowledger::default();
        acknowledger.acknowledge(Lsn(7));
        acknowledger.clone().acknowledge(Lsn(3));
        assert_eq!(acknowledger.acknowledged(), Lsn(7));
    }

    #[test]
    fn frame_cut_short_is_an_error() {
        assert!(parse_frame(Bytes::from_static(b"k\0\0")).is_err());
        assert!(parse_frame(Bytes::from_static(b"x")).is_err());
        assert!(parse_frame(Bytes::new()).is_err());
    }
}
