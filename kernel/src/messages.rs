//! The calls that pass messages: their whole meaning. `fast` does the commonest of it in fewer steps.
//!
//! A message travels from frame to frame: the sender's registers are in its frame when it waits, and whoever matches sender and receiver
//! copies them into the receiver's (Y3). Threads on one core switch directly, the caller lending its scheduling context (`talk`); one on
//! another core is sent home, its frame being written before.

mod fast;
mod transfer;

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::ipc::{FIRST, MessageCall, Tag};
use abi::task::{NEVER, ThreadState};
use ipc::{At, Guard, Kind};
use percpu::IrqOff;
use sched::{Ready, Stop};

use crate::arch::user::{HEAD, extra, pending, register};
use crate::dispatch::{self, SCHED};
use crate::endpoint::{Endpoint, Reply};
use crate::object::Found;
use crate::talk::{self, Role};
use crate::thread::{Doing, State, ThreadRef};
use crate::wait::place;
use crate::{handler, homes, inherit, limits, metrics, notification, spread, upcall};

pub(crate) use fast::{enter_space, go_on_with_callee};
pub(crate) use transfer::{in_registers as pass_in_registers, one_in_registers as pass_one_in_registers};

type Result<T = ()> = core::result::Result<T, Error>;

/// What a thread asks for.
#[derive(Clone, Copy)]
struct Asked {
    handle: Handle,
    tag: Tag,
    deadline: u64,
}

impl Asked {
    /// # Errors
    /// [`Error::BadArgument`] for a tag with bits that mean nothing.
    fn of(thread: ThreadRef) -> Result<Self> {
        let tag = Tag(thread.register(register::TAG));
        let deadline = if tag.has(Tag::TIMED) { thread.register(register::DEADLINE) } else { NEVER };
        let handle = Handle(thread.register(register::BADGE));
        if tag.is_valid() { Ok(Self { handle, tag, deadline }) } else { Err(Error::BadArgument) }
    }
}

/// A call that passes a message, with the thread's registers in its frame; called by `user.S`. Afterwards the current thread goes on as its
/// frame says, unless something is pending.
pub(crate) extern "C" fn message_call(number: u64) {
    // SAFETY: `user.S` calls this with interrupts off and an empty stack: no other witness is in use.
    let mut irq = unsafe { IrqOff::assume() };
    let thread = dispatch::current(&irq);
    if let Err(error) = serve(&mut irq, thread, number) {
        thread.set_register(register::STATUS, error as u64);
    }
}

/// As [`message_call`], for one that is timed or traced, or of a process with limits.
pub(crate) extern "C" fn watched_message_call(number: u64) {
    let thread = {
        // SAFETY: as in `message_call`, whose witness is not made yet.
        let irq = unsafe { IrqOff::assume() };
        let thread = dispatch::current(&irq);
        if HEAD.owned(&irq).is_limited() {
            metrics::keep_countdown(&irq);
            if let Err(error) = limits::check(&irq, thread, number) {
                return thread.set_register(register::STATUS, error as u64);
            }
            if !metrics::limited_call(&irq) {
                return message_call(number);
            }
        }
        thread
    };
    let start = metrics::watch_call(number, thread.register(register::BADGE));
    message_call(number);
    metrics::watched_call(number, start, thread.register(register::STATUS));
}

fn serve(irq: &mut IrqOff, thread: ThreadRef, number: u64) -> Result {
    const SEND: u64 = MessageCall::Send as u64;
    const RECEIVE: u64 = MessageCall::Receive as u64;
    const REPLY: u64 = MessageCall::Reply as u64;
    const CALL: u64 = MessageCall::Call as u64;
    const REPLY_RECEIVE: u64 = MessageCall::ReplyReceive as u64;
    const { assert!(SEND == FIRST, "the calls follow the others") };
    let asked = Asked::of(thread);
    match number {
        SEND => send(irq, thread, asked?, Role::Sending),
        CALL => send(irq, thread, asked?, Role::Calling),
        RECEIVE => receive(irq, thread, asked?),
        REPLY => reply(irq, thread, asked?),
        REPLY_RECEIVE => reply_receive(irq, thread, asked?),
        _ => Err(Error::NoSuchCall),
    }
}

/// Ends a thread's wait without a message. By whoever has taken it out.
pub(crate) fn refuse(thread: ThreadRef, error: Error) {
    if handler::has_faulted(thread) {
        return handler::refused(thread);
    }
    thread.set_register(register::STATUS, error as u64);
}

