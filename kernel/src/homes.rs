//! Threads and their homes: waking, moving, starting, stopping and ending them, from their own core or another (Y1, Y2).

use core::ptr::NonNull;

use abi::debug::{Counter, TraceEvents};
use abi::error::Error;
use abi::task::SchedSpec;
use percpu::mailbox::{self, Deliver, Kick, Node, Urgency};
use percpu::{CoreId, Held, Ipi, IrqOff};
use perf::trace::Event;
use sched::{Class, Decision, Ready, Stop};

use crate::arch::ipi::Interrupts;
use crate::arch::user::{HEAD, extra, pending};
use crate::arch::{timer, tsc};
use crate::dispatch::{self, SCHED};
use crate::object::Ref;
use crate::process::Process;
use crate::thread::{State, Thread, ThreadRef};
use crate::{inherit, metrics, notification, spread, talk, trace, upcall, wait};

/// Lets a thread that was taken out of its list (Y3), with its results written, go on at its home.
#[inline]
pub(crate) fn send_home(held: &mut Held<'_, 0>, thread: ThreadRef) {
    send::<false>(held, thread);
}

/// As [`send_home`], a receiver whose caller presses it (`inherit::calls`): one message for both.
pub(crate) fn send_home_pressed(held: &mut Held<'_, 0>, receiver: ThreadRef) {
    send::<true>(held, receiver);
}

#[inline(always)]
fn send<const PRESSED: bool>(held: &mut Held<'_, 0>, thread: ThreadRef) {
    let place = thread.place.look();
    percpu::race_point!("homes.sent");
    let own = place.core == held.core();
    metrics::count(held, if own { Counter::WakesLocal } else { Counter::WakesRemote });
    if trace::enabled(held, TraceEvents::WAKE) {
        let waker = dispatch::running(held).map_or(0, |waker| waker.id());
        trace::event(held, Event::Ready, thread.id(), waker, place.core.index() as u32);
    }
    if !own {
        return post(thread, place.core, if PRESSED { deliver_pressed } else { deliver_wake });
    }
    receive(held, thread);
    if PRESSED {
        inherit::called(held, thread);
    }
}

/// As [`send_home`], but never at once, also if this core is the home.
pub(crate) fn send_message(thread: ThreadRef) {
    post(thread, thread.place.look().core, deliver_wake);
}

/// Sends a thread's node to a core.
#[inline(always)]
fn post(thread: ThreadRef, to: CoreId, deliver: Deliver) {
    let inbox = mailbox::INBOX.of(to).expect("Y1: a home is a core that runs");
    let node = NonNull::from_ref(&thread.node);
    // SAFETY: one thread is in at most one inbox (Y2): the caller has just taken it out of where it was. It lives until it has ended, which
    // happens at its home, after delivery; both functions expect the node of a living thread.
    if unsafe { inbox.push(node, deliver, Urgency::Eager) } == Kick::Interrupt {
        Interrupts.send(to);
    }
}

/// # Safety
/// 1. `node` is that of a living thread whose home this core is.
unsafe fn deliver_wake(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1.
    receive(held, unsafe { ThreadRef::of_node(node) });
}

/// # Safety
/// 1. As for [`deliver_wake`]; the thread has been given a call.
unsafe fn deliver_pressed(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1.
    let thread = unsafe { ThreadRef::of_node(node) };
    receive(held, thread);
    inherit::called(held, thread);
}

/// # Safety
/// 1. `node` is that of a living thread that was sent to this core to live on.
unsafe fn deliver_arrival(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1.
    let thread = unsafe { ThreadRef::of_node(node) };
    thread.place.settle(held.core());
    let arrived = SCHED.owned(held).arrive(thread, tsc::now());
    arrived.expect("Y1: a thread with a deadline stays on the core that promised it");
    thread.migrations.set(thread.migrations.get() + 1);
    metrics::count(held, Counter::Migrations);
    ready(held, thread, Ready::Arrived);
}

/// # Safety
/// 1. As for [`deliver_arrival`]; this core has asked for a thread.
unsafe fn deliver_stolen(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    metrics::count(held, Counter::StealsTaken);
    // SAFETY: obligation 1.
    unsafe { deliver_arrival(node, held) };
}

