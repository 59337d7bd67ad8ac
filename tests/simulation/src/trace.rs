//! What happened, as a hash, and as lines if somebody wants to read them.

use std::fmt::{self, Write as _};

/// The trace of a run.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: Hash,
    lines: Option<Vec<String>>,
}

/// FNV-1a over what is written.
#[derive(Debug)]
struct Hash(u64);

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    /// An empty trace that keeps its lines, or only their hash.
    #[must_use]
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            hash: Hash(0xcbf2_9ce4_8422_2325),
            lines: keep.then(Vec::new),
        }
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a hash cannot fail.
        let _written = writeln!(self.hash, "{line}");
        if let Some(lines) = &mut self.lines {
            lines.push(line.to_string());
        }
    }

    /// The hash of all lines.
    #[must_use]
    pub(crate) const fn hash(&self) -> u64 {
        self.hash.0
    }

    /// The lines, if they are kept.
    #[must_use]
    pub(crate) fn lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
