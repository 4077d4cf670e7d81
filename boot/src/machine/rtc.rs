//! The date, from the real-time clock (Motorola MC146818A data sheet).

use super::console::{read_port, write_port};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
const SECONDS: u8 = 0;
const MINUTES: u8 = 2;
const HOURS: u8 = 4;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const STATUS_A: u8 = 10;
const STATUS_B: u8 = 11;
const UPDATING: u8 = 1 << 7;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
const PM: u8 = 1 << 7;
/// An update takes 2 ms; a clock that updates for longer is none.
const PATIENCE: u32 = 1_000_000;

/// Seconds since 1970, taking the clock to run on UTC and in this century; `None` without a sane clock.
pub(super) fn unix_time() -> Option<u64> {
    let mut last = read_all()?;
    // Twice the same: no update came in between.
    for _ in 0..4 {
        let again = read_all()?;
        if again == last {
            return seconds(last);
        }
        last = again;
    }
    None
}

fn register(index: u8) -> u8 {
    write_port(INDEX, index);
    read_port(DATA)
}

fn read_all() -> Option<[u8; 6]> {
    (0..PATIENCE).find(|_| register(STATUS_A) & UPDATING == 0)?;
    Some([SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR].map(register))
}

fn seconds(raw: [u8; 6]) -> Option<u64> {
    let status = register(STATUS_B);
    let number = |value: u8| if status & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xf) };
    let [second, minute, hour, day, month, year] = raw;
    let mut hours = number(hour & !PM);
    if status & HOURS_24 == 0 {
        hours = hours % 12 + if hour & PM != 0 { 12 } else { 0 };
    }
    boot::date::unix_time(
        2000 + u32::from(number(year)),
        number(month),
        number(day),
        [hours, number(minute), number(second)],
    )
}
