//! Walks JSON text without building anything: what [`super::read`] stands on.
//!
//! # Invariants
//! - Strict: what it accepts is JSON (RFC 8259) in UTF-8, and every escape in it names a character.
//! - Any input gives an answer, never a panic; nesting deeper than [`DEPTH_MAX`] is refused.
//!
//! # Source
//! RFC 8259. Searching a string eight bytes at a time is the "haszero" trick of Bit Twiddling Hacks (S. E. Anderson).

use std::borrow::Cow;

use crate::envelope::read::EnvelopeError;

/// Deepest nesting that is read; an envelope with an inline schema has six levels.
pub(super) const DEPTH_MAX: usize = 64;

/// A JSON string as it stands in the text, between its quotes.
#[derive(Debug, Clone, Copy)]
pub struct RawString<'a> {
    text: &'a str,
    escaped: bool,
}

impl<'a> RawString<'a> {
    /// Whether it says `other`.
    #[must_use]
    pub fn matches(&self, other: &str) -> bool {
        if self.escaped {
            self.to_text() == other
        } else {
            self.text == other
        }
    }

    /// What it says: borrowed from the record, or written over `scratch` if it holds escapes.
    #[must_use]
    pub fn unescape<'s>(&self, scratch: &'s mut String) -> &'s str
    where
        'a: 's,
    {
        if !self.escaped {
            return self.text;
        }
        scratch.clear();
        self.unescape_into(scratch);
        scratch
    }

    /// What it says.
    #[must_use]
    pub fn to_text(&self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.text);
        }
        let mut out = String::with_capacity(self.text.len());
        self.unescape_into(&mut out);
        Cow::Owned(out)
    }

    /// The text without its escapes, if it has none.
    #[must_use]
    pub fn plain(&self) -> Option<&'a str> {
        (!self.escaped).then_some(self.text)
    }

    fn unescape_into(&self, out: &mut String) {
        let mut rest = self.text;
        while let Some((clean, escape)) = rest.split_once('\\') {
            out.push_str(clean);
            // The scanner has seen that each escape is whole; an unknown one cannot stand here.
            let mut chars = escape.chars();
            match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('b') => out.push('\u{8}'),
                Some('f') => out.push('\u{c}'),
                Some('u') => match unicode_escape(escape.as_bytes()) {
                    Some((character, length)) => {
                        out.push(character);
                        chars = escape.get(length..).unwrap_or_default().chars();
                    }
                    None => out.push(char::REPLACEMENT_CHARACTER),
                },
                Some(same) => out.push(same),
                None => {}
            }
            rest = chars.as_str();
        }
        out.push_str(rest);
    }
}

/// The character of `uXXXX` or `uXXXX\uXXXX` at the start of `bytes`, and the length of that.
fn unicode_escape(bytes: &[u8]) -> Option<(char, usize)> {
    let high = hex4(bytes.get(1..5)?)?;
    if let Some(character) = char::from_u32(high) {
        return Some((character, 5));
    }
    if !(0xD800..0xDC00).contains(&high) || bytes.get(5..7)? != b"\\u" {
        return None;
    }
    let low = hex4(bytes.get(7..11)?)?;
    if !(0xDC00..0xE000).contains(&low) {
        return None;
    }
    Some((
        char::from_u32(0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00))?,
        11,
    ))
}

