//! Giving cores to threads: the mechanism under `sched`, which decides.
//!
//! Each core runs [`serve_threads`] at the bottom of its stack: it delivers messages, picks a thread, and resumes it. A thread enters the
//! kernel on the empty stack and either goes on at once (`user.S`), or through [`leave`], which looks at what is pending, or not at all:
//! then [`dispatch`] gives the stack up and starts the loop again. Nothing ever waits on a kernel stack.
//!
//! Threads live on a core (Y1). What another core wants of one it sends (`homes::send_home`, one compare-exchange) or asks for
//! (`homes::at_home`, a call). Idle cores ask a loaded one for a thread; loaded ones look for idle ones every [`BALANCE_HZ`]th of a second.

use core::cell::Cell;
use core::ptr::NonNull;

use abi::debug::Counter;
use abi::error::Error;
use abi::task::{NEVER, ThreadState};
use percpu::mailbox;
use percpu::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use percpu::{Held, IrqOff, core_local, epoch};
use perf::trace::Event;
use sched::{Decision, Ready, Stop, Tunables};

use crate::arch::user::{self, HEAD, extra, pending};
use crate::arch::{fpu, timer, tsc};
use crate::thread::{State, Thread, ThreadRef};
use crate::{
    alarm, cores, expiry, homes, jobs, limits, machine, metrics, spaces, spread, talk, trace, upcall, wait,
};

/// How often a loaded core looks for an idle one, per second (FEATURES 24).
pub(crate) const BALANCE_HZ: u64 = 10;

/// How often a core with something retired looks whether it is ripe, per second.
const RIPE_HZ: u64 = 1000;

core_local! {
    /// Who runs on this core, and who could.
    pub(crate) static SCHED: sched::Core<ThreadRef> = const { sched::Core::new(Tunables::at(1_000_000)) };
    /// The rest of what this core keeps for its threads.
    static HERE: Here = const { Here {
        state: Cell::new(None),
        condition: Cell::new(None),
        until: Cell::new(NEVER),
        retry: Cell::new(NEVER),
        retired: Cell::new(0),
        balance: Cell::new(0),
    } };
    /// What this core shows of its load.
    pub(crate) static SHOWN: Shown = Shown { load: AtomicU32::new(0), promised: AtomicU64::new(0) };
}

/// When a core that serves may stop; see [`serve_until`].
type Condition = &'static dyn Fn() -> bool;

struct Here {
    /// The thread whose extended state is in the registers; none if they are blocked.
    state: Cell<Option<ThreadRef>>,
    condition: Cell<Option<Condition>>,
    /// When it stops serving whoever can run.
    until: Cell<u64>,
    /// When to look again whether something retired is ripe.
    retry: Cell<u64>,
    /// Objects retired since it looked.
    retired: Cell<u32>,
    /// When to look for idle cores.
    balance: Cell<u64>,
}

/// What other cores may look at.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `load` | its core | whoever spreads threads | Relaxed: a hint |
/// | `promised` | its core | reports | Relaxed: a figure |
#[repr(align(64))]
pub(crate) struct Shown {
    /// Threads that could run there, the current one included.
    pub(crate) load: AtomicU32,
    /// Parts per million of its time that deadlines have been promised.
    pub(crate) promised: AtomicU64,
}

/// Sets up what this core needs, once the clock is known.
pub(crate) fn enter(irq: &IrqOff) {
    let (hertz, _) = machine::clock();
    SCHED.owned(irq).set_tunables(Tunables::at(hertz / 1000));
}

/// The thread that is current on this core.
///
/// Called by system calls and traps of ring 3 only, where there is one.
#[inline(always)]
pub(crate) fn current(irq: &IrqOff) -> ThreadRef {
    let thread = HEAD.owned(irq).current().cast_mut();
    // SAFETY: inside a system call or a trap of ring 3 a thread is current, hence not null, and has not ended.
    let thread = unsafe { NonNull::new_unchecked(thread) };
    // SAFETY: as above.
    unsafe { ThreadRef::new(thread) }
}

