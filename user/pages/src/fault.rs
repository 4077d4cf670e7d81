//! Faults as messages.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::ipc::{Fault, Tag, WORDS};
use abi::quota::Passing;
use abi::task::{ExitStatus, ProcessSpec, Protection};
use perf::clock::Nanos;
use rt::handle::{Endpoint, Owned, Process, Typed};
use rt::ipc::{self, Message};
use rt::start::Start;
use rt::sys;
use rt::time::{self, Deadline};

use super::client::{FINE, content, write};
use super::scene::{Client, area, map, page, pass, soon, unmap};
use super::{Check, Outcome, done, ensure};

pub(crate) const CHECKS: &[Check] = &[
    ("pager", |start| pager(start, "touch", 0)),
    ("pager-bare", |start| pager(start, "touch", ProcessSpec::NO_FPU)),
    ("pager-crowd", |start| pager(start, "crowd", 0)),
    ("refused", refused),
    ("divide", divide),
    ("trap", |start| trap(start, 0)),
    ("trap-bare", |start| trap(start, ProcessSpec::NO_FPU)),
    ("kinds", kinds),
    ("nobody", nobody),
    ("closed", closed),
    ("abandoned", abandoned),
    ("saved", saved),
    ("killed-client", killed_client),
    ("killed-pager", killed_pager),
    ("faulting-pager", faulting_pager),
    ("kernel", kernel),
    ("errors", errors),
];

const BADGE: u64 = 0xba1d;
const PAGE_FAULT: u32 = 14;

/// Answers.
const RETRY: Message = Message { badge: 0, tag: Tag::new(Fault::RETRY, 0), words: [0; WORDS] };
const END: Message = Message { badge: 0, tag: Tag::new(1, 0), words: [0; WORDS] };

/// Has faults of a process go to an endpoint.
fn handle(process: Process, endpoint: Handle, kinds: u64) -> Result<(), Error> {
    // SAFETY: no address is passed.
    unsafe { sys::process_handler(process.handle(), endpoint, kinds) }.map(drop)
}

/// A client and the endpoint where its faults come.
struct Scene {
    client: Client,
    endpoint: Owned<Endpoint>,
}

impl Scene {
    /// With a handler for some kinds, started.
    fn new(start: &Start, work: &str, flags: u64, kinds: u64) -> Result<Self, alloc::string::String> {
        let client = Client::create(start, work, flags, &[])?;
        let endpoint = done!(Endpoint::create());
        let badged = done!(endpoint.derive(Rights::SEND, BADGE));
        done!(handle(*client.process, badged.handle(), kinds));
        done!(client.process.start());
        // The capability may go: what faults go to is settled.
        Ok(Self { client, endpoint })
    }

    fn receive(&self) -> Result<Message, Error> {
        self.endpoint.receive_until(0, soon())
    }

    fn ended(&self) -> Result<ExitStatus, Error> {
        self.client.ended()
    }
}

/// Whether a process has ended by a fault, of which vector, accessing what.
fn faulted(status: &ExitStatus, vector: u64, address: u64) -> bool {
    status.reason == ExitStatus::FAULTED && status.code == vector && status.address == address
}