/// Tells a thread that receives the bits of its bound notification instead of a message. By its home, or whoever has taken it out.
pub(crate) fn signal(thread: ThreadRef, bits: u64) {
    thread.set_register(register::TAG, Tag::SIGNAL);
    thread.set_register(register::BADGE, bits);
    thread.set_register(register::STATUS, 0);
}

/// Says where a thread is about to wait, what for, and whether it can be switched to there (`direct_mark`).
fn announce(thread: ThreadRef, role: Role, at: At, mark: u32) {
    thread.talk.role.set(role);
    thread.state.wait(mark);
    thread.link.set_at(at);
}

fn place_of(endpoint: Found<Endpoint>) -> At {
    place::object(endpoint.as_ptr(), place::ENDPOINT)
}

#[inline(always)]
fn send(irq: &mut IrqOff, thread: ThreadRef, asked: Asked, role: Role) -> Result {
    let (endpoint, badge) = thread.capabilities().find_badged::<Endpoint>(asked.handle, Rights::SEND)?;
    // Mostly one receiver waits, or none.
    if let Some(receiver) = endpoint.queue().alone()
        && endpoint.queue().take(receiver)
    {
        deliver(irq, thread, receiver, (asked, badge), role);
        return Ok(());
    }
    send_queued(irq, thread, endpoint, (asked, badge), role)
}

/// The rest of [`send`]: not just one receiver waits.
#[inline(never)]
fn send_queued(
    irq: &mut IrqOff,
    thread: ThreadRef,
    endpoint: Found<Endpoint>,
    (asked, badge): (Asked, u64),
    role: Role,
) -> Result {
    let mut queue = endpoint.queue().lock();
    match queue.kind() {
        Kind::Closed => Err(Error::PeerGone),
        Kind::Receivers => {
            let receiver = queue.pop().expect("IQ3: a queue with receivers has one");
            drop(queue);
            deliver(irq, thread, receiver, (asked, badge), role);
            Ok(())
        }
        Kind::Nobody | Kind::Senders if asked.tag.has(Tag::NO_WAIT) => Err(Error::WouldBlock),
        Kind::Nobody | Kind::Senders => {
            thread.set_register(register::BADGE, badge);
            announce(thread, role, place_of(endpoint), 0);
            inherit::queue_up(irq, &endpoint, queue, thread);
            percpu::race_point!("messages.queued");
            dispatch::block(irq, asked.deadline)
        }
    }
}

/// Copies a message, its capabilities and its badge from the sender's frame to the receiver's, both the caller's to use.
#[inline(always)]
fn copy(irq: &IrqOff, sender: ThreadRef, receiver: ThreadRef) {
    let tag = Tag(sender.register(register::TAG));
    register::WORDS.iter().for_each(|&word| receiver.set_register(word, sender.register(word)));
    receiver.set_register(register::BADGE, sender.register(register::BADGE));
    let accepted = Tag(receiver.register(register::TAG)).accepts();
    let delivered =
        if tag.caps() == 0 { tag.delivered(0) } else { transfer::all(irq, sender, receiver, tag, accepted) };
    receiver.set_register(register::TAG, delivered.0);
    receiver.set_register(register::STATUS, 0);
}

/// The current thread's message goes to a receiver that waited, and was taken.
#[inline(always)]
fn deliver(
    irq: &mut IrqOff,
    sender: ThreadRef,
    receiver: ThreadRef,
    (asked, badge): (Asked, u64),
    role: Role,
) {
    percpu::race_point!("messages.taken");
    receiver.link.set_at(At::NOWHERE);
    sender.set_register(register::BADGE, badge);
    copy(irq, sender, receiver);
    if role == Role::Sending {
        sender.set_register(register::STATUS, 0);
        return homes::send_home_directly(irq, receiver);
    }
    let mark = direct_mark(irq, sender, asked.deadline);
    await_answer(irq, sender, receiver, (mark, asked.deadline))
}

/// The current thread waits for the answer of a receiver, which has its message.
#[inline(always)]
fn await_answer(irq: &mut IrqOff, caller: ThreadRef, receiver: ThreadRef, (mark, deadline): (u32, u64)) -> ! {
    receiver.talk.reply.set(caller);
    announce(caller, Role::Calling, place::object(receiver.as_ptr(), place::CALLEE), mark);
    if is_at_hand(irq, receiver) && talk::can_lend(caller) {
        switch_to_callee(irq, caller, receiver, deadline)
    }
    let presses = inherit::calls(caller, receiver);
    irq.locks(|held| {
        if presses { homes::send_home_pressed(held, receiver) } else { homes::send_home(held, receiver) }
    });
    dispatch::block(irq, deadline)
}

