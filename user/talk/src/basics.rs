//! What each operation does, between threads on one core and on two, and between processes.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::ipc::Tag;
use abi::task::{CoreMask, Grant, ProcessSpec, ThreadSpec};
use alloc::format;
use alloc::sync::Arc;
use perf::clock::Nanos;
use rt::handle::{Endpoint, Owned, Process, Typed};
use rt::ipc::{self, Message};
use rt::process::{Builder as ProcessBuilder, Image};
use rt::start::Start;
use rt::sync::atomic::{AtomicBool, Ordering};
use rt::thread::{self, Builder};
use rt::time::{self, Deadline};

use crate::{Outcome, Test, channels, ensure, order, passed, unexpected};

pub(crate) const TESTS: &[Test] = &[
    ("call-same-core", |start| call_between(start, 0, 0)),
    ("call-other-core", |start| call_between(start, 0, 1)),
    ("call-fpu", |start| call_with_state(start)),
    ("call-process", |start| call_process(start, 0)),
    ("call-process-other-core", |start| call_process(start, 1)),
    ("nested", nested),
    ("send", send),
    ("send-order", order::sends),
    ("timeouts", timeouts),
    ("would-block", would_block),
    ("saved-reply", saved_reply),
    ("peer-gone", peer_gone),
    ("capabilities", capabilities),
    ("capabilities-passed", passed::passed),
    ("plain-reply", plain_reply),
    ("many-clients", many_clients),
];

/// Label with which a server is asked to end.
pub(crate) const END: u32 = u32::MAX;

/// A thread on a core of this process.
pub(crate) fn on(start: &Start, core: usize) -> Builder {
    let core = core % start.raw().cores as usize;
    Builder::default().cores(CoreMask::one(core)).flags(ThreadSpec::NO_FPU)
}

fn words(seed: u64) -> [u64; 8] {
    core::array::from_fn(|index| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(index as u32 * 8))
}

/// Answers every message with its words inverted and its badge as label, until it is asked to end.
fn echo(endpoint: Endpoint) -> u64 {
    let Ok(mut message) = endpoint.receive(0) else { return 1 };
    loop {
        if message.tag.label() == END {
            let _ = ipc::reply(&Message::EMPTY);
            return 0;
        }
        let answer = Message::new(message.badge as u32, message.words.map(|word| !word));
        match endpoint.reply_receive(answer) {
            Ok(next) => message = next,
            Err(_) => return 2,
        }
    }
}

pub(crate) fn end(endpoint: Endpoint) -> Outcome {
    endpoint.call(Message::new(END, [0; 8])).map(drop).map_err(unexpected)
}

/// A client's part of [`echo`].
fn ask(endpoint: Endpoint, rounds: u64, badge: u64) -> Outcome {
    for round in 0..rounds {
        let sent = words(round);
        let got = endpoint.call(Message::new(7, sent)).map_err(unexpected)?;
        ensure!(got.words == sent.map(|word| !word), "round {round}: {:x?} came back", got.words);
        ensure!(got.tag == Tag::new(badge as u32, 8), "round {round}: tag {:x?}", got.tag);
    }
    Ok(())
}

fn call_between(start: &Start, server: usize, client: usize) -> Outcome {
    let endpoint = Endpoint::create().map_err(unexpected)?;
    let (own, badged) = (*endpoint, endpoint.derive(Rights::SEND, 42).map_err(unexpected)?);
    let to = *badged;
    let server = on(start, server).spawn(move || echo(own)).map_err(unexpected)?;
    let client = on(start, client).spawn(move || ask(to, 1000, 42)).map_err(unexpected)?;
    client.join().map_err(unexpected)??;
    end(to)?;
    let code = server.join().map_err(unexpected)?;
    ensure!(code == 0, "the server ended with {code}");
    Ok(())
}

fn call_with_state(start: &Start) -> Outcome {
    let endpoint = Endpoint::create().map_err(unexpected)?;
    let to = *endpoint;
    let core = CoreMask::one(0);
    let server = Builder::default().cores(core).spawn(move || echo(to)).map_err(unexpected)?;
    let client = Builder::default().cores(core).spawn(move || ask(to, 300, 0)).map_err(unexpected)?;
    client.join().map_err(unexpected)??;
    end(to)?;
    let _ = (server.join().map_err(unexpected)?, start);
    Ok(())
}