/// Supplies every page of a client when it is touched, in three ways, filled before the client sees it.
fn pager(start: &Start, work: &str, flags: u64) -> Outcome {
    const PAGES: u64 = 60;
    let (own, at) = (start.process(), area(start));
    let scene = Scene::new(start, &alloc::format!("{work} at={at} pages={PAGES}"), flags, Fault::PAGES)?;
    let client = *scene.client.process;
    let desk = page(at, 600);
    let (mut came, mut seen) = (0, 0_u64);
    let mut message = done!(scene.receive());
    while came < PAGES {
        ensure!(message.tag.has(Tag::FAULT) && message.badge == BADGE, "{message:x?}");
        ensure!(message.tag.label() == PAGE_FAULT && message.tag.words() == Fault::COUNT, "{message:x?}");
        let address = message.words[Fault::Address as usize];
        let index = (address.wrapping_sub(at)) >> 12;
        ensure!(
            index < PAGES && seen & 1 << index == 0,
            "a page twice, or another's: {message:x?}, {came} {seen:x}"
        );
        // User mode, not present; a read (SDM volume 3, figure 5-12).
        ensure!(message.words[Fault::Code as usize] & 7 == 4, "{message:x?}");
        ensure!(message.words[Fault::Stack as usize] > 1 << 16, "{message:x?}");
        ensure!(message.words[Fault::Thread as usize] != done!(start.thread().info()).id, "{message:x?}");
        seen |= 1 << index;
        done!(map(own, desk, 1));
        write(desk, content(index as usize));
        let how = [Passing::Move, Passing::Share, Passing::CopyOnWrite][index as usize % 3];
        done!(pass((own, desk), 1, (client, address & !0xfff), how));
        done!(unmap(own, desk, 1));
        came += 1;
        if came < PAGES {
            message = done!(scene.endpoint.reply_receive(RETRY));
        }
    }
    done!(ipc::reply(&RETRY));
    let status = done!(scene.ended());
    ensure!(status.reason == ExitStatus::EXITED && status.code == FINE, "{status:x?}");
    Ok(())
}

/// The handler does not want the client to go on.
fn refused(start: &Start) -> Outcome {
    let at = area(start);
    for flags in [0, ProcessSpec::NO_FPU] {
        let scene = Scene::new(start, &alloc::format!("touch at={at}"), flags, Fault::PAGES)?;
        let message = done!(scene.receive());
        done!(ipc::reply(&END));
        let status = done!(scene.ended());
        ensure!(faulted(&status, 14, at), "{status:x?}");
        ensure!(status.instruction == message.words[Fault::Instruction as usize], "{status:x?}");
        // The same by `reply_receive`, whose shortest way is another.
        let scene = Scene::new(start, &alloc::format!("touch at={at}"), flags, Fault::PAGES)?;
        done!(scene.receive());
        let next = scene.endpoint.reply_receive(END.with(Tag::NO_WAIT));
        ensure!(next == Err(Error::WouldBlock), "{next:x?}");
        ensure!(faulted(&done!(scene.ended()), 14, at), "{status:x?}");
    }
    Ok(())
}

fn divide(start: &Start) -> Outcome {
    let scene = Scene::new(start, "divide", 0, Fault::EXCEPTIONS)?;
    for round in 0..3 {
        let message = done!(scene.receive());
        let (address, instruction) =
            (message.words[Fault::Address as usize], message.words[Fault::Instruction as usize]);
        ensure!(message.tag.label() == 0 && message.tag.has(Tag::FAULT), "{message:x?}");
        ensure!(address == instruction && message.words[Fault::Code as usize] == 0, "{message:x?}");
        done!(ipc::reply(if round < 2 { &RETRY } else { &END }));
    }
    let status = done!(scene.ended());
    ensure!(status.reason == ExitStatus::FAULTED && status.code == 0, "{status:x?}");
    Ok(())
}

/// The client goes on behind its traps, with the registers that it had.
fn trap(start: &Start, flags: u64) -> Outcome {
    let scene = Scene::new(start, "trap", flags, Fault::EXCEPTIONS)?;
    let mut message = done!(scene.receive());
    for _ in 1..10 {
        ensure!(message.tag.label() == 1 && message.tag.has(Tag::FAULT), "{message:x?}");
        message = done!(scene.endpoint.reply_receive(Message::new(Fault::RETRY, [!0; WORDS])));
    }
    done!(ipc::reply(&RETRY));
    let status = done!(scene.ended());
    ensure!(status.reason == ExitStatus::EXITED && status.code == FINE, "{status:x?}");
    Ok(())
}

/// A handler of the other kind hears nothing.
fn kinds(start: &Start) -> Outcome {
    let at = area(start);
    let work = alloc::format!("touch at={at}");
    let scene = Scene::new(start, &work, 0, Fault::EXCEPTIONS)?;
    ensure!(faulted(&done!(scene.ended()), 14, at), "a page fault has not ended it");
    ensure!(scene.endpoint.try_receive(0) == Err(Error::WouldBlock), "it was told");
    let scene = Scene::new(start, "divide", 0, Fault::PAGES)?;
    ensure!(done!(scene.ended()).code == 0, "a division has not ended it");
    ensure!(scene.endpoint.try_receive(0) == Err(Error::WouldBlock), "it was told");
    Ok(())
}