/// The current thread, if there is one.
pub(crate) fn running(irq: &IrqOff) -> Option<ThreadRef> {
    // SAFETY: a current thread has not ended.
    NonNull::new(HEAD.owned(irq).current().cast_mut()).map(|thread| unsafe { ThreadRef::new(thread) })
}

/// What threads note that wait on this core and can be switched to (`thread::Doing`): never 0.
#[inline(always)]
pub(crate) fn mark(irq: &IrqOff) -> u32 {
    HEAD.owned(irq).mark()
}

/// A thread that runs, or could, stops: its scheduling context leaves the core, or its queue.
pub(crate) fn stop_running(irq: &IrqOff, thread: ThreadRef, why: Stop) {
    let (sched, context) = (SCHED.owned(irq), thread.context());
    if sched.current() == Some(context) {
        sched.stop(tsc::now(), why);
    } else {
        sched.remove(context);
    }
}

/// Goes on with the thread that runs on the current scheduling context since a moment ago.
#[inline(always)]
pub(crate) fn hand_over(irq: &mut IrqOff, thread: ThreadRef) -> ! {
    let head = HEAD.owned(irq);
    if head.is_pending() {
        reconsider(irq, thread);
    }
    metrics::count(irq, Counter::Switches);
    let extras = thread.extras.get() | HEAD.owned(irq).extras();
    let now = if extras == 0 { 0 } else { tsc::now() };
    resume(irq, thread, now)
}

/// A thread of this core that has stopped waiting, and is nowhere, goes on: at once, instead of the current one, if it is more urgent, else when
/// its turn comes. In an interrupt of ring 3.
#[inline(always)]
pub(crate) fn overtake(irq: &mut IrqOff, thread: ThreadRef) {
    let head = HEAD.owned(irq);
    let plain = !head.is_pending() && head.extras() & extra::TRACE == 0;
    let now = tsc::now();
    if plain && SCHED.owned(irq).overtake(thread.context(), now) {
        metrics::count(irq, Counter::WakesLocal);
        metrics::count(irq, Counter::Preemptions);
        show_load(irq);
        arm_timer(irq, now);
        hand_over(irq, thread);
    }
    irq.locks(|held| homes::send_home(held, thread));
}

/// What has come up while the current context was handed over.
#[cold]
#[inline(never)]
fn reconsider(irq: &mut IrqOff, thread: ThreadRef) {
    let bits = HEAD.owned(irq).take();
    if bits & (pending::RESCHEDULE | pending::WORK) != 0 {
        let sched = SCHED.owned(irq);
        // One that has lost its turn meanwhile is on a queue already (`talk::recall`), and stays there.
        if sched.current() == Some(thread.context()) {
            sched.stop(tsc::now(), Stop::Preempted);
        }
        dispatch(irq, ThreadState::Runnable)
    }
    if bits & pending::TIMER != 0 {
        timer::arm_before(irq, next_event(irq, tsc::now()));
    }
}

/// Shows how loaded this core is now.
#[inline(always)]
fn show_load(irq: &IrqOff) -> u32 {
    let load = SCHED.owned(irq).load() as u32;
    // ORDER: Relaxed: a hint.
    SHOWN.local(irq).load.store(load, Ordering::Relaxed);
    load
}

/// Goes on with the thread that was just picked; `due` is [`next_timed`] of before.
#[inline(always)]
fn enter_thread(irq: &mut IrqOff, context: ThreadRef, now: u64, due: u64) -> ! {
    let load_now = show_load(irq);
    let (armed, event) = (timer::armed(irq), SCHED.owned(irq).at_least_for(context, now).min(due));
    // With nothing armed, whoever else waits for this thread's turn to end has to be thought of.
    if armed > event.min(next_untimed(irq)) || armed == NEVER && load_now > 1 {
        timer::arm_before(irq, next_event(irq, now));
    }
    metrics::count(irq, Counter::Switches);
    let at = load(irq, context.runner(), now);
    metrics::switched(irq, tsc::now().saturating_sub(now));
    // SAFETY: as in `resume`.
    unsafe { user::resume(at) }
}

