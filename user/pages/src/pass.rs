//! Passing pages.

use abi::cap::Rights;
use abi::error::Error;
use abi::quota::Passing;
use abi::task::{ExitStatus, Protection};
use perf::clock::Nanos;
use perf::prng::Prng;
use rt::handle::{Process, Region, Typed};
use rt::start::Start;
use rt::sys;
use rt::time::{self, Deadline};

use super::client::{read, write};
use super::scene::{Client, area, map, page, pass, pass_word, unmap};
use super::{Check, Outcome, done, ensure};

pub(crate) const CHECKS: &[Check] = &[
    ("move", |start| moved(start, 7, 3)),
    ("move-blocks", |start| moved(start, 2048, 0)),
    ("move-apart", |start| moved(start, 2048, 5)),
    ("move-tables", tables),
    ("share", |start| shared(start, 9, 3)),
    ("share-blocks", |start| shared(start, 1500, 0)),
    ("share-apart", |start| shared(start, 1500, 1)),
    ("copy", |start| copied(start, 9, 3)),
    ("copy-blocks", |start| copied(start, 1500, 0)),
    ("copy-apart", |start| copied(start, 1500, 1)),
    ("again", again),
    ("regions", regions),
    ("image", image),
    ("stale", stale),
    ("refused", refused),
    ("hole", hole),
    ("words", words),
];

/// What a page says.
const fn mark(index: u64) -> u64 {
    0x5eed_0000_0000 + index
}

/// Maps pages here, and writes their marks.
fn furnish(start: &Start, at: u64, pages: u64) -> Result<(), Error> {
    map(start.process(), at, pages)?;
    (0..pages).for_each(|index| write(page(at, index), mark(index)));
    Ok(())
}

/// Whether nothing can be passed that begins at an address: nothing is mapped there.
fn is_free(process: Process, at: u64) -> bool {
    pass((process, at), 1, (process, page(at, 1 << 20)), Passing::CopyOnWrite) == Err(Error::NotMapped)
}

/// Every so many pages are looked at.
const STRIDE: usize = 37;

fn moved(start: &Start, pages: u64, apart: u64) -> Outcome {
    let (own, at) = (start.process(), area(start));
    let client = Client::serving(start)?;
    done!(furnish(start, at, pages));
    let target = page(at, apart);
    ensure!(
        done!(pass((own, at), pages, (*client.process, target), Passing::Move)) == target,
        "it is somewhere else"
    );
    for index in (0..pages).step_by(STRIDE).chain([pages - 1]) {
        ensure!(done!(client.read(page(target, index))) == mark(index), "page {index} has another content");
        done!(client.write(page(target, index), !index));
        ensure!(is_free(own, page(at, index)), "page {index} is still here");
    }
    // Back, where the kernel likes.
    let back = done!(pass((*client.process, target), pages, (own, 0), Passing::Move));
    for index in (0..pages).step_by(STRIDE) {
        ensure!(read(page(back, index)) == !index, "page {index} has another content");
    }
    ensure!(is_free(*client.process, target), "they are still there");
    done!(unmap(own, back, pages));
    Ok(())
}

/// Whole tables of pages that lie anywhere: every other page was taken for something else in between.
fn tables(start: &Start) -> Outcome {
    const PAGES: u64 = 1536;
    let (own, at) = (start.process(), area(start));
    let client = Client::serving(start)?;
    let apart = page(at, 8 * 512 + 1);
    done!(furnish(start, apart, PAGES));
    done!(pass((own, apart), PAGES, (own, at), Passing::Move));
    done!(pass((own, at), PAGES, (*client.process, at), Passing::Move));
    for index in (0..PAGES).step_by(STRIDE) {
        ensure!(done!(client.read(page(at, index))) == mark(index), "page {index} has another content");
    }
    done!(unmap(*client.process, at, PAGES));
    Ok(())
}

fn shared(start: &Start, pages: u64, apart: u64) -> Outcome {
    let (own, at) = (start.process(), area(start));
    let client = Client::serving(start)?;
    done!(furnish(start, at, pages / 2));
    // Pages that nobody has touched yet are shared as well.
    done!(map(own, page(at, pages / 2), pages - pages / 2));
    let target = page(at, apart);
    done!(pass((own, at), pages, (*client.process, target), Passing::Share));
    for index in (0..pages).step_by(STRIDE).chain([pages - 1]) {
        let (here, there) = (page(at, index), page(target, index));
        let expected = if index < pages / 2 { mark(index) } else { 0 };
        ensure!(done!(client.read(there)) == expected, "page {index} has another content");
        done!(client.write(there, index + 1));
        ensure!(read(here) == index + 1, "what is written there to page {index} is not seen here");
        write(here, index + 2);
        ensure!(
            done!(client.read(there)) == index + 2,
            "what is written here to page {index} is not seen there"
        );
    }
    // It outlives the one that gave it.
    done!(unmap(own, at, pages));
    ensure!(done!(client.read(target)) == 2, "it went with the giver's mapping");
    Ok(())
}

