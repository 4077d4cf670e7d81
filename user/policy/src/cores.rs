//! Nobody keeps a core from those who may run there, and nobody runs where it must not.

use alloc::vec::Vec;

use abi::cap::Rights;
use abi::debug::Counter;
use abi::error::Error;
use abi::task::{CoreMask, SchedSpec, ThreadSpec, ThreadState};
use rt::handle::{Endpoint, Typed};
use rt::ipc::Message;
use rt::start::Start;
use rt::thread::Builder;

use super::hogs::{Worker, here, hogs, ticks_during};
use super::{HERE, Lab, Outcome, ensure, now};

/// A thread that spins leaves others of its kind their turns.
pub(super) fn spinning(lab: &Lab) -> Outcome {
    let _first = hogs(1)?;
    lab.pass(lab.micros(300_000));
    let late = hogs(1)?;
    lab.pass(lab.micros(50_000));
    lab.in_time(
        late.iter().all(|hog| hog.shared().turns() > 0),
        "a thread runs within 50 ms beside one that spins",
    )
}

/// A real-time thread with a budget that spins leaves normal ones the rest of its period.
pub(super) fn spinning_real_time(lab: &Lab) -> Outcome {
    let (budget, period) = (lab.micros(3_000), lab.micros(10_000));
    let spec = SchedSpec { class: SchedSpec::REAL_TIME, priority: 100, budget, period, deadline: 0 };
    let both = [Worker::hog(here().schedule(spec))?, Worker::hog(here())?];
    let ticks = ticks_during(&both, || {
        lab.pass(lab.length);
        Ok(())
    })?;
    let [limited, normal] = ticks[..] else { return ensure(false, "two threads are asked") };
    lab.at_most("ticks of a real-time thread with a budget", limited, budget * (lab.length / period + 2))?;
    // Two thirds of the time, of seven tenths that are left.
    lab.at_most("ticks that a normal thread lacks", lab.length.saturating_sub(normal), lab.length / 3)?;
    lab.in_time(normal > 0, "a normal thread runs beside a real-time one with a budget")
}

/// A suspended thread does not run; a resumed one does.
pub(super) fn suspended(lab: &Lab) -> Outcome {
    let elsewhere = Builder::default().cores(CoreMask::one(lab.cores() - 1));
    for builder in [here(), elsewhere] {
        let hog = Worker::hog(builder)?;
        lab.pass(lab.micros(10_000));
        hog.thread().suspend()?;
        let before = hog.shared().turns();
        lab.pass(lab.micros(20_000));
        ensure(hog.shared().turns() == before, "a suspended thread does not run")?;
        ensure(hog.thread().info()?.state == ThreadState::Suspended as u32, "it is told to be suspended")?;
        hog.thread().resume()?;
        lab.pass(lab.micros(20_000));
        lab.in_time(hog.shared().turns() > before, "a resumed thread runs")?;
    }
    Ok(())
}

fn core_of(worker: &Worker) -> Outcome<usize> {
    Ok(worker.thread().info()?.core as usize)
}

/// A running thread that is bound to another core is there at once, and stays.
pub(super) fn affinity(lab: &Lab) -> Outcome {
    let hog = Worker::hog(here())?;
    let mut slowest = 0;
    for core in (0..lab.cores()).rev().chain(0..lab.cores()) {
        hog.thread().bind(&CoreMask::one(core))?;
        let began = now();
        while core_of(&hog)? != core && now() - began < lab.micros(100_000) {}
        slowest = slowest.max(now() - began);
        for _ in 0..lab.looks() {
            ensure(core_of(&hog)? == core, "a thread is where it is bound to")?;
            lab.pass(lab.micros(100));
        }
    }
    // The emulator that counts instructions runs one core at a time, and lets another go on after some milliseconds only.
    let allowed = if lab.cores() == 1 { 1_000 } else { 20_000 };
    lab.at_most("ticks until a thread is where it is bound to", slowest, lab.micros(allowed))
}

