//! Address translation of this machine for `mm::tlb`: INVLPG, CR3 with or without process-context identifiers, and what each core keeps.
//!
//! INVPCID is not used: what it can do beyond a load of CR3 concerns spaces that are not loaded, and those catch up by their generations.

use core::arch::asm;
use core::cell::Cell;

use mm::tlb::{Active, Batch, Cached, Core, CoreTlb, Counters, Counts, Machine, Mmu, Request, SpaceTlb, Tag};
use mm::{FrameId, PageId};
use percpu::call::broadcast;
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{CallSlot, CoreId, IrqOff, core_local};
use x86_64::VirtAddr;
use x86_64::registers::control::{Cr4, Cr4Flags};

use super::ipi::Interrupts;
use super::{border, entry, speculation};
use crate::{machine, memory};

core_local! {
    /// This core's spaces.
    pub(super) static TLB: CoreTlb = CoreTlb::new();
    /// Which one of them it uses.
    pub(super) static ACTIVE: Active = Active::new();
    /// What it has done.
    static COUNTERS: Counters = Counters::new();
    /// Its requests to the others, on its own node.
    static REQUESTS: Cell<&'static [Request]> = Cell::new(&[]);
}

/// CR3 where CR4.PCIDE is set (SDM volume 3, §5.10.4.1): the identifier, and "keep what is cached under it".
const CR3_TAG: u64 = 0xfff;
const CR3_KEEP: u64 = 1 << 63;

/// In [`LOAD_BITS`]: a space has a second root. No bit of CR3.
const ISOLATED: u64 = 1 << 62;

/// The bits of CR3 about tags that may be used, all or none, and [`ISOLATED`]: 0 where a load is nothing but a load. Written by the boot core
/// before another core runs.
static LOAD_BITS: AtomicU64 = AtomicU64::new(0);

/// The MMU of the core that uses it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hardware;

/// # Safety
/// 1. `value` names the root of tables that map the kernel as its own do, and stay so while loaded; its other bits are allowed by CR4.
#[inline(always)]
unsafe fn load_cr3(value: u64) {
    // SAFETY: obligation 1: this code and its stack stay mapped. Memory may be accessed through the new tables, so it is no `nomem`.
    unsafe { asm!("mov cr3, {}", in(reg) value, options(nostack, preserves_flags)) };
}

/// What was dropped is to be dropped under the loaded space's second root as well.
#[inline(always)]
fn drop_second() {
    if border::isolated() {
        // SAFETY: whoever changes translations has interrupts off.
        border::drop_second(&unsafe { IrqOff::assume() });
    }
}

/// A load with what there is beyond the root: bits of CR3 where there are tags, and the second root.
///
/// # Safety
/// Those of [`Mmu::load`].
#[inline(never)]
unsafe fn load_specially(root: FrameId, tag: Tag, cached: Cached) {
    // ORDER: Relaxed; constant (`LOAD_BITS`).
    let bits = LOAD_BITS.load(Ordering::Relaxed);
    if bits & ISOLATED != 0 {
        // SAFETY: whoever changes translations has interrupts off.
        border::aim(&unsafe { IrqOff::assume() }, root, tag, cached);
    }
    let keep = if cached == Cached::Valid { CR3_KEEP } else { 0 };
    let bits = (u64::from(tag.raw()) | keep) & bits & !ISOLATED;
    // SAFETY: the caller's obligation; bits about tags only where CR4 allows them (`enter`).
    unsafe { load_cr3(root.address() | bits) };
}

impl Mmu for Hardware {
    #[inline(always)]
    fn invalidate(&self, page: PageId) {
        // It drops the paging-structure caches of the current identifier as well (SDM volume 3, §5.10.4.1).
        x86_64::instructions::tlb::flush(VirtAddr::new_truncate(page.address() as u64));
        drop_second();
    }

    #[inline]
    fn flush(&self) {
        let loaded: u64;
        // SAFETY: reading it is always allowed in the kernel.
        unsafe { asm!("mov {}, cr3", out(reg) loaded, options(nomem, nostack, preserves_flags)) };
        // SAFETY: what is loaded already. The bit to keep what is cached reads as 0; global pages, the kernel's, stay.
        unsafe { load_cr3(loaded) };
        drop_second();
    }

    #[inline(always)]
    unsafe fn load(&self, root: FrameId, tag: Tag, cached: Cached) {
        // ORDER: Relaxed; constant since before another core ran (`LOAD_BITS`).
        if LOAD_BITS.load(Ordering::Relaxed) == 0 {
            // SAFETY: the caller's obligation; no bits beside the root.
            unsafe { load_cr3(root.address()) };
        } else {
            // SAFETY: the caller's obligation.
            unsafe { load_specially(root, tag, cached) };
        }
    }

    fn plain_load(&self, root: FrameId, tag: Tag) -> u64 {
        // ORDER: Relaxed; constant (`LOAD_BITS`).
        let bits = LOAD_BITS.load(Ordering::Relaxed);
        if bits & ISOLATED != 0 || speculation::is_between() {
            return 0;
        }
        root.address() | (u64::from(tag.raw()) | CR3_KEEP) & bits
    }

    #[inline(always)]
    unsafe fn load_plainly(&self, word: u64) {
        // SAFETY: the caller's obligation; the other bits are those that `plain_load` allows.
        unsafe { load_cr3(word) };
    }

