//! Makes every system call with every kind of bad pointer and bad handle, one at a time among good ones: each is refused with the error
//! that its kind has, and nothing has changed.
//!
//! What is expected follows from the table of calls: the kind of the argument, and the right that the call's description names. Calls for
//! which it is something else are listed by name, with the reason. A call that this kernel does not offer is left out, and counted;
//! `verbose=1` names each. The exit code is 0, or the number of the calls that were wrong; the log says which and how.
#![no_std]
#![no_main]

extern crate alloc;

mod expect;
mod world;

use alloc::format;
use alloc::string::String;

use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use abi::ipc::{MessageCall, Tag};
use abi::syscall::{Argument, Description, Kind, TABLE};
use rt::handle::{Endpoint, Owned, Typed};
use rt::ipc::{self, Message};
use rt::start::Start;
use rt::sync::atomic::{AtomicU64, Ordering};
use rt::{memory, say, sys, thread};

use expect::{HANDLES, HandleKind, POINTERS, PointerKind};
use world::World;

rt::entry!(main);

/// How often a call is made while its memory comes and goes.
const RACES: usize = 200;

fn main(start: &Start) -> u64 {
    if start.word("work") == Some("tell") {
        return tell(start);
    }
    let world = World::new(start).and_then(|mut world| world.find_foreign(start).map(|()| world));
    let Ok(world) = world else {
        say!("matrix: the world cannot be made: {:?}", world.err());
        return 1000;
    };
    let talks = start.number("verbose", 0) != 0;
    let mut matrix = Matrix { world, wrong: 0, made: 0, left_out: 0, talks };
    for row in TABLE {
        matrix.row(row);
    }
    matrix.messages();
    say!("matrix: {} calls made, {} wrong; {} rows not offered", matrix.made, matrix.wrong, matrix.left_out);
    matrix.wrong
}

/// In another process: tells one of its handles.
fn tell(start: &Start) -> u64 {
    let Some(&last) = start.handles().last() else { return 1 };
    let message = Message::new(0, [last.0; 8]);
    Endpoint(last).send(&message).map_or(2, |()| 0)
}

struct Matrix {
    world: World,
    wrong: u64,
    made: u64,
    left_out: u64,
    /// Whether it says which call is next.
    talks: bool,
}

impl Matrix {
    fn complain(&mut self, what: &str, why: &str) {
        say!("matrix: {what}: {why}");
        self.wrong += 1;
    }

    fn row(&mut self, row: &Description) {
        if expect::ends_caller(row.name) {
            return;
        }
        if self.talks {
            say!("matrix: {}", row.name);
        }
        // SAFETY: arguments that name nothing: whatever the call is, it is refused, or does nothing.
        let (status, _) = if row.arguments.is_empty() {
            (0, 0)
        } else {
            // SAFETY: null pointers and no handles: the call changes nothing of this process's memory.
            unsafe { sys::raw(row.number, [0; 6]) }
        };
        if Error::decode(status) == Some(Error::Unsupported) {
            self.left_out += 1;
            return;
        }
        for (index, argument) in row.arguments.iter().enumerate() {
            match argument.kind {
                Kind::Handle => HANDLES.iter().for_each(|&kind| self.bad_handle(row, index, kind)),
                Kind::In | Kind::Out | Kind::Bytes | Kind::Buffer => {
                    POINTERS.iter().for_each(|&kind| self.bad_pointer(row, index, argument.kind, kind));
                    self.race(row, index, argument.kind);
                }
                Kind::Address if argument.name == "word" || argument.name == "to" => {
                    POINTERS.iter().for_each(|&kind| self.bad_pointer(row, index, argument.kind, kind));
                }
                _ => {}
            }
        }
    }

    /// Arguments that all make sense.
    fn good(&self, row: &Description) -> Option<[u64; 6]> {
        let mut arguments = [0; 6];
        for (slot, argument) in arguments.iter_mut().zip(row.arguments) {
            *slot = self.good_argument(row.name, argument)?;
        }
        Some(arguments)
    }

