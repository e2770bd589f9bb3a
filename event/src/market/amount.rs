//! Amounts: decimals of any length, exact, until they are rounded once into their column.
//!
//! A price has up to 76 digits and a rate up to 100, so that their product is wider than any column; it is rounded half
//! away from zero at the 36th place. Negative numbers do not occur: they are refused, or no rates.

use arrow::datatypes::i256;
use num_bigint::BigUint;

use super::PriceBasis;
use super::fields::is_digits;
use crate::rejection::{Reason, Rejection};

/// Decimal places of amounts.
const AMOUNT_PLACES: i64 = 36;
/// Digits of amounts, so that a column of 76 holds the sum of ten thousand million of them.
const AMOUNT_DIGITS_MAX: u32 = 66;
/// Decimal places of rates, as columns have them.
const RATE_PLACES: i64 = 18;
/// Digits of a rate's column.
const RATE_DIGITS_MAX: u32 = 38;
/// Longer is no rate: its digits would take time, and say nothing.
const RATE_CHARACTERS_MAX: usize = 100;
/// Powers of ten beyond which a number of at most 176 digits is either far too large or nothing.
const SHIFT_MAX: i64 = 400;

/// A decimal as it was sent: `digits` · 10^`exponent`, more than zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    digits: BigUint,
    exponent: i64,
    /// In units of 10^-18, rounded.
    pub(super) column: i128,
}

impl Rate {
    /// Reads `1805.279999999999973000`, `5e-8`; none where it is zero, negative, 10^20 or more, of more than 100
    /// characters, or no number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = [whole, fraction].concat();
        if text.len() > RATE_CHARACTERS_MAX || !is_digits(&digits) {
            return None;
        }
        let significant = digits.trim_end_matches('0');
        let cut = i64::try_from(digits.len() - significant.len()).ok()?;
        let places = i64::try_from(fraction.len()).ok()?;
        let digits = BigUint::parse_bytes(significant.as_bytes(), 10)?;
        let exponent = i64::from(exponent) + cut - places;
        let scaled = shifted(&digits, exponent + RATE_PLACES)?;
        let column = i128::try_from(&scaled).ok().filter(|scaled| *scaled < 10_i128.pow(RATE_DIGITS_MAX))?;
        Some(Self { digits, exponent, column })
    }
}

/// What is paid.
pub(super) struct Worth {
    pub(super) price: Option<i256>,
    pub(super) decimals: Option<i32>,
    pub(super) basis: Option<PriceBasis>,
}

impl Worth {
    /// The price in whole tokens; none without a price or the token's decimals.
    pub(super) fn amount(&self) -> Result<Option<i256>, Rejection> {
        match (self.price, self.decimals) {
            (Some(price), Some(decimals)) => {
                column("tokens", shifted(&wide(price), AMOUNT_PLACES - i64::from(decimals))).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The price in the currency of a rate; none where that cannot be told.
    pub(super) fn at(&self, currency: &str, rate: Option<&Rate>) -> Result<Option<i256>, Rejection> {
        let Some(rate) = rate else { return Ok(None) };
        let worth = match (self.basis, self.price, self.decimals) {
            (Some(PriceBasis::Order), ..) => shifted(&rate.digits, rate.exponent + AMOUNT_PLACES),
            (Some(PriceBasis::Rate), Some(price), Some(decimals)) => {
                shifted(&(wide(price) * &rate.digits), rate.exponent + AMOUNT_PLACES - i64::from(decimals))
            }
            _ => return Ok(None),
        };
        column(currency, worth).map(Some)
    }
}

/// `number` · 10^`shift`, rounded half up; none where it is far too large.
fn shifted(number: &BigUint, shift: i64) -> Option<BigUint> {
    let ten = BigUint::from(10_u8);
    let power = u32::try_from(shift.unsigned_abs().min(SHIFT_MAX.unsigned_abs())).ok()?;
    match shift {
        0.. if number.bits() == 0 => Some(BigUint::ZERO),
        SHIFT_MAX.. => None,
        0.. => Some(number * ten.pow(power)),
        _ => {
            let unit = ten.pow(power);
            Some((number + (&unit >> 1_u8)) / unit)
        }
    }
}

fn wide(number: i256) -> BigUint {
    BigUint::from_bytes_le(&number.to_le_bytes())
}

/// An amount as its column holds it.
fn column(unit: &str, amount: Option<BigUint>) -> Result<i256, Rejection> {
    let fits = amount.filter(|amount| *amount < BigUint::from(10_u8).pow(AMOUNT_DIGITS_MAX)).map(|amount| {
        let mut bytes = [0; 32];
        let little = amount.to_bytes_le();
        bytes[..little.len()].copy_from_slice(&little);
        i256::from_le_bytes(bytes)
    });
    fits.ok_or_else(|| Rejection::new(Reason::OutOfRange, format!("the price is 10^30 {unit} or more")))
}
