//! The real-time clock (Motorola MC146818A datasheet): it interrupts periodically, but not again before it has been asked why.

use rt::handle::{Owned, Ports, Result};

use crate::Lab;

/// Its ISA interrupt.
pub(crate) const LINE: u64 = 8;
/// Selects a register, and shows it.
pub(crate) const INDEX: u16 = 0x70;
pub(crate) const DATA: u16 = 0x71;

/// Registers: the rate in bits 3:0; what interrupts, periodically by bit 6; why it has interrupted, cleared by being read.
const A: u32 = 0x0a;
const B: u32 = 0x0b;
const C: u32 = 0x0c;
const RATE: u32 = 0x0f;
/// 1024 Hz.
const RATE_1024: u32 = 6;
const PERIODIC: u32 = 1 << 6;

/// The clock, interrupting periodically as long as this lives.
pub(crate) struct Clock(Owned<Ports>);

impl Clock {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let clock = Self(lab.ports.claim(INDEX, 2)?);
        let rate = clock.read(A)? & !RATE | RATE_1024;
        clock.write(A, rate)?;
        let usual = clock.read(B)?;
        clock.write(B, usual | PERIODIC)?;
        clock.why()?;
        Ok(clock)
    }

    /// Why it has interrupted; from now on it may again.
    pub(crate) fn why(&self) -> Result<u32> {
        self.read(C)
    }

    pub(crate) fn read(&self, register: u32) -> Result<u32> {
        // SAFETY: the clock knows nothing of memory.
        unsafe { self.0.write(INDEX, 1, register) }?;
        self.0.read(DATA, 1)
    }

    pub(crate) fn write(&self, register: u32, value: u32) -> Result<()> {
        // SAFETY: the clock knows nothing of memory.
        unsafe { self.0.write(INDEX, 1, register) }?;
        // SAFETY: as above.
        unsafe { self.0.write(DATA, 1, value) }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = self.read(B).and_then(|usual| self.write(B, usual & !PERIODIC));
    }
}
