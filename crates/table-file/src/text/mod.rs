//! The source's text of a value to the lake's native value.
//!
//! # Invariants
//! - Exact or not at all: what does not fit is [`Reading::Beyond`], never rounded, clamped or wrapped.
//! - No allocation.
//!
//! # Source
//! PostgreSQL manual, "Date/Time Output" (ISO style), "Binary Data Types" (hex format); `change_event::ColumnType` lists the
//! settings under which the text is printed.

mod decimal;
mod time;

pub(crate) use decimal::decimal;
pub(crate) use time::{date, day_of, time, timestamp, timestamp_tz};

/// How a text reads as a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading<T> {
    /// As this value.
    Fits(T),
    /// It is a value of the source's type that the lake's type does not have.
    Beyond,
    /// It is no value of the source's type.
    Malformed,
}

impl<T> Reading<T> {
    /// The reading of an optional value: `None` is malformed.
    pub(crate) fn known(value: Option<T>) -> Self {
        value.map_or(Self::Malformed, Self::Fits)
    }
}

/// A 64-bit integer: digits, perhaps with a minus.
pub(crate) fn long(text: &str) -> Reading<i64> {
    let bytes = text.as_bytes();
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 {
        let plain = digits.iter().all(u8::is_ascii_digit) && !digits.is_empty();
        return Reading::known(text.parse().ok().filter(|_value| plain));
    }
    let mut value = 0i64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return Reading::Malformed;
        }
        value = value * 10 + i64::from(digit);
    }
    Reading::Fits(if negative { -value } else { value })
}

/// A 32-bit integer; one out of range is malformed.
pub(crate) fn int(text: &str) -> Reading<i32> {
    match long(text) {
        Reading::Fits(value) => Reading::known(i32::try_from(value).ok()),
        Reading::Beyond | Reading::Malformed => Reading::Malformed,
    }
}

/// A float type that text is read as.
pub(crate) trait Float: std::str::FromStr + Copy {
    const NAN: Self;
    const INFINITY: Self;
    const NEGATIVE_INFINITY: Self;
    fn is_finite(self) -> bool;
    fn is_zero(self) -> bool;
}

impl Float for f32 {
    const NAN: Self = Self::NAN;
    const INFINITY: Self = Self::INFINITY;
    const NEGATIVE_INFINITY: Self = Self::NEG_INFINITY;
    fn is_finite(self) -> bool {
        self.is_finite()
    }
    fn is_zero(self) -> bool {
        self == 0.0
    }
}

impl Float for f64 {
    const NAN: Self = Self::NAN;
    const INFINITY: Self = Self::INFINITY;
    const NEGATIVE_INFINITY: Self = Self::NEG_INFINITY;
    fn is_finite(self) -> bool {
        self.is_finite()
    }
    fn is_zero(self) -> bool {
        self == 0.0
    }
}

/// One of the three float values that are no numbers.
pub(crate) fn float_name<F: Float>(text: &str) -> Reading<F> {
    match text {
        "NaN" => Reading::Fits(F::NAN),
        "Infinity" => Reading::Fits(F::INFINITY),
        "-Infinity" => Reading::Fits(F::NEGATIVE_INFINITY),
        _ => Reading::Malformed,
    }
}

/// A float's number. One that overflows to infinity or underflows to zero is no value of the type.
pub(crate) fn float_number<F: Float>(text: &str) -> Reading<F> {
    let Some(b'0'..=b'9' | b'-') = text.as_bytes().first() else {
        return Reading::Malformed;
    };
    let Ok(value) = text.parse::<F>() else {
        return Reading::Malformed;
    };
    let underflow = value.is_zero() && {
        let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
        mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
    };
    if value.is_finite() && !underflow {
        Reading::Fits(value)
    } else {
        Reading::Malformed
    }
}

/// A UUID in its form of 36 characters.
pub(crate) fn uuid(text: &str) -> Reading<[u8; 16]> {
    let mut out = [0; 16];
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return Reading::Malformed;
    }
    let mut slots = out.iter_mut();
    let mut rest = bytes;
    while let Some((pair, behind)) = rest.split_first_chunk::<2>() {
        let at = 36 - rest.len();
        if matches!(at, 8 | 13 | 18 | 23) {
            let [b'-', behind @ ..] = rest else {
                return Reading::Malformed;
            };
            rest = behind;
            continue;
        }
        match (hex_pair(*pair), slots.next()) {
            (Some(byte), Some(slot)) => *slot = byte,
            _ => return Reading::Malformed,
        }
        rest = behind;
    }
    if rest.is_empty() && slots.next().is_none() {
        Reading::Fits(out)
    } else {
        Reading::Malformed
    }
}

