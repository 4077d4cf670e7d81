//! How a run is to be done: from the command line to what a meter follows.

use abi::boot::{self, Lane, Profile};

use super::Steadiness;
use crate::clock::{Frequency, Nanos, Rate, Ticks, Timebase};

/// What applies to all cases of a run.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// The lane the run is in.
    pub lane: Lane,
    /// Words joined by `,`, one of which a case key must contain; empty selects all.
    pub filter: &'a str,
    /// Number of selected cases to leave out at the start.
    pub after: u32,
    /// Windows to sample in each case.
    pub samples: u32,
    /// Windows to run before.
    pub warm_up: u32,
    /// The time a case may take; `None` for as long as its windows need.
    pub budget: Option<Nanos>,
    /// The clock's frequency.
    pub timebase: Timebase,
}

impl<'a> Settings<'a> {
    /// The settings of a kernel command line, on a clock with this time base.
    ///
    /// The profiles' sample counts are those that the 99th, 99.9th and 99.99th percentile need, and half as many again.
    #[must_use]
    pub fn new(params: &boot::Params<'a>, timebase: Timebase) -> Self {
        let (samples, millis) = match params.profile {
            Profile::Quick => (1_500, 250),
            Profile::Ci => (15_000, 2_000),
            Profile::Full => (150_000, 30_000),
        };
        let samples = params.samples.unwrap_or(samples);
        Self {
            lane: params.lane,
            filter: params.filter,
            after: params.after,
            samples,
            warm_up: (samples / 10).clamp(8, 1_000),
            // A number of samples that was asked for is worth waiting for.
            budget: params.samples.is_none().then_some(Nanos::from_millis(millis)),
            timebase,
        }
    }
}

/// How ticks of a window become a recorded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Thousandths of a tick per operation.
    Thousandths,
    /// Another unit of time per operation.
    Time(Rate),
}

impl Scale {
    /// The scale of time in a lane: picoseconds in the native one, thousandths of ticks in the others.
    #[must_use]
    pub const fn new(lane: Lane, timebase: Timebase) -> Self {
        match lane {
            Lane::Native => Self::Time(Rate::new(timebase.frequency(), Frequency::TERAHERTZ)),
            Lane::Hw | Lane::Kvm | Lane::Tcg | Lane::Icount => Self::Thousandths,
        }
    }

    /// The value of one operation when `operations` of them took so long.
    #[must_use]
    pub const fn value(self, ticks: Ticks, operations: u32) -> u64 {
        let total = match self {
            Self::Thousandths => ticks.count().saturating_mul(1_000),
            Self::Time(rate) => rate.convert(ticks.count()),
        };
        total / if operations == 0 { 1 } else { operations as u64 }
    }
}

/// What a meter follows in one case. Plain data: it can be handed to other cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Windows to run before the first sample.
    pub warm_up: u32,
    /// Windows to sample.
    pub samples: u32,
    /// Operations per window; at least 1.
    pub batch: u32,
    /// Ticks after which no further window begins.
    pub budget: Option<Ticks>,
    /// How ticks become values.
    pub scale: Scale,
    /// How steady the clock must be.
    pub steadiness: Steadiness,
}

impl Plan {
    /// The plan for a case with so many operations per window.
    #[must_use]
    pub fn new(settings: &Settings<'_>, batch: u32) -> Self {
        Self {
            warm_up: settings.warm_up,
            samples: settings.samples,
            batch: batch.max(1),
            budget: settings.budget.map(|nanos| settings.timebase.ticks(nanos)),
            scale: Scale::new(settings.lane, settings.timebase),
            steadiness: Steadiness::of(settings.lane),
        }
    }
}
