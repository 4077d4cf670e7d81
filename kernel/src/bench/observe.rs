//! What it costs to be looked at: figures that are always counted, and trace events switched off and on.

use abi::debug::{Counter, TraceEvents};
use percpu::IrqOff;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope, Value};
use perf::runner::Trouble;
use perf::trace::Event;

use super::basics::{UNROLLED, unrolled};
use super::place;
use super::{Lab, Meter};
use crate::arch::tsc::opaque;
use crate::{metrics, start, trace};

/// Kinds of figures, by the words of the parameter `of`.
const COUNTER: &str = "counter";
const LATENCY: &str = "latency";

/// Counting what is always counted.
pub(super) const METRICS_RECORD: Bench<Lab> = Bench {
    id: "metrics.record",
    version: 1,
    doc: "counting one event, or one known latency",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 64,
    cases: |_, visit| {
        for of in [COUNTER, LATENCY] {
            visit(Case::new(place::alone()).with("of", Value::Word(of)));
        }
    },
    run: metrics_record,
};

fn metrics_record(_: &mut Lab, case: &Case, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let mut values = [0; UNROLLED];
    for (i, value) in values.iter_mut().enumerate() {
        *value = 3_u64 << (2 * i);
    }
    IrqOff::with(|irq| match case.params.word("of") {
        Some(COUNTER) => {
            unrolled(meter, &mut (), |(), _| metrics::count(irq, Counter::Balances));
        }
        _ => unrolled(meter, &mut values, |values, i| metrics::woken(irq, opaque(values[i]))),
    });
    Ok(())
}

/// The words of the parameter `kind`.
const OFF: &str = "off";
const ON: &str = "on";

/// A place in the kernel where a trace event may be recorded.
pub(super) const TRACE_EVENT: Bench<Lab> = Bench {
    id: "trace.event",
    version: 1,
    doc: "passing a place that records a trace event, its kind switched off or on",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::Operation,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 64,
    cases: |_, visit| {
        for kind in [OFF, ON] {
            visit(Case::new(place::alone()).with("kind", Value::Word(kind)));
        }
    },
    run: |_, case, meter| {
        if start::params().trace != TraceEvents::NONE {
            return Err(Trouble::Skipped("the rings are in use"));
        }
        let on = case.params.word("kind") == Some(ON);
        let events = if on { TraceEvents::MARK } else { TraceEvents::NONE };
        trace::switch(events).ok_or(Trouble::Skipped("no memory for the rings"))?;
        IrqOff::with(|irq| unrolled(meter, &mut (), |(), i| trace::event(irq, Event::Mark, i as u64, 0, 0)));
        trace::discard();
        Ok(())
    },
};
