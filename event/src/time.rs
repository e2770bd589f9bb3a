//! Instants and spans: event time in microseconds since 1970, UTC, and durations as people write them.
//!
//! Arithmetic and parsing only; nothing here reads a clock.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike, Utc};

const MICROS_PER_SEC: i64 = 1_000_000;
const MICROS_PER_HOUR: i64 = 3_600 * MICROS_PER_SEC;

/// An instant: microseconds since 1970-01-01T00:00:00Z, within the calendar that chrono can print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(i64);

impl EventTime {
    /// The first instant of the calendar.
    pub const MIN: Self = Self(DateTime::<Utc>::MIN_UTC.timestamp_micros());
    /// The last instant of the calendar.
    pub const MAX: Self = Self(DateTime::<Utc>::MAX_UTC.timestamp_micros());

    /// From microseconds since 1970; `None` beyond the calendar (years -262143 to 262142).
    #[must_use]
    pub fn from_micros(micros: i64) -> Option<Self> {
        DateTime::<Utc>::from_timestamp_micros(micros).map(|_| Self(micros))
    }

    /// From whole seconds since 1970, as `created_at` has them; `None` when no microsecond timestamp holds it.
    #[must_use]
    pub fn from_secs(secs: i64) -> Option<Self> {
        Self::from_micros(secs.checked_mul(MICROS_PER_SEC)?)
    }

    /// From milliseconds since 1970, as Kafka has them.
    #[must_use]
    pub fn from_millis(millis: i64) -> Option<Self> {
        Self::from_micros(millis.checked_mul(1_000)?)
    }

    /// The instant at which an hour since 1970 begins.
    #[must_use]
    pub(crate) const fn from_hours(hours: i64) -> Self {
        Self(hours * MICROS_PER_HOUR)
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Whole hours since 1970, rounded down also before 1970.
    #[must_use]
    pub const fn hours(self) -> i64 {
        self.0.div_euclid(MICROS_PER_HOUR)
    }

    pub(crate) fn calendar_hour(self) -> (i32, u32, u32, u32) {
        let time = self.datetime();
        (time.year(), time.month(), time.day(), time.hour())
    }

    pub(crate) fn from_calendar_hour(year: i32, month: u32, day: u32, hour: u32) -> Option<i64> {
        let time = NaiveDate::from_ymd_opt(year, month, day)?.and_hms_opt(hour, 0, 0)?;
        Some(time.and_utc().timestamp().div_euclid(3_600))
    }

    fn datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).expect("the constructors refuse what the calendar cannot hold")
    }

    /// Parses what a person types: `2024-07-28`, `2024-07-28T12:00:00[.fff][Z|+02:00]`, a blank for the `T`, unix
    /// seconds, `now`, or relative to `now` as `-7d`. Without a zone it is UTC.
    ///
    /// # Errors
    /// A sentence that names `text` and what would do.
    pub fn parse(text: &str, now: Self) -> Result<Self, String> {
        let trimmed = text.trim();
        let refused =
            || format!("`{text}` is not a time: use 2024-07-28, 2024-07-28T12:00:00Z, unix seconds, now, or -7d");
        if trimmed.eq_ignore_ascii_case("now") {
            return Ok(now);
        }
        if let Ok(secs) = trimmed.parse::<i64>() {
            return Self::from_secs(secs).ok_or_else(refused);
        }
        if let Some(back) = trimmed.strip_prefix('-') {
            let span = Span::parse(back).map_err(|_| refused())?;
            return now.0.checked_sub(span.micros()).and_then(Self::from_micros).ok_or_else(refused);
        }
        let normal = trimmed.replacen(' ', "T", 1);
        if let Ok(zoned) = DateTime::parse_from_rfc3339(&normal) {
            return Ok(Self(zoned.timestamp_micros()));
        }
        for format in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
            if let Ok(naive) = NaiveDateTime::parse_from_str(&normal, format) {
                return Ok(Self(naive.and_utc().timestamp_micros()));
            }
        }
        match NaiveDate::parse_from_str(&normal, "%Y-%m-%d") {
            Ok(day) => day.and_hms_opt(0, 0, 0).map(|t| Self(t.and_utc().timestamp_micros())).ok_or_else(refused),
            Err(_) => Err(refused()),
        }
    }
}

