//! Calendar arithmetic for the date at boot.

/// Seconds since 1970 of a date in the Gregorian calendar and a time of hours, minutes and seconds; `None` when
/// there is no such date or time.
#[must_use]
pub fn unix_time(year: u32, month: u8, day: u8, time: [u8; 3]) -> Option<u64> {
    let [hour, minute, second] = time;
    if year < 1970 || !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if is_leap(year) { 366u64 } else { 365 }).sum();
    let months: u64 = (1..month).map(|month| u64::from(days_in(year, month))).sum();
    let days = years + months + u64::from(day) - 1;
    Some(((days * 24 + u64::from(hour)) * 60 + u64::from(minute)) * 60 + u64::from(second))
}

const fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400)
}

fn days_in(year: u32, month: u8) -> u8 {
    match month {
        2 => 28 + u8::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::unix_time;

    #[test]
    fn known_dates() {
        assert_eq!(unix_time(1970, 1, 1, [0, 0, 0]), Some(0));
        assert_eq!(unix_time(2000, 1, 1, [0, 0, 0]), Some(946_684_800));
        assert_eq!(unix_time(2024, 2, 29, [12, 0, 1]), Some(1_709_208_001));
        assert_eq!(unix_time(2099, 12, 31, [23, 59, 59]), Some(4_102_444_799));
        for (year, month, day) in [(2023, 2, 29), (2024, 13, 1), (2024, 0, 1), (2024, 4, 31), (2024, 1, 0)] {
            assert_eq!(unix_time(year, month, day, [0, 0, 0]), None);
        }
        assert_eq!(unix_time(2024, 1, 1, [24, 0, 0]), None);
    }
}
