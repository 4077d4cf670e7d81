//! Work in steps: taking ended processes down, a bounded step at a time, on the core where the last thread ended, and giving back the frames of
//! memory objects that nobody refers to any more, on the core where the last reference went.
//!
//! A step runs before a core picks a thread, so it goes before normal threads and waits at most one step for messages and timeouts. Real-time
//! threads and deadlines do not wait: while one can run, no step does, but for the objects that one of a priority as high has let go.

use core::cell::Cell;
use core::ptr::NonNull;

use abi::task::{ExitStatus, ProcessState, SchedSpec};
use cap::Drained;
use mm::FrameId;
use mm::space::{Orphans, Progress};
use percpu::{Held, IrqOff, core_local};
use perf::trace::Event;

use crate::arch::user::{HEAD, pending};
use crate::dispatch::SCHED;
use crate::object::Ref;
use crate::process::Process;
use crate::spaces::{Physical, Tap};
use crate::{dispatch, handler, harness, spaces, spread, trace, wait};

/// The next process in a core's list.
pub(crate) type Link = Option<NonNull<Process>>;

core_local! {
    static JOBS: Jobs = const { Jobs { first: Cell::new(None), stage: Cell::new(Stage::Forget) } };
    static ORPHANS: Orphans<Physical> = const { Orphans::new(Physical) };
    /// The highest priority of a thread that ran when one of them was added: up to that, nobody goes before their end.
    static OWED: Cell<u32> = const { Cell::new(0) };
}

/// Processes that this core takes down, the first of them being worked on.
struct Jobs {
    first: Cell<Link>,
    stage: Cell<Stage>,
}

/// How far the first has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Cores may have its tables loaded.
    Forget,
    /// Something may be mapped.
    Dismantle,
    /// Capabilities may be left.
    Drain,
}

/// Priorities of real-time threads: the lowest, and the highest that is below a deadline's.
const LOWEST: u32 = SchedSpec::REAL_TIME_LOWEST as u32;
const HIGHEST: u32 = u8::MAX as u32;

/// Slots that one step looks at: some 300 instructions for each with a derived capability.
const SLOTS_PER_STEP: usize = 48;

/// Has a process taken down (V3), by this core.
pub(crate) fn begin(irq: &IrqOff, process: Ref<Process>) {
    let jobs = JOBS.owned(irq);
    let at = process.as_ptr();
    core::mem::forget(process);
    // SAFETY: the reference that was just forgotten keeps it.
    let own = unsafe { at.as_ref() };
    let status = own.status();
    trace::event(irq, Event::ProcessExit, own.id(), status.code, status.reason as u32);
    match jobs.first.get() {
        None => {
            jobs.first.set(Some(at));
            jobs.stage.set(Stage::Forget);
        }
        Some(first) => {
            // Behind the one that is being worked on.
            // SAFETY: in the list, so kept by the list's reference.
            let first = unsafe { first.as_ref() };
            own.job.set(first.job.replace(Some(at)));
        }
    }
    HEAD.owned(irq).raise(pending::WORK);
}

/// Has this core give a memory object's frames back.
///
/// # Safety
/// 1. `frame` is the own frame of an object to which no reference is left, and it is not used any more.
#[cold]
pub(crate) unsafe fn end_object(irq: &IrqOff, frame: FrameId) {
    // SAFETY: obligation 1.
    unsafe { ORPHANS.owned(irq).add(frame) };
    let owed = OWED.owned(irq);
    let priority = dispatch::running(irq).map_or(0, |thread| thread.context().task.priority());
    if priority <= HIGHEST {
        owed.set(owed.get().max(priority));
    }
    HEAD.owned(irq).raise(pending::WORK);
}

/// Gives back some of the frames of such an object; `false` if there is none.
pub(crate) fn end_some(irq: &IrqOff) -> bool {
    ORPHANS.owned(irq).step(&mut Tap::new(irq))
}

/// Whether this core has something to take down.
pub(crate) fn has_work(irq: &IrqOff) -> bool {
    JOBS.owned(irq).first.get().is_some() || !ORPHANS.owned(irq).is_empty()
}

/// Does a bounded step, unless somebody urgent can run; `false` if it did nothing.
pub(crate) fn step(irq: &mut IrqOff) -> bool {
    if !has_work(irq) {
        return false;
    }
    let owed = OWED.owned(irq);
    if !SCHED.owned(irq).has_above(owed.get().max(LOWEST - 1)) && end_some(irq) {
        return true;
    }
    if ORPHANS.owned(irq).is_empty() {
        owed.set(0);
    }
    if SCHED.owned(irq).has_urgent() {
        return false;
    }
    let jobs = JOBS.owned(irq);
    let Some(first) = jobs.first.get() else { return false };
    // SAFETY: in the list, so kept by the list's reference.
    let process = unsafe { first.as_ref() };
    let next = match jobs.stage.get() {
        // A few thousand instructions at most, on another core. Without the hint an emulator with one thread for all cores lets that go on
        // ten times a second, and in between this core does nothing else.
        Stage::Forget if process.has_guests() => {
            core::hint::spin_loop();
            Stage::Forget
        }
        Stage::Forget => {
            spaces::forget(irq, process.space());
            Stage::Dismantle
        }
        // SAFETY: no thread is left in the space, and whoever worked on it from outside is done (`has_guests`); every core has forgotten it.
        Stage::Dismantle => match unsafe { process.space().dismantle(&mut Tap::new(irq)) } {
            Progress::More(()) => Stage::Dismantle,
            Progress::Done(()) => Stage::Drain,
        },
        Stage::Drain => match process.capabilities().drain(irq, SLOTS_PER_STEP) {
            Drained::More => Stage::Drain,
            Drained::Done => return finish(irq, process),
        },
    };
    JOBS.owned(irq).stage.set(next);
    true
}

fn finish(irq: &mut IrqOff, process: &Process) -> bool {
    let jobs = JOBS.owned(irq);
    let at = NonNull::from_ref(process);
    jobs.first.set(process.job.take());
    jobs.stage.set(Stage::Forget);
    // SAFETY: once, here; nobody has a thread in the space, and no core its tables.
    let space = unsafe { process.take_space() };
    spaces::close(irq, space);
    process.capabilities().free(irq);
    irq.locks(|held| spread::release_all(held, process.id()));
    process.set_state(ProcessState::Ended);
    process.trim();
    irq.locks(|held| {
        handler::clear(held, process);
        tell(held, process);
    });
    // SAFETY: the list's reference, given up with the place in it.
    drop(unsafe { Ref::adopt(at) });
    true
}

/// Tells whoever waits for its end.
fn tell(held: &mut Held<'_, 0>, process: &Process) {
    let ExitStatus { code, .. } = process.status();
    wait::wake(held, wait::Key::object(NonNull::from_ref(process)), u64::MAX, 0, code);
    harness::notice(held);
}