impl fmt::Display for EventTime {
    /// RFC 3339 in UTC with as many digits of the second as are needed; beyond the year 9999 as `+YYYYY-…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.datetime();
        let micros = self.0.rem_euclid(MICROS_PER_SEC);
        let digits = match (micros, micros % 1_000) {
            (0, _) => "%S",
            (_, 0) => "%S%.3f",
            _ => "%S%.6f",
        };
        write!(f, "{}", time.format(&format!("%Y-%m-%dT%H:%M:{digits}Z")))
    }
}

/// A length of time in microseconds, never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(i64);

impl Span {
    /// The length of the one window that holds all time.
    pub const ALL_TIME: Self = Self(i64::MAX);

    /// From microseconds; negative ones become zero.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(if micros < 0 { 0 } else { micros })
    }

    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(secs: u32) -> Self {
        Self(secs as i64 * MICROS_PER_SEC)
    }

    /// Microseconds.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// As the standard library has it.
    #[must_use]
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(self.0.unsigned_abs())
    }

    /// Parses a duration as Spark (`1 hour`, `1 hour 30 minutes`), Go (`1h30m`, `250ms`) or ISO 8601 (`PT1H30M`,
    /// `P1D`) write it. `0` needs no unit. Months and years are refused: they have no fixed length.
    ///
    /// # Errors
    /// A sentence that names `text` and what would do.
    pub fn parse(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        if trimmed == "0" {
            return Ok(Self(0));
        }
        let lower = trimmed.to_ascii_lowercase();
        let parsed = match lower.strip_prefix('p') {
            Some(iso) => iso_micros(iso),
            None => unit_micros(&lower),
        };
        parsed.map(Self).map_err(|why| {
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            format!("`{text}` is not a duration{why}: use '1 hour', '90 seconds', 1h30m or PT1H30M")
        })
    }
}

impl Span {
    /// Parses the length of a window: a duration, or `all time` (also `all_time`).
    ///
    /// # Errors
    /// As [`Span::parse`].
    pub fn parse_window(text: &str) -> Result<Self, String> {
        match text.trim().to_ascii_lowercase().as_str() {
            "all time" | "all_time" => Ok(Self::ALL_TIME),
            _ => Self::parse(text).map_err(|why| format!("{why}, or 'all time' for a window")),
        }
    }

    /// In words, by the largest unit that it is a whole number of: `1 hour`, `90 minutes`, `14 days`, `all time`.
    #[must_use]
    pub fn words(self) -> String {
        if self == Self::ALL_TIME {
            return self.to_string();
        }
        let units = [
            ("day", 24 * MICROS_PER_HOUR),
            ("hour", MICROS_PER_HOUR),
            ("minute", 60 * MICROS_PER_SEC),
            ("second", MICROS_PER_SEC),
            ("millisecond", 1_000),
            ("microsecond", 1),
        ];
        let fitting = units.into_iter().find(|(_, micros)| self.0 > 0 && self.0 % micros == 0);
        let (unit, micros) = fitting.unwrap_or(("second", MICROS_PER_SEC));
        let number = self.0 / micros;
        format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
    }
}

impl fmt::Display for Span {
    /// Go's short form: `1h30m`, `10m`, `250ms`, `0s`; or `all time`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::ALL_TIME {
            return f.write_str("all time");
        }
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, micros) in [
            ("d", 24 * MICROS_PER_HOUR),
            ("h", MICROS_PER_HOUR),
            ("m", 60_000_000),
            ("s", 1_000_000),
            ("ms", 1_000),
            ("us", 1),
        ] {
            if rest / micros > 0 {
                write!(f, "{}{unit}", rest / micros)?;
                rest %= micros;
            }
        }
        Ok(())
    }
}

