//! The initiator's side, and the requests it sends.

use ::core::ptr::{self, NonNull};

use percpu::mailbox::{Inbox, Kick, Node, Urgency};
use percpu::sync::atomic::{AtomicBool, Ordering};
use percpu::sync::cell::UnsafeCell;
use percpu::sync::hint;
use percpu::{CoreId, CoreSet, Held, IrqOff, const_fn, race_point};

use super::{Batch, Core, Machine, SpaceTlb};

/// A change of a space that has been made in its tables, by the generation that it raised the space to.
#[derive(Debug)]
pub(super) struct Change<'a> {
    pub(super) space: &'a SpaceTlb,
    pub(super) batch: &'a Batch,
    pub(super) generation: u64,
}

/// What a request points to, on its initiator's stack.
struct Job<'a, M> {
    machine: &'a M,
    change: Change<'a>,
}

/// One request on its way from one core to another.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `node`, `job` | the initiator, before the push | the target | by the inbox | its own |
/// | `previous` | the initiator | the initiator | – | the same: the target has it only for the answer |
/// | `done` | the target sets; the initiator clears before the push | the initiator | Release / Acquire | the same |
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Request {
    node: Node,
    job: UnsafeCell<*const ()>,
    /// The request that was sent before this one in the same shootdown.
    previous: UnsafeCell<*const Request>,
    target: CoreId,
    done: AtomicBool,
}

#[cfg(not(loom))]
const _: () =
    assert!(::core::mem::offset_of!(Request, node) == 0 && size_of::<Request>() == percpu::CACHE_LINE);

// SAFETY: `job` is written by the initiator before the push and read by the target before `done`, `previous` is the initiator's; the
// inbox and X4 order both.
unsafe impl Send for Request {}
// SAFETY: as above; a shared reference gives no other access.
unsafe impl Sync for Request {}

impl Request {
    const_fn! {
        /// A request to `target` that is not in use.
        #[must_use]
        pub const fn new(target: CoreId) -> Self {
            Self {
                node: Node::new(),
                job: UnsafeCell::new(ptr::null()),
                previous: UnsafeCell::new(ptr::null()),
                target,
                done: AtomicBool::new(true),
            }
        }
    }

    #[inline(always)]
    fn is_done(&self) -> bool {
        // ORDER: Acquire pairs with Release in `acknowledge`: the target uses nothing any more that the change has taken back.
        self.done.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn acknowledge(&self) {
        // ORDER: Release pairs with Acquire in `is_done`.
        self.done.store(true, Ordering::Release);
    }

    /// # Safety
    /// 1. The request is done and the caller's to send; it and `job` stay where they are until it is done again.
    #[inline(always)]
    unsafe fn send<M: Machine>(&self, inbox: &Inbox, job: &Job<'_, M>, previous: *const Self) -> Kick {
        // ORDER: Relaxed: the push publishes it.
        self.done.store(false, Ordering::Relaxed);
        // SAFETY: it was done, so no target reads it (X4).
        self.job.with_mut(|own| unsafe { *own = ptr::from_ref(job).cast() });
        // SAFETY: only the initiator uses it.
        self.previous.with_mut(|own| unsafe { *own = previous });
        // SAFETY: a done request is in no inbox; obligation 1 keeps it valid until `deliver` has acknowledged, after which `deliver` does
        // not touch it; `deliver` expects the node of a request whose job is for an `M`.
        unsafe { inbox.push(NonNull::from_ref(self).cast(), deliver::<M>, Urgency::Eager) }
    }
}

/// # Safety
/// 1. `node` is the node of a [`Request`] whose `job` points to a live `Job<M>`.
/// 2. The caller runs on the request's target.
#[cfg(not(feature = "early-ack"))]
unsafe fn deliver<M: Machine>(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1, the node being at offset 0; the request lives until it is acknowledged below (X4).
    let request: &Request = unsafe { node.cast().as_ref() };
    // SAFETY: the initiator wrote it before the push and does not write it before it is done (X4).
    let job = request.job.with(|own| unsafe { *own }).cast::<Job<'_, M>>();
    // SAFETY: obligation 1; it is not used after the acknowledgement.
    let job = unsafe { &*job };
    race_point!("tlb.delivered");
    job.machine.own(request.target, held).answer(&job.change);
    race_point!("tlb.answered");
    // Last access to the request (X4).
    request.acknowledge();
}

/// The planted bug: acknowledges at once, and leaves the invalidation to the core's next request or switch. Swapping the two alone would
/// only show with freed tables: between them the core is in the kernel, which uses no translation of the user half there.
///
/// # Safety
/// 1. `node` is the node of a [`Request`] whose `job` points to a live `Job<M>`.
/// 2. The caller runs on the request's target.
#[cfg(feature = "early-ack")]
unsafe fn deliver<M: Machine>(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: as without the bug.
    let request: &Request = unsafe { node.cast().as_ref() };
    // SAFETY: as without the bug.
    let job = request.job.with(|own| unsafe { *own }).cast::<Job<'_, M>>();
    // SAFETY: as without the bug.
    let job = unsafe { &*job };
    // The job is on the initiator's stack, which goes on with the acknowledgement.
    let (machine, target, mut batch) = (job.machine, request.target, *job.change.batch);
    let (space, generation) = (job.change.space, job.change.generation);
    request.acknowledge();
    race_point!("tlb.early-ack");
    // The changes before this one, which the last request has left: all of them.
    batch.add_all();
    machine.own(target, held).answer(&Change { space, batch: &batch, generation: generation - 1 });
}

/// Takes back what the batch names, on every core: when it returns, no core uses a translation of it, nor will.
///
/// The tables have been changed before the call; frames and tables that they no longer name can be used for something else after it.
/// Cores on which the space is current are asked and waited for; meanwhile this core answers their requests, so that initiators never
/// wait for each other in vain. A core whose inbox is not served keeps it waiting.
///
/// # Panics
/// When a request of this core is on its way already: a function that was delivered to a waiting initiator has no `&mut IrqOff` to call
/// this with, unless it made itself one.
#[inline]
pub fn shootdown<M: Machine>(irq: &mut IrqOff, machine: &M, space: &SpaceTlb, batch: &Batch) {
    let own = irq.core();
    shootdown_from(own, irq, machine, space, batch);
}

#[inline(always)]
pub(super) fn shootdown_from<M: Machine>(
    own: CoreId,
    irq: &mut IrqOff,
    machine: &M,
    space: &SpaceTlb,
    batch: &Batch,
) {
    if batch.is_empty() {
        return;
    }
    let generation = space.raise(1);
    race_point!("tlb.raised");
    let change = Change { space, batch, generation };
    let core = machine.own(own, irq);
    core.counters.initiated.add(1);
    if space.is_lone(own) || space.cores.members_but(own, machine.core_count()).next().is_none() {
        core.apply(&change);
    } else {
        on_others_too(own, irq, machine, change);
    }
}

/// The rest of a shootdown of a space that other cores may hold translations of.
#[inline(never)]
fn on_others_too<M: Machine>(own: CoreId, irq: &mut IrqOff, machine: &M, change: Change<'_>) {
    let job = Job { machine, change };
    let core = machine.own(own, irq);
    let sent = ask(&core, &job, machine.requests(own, irq));
    core.apply(&job.change);
    wait(own, irq, machine, sent);
}

/// Requests on their way, newest first. Should the initiator unwind, which only happens on the host, its frame still outlives them.
struct Sent(*const Request);

impl Sent {
    #[inline(always)]
    fn newest(&self) -> Option<&Request> {
        // SAFETY: nobody, or a request of the machine, which is borrowed for as long.
        unsafe { self.0.as_ref() }
    }

