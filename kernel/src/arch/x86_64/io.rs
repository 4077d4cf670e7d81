//! Ports: the serial line, the emulator's exit device, ACPI power-off, and those of programs.
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

/// The two legacy interrupt controllers: where their interrupt masks are (Intel 8259A datasheet, operation command word 1; PC platform
/// convention).
const LEGACY_MASKS: [u16; 2] = [0x21, 0xa1];

/// Masks everything at the legacy interrupt controllers.
pub(crate) fn mask_legacy_controllers() {
    for port in LEGACY_MASKS {
        // SAFETY: a mask of ones keeps the controllers still, whatever state they are in; where there are none, nobody listens.
        unsafe { Port::<u8>::new(port).write(u8::MAX) };
    }
}

/// What the legacy interrupt controllers have masked.
pub(crate) fn legacy_masks() -> [u8; 2] {
    // SAFETY: reading a mask has no effect.
    LEGACY_MASKS.map(|port| unsafe { Port::<u8>::new(port).read() })
}

/// A width in which a port can be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// One byte.
    Byte,
    /// Two.
    Word,
    /// Four.
    Long,
}

impl Width {
    /// So many bytes; `None` for a number that no access has.
    #[inline(always)]
    pub(crate) const fn new(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Long),
            _ => None,
        }
    }

    /// Bytes.
    #[inline(always)]
    pub(crate) const fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Long => 4,
        }
    }
}

/// Reads a port for a program.
///
/// # Safety
/// 1. The program has been given the port, and the kernel uses none of the bytes that are accessed.
#[inline(always)]
pub(crate) unsafe fn read_port(port: u16, width: Width) -> u32 {
    match width {
        // SAFETY: obligation 1, in each case.
        Width::Byte => u32::from(unsafe { Port::<u8>::new(port).read() }),
        // SAFETY: as above.
        Width::Word => u32::from(unsafe { Port::<u16>::new(port).read() }),
        // SAFETY: as above.
        Width::Long => unsafe { Port::<u32>::new(port).read() },
    }
}

/// Writes to a port for a program; what does not fit is cut off.
///
/// # Safety
/// 1. As for [`read_port`].
#[inline(always)]
pub(crate) unsafe fn write_port(port: u16, width: Width, value: u32) {
    match width {
        // SAFETY: obligation 1, in each case.
        Width::Byte => unsafe { Port::<u8>::new(port).write(value as u8) },
        // SAFETY: as above.
        Width::Word => unsafe { Port::<u16>::new(port).write(value as u16) },
        // SAFETY: as above.
        Width::Long => unsafe { Port::<u32>::new(port).write(value) },
    }
}

/// Ports that the kernel keeps to itself: first and last. The legacy interrupt controllers, the serial line, the emulator's exit device.
pub(crate) const KEPT_PORTS: [(u16, u16); 4] =
    [(0x20, 0x21), (0xa0, 0xa1), (exit::PORT, exit::PORT + 3), (COM1, COM1 + 7)];

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
