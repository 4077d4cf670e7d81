//! The assembly of the loader and everything Rust sees of it.

use super::cores::{Launch, core_main};
use super::exceptions::loader_exception;
use super::loader_main;
use abi::exit::{self, Exit};
use boot::protocol::HHDM;
use core::arch::global_asm;
use core::mem::offset_of;

/// Bytes of the stack the loader runs on.
const STACK_SIZE: usize = 0x2_0000;
/// Bytes of the stack that exceptions are reported on.
const FAULT_STACK_SIZE: usize = 0x4000;
/// Vectors of the processor's exceptions.
const EXCEPTIONS: usize = 32;
/// Vectors with a handler: the exceptions, then those that a parked core's APIC may use.
pub(super) const VECTORS: usize = 48;
/// Selector of the 64-bit code segment in the protocol's GDT.
pub(super) const CODE64: u16 = 0x28;
/// I/O port of the first serial line.
pub(super) const COM1: u16 = 0x3f8;

// Control register, MSR and CPUID bits (Intel SDM volume 3, 2.5; volume 4; volume 2, CPUID).
const CR0_PE_ET_NE_WP_PG: u32 = 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
const CR4_PAE: u32 = 1 << 5;
const MSR_EFER: u32 = 0xc000_0080;
const EFER_LME: u32 = 1 << 8;
const EFER_NXE: u32 = 1 << 11;
const CPUID_NX: u32 = 1 << 20;
const CPUID_LM: u32 = 1 << 29;

// Entries of the loader's own page tables.
const PTE_TABLE: u32 = 0x3;
const PTE_DATA: u32 = 0x83;
const PTE_WRITABLE: u32 = 0x2;
const PTE_UNCACHED: u32 = 0x18;
/// Bytes into a level-2 table for the 2 MiB pages that hold text and constants (link.ld).
const PD_TEXT: u32 = 8;
const PD_RODATA: u32 = 2 * 8;
/// Bytes into the top table for the direct map.
const PML4_HHDM: u64 = (HHDM >> 39 & 0x1ff) * 8;
/// Any number that memory which is not there would not answer with.
const CANARY: u32 = 0x6e66_626f;
/// Type of the note with the 32-bit entry point (Xen public headers, elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

global_asm!(
    include_str!("entry.S"),
    phys32_entry = const XEN_ELFNOTE_PHYS32_ENTRY,
    stack_size = const STACK_SIZE,
    fault_stack_size = const FAULT_STACK_SIZE,
    hhdm = const HHDM,
    cpuid_lm = const CPUID_LM,
    cpuid_nx = const CPUID_NX,
    efer_lme = const EFER_LME,
    efer_nxe = const EFER_NXE,
    msr_efer = const MSR_EFER,
    cr0 = const CR0_PE_ET_NE_WP_PG,
    cr4 = const CR4_PAE,
    pte_table = const PTE_TABLE,
    pte_data = const PTE_DATA,
    pte_writable = const PTE_WRITABLE,
    pte_uncached = const PTE_UNCACHED,
    pd_text = const PD_TEXT,
    pd_rodata = const PD_RODATA,
    pml4_hhdm = const PML4_HHDM,
    com1 = const COM1,
    exit_port = const exit::PORT,
    exit_unsupported = const Exit::Unsupported as u8,
    exit_no_memory = const Exit::NoMemory as u8,
    canary = const CANARY,
    exceptions = const EXCEPTIONS,
    vectors = const VECTORS,
    launch = sym super::cores::LAUNCH,
    launch_tickets = const offset_of!(Launch, tickets),
    launch_count = const offset_of!(Launch, count),
    launch_stack_size = const offset_of!(Launch, stack_size),
    launch_stacks = const offset_of!(Launch, stacks),
    loader_main = sym loader_main,
    core_main = sym core_main,
    loader_exception = sym loader_exception,
);

unsafe extern "C" {
    /// Leaves for the kernel.
    ///
    /// # Safety
    /// 1. `cr3` maps the loader and `stack` in the direct map, and `entry`.
    /// 2. Nobody else uses the stack that ends at `stack`.
    pub(super) fn entry_hand_over(entry: u64, stack: u64, argument: u64, cr3: u64) -> !;

    /// Real-mode code, to be copied; from here to `entry_trampoline_end`.
    pub(super) static entry_trampoline: u8;
    /// End of the real-mode code.
    pub(super) static entry_trampoline_end: u8;
    /// Addresses of the handlers, by vector.
    pub(super) static entry_vectors: [u64; VECTORS];

    /// Bounds of the loader in memory, from the linker script.
    pub(super) static loader_text: u8;
    pub(super) static loader_text_end: u8;
    pub(super) static loader_rodata: u8;
    pub(super) static loader_rodata_end: u8;
    pub(super) static loader_data: u8;
    pub(super) static loader_data_end: u8;
}

/// The address of a linker symbol.
pub(super) fn address_of(symbol: *const u8) -> u64 {
    boot::to_u64(symbol.addr())
}

/// Base and end of the three parts of the loader.
pub(super) fn loader_extents() -> [(u64, u64); 3] {
    [
        (address_of(&raw const loader_text), address_of(&raw const loader_text_end)),
        (address_of(&raw const loader_rodata), address_of(&raw const loader_rodata_end)),
        (address_of(&raw const loader_data), address_of(&raw const loader_data_end)),
    ]
}
