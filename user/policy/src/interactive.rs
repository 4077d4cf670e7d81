//! A thread that runs a little and often is not kept waiting by those that run on and on.

use alloc::sync::Arc;

use rt::sync::Mutex;
use rt::time::{self, Deadline};

use super::hogs::{Worker, here, hogs};
use super::periods::Delays;
use super::{Lab, Outcome, now};

/// Uses the core for so long; being preempted counts as well.
pub(super) fn burst(ticks: u64) {
    let end = now() + ticks;
    while now() < end {}
}

/// How long such a thread waits for the core beside so many hogs: the median and the worst.
fn delays(lab: &Lab, count: usize) -> Outcome<Delays> {
    let _hogs = hogs(count)?;
    let delays = Arc::new(Mutex::new(Delays::default()));
    let (noted, length, pause) = (Arc::clone(&delays), lab.micros(40), lab.micros(500));
    let interactive = Worker::start(here(), move |shared| {
        while !shared.stopped() {
            let until = now() + pause;
            time::sleep(Deadline(until));
            let delay = now().saturating_sub(until);
            noted.lock().note(delay);
            burst(length);
        }
    })?;
    lab.pass(lab.length);
    drop(interactive);
    let delays = core::mem::take(&mut *delays.lock());
    Ok(delays)
}

/// Beside one hog, and beside eight, with sleeps that are shorter than any turn: the usual delay is that of a wake and a switch, and the worst that of a boost, when all hogs are at the
/// first level for one quantum of a millisecond each.
pub(super) fn beside_hogs(lab: &Lab) -> Outcome {
    for count in [1, 8] {
        let mut delays = delays(lab, count)?;
        rt::say!("policy: interactive beside {count}: {} delays", delays.count());
        lab.at_most("median delay in ticks", delays.median(), lab.micros(10))?;
        lab.at_most("worst delay in ticks", delays.worst(), lab.micros(1000 * count as u64 + 100))?;
    }
    Ok(())
}
