//! Decimals: the digits of the text, nothing else.

use crate::text::Reading;

/// The unscaled value of a decimal of `precision` digits, `scale` of them behind the point.
///
/// Shape: `NaN`, infinities, too many digits before the point, and digits behind the scale that are not zero are
/// [`Reading::Beyond`].
pub(crate) fn decimal(text: &str, precision: u32, scale: u32) -> Reading<i128> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let mut value = 0i128;
    // Digits behind the point, once it was seen.
    let mut fraction: Option<u32> = None;
    let mut any_digit = false;
    let mut beyond = false;
    for byte in digits {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'.' if fraction.is_none() => {
                fraction = Some(0);
                continue;
            }
            _ => return not_digits(text),
        };
        any_digit = true;
        if let Some(count) = &mut fraction {
            if *count == scale {
                beyond |= digit != 0;
                continue;
            }
            *count += 1;
        }
        match value
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit)))
        {
            Some(next) => value = next,
            None => beyond = true,
        }
    }
    if !any_digit {
        return Reading::Malformed;
    }
    let missing = scale.saturating_sub(fraction.unwrap_or(0));
    let scaled = 10i128
        .checked_pow(missing)
        .and_then(|factor| value.checked_mul(factor));
    let limit = 10i128.checked_pow(precision).unwrap_or(i128::MAX);
    match scaled {
        Some(value) if !beyond && value < limit => {
            Reading::Fits(if negative { -value } else { value })
        }
        _ => Reading::Beyond,
    }
}

fn not_digits(text: &str) -> Reading<i128> {
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        Reading::Beyond
    } else {
        Reading::Malformed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn extremes_fit_and_one_digit_more_does_not() {
        let nines = "9".repeat(38);
        let max = 10i128.pow(38) - 1;
        assert_eq!(decimal(&nines, 38, 0), Reading::Fits(max));
        assert_eq!(decimal(&format!("-{nines}"), 38, 0), Reading::Fits(-max));
        assert_eq!(decimal(&format!("{nines}9"), 38, 0), Reading::Beyond);
        assert_eq!(decimal(&"9".repeat(60), 38, 0), Reading::Beyond);
        assert_eq!(decimal(&format!("0.{nines}"), 38, 38), Reading::Fits(max));
        assert_eq!(decimal("1", 38, 38), Reading::Beyond);
        assert_eq!(
            decimal("9999999999.99", 12, 2),
            Reading::Fits(999_999_999_999)
        );
        assert_eq!(decimal("10000000000.00", 12, 2), Reading::Beyond);
    }

    #[test]
    fn nothing_is_rounded() {
        assert_eq!(decimal("1.005", 10, 2), Reading::Beyond);
        assert_eq!(decimal("1.500", 10, 2), Reading::Fits(150));
        assert_eq!(decimal("1.5", 10, 2), Reading::Fits(150));
        assert_eq!(decimal(".5", 10, 2), Reading::Fits(50));
        assert_eq!(decimal("0000012", 2, 0), Reading::Fits(12));
    }

    #[test]
    fn what_is_no_number_is_told_from_what_is_no_decimal() {
        for text in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(decimal(text, 10, 2), Reading::Beyond);
        }
        for text in [
            "", "-", ".", "1.2.3", "1e5", "+1", "1,0", "--1", "nan", " 1",
        ] {
            assert_eq!(decimal(text, 10, 2), Reading::Malformed, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn printed_decimal_reads_back(
            value in -(10i128.pow(38) - 1)..10i128.pow(38), shift in 0u32..38, scale in 0usize..=38,
        ) {
            let value = value / 10i128.pow(shift);
            let digits = format!("{:0width$}", value.abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let sign = if value < 0 { "-" } else { "" };
            let point = if scale == 0 { "" } else { "." };
            let text = format!("{sign}{whole}{point}{fraction}");
            prop_assert_eq!(decimal(&text, 38, u32::try_from(scale).unwrap()), Reading::Fits(value));
        }

        #[test]
        fn any_text_gives_a_reading(text in "[-+.0-9eN]{0,60}", precision in 0u32..50, scale in 0u32..50) {
            let _reading = decimal(&text, precision, scale);
        }
    }
}
