//! The interval timer (Intel 8254 datasheet): its line rises in every period, whatever is done about it.

use rt::handle::{Owned, Ports, Result};

use crate::Lab;

/// Its ISA interrupt.
pub(crate) const LINE: u64 = 0;
/// Counter 0, and the control word of all.
pub(crate) const COUNTER: u16 = 0x40;
const CONTROL: u16 = 0x43;
pub(crate) const PORTS: u32 = 4;

/// Control words: counter 0, low byte then high byte, binary; mode 2, rate generator; mode 0, which stays low until it is written to.
const GENERATE: u32 = 0b0011_0100;
const STOP: u32 = 0b0011_0000;
/// Latches counter 0, to be read.
const LATCH: u32 = 0;

/// Its frequency is 1.193182 MHz: about 2 kHz.
const PERIOD: u32 = 600;

/// The timer, running as long as this lives.
pub(crate) struct Timer(Owned<Ports>);

impl Timer {
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let timer = Self(lab.ports.claim(COUNTER, PORTS)?);
        timer.write(CONTROL, GENERATE)?;
        timer.write(COUNTER, PERIOD & 0xff)?;
        timer.write(COUNTER, PERIOD >> 8)?;
        Ok(timer)
    }

    /// Where it stands: below [`PERIOD`].
    pub(crate) fn count(&self) -> Result<u32> {
        self.write(CONTROL, LATCH)?;
        let low = self.0.read(COUNTER, 1)?;
        Ok(low | self.0.read(COUNTER, 1)? << 8)
    }

    /// Whether a count is one of its own.
    pub(crate) fn is_count(count: u32) -> bool {
        count <= PERIOD
    }

    fn write(&self, port: u16, value: u32) -> Result<()> {
        // SAFETY: the timer knows nothing of memory.
        unsafe { self.0.write(port, 1, value) }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let _ = self.write(CONTROL, STOP);
    }
}
