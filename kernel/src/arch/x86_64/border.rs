//! Page tables of their own for programs (KPTI), and VERW on the way out; the Rust side of `border.S`.
//!
//! Where the CPU needs it, ring 3 runs under a second root of its space (A7), whose upper half shows what entering the kernel takes and
//! nothing else. Global pages are off then. Gruss et al., "KASLR is Dead: Long Live KASLR" (ESSoS 2017), §4. Where it does not, nothing of
//! this is run: SYSCALL and the IDT lead to other entries, and the exits are turned to these by rewriting two instructions at boot.
//!
//! * **R3** A program runs under the second root of the space that is loaded; everything in ring 0 outside `border.S` under another.
//! * **R4** With PCIDs, both roots' translations have identifiers of their own. What is dropped under the first's is dropped under the
//!   second's before ring 3 next uses it: [`Words`] remembers that it has to be, and the exit loads CR3 accordingly.
//!
//! What a program left on the core's border page (where it was interrupted, rdi, rax) stays there until the next one does the same.

use core::arch::global_asm;
use core::cell::Cell;
use core::mem::offset_of;

use mm::space::Upper;
use mm::tlb::{Cached, SLOTS, Tag};
use mm::{FrameId, PhysRange};
use percpu::IrqOff;
use percpu::sync::atomic::{AtomicU64, Ordering};
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::{PhysAddr, VirtAddr};

use super::entry::{self, GS_BASE, RING_3};
use super::paging::{KernelTables, Kind};
use super::speculation::{self, State};
use super::tables::{self, vector};
use super::trap::{self, TrapFrame};
use super::user::{Frame, HEAD, Head};
use super::walk;
use crate::layout::DIRECT;
use crate::thread::Thread;
use crate::{cores, early, machine, stacks};

/// The words of a core that `border.S` and this file use.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Words {
    /// What the next entry loads into CR3.
    kernel_cr3: Cell<u64>,
    /// What the next exit loads into CR3: with [`KEEP`] unless something has to be dropped.
    user_cr3: Cell<u64>,
    /// [`KEEP`] where there are PCIDs.
    keep: Cell<u64>,
    /// The kernel's own root.
    root: Cell<u64>,
    /// The end of the stack that interrupts of ring 3 find.
    stack: Cell<u64>,
    /// Tags of spaces that are not loaded, under whose second identifier something has to be dropped: bits by their number.
    stale: Cell<u64>,
    /// What is written where a task-state segment's rsp0 would be.
    nowhere: Cell<u64>,
}

impl Words {
    pub(super) const fn new() -> Self {
        Self {
            kernel_cr3: Cell::new(0),
            user_cr3: Cell::new(0),
            keep: Cell::new(0),
            root: Cell::new(0),
            stack: Cell::new(0),
            stale: Cell::new(0),
            nowhere: Cell::new(0),
        }
    }
}

/// Bits of CR3 (SDM volume 3, §5.10.4.1): the identifier, one of its bits for a space's second root, and "keep what is cached under it".
const TAG: u64 = 0xfff;
const SECOND: u64 = 1 << 3;
const KEEP: u64 = 1 << 63;

const _: () = assert!((SLOTS as u64) < SECOND, "R4: a slot's tag leaves the bit of the second root free");

global_asm!(
    include_str!("registers.S"),
    include_str!("border.S"),
    head = sym HEAD,
    current = const Head::CURRENT,
    user_sp = const Head::USER_SP,
    kernel_cr3 = const Head::BORDER + offset_of!(Words, kernel_cr3),
    user_cr3 = const Head::BORDER + offset_of!(Words, user_cr3),
    keep = const Head::BORDER + offset_of!(Words, keep),
    root = const Head::BORDER + offset_of!(Words, root),
    stack = const Head::BORDER + offset_of!(Words, stack),
    frame_end = const Thread::FRAME + size_of::<Frame>(),
    trap_dispatch = sym trap::trap_dispatch,
    gs_base = const GS_BASE,
    ring_3 = const RING_3,
    error_cs = const offset_of!(TrapFrame, cs) - offset_of!(TrapFrame, error),
    bare_cs = const offset_of!(TrapFrame, cs) - offset_of!(TrapFrame, rip),
    nmi = const vector::NMI,
    double_fault = const vector::DOUBLE_FAULT,
    machine_check = const vector::MACHINE_CHECK,
    page_fault = const vector::PAGE_FAULT,
    ipi = const vector::IPI as u32,
    kernel_data = const tables::KERNEL_DATA,
    word = const size_of::<u64>(),
);

