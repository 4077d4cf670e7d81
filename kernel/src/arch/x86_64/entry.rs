//! The Rust side of `entry.S`.

use core::arch::global_asm;
use core::mem::offset_of;

use percpu::sync::atomic::{AtomicU64, Ordering};
use x86_64::{PhysAddr, VirtAddr};

use super::{ipi, page_fault, tables, trap, usercopy};

global_asm!(
    include_str!("registers.S"),
    include_str!("entry.S"),
    boot_main = sym crate::start::boot_main,
    core_main = sym crate::start::core_main,
    kernel_root = sym KERNEL_ROOT,
    mp_extra = const offset_of!(limine::mp::Cpu, extra),
    trap_dispatch = sym trap::trap_dispatch,
    on_ipi = sym ipi::on_ipi,
    on_page_fault = sym page_fault::on_page_fault,
    page_fault = const tables::vector::PAGE_FAULT,
    ipi = const tables::vector::IPI as u32,
    nmi = const tables::vector::NMI,
    double_fault = const tables::vector::DOUBLE_FAULT,
    machine_check = const tables::vector::MACHINE_CHECK,
    gs_base = const GS_BASE,
    ring_3 = const RING_3,
    trap_cs = const offset_of!(trap::TrapFrame, cs) - offset_of!(trap::TrapFrame, vector),
    error_cs = const offset_of!(trap::TrapFrame, cs) - offset_of!(trap::TrapFrame, error),
    bare_cs = const offset_of!(trap::TrapFrame, cs) - offset_of!(trap::TrapFrame, rip),
    smap = sym usercopy::SMAP,
    word = const size_of::<u64>(),
);

unsafe extern "C" {
    fn entry_switch(root: u64, stack_top: u64, continue_at: extern "C" fn(u64) -> !, argument: u64) -> !;
    fn entry_core(info: &limine::mp::Cpu) -> !;
    static trap_stubs: [[u8; STUB_BYTES]; 256];
    fn irq_ipi();
    fn irq_page_fault();
}

/// IA32_GS_BASE.
pub(super) const GS_BASE: u32 = 0xc000_0101;
/// The privilege level in a selector of ring 3.
pub(super) const RING_3: u8 = 3;

/// Distance between two stubs, as `.balign 16` in `entry.S` sets it.
const STUB_BYTES: usize = 16;

/// Physical address of the kernel's page-table root, read by `entry_core` before it can reach anything else.
static KERNEL_ROOT: AtomicU64 = AtomicU64::new(0);

/// Where the loader is told to send an application processor; the top word of its stack must hold its core number.
pub(crate) const CORE_ENTRY: unsafe extern "C" fn(&limine::mp::Cpu) -> ! = entry_core;

/// Publishes the root that application processors load first.
pub(crate) fn publish_root(root: PhysAddr) {
    // ORDER: Release; an application processor reads it after the loader's release of it, which is ordered after this store.
    KERNEL_ROOT.store(root.as_u64(), Ordering::Release);
}

/// The root of the kernel's own tables.
#[inline(always)]
pub(crate) fn kernel_root() -> u64 {
    // ORDER: Relaxed; constant since before another core ran (`publish_root`).
    KERNEL_ROOT.load(Ordering::Relaxed)
}

/// Leaves the loader's page tables and stack and continues in `continue_at(argument)`.
///
/// # Safety
/// 1. `root` maps the kernel image at its link addresses and everything that `continue_at` uses.
/// 2. `stack_top` is the 16-byte aligned top of a stack that `root` maps and nothing else uses.
pub(crate) unsafe fn switch(
    root: PhysAddr,
    stack_top: VirtAddr,
    continue_at: extern "C" fn(u64) -> !,
    argument: u64,
) -> ! {
    // SAFETY: the caller's two obligations are those of the routine.
    unsafe { entry_switch(root.as_u64(), stack_top.as_u64(), continue_at, argument) }
}

/// Address of the stub of a vector.
pub(super) fn trap_stub(vector: u8) -> u64 {
    (&raw const trap_stubs) as u64 + u64::from(vector) * STUB_BYTES as u64
}

/// Address of the entry of the inter-processor interrupt.
pub(super) fn ipi_stub() -> u64 {
    irq_ipi as *const () as u64
}

/// Address of the entry of the page fault.
pub(super) fn page_fault_stub() -> u64 {
    irq_page_fault as *const () as u64
}
