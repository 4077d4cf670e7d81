//! What children do: one function each, by name. The exit code is 0 if all was as they expect, or the number of the step that was not.

use rt::sync::atomic::{AtomicU64, Ordering};

use core::cell::Cell;

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::ipc::{MessageCall, Tag};
use abi::task::{ProcessInfo, ProcessSpec, Protection, ThreadSpec};
use rt::handle::{Region, Result, Typed};
use rt::ipc::{self, Message};
use rt::memory::{self, PAGE};
use rt::process::{Builder, Image};
use rt::start::Start;
use rt::sys;
use rt::time::{self, Deadline};

use crate::children::{Child, PATIENCE, nap, passed};
use crate::filters;

/// Steps of a child, counted from 1: the first that fails is what it ends with.
type Steps = core::result::Result<(), u64>;

/// Step number `$step` goes on with a value, or ends the child.
macro_rules! step {
    ($step:literal, $result:expr) => {
        $result.map_err(|_| -> u64 { $step })?
    };
}

/// Step number `$step` fails unless a condition holds.
macro_rules! holds {
    ($step:literal, $condition:expr) => {
        if !$condition {
            return Err($step);
        }
    };
}

/// A piece of work, by its name.
type Work = (&'static str, fn(Start) -> Steps);

const WORKS: &[Work] = &[
    ("nothing", |_| Ok(())),
    ("touch", touch),
    ("count", count),
    ("fill", fill),
    ("family", family),
    ("regions", regions),
    ("show", show),
    ("exhaust", exhaust),
    ("refused", refused),
    ("parent", parent),
    ("spin", spin),
    ("calls", calls),
    ("twins", twins),
    ("every_call", filters::refuse_every_call),
    ("exits", filters::refuse_exits),
];

pub(crate) fn main(start: Start, name: &str) -> u64 {
    match WORKS.iter().find(|(known, _)| *known == name) {
        Some((_, work)) => work(start).err().unwrap_or(0),
        None => 99,
    }
}

/// A number that the compiler cannot know: so that a page is really written.
fn write(start: *mut u8, page: usize) {
    // SAFETY: inside pages that this program has mapped, writable and as bytes.
    let at = unsafe { start.add(page * PAGE) };
    // SAFETY: as above.
    unsafe { at.write_volatile(1) };
}

/// Writes to so many pages of its own.
fn touch(start: Start) -> Steps {
    let pages = start.number("pages", 1) as usize;
    let memory = step!(1, memory::map(pages));
    (0..pages).for_each(|page| write(memory.as_ptr(), page));
    Ok(())
}

/// The words that it shares with its parent.
pub(crate) fn words(start: Start) -> core::result::Result<&'static [AtomicU64; PAGE / 8], u64> {
    let region = start.regions().next().ok_or(90_u64)?;
    let words = memory::words(region).map_err(|_| 91_u64)?;
    // SAFETY: as many bytes, as strictly aligned since they are a page, and atomics too.
    Ok(unsafe { &*core::ptr::from_ref(words).cast() })
}

/// Writes to pages until it is ended for it, and says to how many.
fn count(start: Start) -> Steps {
    const PAGES: usize = 1 << 14;
    let words = words(start)?;
    let memory = step!(1, memory::map(PAGES));
    for page in 0..PAGES {
        write(memory.as_ptr(), page);
        // ORDER: Relaxed: looked at when this process has ended.
        words[0].store(page as u64 + 1, Ordering::Relaxed);
    }
    Err(2)
}

