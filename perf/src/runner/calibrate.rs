//! What an empty window costs, and whether the clock can be trusted.

use abi::boot::Lane;

use crate::clock::{Clock, Ticks};
use crate::record::Overhead;
use crate::stats;

/// Empty windows that are measured, after as many that only warm the code up. One more than a multiple of four, so that
/// median and quartiles are single values.
const WINDOWS: usize = 257;

/// Why a clock is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A later reading was lower than an earlier one.
    Backwards,
    /// Hundreds of readings were all the same.
    Stopped,
    /// Empty windows differ too much in length.
    Unsteady,
}

impl Refusal {
    /// The reason as a short phrase for people.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Backwards => "the clock went backwards",
            Self::Stopped => "the clock stands still",
            Self::Unsteady => "empty windows differ too much in length",
        }
    }
}

/// How much empty windows may differ: the distance between their quartiles is at most `slack` plus a share of the median.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steadiness {
    /// Ticks that are always allowed.
    pub slack: Ticks,
    /// Thousandths of the median that are allowed on top.
    pub permille: u32,
}

impl Steadiness {
    /// What a lane must keep to. Instructions are counted exactly; time may vary by half.
    #[must_use]
    pub const fn of(lane: Lane) -> Self {
        match lane {
            Lane::Icount => Self { slack: Ticks::ZERO, permille: 0 },
            Lane::Hw | Lane::Kvm | Lane::Tcg | Lane::Native => Self { slack: Ticks::new(64), permille: 500 },
        }
    }

    const fn allows(self, median: Ticks, spread: Ticks) -> bool {
        let share = median.count() as u128 * self.permille as u128 / 1_000;
        spread.count() as u128 <= self.slack.count() as u128 + share
    }
}

/// The cost of an empty window on the core that measured it.
///
/// The *minimum* is what is subtracted from every window: anything more would take from some windows time that the
/// operations spent, and make the fastest ones look free. Median and spread are reported beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calibration {
    /// The shortest empty window.
    pub min: Ticks,
    /// The median.
    pub median: Ticks,
    /// The distance between the first and the third quartile.
    pub spread: Ticks,
}

impl Calibration {
    /// Measures empty windows on the calling core.
    ///
    /// # Errors
    /// [`Refusal`] if the clock goes backwards, stands still, or is less steady than asked for.
    pub fn measure<K: Clock>(clock: K, steadiness: Steadiness) -> Result<Self, Refusal> {
        let mut lengths = [0; WINDOWS];
        empty_windows(clock, &mut lengths)?;
        let elapsed = empty_windows(clock, &mut lengths)?;
        if elapsed == Ticks::ZERO {
            return Err(Refusal::Stopped);
        }
        let mut rank = |index| Ticks::new(stats::rank(&mut lengths, index).unwrap_or_default());
        let (min, median) = (rank(0), rank(WINDOWS / 2));
        let (first, third) = (rank(WINDOWS / 4), rank(WINDOWS * 3 / 4));
        let spread = third.since(first).unwrap_or_default();
        if !steadiness.allows(median, spread) {
            return Err(Refusal::Unsteady);
        }
        Ok(Self { min, median, spread })
    }

    /// The calibration as it is reported.
    #[must_use]
    pub fn overhead(self) -> Overhead {
        let milli = |ticks: Ticks| ticks.count().saturating_mul(1_000);
        Overhead { min: milli(self.min), median: milli(self.median), spread: milli(self.spread) }
    }
}

/// Fills `lengths`, and gives the ticks from the first reading to the last.
fn empty_windows<K: Clock>(clock: K, lengths: &mut [u64]) -> Result<Ticks, Refusal> {
    let first = clock.start();
    let mut last = first;
    for length in lengths {
        let start = clock.start();
        let stop = clock.stop();
        start.since(last).ok_or(Refusal::Backwards)?;
        *length = stop.since(start).ok_or(Refusal::Backwards)?.count();
        last = stop;
    }
    last.since(first).ok_or(Refusal::Backwards)
}