/// The current thread, which has faulted, calls whoever receives at an endpoint. Returns if nobody can any more.
pub(crate) fn call_for_fault(irq: &mut IrqOff, thread: ThreadRef, endpoint: Found<Endpoint>) {
    let alone = endpoint.queue().alone().filter(|&receiver| endpoint.queue().take(receiver));
    let receiver = match alone {
        Some(receiver) => receiver,
        None => {
            let mut queue = endpoint.queue().lock();
            match queue.kind() {
                Kind::Closed => return,
                Kind::Receivers => queue.pop().expect("IQ3: a queue with receivers has one"),
                Kind::Nobody | Kind::Senders => {
                    announce(thread, Role::Calling, place_of(endpoint), 0);
                    inherit::queue_up(irq, &endpoint, queue, thread);
                    percpu::race_point!("messages.queued");
                    dispatch::block(irq, NEVER)
                }
            }
        }
    };
    percpu::race_point!("messages.taken");
    receiver.link.set_at(At::NOWHERE);
    handler::tell(thread, receiver);
    let mark = match direct_mark(irq, thread, NEVER) {
        0 => 0,
        mark => mark | Doing::FAULTED,
    };
    await_answer(irq, thread, receiver, (mark, NEVER))
}

/// What a thread that is about to wait notes for who may switch to it: nothing if more has to be done then.
#[inline(always)]
pub(crate) fn direct_mark(irq: &IrqOff, thread: ThreadRef, deadline: u64) -> u32 {
    let extras = thread.extras.get();
    let plain =
        deadline == NEVER && extras & !extra::STATE == 0 && !thread.doomed.get() && !thread.suspended.get();
    match (plain, extras) {
        (false, _) => 0,
        (true, 0) => dispatch::mark(irq),
        (true, _) => dispatch::mark(irq) | Doing::STATE,
    }
}

/// Whether a thread that waited, and was taken, can go on on this core at once.
#[inline(always)]
fn is_at_hand(irq: &IrqOff, thread: ThreadRef) -> bool {
    thread.state.is_direct(dispatch::mark(irq)) || is_at_hand_after_all(irq, thread)
}

#[inline(never)]
fn is_at_hand_after_all(irq: &IrqOff, thread: ThreadRef) -> bool {
    let seen = thread.place.look();
    seen.core == irq.core()
        && !seen.in_flight
        && !thread.doomed.get()
        && !thread.suspended.get()
        && spread::may_run_here(irq, thread)
}

/// A caller's time goes to the receiver of its message, on this core.
fn switch_to_callee(irq: &mut IrqOff, caller: ThreadRef, callee: ThreadRef, deadline: u64) -> ! {
    talk::lend(caller, callee);
    HEAD.owned(irq).clear_current();
    if deadline != NEVER {
        SCHED.owned(irq).arm(caller, deadline);
        HEAD.owned(irq).raise(pending::TIMER);
    }
    upcall::blocked(irq, caller);
    go_on(irq, callee)
}

/// The runner of the current context goes on, which waited until now.
#[inline(always)]
fn go_on(irq: &mut IrqOff, thread: ThreadRef) -> ! {
    // A thread that can be switched to directly has no timeout, and no watcher.
    let direct = thread.state.is_direct(dispatch::mark(irq));
    thread.state.set(State::Runnable);
    if !direct {
        SCHED.owned(irq).disarm(thread);
        irq.locks(|held| upcall::unblocked(held, thread));
    }
    dispatch::hand_over(irq, thread)
}

/// Takes the message of whoever waits longest to send, if somebody does.
fn take_message(
    irq: &mut IrqOff,
    thread: ThreadRef,
    endpoint: Found<Endpoint>,
    mut queue: Guard<'_, ThreadRef>,
) {
    let sender = queue.pop().expect("IQ3: a queue with senders has one");
    let before = inherit::serve(&endpoint, &queue, thread);
    drop(queue);
    percpu::race_point!("messages.popped");
    if handler::has_faulted(sender) {
        handler::tell(sender, thread);
    } else {
        copy(irq, sender, thread);
    }
    if sender.talk.role.get() == Role::Calling {
        let urgency = inherit::of_waiter(sender);
        thread.talk.reply.set(sender);
        sender.link.set_at(place::object(thread.as_ptr(), place::CALLEE));
        return inherit::received(irq, thread, urgency, before);
    }
    sender.link.set_at(At::NOWHERE);
    sender.set_register(register::STATUS, 0);
    irq.locks(|held| homes::send_home(held, sender));
    inherit::received(irq, thread, 0, before);
}

/// What a receive has come to.
enum Received {
    /// A message, in the thread's frame.
    Message,
    /// The thread waits.
    Waits,
}

