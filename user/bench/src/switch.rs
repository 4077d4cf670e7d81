//! Switching between threads.

use abi::task::{CoreMask, ProcessSpec, ThreadSpec};
use alloc::vec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Value};
use perf::hist::DEFAULT_COUNTS;
use perf::runner::Trouble;
use rt::sync::atomic::{AtomicBool, Ordering};
use rt::thread::{self, Builder};
use rt::time::Tsc;

use super::partner::Partner;
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
        let here = Builder::default().cores(CoreMask::one(place::HERE));
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
    let stop = AtomicBool::new(false);
    let partner = || yield_until(&stop, fpu);
    let beside = builder.both(partner, |_| {
        let result = measure(builder, fpu, meter);
        // ORDER: Relaxed; only asks to end.
        stop.store(true, Ordering::Relaxed);
        result
    });
    beside.map_err(failed)?.1
}

fn yield_until(stop: &AtomicBool, fpu: bool) {
    // ORDER: Relaxed; see who sets it.
    while !stop.load(Ordering::Relaxed) {
        if fpu {
            arch::use_vector_unit();
        }
        thread::yield_now();
    }
}

/// Measures yields on a thread of its own, made by `builder`, while the main thread sleeps: that one has vector registers to be kept.
/// Each yield is two switches, so a window has half as many as operations.
fn measure(builder: Builder, fpu: bool, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let (plan, mut counts) = (meter.plan(), vec![0; DEFAULT_COUNTS]);
    let work = |counts| {
        let mut meter = Meter::new(Tsc, plan, counts)?;
        let yields = plan.batch / 2;
        let timed = |&mut (): &mut ()| {
            for _ in 0..yields {
                if fpu {
                    arch::use_vector_unit();
                }
                thread::yield_now();
            }
        };
        meter.windows(&mut (), |()| {}, timed, |()| {});
        Ok(meter.close().0)
    };
    let counts = counts.as_mut_slice();
    let (tally, ()) = builder.both(move || work(counts), |_| ()).map_err(failed)?;
    meter.tally().absorb(&tally.map_err(Trouble::Refused)?);
    Ok(())
}

/// Yields on many cores at once: a core that disturbs no other shows a flat curve.
pub(super) const SCALE: Bench<Lab> = Bench {
    id: "sched.scale",
    version: 1,
    doc: "as ctx.switch in one space, measured on one core while so many cores do the same",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::OneWay,
    lanes: Lanes::TIMED,
    classes: &[Class::Scaling],
    batch: 32,
    cases: |lab, visit| {
        for cores in lab.scales() {
            visit(Case::new(Placement::scaling(cores as u32)).with("cores", Value::Num(cores as u64)));
        }
    },
    run: |_, case, meter| {
        let stop = AtomicBool::new(false);
        storm(case.placement.cores as usize, &stop, meter)
    },
};

/// Starts two yielding threads on the last of so many cores and goes on with the others; on the first one it measures.
fn storm(cores: usize, stop: &AtomicBool, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let core = cores.saturating_sub(1);
    let on = |core| Builder::default().cores(CoreMask::one(core)).flags(ThreadSpec::NO_FPU);
    if core == 0 {
        return beside_a_thread(on(place::HERE), false, meter);
    }
    let pair = || on(core).both(|| yield_until(stop, false), |_| yield_until(stop, false));
    let rest = |_| {
        let result = storm(core, stop, meter);
        // ORDER: Relaxed; only asks to end.
        stop.store(true, Ordering::Relaxed);
        result
    };
    let (others, result) = on(core).both(pair, rest).map_err(failed)?;
    others.map_err(failed)?;
    result
}
