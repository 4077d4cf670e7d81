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
use core::mem::offset_of;

use abi::error::Error;
use ipc::{At, ReplySlot, Withdrawn};
use percpu::Held;
use sched::{Ready, Stop};

use crate::arch::tsc;
use crate::arch::user::{HEAD, pending};
use crate::dispatch::SCHED;
use crate::endpoint::{Endpoint, Reply};
use crate::notification::Notification;
use crate::thread::{Thread, ThreadRef};
use crate::wait::place;
use crate::{homes, inherit, messages};

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
/// | `role` | itself, before it waits in a queue | who takes it out | by the queue |
/// | `on`, `runner`, `depth` | its home | the same | – |
/// | `reply` | itself; callers | the same | its own |
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Talk {
    on: Cell<ThreadRef>,
    runner: Cell<ThreadRef>,
    /// How many times its context has been lent on.
    depth: Cell<u32>,
    pub(crate) reply: ReplySlot<ThreadRef>,
    pub(crate) role: Cell<Role>,
}

impl Talk {
    /// Where the assembly finds the fields.
    pub(crate) const ON: usize = offset_of!(Self, on);
    /// As `ON`.
    pub(crate) const RUNNER: usize = offset_of!(Self, runner);
    /// As `ON`.
    pub(crate) const DEPTH: usize = offset_of!(Self, depth);
    /// As `ON`.
    pub(crate) const REPLY: usize = offset_of!(Self, reply);
    /// As `ON`.
    pub(crate) const ROLE: usize = offset_of!(Self, role);

    /// Of a thread that does not know its place in memory yet.
    pub(crate) const fn new() -> Self {
        Self {
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
    context.talk.depth.set(context.talk.depth.get() + 1);
    context.talk.runner.set(callee);
}

/// Whether a caller can lend its context on.
#[inline(always)]
pub(crate) fn can_lend(caller: ThreadRef) -> bool {
    caller.context().talk.depth.get() < MAX_DEPTH
}

/// The context goes back from the runner to the caller that it came from (DN2). The runner has its own again, which is on no queue.
#[inline(always)]
pub(crate) fn give_back(runner: ThreadRef, caller: ThreadRef) {
    let context = runner.talk.on.get();
    debug_assert!(context.talk.runner.get() == runner, "DN1: the runner is the last of the chain");
    context.talk.runner.set(caller);
    context.talk.depth.set(context.talk.depth.get() - 1);
    runner.talk.on.set(runner);
}

/// The thread that a caller waits for, if it is one.
pub(crate) fn callee(at: At) -> Option<ThreadRef> {
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
        if at == last {
            break;
        }
        depth += 1;
        at = callee(at.link.at()).expect("DN1: all but the last of a chain wait for the next");
    }
    first.talk.runner.set(last);
    first.talk.depth.set(depth);
    context.talk.runner.set(caller);
    // The first one was lent it, and `depth` more.
    context.talk.depth.set(context.talk.depth.get() - depth - 1);
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
    inherit::left(held, first, context);
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
    inherit::left(held, thread, context);
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
    inherit::abandoned(held, thread);
}

/// Takes a thread out of where it waits in connection with messages, which `at` has said. At its home.
pub(crate) fn withdraw(held: &mut Held<'_, 0>, thread: ThreadRef, at: At) -> Withdrawn {
    match at.0 & place::MARKS {
        // SAFETY: made of an endpoint, and read just now.
        place::ENDPOINT => leave_endpoint(held, thread, at, unsafe { place::get(at) }),
        // SAFETY: made of a notification, and read just now.
        place::NOTIFICATION => unsafe { place::get::<Notification>(at) }.lock().withdraw(thread, at),
        place::CALLEE => {
            let first = callee(at).expect("IQ2: the place is a thread's");
            let withdrawn = first.talk.reply.withdraw(thread, at);
            if withdrawn == Withdrawn::Yes {
                recall(held, thread, first);
                inherit::gave_up(held, thread, first);
            }
            withdrawn
        }
        // SAFETY: made of a reply, and read just now.
        place::REPLY => unsafe { place::get::<Reply>(at) }.slot().withdraw(thread, at),
        other => unreachable!("IQ2: a thread waits at something of kind {other}"),
    }
}

fn leave_endpoint(held: &mut Held<'_, 0>, thread: ThreadRef, at: At, endpoint: &Endpoint) -> Withdrawn {
    let (withdrawn, server) = {
        let mut queue = endpoint.queue().lock();
        let withdrawn = queue.withdraw(thread, at);
        let gone = withdrawn == Withdrawn::Yes;
        (withdrawn, if gone { inherit::left_queue(endpoint, &queue) } else { None })
    };
    if let Some(server) = server {
        inherit::tell(held, &server);
    }
    withdrawn
}
