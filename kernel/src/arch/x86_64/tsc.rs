//! The time-stamp counter: serialised reads, and its frequency.
//!
//! The frequency comes from the CPU where it says so (CPUID 0x15), from the hypervisor where that does (leaf 0x4000_0010), from CPUID 0x16,
//! and is measured otherwise: paired reads of the counter and of the HPET, or of the ACPI PM timer, at both ends of an interval. The
//! pairs make the result independent of how long the processor was away in between, which waiting for timer ticks is not.

use core::arch::asm;
use core::arch::x86_64::{__rdtscp, _mm_lfence, _rdtsc};

use x86_64::VirtAddr;

use super::{cpu, io};
use crate::machine;

/// How the frequency was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// CPUID leaf 0x15: crystal frequency and ratio.
    CrystalRatio,
    /// CPUID leaf 0x16: nominal frequency, to the megahertz.
    Nominal,
    /// The hypervisor's timing leaf, in kilohertz.
    Hypervisor,
    /// Measured against the HPET.
    Hpet,
    /// Measured against the ACPI PM timer.
    PmTimer,
}

impl Source {
    /// The word used in reports.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Source::CrystalRatio => "cpuid-0x15",
            Source::Nominal => "cpuid-0x16",
            Source::Hypervisor => "hypervisor-leaf",
            Source::Hpet => "hpet",
            Source::PmTimer => "pm-timer",
        }
    }
}

/// Reads the counter, in no order with the instructions around it.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: RDTSC is available in ring 0 of every x86-64 CPU.
    unsafe { _rdtsc() }
}

/// Reads the counter at the start of a timed window: after everything before it has completed, before anything in the window starts
/// (SDM volume 2, RDTSC: LFENCE on both sides).
#[inline(always)]
pub(crate) fn start() -> u64 {
    // SAFETY: LFENCE is part of SSE2, which x86-64 includes.
    unsafe { _mm_lfence() };
    let ticks = now();
    // SAFETY: as above.
    unsafe { _mm_lfence() };
    ticks
}

/// Reads the counter at the end of a timed window: after everything in the window has completed.
#[inline(always)]
pub(crate) fn stop() -> u64 {
    if machine::features().rdtscp {
        let mut aux = 0;
        // SAFETY: CPUID has RDTSCP. It waits for all earlier instructions (SDM volume 2).
        let ticks = unsafe { __rdtscp(&raw mut aux) };
        // SAFETY: LFENCE is part of SSE2. Nothing after the window may start before the read.
        unsafe { _mm_lfence() };
        ticks
    } else {
        start()
    }
}

