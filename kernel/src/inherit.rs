//! Priority inheritance: who works for a real-time thread, or is waited for by one, is at least as urgent as that.
//!
//! A caller on the same core lends its scheduling context, and its urgency with it (`talk`). This is for what cannot be lent: a caller on another
//! core, or one whose message was taken out of a queue; and for who waits in a queue while the server is busy. Normal threads pass nothing
//! on: the feedback queue's boost bounds how long they wait for each other. What a deadline passes on is the highest priority below it
//! (`sched`).
//!
//! * PI1: the server of an endpoint is the thread that last came there by the slow way (`serves`, `Endpoint`'s `server`): a hint, for a
//!   program with several threads at one endpoint. Both, and what the waiters press with, are written under the queue's lock.
//! * PI2: what a thread passes on to the context it runs on (`want`) is the most of what it serves and of what waits for it, and nothing while it
//!   waits for a message. A context inherits the most of what its users pass on (DN1).
//! * PI3: a thread that passes something on never goes the shortest way (`extra::PRESSED`), so what it answers and receives comes by here.
//!
//! Going on from one who waits to whom it waits for ends where nothing becomes more urgent, so in a circle at the latest when it is round.

use core::cell::Cell;
use core::mem::offset_of;
use core::ptr::NonNull;

use ipc::{At, Guard};
use percpu::mailbox::{self, Kick, Node, Urgency};
use percpu::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use percpu::{CoreId, Held, Ipi, IrqOff};

use crate::arch::ipi::Interrupts;
use crate::arch::tsc;
use crate::arch::user::{HEAD, extra};
use crate::dispatch::SCHED;
use crate::endpoint::Endpoint;
use crate::homes;
use crate::object::Ref;
use crate::talk::{self, MAX_DEPTH, Role};
use crate::thread::{State, Thread, ThreadRef};
use crate::wait::place;

/// How many of those who wait are looked at for the most urgent. With more, it counts as no less urgent than before.
const LOOKS: usize = 32;

/// What a thread has to do with inheritance. Urgencies are priorities of real time, or 0.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `node`, `posted` | who has something for its home | the home | AcqRel |
/// | `asked` | any core raises, the home takes | the home | by `posted` |
/// | `serves`, `waiting` | who holds the lock of the endpoint's queue | the same; the home | Relaxed, by the lock or `posted` |
/// | `own` | who holds the lock of the queue where it waits to send | the same | by the lock |
/// | `served`, `want` | the home | the same | – |
#[derive(Debug)]
pub(crate) struct Pressure {
    node: Node,
    /// The node is on its way, with a reference.
    posted: AtomicBool,
    /// What came from another core.
    asked: AtomicU32,
    /// The endpoint's address, 0 for none.
    serves: AtomicU64,
    /// The most urgent of those who wait there.
    waiting: AtomicU32,
    /// With what it waits itself.
    own: Cell<u32>,
    /// Of the caller that it has to answer.
    served: Cell<u32>,
    /// What it passes on.
    want: Cell<u32>,
}

impl Pressure {
    /// Where the assembly finds the fields.
    pub(crate) const SERVES: usize = offset_of!(Self, serves);
    /// As `SERVES`.
    pub(crate) const SERVED: usize = offset_of!(Self, served);

    /// Of a thread that nobody waits for.
    pub(crate) const fn new() -> Self {
        Self {
            node: Node::new(),
            posted: AtomicBool::new(false),
            asked: AtomicU32::new(0),
            serves: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            own: Cell::new(0),
            served: Cell::new(0),
            want: Cell::new(0),
        }
    }

    /// The most urgent of those who wait for it.
    fn waiting(&self) -> u32 {
        // ORDER: Relaxed: what changes it afterwards tells the home (`tell`).
        self.waiting.load(Ordering::Relaxed)
    }

    fn set_waiting(&self, urgency: u32) {
        // ORDER: Relaxed: as above.
        self.waiting.store(urgency, Ordering::Relaxed);
    }

    /// The thread serves somebody, or nobody, from now on: who asked before has been answered.
    fn serve(&self, urgency: u32) {
        self.served.set(urgency);
        // ORDER: Relaxed: as above.
        self.asked.store(0, Ordering::Relaxed);
    }

    fn serves(&self, endpoint: &Endpoint) -> bool {
        // ORDER: Relaxed: by the endpoint's lock, or the thread's own.
        self.serves.load(Ordering::Relaxed) == word(endpoint)
    }
}

fn word(endpoint: &Endpoint) -> u64 {
    core::ptr::from_ref(endpoint).addr() as u64
}