/// Sees to it that the timer rings before anything is due; mostly it does so already. With nothing armed, as after it has rung, all is looked
/// at; otherwise what is armed is early enough for all but what has come up since, in the scheduler. A yield adds nothing.
#[inline(always)]
fn arm_timer(irq: &IrqOff, now: u64) {
    let sched = SCHED.owned(irq);
    if timer::armed(irq) >= sched.at_least_until(now).min(sched.due_for_others()) {
        timer::arm_before(irq, next_event(irq, now));
    }
}

/// Loads what a thread needs in ring 3, and goes there.
#[inline(always)]
fn resume(irq: &mut IrqOff, thread: ThreadRef, now: u64) -> ! {
    let at = load(irq, thread, now);
    // SAFETY: everything is loaded, and a thread's frame keeps R2: `Thread::new` checked the addresses, the CPU wrote the rest.
    unsafe { user::resume(at) }
}

/// Makes a thread current and loads what it needs in ring 3; says where it lies.
#[inline(always)]
fn load(irq: &mut IrqOff, thread: ThreadRef, now: u64) -> *const Thread {
    let head = HEAD.owned(irq);
    let at = thread.as_ptr().as_ptr().cast_const();
    // SAFETY: a picked thread has not ended, and does not before it has left the core.
    unsafe { head.set_current(at) };
    head.take();
    spaces::enter(irq, thread.space());
    // Extended state, a segment base, a wake to be timed, tracing: mostly there is none of it, neither the thread's nor its predecessor's.
    if thread.extras.get() | head.extras() != 0 {
        load_extras(irq, thread, now);
    }
    at
}

/// See [`load`].
#[inline(never)]
fn load_extras(irq: &IrqOff, thread: ThreadRef, now: u64) {
    if thread.ready_since.get() != 0 {
        metrics::woken(irq, now.saturating_sub(thread.ready_since.take()));
        thread.set_extra(extra::WOKEN, false);
    }
    trace::switched(irq, || thread.id());
    load_state(irq, thread);
    limits::load(irq, thread);
    user::load_fs_base(irq, thread.tls());
    HEAD.owned(irq).set_extra(extra::THREAD, thread.extras.get() != 0);
}

/// Puts a thread's extended state into the registers, or makes sure that nothing is in them that is not its own.
#[inline(always)]
fn load_state(irq: &IrqOff, thread: ThreadRef) {
    // SAFETY: the cell of a thread of this core (Y1), read while nothing writes it.
    let wanted = unsafe { (*thread.fpu.as_ptr()).is_some() }.then_some(thread);
    if HERE.owned(irq).state.get() != wanted {
        exchange_state(irq, wanted);
    }
}

#[inline(never)]
fn exchange_state(irq: &IrqOff, next: Option<ThreadRef>) {
    let here = HERE.owned(irq);
    let before = here.state.replace(next);
    HEAD.owned(irq).set_extra(extra::STATE, next.is_some());
    let area = |thread: &ThreadRef| thread.fpu.as_ptr();
    // SAFETY: the cells of threads of this core (Y1), read while nothing writes them.
    let before = before.as_ref().and_then(|thread| unsafe { (*area(thread)).as_ref() });
    // SAFETY: as above.
    let next = next.as_ref().and_then(|thread| unsafe { (*area(thread)).as_ref() });
    // SAFETY: the registers are those of the thread whose state was loaded last on this core, or blocked; its home is this core, as is the
    // next one's, so no other core uses their areas (Y1).
    unsafe { fpu::switch(irq, before, next) };
}

/// Puts a thread's extended state into the registers, in the place of that of the thread that was current until now, for `message.S`.
///
/// # Safety
/// 1. Interrupts are off, and no witness is in use. Both threads have extended state, and live on this core.
pub(crate) unsafe extern "C" fn enter_state(thread: ThreadRef) {
    // SAFETY: obligation 1.
    let irq = unsafe { IrqOff::assume() };
    exchange_state(&irq, Some(thread));
}

/// Takes a thread's extended state out of the registers, before another core runs it or it ends.
pub(crate) fn save_state(irq: &IrqOff, thread: ThreadRef) {
    if HERE.owned(irq).state.get() == Some(thread) {
        exchange_state(irq, None);
    }
}

