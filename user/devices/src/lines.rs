//! Interrupts reach their driver as bits of a notification: none is lost, none comes unasked, on the core that was named.

use alloc::sync::Arc;
use alloc::vec::Vec;

use abi::cap::Rights;
use abi::debug::Counter;
use abi::error::Error;
use abi::task::{CoreMask, Grant, SchedSpec, ThreadSpec};
use perf::prng::Prng;
use rt::handle::{Interrupt, Owned, Typed};
use rt::process::{Builder as Process, Image};
use rt::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::thread::{Builder, JoinHandle};
use rt::time::Deadline;

use crate::bell::Bell;
use crate::clock::{self, Clock};
use crate::timer::{self, Timer};
use crate::{Failure, Lab, Outcome, after, ensure, pass, refused};

/// The bits that lines are bound to.
const CLOCK: u64 = 1 << 3;
const TIMER: u64 = 1 << 62;
/// Milliseconds that an interrupt may be late on any emulator, and in which a device that interrupts all the time does so.
const PATIENCE: u64 = 5_000;
const SOME: u64 = 20;
/// Interrupts that are taken one after the other.
const ROUNDS: usize = 50;

/// A line that was just given up is free once no core can be at it.
fn claim(lab: &Lab, line: u64) -> Outcome<Owned<Interrupt>> {
    let deadline = after(PATIENCE);
    loop {
        match lab.interrupts.claim(line) {
            Err(Error::Occupied) if !deadline.passed() => pass(1),
            other => return other.map_err(Failure::from),
        }
    }
}

/// A line, bound, and let go.
fn open(lab: &Lab, line: u64, bell: Bell, bits: u64) -> Outcome<Owned<Interrupt>> {
    let line = claim(lab, line)?;
    line.bind(bell.handle(), bits)?;
    line.acknowledge()?;
    Ok(line)
}

/// Waits for the next interrupt; `Check` if it does not come.
fn next(bell: Bell) -> Outcome<u64> {
    match bell.wait(after(PATIENCE)) {
        Ok(bits) => Ok(bits),
        Err(Error::TimedOut) => Err(Failure::Check("an interrupt comes")),
        Err(other) => Err(other.into()),
    }
}

/// So many times: an interrupt, and nothing else, comes.
fn take(bell: Bell, line: Interrupt, bits: u64, times: usize) -> Outcome {
    for _ in 0..times {
        ensure(next(bell)? == bits, "the bits are those that were bound")?;
        line.acknowledge()?;
    }
    Ok(())
}

/// As [`take`], from the clock, which wants to be asked why.
fn take_clock(bell: Bell, line: Interrupt, clock: &Clock, times: usize) -> Outcome {
    for _ in 0..times {
        ensure(next(bell)? == CLOCK, "the bits are those that were bound")?;
        clock.why()?;
        line.acknowledge()?;
    }
    Ok(())
}

/// A line is claimed once at a time, if there is one.
pub(crate) fn claims(lab: &Lab) -> Outcome {
    let all = lab.interrupts;
    let line = claim(lab, clock::LINE)?;
    refused(all.claim(clock::LINE), Error::Occupied, "a line is claimed twice")?;
    let another = line.derive(Rights::ALL, 0)?;
    drop(line);
    pass(SOME);
    refused(all.claim(clock::LINE), Error::Occupied, "a line is claimed while there is a capability")?;
    drop(another);
    claim(lab, clock::LINE)?;
    // ISA interrupt 2 is where the second legacy controller sits; its pin is the timer's.
    for line in [2, 190, 191, 255, 1 << 32, u64::MAX] {
        refused(all.claim(line), Error::Unsupported, "a line is claimed that there is not")?;
    }
    let bare = all.derive(Rights::ALL.and(Rights(!Rights::CREATE.0)), 0)?;
    refused(bare.claim(clock::LINE), Error::MissingRight, "a line is claimed without the right")
}