/// A process of this program that does `work` with some capabilities.
pub(crate) fn spawn(
    start: &Start,
    work: &str,
    core: usize,
    grants: &[Grant],
) -> Result<Owned<Process>, Error> {
    let image = start.program("talk").ok_or(Error::BadArgument)?;
    let arguments = format!("work={work}\0core={core}\0");
    let builder = ProcessBuilder::new(Image::Loaded(image)).name(work).arguments(&arguments).grants(grants);
    builder.flags(ProcessSpec::NO_FPU).spawn(start.process())
}

/// What another process of this program does.
pub(crate) fn work(start: &Start, work: &str) -> u64 {
    let core = start.number("core", 0) as usize % start.raw().cores as usize;
    let Some(&handle) = start.handles().first() else { return 90 };
    if start.thread().bind(&CoreMask::one(core)).is_err() {
        return 91;
    }
    let endpoint = Endpoint(handle);
    match work {
        channels::WORK => channels::work(start).unwrap_or(93),
        "echo" => echo(endpoint),
        "receive-and-die" => u64::from(endpoint.receive(0).is_err()),
        _ => 92,
    }
}

fn call_process(start: &Start, core: usize) -> Outcome {
    let endpoint = Endpoint::create().map_err(unexpected)?;
    let grants = [Grant::whole(endpoint.handle())];
    let server = spawn(start, "echo", core, &grants).map_err(unexpected)?;
    let badged = endpoint.derive(Rights::SEND, 5).map_err(unexpected)?;
    let to = *badged;
    let client = on(start, 0).spawn(move || ask(to, 1000, 5)).map_err(unexpected)?;
    client.join().map_err(unexpected)??;
    end(to)?;
    let status = server.wait(Deadline::NEVER).map_err(unexpected)?;
    ensure!(status.code == 0, "the server ended with {status:?}");
    Ok(())
}

/// A chain of servers on one core, each asking the next, longer than a context can be lent.
fn nested(start: &Start) -> Outcome {
    const LINKS: usize = 24;
    let mut ends = alloc::vec::Vec::new();
    for _ in 0..=LINKS {
        ends.push(Endpoint::create().map_err(unexpected)?);
    }
    let mut servers = alloc::vec::Vec::new();
    for link in 0..LINKS {
        let (own, next) = (*ends[link], *ends[link + 1]);
        let last = link == LINKS - 1;
        let pass = move || -> u64 {
            let Ok(mut message) = own.receive(0) else { return 1 };
            loop {
                let leave = message.tag.label() == END;
                let answer = if last {
                    Ok(message)
                } else {
                    next.call(Message::new(message.tag.label(), message.words))
                };
                let Ok(mut answer) = answer else { return 2 };
                answer.words[0] += 1;
                let answer = Message::new(0, answer.words);
                if leave {
                    let _ = ipc::reply(&answer);
                    return 0;
                }
                match own.reply_receive(answer) {
                    Ok(next) => message = next,
                    Err(_) => return 3,
                }
            }
        };
        servers.push(on(start, 0).spawn(pass).map_err(unexpected)?);
    }
    let first = *ends[0];
    let client = on(start, 0)
        .spawn(move || -> Outcome {
            for round in 0..200 {
                let got = first.call(Message::new(1, [round; 8])).map_err(unexpected)?;
                ensure!(got.words[0] == round + LINKS as u64, "{} after {round}", got.words[0]);
            }
            first.call(Message::new(END, [0; 8])).map(drop).map_err(unexpected)
        })
        .map_err(unexpected)?;
    client.join().map_err(unexpected)??;
    for server in servers {
        let code = server.join().map_err(unexpected)?;
        ensure!(code == 0, "a server ended with {code}");
    }
    Ok(())
}

fn send(start: &Start) -> Outcome {
    for (there, here) in [(0, 0), (0, 1)] {
        let endpoint = Endpoint::create().map_err(unexpected)?;
        let to = *endpoint;
        let receiver = on(start, there)
            .spawn(move || -> Outcome {
                for round in 0..500 {
                    let got = to.receive(0).map_err(unexpected)?;
                    ensure!(got.words == words(round), "round {round}: {:x?}", got.words);
                    ensure!(ipc::reply(&Message::EMPTY) == Err(Error::WrongState), "a send can be answered");
                }
                Ok(())
            })
            .map_err(unexpected)?;
        let sender = on(start, here)
            .spawn(move || -> Outcome {
                (0..500).try_for_each(|round| to.send(&Message::new(0, words(round))).map_err(unexpected))
            })
            .map_err(unexpected)?;
        sender.join().map_err(unexpected)??;
        receiver.join().map_err(unexpected)??;
    }
    Ok(())
}

fn soon() -> Deadline {
    Deadline::after(Nanos::new(300_000))
}