/// When this core has to be interrupted at the latest.
fn next_event(irq: &IrqOff, now: u64) -> u64 {
    let here = HERE.owned(irq);
    let mut at = SCHED.owned(irq).next_event();
    at = at.min(here.retry.get()).min(here.until.get()).min(expiry::next(irq)).min(alarm::next(irq));
    if SCHED.owned(irq).load() > 1 && machine::topology().core_count() > 1 {
        at = at.min(here.balance.get().max(now));
    }
    at
}

/// The way back to ring 3 when something is pending; called by `user.S` with the current thread's results saved.
pub(crate) extern "C" fn leave() -> ! {
    // SAFETY: interrupts have been off since the core entered the kernel, and no other witness is in use: the stack is empty.
    let mut irq = unsafe { IrqOff::assume() };
    percpu::race_point!("dispatch.leave");
    announce(&mut irq);
    serve_inbox(&mut irq);
    // Taken last: a message may have raised `STOP` for the thread, which is not looked at again after another has been picked.
    let bits = HEAD.owned(&irq).take();
    let thread = current(&irq);
    if bits & pending::STOP != 0 {
        stop_current(&mut irq, thread);
    }
    if bits & (pending::RESCHEDULE | pending::WORK) != 0 {
        SCHED.owned(&irq).stop(tsc::now(), Stop::Preempted);
        metrics::count(&irq, Counter::Preemptions);
        dispatch(&mut irq, ThreadState::Runnable);
    }
    let now = tsc::now();
    show_load(&irq);
    timer::arm_before(&irq, next_event(&irq, now));
    resume(&mut irq, thread, now)
}

/// Delivers this core's messages.
#[inline(always)]
pub(crate) fn serve_inbox(irq: &mut IrqOff) {
    if !mailbox::INBOX.local(irq).is_quiet() {
        deliver(irq);
    }
}

#[inline(never)]
fn deliver(irq: &mut IrqOff) {
    mailbox::serve_own(irq);
}

/// Objects that are retired before a busy core looks whether some are ripe.
const RETIRED_AT_ONCE: u32 = 16;

/// Announces that this core has left the kernel; now and then gives back what is ripe.
#[inline(always)]
fn announce(irq: &mut IrqOff) {
    epoch::pass(irq);
    if HERE.owned(irq).retired.get() >= RETIRED_AT_ONCE {
        collect(irq);
    }
}

/// Announces that this core has left the kernel, gives back what is ripe, and notes when to look again. Whoever has held it up until then is
/// hurried, by a core that sleeps as well as by one that runs programs.
#[inline(never)]
fn collect(irq: &mut IrqOff) {
    epoch::leave_kernel(irq, machine::topology().core_count());
    let here = HERE.owned(irq);
    here.retired.set(0);
    if !epoch::has_retired(irq) {
        return here.retry.set(NEVER);
    }
    let (now, due) = (tsc::now(), here.retry.get());
    if due <= now {
        spread::hurry(irq);
    }
    if due <= now || due == NEVER {
        here.retry.set(now + machine::clock().0 / RIPE_HZ);
    }
}

/// Something has been retired: it is looked at when there is enough of it, when this core has nothing to do, or after a while.
pub(crate) fn note_retired(irq: &IrqOff) {
    let here = HERE.owned(irq);
    here.retired.set(here.retired.get() + 1);
    if here.retry.get() == NEVER {
        let at = tsc::now() + machine::clock().0 / RIPE_HZ;
        here.retry.set(at);
        timer::arm_before(irq, at);
    }
}

/// Nobody runs on this core any more, and nothing on its stack is needed: goes on with whoever comes next. `left` is what the thread does
/// that has given the core up.
pub(crate) fn dispatch(irq: &mut IrqOff, left: ThreadState) -> ! {
    HEAD.owned(irq).clear_current();
    trace::left(irq, left);
    // SAFETY: a core that has had a thread serves; whoever calls this is through.
    unsafe { user::again(serve_threads) }
}