unsafe extern "C" {
    fn border_syscall();
    fn border_call_isolated();
    fn border_interrupt_isolated();
    fn border_call_isolated_verw();
    fn border_interrupt_isolated_verw();
    fn border_call_verw();
    fn border_interrupt_verw();
    static border_stubs: [[u8; STUB_BYTES]; 256];
    static __border_start: u8;
    static __border_end: u8;
    static __exits_start: Exit;
    static __exits_end: Exit;
}

/// Distance between two stubs, as `.balign 32` in `border.S` sets it.
const STUB_BYTES: usize = 32;

/// An entry of `.exits`, as `leave_kernel` in `user.S` makes it.
#[repr(C)]
struct Exit {
    at: u64,
    /// [`CALL`] or [`INTERRUPT`].
    kind: u64,
}

const CALL: usize = 0;
const INTERRUPT: usize = 1;

/// The root with what programs' tables show of the kernel, and nothing else; 0 where there is none.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// Whether programs run under tables of their own.
#[inline(always)]
pub(crate) fn isolated() -> bool {
    // ORDER: Relaxed; constant since before another core ran (`prepare`).
    ROOT.load(Ordering::Relaxed) != 0
}

/// What the roots of spaces are made from.
pub(crate) fn upper() -> Upper {
    let kernel = FrameId::containing(entry::kernel_root());
    // ORDER: Relaxed; as in `isolated`.
    match ROOT.load(Ordering::Relaxed) {
        0 => Upper::Kernel(kernel),
        border => Upper::Isolated { kernel, border: FrameId::containing(border) },
    }
}

/// Makes what [`speculation::choose`] has settled so, on the boot core, before another core runs and after every core has got its memory.
/// `None` if there is not enough for the tables.
pub(crate) fn prepare() -> Option<()> {
    let mitigations = speculation::in_force();
    let (isolate, verw) = (mitigations.kpti == State::On, mitigations.verw == State::On);
    if isolate {
        // ORDER: Relaxed; the other cores are released later.
        ROOT.store(build()?.as_u64(), Ordering::Relaxed);
    }
    let exits: Option<[unsafe extern "C" fn(); 2]> = match (isolate, verw) {
        (false, false) => None,
        (false, true) => Some([border_call_verw, border_interrupt_verw]),
        (true, false) => Some([border_call_isolated, border_interrupt_isolated]),
        (true, true) => Some([border_call_isolated_verw, border_interrupt_isolated_verw]),
    };
    if let Some(exits) = exits {
        turn(exits.map(|exit| exit as *const () as u64));
    }
    Some(())
}

/// What programs' tables show of the kernel: first address, bytes, protection.
pub(crate) fn shown() -> impl Iterator<Item = (VirtAddr, u64, Kind)> {
    let (start, end) =
        (VirtAddr::from_ptr(&raw const __border_start), VirtAddr::from_ptr(&raw const __border_end));
    let image = [(start, end - start, Kind::Code), (tables::border_idt(), early::PAGE, Kind::ReadOnly)];
    let of_core = |core| {
        let pages = cores::border_pages(core).map(|page| (page, early::PAGE, Kind::Data));
        let stack = move |stack| (stacks::base(core, stack), stacks::bytes(stack), Kind::Data);
        pages.into_iter().chain((1..stacks::STACKS_PER_CORE).map(stack))
    };
    image.into_iter().chain(machine::topology().cores().flat_map(of_core))
}

/// The tables behind [`ROOT`]: pages of the kernel's own tables, where those have them.
fn build() -> Option<PhysAddr> {
    let mut page = early::page;
    let mut tables = KernelTables::new(VirtAddr::new(DIRECT.base), &mut page)?;
    for (start, bytes, kind) in shown() {
        for at in (0..bytes).step_by(early::PAGE as usize).map(|offset| start + offset) {
            let mapping = walk::lookup(at).expect("G7: the kernel maps what it enters by");
            let physical = (mapping.physical + (at - mapping.start)).as_u64();
            tables.map(at, PhysRange::inside(physical, physical + early::PAGE), kind, &mut page)?;
        }
    }
    Some(tables.root())
}