type Refusal = Option<&'static str>;
const NO_FIXED_LENGTH: Refusal = Some("months and years have no fixed length");

fn micros_of(unit: &str) -> Result<i64, Refusal> {
    Ok(match unit {
        "us" | "µs" | "microsecond" | "microseconds" => 1,
        "ms" | "millisecond" | "milliseconds" => 1_000,
        "s" | "sec" | "secs" | "second" | "seconds" => MICROS_PER_SEC,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * MICROS_PER_SEC,
        "h" | "hr" | "hrs" | "hour" | "hours" => MICROS_PER_HOUR,
        "d" | "day" | "days" => 24 * MICROS_PER_HOUR,
        "w" | "week" | "weeks" => 7 * 24 * MICROS_PER_HOUR,
        "month" | "months" | "mo" | "year" | "years" | "y" => return Err(NO_FIXED_LENGTH),
        _ => return Err(None),
    })
}

/// `1 hour 30 minutes`, `1h30m`, `1.5h`.
fn unit_micros(text: &str) -> Result<i64, Refusal> {
    let mut rest = text.strip_prefix("interval ").unwrap_or(text).trim_start();
    if rest.is_empty() {
        return Err(None);
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(Some("a unit is missing"))?;
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        total = total.checked_add(scaled(number, micros_of(unit)?)?).ok_or(Some("too long"))?;
        rest = tail.trim_start_matches([' ', ',']);
    }
    Ok(total)
}

/// What follows the `p` of ISO 8601, in lower case: `1dt2h`, `t30m`.
fn iso_micros(text: &str) -> Result<i64, Refusal> {
    let (date, time) = text.split_once('t').unwrap_or((text, ""));
    if date.is_empty() && time.is_empty() {
        return Err(None);
    }
    let mut total: i64 = 0;
    for (part, in_time) in [(date, false), (time, true)] {
        let mut rest = part;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(Some("a unit is missing"))?;
            let (number, tail) = rest.split_at(digits);
            let mut letters = tail.chars();
            let unit = match (letters.next(), in_time) {
                (Some('y'), _) | (Some('m'), false) => return Err(NO_FIXED_LENGTH),
                (Some('w'), false) => "w",
                (Some('d'), false) => "d",
                (Some('h'), true) => "h",
                (Some('m'), true) => "m",
                (Some('s'), true) => "s",
                _ => return Err(None),
            };
            total = total.checked_add(scaled(number, micros_of(unit)?)?).ok_or(Some("too long"))?;
            rest = letters.as_str();
        }
    }
    Ok(total)
}

