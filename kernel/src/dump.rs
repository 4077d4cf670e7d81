//! What the kernel tells of itself, as text: `debug_dump`, and whatever else wants to look.
//!
//! Figures of different cores and nodes are read one after the other, while the system goes on.

use core::fmt::{Result, Write};

use abi::debug::{Counter, Latencies, Metrics};
use percpu::IrqOff;
use percpu::sync::atomic::Ordering;
use perf::clock::{Frequency, Ticks, Timebase};
use perf::tally::Summary;

use crate::dispatch::SHOWN;
use crate::process::Process;
use crate::{cores, early, heap, machine, memory, metrics, slabs, spread};

/// Nodes, heap and slabs.
///
/// # Errors
/// Those of `out`.
pub(crate) fn memory(out: &mut impl Write) -> Result {
    let (total, kernel) = (memory::total_bytes(), memory::kernel_bytes());
    writeln!(out, "memory: {} KiB, of which {} KiB are the kernel's own", total >> 10, kernel >> 10)?;
    for node in machine::topology().nodes() {
        let stats = memory::frames().node_stats(node);
        let kibibytes = |frames: usize| (frames as u64 * early::PAGE) >> 10;
        writeln!(
            out,
            "  {node}: {} KiB managed, {} KiB free ({} KiB held by cores), {} whole chunks",
            kibibytes(stats.frames),
            kibibytes(stats.free),
            kibibytes(stats.held),
            stats.whole_chunks
        )?;
    }
    writeln!(out, "  heap: {} arenas", heap::arenas())?;
    let slabs = slabs::SIZES.stats();
    writeln!(
        out,
        "  slabs: {} bytes in {} KiB, {} objects taken, {} given back, {} refused",
        slabs.current_allocated,
        (slabs.frames as u64 * early::PAGE) >> 10,
        slabs.allocation_count,
        slabs.free_count,
        slabs.refused
    )
}

/// What every core has counted, and its latencies.
///
/// # Errors
/// Those of `out`.
pub(crate) fn metrics(out: &mut impl Write) -> Result {
    let mut figures = Metrics::default();
    let base = Frequency::new(machine::clock().0).map(Timebase::new);
    for core in cores::all_online().iter() {
        if !metrics::read(core, &mut figures) {
            continue;
        }
        write!(out, "{core}:")?;
        for &counter in Counter::ALL.iter().filter(|&&counter| figures.counter(counter) > 0) {
            write!(out, " {} {}", counter.word(), figures.counter(counter))?;
        }
        writeln!(out)?;
        latencies(out, base, "system calls", &figures.syscalls)?;
        latencies(out, base, "switches", &figures.switches)?;
        latencies(out, base, "wakes", &figures.wakes)?;
    }
    Ok(())
}

/// A line in nanoseconds; nothing for an empty histogram.
fn latencies(out: &mut impl Write, base: Option<Timebase>, what: &str, latencies: &Latencies) -> Result {
    let summary = Summary::of(latencies);
    if summary.n == 0 {
        return Ok(());
    }
    write!(out, "  {what}: n {}", summary.n)?;
    let figures = [("p50", summary.p50), ("p99", summary.p99), ("p99.9", summary.p999), ("max", summary.max)];
    for (name, ticks) in figures {
        let nanos = ticks.zip(base).map(|(ticks, base)| base.nanos(Ticks::new(ticks)).count());
        if let Some(nanos) = nanos {
            write!(out, ", {name} {nanos} ns")?;
        }
    }
    writeln!(out, " (each at most a quarter too high)")
}

/// A process: how it stands, and its threads.
///
/// # Errors
/// Those of `out`.
pub(crate) fn process(irq: &mut IrqOff, process: &Process, out: &mut impl Write) -> Result {
    let name = process.name().utf8_chunks().next().map_or("", |chunk| chunk.valid()).trim_end_matches('\0');
    writeln!(out, "process {} {name:?} of {}: {:?}", process.id(), process.parent(), process.state())?;
    let mut written = Ok(());
    let count = irq.locks(|held| {
        process.each_thread(held, |thread| {
            let line = writeln!(out, "  thread {} on {:?}", thread.id(), thread.place.look().core);
            written = written.and(line);
        })
    });
    written?;
    writeln!(out, "  {count} threads")
}

/// The scheduler: the load of each core, and what it has promised.
///
/// # Errors
/// Those of `out`.
pub(crate) fn scheduler(irq: &IrqOff, out: &mut impl Write) -> Result {
    writeln!(out, "seen from {:?}", irq.core())?;
    for core in machine::topology().cores() {
        let Some(shown) = SHOWN.of(core) else { continue };
        // ORDER: Relaxed, both: figures.
        let load = shown.load.load(Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        let promised = shown.promised.load(Ordering::Relaxed);
        let reserved = if spread::RESERVED.contains(core) { ", reserved" } else { "" };
        writeln!(out, "{core:?}: {load} runnable, {promised} ppm promised to deadlines{reserved}")?;
    }
    Ok(())
}
