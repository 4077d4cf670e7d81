//! Trace rings keep what happened last, in order, each core its own, and only while they are switched on.

use abi::debug::TraceEvents;
use percpu::{CoreId, IrqOff};
use perf::trace::{Event, TraceRecord};

use super::bed::Blame;
use super::{Bed, Result, Verdict, ensure, failed};
use crate::{cores, start, trace};

/// Records that are overwritten before they are read.
const OVER: u64 = 100;

/// Every core fills its ring over the brim; what is read are the newest, in order, and nothing of kinds that are off.
///
/// Planted: `record` names core 0; `switch_here` leaves on what was on; `enabled` is true as soon as any kind is on; `Ring::take` counts
/// nothing lost.
pub(super) fn ring(bed: &mut Bed) -> Result {
    if start::params().trace != TraceEvents::NONE {
        return Err(Verdict::Skipped("the rings are in use: `trace=` is on the command line"));
    }
    let result = ring_of_all(bed);
    trace::discard();
    result
}

fn ring_of_all(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    let before = trace::switch(TraceEvents::MARK);
    ensure!(before == Some(TraceEvents::NONE), "switching on gave {before:?}");
    let blame = Blame::new();
    bed.crew.run(&all, |held| {
        let marks = trace::RECORDS as u64 + OVER;
        for value in 0..marks {
            trace::event(held, Event::Mark, value, !value, u32::from(held.core().raw()));
            trace::event(held, Event::Ipi, 0, 0, 0);
        }
        let agree = trace::enabled(held, TraceEvents::MARK) && !trace::enabled(held, TraceEvents::INTERRUPT);
        if !agree {
            blame.note(Err(failed(format_args!("{}: other kinds are on than asked for", held.core()))));
        }
    });
    blame.verdict()?;
    let before = trace::switch(TraceEvents::NONE);
    ensure!(before == Some(TraceEvents::MARK), "switching off gave {before:?}");
    IrqOff::with(|irq| trace::event(irq, Event::Mark, u64::MAX, 0, 0));
    all.iter().try_for_each(records_of)
}

/// Records read at once: no divisor of a ring's length.
const AT_ONCE: usize = 100;

fn records_of(core: CoreId) -> Result {
    let (mut next, mut ticks) = (OVER, 0);
    loop {
        let mut records = [TraceRecord::default(); AT_ONCE];
        let taken = trace::read(core, &mut records);
        let lost = if next == OVER { OVER } else { 0 };
        ensure!(taken.lost == lost, "{core}: {} lost before record {next}", taken.lost);
        for record in records.iter().take(taken.count) {
            let TraceRecord { a, b, c, event, .. } = *record;
            ensure!(event == Event::Mark as u16, "{core}: event {event} in place of mark {next}");
            ensure!((a, b) == (next, !next), "{core}: mark {a} in place of {next}");
            let owner = (record.core, c) == (core.raw(), u32::from(core.raw()));
            ensure!(owner, "a record of core {} in the ring of {core}", record.core);
            ensure!(record.ticks >= ticks, "{core}: mark {next} comes before the one before it");
            (next, ticks) = (next + 1, record.ticks);
        }
        if taken.count < AT_ONCE {
            break;
        }
    }
    ensure!(next == trace::RECORDS as u64 + OVER, "{core}: marks end with {next}");
    Ok(())
}
