//! Running a function on other cores and waiting until it has run.
//!
//! The request lies in the initiator's memory and travels through the target's [`Inbox`]; the target acknowledges after the function
//! has returned. While it waits, the initiator serves its own inbox, so that two initiators never wait for each other in vain.
//!
//! * Q1: a slot is not touched by its target after `done` is set, and not by its initiator before.
//! * Q2: waiting needs `&mut IrqOff`, which neither a lock holder nor a delivered function has: nobody waits while others wait for it.

#[cfg(not(loom))]
use crate::CACHE_LINE;
use crate::const_fn;
use crate::id::CoreId;
use crate::lock::Held;
use crate::mailbox::{Inbox, Kick, Node, Urgency};
use crate::pin::IrqOff;
use crate::set::CoreSet;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::cell::UnsafeCell;
use crate::sync::hint;
use core::ptr::{self, NonNull};

#[cfg(all(test, loom))]
mod models;

/// How cores reach each other. The kernel's interrupts its targets; tests have their own.
pub trait Ipi {
    /// Interrupts a core so that it serves its inbox.
    fn send(&self, core: CoreId);

    /// Interrupts several cores: by multicast where the machine has it.
    fn send_set(&self, cores: &CoreSet) {
        for core in cores.iter() {
            self.send(core);
        }
    }

    /// The inbox of a core that is online.
    #[cfg(not(loom))]
    fn inbox(&self, core: CoreId) -> &Inbox {
        crate::mailbox::INBOX.of(core).expect("Q3: an online core has its core-local data")
    }

    /// The inbox of a core that is online; a model brings its own, which live no longer than itself.
    #[cfg(loom)]
    fn inbox(&self, core: CoreId) -> &Inbox;
}

/// One request on its way to one core.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `node`, `function` | the initiator, before the push | the target | by the inbox | its own |
/// | `done` | the target sets; the initiator clears before the push | the initiator | Release / Acquire | the same: the target has it already |
#[derive(Debug)]
#[repr(C, align(64))]
pub struct CallSlot {
    node: Node,
    function: UnsafeCell<*const ()>,
    done: AtomicBool,
}

#[cfg(not(loom))]
const _: () = assert!(core::mem::offset_of!(CallSlot, node) == 0 && size_of::<CallSlot>() == CACHE_LINE);

// SAFETY: `function` is written by the initiator before the push and read by the target before `done`; the inbox and Q1 order both.
unsafe impl Send for CallSlot {}
// SAFETY: as above; a shared reference gives no other access.
unsafe impl Sync for CallSlot {}

impl CallSlot {
    const_fn! {
        /// A slot that is not in use.
        #[must_use]
        pub const fn new() -> Self {
            Self { node: Node::new(), function: UnsafeCell::new(ptr::null()), done: AtomicBool::new(true) }
        }
    }

    fn is_done(&self) -> bool {
        // ORDER: Acquire pairs with Release in `run`: we see all that the function did.
        self.done.load(Ordering::Acquire)
    }

    /// Sends a request for `f`.
    ///
    /// # Safety
    /// 1. The slot is done, and both it and `f` stay where they are until it is done again.
    unsafe fn send<F: Fn(&mut Held<'_, 0>) + Sync>(&self, inbox: &Inbox, f: &F) -> Kick {
        // ORDER: Relaxed: the push publishes it.
        self.done.store(false, Ordering::Relaxed);
        // SAFETY: the slot was done, so no target reads it (Q1).
        self.function.with_mut(|function| unsafe { *function = ptr::from_ref(f).cast() });
        // SAFETY: a done slot is in no inbox; obligation 1 keeps it valid until `run` has set `done`, after which `run` does not
        // touch it; `run` expects the node of a slot whose function is an `F`.
        unsafe { inbox.push(NonNull::from_ref(self).cast(), run::<F>, Urgency::Eager) }
    }
}

impl Default for CallSlot {
    fn default() -> Self {
        Self::new()
    }
}

/// # Safety
/// 1. `node` is the node of a [`CallSlot`] whose `function` points to a live `F`.
unsafe fn run<F: Fn(&mut Held<'_, 0>) + Sync>(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1, the node being at offset 0; the slot lives until `done` is set below (Q1).
    let slot: &CallSlot = unsafe { node.cast().as_ref() };
    // SAFETY: the initiator wrote it before the push and does not write it before `done` (Q1).
    let f = slot.function.with(|function| unsafe { *function }).cast::<F>();
    // SAFETY: obligation 1; `F: Sync` allows the call from here.
    unsafe { (*f)(held) };
    // ORDER: Release pairs with Acquire in `is_done`. Last access to the slot (Q1).
    slot.done.store(true, Ordering::Release);
}