/// What a core does for ever, or until its condition holds: messages, timeouts, work in steps, threads, and sleep.
pub(crate) extern "C" fn serve_threads() -> ! {
    // SAFETY: interrupts are off in the kernel, and the stack is empty: no other witness is in use.
    let mut irq = unsafe { IrqOff::assume() };
    loop {
        announce(&mut irq);
        serve_inbox(&mut irq);
        let now = tsc::now();
        let mut due = next_timed(&irq);
        if due <= now {
            attend(&mut irq, now);
            due = next_timed(&irq);
        }
        if jobs::has_work(&irq) || expiry::has_work(&irq, now) {
            // What a device wants comes before a step: whatever led here has had interrupts off for a while.
            // SAFETY: no thread is current, and nothing of this core's is in use here.
            unsafe { cores::let_in(&mut irq) };
            if jobs::step(&mut irq)
                || expiry::has_work(&irq, now) && !SCHED.owned(&irq).has_urgent() && expiry::step(&irq)
            {
                // SAFETY: as above. Messages and times are looked at before the next one.
                unsafe { cores::let_in(&mut irq) };
                continue;
            }
        }
        if let Some(context) = SCHED.owned(&irq).pick(now) {
            enter_thread(&mut irq, context, now, due);
        }
        show_load(&irq);
        if HERE.owned(&irq).retry.get() != NEVER {
            collect(&mut irq);
            // What was given back may have been the last thread of a process that ends, or a lease for whose end somebody waits here.
            if jobs::has_work(&irq) || SCHED.owned(&irq).load() != 0 {
                continue;
            }
        }
        if HERE.owned(&irq).condition.get().is_some_and(|condition| condition()) {
            // SAFETY: no thread is current, and the stack above is done with.
            unsafe { user::stop_serving() };
        }
        spread::beg(&mut irq);
        // With nothing to run, that is all there is.
        timer::arm_before(&irq, due.min(next_untimed(&irq)));
        trace::switched(&irq, || 0);
        cores::rest(&mut irq);
        metrics::add(&irq, Counter::IdleTicks, tsc::now().saturating_sub(now));
        metrics::count(&irq, Counter::IdleSleeps);
    }
}

/// When something has to be done that the loop looks for, apart from what runs.
#[inline(always)]
fn next_timed(irq: &IrqOff) -> u64 {
    SCHED.owned(irq).next_event().min(alarm::next(irq)).min(HERE.owned(irq).until.get())
}

/// When something has to be done that waits for the timer, or for a core with nothing else to do.
#[inline(always)]
fn next_untimed(irq: &IrqOff) -> u64 {
    HERE.owned(irq).retry.get().min(expiry::next(irq))
}

/// Does what is due ([`next_timed`]), or begins to; no thread is current. Does not come back if the core is to stop serving.
#[inline(never)]
fn attend(irq: &mut IrqOff, now: u64) {
    if SCHED.owned(irq).next_event() <= now {
        // Nobody is current: what it decides is who can be picked.
        let _decision = SCHED.owned(irq).tick(now);
        expire(irq, now);
    }
    if alarm::next(irq) <= now {
        alarm::ring(irq, now);
    }
    if now >= HERE.owned(irq).until.get() {
        show_load(irq);
        // SAFETY: no thread is current, and the stack above is done with.
        unsafe { user::stop_serving() };
    }
}

/// Gives this core to threads until none can run on it and the condition holds, which is looked at whenever the core has nothing to do, or
/// until the time comes, whoever can run. Who makes the condition true sends this core something.
///
/// # Safety
/// 1. The caller has no core-local data in use, as with `cores::expose`.
pub(crate) unsafe fn serve_until(irq: &mut IrqOff, condition: &dyn Fn() -> bool, time: u64) {
    // SAFETY: only the lifetime changes; the reference is taken back below, before it ends.
    let condition = unsafe { core::mem::transmute::<&dyn Fn() -> bool, Condition>(condition) };
    HERE.owned(irq).condition.set(Some(condition));
    HERE.owned(irq).until.set(time);
    // SAFETY: obligation 1; `serve_threads` comes back by `stop_serving`.
    unsafe { user::serve(serve_threads) };
    HERE.owned(irq).condition.set(None);
    HERE.owned(irq).until.set(NEVER);
}

/// Gives this core to threads for ever.
pub(crate) fn serve_for_ever() -> ! {
    // SAFETY: the caller never comes back to anything that it uses.
    unsafe { user::serve(serve_threads) };
    unreachable!("Y1: a core without a condition serves for ever")
}