    fn good_argument(&self, call: &str, argument: &Argument) -> Option<u64> {
        let world = &self.world;
        Some(match (argument.kind, argument.name) {
            // A thread can be made only where one runs.
            (Kind::Handle, "process") if call == "thread_create" => Start::get().process().handle().0,
            (Kind::Handle, "process" | "parent" | "subject" | "to") => world.child.handle().0,
            (Kind::Handle, "from") if call == "pages_pass" => world.child.handle().0,
            (Kind::Handle, "thread") => world.thread.handle().0,
            (Kind::Handle, "region" | "from" | "handle") => world.region.handle().0,
            (Kind::Handle, "core") => world.core.0,
            (Kind::Handle, "debug") => world.debug.0,
            (Kind::Handle, "endpoint") => world.endpoint.handle().0,
            (Kind::Handle, "notification") => world.notification.0,
            (Kind::Handle, "timer") => world.timer.0,
            (Kind::Handle, "lease") => world.lease.0,
            (Kind::Handle, "interrupt") => world.interrupt.0,
            (Kind::Handle, "interrupts") => given(ObjectKind::Interrupts)?,
            (Kind::Handle, "ports") => given(ObjectKind::Ports)?,
            (Kind::Handle, "devices") => given(ObjectKind::Devices)?,
            (Kind::Handle, "bank") => given(ObjectKind::Bank)?,
            (Kind::Handle, _) => return None,
            (Kind::In | Kind::Out | Kind::Bytes | Kind::Buffer, _) => world.scratch(),
            (Kind::Address, "word" | "to") => world.scratch(),
            (Kind::Address, "address") if matches!(call, "unmap" | "protect" | "pages_pass") => world.mapped,
            (Kind::Address, _) => 0,
            (Kind::Count, "length") => 16,
            (Kind::Count, "core" | "first") => 0,
            (Kind::Count, _) => 1,
            (Kind::Choice, "rights") => u64::from(Rights::ALL.0),
            (Kind::Choice, "events" | "reserved") => 0,
            (Kind::Choice, _) => 1,
            // What no word holds that is waited for.
            (Kind::Value, "expected") => 1,
            (Kind::Value | Kind::Deadline, _) => 0,
        })
    }

    fn bad_handle(&mut self, row: &Description, index: usize, kind: HandleKind) {
        let Some(mut arguments) = self.good(row) else {
            let why = format!("no good argument for {}", row.name);
            return self.complain(row.name, &why);
        };
        let Some(expected) = expect::of_handle(row, index, kind) else { return };
        let Some((handle, _made)) = self.make_handle(Handle(arguments[index]), kind) else {
            return self.complain(row.name, "the handle cannot be made");
        };
        arguments[index] = handle.0;
        self.refused(row, arguments, expected, &format!("{kind:?} for {}", row.arguments[index].name));
    }

    /// A handle of a kind, made of a good one; with what goes when it does.
    fn make_handle(&self, good: Handle, kind: HandleKind) -> Option<(Handle, Option<Owned<Endpoint>>)> {
        let world = &self.world;
        let about = Endpoint(good);
        Some(match kind {
            HandleKind::None => (Handle::NONE, None),
            HandleKind::Stale => (Handle::new(good.index(), good.generation().wrapping_add(1)), None),
            HandleKind::Forged => (Handle::new(1 << 20, 1), None),
            HandleKind::Deleted => (world.deleted, None),
            HandleKind::Revoked => (world.revoked, None),
            HandleKind::Foreign => (world.foreign, None),
            HandleKind::WrongType => {
                let endpoint = world.endpoint.handle();
                let other = if good == endpoint { world.region.handle() } else { endpoint };
                (other, None)
            }
            HandleKind::NoRight => {
                let made = about.derive(Rights::NONE, 0).ok()?;
                (made.handle(), Some(made))
            }
        })
    }

