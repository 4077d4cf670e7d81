//! Notifications that are bound to a thread: their bits come where messages come.

use abi::error::Error;
use abi::ipc::Tag;
use abi::task::ThreadState;
use rt::handle::{Endpoint, Notification};
use rt::ipc::{self, Message};
use rt::start::Start;
use rt::time::Deadline;

use crate::basics::blocks;
use crate::{Outcome, Test, after, ensure, eventually, notification, on, patience, unexpected};

pub(crate) const TESTS: &[Test] = &[
    ("bound-waiting", |start| on_both(start, waiting)),
    ("bound-pending", pending),
    ("bound-timeout", |start| on_both(start, timeout)),
    ("bound-kill", |start| on_both(start, kill)),
    ("bound-suspend", |start| on_both(start, suspend)),
    ("bound-states", states),
    ("bound-server", |start| on_both(start, server)),
    ("bound-send", |start| on_both(start, while_sending)),
];

/// With the receiver on core 0 and on core 1.
fn on_both(start: &Start, test: fn(&Start, usize) -> Outcome) -> Outcome {
    for core in [0, 1] {
        test(start, core).map_err(|why| alloc::format!("receiver on core {core}: {why}"))?;
    }
    Ok(())
}

fn endpoint() -> Outcome<rt::handle::Owned<Endpoint>> {
    Endpoint::create().map_err(unexpected)
}

/// The bits of what was received; 0 for a message.
fn bits_of(message: &Message) -> u64 {
    if message.tag.has(Tag::SIGNAL) { message.badge } else { 0 }
}

/// A thread that receives is told, by a signal and by a broadcast, also with a deadline.
fn waiting(start: &Start, core: usize) -> Outcome {
    let (own, door) = (notification()?, endpoint()?);
    let (bell, at) = (*own, *door);
    for (until, broadcast) in [(Deadline::NEVER, false), (patience(), false), (Deadline::NEVER, true)] {
        let receiver = on(start, core).spawn(move || at.receive_until(0, until)).map_err(unexpected)?;
        blocks(receiver.thread())?;
        bell.bind(receiver.thread()).map_err(unexpected)?;
        if broadcast {
            let _ = bell.broadcast(9).map_err(unexpected)?;
        } else {
            bell.signal(9).map_err(unexpected)?;
        }
        let message = receiver.join().map_err(unexpected)?.map_err(unexpected)?;
        ensure!(message.tag == Tag(Tag::SIGNAL) && message.badge == 9, "it is told {message:x?}");
        ensure!(own.poll() == Ok(0), "what was told is still set");
    }
    Ok(())
}

/// Bits that are set already are told at once, before messages; after they are bound, and when nobody waits otherwise.
fn pending(start: &Start) -> Outcome {
    let (own, door) = (notification()?, endpoint()?);
    let thread = start.thread();
    own.bind(thread).map_err(unexpected)?;
    own.signal(1).map_err(unexpected)?;
    let to = *door;
    let sender = on(start, 1).spawn(move || to.send(&Message::new(5, [0; 8]))).map_err(unexpected)?;
    blocks(sender.thread())?;
    let first = door.receive(0).map_err(unexpected)?;
    ensure!(bits_of(&first) == 1, "the bits are not told first: {first:x?}");
    let second = door.receive(0).map_err(unexpected)?;
    ensure!(second.tag.label() == 5, "then comes {second:x?}");
    sender.join().map_err(unexpected)?.map_err(unexpected)?;
    own.signal(2).map_err(unexpected)?;
    ensure!(door.try_receive(0).is_ok_and(|told| bits_of(&told) == 2), "one that does not wait is not told");
    ensure!(door.try_receive(0) == Err(Error::WouldBlock), "it is told again");
    own.signal(4).map_err(unexpected)?;
    ensure!(own.poll() == Ok(4), "bound bits cannot be polled");
    thread.unbind().map_err(unexpected)?;
    own.signal(8).map_err(unexpected)?;
    ensure!(door.try_receive(0) == Err(Error::WouldBlock), "it is told after it was unbound");
    ensure!(own.poll() == Ok(8), "the bits are lost");
    Ok(())
}

fn bound_receiver(
    start: &Start,
    core: usize,
    bell: Notification,
    at: Endpoint,
    until: Deadline,
) -> Outcome<rt::thread::JoinHandle<Result<Message, Error>>> {
    let receiver = on(start, core).spawn(move || at.receive_until(0, until)).map_err(unexpected)?;
    bell.bind(receiver.thread()).map_err(unexpected)?;
    blocks(receiver.thread())?;
    Ok(receiver)
}

fn timeout(start: &Start, core: usize) -> Outcome {
    let (own, door) = (notification()?, endpoint()?);
    let receiver = on(start, core);
    let (bell, at, until) = (*own, *door, after(10));
    let receiver = receiver.spawn(move || at.receive_until(0, until)).map_err(unexpected)?;
    // It may have ended already.
    let _ = bell.bind(receiver.thread());
    ensure!(receiver.join().map_err(unexpected)? == Err(Error::TimedOut), "no timeout");
    own.signal(1).map_err(unexpected)?;
    ensure!(own.poll() == Ok(1), "the bits went to one that has ended");
    Ok(())
}

/// Who is killed is bound no longer: another can be.
fn kill(start: &Start, core: usize) -> Outcome {
    let (own, door) = (notification()?, endpoint()?);
    let receiver = bound_receiver(start, core, *own, *door, Deadline::NEVER)?;
    receiver.thread().kill(3).map_err(unexpected)?;
    ensure!(receiver.thread().join(patience()) == Ok(3), "it does not end");
    own.signal(1).map_err(unexpected)?;
    ensure!(own.poll() == Ok(1), "the bits went to one that was killed");
    let next = bound_receiver(start, core, *own, *door, Deadline::NEVER)?;
    own.signal(2).map_err(unexpected)?;
    let told = next.join().map_err(unexpected)?.map_err(unexpected)?;
    ensure!(bits_of(&told) == 2, "the next is told {told:x?}");
    Ok(())
}

