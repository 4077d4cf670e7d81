//! The timer of a core: one deadline, in ticks of the time-stamp counter, at which it interrupts once.
//!
//! With TSC-deadline mode the deadline is written as it is (SDM volume 3, §12.5.4.1). Otherwise it becomes a count of the interrupt
//! controller's own clock, whose ratio to the counter [`calibrate`] has measured; a count has 32 bits, so a far deadline is reached in
//! legs: the interrupt at the end of each starts the next.
//!
//! * D1: only a core itself programs its timer, and `ARMED` is the deadline that is programmed, [`NEVER`] for none.
//! * D2: no deadline is programmed before the ratio is known: `calibrate` runs on the boot core before anything is scheduled.

use core::arch::asm;
use core::cell::Cell;

use abi::boot::Lane;
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{IrqOff, core_local};
use x86_64::registers::model_specific::Msr;

use super::apic::{self, TimerUse};
use super::tsc;
use crate::machine;

/// The vector of the timer: below the inter-processor interrupt, which a shootdown waits for, and above all devices (SDM volume 3,
/// §12.8.3.1: priority is the vector's high digit).
pub(crate) const VECTOR: u8 = 0xef;

/// No deadline.
pub(crate) const NEVER: u64 = u64::MAX;

/// IA32_TSC_DEADLINE (SDM volume 4, table 2-2); 0 disarms.
const TSC_DEADLINE: u32 = 0x6e0;

/// Fraction bits of [`SCALE`].
const SCALE_BITS: u32 = 32;
/// Counts of the timer for a tick of the counter, with [`SCALE_BITS`] fraction bits; 0 in TSC-deadline mode. Written once by the boot core.
static SCALE: AtomicU64 = AtomicU64::new(0);

/// Length of the measurement: a hundredth of a second.
const INTERVAL_DIVISOR: u64 = 100;
/// Tries for a pair; the tightest is kept.
const PAIR_TRIES: u32 = 16;

core_local! {
    /// What is programmed (D1).
    static ARMED: Cell<u64> = Cell::new(NEVER);
}

/// What an interrupt of the timer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a deadline that has passed is somebody's to act on"]
pub(crate) enum Rang {
    /// The deadline has passed. Nothing is programmed any more.
    Due,
    /// Not yet, or there is none: the end of a leg, or an interrupt that was on its way when the deadline changed.
    Early,
}

/// Finds the ratio of the timer's clock to the counter, on the boot core, with its timer not in use yet; `false` if the timer stands still.
/// Nothing to do in TSC-deadline mode.
pub(crate) fn calibrate(irq: &IrqOff, lane: Lane) -> bool {
    if machine::features().tsc_deadline {
        return true;
    }
    // QEMU counts virtual nanoseconds in both then (`-icount shift=0`), and reading the count through its MSR ends it with "Bad icount
    // read" (seen in 10.0): RDMSR is not among the instructions that may look at the virtual clock.
    let scale = if lane == Lane::Icount { 1 << SCALE_BITS } else { measure() };
    enter(irq);
    // ORDER: Relaxed; the other cores learn by a message that there is something to schedule (D2).
    SCALE.store(scale, Ordering::Relaxed);
    scale != 0
}

/// Counts of the timer for a tick of the counter, with [`SCALE_BITS`] fraction bits.
fn measure() -> u64 {
    let interval = machine::clock().0 / INTERVAL_DIVISOR;
    apic::set_timer(TimerUse::Measured);
    apic::count_down(u32::MAX);
    let (count_start, ticks_start) = pair();
    while tsc::now() - ticks_start < interval {
        core::hint::spin_loop();
    }
    let (count_end, ticks_end) = pair();
    (u64::from(count_start - count_end) << SCALE_BITS) / (ticks_end - ticks_start)
}

/// The timer and the counter at the same moment: the tightest of several tries.
fn pair() -> (u32, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..PAIR_TRIES {
        let before = tsc::start();
        let count = apic::count();
        let after = tsc::stop();
        if after - before < best.0 {
            best = (after - before, count, before + (after - before) / 2);
        }
    }
    (best.1, best.2)
}

