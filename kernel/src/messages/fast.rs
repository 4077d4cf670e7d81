//! The commonest messages in as few steps as can be: a call to a receiver that waits alone on this core, and a reply to a caller on this
//! core by a thread that then waits alone. Everything else, and everything unusual, is `messages`' own business: these answer null then, and
//! have changed nothing.
//!
//! `user.S` keeps the message's registers over this, from program to program; here are only the threads.

use core::ptr;

use abi::cap::{Handle, Rights};
use ipc::{At, Party};
use percpu::IrqOff;

use crate::arch::user::HEAD;
use crate::endpoint::Endpoint;
use crate::talk::{self, Role};
use crate::thread::{State, Thread, ThreadRef};
use crate::wait::place;
use crate::{dispatch, spaces};

/// Who goes on; in `rax` and `rdx`.
#[repr(C)]
pub(crate) struct Next {
    /// Null: nothing was done.
    thread: *const Thread,
    badge: u64,
}

impl Next {
    const NONE: Self = Self { thread: ptr::null(), badge: 0 };

    #[inline(always)]
    fn go(irq: &IrqOff, thread: ThreadRef, badge: u64) -> Self {
        let at = thread.as_ptr().as_ptr().cast_const();
        thread.state.set(State::Runnable);
        // SAFETY: a thread that runs, or can, has not ended, and does not before it has left the core.
        unsafe { HEAD.owned(irq).set_current(at) };
        spaces::enter(irq, thread.space());
        Self { thread: at, badge }
    }
}

/// A call, its tag without anything special.
pub(crate) extern "C" fn fast_call(handle: Handle) -> Next {
    // SAFETY: `user.S` calls this with interrupts off and an empty stack: no other witness is in use.
    let irq = unsafe { IrqOff::assume() };
    let caller = dispatch::current(&irq);
    let Ok((endpoint, badge)) = caller.capabilities().find_badged::<Endpoint>(handle, Rights::SEND) else {
        return Next::NONE;
    };
    let Some(callee) = endpoint.queue().alone() else { return Next::NONE };
    let mark = dispatch::mark(&irq);
    let unusual = caller.extras.get() | HEAD.owned(&irq).extras();
    if !callee.talk.is_direct(mark) || unusual != 0 || !talk::can_lend(caller) {
        return Next::NONE;
    }
    if !endpoint.queue().take(callee) {
        return Next::NONE;
    }
    callee.link.set_at(At::NOWHERE);
    callee.talk.reply.set(caller);
    caller.talk.role.set(Role::Calling);
    caller.talk.set_direct(mark);
    caller.state.set(State::Blocked);
    talk::lend(caller, callee);
    caller.link.set_at(place::object(callee.as_ptr(), place::CALLEE));
    Next::go(&irq, callee, badge)
}

/// A reply to the caller of the message received last, and a wait for the next, the tag without anything special.
pub(crate) extern "C" fn fast_reply_receive(handle: Handle) -> Next {
    // SAFETY: as in `fast_call`.
    let irq = unsafe { IrqOff::assume() };
    let thread = dispatch::current(&irq);
    let Ok(endpoint) = thread.capabilities().find::<Endpoint>(handle, Rights::RECEIVE) else {
        return Next::NONE;
    };
    let Some(caller) = thread.talk.reply.look() else { return Next::NONE };
    let mark = dispatch::mark(&irq);
    let unusual = thread.extras.get() | HEAD.owned(&irq).extras();
    // A caller that has lent its context lives on this core, and nobody else takes it out of the slot.
    if !thread.borrows() || !caller.talk.is_direct(mark) || unusual != 0 || !endpoint.queue().is_free() {
        return Next::NONE;
    }
    thread.talk.role.set(Role::Receiving);
    thread.talk.set_direct(mark);
    thread.state.set(State::Blocked);
    thread.link.set_at(place::object(endpoint.as_ptr(), place::ENDPOINT));
    let context = thread.context();
    thread.talk.reply.clear();
    talk::give_back(thread, caller);
    if !endpoint.queue().park(thread) {
        // Somebody was quicker: as it was.
        thread.link.set_at(At::NOWHERE);
        thread.state.set(State::Runnable);
        thread.talk.reply.set(caller);
        talk::borrow_again(thread, caller, context);
        return Next::NONE;
    }
    caller.link().set_at(At::NOWHERE);
    Next::go(&irq, caller, 0)
}
