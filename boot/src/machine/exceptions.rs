//! Exceptions in the loader: reported, never survived.

use super::asm::{CODE64, EXCEPTIONS, address_of, entry_exceptions};
use super::console::{end, say};
use abi::exit::Exit;
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::registers::control::Cr2;
use x86_64::structures::DescriptorTablePointer;

/// What `entry.S` and the processor push, from low to high addresses.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Frame {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// An interrupt descriptor table (Intel SDM volume 3, 6.14.1).
#[repr(C, align(16))]
pub(super) struct Table([[u64; 2]; EXCEPTIONS]);

impl Table {
    /// A table whose entries lead to the handlers in `entry.S`.
    pub(super) fn new() -> Self {
        const PRESENT_INTERRUPT_GATE: u64 = 0x8e00 << 32;
        // SAFETY: the table is constant data of entry.S.
        let addresses = unsafe { &entry_exceptions };
        Self(addresses.map(|at| {
            let selector = u64::from(CODE64) << 16;
            let low = at & 0xffff | selector | PRESENT_INTERRUPT_GATE | (at >> 16 & 0xffff) << 48;
            [low, at >> 32]
        }))
    }

    /// Makes this core use the table.
    pub(super) fn load(&'static self) {
        Self::load_at(address_of(core::ptr::from_ref(self).cast()));
    }

    /// Makes this core use the table at an address where `load` used one before.
    pub(super) fn load_at(address: u64) {
        let limit = u16::try_from(size_of::<Self>() - 1).unwrap_or(u16::MAX);
        let pointer = DescriptorTablePointer { limit, base: VirtAddr::new(address) };
        // SAFETY: the table is static and its gates lead to handlers that never return.
        unsafe { lidt(&pointer) };
    }
}

/// Reports an exception and ends the run.
pub(super) extern "C" fn loader_exception(frame: &Frame) -> ! {
    let fault = Cr2::read_raw();
    say!(
        "error: exception {} (code {:#x}) at {:#x}, stack {:#x}, fault address {fault:#x}",
        frame.vector,
        frame.error,
        frame.rip,
        frame.rsp
    );
    end(Exit::LoaderException)
}