/// What a thread of this core passes on when it waits.
fn urgency_of(thread: ThreadRef) -> u32 {
    let priority = sched::Entity::task(&thread.context()).priority();
    if u64::from(priority) < abi::task::SchedSpec::REAL_TIME_LOWEST {
        0
    } else {
        priority.min(u32::from(u8::MAX))
    }
}

/// The current thread, which has announced itself, queues up to send.
pub(crate) fn queue_up(
    irq: &mut IrqOff,
    endpoint: &Endpoint,
    mut queue: Guard<'_, ThreadRef>,
    sender: ThreadRef,
) {
    let urgency = urgency_of(sender);
    sender.pressure.own.set(urgency);
    queue.push_sender(sender);
    let server = raise(endpoint, &queue, urgency);
    drop(queue);
    percpu::race_point!("inherit.queued");
    if let Some(server) = server {
        irq.locks(|held| tell(held, &server));
    }
}

/// Somebody of this urgency waits at an endpoint: its server, if it has to be told.
fn raise(endpoint: &Endpoint, queue: &Guard<'_, ThreadRef>, urgency: u32) -> Option<Ref<Thread>> {
    let desk = endpoint.desk(queue);
    if urgency <= desk.waiting.get() {
        return None;
    }
    desk.waiting.set(urgency);
    show(endpoint, queue)
}

/// Shows an endpoint's server what presses it; the server, if it has to be told.
fn show(endpoint: &Endpoint, queue: &Guard<'_, ThreadRef>) -> Option<Ref<Thread>> {
    let desk = endpoint.desk(queue);
    let server = desk.server()?;
    if !server.pressure.serves(endpoint) {
        return None;
    }
    server.pressure.set_waiting(desk.waiting.get());
    Some(server)
}

/// Looks anew for the most urgent of those who wait; whether that has changed.
fn look(endpoint: &Endpoint, queue: &Guard<'_, ThreadRef>) -> bool {
    let desk = endpoint.desk(queue);
    let before = desk.waiting.get();
    if before == 0 {
        return false;
    }
    let (mut most, mut at) = (0, None);
    for _ in 0..LOOKS {
        at = queue.after(at);
        let Some(waiter) = at else { break };
        most = most.max(waiter.pressure.own.get());
    }
    if at.is_some_and(|last| queue.after(Some(last)).is_some()) {
        most = most.max(before);
    }
    desk.waiting.set(most);
    most != before
}

/// A sender that waited at an endpoint does so no more: the server, if it has to be told.
pub(crate) fn left_queue(endpoint: &Endpoint, queue: &Guard<'_, ThreadRef>) -> Option<Ref<Thread>> {
    if look(endpoint, queue) { show(endpoint, queue) } else { None }
}

/// Whether a thread is known as the server of an endpoint, and has nothing to pass on: then nothing need be done when it comes to wait there.
#[inline(always)]
pub(crate) fn is_settled(thread: ThreadRef, endpoint: &Endpoint) -> bool {
    thread.pressure.serves(endpoint) && thread.pressure.want.get() | thread.pressure.served.get() == 0
}

/// The current thread receives at an endpoint, and has answered or given up whom it served; what it takes out of the queue, it has taken. Drops
/// nothing under the lock: what is returned is for [`received`].
pub(crate) fn serve(
    endpoint: &Endpoint,
    queue: &Guard<'_, ThreadRef>,
    thread: ThreadRef,
) -> Option<Ref<Thread>> {
    let pressure = &thread.pressure;
    look(endpoint, queue);
    let desk = endpoint.desk(queue);
    let before = desk.take_over(thread);
    // ORDER: Relaxed: by the lock.
    pressure.serves.store(word(endpoint), Ordering::Relaxed);
    pressure.set_waiting(desk.waiting.get());
    before.inspect(|before| {
        if before.pressure.serves(endpoint) {
            before.pressure.set_waiting(0);
        }
    })
}

/// The rest of a receive: the thread serves somebody whose urgency is given, or nobody.
pub(crate) fn received(irq: &mut IrqOff, thread: ThreadRef, served: u32, before: Option<Ref<Thread>>) {
    thread.pressure.serve(served);
    irq.locks(|held| {
        reassess(held, thread);
        if let Some(before) = before {
            tell(held, &before);
        }
    });
}

/// With what a caller waits that was just taken out of a queue.
pub(crate) fn of_waiter(caller: ThreadRef) -> u32 {
    caller.pressure.own.get()
}