/// Runs `f` on `target` and waits for it. On the calling core itself `f` simply runs.
///
/// `target` is online, that is, it serves its inbox. It must not wait for something that only the caller can do.
pub fn call<I: Ipi>(irq: &mut IrqOff, ipi: &I, target: CoreId, f: impl Fn(&mut Held<'_, 0>) + Sync) {
    let own = irq.core();
    call_from(own, irq, ipi, target, f);
}

pub(crate) fn call_from<I: Ipi>(
    own: CoreId,
    irq: &mut IrqOff,
    ipi: &I,
    target: CoreId,
    f: impl Fn(&mut Held<'_, 0>) + Sync,
) {
    if target == own {
        irq.locks(|held| f(held));
        return;
    }
    let slot = CallSlot::new();
    let sent = Sent(core::slice::from_ref(&slot));
    // SAFETY: a new slot is done; `sent` keeps slot and `f` in place until it is done again.
    if unsafe { slot.send(ipi.inbox(target), &f) } == Kick::Interrupt {
        ipi.send(target);
    }
    wait(&slot, irq, ipi.inbox(own));
    // All are done; the guard is only for unwinding.
    core::mem::forget(sent);
}

/// Runs `f` on all `targets` and waits for all of them; the calling core may be one.
///
/// `slots` is room for requests on their way, best one per target and in the caller's own memory; with fewer, they are used again
/// as they come back.
///
/// # Panics
/// When `slots` is empty.
pub fn broadcast<I: Ipi>(
    irq: &mut IrqOff,
    ipi: &I,
    targets: &CoreSet,
    slots: &mut [CallSlot],
    f: impl Fn(&mut Held<'_, 0>) + Sync,
) {
    let own = irq.core();
    broadcast_from(own, irq, ipi, targets, slots, f);
}

fn broadcast_from<I: Ipi>(
    own: CoreId,
    irq: &mut IrqOff,
    ipi: &I,
    targets: &CoreSet,
    slots: &mut [CallSlot],
    f: impl Fn(&mut Held<'_, 0>) + Sync,
) {
    assert!(!slots.is_empty(), "Q4: a broadcast has at least one slot");
    let slots = &*slots;
    let sent = Sent(slots);
    let mut rest = targets.iter().filter(|&core| core != own);
    let mut kicked = CoreSet::EMPTY;
    let mut used = 0;
    for (slot, core) in slots.iter().zip(&mut rest) {
        // SAFETY: the slots are exclusively ours and done when we are called; `sent` keeps them and `f` in place.
        if unsafe { slot.send(ipi.inbox(core), &f) } == Kick::Interrupt {
            kicked.insert(core);
        }
        used += 1;
    }
    if !kicked.is_empty() {
        ipi.send_set(&kicked);
    }
    if targets.contains(own) {
        irq.locks(|held| f(held));
    }
    let own_inbox = ipi.inbox(own);
    for (slot, core) in slots.iter().cycle().zip(rest) {
        wait(slot, irq, own_inbox);
        // SAFETY: the slot is done again; the rest is as above.
        if unsafe { slot.send(ipi.inbox(core), &f) } == Kick::Interrupt {
            ipi.send(core);
        }
    }
    for slot in &slots[..used] {
        wait(slot, irq, own_inbox);
    }
    // All are done; the guard is only for unwinding.
    core::mem::forget(sent);
}

/// Waits for one request and meanwhile serves the own inbox (Q2).
fn wait(slot: &CallSlot, irq: &mut IrqOff, own_inbox: &Inbox) {
    while !slot.is_done() {
        own_inbox.serve(irq);
        hint::spin_loop();
    }
}

/// Requests on their way. Should the initiator unwind, which only happens on the host, its frame still outlives them.
struct Sent<'a>(&'a [CallSlot]);

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        for slot in self.0 {
            while !slot.is_done() {
                hint::spin_loop();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{CallSlot, Ipi, broadcast, call};
    use crate::host::Machine;
    use crate::id::CoreId;
    use crate::mailbox::INBOX;
    use crate::pin::IrqOff;
    use crate::set::CoreSet;
    use crate::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    /// Cores that poll.
    struct NoInterrupt;

    impl Ipi for NoInterrupt {
        fn send(&self, _: CoreId) {}
    }

    const CORES: usize = 3;
    const ROUNDS: usize = if cfg!(miri) { 3 } else { 100 };

    /// Runs `f` on every core; a core that is through serves its inbox until all are.
    fn on_all(f: impl Fn(CoreId, &mut IrqOff) + Sync) {
        let finished = AtomicUsize::new(0);
        Machine::new(CORES).run_all(|core| {
            IrqOff::with(|irq| {
                f(core, irq);
                finished.fetch_add(1, Ordering::AcqRel);
                let inbox = INBOX.of(core).expect("this core");
                while finished.load(Ordering::Acquire) < CORES {
                    inbox.serve(irq);
                    thread::yield_now();
                }
            });
        });
    }

    #[test]
    fn everybody_calls_everybody() {
        on_all(|own, irq| {
            for target in CoreSet::first(CORES).iter().cycle().take(CORES * ROUNDS) {
                let ran_on = AtomicUsize::new(usize::MAX);
                call(irq, &NoInterrupt, target, |held| {
                    ran_on.store(held.core().index(), Ordering::Relaxed);
                });
                assert_eq!(ran_on.load(Ordering::Relaxed), target.index(), "called from {own}");
            }
        });
    }

    #[test]
    fn broadcasts_reach_each_target_once_with_any_number_of_slots() {
        on_all(|own, irq| {
            for round in 0..ROUNDS {
                let mut slots: [CallSlot; CORES] = [const { CallSlot::new() }; CORES];
                let mut targets = CoreSet::first(CORES);
                if round % 2 == 1 {
                    targets.remove(own);
                }
                let ran: [AtomicUsize; CORES] = [const { AtomicUsize::new(0) }; CORES];
                broadcast(irq, &NoInterrupt, &targets, &mut slots[..=round % CORES], |held| {
                    ran[held.core().index()].fetch_add(1, Ordering::Relaxed);
                });
                for core in CoreSet::first(CORES).iter() {
                    let count = ran[core.index()].load(Ordering::Relaxed);
                    assert_eq!(count, usize::from(targets.contains(core)), "{core} in round {round}");
                }
            }
        });
    }
}