#[inline(always)]
fn try_receive(
    irq: &mut IrqOff,
    thread: ThreadRef,
    endpoint: Found<Endpoint>,
    asked: Asked,
) -> Result<Received> {
    // Mostly nobody waits.
    if thread.extras.get() & extra::BOUND == 0
        && endpoint.queue().is_free()
        && !asked.tag.has(Tag::NO_WAIT)
        && inherit::is_settled(thread, &endpoint)
    {
        let mark = direct_mark(irq, thread, asked.deadline);
        announce(thread, Role::Receiving, place_of(endpoint), mark);
        if endpoint.queue().park(thread) {
            percpu::race_point!("messages.parked");
            return Ok(Received::Waits);
        }
        thread.state.set(State::Runnable);
    }
    try_receive_queued(irq, thread, endpoint, asked)
}

/// The rest of [`try_receive`]: a notification is bound, or somebody waits.
#[inline(never)]
fn try_receive_queued(
    irq: &mut IrqOff,
    thread: ThreadRef,
    endpoint: Found<Endpoint>,
    asked: Asked,
) -> Result<Received> {
    let bound = thread.extras.get() & extra::BOUND != 0;
    if bound && told(thread, notification::poll_bound(thread)) {
        return Ok(Received::Message);
    }
    let mut queue = endpoint.queue().lock();
    match queue.kind() {
        Kind::Closed => Err(Error::PeerGone),
        Kind::Senders => {
            take_message(irq, thread, endpoint, queue);
            Ok(Received::Message)
        }
        Kind::Nobody | Kind::Receivers if asked.tag.has(Tag::NO_WAIT) => Err(Error::WouldBlock),
        Kind::Nobody | Kind::Receivers => {
            let before = inherit::serve(&endpoint, &queue, thread);
            inherit::received(irq, thread, 0, before);
            let mark = direct_mark(irq, thread, asked.deadline);
            announce(thread, Role::Receiving, place_of(endpoint), mark);
            queue.push_receiver(thread);
            drop(queue);
            percpu::race_point!("messages.parked");
            if bound && told(thread, notification::second_thoughts(irq, thread)) {
                thread.state.set(State::Runnable);
                return Ok(Received::Message);
            }
            Ok(Received::Waits)
        }
    }
}

/// Tells the current thread, which wants to receive, bits of its bound notification; `false` if there are none.
fn told(thread: ThreadRef, bits: u64) -> bool {
    if bits != 0 {
        signal(thread, bits);
    }
    bits != 0
}

fn receive(irq: &mut IrqOff, thread: ThreadRef, asked: Asked) -> Result {
    let endpoint = thread.capabilities().find::<Endpoint>(asked.handle, Rights::RECEIVE)?;
    if thread.talk.reply.look().is_some() {
        let borrowed = thread.borrows();
        irq.locks(|held| talk::abandon(held, thread));
        if borrowed {
            return settle(irq, thread, endpoint, asked, None);
        }
    }
    match try_receive(irq, thread, endpoint, asked)? {
        Received::Message => Ok(()),
        Received::Waits => wait(irq, thread, asked.deadline),
    }
}

/// The current thread, which has announced itself, waits for a message.
#[inline(always)]
fn wait(irq: &mut IrqOff, thread: ThreadRef, deadline: u64) -> ! {
    // Who notes that it can be switched to has no deadline, and nobody watches it.
    if thread.state.is_direct(dispatch::mark(irq)) {
        dispatch::give_way(irq, thread)
    }
    dispatch::block(irq, deadline)
}

/// The current thread, which has just given its context back, receives: it needs a turn of its own if it does not have to wait. `next` is who
/// has the current context now, and is to go on.
fn settle(
    irq: &mut IrqOff,
    thread: ThreadRef,
    endpoint: Found<Endpoint>,
    asked: Asked,
    next: Option<ThreadRef>,
) -> Result {
    let received = try_receive(irq, thread, endpoint, asked);
    if let Ok(Received::Waits) = received {
        if let Some(next) = next.filter(|&next| is_at_hand(irq, next)) {
            HEAD.owned(irq).clear_current();
            if asked.deadline != NEVER {
                SCHED.owned(irq).arm(thread, asked.deadline);
                HEAD.owned(irq).raise(pending::TIMER);
            }
            upcall::blocked(irq, thread);
            go_on(irq, next)
        }
        if let Some(next) = next {
            release(irq, next);
        }
        dispatch::block(irq, asked.deadline)
    }
    if let Err(error) = received {
        thread.set_register(register::STATUS, error as u64);
    }
    if let Some(next) = next {
        release(irq, next);
    }
    take_turn(irq, thread)
}