fn copied(start: &Start, pages: u64, apart: u64) -> Outcome {
    let (own, at) = (start.process(), area(start));
    let client = Client::serving(start)?;
    done!(furnish(start, at, pages));
    let target = page(at, apart);
    done!(pass((own, at), pages, (*client.process, target), Passing::CopyOnWrite));
    for index in (0..pages).step_by(STRIDE).chain([pages - 1]) {
        let (here, there) = (page(at, index), page(target, index));
        write(here, 1);
        ensure!(done!(client.read(there)) == mark(index), "page {index} shows what was written here");
        done!(client.write(there, 2));
        ensure!(read(here) == 1, "page {index} shows what was written there");
        ensure!(done!(client.read(there)) == 2, "page {index} does not keep what is written there");
    }
    done!(unmap(own, at, pages));
    Ok(())
}

/// Pages in every state that passing leaves them in are passed again, in every way.
fn again(start: &Start) -> Outcome {
    const PAGES: u64 = 20;
    const WAYS: [Passing; 3] = [Passing::Move, Passing::Share, Passing::CopyOnWrite];
    let own = start.process();
    let client = Client::serving(start)?;
    let at = area(start);
    for first in WAYS {
        for second in WAYS {
            done!(furnish(start, at, PAGES));
            let there = page(at, 100);
            done!(pass((own, at), PAGES, (*client.process, there), first));
            let back = page(at, 201);
            done!(pass((*client.process, there), PAGES, (own, back), second));
            for index in 0..PAGES {
                ensure!(read(page(back, index)) == mark(index), "page {index} after {first:?}, {second:?}");
            }
            // Whoever shares with whom, by the two ways.
            write(back, 77);
            if second != Passing::Move {
                let seen = done!(client.read(there));
                // Pages that are an object's stay so for both.
                let same = second == Passing::Share || first == Passing::Share;
                ensure!((seen == 77) == same, "{first:?}, {second:?}: it is {seen:#x} there");
            }
            done!(unmap(own, at, PAGES));
            done!(unmap(own, back, PAGES));
            done!(unmap(*client.process, there, PAGES));
        }
    }
    Ok(())
}

/// Mappings of a region stay mappings of it, with their protection.
fn regions(start: &Start) -> Outcome {
    const PAGES: u64 = 600;
    let (own, at) = (start.process(), area(start));
    let region = done!(Region::create(PAGES));
    let show = |at, protection: Protection| {
        // SAFETY: of the area, where nothing is mapped.
        unsafe { sys::region_map(own.handle(), region.handle(), at, 0, PAGES, protection as u64) }
    };
    done!(show(at, Protection::ReadWrite));
    write(page(at, 599), 5);
    let window = page(at, 2048);
    for how in [Passing::Move, Passing::Share, Passing::CopyOnWrite] {
        let client = Client::serving(start)?;
        done!(show(window, Protection::Read));
        ensure!(read(page(window, 599)) == 5, "the region is another");
        let there = page(at, 4096 + 3);
        done!(pass((own, window), PAGES, (*client.process, there), how));
        ensure!(done!(client.read(page(there, 599))) == 5, "{how:?}: the region is another");
        write(page(at, 1), 6);
        ensure!(done!(client.read(page(there, 1))) == 6, "{how:?}: it is no more the region");
        ensure!(client.write(page(there, 1), 1) == Err(Error::PeerGone), "{how:?}: it can be written");
        let status = done!(client.ended());
        ensure!(status.reason == ExitStatus::FAULTED && status.address == page(there, 1), "{status:x?}");
        done!(unmap(own, window, PAGES));
    }
    done!(unmap(own, at, PAGES));
    Ok(())
}

/// A constant of this program, and a variable: parts of its image, which others of it share.
static CONSTANT: [u64; 1024] = [0x00c0_ffee; 1024];

fn image(start: &Start) -> Outcome {
    let (own, at) = (start.process(), area(start));
    let source = core::ptr::from_ref(&CONSTANT) as u64 & !0xfff;
    let inside = core::ptr::from_ref(&CONSTANT[512]) as u64;
    for how in [Passing::Share, Passing::CopyOnWrite] {
        let client = Client::serving(start)?;
        let here = page(at, 3);
        done!(pass((own, source), 2, (*client.process, here), how));
        ensure!(done!(client.read(here + (inside - source))) == 0x00c0_ffee, "{how:?}: another content");
        ensure!(read(inside) == 0x00c0_ffee, "{how:?}: the constant has changed");
        ensure!(client.write(here, 1) == Err(Error::PeerGone), "{how:?}: a constant can be written");
    }
    Ok(())
}

/// A page is taken from a program that writes to it all the time: nothing is written after the call has returned.
fn stale(start: &Start) -> Outcome {
    let (own, at) = (start.process(), area(start));
    for _ in 0..10 {
        let work = alloc::format!("spin at={at}");
        let client = Client::create(start, &work, 0, &[])?;
        done!(map(*client.process, at, 3));
        done!(client.process.start());
        time::sleep(Deadline::after(Nanos::from_millis(3)));
        done!(pass((*client.process, at), 3, (own, at), Passing::Move));
        let before = read(at);
        let status = done!(client.ended());
        ensure!(status.reason == ExitStatus::FAULTED && status.address & !7 == at, "{status:x?}");
        ensure!(read(at) == before, "it was written after it had been moved");
        done!(unmap(own, at, 3));
    }
    Ok(())
}