/// Ends the waits whose time has come.
fn expire(irq: &mut IrqOff, now: u64) {
    while let Some(thread) = SCHED.owned(irq).expired(now) {
        metrics::count(irq, Counter::WakesLocal);
        trace::event(irq, Event::Ready, thread.id(), 0, irq.core().index() as u32);
        irq.locks(|held| time_out(held, thread));
    }
}

fn time_out(held: &mut Held<'_, 0>, thread: ThreadRef) {
    if thread.state.get() == State::Asleep {
        thread.answer(0, thread.take_value());
    } else if wait::delist(held, thread) {
        thread.answer(Error::TimedOut as u64, 0);
    } else {
        // Somebody has woken it, and it is on its way.
        return;
    }
    homes::ready(held, thread, Ready::Woken);
}

/// The current thread gives way to another of its priority, if there is one; what it called returns success.
#[inline(always)]
pub(crate) fn yield_now(irq: &mut IrqOff) {
    let sched = SCHED.owned(irq);
    let Some((next, now)) = sched.yield_at(tsc::now) else { return };
    current(irq).answer(0, 0);
    if timer::armed(irq) > sched.at_least_for(next, now) {
        timer::arm_before(irq, next_event(irq, now));
    }
    // It is not announced that this core leaves the kernel: who waits for that interrupts it (`spread::hurry`).
    metrics::count(irq, Counter::Switches);
    resume(irq, next.runner(), now)
}

/// Goes on at once with a thread of this core that waited, can be switched to directly and was taken out of where it waited, if it is more urgent
/// than the current one, which has its results. Returns if not, and nothing was done.
#[inline(always)]
pub(crate) fn overtake_in_call(irq: &mut IrqOff, thread: ThreadRef) {
    let (head, sched) = (HEAD.owned(irq), SCHED.owned(irq));
    if head.is_pending() || head.extras() != 0 {
        return;
    }
    let (context, now) = (thread.context(), tsc::now());
    if !sched.overtake(context, now) {
        return;
    }
    thread.state.set(State::Runnable);
    metrics::count(irq, Counter::WakesLocal);
    go_to(irq, context, thread, now)
}

/// Gives the core up for the current thread, which waits and can be switched to directly where it does. As [`block`] without a deadline, but
/// goes on with the next thread at once, if there is one and nothing else is to be done.
#[inline(always)]
pub(crate) fn give_way(irq: &mut IrqOff, thread: ThreadRef) -> ! {
    let (head, sched) = (HEAD.owned(irq), SCHED.owned(irq));
    if head.is_pending() || head.extras() != 0 || sched.current() != Some(thread.context()) {
        block(irq, NEVER)
    }
    let now = tsc::now();
    match sched.give_way(now) {
        Some(context) => go_to(irq, context, context.runner(), now),
        None => dispatch(irq, ThreadState::Blocked),
    }
}

/// As [`give_way`], for `message.S`, which has seen that nothing else is to be done: who goes on, with nothing but its space to be loaded. If there
/// is more to be done for whoever goes on, it does not return.
///
/// # Safety
/// 1. As for a system call's entry: interrupts are off, the stack is empty, no witness is in use.
/// 2. The current thread waits; neither it nor its core has anything of `extra`.
pub(crate) unsafe extern "C" fn give_way_in_message() -> *const Thread {
    // SAFETY: obligation 1.
    let mut irq = unsafe { IrqOff::assume() };
    let now = tsc::now();
    let Some(context) = SCHED.owned(&irq).give_way_shortly(now) else { give_way_after_all(&mut irq, now) };
    let thread = context.runner();
    if thread.extras.get() != 0 || timer::armed(&irq) > SCHED.owned(&irq).at_least_for(context, now) {
        go_to_after_all(&mut irq, context, now)
    }
    metrics::count(&irq, Counter::Switches);
    thread.as_ptr().as_ptr().cast_const()
}

#[inline(never)]
fn give_way_after_all(irq: &mut IrqOff, now: u64) -> ! {
    match SCHED.owned(irq).give_way(now) {
        Some(context) => go_to(irq, context, context.runner(), now),
        None => dispatch(irq, ThreadState::Blocked),
    }
}

