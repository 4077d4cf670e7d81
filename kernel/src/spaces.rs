//! Address spaces in the kernel: `mm::space` over the frame allocator, the direct map and the cores' translation caches.
//!
//! The upper half of every root is a copy of the kernel's, whose entries are all made during bring-up (`KernelTables::reserve`) and never
//! change.

use alloc::boxed::Box;
use core::cell::Cell;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use core::ptr::{self, NonNull};

use mm::bank::Payer;
use mm::frames::{Policy, Request};
use mm::space::{Access, Cx, Fault, Format, FrameInfo, Frames, Memory, Pending, Pool, Progress, Shortage};
use mm::tlb::SpaceIds;
use mm::virt::{PageId, PageRange};
use mm::{FrameId, Order};
use percpu::epoch::Retired;
use percpu::{CoreId, Held, IrqOff, core_local, epoch};
use x86_64::VirtAddr;

use crate::arch::{border, speculation, string, tlb};
use crate::fault::{self, Resolution};
use crate::layout::{DIRECT, INFO};
use crate::{bank, cores, dispatch, jobs, machine, memory};

/// The address spaces of this kernel.
pub(crate) type Space = mm::space::Space<Physical>;

/// Memory objects of this kernel.
pub(crate) type Object = mm::space::Object<Physical>;

/// Names every space of the machine.
pub(crate) static IDS: SpaceIds = SpaceIds::new();

core_local! {
    /// The space that this core's user half shows, unless [`ENTERED`] is another.
    static CURRENT: Cell<*const Space> = const { Cell::new(ptr::null()) };
    /// The space of the process whose thread runs here, or did last; null once the core has gone idle.
    pub(crate) static ENTERED: Cell<*const Space> = const { Cell::new(ptr::null()) };
}

/// All memory, through the direct map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Physical;

// SAFETY: the direct map shows every frame of the allocator for ever, in order, and `INFO` has a word for each.
unsafe impl Memory for Physical {
    #[inline(always)]
    fn at(self, frame: FrameId) -> NonNull<u8> {
        let at = (DIRECT.base + frame.address()) as *mut u8;
        // SAFETY: an address of the upper half is not null.
        unsafe { NonNull::new_unchecked(at) }
    }

    #[inline(always)]
    fn info(self, frame: FrameId) -> &'static FrameInfo {
        let at = (INFO.base as *const FrameInfo).wrapping_add(frame.number());
        // SAFETY: mapped, zeroed and kept for every frame of the allocator (`memory::init`); the type is one atomic word.
        unsafe { &*at }
    }

    #[inline(always)]
    fn zero(self, frame: FrameId, order: Order) {
        let words = order.frames() * mm::id::FRAME_BYTES / size_of::<u64>();
        // SAFETY: the block is the caller's alone, and the direct map shows it.
        unsafe { string::fill(self.at(frame).cast(), 0, words) };
    }

    #[inline(always)]
    fn fill(self, frame: FrameId, word: u64) {
        // SAFETY: the frame is the caller's alone, and the direct map shows it.
        unsafe { string::fill(self.at(frame).cast(), word, mm::id::FRAME_BYTES / size_of::<u64>()) };
    }

    #[inline(always)]
    fn root(self, from: FrameId, to: FrameId) {
        const HALF: usize = mm::id::FRAME_BYTES / size_of::<u64>() / 2;
        let (from, to) = (self.at(from).cast::<u64>(), self.at(to).cast::<u64>());
        // SAFETY: the frame is the caller's alone, and the direct map shows it.
        unsafe { string::fill(to, 0, HALF) };
        // SAFETY: inside a frame that the direct map shows.
        let from = unsafe { from.add(HALF) };
        // SAFETY: as above.
        let to = unsafe { to.add(HALF) };
        // SAFETY: two different frames; `to` is the caller's alone, and `from`'s upper half does not change.
        unsafe { string::copy(from, to, HALF) };
    }

    #[inline(always)]
    fn copy(self, from: FrameId, to: FrameId) {
        let words = mm::id::FRAME_BYTES / size_of::<u64>();
        // SAFETY: two different frames, which the direct map shows; `to` is the caller's alone.
        unsafe { string::copy(self.at(from).cast(), self.at(to).cast(), words) };
    }
}

