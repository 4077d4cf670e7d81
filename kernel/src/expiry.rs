//! Capabilities that expire: each has a timer on the core where the time was set.
//!
//! The timer is attached to the capability's node (`cap`), so it follows it from table to table. When the capability goes before, the timer is
//! disarmed with the family's lock and its node sent home, where it is taken out of the heap and freed. When the time comes, the
//! capability and what was derived of it are doomed at once; it goes first, the others in steps from the timer's interrupt and
//! whenever the core has nothing urgent to do.

use core::cell::Cell;
use core::mem::offset_of;
use core::ptr::NonNull;

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::task::NEVER;
use cap::{Attached, Gone, Purged};
use percpu::mailbox::{self, Kick, Node, Urgency};
use percpu::sync::atomic::{AtomicBool, Ordering};
use percpu::{CoreId, Held, Ipi, IrqOff, core_local};
use sched::{Heap, Links, Part, Stem};

use crate::arch::ipi::Interrupts;
use crate::arch::{timer, tsc};
use crate::object;
use crate::tables::{Capabilities, Leaves};
use crate::{machine, slabs};

/// A capability's timer; the node is first.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `node` | who disarms it | its core | by the inbox |
/// | `disarmed` | who disarms it, with the family's lock | its core, with the lock | Relaxed |
/// | `core`, `reference` | nobody | any core | – |
/// | the rest | its core | its core | – |
#[repr(C)]
struct Timer {
    node: Node,
    disarmed: AtomicBool,
    core: CoreId,
    links: Links<TimerRef>,
    stem: Stem<TimerRef>,
    attached: Cell<Option<Attached>>,
    /// The next of those that have run out.
    behind: Cell<Option<TimerRef>>,
    /// Keeps the object, in whose header the family's lock is.
    reference: Gone,
}

const _: () = assert!(offset_of!(Timer, node) == 0, "a timer is found by its node");

/// A timer that has not been freed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct TimerRef(NonNull<Timer>);

impl TimerRef {
    fn timer(&self) -> &Timer {
        // SAFETY: it is freed by its core, when it is in no heap, no queue and no inbox.
        unsafe { self.0.as_ref() }
    }

    /// Frees it, and gives its reference up.
    fn free(self, irq: &IrqOff) {
        // SAFETY: the caller has it alone: it is read for the last time.
        let Timer { reference, .. } = unsafe { self.0.read() };
        // SAFETY: the count that `expire` took.
        unsafe { object::drop_word(irq, reference) };
        slabs::give(irq, self.0);
    }
}

/// The links of the heap.
struct Due;

impl Part<TimerRef> for Due {
    fn links(e: &TimerRef) -> &Links<TimerRef> {
        &e.timer().links
    }
    fn stem(e: &TimerRef) -> &Stem<TimerRef> {
        &e.timer().stem
    }
}

/// A core's timers.
struct Here {
    heap: Heap<TimerRef, Due>,
    /// Those that have run out, and whose capabilities' descendants are being taken out.
    run_out: Cell<Option<TimerRef>>,
}

core_local! {
    static HERE: Here = const { Here { heap: Heap::new(), run_out: Cell::new(None) } };
}

/// Capabilities that one step takes out, timers that one step looks at.
const STEP: usize = 32;

/// Steps from the timer's interrupt per second, while there is something to do.
const STEP_HZ: u64 = 20_000;

