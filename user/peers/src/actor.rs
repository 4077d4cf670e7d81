//! A party of a random program: does what it is told, notes what has come of it, and stops itself until it is told more.

use abi::cap::Handle;
use abi::error::Error;
use abi::ipc::{MessageCall, Tag};
use rt::handle::{Endpoint, Owned, Reply, Thread, Typed};
use rt::ipc::{self, Message};
use rt::time::Deadline;

use crate::arch;
use crate::model::{ENDPOINTS, Outcome, Patience, contents};
use crate::page::{Order, Share};

/// A party's endpoints.
pub(crate) type Endpoints = [Endpoint; ENDPOINTS];

/// Of an actor whose vector registers are not its own.
const MIXED_UP: u64 = u64::MAX;

/// Does what it is told, for ever. With `state`, whatever it waits for must leave its vector registers as they are.
pub(crate) fn act(share: Share, endpoints: Endpoints, state: bool) -> ! {
    let own = Thread(share.own());
    loop {
        // Whoever resumes it has an order for it.
        let _ = own.suspend();
        let order = share.order();
        let pattern = u64::from(order.seed) << 32 | share.own().0;
        if state {
            arch::set_vectors(pattern);
        }
        let (outcome, value) = obey(order, &endpoints);
        if state && !arch::vectors_are(pattern) {
            share.note(&Outcome { status: MIXED_UP, ..outcome }, value);
        } else {
            share.note(&outcome, value);
        }
    }
}

/// Carries one order out.
fn obey(order: Order, endpoints: &Endpoints) -> (Outcome, u64) {
    let endpoint = endpoints.get(order.at).map_or(Handle::NONE, |endpoint| endpoint.handle());
    let (tag, words) = contents(order.seed);
    let message = Message { badge: 0, tag, words };
    match order.number {
        0 => (plain(enter(MessageCall::Send, endpoint, message, order)), 0),
        1 => (enter(MessageCall::Receive, endpoint, Message::EMPTY, order), 0),
        2 => (plain(enter(MessageCall::Reply, Handle::NONE, message, order)), 0),
        3 => (enter(MessageCall::Call, endpoint, message, order), 0),
        4 => (enter(MessageCall::ReplyReceive, endpoint, message, order), 0),
        5 => save(),
        6 => (plain(enter(MessageCall::Reply, order.handle, message, order)), 0),
        7 => {
            drop(Owned::new(Reply(order.handle)));
            (Outcome::default(), 0)
        }
        8 => (enter(call(order.seed), BAD, message, order), 0),
        _ => (enter(call(order.seed), endpoint, message.with(UNKNOWN), order), 0),
    }
}

/// A handle that names nothing, and is not 0, which `ipc_reply` knows.
const BAD: Handle = Handle::new(1 << 20, 1);
/// A bit of a tag that means nothing.
const UNKNOWN: u64 = 1 << 20;

fn call(number: u32) -> MessageCall {
    match number {
        0 => MessageCall::Send,
        1 => MessageCall::Receive,
        2 => MessageCall::Reply,
        3 => MessageCall::Call,
        _ => MessageCall::ReplyReceive,
    }
}

fn enter(which: MessageCall, handle: Handle, message: Message, order: Order) -> Outcome {
    let mut message = message;
    let deadline = match order.patience {
        patience if patience == Patience::Passed as u32 => Some(Deadline::PASSED),
        patience if patience == Patience::Soon as u32 => Some(Deadline(order.deadline)),
        _ => None,
    };
    if order.patience == Patience::None as u32 {
        message = message.with(Tag::NO_WAIT);
    }
    let result = match deadline {
        Some(deadline) => ipc::enter_until(which, handle, &mut message, deadline),
        None => ipc::enter(which, handle, &mut message),
    };
    match result {
        Ok(()) => Outcome { status: 0, tag: message.tag.0, badge: message.badge, words: message.words },
        Err(error) => Outcome { status: error as u64, ..Outcome::default() },
    }
}

/// Of a call that brings no message.
fn plain(outcome: Outcome) -> Outcome {
    Outcome { status: outcome.status, ..Outcome::default() }
}

fn save() -> (Outcome, u64) {
    let status = |error: Error| Outcome { status: error as u64, ..Outcome::default() };
    match ipc::save_reply() {
        Ok(reply) => (Outcome::default(), reply.keep().handle().0),
        Err(error) => (status(error), 0),
    }
}
