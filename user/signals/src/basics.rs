//! What each call does, and how each wait ends: signalled, broadcast to, timed out, killed, suspended, its notification gone; on one core and on
//! two.

use abi::cap::Rights;
use abi::error::Error;
use abi::task::ThreadState;
use alloc::vec::Vec;
use rt::handle::{Notification, Owned, Result, Thread, Typed};
use rt::start::Start;
use rt::thread::JoinHandle;
use rt::time::Deadline;

use crate::{Outcome, Test, after, ensure, eventually, notification, on, patience, unexpected};

pub(crate) const TESTS: &[Test] = &[
    ("bits", bits),
    ("rights", rights),
    ("signal", |start| on_both(start, signal)),
    ("broadcast", |start| on_both(start, broadcast)),
    ("timeout", |start| on_both(start, timeout)),
    ("kill", |start| on_both(start, kill)),
    ("suspend", |start| on_both(start, suspend)),
    ("gone", |start| on_both(start, gone)),
    ("priority", priority),
];

/// With a waiter on this thread's core, and on another.
fn on_both(start: &Start, test: fn(&Start, usize) -> Outcome) -> Outcome {
    start.thread().bind(&abi::task::CoreMask::one(0)).map_err(unexpected)?;
    for core in [0, 1] {
        test(start, core).map_err(|why| alloc::format!("waiter on core {core}: {why}"))?;
    }
    Ok(())
}

/// Waits until a thread blocks.
pub(crate) fn blocks(thread: Thread) -> Outcome {
    let blocked = || thread.info().is_ok_and(|info| info.state == ThreadState::Blocked as u32);
    ensure!(eventually(blocked), "the thread does not wait");
    Ok(())
}

/// A thread that waits once.
fn waiter(start: &Start, core: usize, of: Notification, until: Deadline) -> Outcome<JoinHandle<Result<u64>>> {
    let waiter = on(start, core).spawn(move || of.wait_until(until)).map_err(unexpected)?;
    blocks(waiter.thread())?;
    Ok(waiter)
}

/// Bits add up until they are taken, all at once.
fn bits(_: &Start) -> Outcome {
    let own = notification()?;
    ensure!(own.poll() == Ok(0), "a new notification has bits");
    for bit in [1, 4, 4, 1 << 63] {
        own.signal(bit).map_err(unexpected)?;
    }
    ensure!(own.wait() == Ok(1 << 63 | 5), "the bits are not all there");
    ensure!(own.poll() == Ok(0), "bits are there again");
    own.signal(0).map_err(unexpected)?;
    ensure!(own.wait_until(Deadline::PASSED) == Err(Error::TimedOut), "no bit is a bit");
    ensure!(own.broadcast(8) == Ok(0), "nobody waits");
    ensure!(own.wait_until(Deadline::PASSED) == Ok(8), "bits that are set are had before a deadline counts");
    Ok(())
}

/// What needs which right, and what a badge lets through.
fn rights(start: &Start) -> Outcome {
    let own = notification()?;
    let sends = own.signaller(0b110).map_err(unexpected)?;
    ensure!(sends.poll() == Err(Error::MissingRight), "a signaller polls");
    ensure!(sends.wait() == Err(Error::MissingRight), "a signaller waits");
    let waits = own.derive(Rights::RECEIVE, 0).map_err(unexpected)?;
    ensure!(waits.signal(1) == Err(Error::MissingRight), "a waiter signals");
    ensure!(waits.broadcast(1) == Err(Error::MissingRight), "a waiter broadcasts");
    sends.signal(0b011).map_err(unexpected)?;
    ensure!(waits.poll() == Ok(0b010), "a badge lets other bits through");
    sends.signal(0b001).map_err(unexpected)?;
    ensure!(waits.poll() == Ok(0), "a badge lets other bits through");
    let all = own.signaller(0).map_err(unexpected)?;
    all.signal(u64::MAX).map_err(unexpected)?;
    ensure!(waits.poll() == Ok(u64::MAX), "no badge keeps bits back");
    let thread = Notification(start.thread().handle());
    ensure!(thread.signal(1) == Err(Error::WrongType), "a thread can be signalled");
    Ok(())
}