    /// Waits for all of them; `meanwhile` is done again and again.
    #[inline(always)]
    fn wait(&mut self, mut meanwhile: impl FnMut()) {
        while let Some(request) = self.newest() {
            while !request.is_done() {
                meanwhile();
                hint::spin_loop();
            }
            // SAFETY: only the initiator uses it.
            self.0 = request.previous.with(|own| unsafe { *own });
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // A model that fails ends with all its cores.
        if cfg!(not(loom)) {
            self.wait(|| ());
        }
    }
}

/// Waits for the acknowledgements and meanwhile serves the own inbox.
#[inline]
fn wait<M: Machine>(own: CoreId, irq: &mut IrqOff, machine: &M, mut sent: Sent) {
    if sent.newest().is_none() {
        return;
    }
    let inbox = machine.inbox(own);
    sent.wait(|| {
        inbox.serve(irq);
    });
    machine.own(own, irq).tlb.asking.set(false);
}

/// Asks the other cores on which the space is current.
#[inline(always)]
fn ask<M: Machine>(core: &Core<'_, M::Mmu>, job: &Job<'_, M>, requests: &[Request]) -> Sent {
    assert!(!core.tlb.asking.get(), "X8: a core has one shootdown at a time");
    let (machine, change) = (job.machine, &job.change);
    let mut sent = Sent(ptr::null());
    core.tlb.kicked.with_mut(|set| {
        let mut kicked = Kicked { set, count: 0, last: core.id };
        for target in change.space.cores.members_but(core.id, machine.core_count()) {
            if !machine.active(target).concerns(change.space.id, change) {
                core.counters.skipped.add(1);
                continue;
            }
            let request = requests.get(target.index()).expect("X9: a core has a request for each core");
            // SAFETY: no request of this core is on its way (X8, `asking`), nobody else sends them, and `wait` keeps job and request.
            let kick = unsafe { request.send(machine.inbox(target), job, sent.0) };
            sent.0 = ptr::from_ref(request);
            core.counters.messages.add(1);
            if kick == Kick::Interrupt {
                kicked.add(target);
            }
        }
        race_point!("tlb.sent");
        core.counters.interrupts.add(kicked.count);
        kicked.send(machine);
    });
    core.tlb.asking.set(!sent.0.is_null());
    sent
}

/// Cores to be interrupted.
struct Kicked<'a> {
    /// All but the last, and empty again afterwards. One core alone is the most common case and needs no set.
    set: &'a mut CoreSet,
    count: usize,
    last: CoreId,
}

impl Kicked<'_> {
    #[inline(always)]
    fn add(&mut self, core: CoreId) {
        if self.count != 0 {
            self.set.insert(self.last);
        }
        self.count += 1;
        self.last = core;
    }

    #[inline(always)]
    fn send<M: Machine>(self, machine: &M) {
        match self.count {
            0 => {}
            1 => machine.send(self.last),
            _ => {
                self.set.insert(self.last);
                machine.send_set(self.set);
                self.set.clear_first(machine.core_count());
            }
        }
    }
}
