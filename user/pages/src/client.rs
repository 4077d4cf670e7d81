//! The other process: does what it is told by messages, or one thing that faults.

use abi::cap::ObjectKind;
use abi::error::Error;
use rt::handle::{Endpoint, Typed};
use rt::ipc::Message;
use rt::memory::PAGE;
use rt::start::Start;
use rt::sys;
use rt::thread;

use super::arch;

/// Labels of what it is asked for; the first word is an address.
pub(crate) const READ: u32 = 1;
/// As [`READ`]; the second word is what is written.
pub(crate) const WRITE: u32 = 2;

/// Codes of a client that has ended.
pub(crate) const FINE: u64 = 42;
pub(crate) const WRONG: u64 = 43;

pub(crate) fn run(start: &Start) -> u64 {
    let (at, pages) = (start.number("at", 0), start.number("pages", 1) as usize);
    match start.word("work") {
        Some("serve") => serve(start),
        Some("touch") => u64::from(!touch(at, pages)) + FINE,
        Some("crowd") => crowd(at, pages),
        Some("spin") => spin(at),
        Some("divide") => {
            arch::divide();
            WRONG
        }
        Some("trap") => u64::from(!(0..10).all(|_| arch::trap())) + FINE,
        Some("ask") => ask(start, at),
        Some("receive") => receive(start, at),
        _ => WRONG,
    }
}

/// A word of a page.
fn word(at: u64) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(at as usize)
}

/// Reads a word, which may fault.
pub(crate) fn read(at: u64) -> u64 {
    // SAFETY: this process's own, as far as it is anybody's; a fault is what the check is about.
    unsafe { word(at).read_volatile() }
}

/// Writes a word, which may fault.
pub(crate) fn write(at: u64, value: u64) {
    // SAFETY: as in `read`: nothing else lies there.
    unsafe { word(at).write_volatile(value) };
}

/// Reads and writes words for whoever asks.
fn serve(start: &Start) -> u64 {
    let Some(endpoint) = start.given(ObjectKind::Endpoint).next().map(Endpoint) else { return WRONG };
    let mut answer = endpoint.receive(0);
    while let Ok(message) = answer {
        let mut words = message.words;
        match message.tag.label() {
            READ => words[0] = read(words[0]),
            WRITE => write(words[0], words[1]),
            _ => return FINE,
        }
        answer = endpoint.reply_receive(Message::new(0, words));
    }
    WRONG
}

/// What a pager puts into a page: its number.
pub(crate) const fn content(page: usize) -> u64 {
    0xfeed_0000 + page as u64
}

/// Reads every page, which must say its number, and writes to it.
fn touch(at: u64, pages: usize) -> bool {
    (0..pages).all(|page| {
        let at = at + (page * PAGE) as u64;
        let fine = read(at) == content(page);
        write(at + 8, !content(page));
        fine && read(at + 8) == !content(page)
    })
}

/// Some threads do that at once, each with pages of its own.
fn crowd(at: u64, pages: usize) -> u64 {
    const THREADS: usize = 4;
    let each = pages / THREADS;
    let work = |index: usize| {
        move || {
            let first = index * each;
            (first..first + each).all(|page| read(at + (page * PAGE) as u64) == content(page))
        }
    };
    let threads: [_; THREADS] = core::array::from_fn(|index| thread::spawn(work(index)));
    let fine = threads.into_iter().all(|thread| thread.and_then(rt::thread::JoinHandle::join) == Ok(true));
    if fine { FINE } else { WRONG }
}

/// Counts in a word until that is gone.
fn spin(at: u64) -> u64 {
    loop {
        write(at, read(at) + 1);
    }
}

/// Has the kernel write where a page is missing: an error, not a fault.
fn ask(start: &Start, at: u64) -> u64 {
    // SAFETY: nothing lies there that the call could overwrite.
    let answer = unsafe { sys::process_info(start.process().handle(), at) };
    if answer == Err(Error::BadAddress) { FINE } else { WRONG }
}

/// Receives a message, and faults itself, or for address 1 waits for ever.
fn receive(start: &Start, at: u64) -> u64 {
    let Some(endpoint) = start.given(ObjectKind::Endpoint).next().map(Endpoint) else { return WRONG };
    let Ok(_message) = endpoint.receive(0) else { return WRONG };
    if at == 1 {
        rt::time::sleep(rt::time::Deadline::NEVER);
    }
    read(at)
}