fn timeouts(start: &Start) -> Outcome {
    let endpoint = Endpoint::create().map_err(unexpected)?;
    let to = *endpoint;
    ensure!(to.receive_until(0, soon()) == Err(Error::TimedOut), "receive");
    ensure!(to.call_until(Message::EMPTY, soon()) == Err(Error::TimedOut), "call, not received");
    (0..2).try_for_each(|core| late_reply(start, core, to))
}

/// A call that is received in time, and answered only when its caller has given up: it may take the machine any time to get that far.
fn late_reply(start: &Start, core: usize, to: Endpoint) -> Outcome {
    let (received, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (tell, told) = (received.clone(), gone.clone());
    let server = on(start, core)
        .spawn(move || -> Outcome {
            let got = to.receive(0).map_err(unexpected)?;
            ensure!(got.words[0] == 9, "{}", got.words[0]);
            // ORDER: Relaxed: the flag alone matters, as below.
            tell.store(true, Ordering::Relaxed);
            while !told.load(Ordering::Relaxed) {
                time::sleep(Deadline::after(Nanos::from_millis(1)));
            }
            let late = ipc::reply(&Message::EMPTY);
            ensure!(late == Err(Error::WrongState), "a late reply: {late:?}");
            Ok(())
        })
        .map_err(unexpected)?;
    let client = on(start, 0)
        .spawn(move || -> Outcome {
            // It may give up before the server has come to wait.
            // ORDER: Relaxed: the flag alone matters.
            while !received.load(Ordering::Relaxed) {
                let patience = Deadline::after(Nanos::from_millis(1));
                let outcome = to.call_until(Message::new(0, [9; 8]), patience);
                ensure!(outcome == Err(Error::TimedOut), "call, not answered: {outcome:?}");
            }
            // ORDER: Relaxed: as above.
            gone.store(true, Ordering::Relaxed);
            Ok(())
        })
        .map_err(unexpected)?;
    client.join().map_err(unexpected)??;
    server.join().map_err(unexpected)?
}

fn would_block(_: &Start) -> Outcome {
    let endpoint = Endpoint::create().map_err(unexpected)?;
    ensure!(endpoint.try_send(&Message::EMPTY) == Err(Error::WouldBlock), "send");
    ensure!(endpoint.try_receive(0) == Err(Error::WouldBlock), "receive");
    Ok(())
}

fn saved_reply(start: &Start) -> Outcome {
    for core in [0, 1] {
        let endpoint = Endpoint::create().map_err(unexpected)?;
        let to = *endpoint;
        ensure!(ipc::save_reply().err() == Some(Error::WrongState), "saved nobody");
        let server = on(start, core)
            .spawn(move || -> Outcome {
                let first = to.receive(0).map_err(unexpected)?;
                let saved = ipc::save_reply().map_err(unexpected)?;
                let second = to.receive(0).map_err(unexpected)?;
                let other = ipc::save_reply().map_err(unexpected)?;
                other.answer(&Message::new(2, second.words)).map_err(unexpected)?;
                let handle = *saved;
                saved.answer(&Message::new(1, first.words)).map_err(unexpected)?;
                let again =
                    ipc::enter(abi::ipc::MessageCall::Reply, handle.handle(), &mut { Message::EMPTY });
                ensure!(again == Err(Error::BadHandle), "answered twice: {again:?}");
                // One that is dropped refuses its caller.
                let _ = to.receive(0).map_err(unexpected)?;
                drop(ipc::save_reply().map_err(unexpected)?);
                Ok(())
            })
            .map_err(unexpected)?;
        let client =
            |word: u64| on(start, 0).spawn(move || to.call(Message::new(0, [word; 8]))).map_err(unexpected);
        let (one, two) = (client(1)?, client(2)?);
        for (client, word) in [(one, 1), (two, 2)] {
            let got = client.join().map_err(unexpected)?.map_err(unexpected)?;
            ensure!(got.words == [word; 8], "{:?} for {word}", got.words);
        }
        let refused = client(3)?.join().map_err(unexpected)?;
        ensure!(refused == Err(Error::PeerGone), "dropped: {refused:?}");
        server.join().map_err(unexpected)??;
    }
    Ok(())
}

/// A server that ends leaves nobody waiting: not who it has received from, nor who waits to send, nor who comes later.
fn peer_gone(start: &Start) -> Outcome {
    for core in [0, 1] {
        let endpoint = Endpoint::create().map_err(unexpected)?;
        let badged = endpoint.derive(Rights::SEND, 1).map_err(unexpected)?;
        let grants = [Grant::whole(endpoint.handle())];
        let server = spawn(start, "receive-and-die", core, &grants).map_err(unexpected)?;
        let to = *badged;
        // From now on only the server can receive.
        drop(endpoint);
        let client = |core| on(start, core).spawn(move || to.call(Message::EMPTY)).map_err(unexpected);
        let clients = [client(0)?, client(0)?, client(1)?];
        for client in clients {
            let outcome = client.join().map_err(unexpected)?;
            ensure!(outcome == Err(Error::PeerGone), "a client got {outcome:?}");
        }
        let _ = server.wait(Deadline::NEVER).map_err(unexpected)?;
        ensure!(
            to.send(&Message::EMPTY) == Err(Error::PeerGone),
            "an endpoint without receivers takes messages"
        );
    }
    Ok(())
}

fn capabilities(start: &Start) -> Outcome {
    for core in [0, 1] {
        let endpoint = Endpoint::create().map_err(unexpected)?;
        let to = *endpoint;
        let server = on(start, core)
            .spawn(move || -> Outcome {
                let got = to.receive(2).map_err(unexpected)?;
                ensure!(got.tag.caps() == 2 && got.tag.has(Tag::LOST), "tag {:x?}", got.tag);
                let mut caps = got.caps();
                let (first, second) = (caps.next().unwrap_or_default(), caps.next().unwrap_or_default());
                let about = Endpoint(first).about().map_err(unexpected)?;
                ensure!(about.badge == 11, "badge {}", about.badge);
                ensure!(Endpoint(second).about().map_err(unexpected)?.badge == 12, "the second");
                ipc::reply(&Message::EMPTY.with_caps(&[first])).map_err(unexpected)
            })
            .map_err(unexpected)?;
        let client = on(start, 0)
            .spawn(move || -> Outcome {
                let make = |badge| to.derive(Rights::SEND.with(Rights::GRANT), badge).map_err(unexpected);
                let own = [make(11)?, make(12)?, make(13)?];
                let handles: [Handle; 3] = core::array::from_fn(|index| own[index].handle());
                let sent = Message::EMPTY.with_caps(&handles).accepting(1);
                let got = to.call(sent).map_err(unexpected)?;
                ensure!(got.tag.caps() == 1 && !got.tag.has(Tag::LOST), "tag {:x?}", got.tag);
                let back = got.caps().next().unwrap_or_default();
                ensure!(Endpoint(back).about().map_err(unexpected)?.badge == 11, "what came back");
                ensure!(own[0].about().is_ok(), "the sender's own is still there");
                Ok(())
            })
            .map_err(unexpected)?;
        client.join().map_err(unexpected)??;
        server.join().map_err(unexpected)??;
    }
    Ok(())
}

/// A server that answers and goes on without receiving, and one that receives again without having answered.
fn plain_reply(start: &Start) -> Outcome {
    for core in [0, 1] {
        let endpoint = Endpoint::create().map_err(unexpected)?;
        let to = *endpoint;
        let server = on(start, core)
            .spawn(move || -> Outcome {
                for _ in 0..100 {
                    let got = to.receive(0).map_err(unexpected)?;
                    ipc::reply(&got).map_err(unexpected)?;
                    thread::yield_now();
                }
                let _ = to.receive(0).map_err(unexpected)?;
                let next = to.receive(0).map_err(unexpected)?;
                ipc::reply(&Message::new(0, next.words)).map_err(unexpected)
            })
            .map_err(unexpected)?;
        let client = on(start, 0)
            .spawn(move || -> Outcome {
                for round in 0..100 {
                    let got = to.call(Message::new(0, [round; 8])).map_err(unexpected)?;
                    ensure!(got.words == [round; 8], "round {round}");
                }
                let left = to.call(Message::EMPTY);
                ensure!(left == Err(Error::PeerGone), "not answered: {left:?}");
                to.call(Message::EMPTY).map(drop).map_err(unexpected)
            })
            .map_err(unexpected)?;
        client.join().map_err(unexpected)??;
        server.join().map_err(unexpected)??;
    }
    Ok(())
}

fn many_clients(start: &Start) -> Outcome {
    let endpoint = Endpoint::create().map_err(unexpected)?;
    let to = *endpoint;
    let server = on(start, 0).spawn(move || echo(to)).map_err(unexpected)?;
    let mut clients = alloc::vec::Vec::new();
    for core in 0..12 {
        clients.push(on(start, core).spawn(move || ask(to, 200, 0)).map_err(unexpected)?);
    }
    for client in clients {
        client.join().map_err(unexpected)??;
    }
    end(to)?;
    let code = server.join().map_err(unexpected)?;
    ensure!(code == 0, "the server ended with {code}");
    Ok(())
}
