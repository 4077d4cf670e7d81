//! Trace rings: switched on by kinds of events, one ring for each core, on its node, with memory only since it was first needed.
//!
//! [`event`] is what the rest of the kernel calls. While its kind is off that is a load and a test; [`switch`] and [`read`] ask each
//! core to do the work on its own ring.
//!
//! * D1: the memory lent to a ring is the ring's until [`discard`] has taken it back; records leave as copies.

use core::cell::Cell;

use abi::debug::TraceEvents;
use abi::task::ThreadState;
use mm::Order;
use percpu::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use percpu::{CoreCell, CoreId, IrqOff, Lock, core_local};
use perf::record::{Record, TraceChunk};
use perf::trace::{Event, Ring, Taken, TraceRecord};

use crate::arch::tsc;
use crate::arch::user::{HEAD, extra};
use crate::{cores, memory, metrics, report, start};

/// Records that a ring holds: 64 KiB.
pub(crate) const RECORDS: usize = 2048;

core_local! {
    /// Kinds that this core records now: the low half of [`TraceEvents`].
    static EVENTS: AtomicU32 = AtomicU32::new(0);
    /// The thread that had the core last, as far as that was traced: its number and what it does now.
    static LAST: Cell<(u64, ThreadState)> = const { Cell::new((0, ThreadState::Runnable)) };
    static RING: Ring<'static> = Ring::new();
    /// Where the ring's memory comes from.
    static MEMORY: CoreCell<Option<memory::Block>> = CoreCell::new(None);
}

const _: () = assert!(TraceEvents::ALL.0 <= u32::MAX as u64);

/// Kinds that are switched on, or are about to be.
static WANTED: AtomicU64 = AtomicU64::new(0);

/// Whether this core records events of this kind: for whoever would have to compute what to record.
#[inline(always)]
pub(crate) fn enabled(irq: &IrqOff, events: TraceEvents) -> bool {
    // ORDER: Relaxed: written by this core only, in `switch_here`.
    EVENTS.local(irq).load(Ordering::Relaxed) & events.0 as u32 != 0
}

/// Records an event, if its kind is switched on. `perf::trace` says what the numbers are.
#[inline(always)]
pub(crate) fn event(irq: &IrqOff, event: Event, a: u64, b: u64, c: u32) {
    if enabled(irq, event.events()) {
        record(irq, event, a, b, c);
    }
}

#[cold]
#[inline(never)]
fn record(irq: &IrqOff, event: Event, a: u64, b: u64, c: u32) {
    let core = irq.core().raw();
    RING.owned(irq).record(TraceRecord { ticks: tsc::now(), a, b, c, core, event: event as u16 });
}

/// The thread that has the core gives it up.
#[inline(always)]
pub(crate) fn left(irq: &IrqOff, state: ThreadState) {
    if enabled(irq, TraceEvents::SWITCH) {
        let last = LAST.owned(irq);
        last.set((last.get().0, state));
    }
}

/// A thread gets the core; number 0 is the idle loop.
#[inline(always)]
pub(crate) fn switched(irq: &IrqOff, to: impl FnOnce() -> u64) {
    if enabled(irq, TraceEvents::SWITCH) {
        record_switch(irq, to());
    }
}

#[cold]
#[inline(never)]
fn record_switch(irq: &IrqOff, to: u64) {
    let (from, state) = LAST.owned(irq).replace((to, ThreadState::Runnable));
    if from != to {
        record(irq, Event::Switch, from, to, state as u32);
    }
}

/// Switches kinds on, and all others off, on every core; returns those before. Records stay until they are read or overwritten.
///
/// `None` if a core has no memory for its ring: nothing is recorded then.
pub(crate) fn switch(events: TraceEvents) -> Option<TraceEvents> {
    // ORDER: Relaxed: the calls to the cores order what follows from it.
    let before = TraceEvents(WANTED.swap(events.0, Ordering::Relaxed));
    let failed = AtomicBool::new(false);
    each_core(|irq| {
        if !switch_here(irq, events) {
            // ORDER: Relaxed: the end of the call publishes it.
            failed.store(true, Ordering::Relaxed);
        }
    });
    if failed.into_inner() {
        // ORDER: Relaxed; as above.
        WANTED.store(0, Ordering::Relaxed);
        each_core(|irq| {
            let _off = switch_here(irq, TraceEvents::NONE);
        });
        return None;
    }
    Some(before)
}