/// Only threads that are bound to it alone run on a reserved core.
pub(super) fn reserved(lab: &Lab) -> Outcome {
    if lab.cores() < 3 {
        rt::say!("policy: too few cores to reserve one");
        return Ok(());
    }
    let last = lab.cores() - 1;
    let core = Start::get().cores().nth(last).ok_or(Error::BadHandle)?;
    let anywhere = Builder::default().cores(CoreMask::ALL);
    let hogs: Outcome<Vec<Worker>> = (0..2 * lab.cores()).map(|_| Worker::hog(anywhere)).collect();
    let hogs = hogs?;
    lab.pass(lab.micros(20_000));
    core.reserve()?;
    ensure(core.reserve() == Err(Error::WrongState), "a core is reserved once")?;
    let bound = [Worker::hog(Builder::default().cores(CoreMask::one(last)))?];
    lab.pass(lab.micros(1_000));
    let ticks = ticks_during(&bound, || {
        for _ in 0..lab.looks() {
            lab.pass(lab.length / lab.looks());
            for hog in &hogs {
                ensure(core_of(hog)? != last, "no thread runs on a core that is reserved for others")?;
            }
        }
        Ok(())
    })?;
    let lacks = lab.length.saturating_sub(ticks.iter().sum());
    let judged = lab.at_most("ticks that a thread lacks on a core of its own", lacks, lab.length / 20);
    core.release()?;
    drop(bound);
    judged?;
    let (began, mut returned) = (now(), false);
    while !returned && now() - began < lab.micros(2_000_000) {
        lab.pass(lab.micros(10_000));
        for hog in &hogs {
            returned |= core_of(hog)? == last;
        }
    }
    lab.in_time(returned, "a core that was given back is used again")
}

/// A server that waits on a core when that is reserved does not run there for a caller that may.
///
/// Planted: a core that is reserved keeps its mark.
pub(super) fn reserved_server(lab: &Lab) -> Outcome {
    if lab.cores() < 3 {
        rt::say!("policy: too few cores to reserve one");
        return Ok(());
    }
    let last = lab.cores() - 1;
    let core = Start::get().cores().nth(last).ok_or(Error::BadHandle)?;
    let alone = Builder::default().cores(CoreMask::one(last)).flags(ThreadSpec::NO_FPU);
    let own = Endpoint::create()?;
    let to = own.derive(Rights::SEND, 1)?;
    let place = own.handle();
    let serve = move || {
        let own = Endpoint(place);
        let mut next = own.receive(0);
        while let Ok(message) = next {
            next = own.reply_receive(Message::new(0, message.words));
        }
    };
    let server = alone.spawn(serve)?;
    let caller = to.handle();
    let ask = move || (0..16).try_for_each(|_| Endpoint(caller).call(Message::EMPTY).map(drop));
    alone.spawn(ask)?.join()??;
    // It waits there, and could run elsewhere.
    server.thread().bind(&CoreMask::ALL)?;
    core.reserve()?;
    let asked = alone.spawn(ask).and_then(|asking| asking.join());
    let at = server.thread().info();
    core.release()?;
    drop(own);
    server.join()?;
    asked??;
    ensure(at?.core as usize != last, "no server runs on a core that is reserved for others")
}

/// What all cores have counted of something.
fn counted(lab: &Lab, counter: Counter) -> Outcome<u64> {
    let debug = lab.start.debug().ok_or(Error::BadHandle)?;
    let mut sum = 0;
    for core in 0..lab.cores() {
        sum += debug.metrics(core)?.counter(counter);
    }
    Ok(sum)
}

/// Threads that were started on one core spread out until every core has work.
pub(super) fn spread(lab: &Lab) -> Outcome {
    const HOGS: usize = 8;
    if lab.cores() < 2 {
        rt::say!("policy: too few cores to spread over");
        return Ok(());
    }
    let before = counted(lab, Counter::Migrations)?;
    let mut hogs = hogs(HOGS)?;
    lab.pass(lab.micros(20_000));
    for hog in &hogs {
        ensure(core_of(hog)? == HERE, "a thread starts where it is bound to")?;
    }
    for hog in &hogs {
        hog.thread().bind(&CoreMask::ALL)?;
    }
    lab.pass(lab.micros(500_000));
    let ticks = ticks_during(&hogs, || {
        lab.pass(lab.length);
        Ok(())
    })?;
    let mut migrations = 0;
    for hog in &hogs {
        migrations += hog.thread().info()?.migrations;
    }
    let moved = counted(lab, Counter::Migrations)? - before;
    rt::say!("policy: {migrations} migrations, counted {moved}");
    ensure(migrations > 0 && moved >= migrations, "threads move, and that is counted")?;
    let whole = lab.length * HOGS.min(lab.cores()) as u64;
    let lacking = whole.saturating_sub(ticks.iter().sum());
    lab.at_most("ticks that cores were not used", lacking, whole / 10)?;
    steals(lab, &mut hogs)
}

/// A core whose threads have all ended takes one from another.
fn steals(lab: &Lab, hogs: &mut Vec<Worker>) -> Outcome {
    let last = lab.cores() - 1;
    let before = counted(lab, Counter::StealsTaken)?;
    let mut at = 0;
    while let Some(hog) = hogs.get(at) {
        if core_of(hog)? == last {
            drop(hogs.swap_remove(at));
        } else {
            at += 1;
        }
    }
    lab.pass(lab.micros(100_000));
    let stolen = counted(lab, Counter::StealsTaken)? - before;
    rt::say!("policy: {stolen} steals after the end of a core's threads");
    lab.in_time(stolen > 0, "a core that has nothing to do takes threads from others")
}