/// # Safety
/// 1. `node` is that of a thread that has not started and was sent to this core to be started here, with a count of its own.
unsafe fn deliver_new(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1.
    let thread = unsafe { ThreadRef::of_node(node) };
    thread.place.settle(held.core());
    // SAFETY: the count that `move_new` has taken.
    drop(unsafe { Ref::adopt(thread.as_ptr()) });
}

/// # Safety
/// 1. `node` is that of a thread that never started, whose home this core is, and that nobody refers to any more.
unsafe fn deliver_last(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1.
    let thread = unsafe { ThreadRef::of_node(node) };
    SCHED.owned(held).leave(thread);
    dispatch::show_promised(held);
    // SAFETY: obligation 1.
    unsafe { Thread::bury(thread, held) };
}

/// Has a thread that never started, and that nobody refers to any more, give back at its home what it was promised there.
pub(crate) fn send_last(thread: ThreadRef) {
    post(thread, thread.place.look().core, deliver_last);
}

/// Gives a thread that has not started another home. At its home.
fn move_new(held: &mut Held<'_, 0>, thread: ThreadRef) {
    // Its node is on its way: the thread must not go with its last reference.
    thread.keep();
    let to = spread::target(held, thread);
    SCHED.owned(held).leave(thread);
    thread.place.depart(to);
    post(thread, to, deliver_new);
}

/// A thread of this core has been woken.
#[inline]
fn receive(held: &mut Held<'_, 0>, thread: ThreadRef) {
    if dispatch::running(held) == Some(thread) {
        // It has enlisted and not left the core yet: `dispatch::block` finds this.
        thread.woken.set(true);
        return;
    }
    // One that was killed after it had been taken out still says so.
    if thread.state.is_direct(dispatch::mark(held)) && !thread.doomed.get() {
        thread.state.set(State::Runnable);
        return queue_timed(held, thread, Ready::Woken);
    }
    SCHED.owned(held).disarm(thread);
    ready(held, thread, Ready::Woken);
}

/// A thread of this core can run: unless it has to end, is stopped, or belongs elsewhere now.
#[inline]
pub(crate) fn ready(held: &mut Held<'_, 0>, thread: ThreadRef, why: Ready) {
    if thread.doomed.get()
        || thread.suspended.get()
        || thread.watch.is_watched()
        || !spread::may_run_here(held, thread)
    {
        return ready_if_it_may(held, thread, why);
    }
    thread.state.set(State::Runnable);
    queue_timed(held, thread, why);
}

/// The rest of [`ready`]: something is to be done first, or instead.
#[inline(never)]
fn ready_if_it_may(held: &mut Held<'_, 0>, thread: ThreadRef, why: Ready) {
    if thread.doomed.get() {
        return finish(held, thread);
    }
    upcall::unblocked(held, thread);
    if thread.suspended.get() {
        thread.state.set(State::Parked);
        return;
    }
    thread.state.set(State::Runnable);
    if !spread::may_run_here(held, thread) {
        talk::part(held, thread);
        let to = spread::target(held, thread);
        return depart(held, thread, to);
    }
    queue_timed(held, thread, why);
}

/// Queues a thread that can run; now and then it is measured how long it waits for its turn.
#[inline(always)]
fn queue_timed(irq: &IrqOff, thread: ThreadRef, why: Ready) {
    let now = tsc::now();
    if metrics::times_wake(irq) {
        thread.ready_since.set(now);
        thread.set_extra(extra::WOKEN, true);
    }
    let decision = SCHED.owned(irq).ready(thread.context(), now, why);
    act_on(irq, decision, now);
}

/// As [`send_home`], for one that mostly waits on this core and can be switched to there: then there is nothing to do but to queue it.
#[inline(always)]
pub(crate) fn send_home_directly(irq: &mut IrqOff, thread: ThreadRef) {
    let traced = HEAD.owned(irq).extras() & extra::TRACE != 0;
    if traced || !thread.state.is_direct(dispatch::mark(irq)) {
        return irq.locks(|held| send_home(held, thread));
    }
    thread.state.set(State::Runnable);
    metrics::count(irq, Counter::WakesLocal);
    queue_timed(irq, thread, Ready::Woken);
}