/// `false` if there is no memory for the ring.
fn switch_here(irq: &IrqOff, events: TraceEvents) -> bool {
    let ready = events == TraceEvents::NONE || RING.owned(irq).capacity() > 0 || equip(irq);
    let on = if ready { events } else { TraceEvents::NONE };
    // ORDER: Relaxed: read by this core only.
    EVENTS.local(irq).store(on.0 as u32, Ordering::Relaxed);
    HEAD.owned(irq).set_extra(extra::TRACE, on.meets(TraceEvents::SWITCH));
    metrics::watch_next_call(irq);
    ready
}

/// Gives this core's ring its memory.
fn equip(irq: &IrqOff) -> bool {
    let Some(block) = Order::for_bytes(RECORDS * TraceRecord::BYTES).and_then(memory::Block::new) else {
        return false;
    };
    let start = block.start().cast::<Cell<TraceRecord>>();
    for index in 0..RECORDS {
        // SAFETY: the block has room for `RECORDS` records.
        let cell = unsafe { start.add(index) };
        // SAFETY: as above; a frame is aligned to more, and nobody else has the block.
        unsafe { cell.write(Cell::default()) };
    }
    // SAFETY: D1: initialised above, and the block stays in `MEMORY` for as long as the ring has the slice.
    let cells = unsafe { core::slice::from_raw_parts(start, RECORDS) };
    MEMORY.with_mut(irq, |memory| *memory = Some(block));
    RING.owned(irq).lend(cells);
    true
}

/// Takes the oldest records of a core that were not taken before, as many as there are and `out` has room for. `core` is online.
pub(crate) fn read(core: CoreId, out: &mut [TraceRecord]) -> Taken {
    let none = Taken { first: 0, count: 0, lost: 0 };
    let mut answer: Lock<90, (&mut [TraceRecord], Taken)> = Lock::new((out, none));
    cores::call(core, |held| {
        answer.with(held, |(out, taken), held| *taken = RING.owned(held).take(out));
    });
    answer.get_mut().1
}

/// Sends what every core has recorded, if the command line asked for a trace, and ends it.
pub(crate) fn send() {
    if start::params().trace == TraceEvents::NONE {
        return;
    }
    // Sending wakes cores and would record that.
    let _traced = switch(TraceEvents::NONE);
    for core in cores::all_online().iter() {
        while send_chunk(core) {}
    }
    discard();
}

/// Sends the oldest records of a core; `false` if there are no more.
fn send_chunk(core: CoreId) -> bool {
    let mut records = [TraceRecord::default(); TraceChunk::MAX_RECORDS];
    let mut bytes = [0; TraceChunk::MAX_RECORDS * TraceRecord::BYTES];
    let taken = read(core, &mut records);
    let (chunks, _) = bytes.as_chunks_mut::<{ TraceRecord::BYTES }>();
    chunks.iter_mut().zip(&records).for_each(|(slot, record)| *slot = record.to_bytes());
    let bytes = bytes.get(..taken.count * TraceRecord::BYTES).unwrap_or_default();
    if !bytes.is_empty() {
        let chunk = TraceChunk { core: u32::from(core.raw()), first: taken.first, records: bytes };
        report::send(&Record::Trace(chunk));
    }
    taken.count == records.len()
}

/// Switches everything off and gives the rings' memory back; records that were not read are gone.
pub(crate) fn discard() {
    // ORDER: Relaxed; as in `switch`.
    WANTED.store(0, Ordering::Relaxed);
    each_core(|irq| {
        let _off = switch_here(irq, TraceEvents::NONE);
        RING.owned(irq).lend(&[]);
        let block = MEMORY.with_mut(irq, Option::take);
        drop(block);
    });
}

/// Runs `f` on every core, one after the other.
fn each_core(f: impl Fn(&IrqOff) + Sync) {
    cores::all_online().iter().for_each(|core| cores::call(core, |held| f(held)));
}
