//! What is admitted is kept, what cannot be kept is not admitted, and who uses more than its budget harms no one.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::black_box;

use abi::error::Error;
use abi::task::SchedSpec;
use perf::prng::Prng;
use rt::sync::{Kernel, Mutex};
use rt::thread;

use super::hogs::{Worker, here, hogs, ticks_during};
use super::{Failure, Lab, Outcome, ensure, interactive, now, urgent};

const MILLION: u64 = 1_000_000;
/// Parts per million of a core that can be promised (`sched::Tunables`).
const BOUND: u64 = 950_000;
/// Part of its budget that a job needs: the rest is for being switched to and interrupted.
const NEEDED: u64 = 80;

/// Does nothing, so many times.
fn work(turns: u64) {
    (0..turns).for_each(|turn| {
        black_box(turn);
    });
}

/// Ticks of a thousand turns of [`work`].
fn ticks_per_thousand() -> u64 {
    const TURNS: u64 = 100_000;
    let began = now();
    work(TURNS);
    ((now() - began) / (TURNS / 1000)).max(1)
}

/// Parts per million that a deadline takes.
fn density(spec: &SchedSpec) -> u64 {
    (spec.budget * MILLION).div_ceil(spec.deadline)
}

/// A thread's demand, of about so many parts per million.
fn draw(lab: &Lab, prng: &mut Prng, share: u64) -> SchedSpec {
    let period = lab.micros(2_000 + prng.below(38_000));
    let deadline = period - prng.below(period / 2);
    let budget = (deadline * share / MILLION).max(lab.micros(200));
    SchedSpec { class: SchedSpec::DEADLINE, priority: 0, budget, period, deadline }
}

/// A set of demands that fits.
fn draw_set(lab: &Lab, prng: &mut Prng, bound: u64) -> Vec<SchedSpec> {
    let mut left = bound;
    let mut set = Vec::new();
    for others in (0..2 + prng.below(5)).rev() {
        let share = left / (others + 1) / 2 + prng.below(left / (others + 1));
        let spec = draw(lab, prng, share);
        if density(&spec) <= left {
            left -= density(&spec);
            set.push(spec);
        }
    }
    set
}

/// A job: when it could begin, when it was done, and the periods that the kernel says were missed before.
type Job = (u64, u64, u64);

/// A thread with a deadline.
struct Server {
    spec: SchedSpec,
    jobs: Arc<Mutex<Vec<Job>, Kernel>>,
    worker: Worker,
}

impl Server {
    fn start(spec: SchedSpec, pace: u64) -> Outcome<Self> {
        let jobs = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&jobs);
        let turns = spec.budget * NEEDED / 100 * 1000 / pace;
        let worker = Worker::start(here().schedule(spec), move |shared| {
            while !shared.stopped() {
                let missed = thread::period_end().unwrap_or(u64::MAX);
                let woke = now();
                work(turns);
                noted.lock().push((woke, now(), missed));
            }
        })?;
        Ok(Self { spec, jobs, worker })
    }

    /// Ends it; gives its jobs, and the deadlines that it missed by the kernel's count or by the clock.
    fn end(self) -> (u64, u64) {
        drop(self.worker);
        let jobs = core::mem::take(&mut *self.jobs.lock());
        // Periods follow each other exactly; it woke the least late in one of them. The first began before the thread did.
        let nth = |place: usize| place as u64 * self.spec.period;
        let first =
            jobs.iter().enumerate().map(|(place, job)| job.0.saturating_sub(nth(place))).min().unwrap_or(0);
        let late = |place: usize, job: &Job| job.1 > first + nth(place) + self.spec.deadline;
        let missed =
            jobs.iter().enumerate().skip(1).filter(|(place, job)| job.2 > 0 || late(*place, job)).count();
        (jobs.len() as u64, missed as u64)
    }
}

/// Runs a set; gives its jobs and misses.
fn run(lab: &Lab, set: &[SchedSpec], pace: u64, beside: impl FnOnce() -> Outcome) -> Outcome<(u64, u64)> {
    let servers: Outcome<Vec<Server>> = set.iter().map(|&spec| Server::start(spec, pace)).collect();
    let servers = servers?;
    beside()?;
    let (mut jobs, mut missed) = (0, 0);
    for server in servers {
        let (own, of_them) = server.end();
        jobs += own;
        missed += of_them;
    }
    // What they were promised counts until their last deadlines have passed.
    lab.pass(lab.micros(80_000));
    Ok((jobs, missed))
}

/// Sets that the core admits, beside hogs and a real-time thread.
pub(super) fn kept(lab: &Lab) -> Outcome {
    const SETS: u32 = 4;
    let pace = ticks_per_thousand();
    let _hogs = hogs(2)?;
    let burst = lab.micros(300);
    let pause = lab.micros(5_000);
    let _urgent = Worker::start(here().schedule(urgent(100)), move |shared| {
        while !shared.stopped() {
            interactive::burst(burst);
            rt::time::sleep(rt::time::Deadline(now() + pause));
        }
    })?;
    for number in 0..SETS {
        let set = draw_set(lab, &mut Prng::stream(lab.seed, number), 900_000);
        let promised: u64 = set.iter().map(density).sum();
        let (jobs, missed) = run(lab, &set, pace, || {
            lab.pass(lab.length);
            Ok(())
        })?;
        rt::say!("policy: {} threads with {promised} ppm did {jobs} jobs", set.len());
        ensure(jobs > 0, "jobs are done")?;
        lab.at_most("deadlines missed", missed, 0)?;
    }
    Ok(())
}

/// Threads are admitted up to the bound, and not beyond.
pub(super) fn refused(lab: &Lab) -> Outcome {
    let mut prng = Prng::new(lab.seed);
    for _ in 0..8 {
        let mut promised = 0;
        let mut servers = Vec::new();
        let refused = loop {
            let share = 50_000 + prng.below(300_000);
            let spec = draw(lab, &mut prng, share);
            match Server::start(spec, 1 << 32) {
                Ok(server) => {
                    servers.push(server);
                    promised += density(&spec);
                }
                Err(Failure::Call(Error::NotAdmitted)) => break promised + density(&spec),
                Err(other) => return Err(other),
            }
        };
        // Both sums are rounded up once for each thread.
        let slack = servers.len() as u64 + 1;
        ensure(promised <= BOUND + slack, "what is admitted fits")?;
        ensure(refused >= BOUND - slack, "what fits is admitted")?;
        drop(servers);
        lab.pass(lab.micros(80_000));
    }
    Ok(())
}

/// A thread that never ends its period gets its budget in each and no more, and no one else misses a deadline.
pub(super) fn overrun(lab: &Lab) -> Outcome {
    let pace = ticks_per_thousand();
    let (budget, period) = (lab.micros(2_000), lab.micros(10_000));
    let spec = SchedSpec { class: SchedSpec::DEADLINE, priority: 0, budget, period, deadline: period };
    let greedy = [Worker::hog(here().schedule(spec))?];
    let set = draw_set(lab, &mut Prng::new(lab.seed), 700_000);
    let (jobs, missed) = run(lab, &set, pace, || {
        let used = ticks_during(&greedy, || {
            lab.pass(lab.length);
            Ok(())
        })?;
        // A period can begin on both sides.
        let promised = budget * (lab.length / period + 2);
        lab.at_most("ticks of a thread that overruns its budget", used.iter().sum(), promised)
    })?;
    rt::say!("policy: {jobs} jobs beside it");
    lab.at_most("deadlines missed", missed, 0)
}
