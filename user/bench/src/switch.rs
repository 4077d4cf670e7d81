//! Switching between threads.

use abi::boot::Lane;
use abi::task::{ProcessSpec, ThreadSpec};
use alloc::vec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Value};
use perf::clock::Nanos;
use perf::hist::DEFAULT_COUNTS;
use perf::runner::Trouble;
use rt::handle::Thread;
use rt::thread::{self, Builder};
use rt::time::{Deadline, Tsc};

use super::crowd::Crowd;
use super::partner::Partner;
use super::share::Counted;
use super::storm::Storm;
use super::{Lab, Meter, arch, failed, place};

/// Two threads of one core that yield to each other.
pub(super) const SWITCH: Bench<Lab> = Bench {
    id: "ctx.switch",
    version: 1,
    doc: "a yield that switches to another thread of the core, and there back to user mode; half of there and back",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::OneWay,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 32,
    cases: |lab, visit| {
        for space in ["same", "other"] {
            for fpu in ["off", "on"] {
                let case = Case::new(lab.alone());
                visit(case.with("space", Value::Word(space)).with("fpu", Value::Word(fpu)));
            }
        }
    },
    run: |lab, case, meter| {
        let fpu = case.params.get("fpu") == Some(Value::Word("on"));
        let here = place::peer(place::HERE);
        let builder = if fpu { here } else { here.flags(ThreadSpec::NO_FPU) };
        if case.params.get("space") == Some(Value::Word("same")) {
            return beside_a_thread(builder, fpu, meter);
        }
        let (work, flags) = if fpu { ("yield-fpu", 0) } else { ("yield", ProcessSpec::NO_FPU) };
        let _partner = Partner::start(lab, work, place::HERE, flags)?;
        measure(builder, fpu, meter)
    },
};

/// Measures yields while another thread of this process does the same.
fn beside_a_thread(builder: Builder, fpu: bool, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let crowd = Crowd::default();
    let rest = |_| {
        crowd.await_all(1);
        let result = measure(builder, fpu, meter);
        crowd.stop();
        result
    };
    builder.both(|| crowd.work(|| turn(fpu)), rest).map_err(failed)?.1
}

/// Lets the other one run.
#[inline(always)]
fn turn(fpu: bool) {
    if fpu {
        arch::use_vector_unit();
    }
    thread::yield_now();
}

/// Measures yields on a thread of its own, made by `builder`, while the main thread sleeps: that one has vector registers to be kept.
/// Each yield is two switches, so a window has half as many as operations.
fn measure(builder: Builder, fpu: bool, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let (plan, mut counts) = (meter.plan(), vec![0; DEFAULT_COUNTS]);
    let yields = plan.batch / 2;
    let work = |counts| {
        let mut meter = Meter::new(Tsc, plan, counts)?;
        let timed = |windows: &mut u64| {
            *windows += 1;
            for _ in 0..yields {
                turn(fpu);
            }
        };
        let mut windows = 0;
        meter.windows(&mut windows, |_| {}, timed, |_| {});
        Ok((meter.close().0, windows * u64::from(yields)))
    };
    let counts = counts.as_mut_slice();
    let ended = |thread: Thread| thread.join(Deadline::NEVER).and_then(|_| thread.info());
    let (result, info) = builder.both(move || work(counts), ended).map_err(failed)?;
    let (tally, yields) = result.map_err(Trouble::Refused)?;
    // A yield that finds nobody is fast, and no switch.
    if info.map_err(failed)?.switches < yields / 10 * 9 {
        return Err(Trouble::Failed("the threads did not take turns"));
    }
    meter.tally().absorb(&tally);
    Ok(())
}

/// The length of a window in which many cores yield.
const WINDOW: Nanos = Nanos::from_millis(2);

/// Yields on many cores at once: a core that disturbs no other shows a flat curve.
pub(super) const SCALE: Bench<Lab> = Bench {
    id: "sched.scale",
    version: 2,
    doc: "as ctx.switch in one space, on so many cores at once: the time of all cores together for each of all their yields",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::OneWay,
    // An emulator that runs one core at a time hands over so seldom that a storm on several takes minutes, and shows nothing.
    lanes: Lanes::NONE.with(Lane::Hw).with(Lane::Kvm).with(Lane::Icount),
    classes: &[Class::Scaling],
    batch: 1,
    cases: |lab, visit| {
        for cores in lab.scales() {
            visit(Case::new(Placement::scaling(cores as u32)).with("cores", Value::Num(cores as u64)));
        }
    },
    run: |lab, case, meter| {
        let cores = case.placement.cores as usize;
        let mut storm = Storm::new(WINDOW);
        for thread in 0..2 * cores {
            let builder = place::peer(thread / 2).flags(ThreadSpec::NO_FPU);
            let turn = || {
                turn(false);
                true
            };
            storm.add(builder, turn).map_err(failed)?;
        }
        let before = Counted::now(lab);
        // The instruction lane runs one core at a time; on the others, time passes on all cores at once.
        let at_once = if lab.lane == Lane::Icount { 1 } else { cores as u64 };
        storm.measure(lab, at_once, meter)?;
        drop(storm);
        Counted::now(lab).report_since(&before, meter);
        Ok(())
    },
};
