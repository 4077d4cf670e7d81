//! What the other figures rest on: the clock, core-local access, recording a sample.

use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{IrqOff, core_local};
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Unit};
use perf::clock::Clock;
use perf::hist::{DEFAULT_COUNTS, Hist};
use perf::runner::{MatrixHead, Trouble};

use super::place::{self, Cells};
use super::{Lab, Meter, Tsc};
use crate::arch::tsc::{consume, opaque};
use crate::{memory, skew};

/// An empty window, as it is: what every other figure has had subtracted (its minimum, that is).
pub(super) const CLOCK_OVERHEAD: Bench<Lab> = Bench {
    id: "clock.overhead",
    version: 1,
    doc: "two serialised reads of the time-stamp counter with nothing between them",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |_, visit| visit(Case::new(place::alone())),
    run: |_, _, meter| {
        while meter.more() {
            let start = Tsc.start();
            let stop = Tsc.stop();
            meter.window_with_overhead(start, stop);
        }
        Ok(())
    },
};

/// How far the counters of two cores are apart, at most half of the tightest round trip.
pub(super) const CLOCK_SKEW: Bench<Lab> = Bench {
    id: "clock.skew",
    version: 1,
    doc: "distance between two cores' time-stamp counters, from the tightest of 32 exchanges",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::OneWay,
    lanes: Lanes::TIMED,
    classes: &[Class::Matrix],
    batch: 1,
    cases: |_, visit| {
        let count = place::shown().count();
        if count > 1 {
            visit(Case::new(Placement::matrix(count as u32)));
        }
    },
    run: clock_skew,
};

/// Exchanges for each pair of cores.
const EXCHANGES: u64 = 32;

fn clock_skew(lab: &mut Lab, _: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let (labels, count) = place::labels();
    let mut offsets: Cells = [[None; _]; _];
    let mut bounds: Cells = [[None; _]; _];
    for (i, a) in place::shown().enumerate() {
        for (j, b) in place::shown().enumerate().filter(|&(j, _)| j != i) {
            let skew = skew::compare(&mut lab.crew, a, b, EXCHANGES);
            meter.value(skew.offset.saturating_mul(1000));
            offsets[i][j] = Some(skew.offset.saturating_mul(1000));
            bounds[i][j] = Some(skew.uncertainty.saturating_mul(1000));
        }
    }
    let head = |name| MatrixHead {
        name,
        unit: Unit::MilliTicks,
        row_axis: "core",
        col_axis: "other core",
        rows: &labels[..count],
        cols: &labels[..count],
    };
    meter.matrix(&head("offset"), &mut |i, j| offsets[i][j]);
    meter.matrix(&head("uncertainty"), &mut |i, j| bounds[i][j]);
    Ok(())
}

/// Operations between two turns of the loop of [`unrolled`].
pub(super) const UNROLLED: usize = 16;

/// Measures operations of a few instructions: the loop around them is unrolled, so that it hardly shows.
#[inline(always)]
pub(super) fn unrolled<S>(meter: &mut Meter<'_>, state: &mut S, mut op: impl FnMut(&mut S, usize)) {
    let turns = meter.batch() as usize / UNROLLED;
    let timed = |state: &mut S| {
        for _ in 0..turns {
            op(state, 0);
            op(state, 1);
            op(state, 2);
            op(state, 3);
            op(state, 4);
            op(state, 5);
            op(state, 6);
            op(state, 7);
            op(state, 8);
            op(state, 9);
            op(state, 10);
            op(state, 11);
            op(state, 12);
            op(state, 13);
            op(state, 14);
            op(state, 15);
        }
    };
    meter.windows(state, |_| {}, timed, |_| {});
}

core_local! {
    /// What `percpu.access` reads.
    static PROBE: AtomicU64 = AtomicU64::new(0);
}

/// Reading a core-local value.
pub(super) const PERCPU_ACCESS: Bench<Lab> = Bench {
    id: "percpu.access",
    version: 1,
    doc: "finding this core's copy of a core-local static and reading it",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 64,
    cases: |_, visit| visit(Case::new(place::alone())),
    run: |_, _, meter| {
        IrqOff::with(|irq| {
            // ORDER: Relaxed; nobody writes it.
            unrolled(meter, &mut (), |(), _| consume(PROBE.local(irq).load(Ordering::Relaxed)));
        });
        Ok(())
    },
};

/// Recording a sample in a histogram.
pub(super) const HIST_RECORD: Bench<Lab> = Bench {
    id: "hist.record",
    version: 1,
    doc: "counting one value in a histogram of three digits",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 64,
    cases: |_, visit| visit(Case::new(place::alone())),
    run: |_, _, meter| {
        let order = mm::Order::for_bytes(DEFAULT_COUNTS * size_of::<u32>());
        let mut block =
            order.and_then(memory::Block::new).ok_or(Trouble::Skipped("no memory for a second histogram"))?;
        let hist: Hist<'_> = Hist::new(block.u32s(DEFAULT_COUNTS));
        // One value for each doubling that a latency can fall into, read back one by one: one load of each figure is that.
        let mut values = [0; UNROLLED];
        for (i, value) in values.iter_mut().enumerate() {
            *value = 3_u64 << (2 * i);
        }
        unrolled(meter, &mut (hist, values), |(hist, values), i| hist.record(opaque(values[i])));
        Ok(())
    },
};