fn refused(start: &Start) -> Outcome {
    let (own, at) = (start.process(), area(start));
    let client = Client::serving(start)?;
    let other = *client.process;
    done!(furnish(start, at, 4));
    done!(map(other, at, 1));
    let way = Passing::Move;
    ensure!(pass((own, at), 4, (other, page(at, 0)), way) == Err(Error::Occupied), "over something");
    ensure!(pass((own, page(at, 2)), 4, (other, page(at, 9)), way) == Err(Error::NotMapped), "of nothing");
    ensure!(pass((own, at), 0, (other, page(at, 9)), way) == Err(Error::BadArgument), "no pages");
    ensure!(pass((own, at + 8), 1, (other, page(at, 9)), way) == Err(Error::BadArgument), "off a page");
    ensure!(pass((own, at), 1, (other, page(at, 9) + 1), way) == Err(Error::BadArgument), "to off a page");
    ensure!(pass((own, at), u64::MAX, (other, page(at, 9)), way) == Err(Error::BadArgument), "too many");
    ensure!(pass((own, at), 4, (own, page(at, 2)), way) == Err(Error::Occupied), "onto itself");
    ensure!(pass((own, at), 4, (own, page(at, 4)), way).is_ok(), "beside itself");
    ensure!(pass_word((own, page(at, 4)), 4, (other, page(at, 9)), 3) == Err(Error::BadArgument), "no way");
    let blind = done!(client.process.derive(Rights::ALL.and(Rights(!Rights::MAP.0)), 0));
    ensure!(pass((own, page(at, 4)), 1, (*blind, at), way) == Err(Error::MissingRight), "to without a right");
    ensure!(pass((*blind, at), 1, (own, at), way) == Err(Error::MissingRight), "from without a right");
    ensure!(pass((Process(region_of(start)), at), 1, (own, at), way) == Err(Error::WrongType), "no process");
    done!(client.process.kill(0));
    done!(client.process.wait(Deadline::NEVER));
    ensure!(
        pass((own, page(at, 4)), 1, (other, page(at, 9)), way) == Err(Error::WrongState),
        "to a dead one"
    );
    ensure!(pass((other, at), 1, (own, at), way) == Err(Error::WrongState), "from a dead one");
    ensure!(read(page(at, 4)) == mark(0), "something has happened");
    done!(unmap(own, page(at, 4), 4));
    Ok(())
}

/// A handle of something that is no process.
fn region_of(start: &Start) -> abi::cap::Handle {
    start.thread().handle()
}

/// A range with a hole far behind its beginning: everything is as before, on both sides.
fn hole(start: &Start) -> Outcome {
    const PAGES: u64 = 3000;
    let (own, at) = (start.process(), area(start));
    let client = Client::serving(start)?;
    for how in [Passing::Move, Passing::Share, Passing::CopyOnWrite] {
        for apart in [0, 3] {
            done!(furnish(start, at, PAGES));
            done!(unmap(own, page(at, PAGES - 7), 1));
            let there = page(at, apart);
            let passed = pass((own, at), PAGES, (*client.process, there), how);
            ensure!(passed == Err(Error::NotMapped), "{how:?}: {passed:?}");
            for index in (0..PAGES - 7).step_by(STRIDE) {
                ensure!(read(page(at, index)) == mark(index), "{how:?}: page {index} is lost");
                write(page(at, index), index);
                ensure!(is_free(*client.process, page(there, index)), "{how:?}: page {index} has gone over");
            }
            done!(map(*client.process, there, PAGES));
            done!(unmap(*client.process, there, PAGES));
            done!(unmap(own, at, PAGES));
        }
    }
    Ok(())
}

/// Words that say that a pass had begun that has not: whatever is done is done to pages that this program may unmap anyway.
fn words(start: &Start) -> Outcome {
    const PAGES: u64 = 40;
    let (own, at) = (start.process(), area(start));
    let client = Client::serving(start)?;
    let mut prng = Prng::new(start.number("seed", 1));
    for _ in 0..300 {
        done!(furnish(start, at, PAGES));
        let there = page(at, 64 + prng.bits() % 3);
        if prng.bits() & 1 == 0 {
            done!(map(*client.process, there, prng.bits() % PAGES + 1));
        }
        let mut field = |most: u64, shift: u32| (prng.bits() % most) << shift;
        let word = field(4, 0) | field(4, 2) | field(8, 4) | field(48, 8);
        let _whatever = pass_word((own, at), PAGES, (*client.process, there), word);
        done!(unmap(own, at, PAGES));
        done!(unmap(*client.process, there, PAGES));
    }
    ensure!(is_free(own, at), "something is left");
    Ok(())
}
