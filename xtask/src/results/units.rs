//! Recorded integers as people read them: `perf::bench::Unit` knows scale and label, this formats.

use crate::results::schema::CaseStatus;
use perf::bench::Unit;

/// The label of the unit people read; the recorded word itself if it is unknown.
#[must_use]
pub fn label(unit: &str) -> &str {
    match Unit::parse(unit) {
        Some(known) => known.label(),
        None => unit,
    }
}

/// How many recorded units make one of those people read.
#[must_use]
pub fn scale(unit: &str) -> u64 {
    Unit::parse(unit).map_or(1, Unit::scale)
}

/// A recorded value in the unit people read, with the digits that carry meaning: three or all integer ones.
#[must_use]
pub fn show(value: u64, unit: &str) -> String {
    let scale = scale(unit);
    let (whole, rest) = (value / scale, value % scale);
    if scale == 1 || whole >= 1000 {
        // Rounded half up.
        return grouped(whole + u64::from(scale > 1 && rest * 2 >= scale));
    }
    let digits = if whole >= 100 { 1 } else { 2 };
    let steps = 10_u64.pow(digits);
    let rounded = (u128::from(value) * u128::from(steps) * 2 + u128::from(scale)) / (u128::from(scale) * 2);
    let steps = u128::from(steps);
    let (whole, fraction) = (rounded / steps, rounded % steps);
    let width = usize::try_from(digits).unwrap_or(0);
    format!("{whole}.{fraction:0width$}")
}

/// Thousands apart: 1,234,567.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How a case ended, as shown to people.
#[must_use]
pub fn status(status: CaseStatus) -> &'static str {
    match status {
        CaseStatus::Ok => "ok",
        CaseStatus::Failed => "FAILED",
        CaseStatus::Refused => "refused",
        CaseStatus::Skipped => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use super::{label, show};

    #[test]
    fn values_are_scaled_and_rounded() {
        let cases = [
            (250, "milliticks", "0.25"),
            (3_456, "ps", "3.46"),
            (123_456, "ps", "123.5"),
            (999_999, "ps", "1000.0"),
            (1_234_567, "ps", "1,235"),
            (1_234_567, "bytes", "1,234,567"),
            (935_000, "millionths", "93.50"),
            (7, "count", "7"),
            (0, "ps", "0.00"),
            (5, "furlongs", "5"),
        ];
        for (value, unit, shown) in cases {
            assert_eq!(show(value, unit), shown, "{value} {unit}");
        }
        assert_eq!((label("ps"), label("furlongs")), ("ns", "furlongs"));
    }
}