/// Has the kernel write to pages until there is no more memory, which it answers with an error; gives them all back; as often as asked.
/// Each time there are as many.
fn fill(start: Start) -> Steps {
    const PAGES: usize = 1 << 13;
    let own = start.process().handle();
    let mut first = None;
    for _ in 0..start.number("rounds", 3) {
        let memory = step!(1, memory::map(PAGES));
        let write = |page: usize| {
            let at = memory.as_ptr() as u64 + (page * PAGE) as u64;
            // SAFETY: the address is of a page of its own, large enough.
            unsafe { sys::process_info(own, at) }
        };
        let (mut pages, mut end) = (0, None);
        while pages < start.number("most", PAGES as u64) as usize {
            if let Err(error) = write(pages) {
                end = Some(error);
                break;
            }
            pages += 1;
        }
        holds!(2, end.is_none_or(|error| error == Error::BadAddress));
        holds!(3, pages as u64 >= start.number("least", 1));
        // SAFETY: nothing in them is used again.
        step!(4, unsafe { memory::unmap(memory, PAGES) });
        holds!(5, *first.get_or_insert(pages) == pages);
    }
    Ok(())
}

/// Has a child that uses more than its own bank has left: that is its bank, too.
fn family(start: Start) -> Steps {
    let touch = |pages| alloc::format!("touch pages={pages}");
    let few = touch(start.number("few", 1));
    step!(1, Child { work: &few, ..Child::default() }.passes(start));
    let many = touch(start.number("many", 1));
    step!(2, Child { work: &many, ..Child::default() }.faults(start));
    Ok(())
}

/// Makes a region in its bank, which pays for its pages until nobody shows them any more.
fn regions(start: Start) -> Steps {
    const PAGES: usize = 50;
    let bank = start.bank().ok_or(1_u64)?;
    let spent = || bank.info().map(|info| info.spent);
    let own = start.process().handle();
    let map = |region: Region| {
        // SAFETY: address 0 has the kernel choose a range that nothing is mapped in.
        unsafe { sys::region_map(own, region.handle(), 0, 0, PAGES as u64, Protection::ReadWrite as u64) }
    };
    // The first round makes the tables and records that stay.
    for round in 0..3 {
        let before = step!(2, spent());
        let region = step!(3, Region::create(PAGES as u64));
        let at = step!(4, map(*region)) as *mut u8;
        (0..PAGES).for_each(|page| write(at, page));
        let during = step!(5, spent());
        // A frame for the region itself.
        holds!(6, round == 0 || during.frames == before.frames + PAGES as u64 + 1);
        holds!(7, during.objects == before.objects + 1);
        drop(region);
        let deadline = Deadline::after(PATIENCE);
        while step!(8, spent()).objects != before.objects {
            holds!(9, !deadline.passed());
            nap();
        }
        holds!(10, step!(11, spent()).frames == during.frames);
        // SAFETY: nothing in them is used again.
        step!(12, unsafe { sys::unmap(own, at as u64, PAGES as u64) });
        holds!(13, round == 0 || step!(14, spent()).frames == before.frames);
    }
    Ok(())
}

/// Writes to every page of a region that somebody else has made.
fn show(start: Start) -> Steps {
    let region = start.regions().next().ok_or(1_u64)?;
    let pages = start.number("pages", 1);
    let own = start.process().handle();
    // SAFETY: address 0 has the kernel choose a range that nothing is mapped in.
    let mapped = unsafe { sys::region_map(own, region.handle(), 0, 0, pages, Protection::ReadWrite as u64) };
    let at = step!(2, mapped) as *mut u8;
    (0..pages as usize).for_each(|page| write(at, page));
    Ok(())
}

