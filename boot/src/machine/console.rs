//! What people see: text on COM1, and the end of a run that cannot go on.

use super::asm::COM1;
use abi::exit::{self, Exit};
use boot::Refusal;
use core::fmt::{self, Write};
use x86_64::instructions::port::Port;
use x86_64::instructions::{hlt, interrupts};

// Registers and bits of the 16550 (National Semiconductor PC16550D data sheet, table II).
const DIVISOR_LOW: u16 = 0;
const DIVISOR_HIGH: u16 = 1;
const FIFO_CONTROL: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const TRANSMIT_EMPTY: u8 = 1 << 5;
/// A line that is not there must not stop the boot.
const PATIENCE: u32 = 100_000;

/// The first serial line.
pub(super) struct Console;

impl Console {
    /// 115200 baud, 8 data bits, no parity, one stop bit; no interrupts.
    pub(super) fn start() {
        let setup = [
            (1, 0),
            (LINE_CONTROL, 0x80),
            (DIVISOR_LOW, 1),
            (DIVISOR_HIGH, 0),
            (LINE_CONTROL, 0x03),
            (FIFO_CONTROL, 0x07),
            (MODEM_CONTROL, 0x03),
        ];
        for (register, value) in setup {
            write_port(COM1 + register, value);
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let mut left = PATIENCE;
            while read_port(COM1 + LINE_STATUS) & TRANSMIT_EMPTY == 0 && left > 0 {
                left -= 1;
            }
            write_port(COM1, byte);
        }
        Ok(())
    }
}

/// Prints a line on COM1.
macro_rules! say {
    ($($what:tt)*) => {{
        use core::fmt::Write as _;
        // Writing to the console cannot fail.
        let _ = write!(crate::machine::console::Console, "boot: {}\r\n", format_args!($($what)*));
    }};
}
pub(super) use say;

/// Reads an I/O port.
pub(super) fn read_port(port: u16) -> u8 {
    // SAFETY: the ports the loader reads (serial line, clocks, RTC) have no effect on memory.
    unsafe { Port::new(port).read() }
}

/// Writes an I/O port.
pub(super) fn write_port(port: u16, value: u8) {
    // SAFETY: the ports the loader writes (serial line, PIC, PIT, RTC, exit device) have no effect on memory.
    unsafe { Port::new(port).write(value) }
}

/// Reads a 32-bit I/O port.
pub(super) fn read_port_u32(port: u16) -> u32 {
    // SAFETY: the only such port is the PM timer, a read-only counter.
    unsafe { Port::new(port).read() }
}

/// Says why the boot ends, ends the run under an emulator, and halts where there is no exit device.
pub(super) fn refuse(refusal: Refusal) -> ! {
    match refusal.value {
        Some(value) => say!("error: {}: {value:#x}", refusal.what),
        None => say!("error: {}", refusal.what),
    }
    end(refusal.exit)
}

/// Ends the run.
pub(super) fn end(exit: Exit) -> ! {
    say!("stopped: {}", exit.describe());
    write_port(exit::PORT, exit as u8);
    loop {
        interrupts::disable();
        hlt();
    }
}
