//! Spreading threads over cores: where a new one starts, who an idle core asks, what a loaded core hands over.
//!
//! Who asks whom and who gives to whom is decided by `sched::balance` over what the cores show of themselves, which may be out of date; the
//! mechanism looks again where it counts, at the thread's own core. Real-time threads stay where they are.

use core::ptr::NonNull;

use abi::debug::Counter;
use abi::error::Error;
use percpu::mailbox::{self, Kick, Node, Urgency};
use percpu::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use percpu::{AtomicCoreSet, CoreId, Held, Ipi, IrqOff, Lock, core_local};
use sched::Class;
use sched::balance::{self, View};

use crate::arch::apic;
use crate::arch::ipi::Interrupts;
use crate::arch::user::{HEAD, pending};
use crate::dispatch::{self, SCHED, SHOWN};
use crate::thread::ThreadRef;
use crate::{cores, homes, machine, metrics};

/// An idle core's request for a thread; the node is first.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `node` | the idle core before the push, the asked core after | both | by the inbox | its own |
/// | `asked` | the idle core sets, the asked one clears | the idle core | Release / Acquire | the same |
#[repr(C, align(64))]
struct Request {
    node: Node,
    asked: AtomicBool,
    from: AtomicCoreSet,
}

core_local! {
    static REQUEST: Request = Request { node: Node::new(), asked: AtomicBool::new(false), from: AtomicCoreSet::new() };
}

core_local! {
    /// The number of the process that has this core reserved, 0 for none. Written with [`RESERVING`] held.
    static OWNER: AtomicU64 = AtomicU64::new(0);
}

/// Cores that are reserved. Written with [`RESERVING`] held.
pub(crate) static RESERVED: AtomicCoreSet = AtomicCoreSet::new();

/// Held while a core is reserved or given back.
static RESERVING: Lock<80, ()> = Lock::new(());

/// The load that a core shows.
fn load_of(core: CoreId) -> u32 {
    // ORDER: Relaxed: a hint.
    SHOWN.of(core).map_or(0, |shown| shown.load.load(Ordering::Relaxed))
}

/// Whether a thread may run on a core: its affinity allows it, and the core is not reserved. One whose cores are all reserved, be it only
/// one, may run on the first of them.
pub(crate) fn may_run_on(thread: ThreadRef, core: CoreId) -> bool {
    thread.may_run_on(core) && (!RESERVED.contains(core) || is_last_resort(thread, core))
}

#[cold]
fn is_last_resort(thread: ThreadRef, core: CoreId) -> bool {
    let cores = thread.affinity();
    cores.lowest() == Some(core) && cores.difference(&RESERVED.snapshot()).is_empty()
}

/// Whether a thread may run on this core, its home. What was promised to a deadline was promised here, so it stays, reserved or not.
#[inline]
pub(crate) fn may_run_here(irq: &IrqOff, thread: ThreadRef) -> bool {
    may_run_on(thread, irq.core()) || sched::Entity::task(&thread).class() == Class::Deadline
}

/// The core where a thread had best run: this one if it is not busier than the others, else the least loaded, near ones first.
pub(crate) fn target(irq: &IrqOff, thread: ThreadRef) -> CoreId {
    let topology = machine::topology();
    let own = irq.core();
    if topology.core_count() == 1 || SCHED.owned(irq).load() == 0 && may_run_on(thread, own) {
        return own;
    }
    let node = topology.node_of(own);
    let cost = |core: CoreId| {
        let distance = u32::from(topology.distance(node, topology.node_of(core)));
        // Its own core's load is what remains when the caller goes on.
        (load_of(core), core != own, distance)
    };
    let best = topology.cores().filter(|&core| may_run_on(thread, core)).min_by_key(|&core| cost(core));
    // None only while cores are being reserved or given back: then it is looked at again where the thread arrives.
    best.or_else(|| thread.affinity().lowest()).unwrap_or(own)
}

/// The other cores, as they show themselves to this one.
fn others(own: CoreId) -> impl Iterator<Item = (CoreId, View)> {
    let topology = machine::topology();
    let node = topology.node_of(own);
    topology.cores().filter(move |&core| core != own).map(move |core| {
        let distance = topology.distance(node, topology.node_of(core));
        (core, View { load: load_of(core), distance, reserved: RESERVED.contains(core) })
    })
}

/// Reserves a core: threads that are not bound to it alone leave it, and none come.
///
/// # Errors
/// [`Error::WrongState`] if it is reserved, or the last that is not.
pub(crate) fn reserve(irq: &mut IrqOff, core: CoreId, process: u64) -> Result<(), Error> {
    irq.locks(|held| RESERVING.with(held, |(), _| take(core, process)))?;
    cores::call_from(irq, core, clear_out);
    Ok(())
}

