//! Notifications: bits that are set without waiting, from anywhere, and waited for (`ipc::Notification`).
//!
//! * NF1: a notification counts its capabilities. When the last goes it closes, and who waits is told `PeerGone`: nobody can name it any more,
//!   though timers, interrupts and a bound thread may still refer to it. Its memory stays for one more epoch, as an endpoint's (EP2).
//! * NF2: a thread has at most one bound notification, to which it holds a reference, and a notification at most one bound thread, whose
//!   address it has. Both are written at the thread's home, which takes them back before the thread ends.
//! * NF3: bits for a bound thread are told by its home alone. The thread looks at the bits when it has queued up to receive, whoever sets bits
//!   looks afterwards where it waits: at home directly, from elsewhere by a message to its home. A thread on its way from one home to
//!   another does not wait, and looks at its next receive.

use core::cell::Cell;
use core::mem::offset_of;
use core::ptr::NonNull;

use abi::cap::ObjectKind;
use abi::error::Error;
use ipc::{At, Guard, Kind, Parked, Party, Withdrawn};
use percpu::mailbox::{self, Kick, Node, Urgency};
use percpu::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use percpu::{CoreId, Held, Ipi, IrqOff};

use crate::arch::ipi::Interrupts;
use crate::arch::user::{HEAD, extra, register};
use crate::endpoint::Endpoint;
use crate::object::{Header, Object, Ref};
use crate::talk;
use crate::thread::{State, Thread, ThreadRef};
use crate::wait::{self, place};
use crate::{dispatch, homes, messages, slabs};

/// A notification.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `header` | see [`Header`] | any core | its own | 0 |
/// | `capabilities` | who makes and deletes capabilities | the same | SeqCst | 0 |
/// | `ending` | who ends it | the same | – | 0 |
/// | `node`, `posted` | who tells the bound thread's home | that home | AcqRel | 0 |
/// | `state` | any core | any core | its own | 1 |
/// | `bound` | the bound thread's home | any core | by `state`'s bits | 1 |
#[repr(C, align(64))]
pub(crate) struct Notification {
    header: Header,
    node: Node,
    capabilities: AtomicU32,
    /// The node is on its way, with a reference.
    posted: AtomicBool,
    /// Its waiters have been told; only its memory is left.
    ending: Cell<bool>,
    hot: Hot,
}

#[repr(C, align(64))]
struct Hot {
    state: ipc::Notification<ThreadRef>,
    /// The bound thread's address; 0 for none.
    bound: AtomicU64,
}

// SAFETY: every field follows the table above.
unsafe impl Sync for Notification {}

const _: () = {
    assert!(offset_of!(Notification, header) == 0, "N2: the header comes first");
    assert!(size_of::<Notification>() == 128);
};

impl Notification {
    /// A notification without bits; with one reference for the caller.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub(crate) fn new(irq: &IrqOff) -> Result<Ref<Self>, Error> {
        let memory = slabs::take::<Self>(irq).ok_or(Error::NoMemory)?;
        let notification = Self {
            header: Header::new(),
            node: Node::new(),
            capabilities: AtomicU32::new(0),
            posted: AtomicBool::new(false),
            ending: Cell::new(false),
            hot: Hot { state: ipc::Notification::new(), bound: AtomicU64::new(0) },
        };
        // SAFETY: memory for one notification, the caller's alone.
        unsafe { memory.write(notification) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// A capability for it has been made.
    pub(crate) fn gained(&self) {
        // ORDER: SeqCst: with `lost`, which closes only at 0.
        self.capabilities.fetch_add(1, Ordering::SeqCst);
    }

    /// A capability for it is gone.
    pub(crate) fn lost(&self) {
        // ORDER: SeqCst: as in `gained`.
        if self.capabilities.fetch_sub(1, Ordering::SeqCst) == 1 {
            IrqOff::with(|irq| irq.locks(|held| self.close(held)));
        }
    }

    /// Takes the bits that are set.
    #[inline(always)]
    pub(crate) fn poll(&self) -> u64 {
        self.hot.state.poll()
    }

    /// Its waiters, to take one out.
    pub(crate) fn lock(&self) -> Guard<'_, ThreadRef> {
        self.hot.state.lock()
    }