/// Gives the timer of the core this runs on its vector; nothing is programmed. After `apic::enable`.
pub(crate) fn enter(irq: &IrqOff) {
    if machine::features().tsc_deadline {
        apic::set_timer(TimerUse::Deadline(VECTOR));
        // In xAPIC mode the store to the LVT has to be there before a deadline is written (SDM volume 3, §12.5.4.1).
        // SAFETY: MFENCE is part of SSE2, which x86-64 includes; it changes no state that the compiler knows of.
        unsafe { asm!("mfence", options(nostack, preserves_flags)) };
    } else {
        apic::set_timer(TimerUse::Counting(VECTOR));
    }
    ARMED.owned(irq).set(NEVER);
}

/// Programs the deadline, whatever was programmed before. One that has passed interrupts at once.
#[inline]
pub(crate) fn arm(irq: &IrqOff, deadline: u64) {
    ARMED.owned(irq).set(deadline);
    program(deadline);
}

/// Programs the deadline, unless an earlier or the same one is: that interrupt comes first, and whoever answers it looks what is next.
#[inline(always)]
pub(crate) fn arm_before(irq: &IrqOff, deadline: u64) {
    if deadline < ARMED.owned(irq).get() {
        arm(irq, deadline);
    }
}

/// Forgets the deadline. An interrupt that is on its way already still comes, as [`Rang::Early`].
#[inline]
pub(crate) fn disarm(irq: &IrqOff) {
    if ARMED.owned(irq).replace(NEVER) == NEVER {
        return;
    }
    // ORDER: Relaxed; constant (D2).
    match SCALE.load(Ordering::Relaxed) {
        0 => write_deadline(0),
        _ => apic::count_down(0),
    }
}

/// The deadline that is programmed on the core this runs on; [`NEVER`] for none.
#[inline]
pub(crate) fn armed(irq: &IrqOff) -> u64 {
    ARMED.owned(irq).get()
}

/// Answers the timer's interrupt, ends it, and starts the next leg where one is left.
#[inline]
pub(crate) fn on_interrupt(irq: &IrqOff) -> Rang {
    apic::end_of_interrupt();
    let armed = ARMED.owned(irq);
    let deadline = armed.get();
    if tsc::now() >= deadline {
        armed.set(NEVER);
        return Rang::Due;
    }
    if deadline != NEVER {
        program(deadline);
    }
    Rang::Early
}

/// Whether the timer's interrupt waits to be taken by the core this runs on.
pub(crate) fn is_requested() -> bool {
    apic::has_request(VECTOR)
}

#[inline(always)]
fn program(deadline: u64) {
    // ORDER: Relaxed; constant (D2).
    match SCALE.load(Ordering::Relaxed) {
        // 0 would disarm. A deadline in the past interrupts at once.
        0 => write_deadline(deadline.max(1)),
        scale => apic::count_down(counts(deadline.saturating_sub(tsc::now()), scale)),
    }
}

/// The count that takes so many ticks, rounded up, for an early interrupt costs a second one; at most a leg.
#[inline(always)]
const fn counts(ticks: u64, scale: u64) -> u32 {
    let counts = ((ticks as u128 * scale as u128) >> SCALE_BITS) + 1;
    if counts > u32::MAX as u128 { u32::MAX } else { counts as u32 }
}

const _: () = assert!(counts(0, 1 << SCALE_BITS) == 1 && counts(999, 1 << SCALE_BITS) == 1000);
const _: () = assert!(counts(999, 1 << (SCALE_BITS - 1)) == 500);
const _: () = assert!(counts(NEVER, NEVER) == u32::MAX && counts(1 << 32, 1 << SCALE_BITS) == u32::MAX);

#[inline(always)]
fn write_deadline(deadline: u64) {
    let mut register = Msr::new(TSC_DEADLINE);
    // SAFETY: CPUID has TSC-deadline mode, or `SCALE` would not be 0 (D2); any value is defined.
    unsafe { register.write(deadline) };
}
