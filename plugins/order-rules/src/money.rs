//! Exact sums of quantities times prices, of any size.
//!
//! All amounts count billionths, so that a price may have up to nine decimals. Sums stay in 128 bits as long as they
//! fit and go on in groups of nine decimal digits where they do not.

use std::fmt;

/// Most digits of a quantity.
const QUANTITY_DIGITS_MAX: usize = 1_000;

/// Most characters of a price. Bounds the total, and with it the patch.
const PRICE_CHARS_MAX: usize = 10_000;

/// Most decimals that a price may have.
pub(crate) const DECIMALS_MAX: usize = 9;

/// A group of nine decimal digits is below this.
const GROUP: u64 = 1_000_000_000;

/// A whole number of at least 1: its digits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantity<'order>(&'order str);

/// A decimal number above 0: the digits before and after the point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Price<'order> {
    whole: &'order str,
    fraction: &'order str,
}

/// A sum of quantities times prices.
#[derive(Debug, Default)]
pub(crate) struct Net {
    /// In billionths.
    small: u128,
    /// What did not fit: groups of nine digits, lowest first. To be added to `small`.
    large: Vec<u32>,
}

impl<'order> Quantity<'order> {
    /// Reads JSON. Only digits are an integer here: no sign, point, exponent or quotes.
    pub(crate) fn read(json: &'order str) -> Option<Self> {
        (is_digits(json) && json.len() <= QUANTITY_DIGITS_MAX && has_value(json)).then_some(Self(json))
    }
}

impl<'order> Price<'order> {
    /// Reads a decimal text: digits, and if there is a point, one to `decimals_max` digits behind it.
    pub(crate) fn read(text: &'order str, decimals_max: usize) -> Option<Self> {
        if text.len() > PRICE_CHARS_MAX {
            return None;
        }
        let (whole, fraction) = match text.split_once('.') {
            Some((whole, fraction)) if is_digits(fraction) && fraction.len() <= decimals_max => (whole, fraction),
            Some(_) => return None,
            None => (text, ""),
        };
        (is_digits(whole) && (has_value(whole) || has_value(fraction))).then_some(Self { whole, fraction })
    }

    /// In billionths, if the whole part is short.
    fn billionths(self) -> Option<u64> {
        (self.whole.len() <= 9).then(|| number(self.whole) * GROUP + self.fraction_billionths())
    }

    fn fraction_billionths(self) -> u64 {
        let padding = u32::try_from(DECIMALS_MAX - self.fraction.len()).unwrap_or(0);
        number(self.fraction) * 10_u64.pow(padding)
    }
}

impl Net {
    /// Adds a line.
    pub(crate) fn add(&mut self, quantity: Quantity<'_>, price: Price<'_>) {
        if quantity.0.len() <= 18
            && let Some(billionths) = price.billionths()
            && let Some(sum) = self.small.checked_add(u128::from(number(quantity.0)) * u128::from(billionths))
        {
            self.small = sum;
            return;
        }
        let mut price_groups = vec![group(price.fraction_billionths())];
        price_groups.extend(groups(price.whole));
        add(&mut self.large, &product(&price_groups, &groups(quantity.0)));
    }

    /// The digits of the sum in billionths.
    fn digits(&self) -> String {
        if self.large.is_empty() {
            return match u64::try_from(self.small) {
                Ok(small) => small.to_string(),
                Err(_) => self.small.to_string(),
            };
        }
        let mut sum = groups(&self.small.to_string());
        add(&mut sum, &self.large);
        let mut digits = String::with_capacity(sum.len() * 9);
        for group in sum.iter().rev() {
            digits.push_str(&format!("{group:09}"));
        }
        digits.trim_start_matches('0').to_owned()
    }
}