/// Appends the bytes of `\x…`; on a malformed text `out` may have grown.
pub(crate) fn bytea(text: &str, out: &mut Vec<u8>) -> Reading<()> {
    let Some(digits) = text.strip_prefix("\\x") else {
        return Reading::Malformed;
    };
    let pairs = digits.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Reading::Malformed;
    }
    for pair in pairs {
        match pair {
            [high, low] => match hex_pair([*high, *low]) {
                Some(byte) => out.push(byte),
                None => return Reading::Malformed,
            },
            _ => return Reading::Malformed,
        }
    }
    Reading::Fits(())
}

fn hex_pair([high, low]: [u8; 2]) -> Option<u8> {
    Some(hex_digit(high)? << 4 | hex_digit(low)?)
}

const fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_out_of_range_or_not_plain_are_malformed() {
        assert_eq!(int("-2147483648"), Reading::Fits(i32::MIN));
        assert_eq!(int("2147483648"), Reading::Malformed);
        assert_eq!(long("9223372036854775807"), Reading::Fits(i64::MAX));
        assert_eq!(long("-9223372036854775808"), Reading::Fits(i64::MIN));
        assert_eq!(long("9223372036854775808"), Reading::Malformed);
        for text in [
            "",
            "-",
            "+1",
            "1.0",
            "1e3",
            " 1",
            "1 ",
            "--1",
            "+1000000000000000000000",
        ] {
            assert_eq!(long(text), Reading::Malformed, "{text:?}");
        }
    }

    #[test]
    fn float_that_would_become_infinity_or_zero_is_malformed() {
        assert_eq!(
            float_number::<f32>("3.4028235e+38"),
            Reading::Fits(f32::MAX)
        );
        assert_eq!(float_number::<f32>("1e-45"), Reading::Fits(1e-45));
        for text in ["1e39", "1e-60", "inf", "nan", "-inf", "", "-", "NaN", "+1"] {
            assert_eq!(float_number::<f32>(text), Reading::Malformed, "{text:?}");
        }
        assert_eq!(float_number::<f64>("-0"), Reading::Fits(-0.0));
        assert_eq!(float_number::<f64>("0e5"), Reading::Fits(0.0));
        assert_eq!(
            float_name::<f64>("-Infinity"),
            Reading::Fits(f64::NEG_INFINITY)
        );
        assert!(matches!(float_name::<f64>("NaN"), Reading::Fits(value) if value.is_nan()));
        assert_eq!(float_name::<f64>("1"), Reading::Malformed);
    }

    #[test]
    fn uuid_has_its_hyphens_where_they_belong() {
        let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let Reading::Fits(bytes) = uuid(text) else {
            panic!("no uuid")
        };
        assert_eq!((bytes[0], bytes[4], bytes[15]), (0xa0, 0x9c, 0x11));
        for bad in [
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1",
            "a0eebc999-c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380g11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380aé",
        ] {
            assert_eq!(uuid(bad), Reading::Malformed, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn printed_values_read_back(
            value in any::<i64>(), x in any::<f64>(), y in any::<f32>(), bytes in any::<Vec<u8>>(), id in any::<u128>(),
        ) {
            prop_assert_eq!(long(&value.to_string()), Reading::Fits(value));
            if x.is_finite() {
                prop_assert_eq!(float_number(&format!("{x:e}")), Reading::Fits(x));
                prop_assert_eq!(float_number(&format!("{x}")), Reading::Fits(x));
            }
            if y.is_finite() {
                prop_assert_eq!(float_number(&format!("{y}")), Reading::Fits(y));
            }
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let mut out = Vec::new();
            prop_assert_eq!(bytea(&format!("\\x{hex}"), &mut out), Reading::Fits(()));
            prop_assert_eq!(out, bytes);
            let part = |bits: u32, from: u32| id << (128 - bits - from) >> (128 - bits);
            let text = format!(
                "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                part(32, 96), part(16, 80), part(16, 64), part(16, 48), part(48, 0),
            );
            prop_assert_eq!(uuid(&text), Reading::Fits(id.to_be_bytes()));
        }

        #[test]
        fn any_text_gives_a_reading(text in any::<String>()) {
            let _reading = (long(&text), float_number::<f64>(&text), uuid(&text), bytea(&text, &mut Vec::new()));
        }
    }
}
