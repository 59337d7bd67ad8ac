//! Dates and times: days and microseconds since 1970, in the proleptic Gregorian calendar, which is PostgreSQL's and Iceberg's.
//!
//! PostgreSQL's timestamps count from 2000 and reach 294276 AD; 64-bit microseconds from 1970 end in 294247. The days
//! between are [`Reading::Beyond`].
//!
//! # Source
//! Civil days: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms". PostgreSQL, `EncodeDateTime` in
//! `src/backend/utils/adt/datetime.c` (zone before ` BC`, years of at least four digits).

use crate::text::Reading;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// The UTC day of an instant, days since the epoch; `None` outside of 32 bits, which no instant is.
pub(crate) fn day_of(micros: i64) -> Option<i32> {
    i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok()
}

/// Days since the epoch of `2024-02-29` or `0044-03-15 BC`.
pub(crate) fn date(text: &str) -> Reading<i32> {
    if is_infinity(text) {
        return Reading::Beyond;
    }
    let (text, before_christ) = strip_era(text);
    let mut cursor = Cursor(text.as_bytes());
    match cursor.days(before_christ) {
        Some(days) if cursor.0.is_empty() => {
            i32::try_from(days).map_or(Reading::Beyond, Reading::Fits)
        }
        _ => Reading::Malformed,
    }
}

/// Microseconds of `23:59:59.999999`.
pub(crate) fn time(text: &str) -> Reading<i64> {
    let mut cursor = Cursor(text.as_bytes());
    match cursor.time_of_day() {
        Some(MICROS_PER_DAY) if cursor.0.is_empty() => Reading::Beyond,
        Some(micros) if cursor.0.is_empty() => Reading::Fits(micros),
        _ => Reading::Malformed,
    }
}

/// Microseconds since the epoch of `2024-02-29 23:59:59.999999`.
pub(crate) fn timestamp(text: &str) -> Reading<i64> {
    instant(text, false)
}

/// Microseconds since the epoch of `2024-02-29 23:59:59.999999+00`.
pub(crate) fn timestamp_tz(text: &str) -> Reading<i64> {
    instant(text, true)
}

fn instant(text: &str, zoned: bool) -> Reading<i64> {
    if is_infinity(text) {
        return Reading::Beyond;
    }
    let (text, before_christ) = strip_era(text);
    let mut cursor = Cursor(text.as_bytes());
    let mut read = || {
        let days = cursor.days(before_christ)?;
        cursor.take(b' ')?;
        let micros = cursor
            .time_of_day()
            .filter(|micros| *micros < MICROS_PER_DAY)?;
        let offset_seconds = if zoned { cursor.zone()? } else { 0 };
        cursor
            .0
            .is_empty()
            .then_some((days, micros - offset_seconds * MICROS_PER_SECOND))
    };
    let Some((days, micros)) = read() else {
        return Reading::Malformed;
    };
    days.checked_mul(MICROS_PER_DAY)
        .and_then(|start| start.checked_add(micros))
        .map_or(Reading::Beyond, Reading::Fits)
}

fn is_infinity(text: &str) -> bool {
    matches!(text, "infinity" | "-infinity")
}

