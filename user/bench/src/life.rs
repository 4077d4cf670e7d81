//! Making and ending threads and processes.

use abi::task::ProcessSpec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Run, Scope};
use perf::clock::Clock;
use perf::runner::Trouble;
use rt::handle::{Owned, Process, Result, Thread};
use rt::process::{Builder as ProcessBuilder, Image};
use rt::thread::{self, Builder, Stack};
use rt::time::{Deadline, Tsc};

use super::{Lab, Meter, failed};

/// What all rows of this module have in common.
const fn row(id: &'static str, doc: &'static str, run: Run<Lab>) -> Bench<Lab> {
    Bench {
        id,
        version: 1,
        doc,
        quantity: Quantity::Time,
        direction: Direction::Smaller,
        scope: Scope::Operation,
        lanes: Lanes::GUEST,
        classes: &[Class::SelfCore],
        batch: 1,
        cases: |lab, visit| visit(Case::new(lab.alone())),
        run,
    }
}

/// A whole life.
pub(super) const THREAD_LIFE: Bench<Lab> = row(
    "thread.life",
    "creating, starting and joining a thread that ends at once, and deleting its capability; its stack is there already",
    |_, _, meter| {
        threads(meter, |stack, timed| {
            timed.begin();
            let thread = create(stack)?;
            finish(&thread)?;
            drop(thread);
            timed.end();
            Ok(())
        })
    },
);

/// Its beginning.
pub(super) const THREAD_CREATE: Bench<Lab> =
    row("thread.create", "creating a thread, not started", |_, _, meter| {
        threads(meter, |stack, timed| {
            timed.begin();
            let thread = create(stack)?;
            timed.end();
            finish(&thread)
        })
    });

/// Its middle.
pub(super) const THREAD_JOIN: Bench<Lab> =
    row("thread.join", "starting a thread that ends at once, and waiting for its end", |_, _, meter| {
        threads(meter, |stack, timed| {
            let thread = create(stack)?;
            timed.begin();
            finish(&thread)?;
            timed.end();
            Ok(())
        })
    });

/// Its end.
pub(super) const THREAD_DESTROY: Bench<Lab> =
    row("thread.destroy", "deleting the last capability of a thread that has ended", |_, _, meter| {
        threads(meter, |stack, timed| {
            let thread = create(stack)?;
            finish(&thread)?;
            timed.begin();
            drop(thread);
            timed.end();
            Ok(())
        })
    });

/// A whole life.
pub(super) const PROCESS_LIFE: Bench<Lab> = row(
    "process.life",
    "creating a process of a small image, running it until it exits, waiting until all it had is given back",
    |lab, _, meter| {
        processes(lab, meter, |builder, parent, timed| {
            timed.begin();
            let process = builder.spawn(parent)?;
            process.wait(Deadline::NEVER)?;
            drop(process);
            timed.end();
            Ok(())
        })
    },
);

/// Its beginning.
pub(super) const PROCESS_CREATE: Bench<Lab> =
    row("process.create", "creating a process of a small image, not started", |lab, _, meter| {
        processes(lab, meter, |builder, parent, timed| {
            timed.begin();
            let process = builder.create(parent)?;
            timed.end();
            destroy(&process)
        })
    });

/// Its end.
pub(super) const PROCESS_DESTROY: Bench<Lab> = row(
    "process.destroy",
    "killing a process that was never started, and waiting until all it had is given back",
    |lab, _, meter| {
        processes(lab, meter, |builder, parent, timed| {
            let process = builder.create(parent)?;
            timed.begin();
            destroy(&process)?;
            timed.end();
            Ok(())
        })
    },
);

/// The readings around what is timed; outside of it lies what a cycle needs besides.
#[derive(Default)]
struct Timed {
    start: perf::clock::Ticks,
    stop: perf::clock::Ticks,
}

impl Timed {
    #[inline(always)]
    fn begin(&mut self) {
        self.start = Tsc.start();
    }

    #[inline(always)]
    fn end(&mut self) {
        self.stop = Tsc.stop();
    }
}

extern "C" fn ends_at_once(_: u64) -> ! {
    thread::exit(0)
}

#[inline(always)]
fn create(stack: &Stack) -> Result<Owned<Thread>> {
    // SAFETY: the function does nothing; the stack's last thread has been joined.
    unsafe { Builder::default().create(ends_at_once, 0, stack) }
}

#[inline(always)]
fn finish(thread: &Thread) -> Result<()> {
    thread.start()?;
    thread.join(Deadline::NEVER).map(drop)
}

#[inline(always)]
fn destroy(process: &Process) -> Result<()> {
    process.kill(0)?;
    process.wait(Deadline::NEVER).map(drop)
}

fn cycles(meter: &mut Meter<'_>, mut cycle: impl FnMut(&mut Timed) -> Result<()>) -> Result<()> {
    while meter.more() {
        let mut timed = Timed::default();
        cycle(&mut timed)?;
        meter.window(timed.start, timed.stop);
    }
    Ok(())
}

fn threads(
    meter: &mut Meter<'_>,
    cycle: impl Fn(&Stack, &mut Timed) -> Result<()>,
) -> core::result::Result<(), Trouble> {
    let stack = Stack::new(1).map_err(failed)?;
    cycles(meter, |timed| cycle(&stack, timed)).map_err(failed)
}

fn processes(
    lab: &Lab,
    meter: &mut Meter<'_>,
    cycle: impl Fn(&ProcessBuilder<'_>, Process, &mut Timed) -> Result<()>,
) -> core::result::Result<(), Trouble> {
    let nop = lab.start.program("nop").ok_or(Trouble::Skipped("the loader has brought no `nop`"))?;
    // Placed alike each time: counted instructions repeat.
    let builder = ProcessBuilder::new(Image::Loaded(nop)).name("nop").flags(ProcessSpec::FIXED);
    cycles(meter, |timed| cycle(&builder, lab.start.process(), timed)).map_err(failed)
}