/// `number` (digits with at most one point) times `unit`, exact to the microsecond.
fn scaled(number: &str, unit: i64) -> Result<i64, Refusal> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i64 = whole.parse().map_err(|_| None)?;
    let mut micros = whole.checked_mul(unit).ok_or(Some("too long"))?;
    let mut place = unit;
    for digit in fraction.chars() {
        let digit = digit.to_digit(10).ok_or(None)?;
        if place % 10 != 0 && digit != 0 {
            return Err(Some("finer than a microsecond"));
        }
        place /= 10;
        micros = micros.checked_add(i64::from(digit) * place).ok_or(Some("too long"))?;
    }
    Ok(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spark_go_and_iso_durations_agree() {
        for text in
            ["1 hour 30 minutes", "1h30m", "PT1H30M", "90 minutes", "1.5h", "5400 seconds", "INTERVAL 90 minutes"]
        {
            assert_eq!(Span::parse(text), Ok(Span::from_secs(5_400)), "{text}");
        }
        assert_eq!(Span::parse("P1DT1S"), Ok(Span::from_secs(86_401)));
        assert_eq!(Span::parse("250ms").map(Span::micros), Ok(250_000));
        assert_eq!(Span::parse("0"), Ok(Span::default()));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_a_reason() {
        for text in
            ["", "1", "hour", "1 fortnight", "-1h", "1 month", "P1M", "P", "PT", "1..5h", "99999999999999 weeks"]
        {
            assert!(Span::parse(text).is_err(), "{text}");
        }
        assert!(Span::parse("1 month").is_err_and(|e| e.contains("no fixed length")));
    }

    #[test]
    fn a_span_prints_as_go_does_and_reads_back() {
        for text in ["1h30m", "10m", "250ms", "0s", "1d2h", "1s1us"] {
            let span = Span::parse(text).expect(text);
            assert_eq!(span.to_string(), text);
        }
    }

    #[test]
    fn a_window_may_be_all_time_and_a_duration_may_not() {
        for text in ["all time", " All Time", "all_time"] {
            assert_eq!(Span::parse_window(text), Ok(Span::ALL_TIME), "{text}");
            assert!(Span::parse(text).is_err());
        }
        assert_eq!(Span::parse_window("1 hour"), Ok(Span::from_secs(3_600)));
        assert!(Span::parse_window("for ever").is_err_and(|why| why.contains("'all time'")));
        assert_eq!(Span::parse_window(&Span::ALL_TIME.to_string()), Ok(Span::ALL_TIME));
    }

    #[test]
    fn a_span_in_words_is_whole_and_reads_back() {
        for (text, words) in [
            ("1h", "1 hour"),
            ("24h", "1 day"),
            ("2 weeks", "14 days"),
            ("90m", "90 minutes"),
            ("60s", "1 minute"),
            ("30 seconds", "30 seconds"),
            ("1500ms", "1500 milliseconds"),
            ("0", "0 seconds"),
        ] {
            let span = Span::parse(text).expect(text);
            assert_eq!(span.words(), words);
            assert_eq!(Span::parse(words), Ok(span));
        }
        assert_eq!(Span::ALL_TIME.words(), "all time");
    }

    #[test]
    fn times_as_people_write_them() {
        let now = EventTime::from_secs(1_700_000_000).expect("in range");
        let at = |text: &str| EventTime::parse(text, now).map(|t| t.to_string());
        assert_eq!(at("2024-07-28").as_deref(), Ok("2024-07-28T00:00:00Z"));
        assert_eq!(at("2024-07-28T12:00:00").as_deref(), Ok("2024-07-28T12:00:00Z"));
        assert_eq!(at("2024-07-28 12:00:00.5+02:00").as_deref(), Ok("2024-07-28T10:00:00.500Z"));
        assert_eq!(at("1700000000").as_deref(), Ok("2023-11-14T22:13:20Z"));
        assert_eq!(at("-7d").as_deref(), Ok("2023-11-07T22:13:20Z"));
        assert_eq!(at("now").as_deref(), Ok("2023-11-14T22:13:20Z"));
        assert!(at("yesterday").is_err_and(|e| e.contains("yesterday")));
        assert!(at("2024-13-01").is_err());
    }

    #[test]
    fn far_dates_are_printed_or_refused_but_never_wrapped() {
        let millis = EventTime::from_secs(1_725_194_263_529).expect("a year far off");
        assert_eq!(millis.to_string(), "+56639-03-26T04:45:29Z");
        assert_eq!(EventTime::from_secs(1 << 53), None);
        assert_eq!(EventTime::from_secs(i64::MAX), None);
        assert_eq!(EventTime::MAX.to_string(), "+262142-12-31T23:59:59.999999Z");
        assert_eq!(EventTime::from_micros(EventTime::MAX.micros()), Some(EventTime::MAX));
        assert_eq!(EventTime::from_micros(EventTime::MAX.micros() + 1), None);
        assert_eq!(EventTime::from_micros(EventTime::MIN.micros()), Some(EventTime::MIN));
        assert_eq!(EventTime::from_micros(EventTime::MIN.micros() - 1), None);
        assert_eq!(EventTime::from_secs(-1).map(EventTime::hours), Some(-1));
    }
}
