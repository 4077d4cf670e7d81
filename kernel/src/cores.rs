//! The cores: their memory, their start, what they do when there is nothing to do, and how they reach each other.

use core::ptr::NonNull;

use mm::{Order, PhysRange};
use percpu::epoch;
use percpu::mailbox;
use percpu::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use percpu::{AtomicCoreSet, CallSlot, CoreId, CoreSet, Held, IrqOff, MAX_CORES};
use x86_64::instructions::interrupts;
use x86_64::{PhysAddr, VirtAddr};

use crate::arch::ipi::Interrupts;
use crate::arch::paging::Kind;
use crate::arch::tables::{IST_VECTORS, Tables};
use crate::arch::{apic, entry, fpu, idle, paging, speculation, timer, tlb, tsc, user};
use crate::{dispatch, early, interrupt, layout, machine, memory, slabs, spaces, stacks};

/// Cores that have finished their set-up.
static ONLINE: AtomicCoreSet = AtomicCoreSet::new();
/// Cores whose descriptor tables are loaded: they take exceptions and non-maskable interrupts.
static HANDLERS: AtomicCoreSet = AtomicCoreSet::new();
/// Set once the boot core has its core-local data and its interrupt controller.
static STARTED: AtomicBool = AtomicBool::new(false);
/// Cores whose memory is there; 0 before [`prepare`] is done.
static PREPARED: AtomicUsize = AtomicUsize::new(0);

/// The descriptor tables of each core until it takes them.
static TABLES: [AtomicPtr<Tables>; MAX_CORES] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CORES];

/// How long the boot core waits for the others, in seconds of the clock.
const START_SECONDS: u64 = 30;

/// Whether the core that asks can know who it is and send interrupts.
pub(crate) fn started() -> bool {
    // ORDER: Acquire pairs with Release in `enter`: core-local data was set up before.
    STARTED.load(Ordering::Acquire)
}

/// The core that runs this. Only once [`started`].
pub(crate) fn current() -> CoreId {
    IrqOff::with(|irq| irq.core())
}

/// The cores that take exceptions and non-maskable interrupts.
pub(crate) fn all_with_handlers() -> CoreSet {
    HANDLERS.snapshot()
}

/// The cores that are up.
pub(crate) fn all_online() -> CoreSet {
    ONLINE.snapshot()
}

/// Cores whose stacks are mapped.
pub(crate) fn prepared() -> usize {
    // ORDER: Acquire pairs with Release in `prepare`.
    PREPARED.load(Ordering::Acquire)
}

/// Gives every core its stacks and core-local data, on its own node. `None` if memory runs out.
pub(crate) fn prepare() -> Option<()> {
    let topology = machine::topology();
    for core in topology.cores() {
        map_stacks(core)?;
        copy_core_local(core)?;
    }
    // ORDER: Release pairs with Acquire in `prepared`.
    PREPARED.store(topology.core_count(), Ordering::Release);
    Some(())
}

fn map_stacks(core: CoreId) -> Option<()> {
    let node = machine::topology().node_of(core);
    for stack in 0..stacks::STACKS_PER_CORE {
        let bytes = stacks::bytes(stack);
        let at = early::take_near(node, bytes)?.as_u64();
        paging::map(stacks::base(core, stack), PhysRange::inside(at, at + bytes), Kind::Data)?;
    }
    Some(())
}

/// Offset of the descriptor tables behind the copy of the core-local section.
fn tables_offset() -> usize {
    percpu::local::template().1.next_multiple_of(align_of::<Tables>())
}

fn copy_core_local(core: CoreId) -> Option<()> {
    let (template, length) = percpu::local::template();
    let bytes = tables_offset() + size_of::<Tables>();
    let at = early::take_near(machine::topology().node_of(core), bytes as u64)?;
    let base = NonNull::new(layout::direct(at).as_mut_ptr::<u8>())?;
    // SAFETY: `length` bytes of template, `bytes` zeroed bytes that were just taken for this core; they do not overlap.
    unsafe { base.copy_from_nonoverlapping(template, length) };
    // SAFETY: page aligned; a fresh copy; never given back; `prepare` visits each core once.
    unsafe { percpu::local::register(core, base) };
    let tables = Tables::new(core::array::from_fn(|ist| stacks::top(core, 1 + ist)));
    // SAFETY: inside the memory just taken, behind the copy.
    let slot = unsafe { base.add(tables_offset()) }.cast::<Tables>();
    // SAFETY: aligned by `tables_offset`, and nobody else has this memory.
    unsafe { slot.write(tables) };
    // ORDER: Release pairs with Acquire in `enter`.
    TABLES[core.index()].store(slot.as_ptr(), Ordering::Release);
    Some(())
}

