//! Exceptions in the loader, and in the kernel until it has handlers of its own: reported, never survived.

use super::asm::{CODE64, VECTORS, address_of, entry_vectors};
use super::console::{end, say};
use abi::exit::Exit;
use boot::image::TOP_2_GIB;
use boot::protocol::HHDM;
use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::registers::control::Cr2;
use x86_64::structures::DescriptorTablePointer;

/// An interrupt descriptor table (Intel SDM volume 3, 6.14.1).
#[repr(C, align(16))]
pub(super) struct Table([[u64; 2]; VECTORS]);

impl Table {
    /// A table whose gates lead to the handlers in `entry.S`, in the direct map.
    pub(super) fn new() -> Self {
        const PRESENT_INTERRUPT_GATE: u64 = 0x8e00 << 32;
        // SAFETY: the addresses are constant data of entry.S.
        let addresses = unsafe { &entry_vectors };
        Self(addresses.map(|at| {
            let (at, selector) = (HHDM + at, u64::from(CODE64) << 16);
            let low = at & 0xffff | selector | PRESENT_INTERRUPT_GATE | (at >> 16 & 0xffff) << 48;
            [low, at >> 32]
        }))
    }

    /// Makes this core use the table, in the direct map.
    pub(super) fn load(&'static self) {
        let limit = u16::try_from(size_of::<Self>() - 1).unwrap_or(u16::MAX);
        let address = HHDM + address_of(core::ptr::from_ref(self).cast());
        let pointer = DescriptorTablePointer { limit, base: VirtAddr::new(address) };
        // SAFETY: the table is static, mapped by the loader's and the kernel's first tables, and its gates lead to
        // handlers that never return or return at once.
        unsafe { lidt(&pointer) };
    }
}

/// Reports an exception and ends the run.
pub(super) extern "C" fn loader_exception(
    vector: u64,
    error: u64,
    rip: u64,
    _cs: u64,
    _flags: u64,
    rsp: u64,
) -> ! {
    let (whose, exit) = match rip {
        TOP_2_GIB.. => ("the kernel, which has no handlers yet", Exit::Exception),
        _ => ("the loader", Exit::LoaderException),
    };
    let fault = Cr2::read_raw();
    say!("error: exception {vector} (code {error:#x}) in {whose}, at {rip:#x}");
    say!("stack {rsp:#x}, fault address {fault:#x}");
    end(exit)
}
