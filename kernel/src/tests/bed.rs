//! What tests are made of: memory for their duration, complaints from any core, waiting with an end.

use core::ops::{Deref, DerefMut};

use mm::frames::Request;
use mm::{FrameError, FrameId, Order};
use percpu::sync::atomic::{AtomicUsize, Ordering};
use percpu::{Held, IrqOff, Lock, NodeId, epoch};
use x86_64::PhysAddr;

use super::{Bed, Result, Verdict, failed};
use crate::arch::tsc;
use crate::cores::{self, Crew};
use crate::{dispatch, jobs, layout, machine, memory};

/// How long a test waits for what must happen, in seconds of the clock: long enough for any emulator on any busy host.
const PATIENCE: u64 = 20;

/// A point in time that ends a loop.
#[derive(Clone, Copy)]
pub(super) struct Deadline(u64);

impl Deadline {
    /// So many milliseconds from now.
    pub(super) fn after_ms(milliseconds: u64) -> Self {
        Self(tsc::now() + machine::clock().0 / 1000 * milliseconds)
    }

    /// The end of a test that may go on for long: so many milliseconds from now, or the seconds that the command line grants.
    pub(super) fn of(bed: &Bed, milliseconds: u64) -> Self {
        Self::after_ms(if bed.soak == 0 { milliseconds } else { u64::from(bed.soak) * 1000 })
    }

    /// Whether it is over.
    pub(super) fn is_over(self) -> bool {
        tsc::now() > self.0
    }
}