/// What a line is asked without sense, or without the right.
pub(crate) fn refusals(lab: &Lab) -> Outcome {
    let (line, bell) = (claim(lab, clock::LINE)?, Bell::new()?);
    refused(line.acknowledge(), Error::WrongState, "a line is let go that nobody hears")?;
    refused(line.bind(bell.handle(), 0), Error::BadArgument, "a line signals nothing")?;
    refused(line.bind(line.handle(), 1), Error::WrongType, "a line signals a line")?;
    refused(line.lead_to(lab.cores()), Error::BadArgument, "a line goes to a core that there is not")?;
    refused(line.lead_to(usize::MAX), Error::BadArgument, "a line goes to a core that cannot be")?;
    // SAFETY: no address is passed.
    let other = unsafe { rt::sys::interrupt_mask(line.handle(), 2) };
    refused(other, Error::BadArgument, "a line is neither masked nor unmasked")?;
    let bare = line.derive(Rights::ALL.and(Rights(!Rights::CONTROL.0)), 0)?;
    for result in
        [bare.bind(bell.handle(), 1), bare.acknowledge(), bare.mask(), bare.unmask(), bare.lead_to(0)]
    {
        refused(result, Error::MissingRight, "a line is used without the right")?;
    }
    Ok(())
}

/// Interrupts reach a driver that sleeps, on a core that sleeps.
pub(crate) fn idle(lab: &Lab) -> Outcome {
    let bell = Bell::new()?;
    let line = open(lab, clock::LINE, bell, CLOCK)?;
    let clock = Clock::start(lab)?;
    take_clock(bell, *line, &clock, ROUNDS)
}

/// Threads that spin, one on each core. They say so, for the sake of an emulator that runs one core at a time.
struct Spinners {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    turns: Vec<Arc<AtomicU64>>,
}

impl Spinners {
    fn start(lab: &Lab) -> Outcome<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let (mut threads, mut turns) = (Vec::new(), Vec::new());
        for core in 0..lab.cores() {
            let (over, turn) = (Arc::clone(&over), Arc::new(AtomicU64::new(0)));
            turns.push(Arc::clone(&turn));
            let builder = Builder::default().cores(CoreMask::one(core)).flags(ThreadSpec::NO_FPU);
            threads.push(builder.spawn(move || {
                // ORDER: Relaxed; nothing else is shared.
                while !over.load(Ordering::Relaxed) {
                    // ORDER: Relaxed; a count.
                    turn.fetch_add(1, Ordering::Relaxed);
                    core::hint::spin_loop();
                }
            })?);
        }
        Ok(Self { over, threads, turns })
    }

    /// How often the one on a core has turned.
    fn turns(&self, core: usize) -> u64 {
        // ORDER: Relaxed; a count.
        self.turns.get(core).map_or(0, |turns| turns.load(Ordering::Relaxed))
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        // ORDER: Relaxed; as above. The threads are joined as they go.
        self.over.store(true, Ordering::Relaxed);
        self.threads.clear();
    }
}

/// Interrupts strike threads, and reach the driver all the same.
pub(crate) fn busy(lab: &Lab) -> Outcome {
    let bell = Bell::new()?;
    let line = open(lab, timer::LINE, bell, TIMER)?;
    let _timer = Timer::start(lab)?;
    let _spinners = Spinners::start(lab)?;
    for core in 0..lab.cores() {
        line.lead_to(core)?;
        take(bell, *line, TIMER, ROUNDS / lab.cores())?;
    }
    Ok(())
}

/// A driver that comes before everybody, and waits for nothing else, has the core at once; who had it goes on later.
pub(crate) fn urgent(lab: &Lab) -> Outcome {
    let first = SchedSpec { class: SchedSpec::REAL_TIME, priority: 100, ..SchedSpec::default() };
    let bell = Bell::new()?;
    let line = open(lab, timer::LINE, bell, TIMER)?;
    let _timer = Timer::start(lab)?;
    let spinners = Spinners::start(lab)?;
    let builder = Builder::default().schedule(first).flags(ThreadSpec::NO_FPU);
    for core in 0..lab.cores() {
        line.lead_to(core)?;
        let (before, own, count) = (spinners.turns(core), *line, Arc::new(AtomicU64::new(0)));
        let taken = Arc::clone(&count);
        let driver = builder.cores(CoreMask::one(core)).spawn(move || -> Outcome {
            for _ in 0..ROUNDS {
                ensure(bell.wait(Deadline::NEVER)? == TIMER, "the bits are those that were bound")?;
                // ORDER: Relaxed; a count.
                taken.fetch_add(1, Ordering::Relaxed);
                own.acknowledge()?;
            }
            Ok(())
        })?;
        // One that is stopped while it waits is not to run when it is woken.
        driver.thread().suspend()?;
        // ORDER: Relaxed, both; a count.
        let stopped = count.load(Ordering::Relaxed);
        pass(SOME);
        // ORDER: Relaxed; as above.
        ensure(count.load(Ordering::Relaxed) == stopped, "a driver that is suspended does not run")?;
        driver.thread().resume()?;
        driver.join()??;
        let deadline = after(PATIENCE);
        while spinners.turns(core) == before {
            ensure(!deadline.passed(), "who was interrupted goes on")?;
            pass(1);
        }
    }
    Ok(())
}