/// The current thread's message goes to a receiver that was taken, and that it cannot lend to: whether that is to be told when it has come
/// home (`homes::send_home_pressed`).
pub(crate) fn calls(caller: ThreadRef, receiver: ThreadRef) -> bool {
    let urgency = urgency_of(caller);
    if urgency != 0 {
        // ORDER: Relaxed: by the inbox that the receiver is sent to, or this core's own.
        receiver.pressure.asked.fetch_max(urgency, Ordering::Relaxed);
    }
    urgency != 0
}

/// A receiver has come home with a call that presses it ([`calls`]), and can run, mostly here.
pub(crate) fn called(held: &mut Held<'_, 0>, receiver: ThreadRef) {
    let seen = receiver.place.look();
    if seen.core != held.core() || seen.in_flight || receiver.state.get() == State::Blocked {
        return tell(held, &receiver);
    }
    // It waits for nobody to whom that would have to be handed on.
    reassess(held, receiver);
}

/// The current thread has answered its caller. `context` is what it ran on until then.
#[inline(always)]
pub(crate) fn answered(irq: &mut IrqOff, thread: ThreadRef, context: ThreadRef) {
    if thread.pressure.want.get() | sched::Entity::task(&context).inherited() != 0 {
        passed(irq, thread, context);
    }
}

#[inline(never)]
fn passed(irq: &mut IrqOff, thread: ThreadRef, context: ThreadRef) {
    thread.pressure.serve(0);
    irq.locks(|held| {
        reassess(held, thread);
        // Otherwise nobody uses a context that did not before.
        if context != thread.context() {
            left(held, thread, context);
        }
    });
}

/// A thread does not run on a context any more, or does from now on: both have users that they did not have, or have not.
pub(crate) fn left(held: &mut Held<'_, 0>, thread: ThreadRef, context: ThreadRef) {
    refresh(held, context);
    refresh(held, thread.context());
}

/// A caller of this core has given up waiting for an answer of a thread.
pub(crate) fn gave_up(held: &mut Held<'_, 0>, caller: ThreadRef, callee: ThreadRef) {
    if urgency_of(caller) | caller.pressure.want.get() != 0 {
        tell(held, &callee);
    }
}

/// A thread has told its caller that it will not answer it.
pub(crate) fn abandoned(held: &mut Held<'_, 0>, thread: ThreadRef) {
    if thread.pressure.want.get() != 0 {
        reassess(held, thread);
    }
}

/// A thread is about to end.
pub(crate) fn ended(held: &mut Held<'_, 0>, thread: ThreadRef) {
    let pressure = &thread.pressure;
    // ORDER: Relaxed: who has read it before tells a thread that has ended, which does nothing.
    pressure.serves.store(0, Ordering::Relaxed);
    if pressure.want.replace(0) != 0 {
        refresh(held, thread.context());
    }
}

/// Has a thread look what presses it, at its home.
pub(crate) fn tell(held: &mut Held<'_, 0>, thread: &Thread) {
    let seen = thread.place.look();
    if seen.core == held.core() && !seen.in_flight {
        // SAFETY: it lives until this core leaves the kernel.
        assess(held, unsafe { ThreadRef::new(NonNull::from_ref(thread)) });
    } else {
        post(thread, seen.core);
    }
}

fn post(thread: &Thread, to: CoreId) {
    // ORDER: AcqRel: pairs with `deliver`: what was written before is seen by the look that is still to come.
    if thread.pressure.posted.swap(true, Ordering::AcqRel) || !thread.try_keep() {
        return;
    }
    let inbox = mailbox::INBOX.of(to).expect("Y1: a home is a core that runs");
    let node = NonNull::from_ref(&thread.pressure.node);
    // SAFETY: `posted` is set by one until it has arrived; the reference that was just taken keeps it; `deliver` expects such a node.
    if unsafe { inbox.push(node, deliver, Urgency::Eager) } == Kick::Interrupt {
        Interrupts.send(to);
    }
}

/// # Safety
/// 1. `node` is that of a thread's pressure, with a reference.
unsafe fn deliver(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1: the result is the thread.
    let at = unsafe { node.byte_sub(Thread::PRESSURE + offset_of!(Pressure, node)) }.cast::<Thread>();
    // SAFETY: obligation 1: the count that `post` has taken.
    let thread = unsafe { Ref::adopt(at) };
    // ORDER: AcqRel: pairs with `post`.
    thread.pressure.posted.swap(false, Ordering::AcqRel);
    // It may have moved: then it is told there.
    tell(held, &thread);
}

/// Has a thread of this core, and whom it waits for, pass on what they have to.
fn assess(held: &mut Held<'_, 0>, thread: ThreadRef) {
    let mut at = thread;
    for _ in 0..MAX_DEPTH {
        if !reassess(held, at) {
            return;
        }
        let Some(next) = hand_on(held, at) else { return };
        at = next;
    }
}