/// Makes things of a kind until there is no more quota, gives them all back, and makes them again: as many.
fn exhaust(start: Start) -> Steps {
    let (least, most) = (start.number("least", 1), start.number("most", 1));
    let program = start.number("program", 0);
    let own = start.process();
    let shared = Cell::new(None);
    let notification = || match shared.get() {
        Some(handle) => Ok(handle),
        None => {
            // SAFETY: no address is passed.
            let handle = Handle(unsafe { sys::notification_create() }?);
            shared.set(Some(handle));
            Ok(handle)
        }
    };
    let one = |number: usize| -> Result<u64> {
        match start.word("kind") {
            Some("thread") => {
                let spec = ThreadSpec { flags: ThreadSpec::NO_FPU, ..ThreadSpec::default() };
                // SAFETY: the address is of a `ThreadSpec`; the thread is never started.
                unsafe { sys::thread_create(own.handle(), core::ptr::from_ref(&spec) as u64) }
            }
            Some("region") => Region::create(1).map(|region| region.keep().handle().0),
            Some("endpoint") => rt::handle::Endpoint::create().map(|endpoint| endpoint.keep().handle().0),
            // SAFETY: no address is passed.
            Some("notification") => unsafe { sys::notification_create() },
            // SAFETY: no address is passed.
            Some("timer") => unsafe { sys::timer_create(notification()?, 1) },
            // SAFETY: no address is passed.
            Some("lease") => unsafe { sys::lease_create(notification()?, 1) },
            Some("bank") => {
                let bank = start.bank().ok_or(Error::BadHandle)?;
                bank.carve(&abi::quota::BankSpec::default()).map(|bank| bank.keep().handle().0)
            }
            Some("process") => {
                let builder = Builder::new(Image::Loaded(program)).flags(ProcessSpec::FIXED);
                builder.create(own).map(|process| process.keep().handle().0)
            }
            Some("capability") => own.derive(Rights::OBSERVE, 0).map(|own| own.keep().handle().0),
            Some("table") => {
                // Each in a 1 GiB of its own, so with two page tables of its own.
                let at = (1 << 40) + ((number as u64) << 30);
                // SAFETY: nothing is mapped so far up.
                unsafe { sys::map(own.handle(), at, 1, Protection::ReadWrite as u64) }
            }
            _ => Err(Error::BadArgument),
        }
    };
    // Room for all of it, whose pages are there before anything is counted.
    let mut made = alloc::vec![u64::MAX; 4096];
    let mut first = None;
    for round in 0..3 {
        // What has gone comes back when every core has left the kernel: a few may be missing for a while.
        let deadline = Deadline::after(PATIENCE);
        loop {
            let error = make_all(&mut made, &one);
            holds!(1, error == Error::NoMemory);
            holds!(2, give_all(start, &made));
            let count = made.len() as u64;
            if count == *first.get_or_insert(count) {
                break;
            }
            holds!(3, round > 0 && count < first.unwrap_or(0) && !deadline.passed());
            (0..5).for_each(|_| nap());
        }
        holds!(4, first.is_some_and(|first| (least..=most).contains(&first)));
    }
    Ok(())
}

/// Puts what `one` makes until it fails into the vector, as far as it has room; says how it failed.
fn make_all(made: &mut alloc::vec::Vec<u64>, one: &dyn Fn(usize) -> Result<u64>) -> Error {
    made.clear();
    loop {
        match one(made.len()) {
            Ok(handle) if made.len() < made.capacity() => made.push(handle),
            Ok(_) => return Error::Unsupported,
            Err(error) => return error,
        }
    }
}

fn give_all(start: Start, made: &[u64]) -> bool {
    let own = start.process().handle();
    made.iter().all(|&word| match start.word("kind") {
        // SAFETY: nothing of it is used again.
        Some("table") => unsafe { sys::unmap(own, word, 1) }.is_ok(),
        // SAFETY: no address is passed.
        _ => unsafe { sys::cap_delete(Handle(word)) }.is_ok(),
    })
}

/// Whether the null call is filtered.
fn refused(_: Start) -> Steps {
    // SAFETY: no address is passed.
    holds!(1, unsafe { sys::null() } == Err(Error::Filtered));
    Ok(())
}

/// Makes a child that finds itself limited as this one is.
fn parent(start: Start) -> Steps {
    step!(1, Child { work: "refused", ..Child::default() }.passes(start));
    // Nor does its child get a wider filter than it has.
    let limits = Some(abi::quota::Limits::NONE);
    step!(2, Child { work: "refused", limits, ..Child::default() }.passes(start));
    Ok(())
}

