//! Much at once: thousands of pages, capabilities, and hundreds of threads that one call concerns. What a call costs the rest of the machine is
//! measured from outside (`cargo xtask irqoff`); here is what becomes of it.

use abi::cap::Rights;
use abi::error::Error;
use abi::quota::Passing;
use abi::task::{Protection, SchedSpec};
use alloc::vec::Vec;
use perf::clock::Nanos;
use rt::handle::{Endpoint, Owned, Process, Region, Typed};
use rt::ipc::Message;
use rt::start::Start;
use rt::sync::atomic::{AtomicU64, Ordering};
use rt::thread::{self, Builder, JoinHandle};
use rt::time::{self, Deadline};
use rt::{memory, sys};

use super::client::{read, write};
use super::scene::{Client, area, map, page, pass, unmap};
use super::{Check, Outcome, done, ensure};

pub(crate) const CHECKS: &[Check] = &[
    ("pages", pages),
    ("blocks", blocks),
    ("region", region),
    ("thin", thin),
    ("urgent", urgent),
    ("passed-on", passed_on),
    ("process", process),
    ("capabilities", capabilities),
    ("receivers", receivers),
    ("callers", callers),
    ("sleepers", sleepers),
];

/// Pages of one piece: not enough for a block of 2 MiB, so that each has its own entry and its own frame.
const PIECE: u64 = 500;
/// How far apart pieces begin.
const APART: u64 = 512;
/// Pieces: 16 MiB in all.
const PIECES: u64 = 8;
/// Threads that wait for one thing.
const CROWD: usize = 200;

/// Maps pieces, and writes the number of each page into it.
fn furnish(process: Process, at: u64) -> Result<(), Error> {
    for piece in 0..PIECES {
        let at = page(at, piece * APART + 7);
        map(process, at, PIECE)?;
        (0..PIECE).for_each(|index| write(page(at, index), piece * PIECE + index));
    }
    Ok(())
}

fn protect(process: Process, at: u64, pages: u64, to: Protection) -> Result<(), Error> {
    // SAFETY: of the area, where this program keeps nothing.
    unsafe { sys::protect(process.handle(), at, pages, to as u64) }.map(drop)
}

fn whole() -> u64 {
    PIECES * APART + 7
}

/// Pages with frames of their own: protected and unmapped with one call each; then the same places are new.
fn pages(start: &Start) -> Outcome {
    let (own, at) = (start.process(), area(start));
    for _ in 0..2 {
        done!(furnish(own, at));
        done!(protect(own, at, whole(), Protection::Read));
        for piece in 0..PIECES {
            let at = page(at, piece * APART + 7);
            ensure!((0..PIECE).all(|index| read(page(at, index)) == piece * PIECE + index), "piece {piece}");
        }
        done!(protect(own, at, whole(), Protection::ReadWrite));
        done!(unmap(own, at, whole()));
    }
    done!(map(own, at, whole()));
    ensure!((0..whole()).all(|index| read(page(at, index)) == 0), "a page is not new");
    done!(unmap(own, at, whole()));
    Ok(())
}

/// Blocks of 2 MiB, touched whole and in one page each, and unmapped in parts: the middle of each, then the rest.
fn blocks(start: &Start) -> Outcome {
    const BLOCKS: u64 = 6;
    let (own, at) = (start.process(), area(start));
    done!(map(own, at, BLOCKS * APART));
    for index in 0..BLOCKS * APART {
        if (index / APART).is_multiple_of(2) || index % APART == 99 {
            write(page(at, index), index);
        }
    }
    for block in 0..BLOCKS {
        done!(unmap(own, page(at, block * APART + 200), 40));
    }
    for block in 0..BLOCKS {
        let index = block * APART + 99;
        ensure!(read(page(at, index)) == index, "page {index}");
    }
    done!(unmap(own, at, BLOCKS * APART));
    Ok(())
}

