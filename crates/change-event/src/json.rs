//! Walks JSON text without building anything: what [`crate::envelope`]'s reader and the Lambda event decoder stand on.
//!
//! # Invariants
//! - Strict: what it accepts is JSON (RFC 8259) in UTF-8, and every escape in it names a character.
//! - Any input gives an answer, never a panic; nesting deeper than [`DEPTH_MAX`] is refused.
//!
//! # Source
//! RFC 8259. Searching a string eight bytes at a time is the "haszero" trick of Bit Twiddling Hacks (S. E. Anderson).

use std::borrow::Cow;

/// Deepest nesting that is read; an envelope with an inline schema has six levels.
pub const DEPTH_MAX: usize = 64;

/// Text that is not JSON, or too deep.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum JsonError {
    /// Not UTF-8, which JSON is.
    #[error("not UTF-8 at byte {offset}")]
    NotUtf8 {
        /// Where reading stopped.
        offset: usize,
    },
    /// Not JSON.
    #[error("not JSON at byte {offset}")]
    NotJson {
        /// Where reading stopped.
        offset: usize,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {depth_max}")]
    TooDeep {
        /// Deepest nesting that is read.
        depth_max: usize,
    },
}

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

    /// What stands between its quotes.
    #[must_use]
    pub const fn raw(&self) -> &'a str {
        self.text
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
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// A scalar, taken.
    Scalar(RawCell<'a>),
    /// An array or object: the scanner stands at its opening bracket.
    Nested,
}