/// Nothing comes before the acknowledgement, and what came meanwhile comes with it.
pub(crate) fn acknowledged(lab: &Lab) -> Outcome {
    let bell = Bell::new()?;
    let line = claim(lab, timer::LINE)?;
    line.bind(bell.handle(), TIMER)?;
    let _timer = Timer::start(lab)?;
    pass(SOME);
    ensure(bell.poll()? == 0, "nothing comes before the first acknowledgement")?;
    line.acknowledge()?;
    for _ in 0..5 {
        ensure(next(bell)? == TIMER, "the bits are those that were bound")?;
        pass(SOME);
        ensure(bell.poll()? == 0, "nothing comes before it is acknowledged")?;
        line.acknowledge()?;
        ensure(bell.poll()? == TIMER, "an edge that came meanwhile comes with the acknowledgement")?;
        line.acknowledge()?;
    }
    // One too many says nothing.
    line.acknowledge()?;
    take(bell, *line, TIMER, 5)
}

/// Nothing comes from a masked line, and what came meanwhile comes when it is unmasked.
pub(crate) fn masked(lab: &Lab) -> Outcome {
    let bell = Bell::new()?;
    let line = open(lab, timer::LINE, bell, TIMER)?;
    let _timer = Timer::start(lab)?;
    for _ in 0..5 {
        take(bell, *line, TIMER, 2)?;
        line.mask()?;
        // One may have been signalled before.
        bell.poll()?;
        line.acknowledge()?;
        pass(SOME);
        ensure(bell.poll()? == 0, "nothing comes from a masked line")?;
        line.unmask()?;
        ensure(bell.poll()? == TIMER, "an edge that came meanwhile comes when the line is unmasked")?;
        line.acknowledge()?;
    }
    Ok(())
}

/// Two lines share a notification.
pub(crate) fn shared(lab: &Lab) -> Outcome {
    let bell = Bell::new()?;
    let (ticks, beats) = (open(lab, clock::LINE, bell, CLOCK)?, open(lab, timer::LINE, bell, TIMER)?);
    let clock = Clock::start(lab)?;
    let _timer = Timer::start(lab)?;
    let (mut from_clock, mut from_timer) = (0, 0);
    while from_clock < ROUNDS || from_timer < ROUNDS {
        let bits = next(bell)?;
        ensure(bits & !(CLOCK | TIMER) == 0 && bits != 0, "the bits are those that were bound")?;
        if bits & CLOCK != 0 {
            from_clock += 1;
            clock.why()?;
            ticks.acknowledge()?;
        }
        if bits & TIMER != 0 {
            from_timer += 1;
            beats.acknowledge()?;
        }
        ensure(from_clock + from_timer < 100 * ROUNDS, "both lines are heard")?;
    }
    Ok(())
}

/// A line that is bound anew signals there and nowhere else.
pub(crate) fn rebound(lab: &Lab) -> Outcome {
    let bells = [Bell::new()?, Bell::new()?];
    let line = claim(lab, timer::LINE)?;
    line.bind(bells[0].handle(), CLOCK)?;
    line.acknowledge()?;
    let _timer = Timer::start(lab)?;
    for round in 0..20 {
        let [bell, other] = if round % 2 == 0 { bells } else { [bells[1], bells[0]] };
        line.bind(bell.handle(), TIMER << (round % 2))?;
        // What was signalled before the change is still to be acknowledged.
        line.acknowledge()?;
        other.poll()?;
        for _ in 0..3 {
            ensure(next(bell)? == TIMER << (round % 2), "the bits are those that were bound last")?;
            line.acknowledge()?;
        }
        ensure(other.poll()? == 0, "nothing is signalled where the line was bound before")?;
    }
    Ok(())
}

/// How many interrupts of devices every core has taken.
fn taken(lab: &Lab) -> Outcome<Vec<u64>> {
    let count = |core| {
        let metrics = lab.debug.metrics(core)?;
        Ok(metrics.counters.get(Counter::DeviceInterrupts as usize).copied().unwrap_or(0))
    };
    (0..lab.cores()).map(count).collect()
}

