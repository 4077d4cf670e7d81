//! Equal threads get equal shares.

use super::hogs::{Worker, here, hogs, ticks_during};
use super::{Lab, Outcome, interactive};

/// How many threads share the core.
const COUNTS: [usize; 4] = [2, 3, 5, 8];
/// How far a share may be from equal over a second, in thousandths of it: turns are at most 40 ms / n (`sched::Tunables`).
const ALLOWED: u64 = 50;

/// Wrong if a share over a measurement differs too much from the others'.
fn shares(lab: &Lab, what: &str, workers: &[Worker]) -> Outcome {
    let ticks = ticks_during(workers, || {
        lab.pass(lab.length);
        Ok(())
    })?;
    let sum: u64 = ticks.iter().sum();
    let equal = (sum / ticks.len() as u64).max(1);
    let farthest = ticks.iter().map(|ticks| ticks.abs_diff(equal)).max().unwrap_or(0);
    rt::say!(
        "policy: {what}: {} threads ran for {} in 1000 of the time",
        ticks.len(),
        sum * 1000 / lab.length
    );
    // In a shorter measurement a turn is more of it.
    let allowed = ALLOWED * lab.micros(1_000_000).div_ceil(lab.length);
    lab.at_most("thousandths off the equal share", farthest * 1000 / equal, allowed)
}

/// Threads that were started together.
pub(super) fn equal(lab: &Lab) -> Outcome {
    COUNTS.iter().try_for_each(|&count| shares(lab, "equal", &hogs(count)?))
}

/// The same with a thread beside that runs a little, often.
pub(super) fn beside_interactive(lab: &Lab) -> Outcome {
    for count in COUNTS {
        let hogs = hogs(count)?;
        let (burst, pause) = (lab.micros(100), lab.micros(3000));
        let _interactive = Worker::start(here(), move |shared| {
            while !shared.stopped() {
                interactive::burst(burst);
                rt::time::sleep(rt::time::Deadline(super::now() + pause));
            }
        })?;
        shares(lab, "beside an interactive one", &hogs)?;
    }
    Ok(())
}

/// Threads that came one after the other: from when all are there, no one has an advantage that lasts.
pub(super) fn staggered(lab: &Lab) -> Outcome {
    for count in COUNTS {
        let mut hogs = hogs(1)?;
        while hogs.len() < count {
            lab.pass(lab.micros(30_000));
            hogs.push(Worker::hog(here())?);
        }
        // A new one is at the first level, which it has to itself until it has sunk to where the others are.
        lab.pass(lab.micros(200_000));
        shares(lab, "staggered", &hogs)?;
    }
    Ok(())
}
