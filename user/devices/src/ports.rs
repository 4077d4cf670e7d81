//! Ports are reached through capabilities for them only.

use abi::cap::Rights;
use abi::error::Error;
use rt::handle::{Ports, Typed};

use crate::clock::{self, Clock};
use crate::timer::{self, Timer};
use crate::{Lab, Outcome, ensure, refused};

/// The serial line's and the legacy interrupt controllers' ports: the kernel's.
const KEPT: [(u16, u32); 4] = [(0x3f8, 8), (0x3f0, 9), (0x21, 1), (0xa0, 2)];

/// Ranges of ports: what is refused.
pub(crate) fn claims(lab: &Lab) -> Outcome {
    let all = lab.ports;
    refused(all.claim(0x40, 0), Error::BadArgument, "no ports are claimed")?;
    refused(all.claim(0xffff, 2), Error::BadArgument, "ports are claimed beyond the last")?;
    refused(all.claim(0x40, 1 << 31), Error::BadArgument, "more ports are claimed than there are")?;
    for (first, count) in KEPT {
        refused(all.claim(first, count), Error::Occupied, "the kernel's ports are claimed")?;
    }
    refused(all.claim(0, 1 << 16), Error::Occupied, "all ports are claimed")?;
    let some = all.claim(0x40, 4)?;
    refused(some.claim(0x3f, 2), Error::BadArgument, "a range is widened below")?;
    refused(some.claim(0x43, 2), Error::BadArgument, "a range is widened above")?;
    let one = some.claim(0x43, 1)?;
    refused(one.read(0x42, 1), Error::BadArgument, "a narrower range is as wide")?;
    let bare = some.derive(Rights::OBSERVE.with(Rights::WRITE), 0)?;
    refused(bare.claim(0x40, 1), Error::MissingRight, "ports are claimed without the right")?;
    all.claim(0xffff, 1)?;
    Ok(())
}

/// Accesses: all of one is inside, with a width that there is, and the right to it.
pub(crate) fn accesses(lab: &Lab) -> Outcome {
    let write = |ports: Ports, port: u16, bytes: u64, value: u32| {
        // SAFETY: refused, or to the timer, which knows nothing of memory.
        unsafe { ports.write(port, bytes, value) }
    };
    refused(lab.ports.read(0x40, 1), Error::BadArgument, "a port is read that was not claimed")?;
    refused(write(lab.ports, 0x80, 1, 0), Error::BadArgument, "a port is written that was not claimed")?;
    let owned = lab.ports.claim(timer::COUNTER, timer::PORTS)?;
    let some = *owned;
    for (port, bytes) in [(0x3f, 1), (0x3f, 2), (0x44, 1), (0x43, 2), (0x42, 4), (0x41, 4), (0x00, 1)] {
        refused(some.read(port, bytes), Error::BadArgument, "a port outside is read")?;
        refused(write(some, port, bytes, 0), Error::BadArgument, "a port outside is written")?;
    }
    for bytes in [0, 3, 8, u64::MAX] {
        refused(some.read(0x40, bytes), Error::BadArgument, "a width is read that there is not")?;
    }
    refused(write(some, 0x40, 1, 0x100), Error::BadArgument, "a value is cut off")?;
    let wide = 1_u64 << 32 | 0x40;
    // SAFETY: no address is passed.
    let read = unsafe { rt::sys::port_read(some.handle(), wide, 1) };
    refused(read, Error::BadArgument, "a port's number is cut off")?;
    let reader = some.derive(Rights::OBSERVE, 0)?;
    reader.read(0x40, 1)?;
    refused(write(*reader, 0x40, 1, 0), Error::MissingRight, "a port is written without the right")?;
    let writer = some.derive(Rights::WRITE, 0)?;
    refused(writer.read(0x40, 1), Error::MissingRight, "a port is read without the right")
}

/// Devices answer: what is written to one is there, and another moves on.
pub(crate) fn device(lab: &Lab) -> Outcome {
    /// Alarm: hours (MC146818A). Nobody waits for it.
    const ALARM: u32 = 0x05;
    let clock = Clock::start(lab)?;
    for value in [0x12, 0x21] {
        clock.write(ALARM, value)?;
        ensure(clock.read(ALARM)? == value, "the clock remembers what it is told")?;
    }
    let timer = Timer::start(lab)?;
    let mut seen = [0; 64];
    for slot in &mut seen {
        *slot = timer.count()?;
        ensure(Timer::is_count(*slot), "the timer counts within its period")?;
    }
    ensure(seen.iter().any(|&count| Some(&count) != seen.first()), "the timer counts")?;
    let both = lab.ports.claim(clock::INDEX, 2)?;
    both.read(clock::INDEX, 2)?;
    Ok(())
}
