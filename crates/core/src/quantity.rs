//! Exact quantities (`100m`, `1.5`, `128Mi`), after apimachinery's `resource.Quantity`.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Add, Sub};
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

const NANOS_PER_UNIT: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;
/// The finest step that a quantity can express is 10^-9.
const NANO_DIGITS: i64 = 9;

const DECIMAL_SUFFIXES: [(&str, i64); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It is not a number followed by a suffix.
    #[error("{0:?} is not a quantity: write a number with an optional suffix, such as 100m, 1.5 or 128Mi")]
    Format(String),
    /// It is a number, but the suffix is none of the known ones.
    #[error(
        "{0:?} is not a quantity: the suffix is none of n u m k M G T P E, Ki Mi Gi Ti Pi Ei or an exponent"
    )]
    Suffix(String),
    /// It is further from zero than about 1.7e29.
    #[error("quantity {0:?} is too large")]
    TooLarge(String),
}

/// How a quantity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    DecimalSi,
}

/// An exact number in steps of 10^-9 that remembers how it was written.
///
/// Comparison goes by value alone. As upstream, what is finer than 10^-9 is rounded away from zero, and a binary
/// quantity is capped at `i64::MAX`. Unlike upstream, text is always produced in canonical form (`1E3` and `+1` come
/// back as `1e3` and `1`), and nothing wraps around: reads into an `i64` saturate.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Zero.
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number (`NewQuantity`).
    pub fn new(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANOS_PER_UNIT, format }
    }

    /// A number of thousandths (`NewMilliQuantity`).
    pub fn new_milli(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANOS_PER_MILLI, format }
    }

    /// Parses a quantity; takes what `ParseQuantity` takes.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let scanned = scan(text).ok_or_else(|| QuantityError::Format(text.to_owned()))?;
        let suffix =
            interpret_suffix(scanned.suffix).ok_or_else(|| QuantityError::Suffix(text.to_owned()))?;
        let magnitude = match suffix {
            Suffix::Decimal { exponent, .. } => decimal_nanos(&scanned.digits, scanned.exponent + exponent),
            Suffix::Binary { bits } => binary_nanos(&scanned.digits, scanned.exponent, bits),
        };
        let nanos = magnitude.ok_or_else(|| QuantityError::TooLarge(text.to_owned()))?;
        let format = match suffix {
            Suffix::Decimal { format, .. } => format,
            // A part of a byte has no binary notation.
            Suffix::Binary { .. } if nanos > 0 && nanos < NANOS_PER_UNIT => Format::DecimalSi,
            Suffix::Binary { .. } => Format::BinarySi,
        };
        Ok(Self { nanos: if scanned.negative { -nanos } else { nanos }, format })
    }

    /// The value in whole units, rounded away from zero (`Value`).
    pub fn value(&self) -> i64 {
        saturate(divide_away_from_zero(self.nanos, NANOS_PER_UNIT))
    }

    /// The value in thousandths, rounded away from zero (`MilliValue`).
    pub fn milli_value(&self) -> i64 {
        saturate(divide_away_from_zero(self.nanos, NANOS_PER_MILLI))
    }

    /// Whether it is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }
}

/// A number's parts. Its value is `digits * 10^exponent`; the digits have no zeros on either end.
struct Scanned<'a> {
    negative: bool,
    digits: String,
    exponent: i64,
    suffix: &'a str,
}