/// The pages of a core that entering it takes: with its [`user::HEAD`], and with its descriptor tables.
pub(crate) fn border_pages(core: CoreId) -> [VirtAddr; 2] {
    let (template, _) = percpu::local::template();
    let head = (&raw const user::HEAD).addr() - template.addr().get();
    let copy = percpu::local::copy(core).expect("G3: `prepare` gave every core its copy");
    let page = |offset: usize| VirtAddr::from_ptr(copy.as_ptr()) + offset as u64;
    [page(head), page(tables_offset())]
}

const _: () = assert!(IST_VECTORS.len() + 1 == stacks::STACKS_PER_CORE);

/// The core that runs this becomes `core`: descriptor tables, core-local data, interrupt controller.
pub(crate) fn enter(core: CoreId) {
    // ORDER: Acquire pairs with Release in `copy_core_local`.
    let tables = NonNull::new(TABLES[core.index()].swap(core::ptr::null_mut(), Ordering::Acquire));
    let tables = tables.expect("G3: `prepare` gave every core its tables, and a core enters once");
    // SAFETY: the swap hands the one pointer to the one caller; the memory is never given back.
    let task = unsafe { &mut *tables.as_ptr() }.load();
    HANDLERS.insert(core);
    // SAFETY: this is `core`, registered by `prepare`, and nothing core-local has been referred to before.
    unsafe { percpu::local::activate(core) };
    apic::enable();
    IrqOff::with(|irq| {
        timer::enter(irq);
        fpu::enter(irq);
        user::enter(irq, &task);
    });
    speculation::enter();
    tlb::enter();
    memory::enter(core);
    slabs::enter();
    IrqOff::with(|irq| epoch::leave_idle(irq));
    if core == machine::boot_core() {
        ONLINE.insert(core);
        // ORDER: Release pairs with Acquire in `started`.
        STARTED.store(true, Ordering::Release);
    }
}

/// Sends every other core to its entry.
pub(crate) fn release_others() {
    for core in machine::topology().cores().filter(|&core| core != machine::boot_core()) {
        // The core number in the top word, below which the stack stays aligned to 16 as `entry_core` calls on.
        let top = stacks::top(core, 0) - 16;
        // SAFETY: the two words at the top of this core's stack, which it does not use yet.
        unsafe { top.as_mut_ptr::<u64>().write(core.index() as u64) };
        let info = machine::loader_info(core);
        // ORDER: Release; the store of the entry address below is what lets the core look.
        info.extra.store(top.as_u64(), Ordering::Release);
        info.goto_address.write(entry::CORE_ENTRY);
    }
}

/// A core reports that it is up.
pub(crate) fn online(core: CoreId) {
    ONLINE.insert(core);
}

/// Waits until every core is online; on time-out, the first that is not.
pub(crate) fn wait_for_all() -> Result<(), CoreId> {
    let all = CoreSet::first(machine::topology().core_count());
    let deadline = tsc::now() + START_SECONDS * machine::clock().0;
    loop {
        let missing = all.difference(&ONLINE.snapshot());
        match missing.lowest() {
            None => return Ok(()),
            Some(core) if tsc::now() > deadline => return Err(core),
            Some(_) => core::hint::spin_loop(),
        }
    }
}

/// Runs `turn` again and again, with interrupts on in between, until it says that it is over: how a core that is busy with a program
/// looks to the others. For tests and benchmarks.
///
/// # Safety
/// 1. Neither the caller nor whoever called it refers to core-local data, or relies on its staying as it is, across this call.
pub(crate) unsafe fn expose(held: &mut Held<'_, 0>, mut turn: impl FnMut() -> bool) {
    // The witness is borrowed for as long, so that nobody uses it while the handler has its own.
    while turn() {
        interrupts::enable();
        core::hint::spin_loop();
        interrupts::disable();
        interrupt::take_noted(held);
    }
}