/// To and fro, and two that wait: each signal wakes one, the first first.
fn signal(start: &Start, core: usize) -> Outcome {
    let (there, back) = (notification()?, notification()?);
    let (to, from) = (*there, *back);
    let echo = move || (0..500).try_for_each(|_| to.wait().and_then(|bits| from.signal(!bits)));
    let other = on(start, core).spawn(echo).map_err(unexpected)?;
    for round in 1..=500 {
        there.signal(round).map_err(unexpected)?;
        let answer = back.wait_until(patience());
        ensure!(answer == Ok(!round), "round {round}: {answer:x?}");
    }
    other.join().map_err(unexpected)?.map_err(unexpected)?;
    let first = waiter(start, core, *there, Deadline::NEVER)?;
    let second = waiter(start, core, *there, patience())?;
    there.signal(1).map_err(unexpected)?;
    ensure!(first.join().map_err(unexpected)? == Ok(1), "the first is not woken first");
    there.signal(2).map_err(unexpected)?;
    ensure!(second.join().map_err(unexpected)? == Ok(2), "the second is not woken");
    ensure!(there.poll() == Ok(0), "what was told is still set");
    Ok(())
}

/// Everybody who waits is told, nobody else.
fn broadcast(start: &Start, core: usize) -> Outcome {
    let own = notification()?;
    let mut waiters = Vec::new();
    for number in 0..5 {
        waiters.push(waiter(
            start,
            core + number,
            *own,
            if number == 2 { patience() } else { Deadline::NEVER },
        )?);
    }
    let woken = own.broadcast(6).map_err(unexpected)?;
    ensure!(woken == 5, "{woken} were woken");
    for waiter in waiters {
        ensure!(waiter.join().map_err(unexpected)? == Ok(6), "one was not told");
    }
    ensure!(own.poll() == Ok(0), "what was told is still set");
    Ok(())
}

/// Who gives up leaves nothing behind.
fn timeout(start: &Start, core: usize) -> Outcome {
    let own = notification()?;
    let waits = *own;
    let from = after(10);
    let waiter = on(start, core).spawn(move || waits.wait_until(from)).map_err(unexpected)?;
    ensure!(waiter.join().map_err(unexpected)? == Err(Error::TimedOut), "no timeout");
    ensure!(from.passed(), "it came too early");
    let passed = on(start, core).spawn(move || waits.wait_until(Deadline::PASSED)).map_err(unexpected)?;
    ensure!(passed.join().map_err(unexpected)? == Err(Error::TimedOut), "no timeout at once");
    own.signal(1).map_err(unexpected)?;
    ensure!(own.poll() == Ok(1), "the bit went to one who had given up");
    Ok(())
}

/// Who is killed, first, last or in the midst of others, gets no bits.
fn kill(start: &Start, core: usize) -> Outcome {
    for victim in 0..3 {
        let own = notification()?;
        let mut waiters = Vec::new();
        for _ in 0..3 {
            waiters.push(waiter(start, core, *own, Deadline::NEVER)?);
        }
        waiters[victim].thread().kill(9).map_err(unexpected)?;
        let code = waiters[victim].thread().join(patience());
        ensure!(code == Ok(9), "the killed one ends with {code:?}");
        drop(waiters.remove(victim));
        let mut told = 0;
        for bit in [1, 2] {
            own.signal(bit).map_err(unexpected)?;
        }
        for waiter in waiters {
            told |= waiter.join().map_err(unexpected)?.map_err(unexpected)?;
        }
        ensure!(told == 3 && own.poll() == Ok(0), "the others are told {told}");
    }
    let own = notification()?;
    let alone = waiter(start, core, *own, patience())?;
    alone.thread().kill(9).map_err(unexpected)?;
    ensure!(alone.thread().join(patience()) == Ok(9), "it does not end");
    own.signal(4).map_err(unexpected)?;
    ensure!(own.poll() == Ok(4), "the bits went to one that was killed");
    Ok(())
}