/// The frame allocator, on the core that has the witness.
#[derive(Debug)]
pub(crate) struct Tap<'a> {
    irq: &'a IrqOff,
}

impl<'a> Tap<'a> {
    /// Frames for this core.
    #[inline(always)]
    pub(crate) fn new(irq: &'a IrqOff) -> Self {
        Self { irq }
    }

    #[inline(always)]
    fn get(&self, order: Order, policy: Policy) -> Option<FrameId> {
        memory::with(self.irq, |frames, cache| frames.get_from(cache, order, Request::policy(policy))).ok()
    }

    /// Tries again as long as this core has something to give back that nobody refers to any more: while somebody more urgent runs here, nobody
    /// does that before (`jobs`).
    #[cold]
    fn reclaim<R>(&self, again: impl Fn(&Self) -> Option<R>) -> Option<R> {
        while jobs::end_some(self.irq) {
            if let got @ Some(_) = again(self) {
                return got;
            }
        }
        None
    }
}

/// # Safety
/// 1. `table` is the first word of a page table that nobody can be looking at any more.
unsafe fn give_table(table: NonNull<Retired>, held: &mut Held<'_, 0>) {
    let address = table.addr().get() as u64 - DIRECT.base;
    Tap::new(held).give(FrameId::containing(address), Order::FRAME);
}

impl Pool for Tap<'_> {
    #[inline(always)]
    fn take(&mut self, order: Order, policy: Policy) -> Result<FrameId, Shortage> {
        match self.get(order, policy) {
            Some(frame) => Ok(frame),
            None => self.reclaim(|tap| tap.get(order, policy)).ok_or(Shortage::Memory),
        }
    }

    #[inline(always)]
    fn give(&mut self, frame: FrameId, order: Order) {
        let put = memory::with(self.irq, |frames, cache| frames.put(cache, frame, order));
        put.expect("A3: a frame goes back as it was taken, once");
    }

    fn retire(&mut self, frame: FrameId) {
        let link = Physical.at(frame).cast::<Retired>();
        // SAFETY: the frame is a table that has been taken out and invalidated, so it is ours to write to.
        unsafe { link.write(Retired::new()) };
        // SAFETY: unlinked by whoever calls this (A2), valid until it is given back, retired once; cores that work are awake.
        unsafe { epoch::retire(self.irq, link, give_table) };
    }

    fn split(&mut self, block: FrameId) {
        let split = memory::with(self.irq, |frames, cache| frames.split(cache, block));
        split.expect("A3: a space's own block can be split");
    }

    fn split_keeping(&mut self, block: FrameId, keep: &[u64; Order::HUGE.frames() / 64]) {
        let split = memory::with(self.irq, |frames, cache| frames.split_keeping(cache, block, keep));
        split.expect("A3: a space's own block can be split");
    }

    fn merge(&mut self, block: FrameId) -> bool {
        memory::with(self.irq, |frames, cache| frames.merge(cache, block)).is_ok()
    }

    fn draw(&mut self, payer: Payer, least: usize, most: usize) -> Option<usize> {
        // SAFETY: the process that has a space keeps its bank (V4), an object its own.
        let draw = || unsafe { bank::draw_frames(payer, least, most) };
        draw()
            .or_else(|| {
                // The current process may have the last ones in its purse.
                let thread =
                    dispatch::running(self.irq).filter(|thread| thread.space().purse().payer() == payer)?;
                thread.space().purse().try_trim(&mut Frames(&mut Tap::new(self.irq)));
                draw()
            })
            .or_else(|| self.reclaim(|_| draw()))
    }

    fn pay_back(&mut self, payer: Payer, amount: usize) {
        // SAFETY: as above.
        unsafe { bank::pay_frames_back(payer, amount) };
    }

    fn spare(&self, payer: Payer) -> usize {
        // SAFETY: as above; a bank that has just been exchanged is there until this core leaves the kernel (N1).
        unsafe { bank::spare_frames(payer) }
    }

    fn keep(&mut self, payer: Payer) -> Option<Payer> {
        // SAFETY: a space's, or what was one a moment ago (N1).
        unsafe { bank::keep_another(payer) }
    }

    fn forget(&mut self, payer: Payer) {
        // SAFETY: said once of an object, which has kept it.
        unsafe { bank::forget(payer) };
    }

    fn orphan(&mut self, frame: FrameId) -> bool {
        // SAFETY: `mm` offers an object to which no reference is left.
        unsafe { jobs::end_object(self.irq, frame) };
        true
    }
}

