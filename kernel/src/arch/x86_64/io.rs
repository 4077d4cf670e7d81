//! Ports: the serial line, the emulator's exit device, and ACPI power-off.
//!
//! The serial line carries text and binary records. One core writes at a time (lock level [`crate::levels::SERIAL`]); a panicking core
//! takes the line by force, because the owner may be the core that it has just stopped.

use abi::exit::{self, Exit};
use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};
use x86_64::instructions::{hlt, interrupts, port::Port};

/// The first serial port (PC platform convention).
const COM1: u16 = 0x3f8;

/// The serial line.
pub(crate) struct Serial {
    /// `None` where no UART answers: output is lost, which is all that a machine without a serial port allows.
    uart: Option<Uart16550<PioBackend>>,
}

impl Serial {
    /// A line that discards everything.
    pub(crate) const fn absent() -> Self {
        Self { uart: None }
    }

    /// Finds and sets up COM1: 115,200 baud, 8 data bits, no parity, 1 stop bit.
    pub(crate) fn init(&mut self) {
        // SAFETY: G2: only this structure, under its lock, touches the ports of COM1.
        let Ok(mut uart) = (unsafe { Uart16550::new_port(COM1) }) else { return };
        let config = Config { baud_rate: BaudRate::Baud115200, ..Config::DEFAULT };
        if uart.init(config).is_ok() {
            self.uart = Some(uart);
        }
    }

    /// Writes all bytes, waiting for the line.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if let Some(uart) = &mut self.uart {
            uart.send_bytes_exact(bytes);
        }
    }
}

/// Ends the run: through the emulator's exit device, or by halting this core where there is none.
pub(crate) fn exit(reason: Exit) -> ! {
    try_exit(reason);
    halt()
}

/// Ends the run if there is an emulator's exit device; otherwise returns.
pub(crate) fn try_exit(reason: Exit) {
    let mut device = Port::<u8>::new(exit::PORT);
    // SAFETY: no other device of the PC platform decodes the port (`abi::exit::PORT`), so the write has no effect where it is absent.
    unsafe { device.write(reason as u8) };
}

/// Stops this core for good.
pub(crate) fn halt() -> ! {
    interrupts::disable();
    loop {
        hlt();
    }
}

/// Writes `value` to the ACPI PM1 control register at `port`.
pub(crate) fn write_pm1_control(port: u16, value: u16) {
    let mut register = Port::<u16>::new(port);
    // SAFETY: the FADT names the port as PM1 control, and the caller gives a value composed as ACPI 6.5 §4.8.3.2.1 says.
    unsafe { register.write(value) };
}

/// Reads the ACPI power-management timer at `port` (24 or 32 bits, 3.579545 MHz; ACPI 6.5 §4.8.3.3).
pub(crate) fn read_pm_timer(port: u16) -> u32 {
    let mut register = Port::<u32>::new(port);
    // SAFETY: the FADT names the port; reading the timer has no side effect.
    unsafe { register.read() }
}
