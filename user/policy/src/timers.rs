//! Sleeps end in time, and a core is interrupted only for a reason.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::debug::Counter;
use abi::error::Error;
use abi::task::CoreMask;
use perf::prng::Prng;
use rt::sync::{Kernel, Mutex};
use rt::thread::{Builder, JoinHandle};
use rt::time::{self, Deadline};

use super::hogs::{Worker, here};
use super::periods::Delays;
use super::{HERE, Lab, Outcome, ensure, now};

/// The most instructions from a time to the return of who sleeps until then, on a core that does nothing else: the end of the core's sleep,
/// the queues, a switch.
const WAKE: u64 = 3_000;

/// A sleep does not end before its time, and not long after.
pub(super) fn late(lab: &Lab) -> Outcome {
    let mut prng = Prng::new(lab.seed);
    let mut delays = Delays::default();
    for _ in 0..200 {
        let until = now() + prng.below(lab.micros(1_000));
        time::sleep(Deadline(until));
        let woke = now();
        ensure(woke >= until, "a sleep does not end early")?;
        delays.note(woke - until);
    }
    rt::say!("policy: median delay after a sleep {} ticks", delays.median());
    lab.at_most("worst delay after a sleep in ticks", delays.worst(), WAKE)
}

/// Many that sleep wake in the order of their times.
pub(super) fn many(lab: &Lab) -> Outcome {
    const SLEEPERS: usize = 500;
    let mut prng = Prng::new(lab.seed);
    let woken: Arc<Mutex<Vec<(u64, u64)>, Kernel>> = Arc::new(Mutex::new(Vec::with_capacity(SLEEPERS)));
    // By then all have been started.
    let base = now() + lab.micros(200_000);
    let sleep = |until: u64| {
        let woken = Arc::clone(&woken);
        here().stack(2).spawn(move || {
            time::sleep(Deadline(until));
            let woke = now();
            woken.lock().push((until, woke));
        })
    };
    let handles: Result<Vec<JoinHandle<()>>, Error> =
        (0..SLEEPERS).map(|_| sleep(base + prng.below(lab.micros(200_000)))).collect();
    // Joining them is work of a more urgent thread.
    time::sleep(Deadline(base + lab.micros(220_000)));
    for handle in handles? {
        handle.join()?;
    }
    let woken = woken.lock();
    ensure(woken.len() == SLEEPERS, "all wake")?;
    ensure(woken.iter().all(|(until, woke)| woke >= until), "nobody wakes early")?;
    let disorder = woken.windows(2).filter(|pair| pair[0].0 > pair[1].0).count() as u64;
    let worst = woken.iter().map(|(until, woke)| woke - until).max().unwrap_or(u64::MAX);
    lab.at_most("sleepers that woke after a later one", disorder, 0)?;
    // Several whose times have come together wait for each other.
    lab.at_most("worst delay of many sleepers in ticks", worst, 10 * WAKE)
}

/// Timer interrupts of a core while time passes.
fn interrupts(lab: &Lab, core: usize) -> Outcome<u64> {
    let debug = lab.start.debug().ok_or(Error::BadHandle)?;
    let before = debug.metrics(core)?.counter(Counter::TimerInterrupts);
    lab.pass(lab.length);
    Ok(debug.metrics(core)?.counter(Counter::TimerInterrupts) - before)
}

/// A thread that has a core to itself is not interrupted by its timer, except, where that is this one too, for the main thread's sleep. Two
/// threads take turns by it.
pub(super) fn quiet(lab: &Lab) -> Outcome {
    let core = lab.cores() - 1;
    let on = || Builder::default().cores(CoreMask::one(core));
    let _one = Worker::hog(on())?;
    // Its first quanta end, and what others have left behind is given back, a little with each interrupt.
    lab.pass(lab.micros(300_000));
    let alone = interrupts(lab, core)?;
    let _other = Worker::hog(on())?;
    let both = interrupts(lab, core)?;
    rt::say!("policy: {both} timer interrupts of a core with two threads");
    lab.at_most("timer interrupts of a core with one thread", alone, 1 + u64::from(core == HERE))?;
    ensure(both > lab.length / lab.micros(100_000), "two threads take turns by the timer")
}