/// Runs one step of an operation on a space, and settles it: every core that has to know does when this returns.
#[inline(always)]
pub(crate) fn with<R>(irq: &mut IrqOff, space: &Space, f: impl FnOnce(&mut Cx<'_, Tap<'_>>) -> R) -> R {
    let mut pending = Pending::new();
    let result = f(&mut Cx::new(irq, &mut Tap::new(irq), &mut pending));
    if !pending.is_empty() {
        settle(irq, space, &mut pending);
    }
    result
}

/// Tells the cores, then gives back. Inlined: the caller has saved its registers already.
#[inline(always)]
pub(crate) fn settle(irq: &mut IrqOff, space: &Space, pending: &mut Pending) {
    if !pending.batch().is_empty() {
        tlb::shootdown(irq, space.tlb(), pending.batch());
    }
    space.settle(&mut Tap::new(irq), pending);
}

/// Runs a restartable operation on a range to its end.
///
/// # Errors
/// Those of the operation; what earlier steps have done stays.
pub(crate) fn all<E>(
    irq: &mut IrqOff,
    space: &Space,
    range: PageRange,
    step: impl Fn(&mut Cx<'_, Tap<'_>>, PageRange) -> Result<Progress<PageId>, E>,
) -> Result<(), E> {
    let mut rest = range;
    loop {
        let Progress::More(at) = with(irq, space, |cx| step(cx, rest))? else { return Ok(()) };
        let left = range.end().number() - at.number();
        rest = PageRange::new(at, left).expect("a step that is not done has something left");
    }
}

/// An empty space, to be put where it stays; the payer's bank is kept as long as it is there.
pub(crate) fn create(irq: &IrqOff, payer: Payer) -> Option<Space> {
    let features = machine::features();
    let format = Format::new(features.nx, features.huge_1g);
    Space::paid_by(payer, Physical, &mut Tap::new(irq), IDS.take(), (format, border::upper())).ok()
}

/// The space that this core's user half shows.
#[inline(always)]
fn current(irq: &IrqOff) -> *const Space {
    let entered = ENTERED.owned(irq).get();
    if entered.is_null() { CURRENT.owned(irq).get() } else { entered }
}

/// Makes a process's space the one that this core's user half shows. It stays where it is until [`forget`].
#[inline(always)]
pub(crate) fn enter(irq: &IrqOff, space: &Space) {
    let entered = ENTERED.owned(irq);
    if !ptr::eq(entered.get(), space) {
        // Not for a thread of the process that ran before the core went idle.
        if speculation::is_between() && !ptr::eq(current(irq), space) {
            speculation::process_switch();
        }
        // SAFETY: the process keeps its space until `forget` has returned (V3); its root's upper half is the kernel's.
        unsafe { tlb::activate(irq, space.tlb()) };
        entered.set(ptr::from_ref(space));
    }
}

/// Runs `f`, which may touch user memory, in a space that the caller keeps, and goes back to the one before.
pub(crate) fn borrow<R>(irq: &mut IrqOff, space: &Space, f: impl FnOnce(&mut IrqOff) -> R) -> R {
    enter(irq, space);
    let result = f(irq);
    match dispatch::running(irq) {
        Some(thread) => enter(irq, thread.space()),
        None => deactivate(irq),
    }
    result
}

/// This core goes idle: changes of the space that it has loaded need not disturb it.
pub(crate) fn rest(irq: &IrqOff) {
    let entered = ENTERED.owned(irq).replace(ptr::null());
    if !entered.is_null() {
        CURRENT.owned(irq).set(entered);
    }
    tlb::rest(irq);
}

/// Makes every core forget a space that no thread runs in any more.
pub(crate) fn forget(irq: &mut IrqOff, space: &Space) {
    let own = ptr::from_ref(space).addr();
    let drop_current = |held: &mut Held<'_, 0>| {
        if current(held).addr() == own {
            deactivate(held);
        }
    };
    // The set is asked rather than all cores: who never ran it need not be disturbed.
    let users = space.tlb().cores().snapshot();
    users.iter().for_each(|core: CoreId| cores::call_from(irq, core, drop_current));
    tlb::forget(irq, space.tlb());
}