/// A region of many pages, all of them touched; the mapping goes first, then the last capability.
fn region(start: &Start) -> Outcome {
    const PAGES: u64 = 3000;
    let at = area(start);
    for first in [true, false] {
        let region = done!(Region::create(PAGES));
        done!(show(start, *region, at, PAGES));
        (0..PAGES).for_each(|index| write(page(at, index), index));
        ensure!((0..PAGES).all(|index| read(page(at, index)) == index), "a page of the region");
        let unmapped = || unmap(start.process(), at, PAGES);
        // Either may be the last that refers to the memory.
        if first {
            done!(unmapped());
            drop(region);
        } else {
            drop(region);
            done!(unmapped());
        }
    }
    Ok(())
}

fn show(start: &Start, region: Region, at: u64, pages: u64) -> Result<(), Error> {
    let own = start.process().handle();
    // SAFETY: of the area, where this program keeps nothing.
    unsafe { sys::region_map(own, region.handle(), at, 0, pages, Protection::ReadWrite as u64) }.map(drop)
}

/// Large regions with a page here and there, many of which end together.
fn thin(start: &Start) -> Outcome {
    const PAGES: u64 = 1 << 18;
    let at = area(start);
    let mut regions = Vec::new();
    for _ in 0..20 {
        let region = done!(Region::create(PAGES));
        done!(show(start, *region, at, PAGES));
        (0..PAGES).step_by(9_001).for_each(|index| write(page(at, index), index));
        done!(unmap(start.process(), at, PAGES));
        regions.push(region);
    }
    drop(regions);
    Ok(())
}

/// A real-time thread lets go of 1.25 GiB, more than most machines of the tests have, and never waits for anybody.
///
/// Planted: nobody gives frames back while an urgent thread can run.
fn urgent(start: &Start) -> Outcome {
    const PAGES: u64 = 4096;
    const TIMES: u64 = 80;
    let start = *start;
    let spec = SchedSpec {
        class: SchedSpec::REAL_TIME,
        priority: SchedSpec::REAL_TIME_LOWEST,
        budget: 0,
        period: 0,
        deadline: 0,
    };
    let work = move || (0..TIMES).all(|_| used_once(&start, PAGES).is_ok());
    let thread = done!(Builder::default().schedule(spec).spawn(work));
    ensure!(done!(thread.join()), "memory ran out");
    Ok(())
}

/// Makes a region, writes to each page, and lets it go.
fn used_once(start: &Start, pages: u64) -> Result<(), Error> {
    let at = area(start);
    let region = Region::create(pages)?;
    show(start, *region, at, pages)?;
    (0..pages).for_each(|index| write(page(at, index), index));
    drop(region);
    unmap(start.process(), at, pages)
}

/// Pages of this process alone go to another, in each way, and come back.
fn passed_on(start: &Start) -> Outcome {
    let (own, at) = (start.process(), area(start));
    let client = Client::serving(start)?;
    let other = *client.process;
    for how in [Passing::Move, Passing::Share, Passing::CopyOnWrite] {
        done!(furnish(own, at));
        for piece in 0..PIECES {
            let at = page(at, piece * APART + 7);
            done!(pass((own, at), PIECE, (other, page(at, 3)), how));
            let index = PIECE - 1;
            ensure!(
                done!(client.read(page(at, 3 + index))) == piece * PIECE + index,
                "{how:?}: piece {piece}"
            );
        }
        done!(unmap(other, at, whole() + 3));
        done!(unmap(own, at, whole()));
    }
    Ok(())
}

/// A process with many pages of its own is killed.
fn process(start: &Start) -> Outcome {
    let (own, at) = (start.process(), area(start));
    for lie in [0, 3] {
        let client = Client::serving(start)?;
        done!(furnish(own, at));
        for piece in 0..PIECES {
            let at = page(at, piece * APART + 7);
            done!(pass((own, at), PIECE, (*client.process, page(at, lie)), Passing::Move));
        }
        done!(client.process.kill(0));
        done!(client.ended());
    }
    Ok(())
}