/// The handler was taken away before anything happened.
fn nobody(start: &Start) -> Outcome {
    let at = area(start);
    let client = Client::create(start, &alloc::format!("touch at={at}"), 0, &[])?;
    let endpoint = done!(Endpoint::create());
    done!(handle(*client.process, endpoint.handle(), Fault::PAGES));
    done!(handle(*client.process, Handle::NONE, 0));
    done!(client.process.start());
    ensure!(faulted(&done!(client.ended()), 14, at), "it has not ended");
    Ok(())
}

/// The handler's endpoint is gone before the fault, or while the client waits there.
fn closed(start: &Start) -> Outcome {
    let at = area(start);
    let client = Client::create(start, &alloc::format!("touch at={at}"), 0, &[])?;
    let endpoint = done!(Endpoint::create());
    done!(handle(*client.process, endpoint.handle(), Fault::PAGES));
    drop(endpoint);
    done!(client.process.start());
    ensure!(faulted(&done!(client.ended()), 14, at), "it has not ended");
    let Scene { client, endpoint } = Scene::new(start, &alloc::format!("touch at={at}"), 0, Fault::PAGES)?;
    time::sleep(Deadline::after(Nanos::from_millis(10)));
    drop(endpoint);
    ensure!(faulted(&done!(client.ended()), 14, at), "it has not ended");
    Ok(())
}

/// The handler receives again without having answered.
fn abandoned(start: &Start) -> Outcome {
    let at = area(start);
    let scene = Scene::new(start, &alloc::format!("touch at={at}"), 0, Fault::PAGES)?;
    done!(scene.receive());
    ensure!(scene.endpoint.try_receive(0) == Err(Error::WouldBlock), "there is another message");
    ensure!(faulted(&done!(scene.ended()), 14, at), "it has not ended");
    Ok(())
}

/// The answer comes later, through a reply capability, or that goes.
fn saved(start: &Start) -> Outcome {
    let (own, at) = (start.process(), area(start));
    let scene = Scene::new(start, &alloc::format!("touch at={at}"), 0, Fault::PAGES)?;
    done!(scene.receive());
    let reply = done!(ipc::save_reply());
    time::sleep(Deadline::after(Nanos::from_millis(5)));
    let desk = page(at, 600);
    done!(map(own, desk, 1));
    write(desk, content(0));
    done!(pass((own, desk), 1, (*scene.client.process, at), Passing::Move));
    done!(reply.answer(&RETRY));
    let status = done!(scene.ended());
    ensure!(status.reason == ExitStatus::EXITED && status.code == FINE, "{status:x?}");
    let scene = Scene::new(start, &alloc::format!("touch at={at}"), 0, Fault::PAGES)?;
    done!(scene.receive());
    drop(done!(ipc::save_reply()));
    ensure!(faulted(&done!(scene.ended()), 14, at), "it has not ended");
    Ok(())
}

/// The handler never answers, and the client is ended by somebody else; then the answer is nobody's.
fn killed_client(start: &Start) -> Outcome {
    let at = area(start);
    let scene = Scene::new(start, &alloc::format!("touch at={at}"), 0, Fault::PAGES)?;
    done!(scene.receive());
    done!(scene.client.process.kill(9));
    let status = done!(scene.ended());
    ensure!(status.reason == ExitStatus::KILLED && status.code == 9, "{status:x?}");
    ensure!(ipc::reply(&RETRY) == Err(Error::WrongState), "somebody was answered");
    // While it waits for somebody to receive.
    let scene = Scene::new(start, &alloc::format!("touch at={at}"), 0, Fault::PAGES)?;
    time::sleep(Deadline::after(Nanos::from_millis(5)));
    done!(scene.client.process.kill(9));
    ensure!(done!(scene.ended()).reason == ExitStatus::KILLED, "it was not killed");
    ensure!(scene.endpoint.try_receive(0) == Err(Error::WouldBlock), "there is a message of nobody's");
    Ok(())
}

