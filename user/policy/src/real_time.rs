//! A real-time thread runs when its time has come, whatever else there is to do.

use alloc::sync::Arc;

use rt::process::{Builder as ProcessBuilder, Image};
use rt::sync::Mutex;
use rt::time::{self, Deadline};

use super::hogs::{Worker, here, hogs};
use super::periods::Delays;
use super::{Failure, Lab, Outcome, now, urgent};

/// Above the main thread.
const PRIORITY: u64 = 250;

/// The worst delay, in instructions, of a wake-up beside threads that only run: the timer's interrupt, the queues, and a switch to another
/// thread. Nothing turns interrupts off for long: what hogs do in the kernel is to be interrupted.
const SWITCH: u64 = 3_000;

/// The worst beside processes that are made and end: the longest that interrupts are off is the making of a process, a single call, or a
/// step of the work that takes one down; after each the timer is looked at.
const LONGEST_CALL: u64 = 20_000;

/// The delays of a thread that wakes every so often.
fn delays(lab: &Lab, period: u64) -> Outcome<Delays> {
    let delays = Arc::new(Mutex::new(Delays::default()));
    let noted = Arc::clone(&delays);
    let thread = Worker::start(here().schedule(urgent(PRIORITY)), move |shared| {
        let mut until = now();
        while !shared.stopped() {
            until += period;
            time::sleep(Deadline(until));
            let delay = now().saturating_sub(until);
            noted.lock().note(delay);
        }
    })?;
    lab.pass(lab.length);
    drop(thread);
    let delays = core::mem::take(&mut *delays.lock());
    Ok(delays)
}

fn judge(lab: &Lab, mut delays: Delays, allowed: u64) -> Outcome {
    rt::say!("policy: {} wakes, median delay {} ticks", delays.count(), delays.median());
    lab.at_most("worst delay of a real-time thread in ticks", delays.worst(), allowed)
}

/// Beside eight hogs.
pub(super) fn beside_hogs(lab: &Lab) -> Outcome {
    let _hogs = hogs(8)?;
    // No multiple of a quantum, so that all phases are met.
    judge(lab, delays(lab, lab.micros(937))?, SWITCH)
}

/// Above another real-time thread that never stops: nothing has to be timed for that one, but for those above it.
pub(super) fn above_another(lab: &Lab) -> Outcome {
    let _spinning = Worker::hog(here().schedule(urgent(100)))?;
    judge(lab, delays(lab, lab.micros(937))?, SWITCH)
}

/// Beside processes that are made, run and end on the same core without pause.
pub(super) fn beside_processes(lab: &Lab) -> Outcome {
    let start = lab.start;
    let nop = start.program("nop").ok_or(Failure::Promise)?;
    let made = Arc::new(Mutex::new(Ok(0_u64)));
    let count = Arc::clone(&made);
    let maker = Worker::start(here(), move |shared| {
        while !shared.stopped() {
            let child = ProcessBuilder::new(Image::Loaded(nop)).name("policy").spawn(start.process());
            let ended = child.and_then(|child| child.wait(Deadline::NEVER));
            let mut count = count.lock();
            *count = match (*count, ended) {
                (Ok(count), Ok(_)) => Ok(count + 1),
                (Err(error), _) | (_, Err(error)) => Err(error),
            };
        }
    })?;
    let delays = delays(lab, lab.micros(97));
    drop(maker);
    let made = (*made.lock())?;
    rt::say!("policy: {made} processes were made and ended");
    super::ensure(made > 0, "processes are made")?;
    judge(lab, delays?, LONGEST_CALL)
}