/// Thousands of capabilities, derived of each other: revoked at once, and dropped with the process that has them.
fn capabilities(start: &Start) -> Outcome {
    const COUNT: usize = 4000;
    let endpoint = done!(Endpoint::create());
    let derive = |from| {
        // SAFETY: no address is passed.
        unsafe { sys::cap_derive(from, u64::from(Rights::ALL.0), 0) }
    };
    let mut handles = Vec::new();
    let mut from = endpoint.handle().0;
    for number in 0..COUNT {
        let handle = done!(derive(abi::cap::Handle(from)));
        handles.push(handle);
        if number.is_multiple_of(7) {
            from = handle;
        }
    }
    // SAFETY: no address is passed.
    let revoked = done!(unsafe { sys::cap_revoke(endpoint.handle()) });
    ensure!(revoked == COUNT as u64, "{revoked} of {COUNT} were revoked");
    let client = Client::serving(start)?;
    for _ in 0..COUNT {
        done!(client.process.grant(*endpoint, Rights::ALL, 0));
    }
    done!(client.process.kill(0));
    done!(client.ended());
    Ok(())
}

/// Threads that have begun to wait, as far as they can tell.
static WAITING: AtomicU64 = AtomicU64::new(0);

type Waiter = JoinHandle<Result<(), Error>>;

/// Starts threads that wait, and gives them the time to do it.
fn crowd(wait: impl Fn() -> Result<(), Error> + Copy + Send + 'static) -> Result<Vec<Waiter>, Error> {
    // ORDER: Relaxed, here and below: only the number counts.
    WAITING.store(0, Ordering::Relaxed);
    let spawn = |_| {
        Builder::default().stack(4).spawn(move || {
            // ORDER: Relaxed: as above.
            WAITING.fetch_add(1, Ordering::Relaxed);
            wait()
        })
    };
    let crowd = (0..CROWD).map(spawn).collect::<Result<Vec<_>, _>>()?;
    // ORDER: Relaxed: as above.
    while WAITING.load(Ordering::Relaxed) < CROWD as u64 {
        thread::yield_now();
    }
    time::sleep(Deadline::after(Nanos::from_millis(20)));
    Ok(crowd)
}

/// All threads of a crowd end with the same error.
fn all_told(crowd: Vec<Waiter>, error: Error) -> Outcome {
    for waiter in crowd {
        let outcome = done!(waiter.join());
        ensure!(outcome == Err(error), "{outcome:?}");
    }
    Ok(())
}

/// The endpoint goes for which a crowd waits.
fn receivers(_: &Start) -> Outcome {
    let endpoint = done!(Endpoint::create()).keep();
    let crowd = done!(crowd(move || endpoint.receive(0).map(drop)));
    drop(Owned::new(endpoint));
    all_told(crowd, Error::PeerGone)
}

/// The endpoint goes that a crowd calls and nobody serves.
fn callers(_: &Start) -> Outcome {
    let endpoint = done!(Endpoint::create()).keep();
    let crowd = done!(crowd(move || endpoint.call(Message::new(0, [0; 8])).map(drop)));
    drop(Owned::new(endpoint));
    all_told(crowd, Error::PeerGone)
}

/// A crowd waits on a word, and is woken with one call.
fn sleepers(_: &Start) -> Outcome {
    let region = done!(Region::create(1));
    let words = done!(memory::words(*region));
    let word = words.as_ptr() as u64;
    // SAFETY: the word stays mapped.
    let crowd = done!(crowd(move || unsafe { sys::futex_wait(word, 0, u64::MAX) }.map(drop)));
    // ORDER: Relaxed: nothing is published.
    words[0].store(1, rt::sync::atomic::Ordering::Relaxed);
    // SAFETY: as above.
    let woken = done!(unsafe { sys::futex_wake(word, u64::MAX) });
    ensure!(woken == CROWD as u64, "{woken} of {CROWD} were woken");
    for waiter in crowd {
        done!(done!(waiter.join()));
    }
    Ok(())
}
