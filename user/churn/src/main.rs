//! Makes and ends threads or processes without pause, for the kernel's soak tests.
//!
//! `kind=threads` (create, start, exit, join), `kind=chaos` (the same with random affinity, suspends, resumes and kills in between),
//! `kind=processes` (create, start, exit or kill, wait); `count=` cycles, shared by `threads=` threads; `seed=`. The exit code is 0, or
//! 1 + the number of a cycle's step that failed ([`Step`]); the log has the error and the cycle.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use abi::error::Error;
use abi::task::{CoreMask, ExitStatus};
use perf::prng::Prng;
use rt::handle::{Owned, Result, Thread};
use rt::process::{Builder as ProcessBuilder, Image};
use rt::say;
use rt::start::Start;
use rt::sync::atomic::{AtomicU64, Ordering};
use rt::thread::{self, Builder, Stack};
use rt::time::Deadline;

rt::entry!(main);

/// A step of a cycle.
#[derive(Clone, Copy, Debug)]
enum Step {
    Setup = 1,
    Create = 2,
    Start = 3,
    Disturb = 4,
    Join = 5,
    Code = 6,
}

/// Where a cycle failed, and why: `None` if a call succeeded with a wrong result.
type Failure = (Step, Option<Error>);

/// What one thread of the churn does: so many cycles.
type Work = fn(u64, u64, &mut Prng) -> core::result::Result<(), Failure>;

fn main(start: &Start) -> u64 {
    let (count, threads) = (start.number("count", 1_000), start.number("threads", 1).max(1));
    let seed = start.number("seed", 1);
    let work: Work = match start.word("kind") {
        Some("threads") => threads_only,
        Some("chaos") => chaos,
        Some("processes") => processes,
        _ => {
            say!("churn: kind= threads, chaos or processes");
            return 100;
        }
    };
    let share = count.div_ceil(threads);
    let spawn = |number| {
        let mut prng = Prng::stream(seed, number);
        thread::spawn(move || work(u64::from(number), share, &mut prng))
    };
    let workers: Result<Vec<_>> = (0..threads as u32).map(spawn).collect();
    let Ok(workers) = workers else { return Step::Setup as u64 };
    let mut code = 0;
    for worker in workers {
        let outcome = worker.join().unwrap_or_else(|error| Err((Step::Join, Some(error))));
        if let Err((step, error)) = outcome {
            say!("churn: {step:?} failed: {error:?}");
            code = step as u64;
        }
    }
    code
}

fn at<T>(step: Step, result: Result<T>) -> core::result::Result<T, Failure> {
    result.map_err(|error| (step, Some(error)))
}

/// How many short-lived threads have begun: something that they all do.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Ends with the code that it was given, after as many turns of a loop.
extern "C" fn short(code: u64) -> ! {
    // ORDER: Relaxed; a count.
    BEGUN.fetch_add(1, Ordering::Relaxed);
    for _ in 0..code % 64 {
        thread::yield_now();
    }
    thread::exit(code)
}

fn make(stack: &Stack, code: u64) -> Result<Owned<Thread>> {
    // SAFETY: `short` owns nothing that its end would leave behind; the caller has waited for the end of the stack's last thread.
    unsafe { Builder::default().create(short, code, stack) }
}

fn threads_only(_: u64, count: u64, _: &mut Prng) -> core::result::Result<(), Failure> {
    let stack = at(Step::Setup, Stack::new(2))?;
    for code in 0..count {
        // A multiple of 64: no yields, the bare cycle.
        let code = code << 6;
        let thread = at(Step::Create, make(&stack, code))?;
        at(Step::Start, thread.start())?;
        let left = at(Step::Join, thread.join(Deadline::NEVER))?;
        if left != code {
            return Err((Step::Code, None));
        }
    }
    Ok(())
}

/// Threads at a time in [`chaos`].
const FLOCK: usize = 8;
/// The code of those that were killed: no thread's own.
const KILLED: u64 = u64::MAX;

fn chaos(_: u64, count: u64, prng: &mut Prng) -> core::result::Result<(), Failure> {
    let stacks: Result<Vec<Stack>> = (0..FLOCK).map(|_| Stack::new(2)).collect();
    let stacks = at(Step::Setup, stacks)?;
    for _ in 0..count.div_ceil(FLOCK as u64) {
        let mut flock = Vec::with_capacity(FLOCK);
        for stack in &stacks {
            let code = prng.below(1 << 32);
            let thread = at(Step::Create, make(stack, code))?;
            if prng.below(2) == 0 {
                at(Step::Disturb, thread.bind(&CoreMask::one(core(prng))))?;
            }
            at(Step::Start, thread.start())?;
            flock.push((thread, code));
        }
        for _ in 0..2 * FLOCK {
            if let Some((thread, _)) = flock.get(prng.below(FLOCK as u64) as usize) {
                disturb(**thread, prng)?;
            }
        }
        for (thread, code) in flock {
            // Whoever was left suspended has to go on to end.
            let _ = thread.resume();
            let left = at(Step::Join, thread.join(Deadline::NEVER))?;
            if left != code && left != KILLED {
                return Err((Step::Code, None));
            }
        }
    }
    Ok(())
}

fn core(prng: &mut Prng) -> usize {
    prng.below(Start::get().raw().cores) as usize
}

/// Something that may come at any time, and too late: an ended thread answers `WrongState`.
fn disturb(thread: Thread, prng: &mut Prng) -> core::result::Result<(), Failure> {
    let result = match prng.below(8) {
        0 | 1 => thread.suspend(),
        2 | 3 => thread.resume(),
        4 => thread.kill(KILLED),
        5 | 6 => thread.bind(&CoreMask::one(core(prng))),
        _ => {
            thread::yield_now();
            Ok(())
        }
    };
    match result {
        Ok(()) | Err(Error::WrongState) => Ok(()),
        Err(error) => Err((Step::Disturb, Some(error))),
    }
}

fn processes(_: u64, count: u64, prng: &mut Prng) -> core::result::Result<(), Failure> {
    let start = Start::get();
    let nop = start.program("nop").ok_or((Step::Setup, None))?;
    for _ in 0..count {
        let builder = ProcessBuilder::new(Image::Loaded(nop)).name("churned").arguments("code=7\0");
        let child = at(Step::Create, builder.create(start.process()))?;
        let kills = prng.below(4) == 0;
        // One in eight is killed before it has run at all.
        if prng.below(8) != 0 {
            at(Step::Start, child.start())?;
        } else {
            at(Step::Disturb, child.kill(9))?;
        }
        if kills
            && let Err(error) = child.kill(9)
            && error != Error::WrongState
        {
            return Err((Step::Disturb, Some(error)));
        }
        let status = at(Step::Join, child.wait(Deadline::NEVER))?;
        let expected = [(ExitStatus::EXITED, 7), (ExitStatus::KILLED, 9)];
        if !expected.contains(&(status.reason, status.code)) {
            say!("churn: {status:?}");
            return Err((Step::Code, None));
        }
    }
    Ok(())
}