/// Who is suspended is told, and goes on when it is resumed.
fn suspend(start: &Start, core: usize) -> Outcome {
    let own = notification()?;
    for (until, how) in [(Deadline::NEVER, 0), (patience(), 1)] {
        let waiter = waiter(start, core, *own, until)?;
        waiter.thread().suspend().map_err(unexpected)?;
        if how == 0 {
            own.signal(3).map_err(unexpected)?;
        } else {
            let _ = own.broadcast(3).map_err(unexpected)?;
        }
        let parked = || waiter.thread().info().is_ok_and(|info| info.state == ThreadState::Suspended as u32);
        ensure!(eventually(parked), "it does not stay suspended");
        waiter.thread().resume().map_err(unexpected)?;
        ensure!(waiter.join().map_err(unexpected)? == Ok(3), "it is not told");
    }
    // Suspended and resumed while it waits: it goes on waiting.
    let waiter = waiter(start, core, *own, Deadline::NEVER)?;
    waiter.thread().suspend().map_err(unexpected)?;
    waiter.thread().resume().map_err(unexpected)?;
    blocks(waiter.thread())?;
    own.signal(5).map_err(unexpected)?;
    ensure!(waiter.join().map_err(unexpected)? == Ok(5), "it is not told after it was resumed");
    Ok(())
}

/// The last capability goes: who waits is told so.
fn gone(start: &Start, core: usize) -> Outcome {
    for until in [Deadline::NEVER, patience()] {
        let own = notification()?;
        let second = own.derive(Rights::ALL, 0).map_err(unexpected)?;
        let waits = [waiter(start, core, *own, until)?, waiter(start, core, *second, until)?];
        drop(own);
        second.signal(1).map_err(unexpected)?;
        drop(second);
        let [first, last] = waits.map(|waiter| waiter.join());
        ensure!(first.map_err(unexpected)? == Ok(1), "with one capability left the first is not woken");
        let ended = last.map_err(unexpected)?;
        ensure!(ended == Err(Error::PeerGone), "the last is told {ended:?}");
    }
    let own = notification()?;
    let handle = own.keep();
    drop(Owned::new(handle));
    ensure!(handle.signal(1) == Err(Error::BadHandle), "a deleted capability signals");
    Ok(())
}

/// Of two that are woken the more urgent runs, at once if it is more urgent than who signals.
fn priority(start: &Start) -> Outcome {
    use abi::task::SchedSpec;
    use alloc::sync::Arc;
    use rt::sync::atomic::{AtomicU64, Ordering};

    let own = notification()?;
    let steps = Arc::new(AtomicU64::new(0));
    let (waits, noted) = (*own, Arc::clone(&steps));
    let fixed = SchedSpec { class: SchedSpec::REAL_TIME, priority: 200, ..SchedSpec::default() };
    let urgent = on(start, 0).schedule(fixed);
    let urgent = urgent
        .spawn(move || {
            let mut done = 0;
            while waits.wait().is_ok_and(|bits| bits == 1) {
                done += 1;
                // ORDER: Relaxed: looked at on the same core.
                noted.store(done, Ordering::Relaxed);
            }
            done
        })
        .map_err(unexpected)?;
    blocks(urgent.thread())?;
    let signals = *own;
    let lazy = on(start, 0)
        .spawn(move || {
            for round in 1..=200 {
                signals.signal(1)?;
                // ORDER: Relaxed: as above.
                if steps.load(Ordering::Relaxed) != round {
                    return Ok(round);
                }
            }
            signals.signal(2).map(|()| 0)
        })
        .map_err(unexpected)?;
    let late = lazy.join().map_err(unexpected)?.map_err(unexpected)?;
    ensure!(late == 0, "in round {late} the signaller went on before the more urgent thread");
    let done = urgent.join().map_err(unexpected)?;
    ensure!(done == 200, "{done} rounds");
    Ok(())
}