/// Waits until the condition holds; `false` if it does not in [`PATIENCE`] seconds.
#[must_use]
pub(super) fn wait(condition: impl Fn() -> bool) -> bool {
    let deadline = Deadline::after_ms(PATIENCE * 1000);
    while !condition() {
        if deadline.is_over() {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// Makes every core leave the kernel until nothing that any of them has retired is left: page tables go back to the frame allocator late.
///
/// All take part, the boot core included, which never leaves otherwise; one that returned early would keep the epoch from going on.
///
/// Planted: only the boot core leaves.
pub(super) fn settle(crew: &mut Crew) -> Result {
    let all = cores::all_online();
    let (done, blame) = (AtomicUsize::new(0), Blame::new());
    let deadline = Deadline::after_ms(PATIENCE * 1000);
    crew.run(&all, |held| {
        let core = held.core();
        IrqOff::with(|irq| {
            epoch::leave_idle(irq);
            let mut clean = false;
            // ORDER: Relaxed, both: only the number matters.
            while done.load(Ordering::Relaxed) < all.len() {
                epoch::leave_kernel(irq, machine::topology().core_count());
                if !clean && !epoch::has_retired(irq) {
                    clean = true;
                    // ORDER: Relaxed; as above.
                    done.fetch_add(1, Ordering::Relaxed);
                }
                if deadline.is_over() {
                    return blame.note(Err(failed(format_args!("{core}: something stays retired"))));
                }
                core::hint::spin_loop();
            }
        });
    });
    blame.verdict()
}

/// Whether something holds on some core.
fn on_any(crew: &mut Crew, holds: impl Fn(&mut Held<'_, 0>) -> bool + Sync) -> bool {
    let count = AtomicUsize::new(0);
    crew.run(&cores::all_online(), |held| {
        // ORDER: Relaxed: the end of the call publishes it.
        count.fetch_add(usize::from(holds(held)), Ordering::Relaxed);
    });
    count.into_inner() != 0
}

/// Whether a core has retired something that has not been given back, or has a process to take down.
pub(super) fn is_unsettled(crew: &mut Crew) -> bool {
    // What was sent to this core: it runs its own part of a call at once, whatever waits in its mailbox.
    let moment = tsc::now() + machine::clock().0 / 10_000;
    // SAFETY: tests run with nothing but their own data.
    IrqOff::with(|irq| unsafe { dispatch::serve_until(irq, &|| false, moment) });
    on_any(crew, |held| jobs::has_work(held) || IrqOff::with(|irq| epoch::has_retired(irq)))
}

/// Lets every core take down the processes that it has to, which it does when it has nothing else to do.
pub(super) fn finish_jobs(crew: &mut Crew) -> Result {
    let deadline = Deadline::after_ms(PATIENCE * 1000);
    loop {
        if !on_any(crew, |held| jobs::has_work(held)) {
            return Ok(());
        }
        if deadline.is_over() {
            return Err(failed(format_args!("a process is never taken down")));
        }
        let pause = tsc::now() + machine::clock().0 / 1000;
        // SAFETY: tests run with nothing but their own data.
        IrqOff::with(|irq| unsafe { dispatch::serve_until(irq, &|| !jobs_left(), pause) });
    }
}

/// Whether the core that runs this has something to take down.
fn jobs_left() -> bool {
    IrqOff::with(|irq| jobs::has_work(irq))
}

/// A place where cores wait for each other.
pub(super) struct Gate(AtomicUsize);

impl Gate {
    pub(super) const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Arrives, and waits until `count` cores have; `false` if they do not in time.
    #[must_use]
    pub(super) fn pass(&self, count: usize) -> bool {
        // ORDER: AcqRel: Release pairs with the Acquire below, of those who see this arrival.
        self.0.fetch_add(1, Ordering::AcqRel);
        // ORDER: Acquire pairs with the Release above: what the others did before they arrived is visible.
        wait(|| self.0.load(Ordering::Acquire) >= count)
    }
}

/// The first complaint of any core. Level 150: below the log only.
pub(super) struct Blame(Lock<150, Result>);

impl Blame {
    pub(super) const fn new() -> Self {
        Self(Lock::new(Ok(())))
    }

    /// Keeps a core's complaint, if it is the first.
    pub(super) fn note(&self, result: Result) {
        if result.is_err() {
            IrqOff::with(|irq| irq.locks(|held| self.0.with(held, |first, _| note_first(first, result))));
        }
    }

    /// The outcome of all cores.
    pub(super) fn verdict(mut self) -> Result {
        core::mem::replace(self.0.get_mut(), Ok(()))
    }
}

fn note_first(first: &mut Result, result: Result) {
    if first.is_ok() {
        *first = result;
    }
}

/// Values in memory of the calling core's node, given back at the end. It is dropped on a core that may allocate, which all may.
pub(super) struct Scratch<T: 'static> {
    items: &'static mut [T],
    frame: FrameId,
    order: Order,
}

impl<T> Scratch<T> {
    const CHECKED: () = assert!(!core::mem::needs_drop::<T>() && align_of::<T>() <= 4096);

    /// `count` values.
    pub(super) fn new(count: usize, init: impl Fn(usize) -> T) -> core::result::Result<Self, Verdict> {
        () = Self::CHECKED;
        let order = Order::for_bytes(count * size_of::<T>());
        let taken = order.and_then(|order| get(order, Request::LOCAL).ok().map(|frame| (frame, order)));
        let (frame, order) = taken.ok_or(Verdict::Skipped("not enough memory for the test's own data"))?;
        let at = layout::direct(PhysAddr::new(frame.address())).as_mut_ptr::<T>();
        for i in 0..count {
            // SAFETY: the block holds `count` values, and the direct map shows it.
            let slot = unsafe { at.add(i) };
            // SAFETY: as above; aligned by `CHECKED`, and the block is ours alone.
            unsafe { slot.write(init(i)) };
        }
        // SAFETY: `count` initialised values in a block that is ours until `drop`.
        let items = unsafe { core::slice::from_raw_parts_mut(at, count) };
        Ok(Self { items, frame, order })
    }
}

impl<T> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.items
    }
}

impl<T> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.items
    }
}

impl<T> Drop for Scratch<T> {
    fn drop(&mut self) {
        put(self.frame, self.order).expect("a test's own block was taken once and is given back once");
    }
}

/// Takes a block, on whichever core this runs.
pub(super) fn get(order: Order, request: Request) -> core::result::Result<FrameId, FrameError> {
    IrqOff::with(|irq| memory::with(irq, |frames, cache| frames.get_from(cache, order, request)))
}

/// Gives a block back.
pub(super) fn put(frame: FrameId, order: Order) -> core::result::Result<(), FrameError> {
    IrqOff::with(|irq| memory::with(irq, |frames, cache| frames.put(cache, frame, order)))
}

/// The order with a number that is known to be one.
pub(super) fn order(number: u8) -> Order {
    Order::new(number).expect("tests name orders up to 24")
}

/// The node that owns a physical address.
pub(super) fn node_at(address: u64) -> NodeId {
    machine::topology().range_of(address).map_or(NodeId::new(0), |range| range.node)
}

/// The smallest distance from a node to any of the given ones.
pub(super) fn nearest(from: NodeId, nodes: impl Iterator<Item = NodeId>) -> Option<u8> {
    nodes.map(|node| machine::topology().distance(from, node)).min()
}