fn take(core: CoreId, process: u64) -> Result<(), Error> {
    let owner = OWNER.of(core).ok_or(Error::BadArgument)?;
    // ORDER: Relaxed: under the lock.
    let free = owner.load(Ordering::Relaxed) == 0;
    if !free || RESERVED.snapshot().len() + 1 >= machine::topology().core_count() {
        return Err(Error::WrongState);
    }
    // ORDER: Relaxed; as above.
    owner.store(process, Ordering::Relaxed);
    RESERVED.insert(core);
    Ok(())
}

/// Gives a core back, if the process has it reserved.
pub(crate) fn release(held: &mut Held<'_, 0>, core: CoreId, process: u64) {
    let Some(owner) = OWNER.of(core) else { return };
    RESERVING.with(held, |(), _| {
        // ORDER: Relaxed, both: under the lock.
        if owner.load(Ordering::Relaxed) == process {
            RESERVED.remove(core);
            // ORDER: Relaxed; as above.
            owner.store(0, Ordering::Relaxed);
        }
    });
}

/// Gives all cores back that a process has reserved: it has ended.
pub(crate) fn release_all(held: &mut Held<'_, 0>, process: u64) {
    RESERVED.snapshot().iter().for_each(|core| release(held, core, process));
}

/// Sends away the normal threads that may not run on this core any more; others leave it when they have next blocked. Of those that wait, no one
/// is switched to before it has been asked whether it may run here.
fn clear_out(held: &mut Held<'_, 0>) {
    let here = held.core();
    HEAD.owned(held).renew_mark();
    while let Some(thread) = SCHED.owned(held).steal(|thread| thread.is_plain() && !may_run_on(thread, here))
    {
        let to = target(held, thread);
        homes::depart(held, thread, to);
    }
    if dispatch::running(held).is_some_and(|thread| !may_run_here(held, thread)) {
        HEAD.owned(held).raise(pending::STOP);
    }
}

/// This core has nothing to run: asks another for a thread.
pub(crate) fn beg(irq: &mut IrqOff) {
    let own = irq.core();
    // Mostly nobody can spare a thread, and that is sooner seen than who can.
    if !machine::topology().cores().any(|core| load_of(core) > 1) || RESERVED.contains(own) {
        return;
    }
    beg_somebody(irq, own);
}

#[inline(never)]
fn beg_somebody(irq: &mut IrqOff, own: CoreId) {
    let Some(victim) = balance::victim(others(own)) else { return };
    let request = REQUEST.local(irq);
    // ORDER: Acquire pairs with Release in `deliver_request`: the node is this core's again.
    if request.asked.load(Ordering::Acquire) {
        return;
    }
    request.from.insert(own);
    // ORDER: Relaxed: published by the push.
    request.asked.store(true, Ordering::Relaxed);
    let Some(inbox) = mailbox::INBOX.of(victim) else { return };
    let node = NonNull::from_ref(&request.node).cast();
    // SAFETY: `asked` was clear, so the node is in no inbox; core-local data lives for ever; the function expects a request's node.
    if unsafe { inbox.push(node, deliver_request, Urgency::Eager) } == Kick::Interrupt {
        Interrupts.send(victim);
    }
}

/// # Safety
/// 1. `node` is that of a core's [`Request`].
unsafe fn deliver_request(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1: it is first, and core-local data lives for ever.
    let request: &'static Request = unsafe { node.cast().as_ref() };
    let from = request.from.snapshot().lowest();
    // ORDER: Release pairs with Acquire in `beg`: the node is done with.
    request.asked.store(false, Ordering::Release);
    if let Some(thief) = from
        && let Some(thread) = spare(held, thief)
    {
        homes::yield_to_thief(held, thread, thief);
    }
}

/// Takes a thread out of this core's queue that may go to another core, if there is one.
fn spare(irq: &IrqOff, to: CoreId) -> Option<ThreadRef> {
    let sched = SCHED.owned(irq);
    if sched.load() < 2 {
        return None;
    }
    sched.steal(|thread| thread.is_plain() && may_run_on(thread, to))
}

/// This core may have more than another: evens them out by one thread.
pub(crate) fn even_out(held: &mut Held<'_, 0>) {
    let load = SCHED.owned(held).load() as u32;
    if load < 2 {
        return;
    }
    metrics::count(held, Counter::Balances);
    if let Some(other) = balance::taker(load, others(held.core()))
        && let Some(thread) = spare(held, other)
    {
        homes::depart(held, thread, other);
    }
}

/// Makes cores that run programs pass through the kernel: something waits for them to have left it.
pub(crate) fn hurry(irq: &IrqOff) {
    let own = irq.core();
    let busy = machine::topology().cores().filter(|&core| core != own && load_of(core) > 0);
    busy.for_each(|core| apic::send(machine::apic_id(core)));
}