#[cold]
#[inline(never)]
fn go_to_after_all(irq: &mut IrqOff, context: ThreadRef, now: u64) -> ! {
    go_to(irq, context, context.runner(), now)
}

/// Goes on with a thread that has just been made the scheduler's current one, from another one's system call that did nothing but that. It is
/// not announced that this core leaves the kernel: who waits for that interrupts it (`spread::hurry`). Who has come into its inbox has
/// interrupted it.
#[inline(always)]
fn go_to(irq: &mut IrqOff, context: ThreadRef, thread: ThreadRef, now: u64) -> ! {
    if timer::armed(irq) > SCHED.owned(irq).at_least_for(context, now) {
        timer::arm_before(irq, next_event(irq, now));
    }
    metrics::count(irq, Counter::Switches);
    resume(irq, thread, now)
}

/// Blocks the current thread, which may have been enlisted, until it is woken or the time comes. What it called returns what whoever ends
/// the wait says. A time that has passed ends a wait that nobody has ended yet.
#[inline(always)]
pub(crate) fn block(irq: &mut IrqOff, deadline: u64) -> ! {
    let thread = current(irq);
    let now = tsc::now();
    if thread.doomed.get() | thread.woken.get() | (deadline != NEVER) {
        prepare_to_block(irq, thread, deadline, now);
    }
    let sched = SCHED.owned(irq);
    if sched.current() == Some(thread.context()) {
        sched.stop(now, Stop::Blocked);
    } else {
        sched.remove(thread.context());
    }
    // It has left the core: what is told now may wake it, if it watches itself.
    HEAD.owned(irq).clear_current();
    upcall::blocked(irq, thread);
    next(irq, now, ThreadState::Blocked)
}

/// Nobody runs on this core any more: as [`dispatch`], which has to be taken only if there is more to do than to pick the next thread.
#[inline(always)]
fn next(irq: &mut IrqOff, now: u64, left: ThreadState) -> ! {
    let head = HEAD.owned(irq);
    let busy = head.is_pending()
        || head.extras() & extra::TRACE != 0
        || HERE.owned(irq).retired.get() >= RETIRED_AT_ONCE
        || !mailbox::INBOX.local(irq).is_quiet()
        || jobs::has_work(irq);
    if !busy && let Some(context) = SCHED.owned(irq).pick(now) {
        // It is not announced that this core leaves the kernel, as with a yield.
        show_load(irq);
        arm_timer(irq, now);
        metrics::count(irq, Counter::Switches);
        resume(irq, context.runner(), now)
    }
    dispatch(irq, left)
}

/// What seldom has to be looked at before a thread blocks. Does not come back if it does not block.
#[inline(never)]
fn prepare_to_block(irq: &mut IrqOff, thread: ThreadRef, deadline: u64, now: u64) {
    if thread.doomed.get() {
        end_wait(irq, thread);
    }
    if !thread.woken.get() && deadline <= now {
        irq.locks(|held| time_out_current(held, thread));
    }
    if thread.woken.take() {
        go_on_after_all(irq, thread);
    }
    if deadline != NEVER && deadline > now {
        SCHED.owned(irq).arm(thread, deadline);
    }
}

/// The current thread need not block: it goes on, when it has a turn if it has lost its own (`talk`).
#[cold]
fn go_on_after_all(irq: &mut IrqOff, thread: ThreadRef) -> ! {
    thread.state.set(State::Runnable);
    if SCHED.owned(irq).current() == Some(thread.context()) {
        HEAD.owned(irq).raise(pending::TIMER);
        leave();
    }
    HEAD.owned(irq).clear_current();
    irq.locks(|held| homes::ready(held, thread, Ready::New));
    dispatch(irq, ThreadState::Runnable)
}

/// Ends the current thread, which was killed after it had enlisted: whoever killed it has left that to it. One that somebody has woken
/// meanwhile ends when the message arrives.
#[cold]
fn end_wait(irq: &mut IrqOff, thread: ThreadRef) {
    let free = thread.state.get() == State::Asleep || thread.woken.take();
    if free || irq.locks(|held| wait::delist(held, thread)) {
        end_current(irq, thread);
    }
}

