//! Interrupt controllers: starting other cores, and silencing everything else.

use super::console::write_port;
use super::cpu::{self, write_msr};
use super::physical::mmio;

// Local APIC registers (Intel SDM volume 3, table 10-1 and 10.6.1; x2APIC: 10.12.9).
const ICR_LOW: u64 = 0x300;
const ICR_HIGH: u64 = 0x310;
const X2APIC_FIRST: u32 = 0x800;
const X2APIC_ICR: u32 = 0x830;
const ICR_PENDING: u32 = 1 << 12;
const ICR_ASSERT: u32 = 1 << 14;
const ICR_INIT: u32 = 5 << 8;
const ICR_START_UP: u32 = 6 << 8;
/// Reads of the delivery status before it is given up: a message that stays pending shows as a missing core.
const PATIENCE: u32 = 1_000_000;

/// Highest APIC id that an xAPIC can send to.
const XAPIC_MAX_ID: u32 = 0xfe;

/// The 32-bit registers of a local APIC that the loader uses. The discriminants are the numbers of the MSRs of x2APIC
/// mode counted from the first one; in memory the registers are 16 bytes apart.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(super) enum Register {
    EndOfInterrupt = 0x0b,
    Spurious = 0x0f,
    TimerVector = 0x32,
    TimerCount = 0x38,
    TimerDivide = 0x3e,
}

impl Register {
    const fn number(self) -> u32 {
        self as u32
    }
}

/// The local APIC of the core that asks.
#[derive(Clone, Copy)]
pub(super) enum LocalApic {
    /// Memory-mapped registers at a physical address.
    Xapic(u64),
    /// Registers behind MSRs.
    X2apic,
}

impl LocalApic {
    /// The APIC in the mode it is in.
    pub(super) fn current() -> Self {
        if cpu::in_x2apic() { Self::X2apic } else { Self::Xapic(cpu::apic_base()) }
    }

    /// Whether it is in x2APIC mode.
    pub(super) fn is_x2apic(self) -> bool {
        matches!(self, Self::X2apic)
    }

    /// Whether messages can be sent to a core.
    pub(super) fn reaches(self, apic_id: u32) -> bool {
        self.is_x2apic() || apic_id <= XAPIC_MAX_ID
    }

    /// Resets a core and makes it wait for its start-up message.
    pub(super) fn send_init(self, apic_id: u32) {
        self.send(apic_id, ICR_INIT | ICR_ASSERT);
    }

    /// Starts a core in real mode at a page.
    pub(super) fn send_start_up(self, apic_id: u32, page: u8) {
        self.send(apic_id, ICR_START_UP | ICR_ASSERT | u32::from(page));
    }

    /// Writes a register.
    pub(super) fn write(self, register: Register, value: u32) {
        let number = register.number();
        match self {
            Self::X2apic => write_msr(X2APIC_FIRST + number, u64::from(value)),
            Self::Xapic(base) => mmio::write(base + u64::from(number) * 16, value),
        }
    }

    fn send(self, apic_id: u32, command: u32) {
        match self {
            Self::X2apic => write_msr(X2APIC_ICR, u64::from(apic_id) << 32 | u64::from(command)),
            Self::Xapic(base) => {
                mmio::write(base + ICR_HIGH, apic_id << 24);
                mmio::write(base + ICR_LOW, command);
                let mut left = PATIENCE;
                while mmio::read(base + ICR_LOW) & ICR_PENDING != 0 && left > 0 {
                    core::hint::spin_loop();
                    left -= 1;
                }
            }
        }
    }
}

/// Masks every line of the two 8259A.
pub(super) fn mask_pics() {
    const DATA: [u16; 2] = [0x21, 0xa1];
    DATA.into_iter().for_each(|port| write_port(port, 0xff));
}

/// Masks the entries of an I/O APIC that the protocol names: those with delivery mode fixed or lowest priority
/// (Intel 82093AA data sheet, 3.2.4).
pub(super) fn mask_io_apic(base: u64) {
    const SELECT: u64 = 0;
    const WINDOW: u64 = 0x10;
    const VERSION: u32 = 1;
    const FIRST_ENTRY: u32 = 0x10;
    const DELIVERY_MODE: u32 = 7 << 8;
    const LOWEST_PRIORITY: u32 = 1 << 8;
    const MASKED: u32 = 1 << 16;
    mmio::write(base + SELECT, VERSION);
    let last = mmio::read(base + WINDOW) >> 16 & 0xff;
    for entry in 0..=last {
        mmio::write(base + SELECT, FIRST_ENTRY + 2 * entry);
        let low = mmio::read(base + WINDOW);
        if low & DELIVERY_MODE <= LOWEST_PRIORITY {
            mmio::write(base + WINDOW, low | MASKED);
        }
    }
}
