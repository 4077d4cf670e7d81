//! The kernel's part of scheduling: the run queue, waking a thread of another core, the timer's interrupt.

use core::fmt::{self, Write};
use core::ptr;

use abi::task::{ExitStatus, NEVER, ProcessSpec, ProcessState, SchedSpec};
use percpu::sync::atomic::{AtomicU32, Ordering};
use percpu::{CoreId, CoreSet, Held, IrqOff};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope, Value};
use perf::clock::{Clock, Ticks};
use perf::runner::Trouble;
use sched::{Core, Entity, Ready, Stop, Task, Tunables};

use super::{Lab, Meter, Tsc, crew, place};
use crate::arch::{timer, tsc};
use crate::harness::Run;
use crate::object::Ref;
use crate::process::Process;
use crate::region::Region;
use crate::spaces;
use crate::wait::{self, Key};
use crate::{cores, dispatch, machine};

const SINGLE: Bench<Lab> = Bench {
    id: "",
    version: 1,
    doc: "",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |_, visit| visit(Case::new(place::alone())),
    run: |_, _, _| Err(Trouble::Failed("a row without a body")),
};

/// The run queue.
pub(super) const PAIR: Bench<Lab> = Bench {
    id: "queue.pair",
    doc: "a thread that has been woken is queued on its core, where two others wait, and picked",
    cases: |_, visit| {
        for class in [NORMAL, REAL_TIME] {
            visit(Case::new(place::alone()).with("class", Value::Word(class)));
        }
    },
    run: pair,
    ..SINGLE
};

const NORMAL: &str = "normal";
const REAL_TIME: &str = "real-time";

/// What stands for a thread.
#[derive(Clone, Copy)]
struct Stand<'t>(&'t Task<Self>);

impl PartialEq for Stand<'_> {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

impl Eq for Stand<'_> {}

impl Entity for Stand<'_> {
    #[inline(always)]
    fn task(&self) -> &Task<Self> {
        self.0
    }
}

fn pair(_: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let tasks = [const { Task::new() }; 3];
    let [one, other, third] = &tasks;
    let [measured, waiting, behind] = [Stand(one), Stand(other), Stand(third)];
    let core = Core::new(Tunables::at(machine::clock().0 / 1000));
    let mut now = tsc::now();
    // The first boost is due at once, and would put all of them on one level.
    let _decision = core.tick(now);
    if case.params.word("class") == Some(REAL_TIME) {
        let spec = SchedSpec { class: SchedSpec::REAL_TIME, priority: 100, ..SchedSpec::default() };
        if core.configure(measured, &spec, now).is_err() {
            return Err(Trouble::Failed("a real-time thread was not admitted"));
        }
    }
    // The one that is measured has run and waited before. The others have had their first quantum already, so it comes before them.
    let _decision = core.ready(measured, now, Ready::New);
    let mut sound = core.pick(now) == Some(measured);
    core.stop(now, Stop::Blocked);
    for stand in [waiting, behind] {
        let _decision = core.ready(stand, now, Ready::New);
        sound &= core.pick(now) == Some(stand);
        now += machine::clock().0 / 500;
        let _decision = core.tick(now);
        core.stop(now, Stop::Preempted);
    }
    while meter.more() {
        now += 1;
        let from = Tsc.start();
        let _decision = core.ready(measured, now, Ready::Woken);
        let picked = core.pick(now);
        let to = Tsc.stop();
        sound &= picked == Some(measured);
        core.stop(now, Stop::Blocked);
        meter.window(from, to);
    }
    if sound { Ok(()) } else { Err(Trouble::Failed("another thread than expected was picked")) }
}

/// The sender's side of a wake.
pub(super) const WAKE: Bench<Lab> = Bench {
    id: "wake.remote",
    doc: "taking a thread out of a word's list of waiters and sending it home to another core, asleep, its interrupt included",
    classes: &[Class::Smt, Class::Llc, Class::Node, Class::Remote],
    cases: |_, visit| {
        for (class, partner) in place::partners() {
            let (placement, word) = place::pair(class, partner);
            visit(Case::new(placement).with("to", word));
        }
    },
    run: |_, case, meter| {
        let target = place::partner(case.placement.class).ok_or(Trouble::Failed("the partner is gone"))?;
        IrqOff::with(|irq| wake(irq, target, meter))
    },
    ..SINGLE
};

/// A program that waits on a word of a region again and again; see `partner` in `user/bench`.
struct Waiter {
    process: Ref<Process>,
    words: &'static [AtomicU32; WORDS],
    /// Has the region live as long as the words are used.
    _region: Ref<Region>,
}

/// Words of the region: how often the program was about to wait, the low and the high half of the waited word's address.
const WAITS: usize = 1;
const LOW: usize = 2;
const HIGH: usize = 3;
const WORDS: usize = 4;

/// How often it is looked whether the program waits, per second, and for how many seconds.
const LOOKS_HZ: u64 = 1000;
const PATIENCE: u64 = 10;
/// How long the machine is left alone afterwards: 10 ms.
const REST_HZ: u64 = 100;

