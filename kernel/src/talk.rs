//! What a thread has to do with messages, and whose time it runs on.
//!
//! A thread that calls another on its own core lends it its scheduling context: the scheduler goes on seeing the caller, and what it picks
//! is run by whoever has the caller's context now, the *runner*. So a call and its reply are no business of the scheduler's, and who works
//! for somebody does so with that one's priority, budget and deadline (after J. Brandenburg and others; L4's time-slice donation, and the
//! scheduling contexts of A. Lyons et al., "Scheduling-Context Capabilities", EuroSys 2018).
//!
//! * DN1: `runner` of a context's owner is the thread that runs on it; its `on` names the owner. A thread that has lent its context on has the
//!   same `on` and waits for the reply of the next; so the context's users are a chain of callers, all on one core, at most [`MAX_DEPTH`] long.
//! * DN2: a thread whose `on` is not itself has the context from the caller in its reply slot. Answering that one gives it back.
//! * DN3: on the queues of a core are owners of contexts whose runner can run.

use core::cell::Cell;

use abi::error::Error;
use ipc::{Aborted, At, ReplySlot};
use percpu::Held;
use percpu::sync::atomic::{AtomicU32, Ordering};
use sched::{Ready, Stop};

use crate::arch::tsc;
use crate::arch::user::{HEAD, pending};
use crate::dispatch::SCHED;
use crate::endpoint::{Endpoint, Reply};
use crate::thread::{Thread, ThreadRef};
use crate::wait::place;
use crate::{homes, messages};

/// Most callers that one context goes through. Beyond it who is called runs on its own.
pub(crate) const MAX_DEPTH: u32 = 16;

/// What a waiting thread wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A message.
    Receiving,
    /// Its message received.
    Sending,
    /// Its message received, and an answer.
    Calling,
}

/// A thread's part in messages.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `direct` | its home | the same; a core that thinks of switching to it | Relaxed: only the home finds its own number |
/// | `role` | itself, before it waits | who takes it out | by the queue |
/// | `depth`, `on`, `runner` | its home | the same | – |
/// | `reply` | itself; callers | the same | its own |
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Talk {
    /// The number of its home, plus 1, if it waits and can go on there as soon as its message is in the registers; else 0.
    direct: AtomicU32,
    depth: Cell<u32>,
    on: Cell<ThreadRef>,
    runner: Cell<ThreadRef>,
    pub(crate) reply: ReplySlot<ThreadRef>,
    pub(crate) role: Cell<Role>,
}

impl Talk {
    /// Of a thread that does not know its place in memory yet.
    pub(crate) const fn new() -> Self {
        Self {
            direct: AtomicU32::new(0),
            depth: Cell::new(0),
            on: Cell::new(ThreadRef::NOBODY),
            runner: Cell::new(ThreadRef::NOBODY),
            reply: ReplySlot::new(),
            role: Cell::new(Role::Receiving),
        }
    }

    /// The thread is where it stays.
    pub(crate) fn begin(&self, own: ThreadRef) {
        self.on.set(own);
        self.runner.set(own);
    }

    /// Whether the thread can be switched to on the core with this mark, which is the one that asks.
    #[inline(always)]
    pub(crate) fn is_direct(&self, mark: u32) -> bool {
        // ORDER: Relaxed: if it is this core's mark, this core wrote it, and nobody else changes it.
        self.direct.load(Ordering::Relaxed) == mark
    }

    /// Says that the thread, which is about to wait, can be switched to on its home, whose mark is given; 0 if it cannot.
    #[inline(always)]
    pub(crate) fn set_direct(&self, mark: u32) {
        // ORDER: Relaxed: as above.
        self.direct.store(mark, Ordering::Relaxed);
    }
}

impl ThreadRef {
    /// The owner of the scheduling context that the thread runs on: what the scheduler knows it by.
    #[inline(always)]
    pub(crate) fn context(self) -> Self {
        self.talk.on.get()
    }

    /// Who runs on this thread's own scheduling context.
    #[inline(always)]
    pub(crate) fn runner(self) -> Self {
        self.talk.runner.get()
    }

    /// Whether the thread runs on a caller's scheduling context.
    #[inline(always)]
    pub(crate) fn borrows(self) -> bool {
        self.talk.on.get() != self
    }

    /// Whether the thread has no part in lending: it runs on its own context.
    pub(crate) fn is_plain(self) -> bool {
        !self.borrows() && self.talk.runner.get() == self
    }
}

/// A caller's context goes on to the thread that it calls, on the same core.
#[inline(always)]
pub(crate) fn lend(caller: ThreadRef, callee: ThreadRef) {
    let context = caller.talk.on.get();
    callee.talk.on.set(context);
    callee.talk.depth.set(caller.talk.depth.get() + 1);
    context.talk.runner.set(callee);
}

/// Whether a caller can lend its context on.
#[inline(always)]
pub(crate) fn can_lend(caller: ThreadRef) -> bool {
    caller.talk.depth.get() < MAX_DEPTH
}

