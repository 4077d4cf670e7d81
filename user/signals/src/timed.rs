//! Timers and leases: what signals by itself.

use abi::cap::Rights;
use abi::error::Error;
use alloc::vec::Vec;
use perf::clock::Nanos;
use rt::handle::{Lease, Timer, Typed};
use rt::start::Start;
use rt::time::{self, Deadline};

use crate::{Outcome, Test, after, ensure, notification, on, patience, unexpected};

pub(crate) const TESTS: &[Test] = &[
    ("timer-once", once),
    ("timer-periodic", periodic),
    ("timer-cores", cores),
    ("timer-many", many),
    ("timer-gone", gone),
    ("lease-turns", turns),
    ("lease-expires", expires),
    ("lease-cores", lease_cores),
    ("lease-owner-gone", owner_gone),
];

/// At its time, not before; set again before that, or stopped, not at all.
fn once(_: &Start) -> Outcome {
    let own = notification()?;
    let timer = Timer::create(*own, 4).map_err(unexpected)?;
    ensure!(own.poll() == Ok(0), "a new timer signals");
    let at = after(5);
    timer.set(at).map_err(unexpected)?;
    ensure!(own.wait_until(patience()) == Ok(4), "it does not signal");
    ensure!(at.passed(), "it signals too early");
    timer.set(Deadline::PASSED).map_err(unexpected)?;
    ensure!(own.wait_until(patience()) == Ok(4), "a time that has passed does not signal");
    timer.set(after(10)).map_err(unexpected)?;
    timer.set(after(60_000)).map_err(unexpected)?;
    ensure!(own.wait_until(after(30)) == Err(Error::TimedOut), "what was set before still holds");
    timer.set(after(10)).map_err(unexpected)?;
    timer.stop().map_err(unexpected)?;
    ensure!(own.wait_until(after(30)) == Err(Error::TimedOut), "a stopped timer signals");
    let looks = timer.derive(Rights::OBSERVE, 0).map_err(unexpected)?;
    ensure!(looks.set(Deadline::PASSED) == Err(Error::MissingRight), "anybody sets it");
    let waits = own.derive(Rights::RECEIVE, 0).map_err(unexpected)?;
    ensure!(
        Timer::create(*waits, 1).map(drop) == Err(Error::MissingRight),
        "a timer signals without the right"
    );
    Ok(())
}

/// Again and again, without drifting, and missing what nobody could have seen.
fn periodic(start: &Start) -> Outcome {
    let own = notification()?;
    let timer = Timer::create(*own, 1).map_err(unexpected)?;
    let period = start.timebase().ticks(Nanos::from_millis(2)).count();
    ensure!(timer.set_periodic(after(1), 1) == Err(Error::BadArgument), "any period goes");
    let first = after(2);
    timer.set_periodic(first, period).map_err(unexpected)?;
    for _ in 0..20 {
        ensure!(own.wait_until(patience()) == Ok(1), "it does not signal");
    }
    let ran = time::now().count() - first.0;
    ensure!(ran >= 19 * period, "twenty signals in {ran} ticks, periods of {period}");
    timer.stop().map_err(unexpected)?;
    own.poll().map_err(unexpected)?;
    ensure!(own.wait_until(after(10)) == Err(Error::TimedOut), "a stopped timer signals");
    Ok(())
}

/// Set from one core and from another: the last holds.
fn cores(start: &Start) -> Outcome {
    let own = notification()?;
    let timer = Timer::create(*own, 1).map_err(unexpected)?;
    let sets = *timer;
    for round in 0..50 {
        timer.set(after(60_000)).map_err(unexpected)?;
        let soon = on(start, round).spawn(move || sets.set(after(1))).map_err(unexpected)?;
        soon.join().map_err(unexpected)?.map_err(unexpected)?;
        ensure!(own.wait_until(patience()) == Ok(1), "round {round}: it does not signal");
    }
    // Both at once, without pause: it stays one timer.
    let storm = move || {
        (0..300).try_for_each(|round| sets.set(if round % 3 == 0 { Deadline::PASSED } else { after(60_000) }))
    };
    let storms = [0, 1, 2].map(|core| on(start, core).spawn(storm));
    for storm in storms {
        storm.map_err(unexpected)?.join().map_err(unexpected)?.map_err(unexpected)?;
    }
    timer.stop().map_err(unexpected)?;
    own.poll().map_err(unexpected)?;
    ensure!(own.wait_until(after(10)) == Err(Error::TimedOut), "a stopped timer signals");
    Ok(())
}

/// More at one time than a core rings in one go.
fn many(_: &Start) -> Outcome {
    let own = notification()?;
    let mut timers = Vec::new();
    for bit in 0..64 {
        timers.push(Timer::create(*own, 1 << bit).map_err(unexpected)?);
    }
    let at = after(3);
    for timer in &timers {
        timer.set(at).map_err(unexpected)?;
    }
    let (mut seen, end) = (0, patience());
    while seen != u64::MAX && !end.passed() {
        seen |= own.wait_until(end).unwrap_or(0);
    }
    ensure!(seen == u64::MAX, "those that rang: {seen:x}");
    Ok(())
}

/// A timer goes with its last capability, from whatever core; its notification may go before it.
fn gone(start: &Start) -> Outcome {
    let own = notification()?;
    for core in [0, 1] {
        let to = *own;
        let makes = move || {
            let timer = Timer::create(to, 1)?;
            timer.set(after(20))?;
            Ok::<_, Error>(timer.keep())
        };
        let timer = on(start, core).spawn(makes).map_err(unexpected)?;
        let timer = timer.join().map_err(unexpected)?.map_err(unexpected)?;
        drop(rt::handle::Owned::new(timer));
        ensure!(own.wait_until(after(40)) == Err(Error::TimedOut), "a timer that is gone signals");
    }
    let timer = Timer::create(*own, 1).map_err(unexpected)?;
    timer.set(after(5)).map_err(unexpected)?;
    drop(own);
    time::sleep(after(10));
    timer.set(after(5)).map_err(unexpected)?;
    Ok(())
}