fn hex4(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, digit| {
        Some(value << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// A scalar as it stands in the text.
#[derive(Debug, Clone, Copy)]
pub enum RawCell<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, its exact text.
    Number(&'a str),
    /// A string.
    String(RawString<'a>),
}

/// What a value is; an array or object is not entered.
pub(super) enum Value<'a> {
    Scalar(RawCell<'a>),
    /// At its opening bracket.
    Nested,
}

/// A place in JSON text.
#[derive(Debug, Clone)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// The text from `start` to here.
    pub(super) fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    pub(super) const fn malformed(&self) -> EnvelopeError {
        EnvelopeError::NotJson { offset: self.at }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no white space, not taken.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    pub(super) fn expect(&mut self, wanted: u8) -> Result<(), EnvelopeError> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.malformed())
        }
    }

    /// Whether nothing but white space is left.
    pub(super) fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// The name of the next member of an object, its colon taken; `None` at the object's end, which is taken.
    ///
    /// `first` says that the opening brace was just taken.
    #[inline]
    pub(super) fn member(&mut self, first: bool) -> Result<Option<RawString<'a>>, EnvelopeError> {
        match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !first => {
                self.at += 1;
                if self.peek() != Some(b'"') {
                    return Err(self.malformed());
                }
            }
            Some(b'"') if first => {}
            _ => return Err(self.malformed()),
        }
        let name = self.string()?;
        self.expect(b':')?;
        Ok(Some(name))
    }

    /// A value: taken if it is a scalar.
    #[inline]
    pub(super) fn value(&mut self) -> Result<Value<'a>, EnvelopeError> {
        let cell = match self.peek() {
            Some(b'"') => RawCell::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => RawCell::Number(self.number()?),
            Some(b'n') => self.literal("null", RawCell::Null)?,
            Some(b't') => self.literal("true", RawCell::Bool(true))?,
            Some(b'f') => self.literal("false", RawCell::Bool(false))?,
            Some(b'{' | b'[') => return Ok(Value::Nested),
            _ => return Err(self.malformed()),
        };
        Ok(Value::Scalar(cell))
    }

    /// Passes over a value of any kind, looking at all of it.
    pub(super) fn skip(&mut self, depth: usize) -> Result<(), EnvelopeError> {
        if let Value::Scalar(_) = self.value()? {
            return Ok(());
        }
        if depth >= DEPTH_MAX {
            return Err(EnvelopeError::TooDeep {
                depth_max: DEPTH_MAX,
            });
        }
        let object = self.peek() == Some(b'{');
        self.at += 1;
        if object {
            let mut first = true;
            while self.member(first)?.is_some() {
                first = false;
                self.skip(depth + 1)?;
            }
            return Ok(());
        }
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.skip(depth + 1)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.malformed()),
            }
        }
    }

    fn literal(
        &mut self,
        literal: &str,
        cell: RawCell<'static>,
    ) -> Result<RawCell<'a>, EnvelopeError> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if rest.starts_with(literal.as_bytes()) {
            self.at += literal.len();
            Ok(cell)
        } else {
            Err(self.malformed())
        }
    }

    fn digits(&mut self) -> Result<(), EnvelopeError> {
        let start = self.at;
        while matches!(self.byte(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start {
            Err(self.malformed())
        } else {
            Ok(())
        }
    }

    fn number(&mut self) -> Result<&'a str, EnvelopeError> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        if self.byte() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.since(start))
    }

    /// A string; the opening quote is the next byte.
    fn string(&mut self) -> Result<RawString<'a>, EnvelopeError> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = next_special(self.text.as_bytes(), self.at);
            match self.byte() {
                Some(b'"') => {
                    let text = self.since(start);
                    self.at += 1;
                    return Ok(RawString { text, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.malformed()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), EnvelopeError> {
        let rest = self.text.as_bytes().get(self.at + 1..).unwrap_or_default();
        self.at += 1 + match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 1,
            Some(b'u') => unicode_escape(rest).ok_or_else(|| self.malformed())?.1,
            _ => return Err(self.malformed()),
        };
        Ok(())
    }
}

/// Where the next quote, backslash or control character stands, or the length of `bytes`.
#[inline]
fn next_special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    while let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = word ^ (ONES * 0x22);
        let quote = quote.wrapping_sub(ONES) & !quote;
        let backslash = word ^ (ONES * 0x5C);
        let backslash = backslash.wrapping_sub(ONES) & !backslash;
        // A borrow marks bytes above the lowest match wrongly, never the lowest itself.
        let found = (control | quote | backslash) & (ONES * 0x80);
        if found != 0 {
            // At most 7, so it fits.
            return at + usize::try_from(found.trailing_zeros() / 8).unwrap_or(0);
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if *byte < 0x20 || *byte == b'"' || *byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}