/// Has a capability go at a time, with what was derived of it; [`NEVER`] takes that back.
///
/// # Errors
/// [`Error::BadHandle`], [`Error::NoMemory`].
pub(crate) fn expire(irq: &IrqOff, own: &Capabilities, handle: Handle, deadline: u64) -> Result<(), Error> {
    if deadline == NEVER {
        return own.attach(handle, None).map(drop);
    }
    let entry = own.entry(handle)?;
    let timer = TimerRef(slabs::take::<Timer>(irq).ok_or(Error::NoMemory)?);
    // SAFETY: an object's memory is its own until the core leaves the kernel (N1), and its header is first (N2).
    if !object::try_acquire(unsafe { object::address(entry.object).as_ref() }) {
        slabs::give(irq, timer.0);
        return Err(Error::BadHandle);
    }
    let new = Timer {
        node: Node::new(),
        disarmed: AtomicBool::new(false),
        core: irq.core(),
        links: Links::new(),
        stem: Stem::new(),
        attached: Cell::new(None),
        behind: Cell::new(None),
        // No right of a capability goes with it.
        reference: Gone { kind: entry.kind, rights: Rights::NONE, object: entry.object },
    };
    // SAFETY: memory for one timer, which is ours.
    unsafe { timer.0.write(new) };
    match own.attach(handle, Some(timer.0.cast())) {
        Ok(attached) => {
            // It may have been disarmed already: then its message comes when this is over.
            timer.timer().attached.set(Some(attached));
            HERE.owned(irq).heap.insert(timer, deadline);
            timer::arm_before(irq, deadline);
            Ok(())
        }
        Err(error) => {
            timer.free(irq);
            Err(error)
        }
    }
}

/// The capability of a timer has gone, or got another. By any core, with the family's lock.
pub(crate) fn disarm(timer: NonNull<()>) {
    let at = TimerRef(timer.cast());
    let timer = at.timer();
    // ORDER: Relaxed: with the family's lock, as the look at it in `run_out`.
    timer.disarmed.store(true, Ordering::Relaxed);
    let inbox = mailbox::INBOX.of(timer.core).expect("a core that has set a timer runs");
    let node = NonNull::from_ref(&timer.node);
    // SAFETY: a timer is disarmed once; it is freed after this has arrived; the function expects a timer's node.
    if unsafe { inbox.push(node, deliver_disarmed, Urgency::Lazy) } == Kick::Interrupt {
        Interrupts.send(timer.core);
    }
}

/// # Safety
/// 1. `node` is that of a timer of this core that was disarmed.
unsafe fn deliver_disarmed(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    let at = TimerRef(node.cast());
    if at.timer().stem.is_in() {
        HERE.owned(held).heap.remove(at);
    }
    at.free(held);
}

/// When this core has something to do next.
#[inline(always)]
pub(crate) fn next(irq: &IrqOff) -> u64 {
    let here = HERE.owned(irq);
    if here.run_out.get().is_some() { tsc::now() + machine::clock().0 / STEP_HZ } else { here.heap.least() }
}

/// Whether [`step`] would find something to do.
#[inline(always)]
pub(crate) fn has_work(irq: &IrqOff, now: u64) -> bool {
    let here = HERE.owned(irq);
    here.run_out.get().is_some() || here.heap.least() <= now
}

/// Does a bounded step, however urgent the threads are that can run: what is due goes when it is due. `false` if there was nothing to do.
pub(crate) fn step(irq: &IrqOff) -> bool {
    let here = HERE.owned(irq);
    let now = tsc::now();
    let mut done = 0;
    while done < STEP && here.heap.least() <= now {
        let Some(timer) = here.heap.pop() else { break };
        run_out(irq, timer);
        done += 1;
    }
    if let Some(timer) = here.run_out.get()
        && done < STEP
    {
        if cap::purge(&Leaves::NONE, timer.timer().reference.object, STEP - done, |gone| drop_gone(irq, gone))
            == Purged::Done
        {
            here.run_out.set(timer.timer().behind.take());
            timer.free(irq);
        }
        return true;
    }
    done != 0
}

/// A timer, which is out of the heap, has run out: its capability goes, and the others begin to. One that was disarmed is freed by its message.
fn run_out(irq: &IrqOff, at: TimerRef) {
    let timer = at.timer();
    let attached = timer.attached.get().expect("a timer in the heap is attached");
    // ORDER: Relaxed: with the family's lock, as the store in `disarm`.
    let armed = || !timer.disarmed.load(Ordering::Relaxed);
    let object = timer.reference.object;
    match cap::expire(&Leaves::NONE, object, attached, armed, |gone| drop_gone(irq, gone)) {
        None => {}
        Some(Purged::Done) => at.free(irq),
        Some(Purged::More) => timer.behind.set(HERE.owned(irq).run_out.replace(Some(at))),
    }
}

fn drop_gone(irq: &IrqOff, gone: Gone) {
    // SAFETY: the reference that a capability held, which has gone.
    unsafe { object::drop_word(irq, gone) };
}