    #[inline]
    fn load_kernel(&self) {
        // Identifier 0. It maps nothing in the user half, so there is nothing to keep or to drop.
        // SAFETY: the kernel's own tables.
        unsafe { load_cr3(entry::kernel_root()) };
    }
}

impl Machine for Interrupts {
    type Mmu = Hardware;

    #[inline(always)]
    fn core_count(&self) -> usize {
        machine::topology().core_count()
    }

    #[inline(always)]
    fn own<'a>(&'a self, own: CoreId, irq: &'a IrqOff) -> Core<'a, Hardware> {
        Core {
            id: own,
            tlb: TLB.owned(irq),
            active: ACTIVE.local(irq),
            counters: COUNTERS.local(irq),
            mmu: &Hardware,
        }
    }

    #[inline(always)]
    fn active(&self, core: CoreId) -> &Active {
        ACTIVE.of(core).expect("X10: a core in a space's set has its core-local data")
    }

    #[inline(always)]
    fn requests<'a>(&'a self, _: CoreId, irq: &IrqOff) -> &'a [Request] {
        REQUESTS.owned(irq).get()
    }
}

/// Switches on process-context identifiers on the core that calls, which uses the kernel's own tables, if CPUID reports them: an emulated
/// CPU takes the bit in CR4 without having any, and then `CR3_KEEP` would be a reserved bit.
pub(crate) fn enter() {
    let isolated = if border::isolated() { ISOLATED } else { 0 };
    // ORDER: Relaxed; every core stores the same, the boot core first and before it releases the others.
    LOAD_BITS.store(isolated, Ordering::Relaxed);
    if !machine::features().pcid {
        return;
    }
    // SAFETY: CPUID reports it, the CPU is in 64-bit mode, and bits 11:0 of CR3 are 0, as `entry_switch` and `entry_core` load it.
    unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::PCID)) };
    // ORDER: Relaxed; every core stores the same, the boot core first and before it releases the others.
    LOAD_BITS.store(isolated | CR3_TAG | CR3_KEEP, Ordering::Relaxed);
}

/// Gives the core that calls its requests, on its own node; `false` if there is no memory.
pub(crate) fn equip(irq: &IrqOff) -> bool {
    let core = |index| CoreId::from_index(index).expect("the machine's cores have ids");
    let requests = memory::array_of(machine::topology().core_count(), |index| Request::new(core(index)));
    requests.map(|requests| REQUESTS.owned(irq).set(requests)).is_some()
}

#[inline(always)]
fn own(irq: &IrqOff) -> Core<'_, Hardware> {
    Interrupts.own(irq.core(), irq)
}

/// Makes a space the active one of the core that calls.
///
/// # Safety
/// 1. The space stays where it is until [`forget`] has returned.
/// 2. Its root maps the kernel as the kernel's own tables do, for as long.
#[inline(always)]
pub(crate) unsafe fn activate(irq: &IrqOff, space: &SpaceTlb) {
    // SAFETY: the caller's obligations; interrupts are off, so the core stays this one and is not entered twice.
    let went = unsafe { TLB.owned(irq).go_back(ACTIVE.local(irq), &Hardware, space) };
    if !went && !TLB.owned(irq).come_back(ACTIVE.local(irq), space) {
        // SAFETY: as above.
        unsafe { activate_slowly(irq, space) };
    }
}

/// # Safety
/// Those of [`activate`].
#[inline(never)]
unsafe fn activate_slowly(irq: &IrqOff, space: &SpaceTlb) {
    // SAFETY: the caller's obligations, as in `activate`.
    unsafe { own(irq).activate(space) };
}

/// The core that calls goes back to the kernel's own tables.
pub(crate) fn deactivate(irq: &IrqOff) {
    own(irq).deactivate();
}

/// The core that calls goes idle; see `mm::tlb::Core::rest`. [`activate`] of the same space, or [`resume`], ends it.
#[inline]
pub(crate) fn rest(irq: &IrqOff) {
    own(irq).rest();
}

/// The core that calls goes on with the space that it has loaded.
#[inline]
pub(crate) fn resume(irq: &IrqOff) {
    own(irq).resume();
}

/// Whether the space's tables are loaded on the core that calls.
pub(crate) fn is_current(irq: &IrqOff, space: &SpaceTlb) -> bool {
    own(irq).is_current(space.id())
}

/// Cores that forget at the same time.
const AT_ONCE: usize = 8;

/// Makes every core forget a space that none activates any more. Afterwards it, its tables and its frames can go.
pub(crate) fn forget(irq: &mut IrqOff, space: &SpaceTlb) {
    let cores = space.cores().snapshot();
    let mut slots = [const { CallSlot::new() }; AT_ONCE];
    broadcast(irq, &Interrupts, &cores, &mut slots, |held| own(held).forget(space));
    let left = space.cores().members(machine::topology().core_count()).next();
    assert!(left.is_none(), "X5: a space that is activated while it is forgotten");
}

/// Takes back what the batch names, on every core; see `mm::tlb::shootdown`.
#[inline]
pub(crate) fn shootdown(irq: &mut IrqOff, space: &SpaceTlb, batch: &Batch) {
    mm::tlb::shootdown(irq, &Interrupts, space, batch);
}

/// What a core has done for shootdowns; nothing for a core without core-local data.
pub(crate) fn counts(core: CoreId) -> Counts {
    COUNTERS.of(core).map(Counters::read).unwrap_or_default()
}
