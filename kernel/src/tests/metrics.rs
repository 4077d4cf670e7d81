//! What cores count is what happened, from whichever core it is read.

use alloc::string::String;

use abi::debug::{Counter, Latencies, Metrics};
use percpu::Held;
use perf::tally;

use super::bed::Blame;
use super::{Bed, Result, ensure, failed};
use crate::{cores, dump, early, machine, memory, metrics};

/// System calls pretended by each core.
const CALLS: u64 = 1000;
/// A latency that is in the middle of its bucket.
const TICKS: u64 = 0x1_2345;

/// Every figure moves by what was counted, no other does, and one system call in 33 to 95 is timed.
///
/// Planted: `Here::set_countdown` adds another distance than it sets; `Figure::add` always adds one; `switched` records in `wakes`; `read`
/// forgets that the number of system calls runs ahead.
pub(super) fn counts(bed: &mut Bed) -> Result {
    let blame = Blame::new();
    bed.crew.run(&cores::all_online(), |held| blame.note(counts_here(held)));
    blame.verdict()?;
    let mut remote = Metrics::default();
    for core in cores::all_online().iter() {
        let known = metrics::read(core, &mut remote) && remote.core == u64::from(core.raw());
        let calls = remote.counter(Counter::Syscalls);
        ensure!(known && calls >= CALLS, "{core}: {calls} system calls seen from the boot core");
    }
    Ok(())
}

/// With interrupts off: nothing else counts on this core meanwhile.
fn counts_here(held: &mut Held<'_, 0>) -> Result {
    let core = held.core();
    let (mut before, mut after) = (Metrics::default(), Metrics::default());
    ensure!(metrics::read(core, &mut before), "{core} has no metrics");
    for _ in 0..CALLS {
        metrics::pretend_call(held);
    }
    metrics::count(held, Counter::Balances);
    metrics::add(held, Counter::IdleTicks, 1_000_000);
    metrics::switched(held, TICKS);
    (0..3).for_each(|_| metrics::woken(held, TICKS));
    ensure!(metrics::read(core, &mut after), "{core} has no metrics any more");
    for &counter in Counter::ALL {
        let expected = match counter {
            Counter::Syscalls => CALLS,
            Counter::Balances => 1,
            Counter::IdleTicks => 1_000_000,
            _ => 0,
        };
        let moved = after.counter(counter).wrapping_sub(before.counter(counter));
        ensure!(moved == expected, "{core}: {} moved by {moved}, not by {expected}", counter.word());
    }
    let (switches, others) = moved(&before.switches, &after.switches);
    ensure!((switches, others) == (1, 0), "{core}: {switches} switches timed as asked, {others} otherwise");
    let (wakes, others) = moved(&before.wakes, &after.wakes);
    ensure!((wakes, others) == (3, 0), "{core}: {wakes} wakes timed as asked, {others} otherwise");
    let (one, others) = moved(&before.syscalls, &after.syscalls);
    let timed = one + others;
    ensure!((CALLS / 95..=CALLS / 33 + 1).contains(&timed), "{core}: {timed} of {CALLS} calls were timed");
    Ok(())
}

/// By how much the bucket of [`TICKS`] has grown, and all others together.
fn moved(before: &Latencies, after: &Latencies) -> (u64, u64) {
    let mut grown = before.buckets.iter().zip(&after.buckets).map(|(before, after)| after - before);
    let sum: u64 = grown.clone().sum();
    let own = grown.nth(tally::bucket(TICKS)).unwrap_or(0);
    (own, sum - own)
}

/// The dumps name every node and every core, and the free memory they show is what the allocator says.
///
/// Planted: the dump counts free frames that cores hold twice; leaves out the first node.
pub(super) fn dumps(_: &mut Bed) -> Result {
    let (mut text, mut figures) = (String::new(), String::new());
    // The strings themselves may grow: the heap takes an arena for that at most, before it is looked at.
    text.reserve(16 << 10);
    figures.reserve(64 << 10);
    let written = dump::memory(&mut text).and(dump::metrics(&mut figures));
    ensure!(written.is_ok(), "a dump ended early");
    for node in machine::topology().nodes() {
        let free = (memory::frames().node_stats(node).free as u64 * early::PAGE) >> 10;
        let start = alloc::format!("  {node}: ");
        let line = text.lines().find(|line| line.starts_with(start.as_str()));
        let line = line.ok_or_else(|| failed(format_args!("no line for {node}")))?;
        ensure!(
            line.contains(alloc::format!(" {free} KiB free").as_str()),
            "{free} KiB are free, not {line}"
        );
    }
    for core in cores::all_online().iter() {
        let start = alloc::format!("{core}:");
        ensure!(figures.lines().any(|line| line.starts_with(start.as_str())), "no line for {core}");
    }
    Ok(())
}