    /// Makes a call that has to be refused, and looks at whether it has changed anything.
    fn refused(&mut self, row: &Description, arguments: [u64; 6], expected: Error, what: &str) {
        // What comes before an address that cannot be written to may have been written.
        let partly = arguments.contains(&self.world.straddling());
        let before = self.world.look();
        // SAFETY: to be refused; if it is not, nothing of this process's but the world is at stake.
        let (status, value) = unsafe { sys::raw(row.number, arguments) };
        let mut after = self.world.look();
        if partly {
            after = after.map(|sight| sight.written_as(&before));
        }
        self.made += 1;
        if Error::decode(status) != Some(expected) {
            let got = Error::decode(status).map_or("success", Error::name);
            self.complain(
                row.name,
                &format!("{what}: {got} instead of {}, value {value:x}", expected.name()),
            );
        } else if value != 0 {
            self.complain(row.name, &format!("{what}: refused with value {value:x}"));
        } else if before != after {
            self.complain(row.name, &format!("{what}: {before:x?} before, {after:x?} after"));
        }
        self.world.restore();
    }

    fn bad_pointer(&mut self, row: &Description, index: usize, of: Kind, kind: PointerKind) {
        let Some(mut arguments) = self.good(row) else { return };
        let world = &self.world;
        arguments[index] = match kind {
            PointerKind::Null => 0,
            PointerKind::Kernel => 0xffff_ffff_8000_0000,
            PointerKind::DirectMap => 0xffff_8000_0000_0000,
            PointerKind::NonCanonical => 0x8000_0000_0000_0000,
            PointerKind::EndOfHalf => 0x7fff_ffff_fff8,
            PointerKind::Wrapping => u64::MAX - 7,
            PointerKind::Straddling => world.straddling(),
            PointerKind::Unmapped => world.unmapped(),
            PointerKind::Unaligned => world.scratch() + 1,
            PointerKind::ReadOnly => world.read_only(),
        };
        let what = format!("{kind:?} for {}", row.arguments[index].name);
        match expect::of_pointer(row.name, of, kind) {
            Some(error) => self.refused(row, arguments, error, &what),
            None => self.granted(row, arguments, arguments[index], &what),
        }
    }

    /// Makes a call that has to succeed.
    fn granted(&mut self, row: &Description, arguments: [u64; 6], at: u64, what: &str) {
        let reads = row.arguments.iter().any(|argument| matches!(argument.kind, Kind::In | Kind::Bytes));
        if reads && self.world.put(row.name, at).is_err() {
            return self.complain(row.name, "its argument cannot be written");
        }
        // SAFETY: what it writes to is the world's.
        let (status, value) = unsafe { sys::raw(row.number, arguments) };
        self.made += 1;
        if status != 0 {
            let got = Error::decode(status).map_or("an unknown error", Error::name);
            self.complain(row.name, &format!("{what}: {got} instead of success"));
        }
        give_back(row, status, value);
        self.world.restore();
        self.world.settle();
    }

    /// Makes a call again and again while its memory is mapped and unmapped by another thread.
    fn race(&mut self, row: &Description, index: usize, of: Kind) {
        let Some(mut arguments) = self.good(row) else { return };
        if expect::is_slow(row.name) {
            return;
        }
        let at = self.world.fickle();
        arguments[index] = at + 64;
        let over = alloc::sync::Arc::new(AtomicU64::new(0));
        let seen = alloc::sync::Arc::clone(&over);
        let Ok(other) = thread::spawn(move || come_and_go(at, &seen)) else {
            return self.complain(row.name, "no thread for a race");
        };
        let mut unexpected: Option<u64> = None;
        for _ in 0..RACES {
            // SAFETY: what it writes to is a page that nothing else uses, if it is there.
            let (status, value) = unsafe { sys::raw(row.number, arguments) };
            give_back(row, status, value);
            // An empty page may say nothing that makes sense.
            let senseless = matches!(of, Kind::In) && status == Error::BadArgument as u64;
            if status != 0 && status != Error::BadAddress as u64 && !senseless {
                unexpected = Some(status);
            }
        }
        self.made += RACES as u64;
        // ORDER: Relaxed: sooner or later.
        over.store(1, Ordering::Relaxed);
        let ended: Result<bool, String> = other.join().map_err(|error| String::from(error.name()));
        if ended != Ok(true) {
            self.complain(row.name, &format!("the other thread ended with {ended:?}"));
        }
        if let Some(status) = unexpected {
            self.complain(row.name, &format!("status {status} while its memory came and went"));
        }
    }