/// A place in JSON text.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// At the start of `text`.
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// At the start of `bytes`.
    ///
    /// # Errors
    /// [`JsonError::NotUtf8`].
    pub fn of_bytes(bytes: &'a [u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(bytes);
        text.map(Self::new).map_err(|error| JsonError::NotUtf8 {
            offset: error.valid_up_to(),
        })
    }

    /// Bytes passed so far.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The text from `start` to here.
    #[must_use]
    pub fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// The error of this place.
    #[must_use]
    pub const fn malformed(&self) -> JsonError {
        JsonError::NotJson { offset: self.at }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no white space, not taken.
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Takes `wanted`, and white space before it.
    ///
    /// # Errors
    /// [`JsonError::NotJson`] if another byte comes.
    pub fn expect(&mut self, wanted: u8) -> Result<(), JsonError> {
        if self.peek() == Some(wanted) {
            self.at += 1;
            Ok(())
        } else {
            Err(self.malformed())
        }
    }

    /// Whether nothing but white space is left.
    pub fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// The name of the next member of an object, its colon taken; `None` at the object's end, which is taken.
    ///
    /// `first` says that the opening brace was just taken.
    ///
    /// # Errors
    /// [`JsonError`] if no member can stand here.
    #[inline]
    pub fn member(&mut self, first: bool) -> Result<Option<RawString<'a>>, JsonError> {
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

    /// Whether an array has a further element; at the array's end, which is taken, it has not.
    ///
    /// `first` says that the opening bracket was just taken.
    ///
    /// # Errors
    /// [`JsonError::NotJson`] if neither can stand here.
    pub fn element(&mut self, first: bool) -> Result<bool, JsonError> {
        match self.peek() {
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    /// A value: taken if it is a scalar.
    ///
    /// # Errors
    /// [`JsonError::NotJson`] if no value stands here.
    #[inline]
    pub fn value(&mut self) -> Result<Value<'a>, JsonError> {
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

    /// A long string whose content is checked elsewhere, as base64 is: control characters in it are not looked for. `None` if
    /// the value is something else, which is not taken.
    ///
    /// # Errors
    /// [`JsonError::NotJson`] if the string does not end, or holds a broken escape.
    pub fn opaque_string(&mut self) -> Result<Option<RawString<'a>>, JsonError> {
        if self.peek() != Some(b'"') {
            return Ok(None);
        }
        self.string_by(|bytes, at| {
            let rest = bytes.get(at..).unwrap_or_default();
            memchr::memchr2(b'"', b'\\', rest).map_or(bytes.len(), |found| at + found)
        })
        .map(Some)
    }

    /// Passes over a value of any kind, looking at all of it; `depth` says how deep the scanner stands already.
    ///
    /// # Errors
    /// [`JsonError`] if it is no value.
    pub fn skip(&mut self, depth: usize) -> Result<(), JsonError> {
        if let Value::Scalar(_) = self.value()? {
            return Ok(());
        }
        if depth >= DEPTH_MAX {
            return Err(JsonError::TooDeep {
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
        let mut first = true;
        while self.element(first)? {
            first = false;
            self.skip(depth + 1)?;
        }
        Ok(())
    }

    /// Appends the elements of an array of bytes, signed or unsigned; `None` if the value is something else, and is passed over.
    ///
    /// Shape: the inner answer is false if a number was no byte; what stands in `out` is then of no use.
    ///
    /// # Errors
    /// [`JsonError`] if it is no value.
    pub fn byte_array(
        &mut self,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<bool>, JsonError> {
        // White space is passed.
        let _byte = self.peek();
        let start = self.at;
        if self.compact_byte_array(out) == Some(true) {
            return Ok(Some(true));
        }
        // Spaced, out of range, or no array of numbers: read again with care.
        self.at = start;
        out.clear();
        self.skip(depth)?;
        let end = self.at;
        self.at = start;
        let numbers = self.careful_byte_array(out);
        self.at = end;
        numbers
    }

    /// The usual form, `[1,-2,200]`.
    fn compact_byte_array(&mut self, out: &mut Vec<u8>) -> Option<bool> {
        let mut rest = self.text.as_bytes().get(self.at..)?.strip_prefix(b"[")?;
        loop {
            let (negative, digits) = match rest {
                [b'-', digits @ ..] => (true, digits),
                digits => (false, digits),
            };
            let digit = |byte: u8| {
                Some(byte.wrapping_sub(b'0'))
                    .filter(|digit| *digit < 10)
                    .map(i32::from)
            };
            let (number, behind) = match digits {
                [a, end @ (b',' | b']'), ..] => (digit(*a)?, (end, 1)),
                [a @ b'1'..=b'9', b, end @ (b',' | b']'), ..] => {
                    (digit(*a)? * 10 + digit(*b)?, (end, 2))
                }
                [a @ b'1'..=b'9', b, c, end @ (b',' | b']'), ..] => {
                    (digit(*a)? * 100 + digit(*b)? * 10 + digit(*c)?, (end, 3))
                }
                _ => return None,
            };
            out.push(byte_of(if negative { -number } else { number })?);
            rest = digits.get(behind.1 + 1..)?;
            if *behind.0 == b']' {
                self.at = self.text.len() - rest.len();
                return Some(true);
            }
        }
    }

    fn careful_byte_array(&mut self, out: &mut Vec<u8>) -> Result<Option<bool>, JsonError> {
        if self.peek() != Some(b'[') {
            return Ok(None);
        }
        self.at += 1;
        let (mut first, mut bytes) = (true, true);
        while self.element(first)? {
            first = false;
            let Value::Scalar(RawCell::Number(text)) = self.value()? else {
                return Ok(None);
            };
            match text.parse().ok().map(byte_of) {
                None if text.contains(['.', 'e', 'E']) => return Ok(None),
                Some(Some(byte)) => out.push(byte),
                None | Some(None) => bytes = false,
            }
        }
        Ok(Some(bytes))
    }

    fn literal(&mut self, literal: &str, cell: RawCell<'static>) -> Result<RawCell<'a>, JsonError> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if rest.starts_with(literal.as_bytes()) {
            self.at += literal.len();
            Ok(cell)
        } else {
            Err(self.malformed())
        }
    }

    fn digits(&mut self) -> Result<(), JsonError> {
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

    fn number(&mut self) -> Result<&'a str, JsonError> {
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
    fn string(&mut self) -> Result<RawString<'a>, JsonError> {
        self.string_by(next_special)
    }

    /// A string whose quotes and backslashes `next` finds.
    #[inline]
    fn string_by(
        &mut self,
        next: impl Fn(&[u8], usize) -> usize,
    ) -> Result<RawString<'a>, JsonError> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = next(self.text.as_bytes(), self.at);
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

    fn escape(&mut self) -> Result<(), JsonError> {
        let rest = self.text.as_bytes().get(self.at + 1..).unwrap_or_default();
        self.at += 1 + match rest.first() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 1,
            Some(b'u') => unicode_escape(rest).ok_or_else(|| self.malformed())?.1,
            _ => return Err(self.malformed()),
        };
        Ok(())
    }
}

/// A byte, from its signed or its unsigned number.
fn byte_of(number: i32) -> Option<u8> {
    i8::try_from(number)
        .map(i8::cast_unsigned)
        .ok()
        .or_else(|| u8::try_from(number).ok())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(text: &str) -> (Result<Option<bool>, JsonError>, Vec<u8>, usize) {
        let mut out = Vec::new();
        let mut scanner = Scanner::new(text);
        let answer = scanner.byte_array(0, &mut out);
        (answer, out, scanner.at())
    }

    #[test]
    fn array_of_bytes_reads_signed_and_unsigned_compact_and_spaced() {
        for text in [
            "[1,-1,255,0,-128,127,128]",
            " [ 1 ,-1, 255,0 ,-128,127,128 ]",
        ] {
            let (answer, bytes, at) = bytes_of(text);
            assert_eq!((answer, at), (Ok(Some(true)), text.len()));
            assert_eq!(bytes, [1, 255, 255, 0, 128, 127, 128]);
        }
        assert_eq!(bytes_of("[]"), (Ok(Some(true)), Vec::new(), 2));
    }

    #[test]
    fn what_is_no_array_of_bytes_is_passed_over() {
        for text in ["[256]", "[-129,1]", "[1,1000]", "[99999999999]"] {
            let (answer, _, at) = bytes_of(text);
            assert_eq!((answer, at), (Ok(Some(false)), text.len()), "{text}");
        }
        for text in [
            "[1.5]",
            "[1,\"a\"]",
            "{\"a\":[1]}",
            "\"AQ==\"",
            "null",
            "[[1]]",
        ] {
            let (answer, _, at) = bytes_of(text);
            assert_eq!((answer, at), (Ok(None), text.len()), "{text}");
        }
        for text in ["[1", "[01]", "[1,]", "[,1]", "[-]", "[1 2]", ""] {
            assert!(bytes_of(text).0.is_err(), "{text}");
        }
    }

    #[test]
    fn opaque_string_ends_at_its_quote() {
        let mut scanner = Scanner::new("\"a\\/b\" 5");
        let text = scanner.opaque_string().unwrap().unwrap();
        assert_eq!((&*text.to_text(), scanner.at()), ("a/b", 6));
        assert!(scanner.opaque_string().unwrap().is_none());
        for text in ["\"a", "\"a\\", "\"a\\x\""] {
            assert!(Scanner::new(text).opaque_string().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_array_of_bytes_reads_back(bytes in any::<Vec<i8>>()) {
            let text = serde_json::to_string(&bytes).unwrap();
            let unsigned: Vec<u8> = bytes.iter().map(|byte| byte.cast_unsigned()).collect();
            let again = serde_json::to_string(&unsigned).unwrap();
            prop_assert_eq!(bytes_of(&text).1, unsigned.clone());
            prop_assert_eq!(bytes_of(&again).1, unsigned);
        }

        #[test]
        fn any_text_is_passed_over_or_refused(text in "[-\\[\\]{}\",:0-9a ]{0,30}") {
            let mut scanner = Scanner::new(&text);
            let ours = scanner.skip(0).is_ok() && scanner.at_end();
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(ours, theirs);
        }
    }
}