/// Uses a value without an instruction: what computes it cannot be left out.
#[inline(always)]
pub(crate) fn consume(value: u64) {
    // SAFETY: the template is empty.
    unsafe { asm!("/* {} */", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Gives a value back unchanged, without an instruction: nothing that follows from it can be computed ahead.
#[inline(always)]
pub(crate) fn opaque(value: u64) -> u64 {
    let mut value = value;
    // SAFETY: the template is empty.
    unsafe { asm!("/* {} */", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// A free-running counter of known frequency.
#[derive(Clone, Copy)]
pub(crate) enum Reference {
    /// HPET main counter at this address, with its tick in femtoseconds (IA-PC HPET 1.0a, §2.3).
    Hpet { counter: VirtAddr, femtoseconds: u64 },
    /// ACPI PM timer at this port, 3.579545 MHz.
    PmTimer { port: u16, wide: bool },
}

/// Frequency of the ACPI PM timer in hertz (ACPI 6.5 §4.8.3.3).
const PM_TIMER_HZ: u64 = 3_579_545;
const FEMTOSECONDS_PER_SECOND: u64 = 1_000_000_000_000_000;
/// Length of the measurement in reference time. With a pair read to within a microsecond the error is below 100 ppm.
const INTERVAL_DIVISOR: u64 = 50;
/// Ticks after which a reference that has not moved far enough is given up: at least 10 s on any counter below 10 GHz.
const PATIENCE: u64 = 100_000_000_000;
/// Tries for a pair; the tightest is kept.
const PAIR_TRIES: u32 = 16;

impl Reference {
    fn hz(&self) -> u64 {
        match self {
            Reference::Hpet { femtoseconds, .. } => FEMTOSECONDS_PER_SECOND / femtoseconds,
            Reference::PmTimer { .. } => PM_TIMER_HZ,
        }
    }

    /// What a frequency measured against it is called.
    pub(crate) fn source(&self) -> Source {
        match self {
            Reference::Hpet { .. } => Source::Hpet,
            Reference::PmTimer { .. } => Source::PmTimer,
        }
    }

    fn read(&self) -> u64 {
        match self {
            Reference::Hpet { counter, .. } => {
                let register = counter.as_ptr::<u32>();
                // SAFETY: G5: the page of the HPET is mapped uncached for the life of the kernel. The low half alone is read: 32-bit
                // accesses are always whole, and it wraps no sooner than the 43 s that a 10 ns tick gives.
                u64::from(unsafe { register.read_volatile() })
            }
            Reference::PmTimer { port, .. } => u64::from(io::read_pm_timer(*port)),
        }
    }

    /// Ticks from `from` to `to`, across one wrap.
    fn elapsed(&self, from: u64, to: u64) -> u64 {
        let mask = match self {
            Reference::PmTimer { wide: false, .. } => 0x00ff_ffff,
            Reference::PmTimer { wide: true, .. } | Reference::Hpet { .. } => 0xffff_ffff,
        };
        to.wrapping_sub(from) & mask
    }

    /// The reference and the counter at the same moment: the tightest of several tries.
    fn pair(&self) -> (u64, u64) {
        let mut best = (u64::MAX, 0, 0);
        for _ in 0..PAIR_TRIES {
            let before = start();
            let reference = self.read();
            let after = stop();
            if after - before < best.0 {
                best = (after - before, reference, before + (after - before) / 2);
            }
        }
        (best.1, best.2)
    }

    /// Measures the time-stamp counter's frequency in hertz; `None` if the reference stands still.
    pub(crate) fn measure(&self) -> Option<u64> {
        let interval = self.hz() / INTERVAL_DIVISOR;
        let (reference_start, ticks_start) = self.pair();
        while self.elapsed(reference_start, self.read()) < interval {
            if now().wrapping_sub(ticks_start) > PATIENCE {
                return None;
            }
            core::hint::spin_loop();
        }
        let (reference_end, ticks_end) = self.pair();
        let elapsed = u128::from(self.elapsed(reference_start, reference_end));
        let ticks = u128::from(ticks_end - ticks_start);
        (ticks * u128::from(self.hz())).checked_div(elapsed).map(|hertz| hertz as u64)
    }
}

/// The counter's frequency in hertz and how it was found: stated, or measured against the first reference that runs; `None` if neither.
pub(crate) fn calibrate(references: impl IntoIterator<Item = &'static Reference>) -> Option<(u64, Source)> {
    stated().or_else(|| references.into_iter().find_map(|r| Some((r.measure()?, r.source()))))
}

fn stated() -> Option<(u64, Source)> {
    let id = cpu::cpuid();
    // SDM volume 3, §20.7.3: leaf 0x15 gives the exact frequency if it names the crystal.
    let crystal = id.get_tsc_info().and_then(|info| info.tsc_frequency()).filter(|&hz| hz != 0);
    if let Some(hz) = crystal {
        return Some((hz, Source::CrystalRatio));
    }
    let hypervisor = id.get_hypervisor_info().and_then(|info| info.tsc_frequency()).filter(|&khz| khz != 0);
    if let Some(khz) = hypervisor {
        return Some((u64::from(khz) * 1000, Source::Hypervisor));
    }
    // Leaf 0x16 is the base frequency, which the counter runs at where it is invariant.
    let nominal =
        id.get_processor_frequency_info().map(|info| info.processor_base_frequency()).filter(|&mhz| mhz != 0);
    let invariant = machine::features().invariant_tsc;
    nominal.filter(|_| invariant).map(|mhz| (u64::from(mhz) * 1_000_000, Source::Nominal))
}