/// One owner at a time, and each turn's capability is good for its own turn.
fn turns(_: &Start) -> Outcome {
    let own = notification()?;
    let lease = Lease::create(*own, 2).map_err(unexpected)?;
    ensure!(lease.release() == Err(Error::WrongState), "what nobody has can be released");
    ensure!(
        lease.allocate(Deadline::PASSED, 0).map(drop) == Err(Error::TimedOut),
        "a turn is over before it begins"
    );
    let first = lease.allocate(after(60_000), 77).map_err(unexpected)?;
    ensure!(lease.allocate(after(1), 0).map(drop) == Err(Error::WrongState), "it has two owners");
    ensure!(first.allocate(after(1), 0).map(drop) == Err(Error::MissingRight), "an owner gives it out");
    let info = first.info().map_err(unexpected)?;
    ensure!((info.held, info.quality, info.turns) == (1, 77, 1), "its owner is told {info:?}");
    ensure!(info.remaining > 0 && info.deadline > time::now().count(), "nothing is left: {info:?}");
    first.release().map_err(unexpected)?;
    ensure!(own.wait_until(patience()) == Ok(2), "its end is not signalled");
    let second = lease.allocate(Deadline::NEVER, 78).map_err(unexpected)?;
    ensure!(first.info() == Err(Error::BadHandle), "an old turn tells of the new one");
    ensure!(first.release() == Err(Error::BadHandle), "an old turn ends the new one");
    let info = second.info().map_err(unexpected)?;
    ensure!((info.quality, info.turns, info.expired) == (78, 2, 0), "the second turn is {info:?}");
    // Its maker can take it back.
    lease.release().map_err(unexpected)?;
    ensure!(second.info() == Err(Error::BadHandle), "it lives after it was taken back");
    ensure!(lease.info().is_ok_and(|info| info.held == 0 && info.remaining == 0), "somebody has it");
    Ok(())
}

/// A turn ends at its time, with its signal, once.
fn expires(_: &Start) -> Outcome {
    let own = notification()?;
    let lease = Lease::create(*own, 1).map_err(unexpected)?;
    for round in 1..=10 {
        let until = after(3);
        let turn = lease.allocate(until, round).map_err(unexpected)?;
        ensure!(own.wait_until(patience()) == Ok(1), "round {round}: its end is not signalled");
        ensure!(until.passed(), "round {round}: it ends too early");
        ensure!(turn.info() == Err(Error::BadHandle), "round {round}: it lives on");
        let info = lease.info().map_err(unexpected)?;
        ensure!((info.held, info.expired, info.turns) == (0, round, round), "round {round}: {info:?}");
    }
    // Whoever looks first ends it, not only the clock: no call succeeds at or after the time.
    let until = after(2);
    let turn = lease.allocate(until, 0).map_err(unexpected)?;
    let end = patience();
    while turn.info().is_ok() {
        ensure!(!end.passed(), "it never ends");
    }
    ensure!(until.passed(), "it ended before its time");
    ensure!(own.wait_until(patience()) == Ok(1) && own.poll() == Ok(0), "its end is signalled once");
    Ok(())
}

/// Given out and released from several cores at once: one owner at a time.
fn lease_cores(start: &Start) -> Outcome {
    use alloc::sync::Arc;
    use rt::sync::atomic::{AtomicU64, Ordering};

    let own = notification()?;
    let lease = Lease::create(*own, 1).map_err(unexpected)?;
    let (shared, inside) = (*lease, Arc::new(AtomicU64::new(0)));
    let mut threads = Vec::new();
    for core in 0..3 {
        let inside = Arc::clone(&inside);
        let work = move || {
            let mut had = 0;
            for _ in 0..300 {
                let Ok(turn) = shared.allocate(Deadline::NEVER, 0) else { continue };
                // ORDER: AcqRel: what two owners at once would see.
                if inside.fetch_add(1, Ordering::AcqRel) != 0 {
                    return Err(Error::Occupied);
                }
                // ORDER: AcqRel: as above.
                inside.fetch_sub(1, Ordering::AcqRel);
                turn.release()?;
                had += 1;
            }
            Ok(had)
        };
        threads.push(on(start, core).spawn(work).map_err(unexpected)?);
    }
    let mut had = 0;
    for thread in threads {
        had += thread.join().map_err(unexpected)?.map_err(unexpected)?;
    }
    let info = lease.info().map_err(unexpected)?;
    ensure!(info.held == 0 && info.turns == had && had > 0, "{had} turns were had: {info:?}");
    Ok(())
}

/// An owner that throws its capability away has the lease no longer.
fn owner_gone(_: &Start) -> Outcome {
    let own = notification()?;
    let lease = Lease::create(*own, 1).map_err(unexpected)?;
    let turn = lease.allocate(Deadline::NEVER, 0).map_err(unexpected)?;
    drop(turn);
    ensure!(own.wait_until(patience()) == Ok(1), "its end is not signalled");
    ensure!(lease.info().is_ok_and(|info| info.held == 0), "somebody still has it");
    // The lease goes while it is had.
    let turn = lease.allocate(after(5), 0).map_err(unexpected)?;
    drop(lease);
    ensure!(own.wait_until(patience()) == Ok(1), "the end of the last turn is not signalled");
    ensure!(turn.info() == Err(Error::BadHandle), "it lives on");
    Ok(())
}
