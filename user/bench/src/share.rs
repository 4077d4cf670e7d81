//! How the kernel spreads time and threads.

use abi::boot::Lane;
use abi::cap::ObjectKind;
use abi::debug::Counter;
use abi::task::{CoreMask, NEVER};
use alloc::sync::Arc;
use alloc::vec::Vec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Unit, Value};
use perf::clock::{Clock, Nanos, Ticks};
use perf::runner::Trouble;
use rt::handle::Debug;
use rt::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use rt::sync::{Futex, Kernel};
use rt::thread::JoinHandle;
use rt::time::{self, Deadline, Tsc};

use super::team::{Hogs, Listener, burn, spin};
use super::{Lab, Meter, failed, place};

/// Equal threads on one core.
pub(super) const FAIR: Bench<Lab> = Bench {
    id: "sched.fair",
    version: 1,
    doc: "of so many equal threads on one core for a second, the one that is farthest from its fair share: by which part of that share",
    quantity: Quantity::Share,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    // A window of a second for each sample: minutes without a word where the emulator runs one core at a time.
    lanes: Lanes::NONE.with(Lane::Hw).with(Lane::Kvm).with(Lane::Icount),
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |lab, visit| {
        [2, 4, 8]
            .into_iter()
            .for_each(|threads| visit(Case::new(lab.alone()).with("threads", Value::Num(threads))));
    },
    run: |lab, case, meter| {
        let count = case.params.num("threads").unwrap_or(2) as usize;
        let second = lab.start.timebase().ticks(SECOND).count().max(1);
        let rounds = meter.plan().budget.map_or(1, |budget| budget.count() / second).clamp(1, MOST_ROUNDS);
        for _ in 0..rounds {
            let error = farthest(&Hogs::start(count).map_err(failed)?)?;
            meter.value(error);
        }
        Ok(())
    },
};

const SECOND: Nanos = Nanos::from_millis(1000);
const MOST_ROUNDS: u64 = 30;
/// In which every thread has had its first turns.
const START: Nanos = Nanos::from_millis(50);

/// Lets them run for a second; gives the greatest distance from the fair share, in millionths of it.
fn farthest(hogs: &Hogs) -> Result<u64, Trouble> {
    let used = || hogs.threads().map(|thread| thread.info().map(|info| info.ticks)).collect::<Result<_, _>>();
    time::sleep(Deadline::after(START));
    let before: Vec<u64> = used().map_err(failed)?;
    time::sleep(Deadline::after(SECOND));
    let after: Vec<u64> = used().map_err(failed)?;
    let used = before.iter().zip(&after).map(|(before, after)| after.saturating_sub(*before));
    let fair = used.clone().sum::<u64>() / before.len().max(1) as u64;
    if fair == 0 {
        return Err(Trouble::Failed("nobody has run"));
    }
    let error = |used: u64| (u128::from(used.abs_diff(fair)) * 1_000_000 / u128::from(fair)) as u64;
    Ok(used.map(error).max().unwrap_or(0))
}

/// A core with nothing to do and a thread without a core.
pub(super) const STEAL: Bench<Lab> = Bench {
    id: "sched.steal",
    version: 1,
    doc: "a thread can run on a core that is busy with a more urgent one, until another core runs it: one that sleeps, or one that gets nothing to do just then",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::OneWay,
    // An emulator that runs one core at a time lets the balancer look about every tenth of a second of each, and says nothing for minutes:
    // two for the one case, and more than six for the other, in which an idle core seldom is the first.
    lanes: Lanes::NONE.with(Lane::Hw).with(Lane::Kvm),
    classes: &[Class::Scaling],
    batch: 1,
    cases: |lab, visit| {
        if lab.cores() > 1 {
            for thief in [ASLEEP, BECOMES_IDLE] {
                let case = Case::new(Placement::scaling(lab.cores() as u32));
                visit(case.with("thief", Value::Word(thief)));
            }
        }
    },
    run: |lab, case, meter| {
        let before = Counted::now(lab);
        let mut thread = Listener::start(place::HERE, None)?;
        if case.params.word("thief") == Some(ASLEEP) {
            found_by_a_sleeper(&mut thread, meter)?;
        } else {
            taken_by_an_idler(&mut thread, meter)?;
        }
        drop(thread);
        Counted::now(lab).report_since(&before, meter);
        Ok(())
    },
};

/// Every core but the busy one sleeps, as it has for a while; another goes to sleep when the thread can run already.
const ASLEEP: &str = "sleeps";
const BECOMES_IDLE: &str = "becomes-idle";

/// What is waited for a tenth of a second at a time is sampled this often.
const FINDS: u32 = 24;
/// The core that gets nothing to do.
const THIEF: usize = 1;
/// How often a sample may fail because somebody else was faster.
const MISSES: u32 = 200;

/// Has the thread live on the measuring core, and lets it go wherever it wants when it is next woken.
fn bring_home(thread: &mut Listener) -> Result<(), Trouble> {
    thread.await_asleep()?;
    thread.thread().bind(&CoreMask::one(place::HERE)).map_err(failed)?;
    thread.prepare();
    thread.wake();
    thread.await_asleep()?;
    thread.thread().bind(&CoreMask::ALL).map_err(failed)
}