fn scan(text: &str) -> Option<Scanned<'_>> {
    if text.is_empty() {
        return None;
    }
    let (negative, rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, rest) = split_digits(rest);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if !is_suffix_shaped(suffix) {
        return None;
    }
    let all = format!("{whole}{fraction}");
    let without_tail = all.trim_end_matches('0');
    let exponent = (all.len() - without_tail.len()) as i64 - fraction.len() as i64;
    Some(Scanned { negative, digits: without_tail.trim_start_matches('0').to_owned(), exponent, suffix })
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// Letters, then a sign, then digits, each of them optional.
fn is_suffix_shaped(suffix: &str) -> bool {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

#[derive(Clone, Copy)]
enum Suffix {
    Decimal { exponent: i64, format: Format },
    Binary { bits: u32 },
}

fn interpret_suffix(suffix: &str) -> Option<Suffix> {
    if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(s, _)| *s == suffix) {
        return Some(Suffix::Decimal { exponent: *exponent, format: Format::DecimalSi });
    }
    if let Some((_, bits)) = BINARY_SUFFIXES.iter().find(|(s, _)| *s == suffix) {
        return Some(Suffix::Binary { bits: *bits });
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some(Suffix::Decimal { exponent: exponent.into(), format: Format::DecimalExponent })
}

fn decimal_nanos(digits: &str, exponent: i64) -> Option<i128> {
    if digits.is_empty() {
        return Some(0);
    }
    let shift = exponent + NANO_DIGITS;
    if shift >= 0 {
        return digits.parse::<i128>().ok()?.checked_mul(power_of_ten(shift)?);
    }
    // The last digit is not zero, so cutting anything off always rounds up.
    let kept = digits.len() as i64 + shift;
    let kept = digits.get(..usize::try_from(kept).unwrap_or(0))?;
    if kept.is_empty() { Some(1) } else { kept.parse::<i128>().ok()?.checked_add(1) }
}

fn binary_nanos(digits: &str, exponent: i64, bits: u32) -> Option<i128> {
    const MAX: i128 = i64::MAX as i128 * NANOS_PER_UNIT;
    if digits.is_empty() {
        return Some(0);
    }
    let shift = exponent + NANO_DIGITS;
    if shift < 0 {
        let product = digits.parse::<i128>().ok()?.checked_mul(1 << bits)?;
        let Some(divisor) = power_of_ten(-shift) else { return Some(1) };
        return Some(divide_away_from_zero(product, divisor).min(MAX));
    }
    let scaled = digits.parse::<i128>().ok().and_then(|d| d.checked_mul(power_of_ten(shift)?));
    Some(scaled.and_then(|s| s.checked_mul(1 << bits)).unwrap_or(MAX).min(MAX))
}

fn power_of_ten(exponent: i64) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

fn divide_away_from_zero(value: i128, divisor: i128) -> i128 {
    value / divisor + (value % divisor).signum()
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that loses nothing (`CanonicalizeBytes`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let whole = self.nanos % NANOS_PER_UNIT == 0;
        let units = self.nanos / NANOS_PER_UNIT;
        match self.format {
            Format::BinarySi if whole && units.abs() >= 1024 => {
                let (mantissa, times) = remove_factors(units, 1024, BINARY_SUFFIXES.len() as u32);
                let suffix = times.checked_sub(1).map_or("", |i| BINARY_SUFFIXES[i as usize].0);
                write!(f, "{mantissa}{suffix}")
            }
            Format::BinarySi | Format::DecimalSi => {
                let (mantissa, times) = remove_factors(self.nanos, 1000, DECIMAL_SUFFIXES.len() as u32 - 1);
                write!(f, "{mantissa}{}", DECIMAL_SUFFIXES[times as usize].0)
            }
            Format::DecimalExponent => {
                let (mantissa, times) = remove_factors(self.nanos, 1000, u32::MAX);
                match i64::from(times) * 3 - NANO_DIGITS {
                    0 => write!(f, "{mantissa}"),
                    exponent => write!(f, "{mantissa}e{exponent}"),
                }
            }
        }
    }
}

/// Divides by `factor` as long as nothing is lost, at most `limit` times.
fn remove_factors(mut value: i128, factor: i128, limit: u32) -> (i128, u32) {
    let mut times = 0;
    while times < limit && value % factor == 0 {
        value /= factor;
        times += 1;
    }
    (value, times)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, in the format of the left side unless that is zero. Saturates.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }
}

impl Sub for Quantity {
    type Output = Self;

    /// The difference, in the format of the left side. Saturates.
    fn sub(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos), ..self }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<&ApiQuantity> for Quantity {
    type Error = QuantityError;

    fn try_from(quantity: &ApiQuantity) -> Result<Self, Self::Error> {
        Self::parse(&quantity.0)
    }
}