/// A client whose handler is another process, which `work` says what it does.
fn with_pager(start: &Start, at: u64, work: &str) -> Result<(Client, Client), alloc::string::String> {
    let endpoint = done!(Endpoint::create());
    let pager = Client::create(start, work, 0, &[endpoint.handle()])?;
    let client = Client::create(start, &alloc::format!("touch at={at}"), 0, &[])?;
    let send = done!(endpoint.derive(Rights::SEND, 0));
    done!(handle(*client.process, send.handle(), Fault::PAGES));
    // From now on the pager alone receives.
    drop(endpoint);
    done!(pager.process.start());
    done!(client.process.start());
    Ok((pager, client))
}

fn killed_pager(start: &Start) -> Outcome {
    let at = area(start);
    let (pager, client) = with_pager(start, at, "receive at=1")?;
    time::sleep(Deadline::after(Nanos::from_millis(20)));
    done!(pager.process.kill(0));
    ensure!(faulted(&done!(client.ended()), 14, at), "it has not ended");
    Ok(())
}

fn faulting_pager(start: &Start) -> Outcome {
    let at = area(start);
    let (pager, client) = with_pager(start, at, "receive at=0")?;
    ensure!(faulted(&done!(pager.ended()), 14, 0), "the pager has not ended");
    ensure!(faulted(&done!(client.ended()), 14, at), "the client has not ended");
    Ok(())
}

/// What the kernel accesses for a program is no fault of the program's.
fn kernel(start: &Start) -> Outcome {
    let scene = Scene::new(start, &alloc::format!("ask at={}", area(start)), 0, Fault::PAGES)?;
    let status = done!(scene.ended());
    ensure!(status.reason == ExitStatus::EXITED && status.code == FINE, "{status:x?}");
    ensure!(scene.endpoint.try_receive(0) == Err(Error::WouldBlock), "there is a message");
    Ok(())
}

fn errors(start: &Start) -> Outcome {
    let client = Client::create(start, "touch at=4096", 0, &[])?;
    let process = *client.process;
    let endpoint = done!(Endpoint::create());
    let deaf = done!(endpoint.derive(Rights::RECEIVE, 0));
    let weak = done!(client.process.derive(Rights::ALL.and(Rights(!Rights::CONTROL.0)), 0));
    ensure!(handle(process, deaf.handle(), Fault::PAGES) == Err(Error::MissingRight), "without SEND");
    ensure!(handle(*weak, endpoint.handle(), Fault::PAGES) == Err(Error::MissingRight), "without CONTROL");
    ensure!(handle(process, endpoint.handle(), 4) == Err(Error::BadArgument), "an unknown kind");
    ensure!(handle(process, process.handle(), 1) == Err(Error::WrongType), "at a process");
    ensure!(handle(process, Handle(7 << 32), 1) == Err(Error::BadHandle), "at nothing");
    done!(client.process.kill(0));
    done!(client.process.wait(Deadline::NEVER));
    ensure!(handle(process, endpoint.handle(), Fault::PAGES) == Err(Error::WrongState), "of a dead process");
    // A handler's own pages may be missing, too: nobody can answer but itself, from another thread.
    let (own, at) = (start.process(), area(start));
    done!(handle(own, endpoint.handle(), Fault::PAGES));
    let other = done!(rt::thread::spawn(move || super::client::read(at)));
    let message = done!(endpoint.receive_until(0, soon()));
    ensure!(message.words[Fault::Address as usize] == at, "{message:x?}");
    // SAFETY: of the area, where this program keeps nothing else.
    done!(unsafe { sys::map(own.handle(), at, 1, Protection::Read as u64) });
    done!(ipc::reply(&RETRY));
    ensure!(done!(other.join()) == 0, "another page");
    done!(handle(own, Handle::NONE, 0));
    done!(unmap(own, at, 1));
    Ok(())
}