fn found_by_a_sleeper(thread: &mut Listener, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let scale = meter.plan().scale;
    for number in 0..=FINDS {
        bring_home(thread)?;
        thread.prepare();
        let from = time::now();
        thread.wake();
        burn(&|| thread.heard());
        let took = thread.at().since(from).ok_or(Trouble::Failed("it ran before it was woken"))?;
        // The first finds the balancer overdue.
        if number > 0 {
            meter.value(scale.value(took, 1));
        }
    }
    Ok(())
}

fn taken_by_an_idler(thread: &mut Listener, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let worker = Worker::start(THIEF).map_err(failed)?;
    let mut misses = 0;
    while meter.more() {
        bring_home(thread)?;
        worker.begin();
        thread.prepare();
        thread.wake();
        let from = worker.end();
        spin(&|| thread.heard());
        if thread.thread().info().map_err(failed)?.core as usize == THIEF && thread.at() > from {
            meter.window(from, thread.at());
            continue;
        }
        misses += 1;
        if misses > MISSES {
            return Err(Trouble::Failed("others were always faster"));
        }
    }
    Ok(())
}

/// A thread that keeps a core busy when it is told to.
struct Worker {
    orders: Arc<Orders>,
    /// Joined when it goes.
    _thread: JoinHandle<()>,
}

#[derive(Default)]
struct Orders {
    /// [`REST`], [`WORK`] or [`OVER`]; the word that the thread waits on.
    order: AtomicU32,
    working: AtomicBool,
    /// When it last stopped working.
    stopped: AtomicU64,
}

const REST: u32 = 0;
const WORK: u32 = 1;
const OVER: u32 = 2;

impl Orders {
    fn follow(&self) {
        // ORDER: Relaxed, here and below; an order says nothing about other memory.
        let order = || self.order.load(Ordering::Relaxed);
        loop {
            while order() == REST {
                let _ = Kernel.wait(&self.order, REST, NEVER);
            }
            if order() == OVER {
                return;
            }
            // ORDER: Relaxed; only says that it has begun.
            self.working.store(true, Ordering::Relaxed);
            spin(&|| order() != WORK);
            // ORDER: Relaxed; published by `working`.
            self.stopped.store(Tsc.start().count(), Ordering::Relaxed);
            // ORDER: Release pairs with Acquire in `Worker::end`.
            self.working.store(false, Ordering::Release);
        }
    }
}

impl Worker {
    fn start(core: usize) -> rt::handle::Result<Self> {
        let orders = Arc::new(Orders::default());
        let theirs = Arc::clone(&orders);
        let thread = place::peer(core).spawn(move || theirs.follow())?;
        Ok(Self { orders, _thread: thread })
    }

    fn give(&self, order: u32) {
        // ORDER: Relaxed; see `Orders::follow`.
        self.orders.order.store(order, Ordering::Relaxed);
        Kernel.wake(&self.orders.order, 1);
    }

    /// Has it work; returns when it does.
    fn begin(&self) {
        self.give(WORK);
        // ORDER: Relaxed; see `Orders::follow`.
        spin(&|| self.orders.working.load(Ordering::Relaxed));
    }

    /// Has it go to sleep; returns the time from which on its core has nothing to do.
    fn end(&self) -> Ticks {
        // ORDER: Relaxed; see `Orders::follow`. It does not sleep yet, so there is nobody to wake.
        self.orders.order.store(REST, Ordering::Relaxed);
        // ORDER: Acquire pairs with Release in `Orders::follow`.
        spin(&|| !self.orders.working.load(Ordering::Acquire));
        // ORDER: Relaxed; ordered by the load before.
        Ticks::new(self.orders.stopped.load(Ordering::Relaxed))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.give(OVER);
    }
}

/// What the cores have counted together, by [`COUNTED`]; nothing without the debug interface.
pub(super) struct Counted(Option<[u64; COUNTED.len()]>);

const COUNTED: [(&str, Counter); 3] =
    [("steals", Counter::StealsTaken), ("balances", Counter::Balances), ("migrations", Counter::Migrations)];

impl Counted {
    pub(super) fn now(lab: &Lab) -> Self {
        let debug = lab.start.given(ObjectKind::Debug).next().map(Debug);
        let sum = |debug: Debug| {
            let mut sums = [0; COUNTED.len()];
            for core in 0..lab.cores() {
                let metrics = debug.metrics(core).ok()?;
                sums.iter_mut().zip(COUNTED).for_each(|(sum, (_, counter))| *sum += metrics.counter(counter));
            }
            Some(sums)
        };
        Self(debug.and_then(sum))
    }

    /// Reports what has been counted since `before`.
    pub(super) fn report_since(&self, before: &Self, meter: &mut Meter<'_>) {
        let (Some(now), Some(before)) = (&self.0, &before.0) else { return };
        for ((now, before), (name, _)) in now.iter().zip(before).zip(COUNTED) {
            meter.metric(name, now - before, Unit::Count);
        }
    }
}