impl From<Quantity> for ApiQuantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::Format::{BinarySi, DecimalExponent, DecimalSi};
    use super::*;

    #[test]
    fn parses_and_writes_what_upstream_does() {
        // What apimachinery v0.37.2 answers: text, canonical text, Value, MilliValue, Format.
        let table = [
            ("0", "0", 0, 0, DecimalSi),
            ("0Ki", "0", 0, 0, BinarySi),
            ("100m", "100m", 1, 100, DecimalSi),
            ("1.5", "1500m", 2, 1500, DecimalSi),
            ("1500m", "1500m", 2, 1500, DecimalSi),
            ("1.5Gi", "1536Mi", 1_610_612_736, 1_610_612_736_000, BinarySi),
            ("1Gi", "1Gi", 1_073_741_824, 1_073_741_824_000, BinarySi),
            ("1024Mi", "1Gi", 1_073_741_824, 1_073_741_824_000, BinarySi),
            ("128Mi", "128Mi", 134_217_728, 134_217_728_000, BinarySi),
            ("1000", "1k", 1000, 1_000_000, DecimalSi),
            ("1000000", "1M", 1_000_000, 1_000_000_000, DecimalSi),
            ("1e3", "1e3", 1000, 1_000_000, DecimalExponent),
            ("1E3", "1e3", 1000, 1_000_000, DecimalExponent),
            ("12e6", "12e6", 12_000_000, 12_000_000_000, DecimalExponent),
            ("1.3E+6", "1300e3", 1_300_000, 1_300_000_000, DecimalExponent),
            ("1e-3", "1e-3", 1, 1, DecimalExponent),
            ("1e-12", "1e-9", 1, 1, DecimalExponent),
            ("0.5Mi", "512Ki", 524_288, 524_288_000, BinarySi),
            ("0.1Ki", "102400m", 103, 102_400, BinarySi),
            ("100.035Ki", "102435840m", 102_436, 102_435_840, BinarySi),
            ("512", "512", 512, 512_000, DecimalSi),
            ("1025", "1025", 1025, 1_025_000, DecimalSi),
            ("1023Ki", "1023Ki", 1_047_552, 1_047_552_000, BinarySi),
            ("1000m", "1", 1, 1000, DecimalSi),
            ("3.001n", "4n", 1, 1, DecimalSi),
            ("0.9n", "1n", 1, 1, DecimalSi),
            ("0.0000000001", "1n", 1, 1, DecimalSi),
            ("0.3333333333", "333333334n", 1, 334, DecimalSi),
            ("0.000000000001Ki", "2n", 1, 1, DecimalSi),
            ("9223372036854775807", "9223372036854775807", i64::MAX, i64::MAX, DecimalSi),
            ("12E", "12E", i64::MAX, i64::MAX, DecimalSi),
            ("1E", "1E", 1_000_000_000_000_000_000, i64::MAX, DecimalSi),
            ("300.2T", "300200G", 300_200_000_000_000, 300_200_000_000_000_000, DecimalSi),
            ("7.123456M", "7123456", 7_123_456, 7_123_456_000, DecimalSi),
            (".001", "1m", 1, 1, DecimalSi),
            ("1.", "1", 1, 1000, DecimalSi),
            ("1.G", "1G", 1_000_000_000, 1_000_000_000_000, DecimalSi),
            ("+1", "1", 1, 1000, DecimalSi),
            ("007", "7", 7, 7000, DecimalSi),
            ("-1.5Gi", "-1536Mi", -1_610_612_736, -1_610_612_736_000, BinarySi),
            ("-100m", "-100m", -1, -100, DecimalSi),
            ("-0.1m", "-100u", -1, -1, DecimalSi),
            (".", "0", 0, 0, DecimalSi),
            ("-", "0", 0, 0, DecimalSi),
            ("Ki", "0", 0, 0, BinarySi),
            ("0e2147483647", "0", 0, 0, DecimalExponent),
            ("1e-2147483648", "1e-9", 1, 1, DecimalExponent),
            ("9Ei", "9223372036854775807", i64::MAX, i64::MAX, BinarySi),
            ("9223372036854775807Ki", "9223372036854775807", i64::MAX, i64::MAX, BinarySi),
            // Upstream loses the suffix of these and says "1".
            ("1000E", "1000E", i64::MAX, i64::MAX, DecimalSi),
        ];
        for (text, canonical, value, milli_value, format) in table {
            let quantity = Quantity::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(quantity.to_string(), canonical, "{text}");
            assert_eq!(quantity.value(), value, "{text}");
            assert_eq!(quantity.milli_value(), milli_value, "{text}");
            assert_eq!(quantity.format(), format, "{text}");
            assert_eq!(Quantity::parse(canonical).unwrap(), quantity, "{text} read back");
        }
    }

    #[test]
    fn refuses_what_upstream_refuses() {
        let table = [
            "",
            "1.1.M",
            "1+1.0M",
            "0.1mi",
            "0.1am",
            "aoeu",
            ".5i",
            "1i",
            " 1",
            "1 ",
            "-3.01e-",
            "-3.01i",
            "1e",
            "1e+",
            "1ee",
            "0x1",
            "1_000",
            "1é",
            "1e99999999999",
        ];
        for text in table {
            assert!(Quantity::parse(text).is_err(), "{text:?} was taken");
        }
        assert!(matches!(Quantity::parse("1e30"), Err(QuantityError::TooLarge(_))));
    }

    #[test]
    fn compares_by_value() {
        let table = [
            ("0", "0Ki", Ordering::Equal),
            ("1", "1000m", Ordering::Equal),
            ("1Ki", "1024", Ordering::Equal),
            ("100m", "50m", Ordering::Greater),
            ("50m", "100m", Ordering::Less),
            ("10000T", "100Gi", Ordering::Greater),
            ("-1", "1n", Ordering::Less),
        ];
        for (left, right, expected) in table {
            let ordering = Quantity::parse(left).unwrap().cmp(&Quantity::parse(right).unwrap());
            assert_eq!(ordering, expected, "{left} {right}");
        }
    }

    #[test]
    fn adds_and_keeps_the_format_that_means_something() {
        let add = |l: &str, r: &str| (Quantity::parse(l).unwrap() + Quantity::parse(r).unwrap()).to_string();
        assert_eq!(add("100m", "0"), "100m");
        assert_eq!(add("0", "1Gi"), "1Gi");
        assert_eq!(add("512Mi", "512M"), "1024288Ki");
        assert_eq!(add("900m", "100m"), "1");
    }

    #[test]
    fn is_made_from_numbers() {
        assert_eq!(Quantity::new(4 << 30, BinarySi).to_string(), "4Gi");
        assert_eq!(Quantity::new_milli(250, DecimalSi).to_string(), "250m");
        assert_eq!(ApiQuantity::from(Quantity::ZERO).0, "0");
    }
}