/// Ends a space in which nothing is mapped and that every core has forgotten.
pub(crate) fn close(irq: &IrqOff, space: Space) {
    let closed = space.close(&mut Tap::new(irq)).is_ok();
    assert!(closed, "A6: a dismantled space is empty");
}

/// The bytes of a frame, as the kernel sees them.
pub(crate) fn bytes_of(frame: FrameId) -> *mut u8 {
    Physical.at(frame).as_ptr()
}

/// A space with its place in memory, which no core refers to any more when it ends. Dropping it keeps the space for ever.
#[derive(Debug)]
pub(crate) struct Owned(ManuallyDrop<Box<Space>>);

impl Owned {
    /// An empty space.
    pub(crate) fn new() -> Option<Self> {
        let space = IrqOff::with(|irq| create(irq, Payer::NOBODY));
        Some(Self(ManuallyDrop::new(Box::new(space?))))
    }

    /// Makes it the space that this core's user half shows.
    #[inline]
    pub(crate) fn activate(&self, irq: &IrqOff) {
        let space: &Space = self;
        // SAFETY: the box stays where it is until `destroy`, which makes every core forget it, or for ever; its root's upper half is the
        // kernel's.
        unsafe { tlb::activate(irq, space.tlb()) };
        CURRENT.owned(irq).set(ptr::from_ref(space));
        ENTERED.owned(irq).set(ptr::null());
    }

    /// Ends the space: on every core, then step by step.
    pub(crate) fn destroy(mut self) {
        IrqOff::with(|irq| {
            forget(irq, &self);
            // SAFETY: the box is ours, nobody borrows it any more, and every core has forgotten the space.
            while let Progress::More(()) = unsafe { self.dismantle(&mut Tap::new(irq)) } {}
        });
        // SAFETY: nothing refers to the space any more, and `self` is not used again.
        let space = unsafe { ManuallyDrop::take(&mut self.0) };
        IrqOff::with(|irq| close(irq, *space));
    }
}

impl Deref for Owned {
    type Target = Space;

    #[inline(always)]
    fn deref(&self) -> &Space {
        &self.0
    }
}

/// This core's user half shows nothing from now on.
pub(crate) fn deactivate(irq: &IrqOff) {
    CURRENT.owned(irq).set(ptr::null());
    ENTERED.owned(irq).set(ptr::null());
    tlb::deactivate(irq);
}

/// Answers a fault on the user half with the space that this core has active.
///
/// Whoever accesses the user half keeps that space: it runs a thread of it, or has it borrowed.
#[inline]
pub(crate) fn fault(irq: &mut IrqOff, address: VirtAddr, access: fault::Access) -> Resolution {
    answer(irq, address, access, |irq, space, page, kind| with(irq, space, |cx| space.fault(cx, page, kind)))
}

/// As [`fault`], with `step` asking the space: tests have frames of their own.
#[inline(always)]
pub(crate) fn answer(
    irq: &mut IrqOff,
    address: VirtAddr,
    access: fault::Access,
    step: impl FnOnce(&mut IrqOff, &Space, PageId, Access) -> Fault,
) -> Resolution {
    let Some(space) = NonNull::new(current(irq).cast_mut()) else { return Resolution::Refused };
    // SAFETY: set by `Owned::activate`, and cleared on this core before the space goes (`Owned::destroy`), which does not happen while
    // somebody accesses its user half, as the interrupted code does.
    let space = unsafe { space.as_ref() };
    let kind = match access.kind {
        fault::Kind::Read => Access::Read,
        fault::Kind::Write => Access::Write,
        fault::Kind::Execute => Access::Execute,
    };
    let page = PageId::containing(address.as_u64() as usize);
    match step(irq, space, page, kind) {
        Fault::Resolved => Resolution::Retry,
        // Telling a pager, and what else becomes of a thread that faults, is its thread's business.
        Fault::Guard | Fault::Pager { .. } | Fault::NotMapped | Fault::Forbidden | Fault::Shortage(_) => {
            Resolution::Refused
        }
    }
}
