//! The kernel's benchmark table. Rows measure what they are named after, on every placement that makes sense on the machine.

mod basics;
mod caps;
mod crew;
mod frames;
mod heap;
mod latency;
mod life;
mod objects;
mod observe;
mod place;
mod signals;
mod threads;
mod tlb;
mod user;
mod usercopy;
mod vm;

use abi::boot::Params;
use abi::exit::Exit;
use perf::bench::{Bench, Context};
use perf::clock::{Clock, Frequency, Ticks, Timebase};
use perf::hist::DEFAULT_COUNTS;
use perf::record::{Record, SuiteStart};
use perf::runner::{self, Settings};

use crate::arch::tsc;
use crate::cores::Crew;
use crate::{log, machine, memory, report, trace};

/// The time-stamp counter as a clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tsc;

impl Clock for Tsc {
    #[inline(always)]
    fn start(&self) -> Ticks {
        Ticks::new(tsc::start())
    }

    #[inline(always)]
    fn stop(&self) -> Ticks {
        Ticks::new(tsc::stop())
    }
}

/// What a row of this table works with. It belongs to the boot core, which runs the table.
pub(crate) struct Lab {
    /// Runs bodies on other cores.
    crew: Crew,
    /// Seed of every pseudo-random sequence.
    seed: u64,
}

impl Context for Lab {
    type Clock = Tsc;

    fn clock(&self) -> Tsc {
        Tsc
    }
}

/// What a row measures with here.
type Meter<'a> = runner::Meter<'a, Tsc>;

/// All rows, in the order in which they run.
const TABLE: &[Bench<Lab>] = &[
    basics::CLOCK_OVERHEAD,
    basics::CLOCK_SKEW,
    basics::PERCPU_ACCESS,
    basics::HIST_RECORD,
    observe::METRICS_RECORD,
    observe::TRACE_EVENT,
    frames::ALLOC,
    frames::FREE,
    frames::PAIR,
    frames::CHURN,
    usercopy::COPY,
    usercopy::FAULT,
    heap::ALLOC,
    heap::FREE,
    heap::PAIR,
    heap::XFREE,
    signals::IPI_ONE,
    signals::IPI_BCAST,
    signals::MAILBOX_RTT,
    signals::LOCK,
    vm::MAP,
    vm::UNMAP,
    vm::PROTECT,
    vm::FAULT,
    vm::SCALE,
    life::LIFE,
    caps::LOOKUP,
    caps::STEP,
    tlb::SHOOTDOWN,
    latency::CAS,
    latency::MEMORY,
    threads::PAIR,
    threads::WAKE,
    threads::TIMER,
    objects::SIZE,
];

/// Runs the selected cases and returns how the run ends.
#[inline(never)] // its code belongs to the laboratory's pages, whoever calls it
pub(crate) fn run(params: &Params<'_>, crew: Crew) -> Exit {
    let (hertz, _) = machine::clock();
    let Some(frequency) = Frequency::new(hertz) else { return Exit::Unsupported };
    let settings = Settings::new(params, Timebase::new(frequency));
    let mut lab = Lab { crew, seed: params.seed };
    let counts = memory::array(DEFAULT_COUNTS, 0_u32).filter(|_| crew::equip(&mut lab));
    let Some(counts) = counts else {
        log!("bench: no memory for the histograms of every core");
        return Exit::NoMemory;
    };
    // The program's cases come after the kernel's own.
    let mut own = 0;
    runner::select(TABLE, &lab, &settings, &mut |_| own += 1);
    let theirs = user::count(params);
    report::send(&Record::SuiteStart(SuiteStart {
        cases: own + theirs,
        first: params.after.min(own + theirs),
    }));
    let mut send = |record: &Record<'_>| match record {
        Record::SuiteStart(_) => {}
        other => report::send(other),
    };
    let mut done = if params.samples == Some(0) {
        runner::list(TABLE, &lab, &settings, &mut send)
    } else {
        runner::run(TABLE, &mut lab, &settings, counts, &mut send)
    };
    let after = params.after.saturating_sub(own);
    if after < theirs {
        let Some(more) = user::run(params, after, None, &mut |record| send(&record.shifted(own))) else {
            return Exit::TestsFailed;
        };
        done.run += more.run;
        done.failed += more.failed;
        done.skipped += more.skipped;
    }
    trace::send();
    report::send(&Record::Done(done));
    if done.run == 0 && done.skipped == 0 { Exit::NothingMatched } else { Exit::Success }
}