    fn close(&self, held: &mut Held<'_, 0>) {
        self.hot.state.close(|thread| {
            percpu::race_point!("notification.closed");
            thread.link.set_at(At::NOWHERE);
            thread.answer(Error::PeerGone as u64, 0);
            homes::send_home(held, thread);
        });
    }

    /// The bound thread, which is there until this core leaves the kernel.
    fn bound(&self) -> Option<ThreadRef> {
        // ORDER: Acquire pairs with Release in `bind`: the thread's parts are there.
        let word = self.hot.bound.load(Ordering::Acquire);
        let at = core::ptr::with_exposed_provenance_mut::<Thread>(word as usize);
        // SAFETY: a thread takes its address out of here before it ends (NF2), so its memory stays until this core has left the kernel.
        NonNull::new(at).map(|thread| unsafe { ThreadRef::new(thread) })
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Notification {
    const KIND: ObjectKind = ObjectKind::Notification;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1: it is there until this gives it back.
        let own = unsafe { object.as_ref() };
        if own.ending.replace(true) {
            return slabs::give(held, object);
        }
        own.close(held);
        own.header.revive();
        // SAFETY: the reference that it was just given.
        drop(unsafe { Ref::adopt(object) });
    }
}

/// Sets bits, and wakes one thread that waits for them. Neither waits nor allocates: for interrupts as well.
pub(crate) fn signal(held: &mut Held<'_, 0>, notification: &Notification, bits: u64) {
    if bits == 0 {
        return;
    }
    match notification.hot.state.signal(bits) {
        Some((thread, bits)) => wake(held, thread, bits),
        None => tell_bound(held, notification),
    }
}

/// As [`signal`], for one who may give the core away: a thread that has waited alone and can go on here as it is, is not queued but returned.
/// It is the caller's to go on with.
#[inline(always)]
pub(crate) fn signal_directly(
    held: &mut Held<'_, 0>,
    notification: &Notification,
    bits: u64,
) -> Option<ThreadRef> {
    let Some(thread) = notification.hot.state.take_alone() else {
        signal(held, notification, bits);
        return None;
    };
    if !thread.state.is_direct(dispatch::mark(held)) {
        wake(held, thread, bits);
        return None;
    }
    percpu::race_point!("notification.taken");
    thread.link.set_at(At::NOWHERE);
    thread.answer(0, bits);
    thread.state.set(State::Runnable);
    Some(thread)
}

/// As [`signal`], by the current thread, whose call returns success: a thread of this core that is more urgent goes on at once.
#[inline(always)]
pub(crate) fn signal_by_thread(irq: &mut IrqOff, notification: &Notification, bits: u64) {
    if bits == 0 {
        return;
    }
    let hot = &notification.hot;
    if let Some(thread) = hot.state.take_alone() {
        percpu::race_point!("notification.taken");
        thread.link.set_at(At::NOWHERE);
        thread.answer(0, bits);
        if thread.state.is_direct(dispatch::mark(irq)) {
            dispatch::current(irq).answer(0, 0);
            dispatch::overtake_in_call(irq, thread);
        }
        return irq.locks(|held| homes::send_home(held, thread));
    }
    hot.state.set(bits);
    // ORDER: Relaxed: a guess; `tell_bound` looks again.
    if !hot.state.is_deserted() || hot.bound.load(Ordering::Relaxed) != 0 {
        look_again(irq, notification);
    }
}

/// Bits have been set while somebody came, or has a thread bound.
#[cold]
#[inline(never)]
fn look_again(irq: &mut IrqOff, notification: &Notification) {
    irq.locks(|held| match notification.hot.state.hand_over() {
        Some((thread, bits)) => wake(held, thread, bits),
        None => tell_bound(held, notification),
    });
}

/// Hands bits to every thread that waits; how many were woken.
pub(crate) fn broadcast(held: &mut Held<'_, 0>, notification: &Notification, bits: u64) -> u64 {
    if bits == 0 {
        return 0;
    }
    let woken = notification.hot.state.broadcast(bits, |thread, bits| wake(held, thread, bits));
    if woken == 0 {
        tell_bound(held, notification);
    }
    woken
}

/// Lets a thread go on that was taken out of the queue.
fn wake(held: &mut Held<'_, 0>, thread: ThreadRef, bits: u64) {
    percpu::race_point!("notification.taken");
    thread.link.set_at(At::NOWHERE);
    thread.answer(0, bits);
    homes::send_home(held, thread);
}

/// Has the current thread wait until bits are set.
///
/// # Errors
/// [`Error::PeerGone`] if the last capability is gone. What else can happen it is told when it goes on.
#[inline(always)]
pub(crate) fn wait(irq: &mut IrqOff, notification: &Notification, deadline: u64) -> Result<u64, Error> {
    let thread = dispatch::current(irq);
    let mark = messages::direct_mark(irq, thread, deadline);
    thread.state.wait(mark);
    thread.link.set_at(place::object(NonNull::from_ref(notification), place::NOTIFICATION));
    match notification.hot.state.park(thread) {
        Parked::Waits if mark != 0 => dispatch::give_way(irq, thread),
        Parked::Waits => dispatch::block(irq, deadline),
        Parked::HasMore(bits) => Ok(bits | more(irq, thread)),
        Parked::Has(bits) => {
            stay(thread);
            Ok(bits)
        }
        Parked::Closed => {
            stay(thread);
            Err(Error::PeerGone)
        }
    }
}

/// The current thread does not wait after all, and nobody has taken it out of anywhere.
fn stay(thread: ThreadRef) {
    thread.link.set_at(At::NOWHERE);
    thread.state.set(State::Runnable);
}

/// What somebody tells the current thread who has taken it out of the queue.
#[cold]
fn more(irq: &mut IrqOff, thread: ThreadRef) -> u64 {
    let _waited = dispatch::do_not_block(irq, thread);
    if thread.register(register::STATUS) == 0 { thread.register(register::VALUE) } else { 0 }
}

/// Has a notification's bits told to a thread while it receives. At the thread's home.
///
/// # Errors
/// [`Error::WrongState`] if either has another one, or the thread has ended.
pub(crate) fn bind(
    held: &mut Held<'_, 0>,
    thread: ThreadRef,
    notification: Ref<Notification>,
) -> Result<(), Error> {
    if thread.state.get() == State::Ended || thread.extras.get() & extra::BOUND != 0 {
        return Err(Error::WrongState);
    }
    let (bound, own) = (&notification.hot.bound, thread.word().get());
    // ORDER: Release pairs with Acquire in `bound`. Relaxed on failure: nothing is done.
    if bound.compare_exchange(0, own, Ordering::Release, Ordering::Relaxed).is_err() {
        return Err(Error::WrongState);
    }
    thread.bound.set(Some(notification));
    thread.set_extra(extra::BOUND, true);
    // Whatever it does next, it does not go the shortest way.
    thread.state.wait_plainly();
    HEAD.owned(held).set_extra(extra::THREAD, true);
    // What was signalled before is told to a thread that receives already.
    with_bound(thread, |notification| tell_here(held, notification, thread));
    Ok(())
}

/// Ends what [`bind`] has begun. At the thread's home.
///
/// # Errors
/// [`Error::WrongState`] if nothing is bound to the thread.
pub(crate) fn unbind(thread: ThreadRef) -> Result<(), Error> {
    let notification = thread.bound.take().ok_or(Error::WrongState)?;
    thread.set_extra(extra::BOUND, false);
    // ORDER: Release: with `bind` of another thread, whose home sees that this is done.
    notification.hot.bound.store(0, Ordering::Release);
    Ok(())
}

/// Does something with a thread's bound notification, at the thread's home.
fn with_bound<R>(thread: ThreadRef, f: impl FnOnce(&Notification) -> R) -> Option<R> {
    let notification = thread.bound.take()?;
    let result = f(&notification);
    thread.bound.set(Some(notification));
    Some(result)
}

/// Takes the bits of the current thread's bound notification, which is about to receive.
pub(crate) fn poll_bound(thread: ThreadRef) -> u64 {
    with_bound(thread, Notification::poll).unwrap_or(0)
}

/// The current thread has queued up to receive: takes bits that were set before anybody could find it there, and the thread out of the queue.
/// 0 if it waits.
pub(crate) fn second_thoughts(irq: &mut IrqOff, thread: ThreadRef) -> u64 {
    let taken = with_bound(thread, |notification| {
        let bits = notification.hot.state.take();
        percpu::race_point!("notification.bound");
        if bits == 0 || irq.locks(|held| wait::delist(held, thread)) {
            return bits;
        }
        // Somebody has a message for it: the bits are for its next receive, or for who waits.
        irq.locks(|held| put_back(held, notification, bits));
        0
    });
    taken.unwrap_or(0)
}

/// Bits that were meant for the bound thread, which does not take them now, and looks for them later.
fn put_back(held: &mut Held<'_, 0>, notification: &Notification, bits: u64) {
    if let Some((thread, bits)) = notification.hot.state.signal(bits) {
        wake(held, thread, bits);
    }
}

/// Bits have been set, and nobody waits for them: the bound thread may be receiving.
fn tell_bound(held: &mut Held<'_, 0>, notification: &Notification) {
    let Some(thread) = notification.bound() else { return };
    let seen = thread.place.look();
    if seen.in_flight {
        return;
    }
    if seen.core == held.core() {
        tell_here(held, notification, thread);
    } else {
        post(notification, seen.core);
    }
}

/// Whether those who wait at an endpoint want to receive. A thread's role does not say so: whoever takes the shortest way leaves it as it is.
fn receives(at: At) -> bool {
    // SAFETY: made of an endpoint, and read just now.
    let endpoint = unsafe { place::get::<Endpoint>(at) };
    endpoint.queue().lock().kind() == Kind::Receivers
}

/// Tells the bits that are set to the bound thread, if it receives. At its home.
fn tell_here(held: &mut Held<'_, 0>, notification: &Notification, thread: ThreadRef) {
    // What a thread that does not wait says of its place is of the past (IQ2).
    if thread.state.get() != State::Blocked {
        return;
    }
    let at = thread.link.at();
    if at.0 & place::MARKS != place::ENDPOINT || !receives(at) {
        return;
    }
    let bits = notification.hot.state.take();
    if bits == 0 {
        return;
    }
    percpu::race_point!("notification.tells");
    match talk::withdraw(held, thread, at) {
        Withdrawn::Yes => {
            messages::signal(thread, bits);
            homes::send_home(held, thread);
        }
        Withdrawn::No | Withdrawn::LookAgain => put_back(held, notification, bits),
    }
}

/// Has the bound thread's home look at the bits.
fn post(notification: &Notification, to: CoreId) {
    // ORDER: AcqRel: with `deliver`: a look that is still to come sees the bits that were set before.
    if notification.posted.swap(true, Ordering::AcqRel) {
        return;
    }
    if !crate::object::try_acquire(&notification.header) {
        // Nobody refers to it any more, so no thread is bound to it.
        return;
    }
    let inbox = mailbox::INBOX.of(to).expect("Y1: a home is a core that runs");
    let node = NonNull::from_ref(&notification.node);
    // SAFETY: `posted` is set by one until it has arrived; the reference that was just taken keeps it; `deliver` expects such a node.
    if unsafe { inbox.push(node, deliver, Urgency::Eager) } == Kick::Interrupt {
        Interrupts.send(to);
    }
}

/// # Safety
/// 1. `node` is that of a notification, with a reference.
unsafe fn deliver(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1: the result is the notification.
    let at = unsafe { node.byte_sub(offset_of!(Notification, node)) }.cast::<Notification>();
    // SAFETY: obligation 1: the count that `post` has taken.
    let notification = unsafe { Ref::adopt(at) };
    // ORDER: AcqRel: pairs with `post`.
    notification.posted.swap(false, Ordering::AcqRel);
    let Some(thread) = notification.bound() else { return };
    let seen = thread.place.look();
    // One that has moved meanwhile has run, and looks at its next receive.
    if seen.core == held.core() && !seen.in_flight {
        tell_here(held, &notification, thread);
    }
}