/// Whoever has the current context goes on when the scheduler picks it.
fn release(irq: &mut IrqOff, next: ThreadRef) {
    dispatch::stop_running(irq, next, Stop::Blocked);
    irq.locks(|held| homes::send_home(held, next));
}

/// The current thread, which has no turn because its context is another's, waits for one.
fn take_turn(irq: &mut IrqOff, thread: ThreadRef) -> ! {
    HEAD.owned(irq).clear_current();
    irq.locks(|held| homes::ready(held, thread, Ready::New));
    dispatch::dispatch(irq, ThreadState::Runnable)
}

/// Writes the current thread's answer into a caller's frame, unless that has faulted.
#[inline(always)]
fn write_answer(irq: &IrqOff, thread: ThreadRef, caller: ThreadRef) {
    if handler::has_faulted(caller) {
        return handler::answered(caller, Tag(thread.register(register::TAG)).label());
    }
    thread.set_register(register::BADGE, 0);
    copy(irq, thread, caller);
}

/// Answers the caller of the current thread's, which is out of its slot. `true` if it had lent its context, which it has again: it is
/// still to be made to go on.
fn answer(irq: &mut IrqOff, thread: ThreadRef, caller: ThreadRef) -> bool {
    write_answer(irq, thread, caller);
    caller.link.set_at(At::NOWHERE);
    let (lent, context) = (thread.borrows(), thread.context());
    if lent {
        talk::give_back(thread, caller);
    } else {
        irq.locks(|held| homes::send_home(held, caller));
    }
    inherit::answered(irq, thread, context);
    lent
}

fn reply(irq: &mut IrqOff, thread: ThreadRef, asked: Asked) -> Result {
    if asked.handle != Handle::NONE {
        return answer_saved(irq, thread, asked.handle);
    }
    let caller = thread.talk.reply.take().ok_or(Error::WrongState)?;
    let lent = answer(irq, thread, caller);
    thread.set_register(register::STATUS, 0);
    if lent {
        release(irq, caller);
        take_turn(irq, thread)
    }
    Ok(())
}

/// Answers the caller of a reply capability, which is used up.
fn answer_saved(irq: &mut IrqOff, thread: ThreadRef, handle: Handle) -> Result {
    let reply = thread.capabilities().find::<Reply>(handle, Rights::SEND)?;
    let caller = reply.slot().take();
    // Whoever else has one finds nobody to answer. If it has been deleted meanwhile, the caller, once taken, is to be answered all the same.
    let _deleted = thread.capabilities().delete(irq, handle);
    let caller = caller.ok_or(Error::PeerGone)?;
    write_answer(irq, thread, caller);
    caller.link.set_at(At::NOWHERE);
    irq.locks(|held| homes::send_home(held, caller));
    thread.set_register(register::STATUS, 0);
    Ok(())
}

fn reply_receive(irq: &mut IrqOff, thread: ThreadRef, asked: Asked) -> Result {
    let endpoint = thread.capabilities().find::<Endpoint>(asked.handle, Rights::RECEIVE)?;
    if let Some(caller) = thread.talk.reply.take()
        && answer(irq, thread, caller)
    {
        return settle(irq, thread, endpoint, asked, Some(caller));
    }
    match try_receive(irq, thread, endpoint, asked)? {
        Received::Message => Ok(()),
        Received::Waits => wait(irq, thread, asked.deadline),
    }
}

/// Makes the caller that the current thread has to answer a reply capability's.
///
/// # Errors
/// [`Error::WrongState`] if there is none; [`Error::NoMemory`], [`Error::NoSlot`].
pub(crate) fn save_reply(irq: &mut IrqOff, thread: ThreadRef) -> Result<Handle> {
    if thread.talk.reply.look().is_none() {
        return Err(Error::WrongState);
    }
    let reply = Reply::new(irq)?;
    let handle = thread.capabilities().insert(reply.clone(), Rights::SEND.with(Rights::GRANT))?;
    let borrowed = thread.borrows();
    if borrowed {
        irq.locks(|held| talk::part(held, thread));
    }
    if let Some(caller) = thread.talk.reply.begin_move() {
        // The capability can be used already, by whoever guesses the handle.
        reply.slot().await_arrival(caller);
        percpu::race_point!("messages.saving");
        caller.link.set_at(place::object(reply.as_ptr(), place::REPLY));
        thread.talk.reply.clear();
        reply.slot().arrive(caller);
    }
    // `take_turn` does not come back to do it.
    drop(reply);
    if borrowed {
        thread.answer(0, handle.0);
        take_turn(irq, thread)
    }
    Ok(handle)
}