/// Makes null calls until word 0 is set, in so many threads; word `n` counts those of thread `n` that were not refused, behind 64 words of that of
/// those that were.
fn spin(start: Start) -> Steps {
    let words = words(start)?;
    let threads = start.number("threads", 1) as usize;
    let work = move |number: usize| {
        // ORDER: Relaxed, here and below: only the figures count.
        while words[0].load(Ordering::Relaxed) == 0 {
            // SAFETY: no address is passed.
            let place = if unsafe { sys::null() }.is_ok() { number } else { number + 64 };
            // ORDER: Relaxed; as above.
            words[place].fetch_add(1, Ordering::Relaxed);
        }
    };
    let others: alloc::vec::Vec<_> =
        (2..=threads).map(|number| rt::thread::spawn(move || work(number))).collect();
    work(1);
    for other in others {
        step!(1, step!(2, other).join());
    }
    Ok(())
}

/// Makes calls for so many milliseconds; says how many were let through, when it began, when it ended, and how many were let through before
/// one was refused for the first time, in the four words of its place. One of `twins=1` waits for the other before: it could make no call
/// that it needs for its beginning while that one makes as many as it can.
fn calls(start: Start) -> Steps {
    let words = words(start)?;
    let place = start.number("place", 0) as usize;
    let kind = start.word("kind");
    let endpoint = step!(1, rt::handle::Endpoint::create());
    let mut message = Message::EMPTY.with(Tag::NO_WAIT);
    if start.number("twins", 0) != 0 {
        meet(words, place);
    }
    let began = time::now();
    let until = Deadline::after(perf::clock::Nanos::from_millis(start.number("ms", 100)));
    let (mut through, mut first) = (0, 0);
    while !until.passed() {
        let result = match kind {
            // Nobody receives: it is refused, but not by a limit.
            Some("message") => ipc::enter(MessageCall::Send, endpoint.handle(), &mut message),
            // SAFETY: no address is passed.
            _ => unsafe { sys::null() }.map(drop),
        };
        match result {
            Err(Error::TooMany) if first == 0 => first = through,
            Err(Error::TooMany) => {}
            _ => through += 1,
        }
    }
    let told = [through, began.count(), time::now().count(), first];
    for (word, value) in words[place * 4..].iter().zip(told) {
        // ORDER: Relaxed: looked at when this process has ended.
        word.store(value, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits, without a call, for the other of twins.
fn meet(words: &[AtomicU64; PAGE / 8], place: usize) {
    const READY: usize = 8;
    // ORDER: Relaxed, both: nothing else is handed over.
    words[READY + place].store(1, Ordering::Relaxed);
    while words[READY + 1 - place].load(Ordering::Relaxed) == 0 {
        core::hint::spin_loop();
    }
}

/// Has two children that make calls at the same time.
fn twins(start: Start) -> Steps {
    let region = start.regions().next();
    let ms = start.number("ms", 100);
    let twin = |place: u64| {
        let work = alloc::format!("calls twins=1 ms={ms} place={place}");
        Child { work: &work, region, ..Child::default() }.make(start)
    };
    let both = [step!(1, twin(0)), step!(1, twin(1))];
    for child in &both {
        step!(2, child.start());
    }
    for child in both {
        let status = step!(3, when_allowed(|| child.wait(Deadline::after(PATIENCE))));
        step!(4, passed(status, "a twin"));
    }
    Ok(())
}

/// What a call gives that is not refused for having come too often. Between attempts it makes none for a while, so that there is room for
/// more than one.
fn when_allowed<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Error::TooMany) => {}
            other => return other,
        }
        let pause = Deadline::after(perf::clock::Nanos::from_millis(1));
        while !pause.passed() {
            core::hint::spin_loop();
        }
    }
}

/// What a process has: threads, handles, frames.
pub(crate) fn has(info: &ProcessInfo) -> (u64, u64, u64) {
    (info.threads, info.handles, info.frames)
}