fn time_out_current(held: &mut Held<'_, 0>, thread: ThreadRef) {
    let asleep = thread.state.get() == State::Asleep;
    if asleep || wait::delist(held, thread) {
        let status = if asleep { 0 } else { Error::TimedOut as u64 };
        thread.answer(status, thread.take_value());
        thread.woken.set(true);
    }
}

/// The current thread has enlisted and need not wait after all. If somebody has woken it meanwhile, the message is delivered first.
pub(crate) fn do_not_block(irq: &mut IrqOff, thread: ThreadRef) -> Waited {
    percpu::race_point!("dispatch.thoughts");
    let listed = irq.locks(|held| wait::delist(held, thread));
    while !listed && !thread.woken.get() {
        serve_inbox(irq);
        core::hint::spin_loop();
    }
    thread.woken.set(false);
    thread.state.set(State::Runnable);
    if listed { Waited::Not } else { Waited::Woken }
}

/// Whether somebody has woken a thread that did not have to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Nobody.
    Not,
    /// Somebody, who counts on it.
    Woken,
}

/// This core was interrupted in ring 3, for which something may wait: it has been in the kernel, and leaves.
pub(crate) fn passed_through(irq: &mut IrqOff) {
    announce(irq);
}

/// Shows what this core has promised to deadlines.
pub(crate) fn show_promised(irq: &IrqOff) {
    // ORDER: Relaxed: a figure.
    SHOWN.local(irq).promised.store(SCHED.owned(irq).promised(), Ordering::Relaxed);
}

/// Ends or stops the current thread, as somebody has asked, or sends it where it may run.
fn stop_current(irq: &mut IrqOff, thread: ThreadRef) {
    if thread.doomed.get() {
        end_current(irq, thread);
    }
    if thread.suspended.get() {
        stop_running(irq, thread, Stop::Suspended);
        HEAD.owned(irq).clear_current();
        thread.state.set(State::Parked);
        upcall::blocked(irq, thread);
        dispatch(irq, ThreadState::Suspended);
    }
    if !spread::may_run_here(irq, thread) {
        stop_running(irq, thread, Stop::Suspended);
        HEAD.owned(irq).clear_current();
        irq.locks(|held| {
            talk::part(held, thread);
            let to = spread::target(held, thread);
            homes::depart(held, thread, to);
        });
        dispatch(irq, ThreadState::Runnable);
    }
}

/// Ends the current thread with the code that it has.
pub(crate) fn end_current(irq: &mut IrqOff, thread: ThreadRef) -> ! {
    // A borrowed context goes on with the caller.
    stop_running(irq, thread, if thread.borrows() { Stop::Blocked } else { Stop::Ended });
    HEAD.owned(irq).clear_current();
    irq.locks(|held| homes::finish(held, thread));
    next(irq, tsc::now(), ThreadState::Ended)
}

/// The timer's interrupt, in ring 3 or in the idle loop's sleep.
pub(crate) fn on_timer(irq: &mut IrqOff) {
    let deadline = timer::armed(irq);
    // Early or not, what is due is looked at.
    let _rang = timer::on_interrupt(irq);
    let now = tsc::now();
    metrics::count(irq, Counter::TimerInterrupts);
    trace::event(irq, Event::Timer, now.saturating_sub(deadline), 0, 0);
    let head = HEAD.owned(irq);
    head.raise(pending::TIMER);
    if running(irq).is_some() && SCHED.owned(irq).tick(now) == Decision::Preempt {
        head.raise(pending::RESCHEDULE);
    }
    expire(irq, now);
    expiry::step(irq);
    alarm::ring(irq, now);
    let here = HERE.owned(irq);
    if here.until.get() <= now {
        HEAD.owned(irq).raise(pending::RESCHEDULE);
    }
    if here.retry.get() <= now {
        collect(irq);
    }
    let here = HERE.owned(irq);
    if here.balance.get() <= now {
        here.balance.set(now + machine::clock().0 / BALANCE_HZ);
        irq.locks(spread::even_out);
    }
}