/// Queues the context on which a thread runs that can.
pub(crate) fn queue(irq: &IrqOff, thread: ThreadRef, why: Ready) {
    let now = tsc::now();
    let decision = SCHED.owned(irq).ready(thread.context(), now, why);
    act_on(irq, decision, now);
}

/// Has a decision of the scheduler's looked at before this core goes on.
#[inline(always)]
pub(crate) fn act_on(irq: &IrqOff, decision: Decision, now: u64) {
    if decision == Decision::Preempt {
        HEAD.owned(irq).raise(pending::RESCHEDULE);
    } else if timer::armed(irq) > SCHED.owned(irq).at_least_until(now) {
        // The current thread may have to give way some time.
        HEAD.owned(irq).raise(pending::TIMER);
    }
}

/// Sends a runnable thread that is on no queue to another core to live there.
pub(crate) fn depart(held: &mut Held<'_, 0>, thread: ThreadRef, to: CoreId) {
    trace::event(held, Event::Migrate, thread.id(), held.core().index() as u64, to.index() as u32);
    send_away(held, thread, to, deliver_arrival);
}

/// As [`depart`], to a core that has asked for a thread.
pub(crate) fn yield_to_thief(held: &mut Held<'_, 0>, thread: ThreadRef, to: CoreId) {
    metrics::count(held, Counter::StealsGiven);
    trace::event(held, Event::Steal, thread.id(), held.core().index() as u64, to.index() as u32);
    send_away(held, thread, to, deliver_stolen);
}

fn send_away(held: &mut Held<'_, 0>, thread: ThreadRef, to: CoreId, deliver: Deliver) {
    SCHED.owned(held).leave(thread);
    dispatch::save_state(held, thread);
    thread.place.depart(to);
    percpu::race_point!("homes.departed");
    post(thread, to, deliver);
}