impl Waiter {
    /// Starts it on a core; returns when it has been about to wait.
    fn start(irq: &mut IrqOff, core: CoreId) -> Result<Self, Trouble> {
        let no_memory = |_| Trouble::Skipped("not enough memory for a program");
        let region = Region::new(irq, 1).map_err(no_memory)?;
        let frame = region.frame(irq, 0).ok_or(Trouble::Skipped("not enough memory for a page"))?;
        // SAFETY: a zeroed frame of the region's, which this value keeps; atomics, for which any bits are a value.
        let words = unsafe { &*spaces::bytes_of(frame).cast() };
        let mut arguments = Words([0; _], 0);
        write!(arguments, "partner=wait\0core={}\0", core.raw()).map_err(|_| Trouble::Failed("too long"))?;
        let run = Run {
            program: "bench",
            arguments: arguments.0.get(..arguments.1).unwrap_or_default(),
            region: Some(&region),
            flags: ProcessSpec::FIXED,
            bank: None,
        };
        let made = run.make(irq).map_err(|_| Trouble::Skipped("the loader has brought no `bench`"))?;
        let waiter = Self { process: made, words, _region: region };
        Process::start(&waiter.process, irq).map_err(|_| Trouble::Failed("the program cannot be started"))?;
        let hertz = machine::clock().0;
        for _ in 0..PATIENCE * LOOKS_HZ {
            if waiter.word(WAITS) != 0 {
                return Ok(waiter);
            }
            // SAFETY: benchmarks run with nothing but their own data.
            unsafe { dispatch::serve_until(irq, &|| false, tsc::now() + hertz / LOOKS_HZ) };
        }
        waiter.end(irq);
        Err(Trouble::Failed("the program does not wait"))
    }

    fn word(&self, index: usize) -> u32 {
        // ORDER: Acquire pairs with Release in the program: the address is there when it is about to wait.
        self.words[index].load(Ordering::Acquire)
    }

    fn key(&self) -> Key {
        let address = u64::from(self.word(HIGH)) << 32 | u64::from(self.word(LOW));
        Key::word(self.process.space().tlb().id().raw(), address)
    }

    fn end(&self, irq: &mut IrqOff) {
        let status = ExitStatus { reason: ExitStatus::KILLED, ..ExitStatus::default() };
        Process::end(&self.process, irq, status);
        let ended = || self.process.state() == ProcessState::Ended;
        // SAFETY: as in `start`.
        unsafe { dispatch::serve_until(irq, &ended, NEVER) };
        // What it leaves ripens while this core rests, and not in the next row.
        // SAFETY: as in `start`.
        unsafe { dispatch::serve_until(irq, &|| false, tsc::now() + machine::clock().0 / REST_HZ) };
    }
}

/// Text in an array.
struct Words([u8; 64], usize);

impl Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.0.get_mut(self.1..self.1 + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.1 += text.len();
        Ok(())
    }
}

fn wake(irq: &mut IrqOff, target: CoreId, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let waiter = Waiter::start(irq, target)?;
    let (key, asleep) = (waiter.key(), CoreSet::one(target));
    let mut waits = 0;
    let mut sound = true;
    meter.windows(
        &mut (irq, 0),
        |_| {
            while waiter.word(WAITS) == waits {
                core::hint::spin_loop();
            }
            waits = waiter.word(WAITS);
            crew::await_idle(&asleep);
        },
        |(irq, woken)| *woken = irq.locks(|held| wait::wake(held, key, 1, 0, 0)),
        |(_, woken)| sound &= *woken == 1,
    );
    IrqOff::with(|irq| waiter.end(irq));
    if sound { Ok(()) } else { Err(Trouble::Failed("nobody was woken")) }
}

/// The timer's interrupt.
pub(super) const TIMER: Bench<Lab> = Bench {
    id: "irq.kernel",
    doc: "an interrupt of the timer in kernel mode: from the deadline until it is taken, or from there until the interrupted code goes on",
    cases: |_, visit| {
        for part in [DELAY, HANDLING] {
            visit(Case::new(place::alone()).with("part", Value::Word(part)));
        }
    },
    run: |_, case, meter| {
        let delay = case.params.word("part") == Some(DELAY);
        let second = machine::clock().0;
        while meter.more() {
            let deadline = tsc::now() + second / DEADLINES_HZ;
            let gap = Gap::at(deadline, second).ok_or(Trouble::Failed("the timer did not interrupt"))?;
            let [deadline, taken, over] = [deadline, gap.taken(), gap.to].map(Ticks::new);
            // Readings without fences, so there is no overhead to subtract; what a reading takes is in `shortest`.
            if delay {
                meter.window_with_overhead(deadline, taken.max(deadline));
            } else {
                meter.window_with_overhead(taken, over);
            }
        }
        Ok(())
    },
    ..SINGLE
};

const DELAY: &str = "delay";
const HANDLING: &str = "handling";
/// Deadlines lie so far ahead: 20 µs.
const DEADLINES_HZ: u64 = 50_000;

/// Two readings of the counter between which an interrupt was taken, and the shortest distance of two such readings.
struct Gap {
    from: u64,
    to: u64,
    shortest: u64,
}

impl Gap {
    /// Reads the counter again and again until the timer has interrupted at a deadline, or so long after it; `None` then.
    fn at(deadline: u64, patience: u64) -> Option<Self> {
        IrqOff::with(|irq| irq.locks(|held| Self::watch(held, deadline, patience)))
    }

    fn watch(held: &mut Held<'_, 0>, deadline: u64, patience: u64) -> Option<Self> {
        timer::arm(held, deadline);
        let mut gap = Self { from: 0, to: 0, shortest: u64::MAX };
        let mut last = tsc::now();
        while timer::armed(held) != timer::NEVER {
            let mut once = true;
            // SAFETY: nothing core-local is in use.
            unsafe { cores::expose(held, || core::mem::take(&mut once)) };
            let now = tsc::now();
            gap.take(last, now);
            last = now;
            if now > deadline + patience {
                timer::disarm(held);
                return None;
            }
        }
        Some(gap)
    }

    fn take(&mut self, from: u64, to: u64) {
        self.shortest = self.shortest.min(to - from);
        (self.from, self.to) = (from, to);
    }

    /// When the reading would have been made that the interrupt has delayed.
    fn taken(&self) -> u64 {
        self.from + self.shortest
    }
}