fn strip_era(text: &str) -> (&str, bool) {
    text.strip_suffix(" BC")
        .map_or((text, false), |rest| (rest, true))
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        (*first == wanted).then(|| self.0 = rest)
    }

    fn two_digits(&mut self) -> Option<i64> {
        let ([tens, units], rest) = self.0.split_first_chunk()?;
        let (tens, units) = (tens.wrapping_sub(b'0'), units.wrapping_sub(b'0'));
        self.0 = rest;
        (tens < 10 && units < 10).then(|| i64::from(tens * 10 + units))
    }

    /// `[:]` and two digits below `limit`.
    fn sexagesimal(&mut self, limit: i64) -> Option<i64> {
        self.take(b':')?;
        self.two_digits().filter(|value| *value < limit)
    }

    /// `YYYY-MM-DD`, a year of four to seven digits.
    fn days(&mut self, before_christ: bool) -> Option<i64> {
        let mut year = 0i64;
        let mut digits = 0;
        while let Some((byte @ b'0'..=b'9', rest)) = self.0.split_first() {
            year = year * 10 + i64::from(byte - b'0');
            digits += 1;
            if digits > 7 {
                return None;
            }
            self.0 = rest;
        }
        if digits < 4 || year == 0 {
            return None;
        }
        // There is no year 0: 1 BC is the year before 1 AD.
        let year = if before_christ { 1 - year } else { year };
        self.take(b'-')?;
        let month = self.two_digits().filter(|month| (1..=12).contains(month))?;
        self.take(b'-')?;
        let day = self
            .two_digits()
            .filter(|day| (1..=days_in_month(year, month)).contains(day))?;
        Some(days_from_civil(year, month, day))
    }

    /// `HH:MM:SS[.ffffff]`; `24:00:00` is a whole day.
    fn time_of_day(&mut self) -> Option<i64> {
        let hour = self.two_digits().filter(|hour| *hour <= 24)?;
        let minute = self.sexagesimal(60)?;
        let second = self.sexagesimal(60)?;
        let mut micros = ((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND;
        if self.0.first() == Some(&b'.') {
            self.take(b'.')?;
            let mut unit = MICROS_PER_SECOND;
            while let Some((byte @ b'0'..=b'9', rest)) = self.0.split_first() {
                unit /= 10;
                if unit == 0 {
                    return None;
                }
                micros += unit * i64::from(byte - b'0');
                self.0 = rest;
            }
            if unit == MICROS_PER_SECOND {
                return None;
            }
        }
        (micros <= MICROS_PER_DAY).then_some(micros)
    }

    /// `+HH[:MM[:SS]]`, in seconds east of UTC.
    fn zone(&mut self) -> Option<i64> {
        let (sign, rest) = self.0.split_first()?;
        let sign = match sign {
            b'+' => 1,
            b'-' => -1,
            _ => return None,
        };
        self.0 = rest;
        let mut seconds = self.two_digits().filter(|hour| *hour < 24)? * 3600;
        for unit in [60, 1] {
            if !self.0.is_empty() {
                seconds += self.sexagesimal(60)? * unit;
            }
        }
        Some(sign * seconds)
    }
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_dates() {
        // Checked against PostgreSQL: select date '…' - date '1970-01-01'.
        for (text, days) in [
            ("1970-01-01", 0),
            ("2000-02-29", 11_016),
            ("1969-12-31", -1),
            ("0001-01-01", -719_162),
            ("0001-12-31 BC", -719_163),
            ("4714-11-24 BC", -2_440_588),
            ("5874897-12-31", 2_145_042_905),
        ] {
            assert_eq!(date(text), Reading::Fits(days), "{text}");
        }
    }

    #[test]
    fn extremes_of_the_source_fit_or_are_carried() {
        assert_eq!(
            timestamp("4714-11-24 00:00:00 BC"),
            Reading::Fits(-210_866_803_200_000_000)
        );
        assert_eq!(
            timestamp_tz("4714-11-24 00:00:00+00 BC"),
            Reading::Fits(-210_866_803_200_000_000)
        );
        // The last microsecond of 64 bits, and PostgreSQL's own last one.
        assert_eq!(
            timestamp("294247-01-10 04:00:54.775807"),
            Reading::Fits(i64::MAX)
        );
        assert_eq!(timestamp("294247-01-10 04:00:54.775808"), Reading::Beyond);
        assert_eq!(timestamp("294276-12-31 23:59:59.999999"), Reading::Beyond);
        for text in ["infinity", "-infinity"] {
            assert_eq!(
                (date(text), timestamp(text)),
                (Reading::Beyond, Reading::Beyond)
            );
            assert_eq!(timestamp_tz(text), Reading::Beyond);
        }
        assert_eq!(time("24:00:00"), Reading::Beyond);
        assert_eq!(time("23:59:59.999999"), Reading::Fits(MICROS_PER_DAY - 1));
    }

    #[test]
    fn zone_is_taken_off() {
        let noon = 12 * 3600 * MICROS_PER_SECOND;
        for (text, hours) in [
            ("1970-01-01 12:00:00+00", 0),
            ("1970-01-01 17:30:00+05:30", 0),
            ("1970-01-01 08:29:45-03:30:15", 0),
            ("1970-01-01 12:00:00-01", 1),
            ("1970-01-01 00:00:00.5+12", -24),
        ] {
            let half = if text.contains(".5") {
                MICROS_PER_SECOND / 2
            } else {
                0
            };
            let want = noon + hours * 3600 * MICROS_PER_SECOND + half;
            assert_eq!(timestamp_tz(text), Reading::Fits(want), "{text}");
        }
    }

    #[test]
    fn what_the_source_never_prints_is_malformed() {
        for text in [
            "",
            "2024",
            "2024-2-1",
            "2023-02-29",
            "1900-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-01-00",
            "0000-01-01",
            "-2024-01-01",
            "2024-01-01 ",
            "2024-01-01 AD",
            "12345678-01-01",
            "+infinity",
        ] {
            assert_eq!(date(text), Reading::Malformed, "{text:?}");
        }
        for text in [
            "",
            "1:00:00",
            "25:00:00",
            "24:00:01",
            "12:60:00",
            "12:00:60",
            "12:00:00.",
            "12:00:00.1234567",
        ] {
            assert_eq!(time(text), Reading::Malformed, "{text:?}");
        }
        assert_eq!(timestamp("2024-01-01 00:00:00+00"), Reading::Malformed);
        assert_eq!(timestamp("2024-01-01 24:00:00"), Reading::Malformed);
        assert_eq!(timestamp("2024-01-01T00:00:00"), Reading::Malformed);
        assert_eq!(timestamp_tz("2024-01-01 00:00:00"), Reading::Malformed);
        assert_eq!(timestamp_tz("2024-01-01 00:00:00Z"), Reading::Malformed);
    }

    /// The date of a day, by counting: slow, and nothing like the code above.
    fn print_day(days: i64) -> (i64, i64, i64) {
        let cycles = days.div_euclid(146_097);
        let (mut year, mut month, mut left) = (1970 + cycles * 400, 1, days.rem_euclid(146_097));
        while left >= days_in_month(year, month) {
            left -= days_in_month(year, month);
            month += 1;
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        (year, month, left + 1)
    }

    fn print_date((year, month, day): (i64, i64, i64)) -> (String, &'static str) {
        let (year, era) = if year > 0 {
            (year, "")
        } else {
            (1 - year, " BC")
        };
        (format!("{year:04}-{month:02}-{day:02}"), era)
    }

    proptest! {
        #[test]
        fn printed_instant_reads_back(
            days in -2_440_588i64..106_751_991, micros in 0..MICROS_PER_DAY, offset in -57_599i64..57_600,
        ) {
            let (date_text, era) = print_date(print_day(days));
            prop_assert_eq!(date(&format!("{date_text}{era}")), Reading::Fits(i32::try_from(days).unwrap()));
            let (seconds, fraction) = (micros / MICROS_PER_SECOND, micros % MICROS_PER_SECOND);
            let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            let clock = match fraction {
                0 => clock,
                _ => format!("{clock}.{fraction:06}").trim_end_matches('0').to_owned(),
            };
            prop_assert_eq!(time(&clock), Reading::Fits(micros));
            let local = days * MICROS_PER_DAY + micros;
            prop_assert_eq!(timestamp(&format!("{date_text} {clock}{era}")), Reading::Fits(local));
            let (sign, ahead) = if offset < 0 { ('-', -offset) } else { ('+', offset) };
            let zone = format!("{sign}{:02}:{:02}:{:02}", ahead / 3600, ahead / 60 % 60, ahead % 60);
            let want = local - offset * MICROS_PER_SECOND;
            prop_assert_eq!(timestamp_tz(&format!("{date_text} {clock}{zone}{era}")), Reading::Fits(want));
            prop_assert_eq!(i64::from(day_of(local).unwrap()), days);
        }

        #[test]
        fn any_text_gives_a_reading(text in "[-+:. 0-9BC]{0,40}") {
            let _reading = (date(&text), time(&text), timestamp(&text), timestamp_tz(&text));
        }
    }
}