/// Whether a thread waits for a message: then it serves nobody, or somebody is just giving it something to do.
fn is_idle(thread: ThreadRef) -> bool {
    let receives = thread.state.waits_directly() || thread.talk.role.get() == Role::Receiving;
    thread.state.get() == State::Blocked && thread.link.at().0 & place::MARKS == place::ENDPOINT && receives
}

/// Has a thread of this core pass on what it has to; whether that is more than before.
fn reassess(held: &mut Held<'_, 0>, thread: ThreadRef) -> bool {
    let pressure = &thread.pressure;
    if thread.state.get() == State::Ended {
        return false;
    }
    let want = if is_idle(thread) {
        0
    } else {
        // ORDER: Relaxed: by `posted`.
        let asked = pressure.asked.swap(0, Ordering::Relaxed);
        // Whoever it served may have given up.
        let serves = thread.talk.reply.look().is_some();
        pressure.served.set(if serves { pressure.served.get().max(asked) } else { 0 });
        pressure.served.get().max(pressure.waiting())
    };
    let before = pressure.want.replace(want);
    if want == before {
        return false;
    }
    thread.set_extra(extra::PRESSED, want != 0);
    if want != 0 {
        thread.state.wait_plainly();
        HEAD.owned(held).set_extra(extra::THREAD, true);
    }
    refresh(held, thread.context());
    want > before
}

/// A thread of this core is scheduled in another way from now on.
pub(crate) fn configured(held: &Held<'_, 0>, thread: ThreadRef) {
    refresh(held, thread);
}

/// Has a context of this core inherit the most of what its users pass on, if that is more than its own.
fn refresh(held: &Held<'_, 0>, context: ThreadRef) {
    let mut at = context.runner();
    let mut most = at.pressure.want.get();
    while at != context {
        let Some(caller) = at.talk.reply.look() else { break };
        most = most.max(caller.pressure.want.get());
        at = caller;
    }
    let task = sched::Entity::task(&context);
    // What it is already changes nothing, and to be queued as one that inherits takes longer.
    let most = if most <= task.own_priority() { 0 } else { most };
    if task.inherited() != most {
        inherit(held, context, most);
    }
}

#[inline(never)]
fn inherit(held: &Held<'_, 0>, context: ThreadRef, urgency: u32) {
    let now = tsc::now();
    let decision = SCHED.owned(held).inherit(context, urgency, now);
    homes::act_on(held, decision, now);
}

/// Hands what a thread passes on to whom it waits for, beyond its context; the next of this core that has to look.
fn hand_on(held: &mut Held<'_, 0>, thread: ThreadRef) -> Option<ThreadRef> {
    if thread.state.get() != State::Blocked {
        return None;
    }
    let at = thread.link.at();
    match at.0 & place::MARKS {
        place::CALLEE => hand_to_callee(held, thread, talk::callee(at)?),
        place::ENDPOINT => hand_to_server(held, thread, at),
        _ => None,
    }
}

fn hand_to_callee(held: &mut Held<'_, 0>, thread: ThreadRef, callee: ThreadRef) -> Option<ThreadRef> {
    let want = thread.pressure.want.get();
    let seen = callee.place.look();
    if seen.core != held.core() || seen.in_flight {
        // ORDER: Relaxed: by `posted`.
        callee.pressure.asked.fetch_max(want, Ordering::Relaxed);
        post(&callee, seen.core);
        return None;
    }
    // Who runs on the same context has it by that.
    if callee.context() == thread.context() {
        return None;
    }
    callee.pressure.served.set(callee.pressure.served.get().max(want));
    Some(callee)
}

fn hand_to_server(held: &mut Held<'_, 0>, thread: ThreadRef, at: At) -> Option<ThreadRef> {
    // SAFETY: made of an endpoint, and read just now.
    let endpoint = unsafe { place::get::<Endpoint>(at) };
    let server = {
        let queue = endpoint.queue().lock();
        if thread.link.at() != at || thread.talk.role.get() == Role::Receiving {
            return None;
        }
        thread.pressure.own.set(thread.pressure.own.get().max(thread.pressure.want.get()));
        raise(endpoint, &queue, thread.pressure.own.get())?
    };
    let seen = server.place.look();
    if seen.core != held.core() || seen.in_flight {
        post(&server, seen.core);
        return None;
    }
    // SAFETY: it lives until this core leaves the kernel.
    Some(unsafe { ThreadRef::new(server.as_ptr()) })
}