/// Takes the interrupts that wait, between two steps of long work.
///
/// # Safety
/// 1. As for [`expose`].
#[inline(always)]
pub(crate) unsafe fn let_in(irq: &mut IrqOff) {
    interrupts::enable();
    // `STI` holds interrupts back for one more instruction. No hint to the processor: an emulator with one thread for all cores would go on
    // with the next core.
    x86_64::instructions::nop();
    interrupts::disable();
    irq.locks(interrupt::take_noted);
}

/// Runs `f` on one core and waits until it has returned, serving this core's messages meanwhile.
pub(crate) fn call_from(irq: &mut IrqOff, core: CoreId, f: impl Fn(&mut Held<'_, 0>) + Sync) {
    percpu::call::call(irq, &Interrupts, core, f);
}

/// Sleeps until somebody posts to this core or its timer comes; not at all if something has been posted. A user space that is loaded stays so,
/// marked as not in use; entering it goes on with it.
pub(crate) fn rest(irq: &mut IrqOff) {
    let inbox = mailbox::INBOX.local(irq);
    let how = idle::kind();
    if !inbox.arm(irq, how) {
        return;
    }
    spaces::rest(irq);
    epoch::enter_idle(irq);
    // Interrupts have been off since before `arm`: one that it provoked is pending and ends the sleep at once.
    // SAFETY: the witness is not used meanwhile, and whoever answers an interrupt leaves the inbox of a resting core to it.
    unsafe { idle::rest(inbox, how) };
    epoch::leave_idle(irq);
    irq.locks(interrupt::take_noted);
}

/// What a core does from its start on: threads, messages, sleep.
pub(crate) fn idle() -> ! {
    dispatch::serve_for_ever()
}

/// Gives every core what it needs to take translations back from the others; `false` if there is not enough memory.
pub(crate) fn equip(crew: &mut Crew) -> bool {
    let missing = AtomicUsize::new(0);
    crew.run(&all_online(), |held| {
        // ORDER: Relaxed; the end of the call publishes it.
        missing.fetch_add(usize::from(!tlb::equip(held)), Ordering::Relaxed);
    });
    missing.into_inner() == 0
}

/// Runs functions on many cores at once and waits for them: what tests and benchmarks need. Belongs to the core that made it.
pub(crate) struct Crew {
    slots: &'static mut [CallSlot],
}

impl Crew {
    /// A crew with room for a call to every core, in memory of the calling core's node; `None` if there is none.
    pub(crate) fn new() -> Option<Self> {
        let count = machine::topology().core_count();
        let order = Order::for_bytes(count * size_of::<CallSlot>())?;
        let frame = IrqOff::with(|irq| memory::with(irq, |frames, cache| frames.get(cache, order))).ok()?;
        let at = layout::direct(PhysAddr::new(frame.address())).as_mut_ptr::<CallSlot>();
        for i in 0..count {
            // SAFETY: within the block, which is the crew's alone and large enough for `count` slots.
            let slot = unsafe { at.add(i) };
            // SAFETY: as above; frame aligned, hence aligned for a slot.
            unsafe { slot.write(CallSlot::new()) };
        }
        // SAFETY: `count` initialised slots in a block that is never given back.
        Some(Self { slots: unsafe { core::slice::from_raw_parts_mut(at, count) } })
    }

    /// Runs `f` on every core of the set at the same time and waits until all have returned.
    pub(crate) fn run(&mut self, cores: &CoreSet, f: impl Fn(&mut Held<'_, 0>) + Sync) {
        IrqOff::with(|irq| percpu::call::broadcast(irq, &Interrupts, cores, self.slots, f));
    }
}

/// Runs `f` on one core and waits until it has returned.
pub(crate) fn call(core: CoreId, f: impl Fn(&mut Held<'_, 0>) + Sync) {
    IrqOff::with(|irq| percpu::call::call(irq, &Interrupts, core, f));
}
