//! Short waits: the ACPI PM timer, or the PIT where there is none.

use super::console::{read_port, read_port_u32, write_port};
use abi::exit::Exit;
use boot::Refusal;

/// The PM timer (ACPI 6.5, 4.8.3.3): 24 bits that are always there, and its frequency.
const PM_MASK: u32 = 0xff_ffff;
const PM_HZ: u64 = 3_579_545;

// The PIT (Intel 8254 data sheet): channel 2, counting down from 0xffff over and over, and its gate.
const PIT_HZ: u64 = 1_193_182;
const PIT_MASK: u32 = 0xffff;
const PIT_CHANNEL_2: u16 = 0x42;
const PIT_COMMAND: u16 = 0x43;
const PIT_GATE: u16 = 0x61;
const PIT_RATE_GENERATOR: u8 = 0b1011_0100;
const PIT_LATCH: u8 = 0b1000_0000;

/// Reads of a counter that stands still before it is taken for broken.
const STUCK: u32 = 1 << 22;

/// A free-running counter.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pm_port: Option<u16>,
}

impl Clock {
    /// The PM timer at a port, or the PIT.
    pub(super) fn new(pm_port: Option<u16>) -> Self {
        if pm_port.is_none() {
            write_port(PIT_GATE, read_port(PIT_GATE) & !0b10 | 1);
            write_port(PIT_COMMAND, PIT_RATE_GENERATOR);
            write_port(PIT_CHANNEL_2, 0xff);
            write_port(PIT_CHANNEL_2, 0xff);
        }
        Self { pm_port }
    }

    fn count(self) -> u32 {
        match self.pm_port {
            Some(port) => read_port_u32(port),
            None => {
                write_port(PIT_COMMAND, PIT_LATCH);
                let low = u32::from(read_port(PIT_CHANNEL_2));
                PIT_MASK - (low | u32::from(read_port(PIT_CHANNEL_2)) << 8)
            }
        }
    }

    /// Waits until `done` or until so many microseconds are over: whether it was `done`.
    ///
    /// # Errors
    /// [`Exit::BadStartInfo`] when the counter stands still.
    pub(super) fn wait(self, micros: u64, mut done: impl FnMut() -> bool) -> Result<bool, Refusal> {
        let (mask, hz) = if self.pm_port.is_some() { (PM_MASK, PM_HZ) } else { (PIT_MASK, PIT_HZ) };
        let goal = micros * hz / 1_000_000;
        let (mut last, mut elapsed, mut stuck) = (self.count(), 0u64, 0);
        while elapsed <= goal {
            if done() {
                return Ok(true);
            }
            core::hint::spin_loop();
            let now = self.count();
            let step = now.wrapping_sub(last) & mask;
            elapsed += u64::from(step);
            stuck = if step == 0 { stuck + 1 } else { 0 };
            last = now;
            if stuck > STUCK {
                return Err(Refusal::new(
                    Exit::BadStartInfo,
                    "the machine has no PM timer or PIT that counts",
                ));
            }
        }
        Ok(done())
    }
}
