//! A notification that is bound to a server while it waits, whatever it did before: it is told to it as if it had been bound first.

use abi::cap::Handle;
use abi::error::Error;
use abi::ipc::Tag;
use abi::task::{CoreMask, ThreadSpec};
use alloc::format;
use perf::clock::Nanos;
use rt::handle::{Endpoint, Typed};
use rt::ipc::{self, Message};
use rt::start::Start;
use rt::sys;
use rt::thread::Builder;
use rt::time::Deadline;

use crate::{Failure, unexpected};

/// Label with which a server is asked to end.
const END: u32 = u32::MAX;
/// What is signalled.
const BITS: u64 = 0x50;

/// Serves until a notification comes, whose bits it gives, or it is asked to end. `other` is asked before every answer.
fn serve(own: Endpoint, other: Option<Endpoint>) -> u64 {
    let mut next = own.receive(0);
    while let Ok(message) = next {
        if message.tag.has(Tag::SIGNAL) {
            return message.badge;
        }
        if message.tag.label() == END {
            let _ = ipc::reply(&Message::EMPTY);
            return 0;
        }
        // What may time out takes the long way, and is the last that says what this thread does.
        if other.is_some_and(|other| other.call_until(Message::EMPTY, soon()).is_err()) {
            return 2;
        }
        next = own.reply_receive(Message::new(0, message.words));
    }
    1
}

fn soon() -> Deadline {
    Deadline::after(Nanos::from_millis(5_000))
}

/// All on one core, so that the server waits by the shortest way.
pub(crate) fn run(_: &Start) -> Result<u64, Failure> {
    let builder = Builder::default().cores(CoreMask::one(0)).flags(ThreadSpec::NO_FPU);
    let (own, other) = (Endpoint::create().map_err(unexpected)?, Endpoint::create().map_err(unexpected)?);
    let (to, next) = (*own, *other);
    let asked = builder.spawn(move || serve(next, None)).map_err(unexpected)?;
    let server = builder.spawn(move || serve(to, Some(next))).map_err(unexpected)?;
    let client = builder.spawn(move || (0..3).try_for_each(|_| to.call(Message::EMPTY).map(drop)));
    client.map_err(unexpected)?.join().map_err(unexpected)?.map_err(unexpected)?;
    // SAFETY: no address is passed.
    let notification = Handle(unsafe { sys::notification_create() }.map_err(unexpected)?);
    // SAFETY: as above.
    unsafe { sys::notification_bind(notification, server.thread().handle()) }.map_err(unexpected)?;
    // SAFETY: as above.
    unsafe { sys::notification_signal(notification, BITS) }.map_err(unexpected)?;
    let told = server.thread().join(soon());
    if told == Err(Error::TimedOut) {
        rt::say!("peers: the server is not told what was signalled");
        rt::start::exit(1);
    }
    let bits = server.join().map_err(unexpected)?;
    next.call(Message::new(END, [0; 8])).map_err(unexpected)?;
    asked.join().map_err(unexpected)?;
    if bits == BITS { Ok(0) } else { Err(format!("the server was told {bits:x}")) }
}
