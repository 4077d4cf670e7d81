//! Checks what the scheduler promises: shares, deadlines, delays, and who runs where. `only=` words of names of checks, `ms=` how long each
//! measurement takes, `seed=`, and `exact=1` if time is counted in instructions: then what depends on time is a promise, otherwise the log
//! tells it and nothing follows, for an emulator's cores stand still whenever its host pleases. The exit code is 0, or the number of the
//! check that failed, from 1; the log says why.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod cores;
mod deadlines;
mod fair;
mod hogs;
mod interactive;
mod periods;
mod real_time;
mod timers;

use abi::error::Error;
use abi::task::{CoreMask, SchedSpec};
use perf::clock::{Nanos, Ticks};
use rt::say;
use rt::start::Start;
use rt::time::{self, Deadline};

rt::entry!(main);

/// Why a check failed.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// A call did.
    Call(Error),
    /// Something was not as promised; the log says what.
    Promise,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

/// What a check returns.
type Outcome<T = ()> = Result<T, Failure>;

/// A check.
type Check = fn(&Lab) -> Outcome;

const CHECKS: &[(&str, Check)] = &[
    ("fair.equal", fair::equal),
    ("fair.interactive", fair::beside_interactive),
    ("fair.staggered", fair::staggered),
    ("deadlines.kept", deadlines::kept),
    ("deadlines.refused", deadlines::refused),
    ("deadlines.overrun", deadlines::overrun),
    ("real_time.hogs", real_time::beside_hogs),
    ("real_time.above", real_time::above_another),
    ("real_time.processes", real_time::beside_processes),
    ("interactive.hogs", interactive::beside_hogs),
    ("cores.spinning", cores::spinning),
    ("cores.spinning_real_time", cores::spinning_real_time),
    ("cores.suspended", cores::suspended),
    ("cores.affinity", cores::affinity),
    ("cores.reserved", cores::reserved),
    ("cores.reserved_server", cores::reserved_server),
    ("cores.spread", cores::spread),
    ("timers.late", timers::late),
    ("timers.many", timers::many),
    ("timers.quiet", timers::quiet),
];

/// The core that all is done on, unless it is about several.
const HERE: usize = 0;
/// The main thread's priority: it begins and ends measurements whatever else runs.
const MAIN: u64 = 200;

/// What a check works with.
struct Lab {
    start: Start,
    /// Whether time is counted in instructions.
    exact: bool,
    /// How long a measurement takes, in ticks.
    length: u64,
    seed: u64,
}

impl Lab {
    /// Ticks of so many microseconds.
    fn micros(&self, count: u64) -> u64 {
        self.start.timebase().ticks(Nanos::new(count * 1000)).count()
    }

    /// Lets time pass.
    fn pass(&self, ticks: u64) {
        time::sleep(Deadline(now().saturating_add(ticks)));
    }

    /// Cores of the machine.
    fn cores(&self) -> usize {
        self.start.raw().cores as usize
    }

    /// How often to look where nothing may be found.
    fn looks(&self) -> u64 {
        if self.exact { 20 } else { 4 }
    }

    /// Wrong unless the condition, which time has a part in, holds, if time is exact.
    fn in_time(&self, holds: bool, what: &str) -> Outcome {
        if holds || self.exact {
            return ensure(holds, what);
        }
        say!("policy: not in time: {what}");
        Ok(())
    }

    /// Says what was found; wrong if it is more than allowed and time is exact.
    fn at_most(&self, what: &str, found: u64, allowed: u64) -> Outcome {
        say!("policy: {what}: {found}, allowed {allowed}");
        if found > allowed && self.exact { Err(Failure::Promise) } else { Ok(()) }
    }
}

/// Wrong unless the condition holds, in every lane.
fn ensure(holds: bool, what: &str) -> Outcome {
    if holds {
        return Ok(());
    }
    say!("policy: not so: {what}");
    Err(Failure::Promise)
}

fn now() -> u64 {
    time::now().count()
}

/// A real-time thread without a budget.
const fn urgent(priority: u64) -> SchedSpec {
    SchedSpec { class: SchedSpec::REAL_TIME, priority, budget: 0, period: 0, deadline: 0 }
}

fn main(start: &Start) -> u64 {
    let timebase = start.timebase();
    let lab = Lab {
        start: *start,
        exact: start.number("exact", 0) != 0,
        length: timebase.ticks(Nanos::from_millis(start.number("ms", 100))).count(),
        seed: start.number("seed", 1),
    };
    let placed =
        start.thread().bind(&CoreMask::one(HERE)).and_then(|()| start.thread().schedule(&urgent(MAIN)));
    if let Err(error) = placed {
        say!("policy: the main thread cannot be placed: {error}");
        return CHECKS.len() as u64 + 1;
    }
    let only = start.word("only").unwrap_or_default();
    for (number, (name, check)) in (1..).zip(CHECKS) {
        if !abi::boot::selects(only, name) {
            continue;
        }
        let began = now();
        if let Err(failure) = check(&lab) {
            say!("policy: {name} failed: {failure:?}");
            return number;
        }
        let took = timebase.nanos(Ticks::new(now() - began)).count() / 1_000_000;
        say!("policy: {name} passed in {took} ms");
    }
    0
}
