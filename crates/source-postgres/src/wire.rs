//! The wire: frames of the server, one buffer each way.
//!
//! # Invariants
//! - A read that is cancelled loses nothing: bytes go to the buffer or stay in the socket.
//! - A frame is never larger than [`FRAME_SIZE_MAX`].

use std::fmt;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::error::{Answering, ServerMessage, SourceError};

/// Size of the read buffer: large enough that a busy stream is read in few system calls.
pub(crate) const READ_BUFFER_BYTES: usize = 256 * 1024;

/// The server's own limit of a message (`MaxAllocSize` and a header).
const FRAME_SIZE_MAX: usize = 1 << 30;

/// Tag and length.
pub(crate) const FRAME_HEADER_BYTES: usize = 5;

/// A connection, encrypted or not.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Transport for T {}

/// One frame without its header.
#[derive(Debug, Clone)]
pub(crate) struct RawFrame {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
}

/// A connection with its buffers.
pub(crate) struct Wire {
    transport: Box<dyn Transport>,
    pub(crate) incoming: BytesMut,
    pub(crate) outgoing: BytesMut,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("incoming_bytes", &self.incoming.len())
            .finish_non_exhaustive()
    }
}

impl Wire {
    pub(crate) fn new(transport: Box<dyn Transport>) -> Self {
        Self {
            transport,
            incoming: BytesMut::with_capacity(READ_BUFFER_BYTES),
            outgoing: BytesMut::new(),
        }
    }

    /// Reads more bytes; gives how many. Cancel safe.
    pub(crate) async fn fill(&mut self) -> Result<usize, SourceError> {
        // Room for what the frame at the front lacks, at least for a large read.
        let lacking = match frame_size(&self.incoming)? {
            Some(size) => size.saturating_sub(self.incoming.len()),
            None => 0,
        };
        let free = self.incoming.capacity() - self.incoming.len();
        if free < lacking.max(READ_BUFFER_BYTES / 4) {
            self.incoming.reserve(lacking.max(READ_BUFFER_BYTES));
        }
        match self.transport.read_buf(&mut self.incoming).await {
            Ok(0) => Err(SourceError::ConnectionClosed),
            Ok(count) => Ok(count),
            Err(source) => Err(SourceError::ConnectionLost { source }),
        }
    }

    /// Whether a whole frame is buffered; gives its tag and its size with the header.
    pub(crate) fn buffered(&self) -> Result<Option<(u8, usize)>, SourceError> {
        let size = frame_size(&self.incoming)?.filter(|size| *size <= self.incoming.len());
        Ok(self.incoming.first().copied().zip(size))
    }

    /// Waits for a whole frame to be buffered; gives its tag and its size with the header. Cancel safe.
    pub(crate) async fn wait_frame(&mut self) -> Result<(u8, usize), SourceError> {
        loop {
            if let Some(found) = self.buffered()? {
                return Ok(found);
            }
            self.fill().await?;
        }
    }

    /// The next frame, taken out of the buffer. Cancel safe.
    pub(crate) async fn frame(&mut self) -> Result<RawFrame, SourceError> {
        let (tag, size) = self.wait_frame().await?;
        let mut body = self.incoming.split_to(size);
        body.advance(FRAME_HEADER_BYTES);
        Ok(RawFrame {
            tag,
            body: body.freeze(),
        })
    }

    /// Sends what `outgoing` holds.
    pub(crate) async fn flush(&mut self) -> Result<(), SourceError> {
        let lost = |source: io::Error| SourceError::ConnectionLost { source };
        self.transport
            .write_all_buf(&mut self.outgoing)
            .await
            .map_err(lost)?;
        self.transport.flush().await.map_err(lost)
    }
}

/// Size of the frame at the front, header included, once its header is there.
pub(crate) fn frame_size(bytes: &[u8]) -> Result<Option<usize>, SourceError> {
    let Some(header) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(None);
    };
    let [_tag, length @ ..] = *header;
    // The length counts itself, not the tag.
    let size = usize::try_from(i32::from_be_bytes(length))
        .ok()
        .and_then(|size| size.checked_add(1));
    match size {
        Some(size) if (FRAME_HEADER_BYTES..=FRAME_SIZE_MAX).contains(&size) => Ok(Some(size)),
        _ => Err(SourceError::Protocol {
            what: "impossible length of a frame",
        }),
    }
}

/// What stands for the words of an error about a value (SQLSTATE classes 22 and 23).
const VALUE_NOT_SHOWN: &str = "an error about a value, which is not shown";

/// Reads an `ErrorResponse` or `NoticeResponse`.
pub(crate) fn server_message(body: &[u8], answering: Answering<'_>) -> ServerMessage {
    let mut message = ServerMessage {
        severity: String::new(),
        sqlstate: String::new(),
        message: String::new(),
    };
    let mut detail = String::new();
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, text)) = field.split_first() else {
            continue;
        };
        let text = || String::from_utf8_lossy(text).into_owned();
        match kind {
            b'V' => message.severity = text(),
            b'C' => message.sqlstate = text(),
            b'M' => message.message = text(),
            b'D' => detail = text(),
            _ => {}
        }
    }
    // Of a value that is no such value, or breaks a rule, even the primary message may quote it: it reaches logs.
    if message.sqlstate.starts_with("22") || message.sqlstate.starts_with("23") {
        message.message = VALUE_NOT_SHOWN.to_owned();
    } else if answering.keeps_detail() && !detail.is_empty() {
        message.message = format!("{}: {detail}", message.message);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_of_an_error_is_kept_only_for_a_slot() {
        let body = b"SERROR\0VERROR\0C55000\0Mcannot\0Dbecause\0\0";
        let slot = server_message(body, Answering::StartReplication { slot: "s" });
        assert_eq!(slot.to_string(), "cannot: because (SQLSTATE 55000)");
        assert_eq!(server_message(body, Answering::Query).message, "cannot");
    }

    #[test]
    fn words_that_may_quote_a_value_are_not_kept() {
        for sqlstate in ["22P02", "23505"] {
            let body = format!("SERROR\0VERROR\0C{sqlstate}\0Minvalid: \"secret\"\0Dsecret\0\0");
            let slot = Answering::StartReplication { slot: "s" };
            for answering in [Answering::Query, slot] {
                let message = server_message(body.as_bytes(), answering);
                assert_eq!(message.sqlstate, sqlstate);
                assert!(!message.to_string().contains("secret"), "{message}");
            }
        }
    }

    #[test]
    fn impossible_length_is_refused() {
        assert!(frame_size(b"d\0\0\0\x03").is_err());
        assert!(frame_size(b"d\xFF\xFF\xFF\xFF").is_err());
        assert!(matches!(frame_size(b"d\0\0\0\x04"), Ok(Some(5))));
        assert!(matches!(frame_size(b"d\0\0"), Ok(None)));
    }
}