/// The core that was named takes a line, and no other.
pub(crate) fn affinity(lab: &Lab) -> Outcome {
    let bell = Bell::new()?;
    let line = open(lab, timer::LINE, bell, TIMER)?;
    let _timer = Timer::start(lab)?;
    for core in (0..lab.cores()).rev().chain(0..lab.cores()) {
        line.lead_to(core)?;
        // What was on its way to the core before.
        take(bell, *line, TIMER, 3)?;
        let before = taken(lab)?;
        take(bell, *line, TIMER, 10)?;
        let more: Vec<u64> = taken(lab)?.iter().zip(&before).map(|(now, then)| now - then).collect();
        let elsewhere = more.iter().enumerate().filter(|&(other, _)| other != core).map(|(_, count)| count);
        ensure(elsewhere.sum::<u64>() == 0, "no other core takes the line")?;
        // What was told first may have been noted before.
        ensure(more.get(core).is_some_and(|&count| count >= 9), "the core that was named takes the line")?;
    }
    Ok(())
}

/// A line that is moved about all the time loses nothing: the clock says nothing more until it has been answered.
pub(crate) fn moving(lab: &Lab) -> Outcome {
    let bell = Bell::new()?;
    let line = open(lab, clock::LINE, bell, CLOCK)?;
    let clock = Clock::start(lab)?;
    let over = Arc::new(AtomicBool::new(false));
    let mover = {
        let (over, line, cores) = (Arc::clone(&over), *line, lab.cores() as u64);
        rt::thread::spawn(move || {
            let (mut prng, mut moves) = (Prng::new(1), 0_u64);
            // ORDER: Relaxed; nothing else is shared.
            while !over.load(Ordering::Relaxed) {
                line.lead_to(prng.below(cores) as usize)?;
                moves += 1;
                rt::thread::yield_now();
            }
            Ok::<u64, Error>(moves)
        })?
    };
    let outcome = take_clock(bell, *line, &clock, 4 * ROUNDS);
    // ORDER: Relaxed; as above.
    over.store(true, Ordering::Relaxed);
    let moves = mover.join()??;
    outcome?;
    ensure(moves > ROUNDS as u64, "the line was moved meanwhile")
}

/// A line without capabilities is nobody's: it is quiet, and can be claimed and used again.
pub(crate) fn freed(lab: &Lab) -> Outcome {
    let _timer = Timer::start(lab)?;
    for _ in 0..10 {
        let bell = Bell::new()?;
        let line = open(lab, timer::LINE, bell, TIMER)?;
        take(bell, *line, TIMER, 2)?;
        drop(line);
        // When it can be claimed, it is free.
        let line = claim(lab, timer::LINE)?;
        bell.poll()?;
        let before: u64 = taken(lab)?.iter().sum();
        pass(SOME);
        ensure(bell.poll()? == 0, "a line that was given up signals nothing")?;
        ensure(taken(lab)?.iter().sum::<u64>() == before, "a line that was given up interrupts nobody")?;
        drop(line);
    }
    Ok(())
}

/// A driver that is killed gives its line up.
pub(crate) fn killed(lab: &Lab) -> Outcome {
    let program = lab.start.program("devices").ok_or(Failure::Check("the program is in the bundle"))?;
    let grants = [lab.debug.0, lab.interrupts.0, lab.ports.0, lab.devices.0].map(Grant::whole);
    let child = Process::new(Image::Loaded(program)).arguments("role=driver\0").grants(&grants);
    for _ in 0..3 {
        let before: u64 = taken(lab)?.iter().sum();
        let driver = child.spawn(lab.start.process())?;
        let deadline = after(PATIENCE);
        // It has taken some interrupts.
        while taken(lab)?.iter().sum::<u64>() < before + 5 {
            ensure(!deadline.passed(), "the driver works")?;
            pass(1);
        }
        refused(lab.interrupts.claim(timer::LINE), Error::Occupied, "the driver has its line")?;
        driver.kill(7)?;
        driver.wait(after(PATIENCE))?;
        let bell = Bell::new()?;
        let line = open(lab, timer::LINE, bell, TIMER)?;
        take(bell, *line, TIMER, 5)?;
    }
    Ok(())
}

/// The driver that is killed: it goes on for ever.
pub(crate) fn be_killed(lab: &Lab) -> u64 {
    let work = || -> Outcome {
        let bell = Bell::new()?;
        let line = open(lab, timer::LINE, bell, TIMER)?;
        let _timer = Timer::start(lab)?;
        loop {
            bell.wait(Deadline::NEVER)?;
            line.acknowledge()?;
        }
    };
    match work() {
        Ok(()) => 0,
        Err(failure) => {
            rt::say!("devices: the driver: {failure}");
            1
        }
    }
}