/// Runs `f` at a thread's home, and returns what it returns. While this core waits for the other, it serves its own messages.
pub(crate) fn at_home(
    irq: &mut IrqOff,
    thread: &Ref<Thread>,
    f: impl Fn(&mut Held<'_, 0>, ThreadRef) -> u64 + Sync,
) -> u64 {
    // SAFETY: the counted reference keeps the thread for as long as this runs.
    let thread = unsafe { ThreadRef::new(thread.as_ptr()) };
    percpu::place::at_home(irq, &Interrupts, &thread.place, |held| f(held, thread))
}

/// A thread may not run on this core any more. At its home, which this core is.
pub(crate) fn leave_core(held: &mut Held<'_, 0>, thread: ThreadRef) {
    if dispatch::running(held) == Some(thread) {
        HEAD.owned(held).raise(pending::STOP);
        return;
    }
    match thread.state.get() {
        State::Runnable => {
            dispatch::stop_running(held, thread, Stop::Suspended);
            talk::part(held, thread);
            let to = spread::target(held, thread);
            depart(held, thread, to);
        }
        State::New => move_new(held, thread),
        // As soon as it could run.
        State::Blocked | State::Asleep | State::Parked | State::Ended => thread.state.wait_plainly(),
    }
}

/// Says how a thread is scheduled. At its home.
///
/// # Errors
/// [`Error::BadArgument`], [`Error::NotAdmitted`]; [`Error::WrongState`] if it has ended, or for a deadline if it is about to leave this core:
/// what is promised to a deadline is promised for good.
pub(crate) fn configure(held: &mut Held<'_, 0>, thread: ThreadRef, spec: &SchedSpec) -> Result<(), Error> {
    let leaves = spec.class == SchedSpec::DEADLINE && !spread::may_run_here(held, thread);
    if leaves || thread.state.get() == State::Ended {
        return Err(Error::WrongState);
    }
    let decision = SCHED.owned(held).configure(thread, spec, tsc::now())?;
    act_on(held, decision, tsc::now());
    inherit::configured(held, thread);
    dispatch::show_promised(held);
    Ok(())
}

/// Starts a thread that has not started. At its home, which is this core.
///
/// # Errors
/// [`Error::WrongState`].
pub(crate) fn start(held: &mut Held<'_, 0>, thread: ThreadRef) -> Result<(), Error> {
    if thread.state.get() != State::New || !thread.process().is_running() {
        return Err(Error::WrongState);
    }
    // A thread that has started keeps itself until it has ended.
    thread.keep();
    if thread.suspended.get() {
        thread.state.set(State::Parked);
        return Ok(());
    }
    thread.state.set(State::Runnable);
    // With a deadline it lives where that was promised.
    let bound = sched::Entity::task(&thread).class() == Class::Deadline;
    let to = if bound { held.core() } else { spread::target(held, thread) };
    if to == held.core() {
        let decision = SCHED.owned(held).ready(thread, tsc::now(), Ready::New);
        act_on(held, decision, tsc::now());
    } else {
        depart(held, thread, to);
    }
    Ok(())
}

/// Stops a thread until it is resumed. At its home.
///
/// # Errors
/// [`Error::WrongState`] if it has ended.
pub(crate) fn suspend(held: &mut Held<'_, 0>, thread: ThreadRef) -> Result<(), Error> {
    if thread.state.get() == State::Ended {
        return Err(Error::WrongState);
    }
    thread.suspended.set(true);
    thread.state.wait_plainly();
    if dispatch::running(held) == Some(thread) {
        HEAD.owned(held).raise(pending::STOP);
    } else if thread.state.get() == State::Runnable {
        dispatch::stop_running(held, thread, Stop::Suspended);
        thread.state.set(State::Parked);
    }
    Ok(())
}

/// Lets a suspended thread go on. At its home.
///
/// # Errors
/// [`Error::WrongState`] if it is not suspended.
pub(crate) fn resume(held: &mut Held<'_, 0>, thread: ThreadRef) -> Result<(), Error> {
    if !thread.suspended.replace(false) || thread.state.get() == State::Ended {
        return Err(Error::WrongState);
    }
    if thread.state.get() == State::Parked {
        ready(held, thread, Ready::New);
    }
    Ok(())
}

/// Ends a thread as soon as nothing else holds it. At its home.
pub(crate) fn kill(held: &mut Held<'_, 0>, thread: ThreadRef, code: u64) {
    if thread.state.get() == State::Ended || thread.doomed.replace(true) {
        return;
    }
    thread.set_code(code);
    if dispatch::running(held) == Some(thread) {
        HEAD.owned(held).raise(pending::STOP);
        return;
    }
    match thread.state.get() {
        State::New => finish_new(held, thread),
        State::Runnable => {
            dispatch::stop_running(held, thread, Stop::Suspended);
            finish(held, thread);
        }
        State::Parked => finish(held, thread),
        State::Asleep => {
            SCHED.owned(held).disarm(thread);
            finish(held, thread);
        }
        State::Blocked => {
            // If somebody has woken it, it is on its way here, and ends on arrival.
            if wait::delist(held, thread) {
                SCHED.owned(held).disarm(thread);
                finish(held, thread);
            }
        }
        State::Ended => {}
    }
}

/// Ends a thread that never started.
fn finish_new(held: &mut Held<'_, 0>, thread: ThreadRef) {
    thread.keep();
    finish(held, thread);
}

/// The end of a thread that is on no queue and not current: whoever waits for it is told, and it gives up itself.
pub(crate) fn finish(held: &mut Held<'_, 0>, thread: ThreadRef) {
    inherit::ended(held, thread);
    talk::abandon(held, thread);
    // That there is none is as good.
    let _ = notification::unbind(thread);
    SCHED.owned(held).leave(thread);
    dispatch::save_state(held, thread);
    drop(thread.fpu.take());
    thread.set_ended();
    trace::event(held, Event::ThreadExit, thread.id(), thread.exit_code().unwrap_or(0), 0);
    upcall::ended(held, thread);
    let code = thread.exit_code().unwrap_or(0);
    wait::wake(held, wait::Key::object(thread.as_ptr()), u64::MAX, 0, code);
    let ticks = sched::Entity::task(&thread).ticks();
    Process::thread_ended(thread.process().clone(), held, thread, ticks);
    // SAFETY: the count that it took when it started, given up once: here.
    drop(unsafe { Ref::adopt(thread.as_ptr()) });
}