fn suspend(start: &Start, core: usize) -> Outcome {
    let (own, door) = (notification()?, endpoint()?);
    let receiver = bound_receiver(start, core, *own, *door, Deadline::NEVER)?;
    receiver.thread().suspend().map_err(unexpected)?;
    own.signal(7).map_err(unexpected)?;
    let parked = || receiver.thread().info().is_ok_and(|info| info.state == ThreadState::Suspended as u32);
    ensure!(eventually(parked), "it does not stay suspended");
    receiver.thread().resume().map_err(unexpected)?;
    let told = receiver.join().map_err(unexpected)?.map_err(unexpected)?;
    ensure!(bits_of(&told) == 7, "it is told {told:x?}");
    Ok(())
}

/// One thread, one notification; until either goes.
fn states(start: &Start) -> Outcome {
    let (first, second, door) = (notification()?, notification()?, endpoint()?);
    let thread = start.thread();
    ensure!(thread.unbind() == Err(Error::WrongState), "what is not bound can be unbound");
    first.bind(thread).map_err(unexpected)?;
    ensure!(second.bind(thread) == Err(Error::WrongState), "a thread has two");
    let receiver = {
        let at = *door;
        on(start, 1).spawn(move || at.receive(0)).map_err(unexpected)?
    };
    ensure!(first.bind(receiver.thread()) == Err(Error::WrongState), "a notification has two");
    thread.unbind().map_err(unexpected)?;
    first.bind(receiver.thread()).map_err(unexpected)?;
    blocks(receiver.thread())?;
    // The thread keeps it, but nobody can name it any more.
    drop(first);
    second.bind(thread).map_err(unexpected)?;
    thread.unbind().map_err(unexpected)?;
    door.send(&Message::new(1, [0; 8])).map_err(unexpected)?;
    let told = receiver.join().map_err(unexpected)?.map_err(unexpected)?;
    ensure!(told.tag.label() == 1, "it is told {told:x?}");
    Ok(())
}

/// Label with which the server is asked to end.
const END: u32 = u32::MAX;

/// Answers calls, and adds the bits that it is told up; each bit comes again only after it was counted.
fn serve(at: Endpoint, heard: Notification) -> Result<[u64; 2], Error> {
    let (mut calls, mut signals) = (0, 0);
    let mut message = at.receive(0)?;
    loop {
        let bits = bits_of(&message);
        message = if bits != 0 {
            signals += u64::from(bits.count_ones());
            heard.signal(bits)?;
            at.receive(0)?
        } else if message.tag.label() == END {
            ipc::reply(&Message::EMPTY)?;
            return Ok([calls, signals]);
        } else {
            calls += 1;
            at.reply_receive(Message::new(1, message.words.map(|word| !word)))?
        };
    }
}

/// A server that answers calls and is signalled meanwhile, by clients on its own core and on others.
fn server(start: &Start, core: usize) -> Outcome {
    const ROUNDS: u64 = 300;
    let (own, heard, door) = (notification()?, notification()?, endpoint()?);
    let (bell, back, at) = (*own, *heard, *door);
    let server = on(start, core).spawn(move || serve(at, back)).map_err(unexpected)?;
    bell.bind(server.thread()).map_err(unexpected)?;
    let calls = move || {
        (0..ROUNDS).try_for_each(|round| {
            let got = at.call(Message::new(1, [round; 8]))?;
            if got.words == [!round; 8] { Ok(()) } else { Err(Error::Mismatch) }
        })
    };
    let clients = [0, 1].map(|core| on(start, core).spawn(calls));
    let signals = move || {
        (0..ROUNDS).try_for_each(|_| {
            bell.signal(1)?;
            back.wait_until(patience()).map(drop)
        })
    };
    let signaller = on(start, 1).spawn(signals).map_err(unexpected)?;
    for client in clients {
        client.map_err(unexpected)?.join().map_err(unexpected)?.map_err(unexpected)?;
    }
    signaller.join().map_err(unexpected)?.map_err(unexpected)?;
    at.call(Message::new(END, [0; 8])).map_err(unexpected)?;
    let counted = server.join().map_err(unexpected)?.map_err(unexpected)?;
    ensure!(counted == [2 * ROUNDS, ROUNDS], "the server has counted {counted:?}");
    Ok(())
}

/// A thread that waits to send, or for a reply, is told nothing: the bits stay.
fn while_sending(start: &Start, core: usize) -> Outcome {
    let (own, door) = (notification()?, endpoint()?);
    let at = *door;
    for calls in [false, true] {
        let sends = move || {
            let message = Message::new(3, [0; 8]);
            if calls {
                at.call(message).map(|answer| answer.tag.label())
            } else {
                at.send(&message).map(|()| 4)
            }
        };
        let sender = on(start, core).spawn(sends).map_err(unexpected)?;
        own.bind(sender.thread()).map_err(unexpected)?;
        blocks(sender.thread())?;
        own.signal(1).map_err(unexpected)?;
        let message = at.receive(0).map_err(unexpected)?;
        ensure!(message.tag.label() == 3, "what comes is {message:x?}");
        if calls {
            own.signal(2).map_err(unexpected)?;
            ipc::reply(&Message::new(4, [0; 8])).map_err(unexpected)?;
        }
        ensure!(sender.join().map_err(unexpected)? == Ok(4), "it was not sent");
        ensure!(own.poll() == Ok(if calls { 3 } else { 1 }), "the bits are gone");
    }
    Ok(())
}