/// Turns every exit to the way out of its kind: the one place where code is written.
fn turn(ways: [u64; 2]) {
    let (first, end) = (&raw const __exits_start, &raw const __exits_end);
    let count = (end.addr() - first.addr()) / size_of::<Exit>();
    // SAFETY: the section between the two symbols, which consists of such entries.
    let exits = unsafe { core::slice::from_raw_parts(first, count) };
    let cr0 = Cr0::read();
    // SAFETY: interrupts are off and no other core runs; what is written below is the kernel's code, on purpose.
    unsafe { Cr0::write(cr0 - Cr0Flags::WRITE_PROTECT) };
    for exit in exits {
        let way = ways[if exit.kind == INTERRUPT as u64 { INTERRUPT } else { CALL }];
        // JMP with a distance of 32 bits, counted from the instruction after it (SDM volume 2, JMP).
        let [a, b, c, d] = (way.wrapping_sub(exit.at + JUMP_BYTES as u64) as u32).to_le_bytes();
        let code = (exit.at as *mut u8).cast::<[u8; JUMP_BYTES]>();
        // SAFETY: SWAPGS and what follows it have at least so many bytes, and nothing jumps in between; nobody runs them yet.
        unsafe { code.write_volatile([0xe9, a, b, c, d]) };
    }
    // SAFETY: as it was. The write also makes the CPU forget what it may have fetched (SDM volume 3, §9.3).
    unsafe { Cr0::write(cr0) };
}

const JUMP_BYTES: usize = 5;

/// Address of the stub of a vector.
pub(super) fn stub(vector: u8) -> u64 {
    (&raw const border_stubs) as u64 + u64::from(vector) * STUB_BYTES as u64
}

/// Address of the entry of system calls.
pub(super) fn syscall() -> VirtAddr {
    VirtAddr::new(border_syscall as *const () as u64)
}

/// Sets up the core that calls, where programs have tables of their own; returns where [`Head::set_current`] is to write.
pub(super) fn enter(irq: &IrqOff, task: &tables::Task) -> *mut u64 {
    if !isolated() {
        return task.stack_slot;
    }
    let words = HEAD.owned(irq).border();
    words.root.set(entry::kernel_root());
    words.keep.set(if machine::features().pcid { KEEP } else { 0 });
    words.stack.set(task.stack_end.as_u64());
    // SAFETY: this core's own task-state segment, which lives for ever; the word is 4 bytes off alignment.
    unsafe { task.stack_slot.write_unaligned(task.stack_end.as_u64()) };
    tables::load_border_idt();
    // SAFETY: no page need be global; what is cached of those that were is dropped with the bit (SDM volume 3, §5.10.4.1).
    unsafe { Cr4::update(|cr4| cr4.remove(Cr4Flags::PAGE_GLOBAL)) };
    words.nowhere.as_ptr()
}

/// A space is about to be loaded under a tag, where programs have tables of their own.
pub(super) fn aim(irq: &IrqOff, root: FrameId, tag: Tag, cached: Cached) {
    let words = HEAD.owned(irq).border();
    let keep = words.keep.get();
    let tags = if keep == 0 { 0 } else { TAG };
    let way = Way { user_cr3: words.user_cr3.get(), stale: words.stale.get() };
    let second = FrameId::new(root.number() + 1);
    let way = way.aimed(second, u64::from(tag.raw()) | SECOND, cached);
    words.stale.set(way.stale);
    words.user_cr3.set(way.user_cr3 & !(TAG | KEEP) | way.user_cr3 & (tags | keep));
    words.kernel_cr3.set(root.address() | u64::from(tag.raw()) & tags | keep);
}

/// What was dropped of the loaded space's translations is to be dropped under its second root as well.
#[inline(always)]
pub(super) fn drop_second(irq: &IrqOff) {
    let words = HEAD.owned(irq).border();
    words.user_cr3.set(Way { user_cr3: words.user_cr3.get(), stale: 0 }.dropped().user_cr3);
}

/// What has to be dropped under the second identifiers (R4). A value, so that it can be tested by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) user_cr3: u64,
    pub(crate) stale: u64,
}

impl Way {
    /// After the root `second` has been aimed at, under the identifier `tag`. The one that is left may have been told to drop something
    /// that it has not dropped, for ring 3 has not run since.
    pub(crate) fn aimed(self, second: FrameId, tag: u64, cached: Cached) -> Self {
        let left = if self.user_cr3 & KEEP == 0 { 1 << (self.user_cr3 & TAG) } else { 0 };
        let fresh = if cached == Cached::Stale { 1 << tag } else { 0 };
        let stale = self.stale | left | fresh;
        let keep = if stale & 1 << tag == 0 { KEEP } else { 0 };
        Self { user_cr3: second.address() | tag | keep, stale: stale & !(1 << tag) }
    }

    /// After something has been dropped under the loaded space's first identifier.
    #[inline(always)]
    pub(crate) fn dropped(self) -> Self {
        Self { user_cr3: self.user_cr3 & !KEEP, ..self }
    }
}