impl fmt::Display for Net {
    /// With two decimals, more only where needed: `15.50`, `0.125`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:0>1$}", self.digits(), DECIMALS_MAX + 1);
        let (whole, fraction) = digits.split_at(digits.len() - DECIMALS_MAX);
        let shown = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{whole}.{}", &fraction[..shown])
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn has_value(digits: &str) -> bool {
    digits.bytes().any(|digit| digit != b'0')
}

/// The value of at most 18 digits.
fn number(digits: &str) -> u64 {
    digits.bytes().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
}

/// Digits in groups of nine, lowest first.
fn groups(digits: &str) -> Vec<u32> {
    digits.as_bytes().rchunks(9).map(|nine| group(number(std::str::from_utf8(nine).unwrap_or_default()))).collect()
}

/// A number that is known to be below [`GROUP`].
fn group(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Adds `other` to `sum`. Stops where nothing is left to carry, so that many small numbers add up to a large one cheaply.
fn add(sum: &mut Vec<u32>, other: &[u32]) {
    if sum.len() < other.len() {
        sum.resize(other.len(), 0);
    }
    let mut carry = 0;
    let mut others = other.iter();
    for digit in sum.iter_mut() {
        let next = others.next();
        if next.is_none() && carry == 0 {
            return;
        }
        let value = u64::from(*digit) + u64::from(next.copied().unwrap_or(0)) + carry;
        *digit = group(value % GROUP);
        carry = value / GROUP;
    }
    if carry > 0 {
        sum.push(group(carry));
    }
}

fn product(left: &[u32], right: &[u32]) -> Vec<u32> {
    let mut product = vec![0; left.len() + right.len()];
    for (position, &factor) in right.iter().enumerate() {
        let mut carry = 0;
        for (&digit, place) in left.iter().zip(&mut product[position..]) {
            let value = u64::from(*place) + u64::from(digit) * u64::from(factor) + carry;
            *place = group(value % GROUP);
            carry = value / GROUP;
        }
        product[position + left.len()] = group(carry);
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(lines: &[(&str, &str)]) -> String {
        let mut net = Net::default();
        for (quantity, price) in lines {
            net.add(Quantity::read(quantity).unwrap(), Price::read(price, 9).unwrap());
        }
        net.to_string()
    }

    #[test]
    fn a_net_has_two_decimals_and_more_where_needed() {
        for (lines, expected) in [
            (&[("6", "2.55"), ("2", "0.1")][..], "15.50"),
            (&[("1", "0.125")], "0.125"),
            (&[("100", "1")], "100.00"),
            (&[("3", "0.0001")], "0.0003"),
            (&[("10000", "0.0001")], "1.00"),
            (&[("1", "000.10")], "0.10"),
            (&[("1", "0.000000001")], "0.000000001"),
            (&[("999999999999999999", "999999999.999999999")], "999999999999999998000000000.000000001"),
            (&[("18446744073709551616", "0.01"), ("1", "0.01")], "184467440737095516.17"),
        ] {
            assert_eq!(net(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_sum_may_leave_128_bits() {
        let line = ("999999999999999999", "999999999.999999999");
        assert_eq!(net(&vec![line; 1000]), "999999999999999998000000000000.000001");
        let long = "9".repeat(1000);
        let net = net(&[(&long, &long)]);
        assert_eq!((net.len(), &net[..5], &net[995..1005], &net[1995..]), (2003, "99999", "9999800000", "00001.00"));
    }

    #[test]
    fn only_digits_above_zero_are_a_quantity() {
        for good in ["1", "6", "123456789012345678901234567890"] {
            assert!(Quantity::read(good).is_some(), "{good}");
        }
        for bad in ["", "0", "-1", "-0", "1.0", "1e2", "\"6\"", "true", "null", "[1]", &"9".repeat(1001)] {
            assert!(Quantity::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_plain_decimals_above_zero_are_a_price() {
        for good in ["1", "0.0001", "2.1", "2.5500", "007.5", "99999999999999999999999.9999"] {
            assert!(Price::read(good, 4).is_some(), "{good}");
        }
        for bad in [
            "",
            "0",
            "0.0",
            "0.0000",
            "-1",
            "+1",
            ".5",
            "5.",
            ".",
            "1.23456",
            "1.00000",
            "1e2",
            "1,5",
            " 1",
            "1 ",
            "1.2.3",
            "1_000",
            "١",
            "NaN",
            "0x1",
            &"9".repeat(10_001),
        ] {
            assert!(Price::read(bad, 4).is_none(), "{bad}");
        }
    }

    /// Long multiplication and addition on decimal digits: slow, plain, and unlike the code above.
    fn slowly(lines: &[(String, String)]) -> String {
        let mut sum = vec![0u32; 400];
        for (quantity, price) in lines {
            let (whole, fraction) = price.split_once('.').unwrap_or((price, ""));
            let price: Vec<u32> =
                format!("{whole}{fraction:0<9}").bytes().rev().map(|digit| u32::from(digit - b'0')).collect();
            for (left, digit) in quantity.bytes().rev().enumerate() {
                for (right, other) in price.iter().enumerate() {
                    sum[left + right] += u32::from(digit - b'0') * other;
                }
            }
            for place in 0..399 {
                sum[place + 1] += sum[place] / 10;
                sum[place] %= 10;
            }
        }
        let text: String = sum.iter().rev().map(|digit| char::from_digit(*digit, 10).unwrap()).collect();
        let (whole, fraction) = text.split_at(391);
        let whole = whole.trim_start_matches('0');
        let mut fraction = fraction.to_owned();
        while fraction.len() > 2 && fraction.ends_with('0') {
            fraction.pop();
        }
        format!("{}.{fraction}", if whole.is_empty() { "0" } else { whole })
    }

    proptest! {
        #[test]
        fn a_net_equals_long_multiplication(
            lines in proptest::collection::vec(("[1-9][0-9]{0,40}", "[0-9]{1,40}\\.[0-9]{0,8}[1-9]"), 1..30)
        ) {
            let borrowed: Vec<_> = lines.iter().map(|(quantity, price)| (quantity.as_str(), price.as_str())).collect();
            prop_assert_eq!(net(&borrowed), slowly(&lines));
        }

        #[test]
        fn small_numbers_equal_machine_arithmetic(
            lines in proptest::collection::vec((1u64..1_000_000, 1u64..1_000_000_000), 1..50)
        ) {
            let texts: Vec<_> = lines
                .iter()
                .map(|(quantity, price)| (quantity.to_string(), format!("{}.{:04}", price / 10_000, price % 10_000)))
                .collect();
            let borrowed: Vec<_> = texts.iter().map(|(quantity, price)| (quantity.as_str(), price.as_str())).collect();
            let sum: u128 = lines.iter().map(|(quantity, price)| u128::from(*quantity) * u128::from(*price)).sum();
            let expected = format!("{}.{:04}", sum / 10_000, sum % 10_000);
            let short = expected.trim_end_matches('0').len().max(expected.len() - 2);
            prop_assert_eq!(net(&borrowed), &expected[..short]);
        }
    }
}