/// The context goes back from the runner to the caller that it came from (DN2). The runner has its own again, which is on no queue.
#[inline(always)]
pub(crate) fn give_back(runner: ThreadRef, caller: ThreadRef) {
    let context = runner.talk.on.get();
    debug_assert!(context.talk.runner.get() == runner, "DN1: the runner is the last of the chain");
    context.talk.runner.set(caller);
    runner.talk.on.set(runner);
    runner.talk.depth.set(0);
}

/// Takes back what [`give_back`] has just done.
#[cold]
pub(crate) fn borrow_again(runner: ThreadRef, caller: ThreadRef, context: ThreadRef) {
    context.talk.runner.set(runner);
    runner.talk.on.set(context);
    runner.talk.depth.set(caller.talk.depth.get() + 1);
}

/// The thread that a caller waits for, if it is one.
fn callee(at: At) -> Option<ThreadRef> {
    // SAFETY: made of a thread, and read just now.
    let thread = (at.0 & place::MARKS == place::CALLEE).then(|| unsafe { place::get::<Thread>(at) })?;
    // SAFETY: it lives until this core leaves the kernel.
    Some(unsafe { ThreadRef::new(core::ptr::NonNull::from_ref(thread)) })
}

/// A caller that waits no longer for `first` takes its context back from those that it was lent to. They go on on the first one's own.
fn recall(held: &mut Held<'_, 0>, caller: ThreadRef, first: ThreadRef) {
    let context = caller.context();
    let last = context.runner();
    if last == caller {
        return;
    }
    let mut at = first;
    let mut depth = 0;
    loop {
        at.talk.on.set(first);
        at.talk.depth.set(depth);
        if at == last {
            break;
        }
        depth += 1;
        at = callee(at.link.at()).expect("DN1: all but the last of a chain wait for the next");
    }
    first.talk.runner.set(last);
    context.talk.runner.set(caller);
    let sched = SCHED.owned(held);
    if sched.current() == Some(context) {
        sched.stop(tsc::now(), Stop::Blocked);
        homes::queue(held, first, Ready::New);
        // The last one's registers are in its frame, or will be: it is picked again.
        HEAD.owned(held).raise(pending::RESCHEDULE);
    } else if sched::Entity::task(&context).is_queued() {
        sched.remove(context);
        homes::queue(held, first, Ready::New);
    }
}

/// A thread that borrows a context must go where that does not: it goes on on its own, and the caller waits without lending. The
/// context, which may be on a queue, is taken off it.
pub(crate) fn part(held: &mut Held<'_, 0>, thread: ThreadRef) {
    if !thread.borrows() {
        return;
    }
    let sched = SCHED.owned(held);
    let context = thread.context();
    if sched.current() == Some(context) {
        sched.stop(tsc::now(), Stop::Blocked);
    } else {
        sched.remove(context);
    }
    let caller = thread.talk.reply.look().expect("DN2: a borrowed context came from a caller");
    give_back(thread, caller);
}

/// A thread that ends, or that receives without having answered, leaves its caller without an answer.
pub(crate) fn abandon(held: &mut Held<'_, 0>, thread: ThreadRef) {
    let borrows = thread.borrows();
    let Some(caller) = thread.talk.reply.look() else { return };
    if borrows {
        part(held, thread);
    }
    let Some(caller) = thread.talk.reply.take().filter(|&taken| taken == caller) else { return };
    caller.link.set_at(At::NOWHERE);
    messages::refuse(caller, Error::PeerGone);
    homes::send_home(held, caller);
}

/// What came of [`withdraw`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// It waits no longer.
    Yes,
    /// Somebody else has taken it, and sends it home.
    No,
    /// It is elsewhere by now.
    LookAgain,
}

/// Takes a thread out of where it waits in connection with messages, which `at` has said. At its home.
pub(crate) fn withdraw(held: &mut Held<'_, 0>, thread: ThreadRef, at: At) -> Withdrawn {
    let aborted = match at.0 & place::MARKS {
        place::ENDPOINT => return leave_queue(thread, at),
        place::CALLEE => match callee(at) {
            Some(first) => {
                let aborted = first.talk.reply.abort(thread);
                if aborted == Aborted::Yes {
                    recall(held, thread, first);
                }
                aborted
            }
            None => Aborted::Busy,
        },
        place::REPLY => {
            // SAFETY: made of a reply, and read just now.
            unsafe { place::get::<Reply>(at) }.slot().abort(thread)
        }
        other => unreachable!("IQ2: a thread waits at something of kind {other}"),
    };
    match aborted {
        Aborted::Yes => {
            thread.link.set_at(At::NOWHERE);
            Withdrawn::Yes
        }
        // Answered, unless it was moved to another slot, which is written before it leaves the first.
        Aborted::No if thread.link.at() == at => Withdrawn::No,
        Aborted::No | Aborted::Busy => Withdrawn::LookAgain,
    }
}

fn leave_queue(thread: ThreadRef, at: At) -> Withdrawn {
    // SAFETY: made of an endpoint, and read just now.
    let endpoint = unsafe { place::get::<Endpoint>(at) };
    let mut queue = endpoint.queue().lock();
    if thread.link.at() != at {
        return Withdrawn::LookAgain;
    }
    if !queue.remove(thread) {
        return Withdrawn::No;
    }
    thread.link.set_at(At::NOWHERE);
    Withdrawn::Yes
}
