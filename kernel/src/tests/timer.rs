//! The timer of every core interrupts when it was told to, and not otherwise.
//!
//! Interrupts are off, so that the moment of the request is seen in the interrupt controller itself.

use abi::boot::Lane;
use percpu::{CoreSet, Held};

use super::bed::{self, Blame, Deadline};
use super::{Bed, Result, ensure};
use crate::arch::timer::{self, Rang};
use crate::arch::tsc;
use crate::{cores, machine};

/// Periods that are tried, in microseconds.
const PERIODS: [u64; 5] = [100, 300, 1_000, 3_000, 10_000];
/// How much too early an interrupt may be: a thousandth of its period, which is what the measured ratio is good for, and this.
const EARLY_NS: u64 = 2_000;
/// How late it may be where time is what the emulator says: there nobody is kept from running.
const LATE_NS: u64 = 20_000;
/// Cores that are tried, at most.
const CORES: usize = 4;
/// Ticks that do not pass while a test runs, and more than one count of any timer.
const FOR_EVER: u64 = 1 << 48;
/// How long a timer that must not interrupt is watched.
const QUIET_MS: u64 = 3;
/// How long an interrupt may take that nobody holds back.
const PATIENCE_MS: u64 = 5_000;

fn ticks(nanoseconds: u64) -> u64 {
    machine::clock().0 / 1_000 * nanoseconds / 1_000_000
}

/// Each core's timer interrupts no earlier than it was told to, at once for a deadline in the past, at the last deadline it was given,
/// and not at all once that is forgotten. Where time is virtual, it is not late either.
///
/// Planted: `timer::disarm` leaves the hardware alone; `arm_before` always programs; it never does over an earlier deadline; `on_interrupt`
/// always says that a deadline is due; the ratio is 1.25 % too small; it is as much too large (found under `icount` only).
pub(super) fn fires(bed: &mut Bed) -> Result {
    for core in cores::all_online().iter().take(CORES) {
        let (lane, blame) = (bed.lane, Blame::new());
        bed.crew.run(&CoreSet::one(core), |held| blame.note(one_core(held, lane)));
        blame.verdict()?;
    }
    Ok(())
}

fn one_core(held: &mut Held<'_, 0>, lane: Lane) -> Result {
    let latest = if lane == Lane::Icount { ticks(LATE_NS) } else { u64::MAX };
    timer::disarm(held);
    take_pending(held)?;
    for period in PERIODS.map(|microseconds| ticks(microseconds * 1000)) {
        let deadline = tsc::now() + period;
        timer::arm(held, deadline);
        in_time(deadline, period, latest)?;
        take_pending(held)?;
    }
    for past in [tsc::now() - 1, 0] {
        let now = tsc::now();
        timer::arm(held, past);
        in_time(now, 0, latest)?;
        take_pending(held)?;
    }
    changes(held, latest)?;
    forgets(held)?;
    answers(held, latest)
}

/// Waits for the request and compares its time.
fn in_time(deadline: u64, period: u64, latest: u64) -> Result {
    let at = request_time()?;
    let early = deadline.saturating_sub(at);
    ensure!(early <= period / 1000 + ticks(EARLY_NS), "{early} ticks early after {period}");
    let late = at.saturating_sub(deadline);
    ensure!(late <= latest, "{late} ticks late after {period}");
    Ok(())
}

/// A deadline takes the place of another: a nearer one, a farther one; only a nearer one if it is to come before.
fn changes(held: &mut Held<'_, 0>, latest: u64) -> Result {
    let (near, far) = (ticks(1_000_000), ticks(4_000_000));
    for (first, second) in [(FOR_EVER, near), (near, far)] {
        timer::arm(held, tsc::now().saturating_add(first));
        let deadline = tsc::now() + second;
        timer::arm(held, deadline);
        in_time(deadline, second, latest)?;
        take_pending(held)?;
    }
    for (first, second) in [(FOR_EVER, near), (near, FOR_EVER)] {
        let (first, second) = (tsc::now().saturating_add(first), tsc::now().saturating_add(second));
        timer::arm(held, first);
        timer::arm_before(held, second);
        let nearer = first.min(second);
        ensure!(timer::armed(held) == nearer, "armed at {}, not {nearer}", timer::armed(held));
        in_time(nearer, near, latest)?;
        take_pending(held)?;
    }
    Ok(())
}

fn forgets(held: &mut Held<'_, 0>) -> Result {
    timer::arm(held, tsc::now() + ticks(1_000_000));
    timer::disarm(held);
    ensure!(timer::armed(held) == timer::NEVER, "armed at {} after disarming", timer::armed(held));
    ensure!(stays_quiet(), "{}: an interrupt though the timer is disarmed", held.core());
    Ok(())
}

/// What the handler says, called by hand: nothing is in service, so that ending the interrupt has no effect.
fn answers(held: &mut Held<'_, 0>, latest: u64) -> Result {
    let period = ticks(2_000_000);
    let deadline = tsc::now() + period;
    timer::arm(held, deadline);
    let early = timer::on_interrupt(held);
    ensure!(tsc::now() >= deadline || early == Rang::Early, "{early:?} before the deadline");
    if early == Rang::Due {
        // An emulator's host has taken the core away for longer than that; nothing is armed any more.
        return Ok(());
    }
    in_time(deadline, period, latest)?;
    while tsc::now() < deadline {
        core::hint::spin_loop();
    }
    let due = timer::on_interrupt(held);
    ensure!(due == Rang::Due && timer::armed(held) == timer::NEVER, "{due:?} after the deadline");
    let none = timer::on_interrupt(held);
    ensure!(none == Rang::Early, "{none:?} without a deadline");
    take_pending(held)?;
    ensure!(stays_quiet(), "{}: an interrupt after the last deadline", held.core());
    Ok(())
}

/// Takes what is pending: interrupts are on until it is gone, which under a hypervisor can be a while.
fn take_pending(held: &mut Held<'_, 0>) -> Result {
    let end = Deadline::after_ms(PATIENCE_MS);
    let turn = || timer::is_requested() && !end.is_over();
    // SAFETY: neither this test nor the call that runs it refers to core-local data here.
    unsafe { cores::expose(held, turn) };
    ensure!(!timer::is_requested(), "{}: an interrupt is pending though it could be taken", held.core());
    Ok(())
}

/// The counter when the request came.
fn request_time() -> core::result::Result<u64, super::Verdict> {
    let seen = bed::wait(timer::is_requested);
    let at = tsc::now();
    if seen { Ok(at) } else { Err(super::failed(format_args!("the timer does not interrupt"))) }
}

fn stays_quiet() -> bool {
    let end = Deadline::after_ms(QUIET_MS);
    while !end.is_over() {
        if timer::is_requested() {
            return false;
        }
    }
    true
}