    /// The calls that pass messages: bad handles, and tags that mean nothing.
    fn messages(&mut self) {
        const CALLS: [(MessageCall, Rights); 5] = [
            (MessageCall::Send, Rights::SEND),
            (MessageCall::Receive, Rights::RECEIVE),
            (MessageCall::Reply, Rights::SEND),
            (MessageCall::Call, Rights::SEND),
            (MessageCall::ReplyReceive, Rights::RECEIVE),
        ];
        for (call, right) in CALLS {
            for kind in HANDLES {
                let Some((handle, _made)) = self.make_handle(self.world.endpoint.handle(), *kind) else {
                    return self.complain("a message", "the handle cannot be made");
                };
                let expected = match (call, kind) {
                    // It stands for the caller whose message came last, and there is none.
                    (MessageCall::Reply, HandleKind::None) => Error::WrongState,
                    // An endpoint is of the wrong type itself.
                    (MessageCall::Reply, HandleKind::NoRight) => Error::WrongType,
                    _ => kind.error(),
                };
                self.message(call, handle, Tag(Tag::NO_WAIT), expected, &format!("{kind:?}"));
            }
            let Ok(other) = self.world.endpoint.derive(Rights(Rights::ALL.0 & !right.0), 0) else {
                return self.complain("a message", "the handle cannot be made");
            };
            let expected = if call == MessageCall::Reply { Error::WrongType } else { Error::MissingRight };
            self.message(call, other.handle(), Tag(Tag::NO_WAIT), expected, "every other right");
            for tag in [Tag(1 << 13), Tag(1 << 14), Tag(1 << 15), Tag(1 << 31), Tag(5 << 4)] {
                let good = self.world.endpoint.handle();
                self.message(call, good, tag, Error::BadArgument, &format!("{tag:x?}"));
            }
        }
        let good = self.world.endpoint.handle();
        for call in [MessageCall::Send, MessageCall::Receive, MessageCall::Call, MessageCall::ReplyReceive] {
            self.message(call, good, Tag(Tag::NO_WAIT), Error::WouldBlock, "nobody");
            self.message(call, good, Tag(Tag::TIMED), Error::TimedOut, "no time");
        }
    }

    fn message(&mut self, call: MessageCall, handle: Handle, tag: Tag, expected: Error, what: &str) {
        if self.talks {
            say!("matrix: {call:?}, {what}");
        }
        let before = self.world.look();
        let mut message = Message { badge: 0, tag, words: [u64::MAX; 8] };
        let result = if tag.has(Tag::TIMED) {
            ipc::enter_until(call, handle, &mut message, rt::time::Deadline::PASSED)
        } else {
            ipc::enter(call, handle, &mut message)
        };
        let after = self.world.look();
        self.made += 1;
        if result != Err(expected) {
            self.complain(
                "a message",
                &format!("{call:?}, {what}: {result:?} instead of {}", expected.name()),
            );
        }
        if before != after {
            self.complain("a message", &format!("{call:?}, {what}: {before:x?} before, {after:x?} after"));
        }
    }
}

/// The first capability of a kind that this program was given.
fn given(kind: ObjectKind) -> Option<u64> {
    Start::get().given(kind).next().map(|handle| handle.0)
}

/// Deletes what a call has made.
fn give_back(row: &Description, status: u64, value: u64) {
    if status == 0 && row.value.starts_with("handle") {
        drop(Owned::new(Endpoint(Handle(value))));
    }
}

/// Maps and unmaps a page until it is over; `false` if that does not work.
fn come_and_go(page: u64, over: &AtomicU64) -> bool {
    let own = Start::get().process().handle();
    let Some(start) = core::ptr::NonNull::new(page as *mut u8) else { return false };
    // ORDER: Relaxed: sooner or later.
    while over.load(Ordering::Relaxed) == 0 {
        // SAFETY: a page that only the calls of the race use.
        if unsafe { memory::unmap(start, 1) }.is_err() {
            return false;
        }
        thread::yield_now();
        // SAFETY: the page was unmapped just now.
        if unsafe { sys::map(own, page, 1, abi::task::Protection::ReadWrite as u64) }.is_err() {
            return false;
        }
        thread::yield_now();
    }
    true
}
