//! The clock is as fast as it says, and the cores agree on it.

use abi::boot::Lane;
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{CoreId, Held};

use super::bed::{Blame, Deadline, Gate};
use super::{Bed, Result, Verdict, ensure};
use crate::arch::tsc;
use crate::{acpi, cores, machine};

/// How far the clock may be from a second reference: 1 %.
const TOLERANCE_DIVISOR: u64 = 100;
/// Tries: the measurement is 20 ms long, and a host that stops the processor inside both reads of a pair spoils it.
const TRIES: u32 = 3;

/// The counter's frequency, measured against each reference that it does not come from, is what the kernel says within 1 %.
///
/// Planted: `Reference::hz` of the PM timer is 3 % off; `tsc::calibrate` halves the frequency.
pub(super) fn frequency(bed: &mut Bed) -> Result {
    if bed.lane == Lane::Icount {
        return Err(Verdict::Skipped("the clock counts instructions in this lane"));
    }
    let (stated, source) = machine::clock();
    let mut compared = 0;
    for reference in acpi::references().filter(|reference| reference.source() != source) {
        compared += 1;
        let mut measured = 0;
        let near = (0..TRIES).any(|_| {
            measured = reference.measure().unwrap_or(0);
            measured.abs_diff(stated) <= stated / TOLERANCE_DIVISOR
        });
        let against = reference.source().word();
        ensure!(near, "{stated} Hz by {}, but {measured} Hz by {against}", source.word());
    }
    if compared == 0 {
        return Err(Verdict::Skipped("there is no second clock to compare with"));
    }
    Ok(())
}

/// How far the counters of two cores may be apart, in nanoseconds. Far below what a message
/// between cores takes, so that times of different cores can be compared at all.
const SKEW_NS: u64 = 500;
const READS: u64 = 2_000;
const SKEW_MS: u64 = 150;

/// The newest time that any core has published, on a line of its own.
#[repr(align(64))]
struct Newest(AtomicU64);

/// A core's clock never goes back, and what one core has read is not in the future of another that knows of it.
///
/// Planted: `tsc::stop` goes back 100 µs now and then; is 10 µs ahead on every other core.
pub(super) fn monotonic(bed: &mut Bed) -> Result {
    let all = cores::all_online();
    let skew = machine::clock().0 / 1_000_000 * SKEW_NS / 1000;
    let newest = Newest(AtomicU64::new(0));
    let (gate, blame) = (Gate::new(), Blame::new());
    let deadline = Deadline::after_ms(SKEW_MS);
    bed.crew.run(&all, |held| {
        if !gate.pass(all.len()) {
            blame.note(Err(super::failed(format_args!("the cores did not meet"))));
        }
        blame.note(watch(held, &newest, skew, deadline));
    });
    blame.verdict()
}

fn watch(held: &Held<'_, 0>, newest: &Newest, skew: u64, deadline: Deadline) -> Result {
    let core: CoreId = held.core();
    let mut own = 0;
    for _ in 0..READS {
        // ORDER: Acquire pairs with Release below: the time was read before it was published.
        let published = newest.0.load(Ordering::Acquire);
        let now = tsc::stop();
        ensure!(now >= own, "{core}: the clock went from {own} to {now}");
        ensure!(now + skew >= published, "{core} reads {now}, after another core has read {published}");
        // ORDER: Release pairs with Acquire above.
        newest.0.fetch_max(now, Ordering::Release);
        own = now;
        if deadline.is_over() {
            break;
        }
        core::hint::spin_loop();
    }
    Ok(())
}
