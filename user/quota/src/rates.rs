//! Rates: how many calls are let through in a time, and at once.

use alloc::format;
use rt::sync::atomic::{AtomicU32, Ordering};

use abi::quota::Limits;
use rt::handle::Region;
use rt::memory;

use crate::children::Child;
use crate::{Lab, Outcome, ensure, unexpected};

/// Most calls that a child, or two and their parent, make beside those that they count: when they begin and when they end.
const OWN_CALLS: u64 = 12;

/// What a child has counted.
#[derive(Clone, Copy, Debug)]
struct Count {
    through: u64,
    ticks: u64,
    /// Let through before one was refused for the first time.
    first: u64,
}

impl Count {
    /// What one or two children have left, which have ended.
    fn of(words: &[AtomicU32; memory::PAGE / 4]) -> Self {
        // ORDER: Relaxed: the children have ended.
        let half = |place: usize| u64::from(words[place].load(Ordering::Relaxed));
        let word = |place: usize| half(place * 2) | half(place * 2 + 1) << 32;
        let both = [0, 4].map(|at| [0, 1, 2, 3].map(|place| word(at + place)));
        let (mut through, mut began, mut ended) = (0, u64::MAX, 0);
        for [own, from, to, _] in both.into_iter().filter(|told| told[2] != 0) {
            (through, began, ended) = (through + own, began.min(from), ended.max(to));
        }
        Self { through, ticks: ended.saturating_sub(began), first: word(3) }
    }
}

/// Runs a child with limits, which makes calls for `ms` milliseconds, or has two children that do; gives what they have counted, together.
fn run(lab: &Lab, work: &str, limits: Limits) -> Outcome<Count> {
    let region = Region::create(1).map_err(unexpected)?;
    let words = memory::words(*region).map_err(unexpected)?;
    Child { work, limits: Some(limits), region: Some(*region), ..Child::default() }.passes(lab.start)?;
    Ok(Count::of(words))
}

/// What may be let through in that time beside a burst is, within 2 %; not less of it where the clock can be trusted.
fn judge(lab: &Lab, count: Count, rate: u64, burst: u64) -> Outcome {
    let hertz = lab.start.timebase().frequency().hertz();
    let steady = (u128::from(rate) * u128::from(count.ticks) / u128::from(hertz)) as u64;
    let seen = count.through;
    ensure!(
        seen <= steady + burst + 2 + steady / 50,
        "{seen} calls, where {steady} and {burst} are too many"
    );
    // Where the emulator's host stops a core, its bucket overflows meanwhile.
    ensure!(
        !lab.exact || seen + OWN_CALLS + steady / 50 >= steady + burst,
        "{seen} calls of {steady} and {burst}"
    );
    let earliest = count.first + OWN_CALLS;
    ensure!(
        count.first == 0 || !lab.exact || earliest >= burst,
        "{} calls of a burst of {burst}",
        count.first
    );
    Ok(())
}

fn duration(lab: &Lab) -> u64 {
    if lab.exact { 1000 } else { 300 }
}

/// As many calls as the rate says, after a burst of a tenth of a second's.
pub(crate) fn calls(lab: &Lab) -> Outcome {
    let ms = duration(lab);
    for rate in [1_000, 20_000, 200_000] {
        let limits = Limits { calls_per_second: rate, ..Limits::NONE };
        let count = run(lab, &format!("calls ms={ms}"), limits)?;
        rt::say!("quota: {rate} calls a second: {count:?}");
        judge(lab, count, rate, rate / 10)?;
    }
    // Far more than can be: no limit.
    let limits = Limits { calls_per_second: 1_000_000_000_000, ..Limits::NONE };
    let count = run(lab, &format!("calls ms={ms}"), limits)?;
    ensure!(count.first == 0 && count.through > 1000, "a limit beyond reach lets {count:?} through");
    Ok(())
}

/// Messages have a rate of their own, which other calls do not use up.
pub(crate) fn messages(lab: &Lab) -> Outcome {
    let ms = duration(lab);
    let rate = 10_000;
    let limits = Limits { messages_per_second: rate, ..Limits::NONE };
    let count = run(lab, &format!("calls kind=message ms={ms}"), limits)?;
    judge(lab, count, rate, rate / 10)?;
    let count = run(lab, &format!("calls ms={ms}"), limits)?;
    ensure!(count.first == 0 && count.through > rate, "other calls are limited: {count:?}");
    // They are calls, too.
    let limits = Limits { calls_per_second: rate, ..Limits::NONE };
    let count = run(lab, &format!("calls kind=message ms={ms}"), limits)?;
    judge(lab, count, rate, rate / 10)
}

/// A family has its eldest's rate, however many it is.
pub(crate) fn family(lab: &Lab) -> Outcome {
    let ms = duration(lab);
    let rate = 20_000;
    let limits = Limits { calls_per_second: rate, ..Limits::NONE };
    let count = run(lab, &format!("twins ms={ms}"), limits)?;
    rt::say!("quota: {rate} calls a second by two: {count:?}");
    judge(lab, Count { first: 0, ..count }, rate, rate / 10)
}

/// A rate that is higher than the one there is changes nothing; nor does none.
pub(crate) fn only_falls(lab: &Lab) -> Outcome {
    let ms = duration(lab);
    let region = Region::create(1).map_err(unexpected)?;
    let words = memory::words(*region).map_err(unexpected)?;
    let work = format!("calls ms={ms}");
    let child = Child { work: &work, region: Some(*region), ..Child::default() }.make(lab.start)?;
    for calls_per_second in [5_000, 1_000, 4_000, 0, u64::MAX] {
        child.limit(&Limits { calls_per_second, ..Limits::NONE }).map_err(unexpected)?;
    }
    child.start().map_err(unexpected)?;
    let ended = child.wait(rt::time::Deadline::after(crate::children::PATIENCE)).map_err(unexpected)?;
    crate::children::passed(ended, &work)?;
    judge(lab, Count { first: 0, ..Count::of(words) }, 1_000, 100)
}
