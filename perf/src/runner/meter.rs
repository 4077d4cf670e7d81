//! What a benchmark body measures with.

use super::emit::{self, MatrixHead};
use super::{Calibration, Plan, Refusal, Trouble};
use crate::bench::Unit;
use crate::clock::{Clock, Ticks};
use crate::hist::{DEFAULT_DIGITS, Hist};
use crate::record::{Metric, Record, Sink};

/// The samples of a case, and what went wrong while they were taken. Plain data: one core can absorb another's.
#[derive(Debug)]
pub struct Tally<'m> {
    hist: Hist<'m, DEFAULT_DIGITS>,
    warmed_up: u32,
    clamped: u64,
    backwards: u64,
    out_of_time: bool,
}

impl Tally<'_> {
    /// The samples.
    #[must_use]
    pub fn hist(&self) -> &Hist<'_> {
        &self.hist
    }

    /// Windows that were run before the first sample.
    #[must_use]
    pub fn warmed_up(&self) -> u32 {
        self.warmed_up
    }

    /// Windows that were shorter than an empty one and count as 0.
    #[must_use]
    pub fn clamped(&self) -> u64 {
        self.clamped
    }

    /// Whether the time budget ended the case.
    #[must_use]
    pub fn out_of_time(&self) -> bool {
        self.out_of_time
    }

    /// Adds the samples of another core.
    pub fn absorb(&mut self, other: &Tally<'_>) {
        self.hist.merge(&other.hist);
        self.warmed_up = self.warmed_up.max(other.warmed_up);
        self.clamped += other.clamped;
        self.backwards += other.backwards;
        self.out_of_time |= other.out_of_time;
    }

    /// Takes a window off the clock, less its overhead; `None` if the clock went backwards.
    fn length(&mut self, start: Ticks, stop: Ticks, overhead: Ticks) -> Option<Ticks> {
        let Some(length) = stop.since(start) else {
            self.backwards += 1;
            return None;
        };
        let net = length.since(overhead);
        self.clamped += u64::from(net.is_none());
        Some(net.unwrap_or_default())
    }
}

/// Measures the windows of one case on one core.
///
/// A window is `start` of the clock, `batch` operations, `stop`. What lies between two windows is not timed: there the
/// sample is recorded and the body prepares the next one. A batched figure includes the loop around the operations, one to
/// three instructions per operation.
///
/// A body that runs on several cores gives each its own meter: [`Meter::new`] there, with [`plan`](Self::plan) and that core's
/// memory, and at the end [`Tally::absorb`] into [`tally`](Self::tally) of the first one.
pub struct Meter<'a, K: Clock> {
    clock: K,
    plan: Plan,
    calibration: Calibration,
    tally: Tally<'a>,
    taken: u32,
    began: Option<Ticks>,
    reporter: Option<Reporter<'a>>,
}

struct Reporter<'a> {
    case: u32,
    sink: &'a mut dyn Sink,
}

impl<'a, K: Clock> Meter<'a, K> {
    /// A meter for the calling core: clears and touches `counts` and calibrates the clock.
    ///
    /// # Errors
    /// [`Refusal`] if the clock cannot be trusted.
    pub fn new(clock: K, plan: Plan, counts: &'a mut [u32]) -> Result<Self, Refusal> {
        let hist = Hist::new(counts);
        let calibration = Calibration::measure(clock, plan.steadiness)?;
        let tally = Tally { hist, warmed_up: 0, clamped: 0, backwards: 0, out_of_time: false };
        Ok(Self { clock, plan, calibration, tally, taken: 0, began: None, reporter: None })
    }

    pub(super) fn reporting(self, case: u32, sink: &'a mut dyn Sink) -> Self {
        Self { reporter: Some(Reporter { case, sink }), ..self }
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> K {
        self.clock
    }

    /// What this meter follows, for the meters of other cores.
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Operations per window.
    #[must_use]
    pub fn batch(&self) -> u32 {
        self.plan.batch
    }

    /// What an empty window costs here.
    #[must_use]
    pub fn calibration(&self) -> Calibration {
        self.calibration
    }

    /// The samples so far, to absorb those of other cores.
    pub fn tally(&mut self) -> &mut Tally<'a> {
        &mut self.tally
    }

    /// Whether the clock behaved while it measured.
    pub(super) fn verdict(&self) -> Result<(), Trouble> {
        if self.tally.backwards == 0 { Ok(()) } else { Err(Trouble::Refused(Refusal::Backwards)) }
    }

    /// Reports the histogram of the case, if there is anything in it.
    pub(super) fn send_hist(&mut self) {
        if let Some(Reporter { case, sink }) = &mut self.reporter
            && !self.tally.hist.is_empty()
        {
            emit::hist(*case, &self.tally.hist, *sink);
        }
    }

    /// Ends the measurement.
    #[must_use]
    pub fn close(self) -> (Tally<'a>, Calibration) {
        (self.tally, self.calibration)
    }

    /// Measures single operations that need nothing between windows: `op` is called `batch` times in each.
    #[inline]
    pub fn ops<T>(&mut self, state: &mut T, mut op: impl FnMut(&mut T)) {
        let batch = self.plan.batch;
        let timed = |state: &mut T| {
            for _ in 0..batch {
                op(state);
            }
        };
        self.windows(state, |_| {}, timed, |_| {});
    }

    /// Measures windows: `timed` does `batch` operations; `before` and `after` are not timed.
    #[inline]
    pub fn windows<T>(
        &mut self,
        state: &mut T,
        mut before: impl FnMut(&mut T),
        mut timed: impl FnMut(&mut T),
        mut after: impl FnMut(&mut T),
    ) {
        while self.more() {
            before(state);
            let start = self.clock.start();
            timed(state);
            let stop = self.clock.stop();
            after(state);
            self.window(start, stop);
        }
    }

    /// Whether another window is wanted. For bodies whose windows begin and end in different places:
    /// `while meter.more() { …; meter.window(start, stop); }`
    #[must_use]
    pub fn more(&self) -> bool {
        self.taken < self.plan.samples && !self.tally.out_of_time
    }

    /// Takes a window of `batch` operations between two readings of the clock, less the overhead.
    pub fn window(&mut self, start: Ticks, stop: Ticks) {
        self.take(start, stop, self.calibration.min);
    }

    /// Takes a window of a body that has only a few, each long enough to have warmed everything up by itself: none is left out.
    pub fn rare_window(&mut self, start: Ticks, stop: Ticks) {
        self.plan.warm_up = self.tally.warmed_up;
        self.window(start, stop);
    }

    /// Takes a window as it is: for rows about the clock itself, and for windows between the clocks of two cores.
    pub fn window_with_overhead(&mut self, start: Ticks, stop: Ticks) {
        self.take(start, stop, Ticks::ZERO);
    }

    /// Takes a sample that is no time, in the unit of the row.
    pub fn value(&mut self, value: u64) {
        self.tally.hist.record(value);
        self.taken = self.taken.saturating_add(1);
    }

    fn take(&mut self, start: Ticks, stop: Ticks, overhead: Ticks) {
        let began = *self.began.get_or_insert(start);
        let used = stop.since(began).unwrap_or_default();
        let used_up = |budget: Ticks, share: u64| used.count() > budget.count() / share;
        if self.warming_up() && self.tally.warmed_up < self.plan.warm_up {
            self.tally.warmed_up += 1;
            // On a slow machine, the larger part of the time goes to samples.
            if self.plan.budget.is_some_and(|budget| used_up(budget, 4)) {
                self.plan.warm_up = self.tally.warmed_up;
            }
            return;
        }
        self.taken += 1;
        if let Some(length) = self.tally.length(start, stop, overhead) {
            self.tally.hist.record(self.plan.scale.value(length, self.plan.batch));
        }
        let finished = self.taken >= self.plan.samples;
        self.tally.out_of_time = !finished && self.plan.budget.is_some_and(|budget| used_up(budget, 1));
    }

    fn warming_up(&self) -> bool {
        self.taken == 0
    }

    /// A small sample of its own, for one cell of a matrix; `absorb` it when it is full.
    #[must_use]
    pub fn probe<const N: usize>(&self, warm_up: u32) -> Probe<N> {
        Probe {
            plan: Plan { warm_up, ..self.plan },
            overhead: self.calibration.min,
            seen: 0,
            backwards: 0,
            clamped: 0,
            values: [0; N],
            len: 0,
        }
    }

    /// Adds the samples of a probe.
    pub fn absorb<const N: usize>(&mut self, probe: &Probe<N>) {
        for &value in probe.values() {
            self.value(value);
        }
        self.tally.clamped += probe.clamped;
        self.tally.backwards += probe.backwards;
    }

    /// Reports a further figure of the case. Nothing may be timed meanwhile: sending takes long. Only the meter that the
    /// body was given reports; those of other cores have no line to send on, and do nothing here.
    pub fn metric(&mut self, name: &str, value: u64, unit: Unit) {
        if let Some(Reporter { case, sink }) = &mut self.reporter {
            sink.send(&Record::Metric(Metric { case: *case, name, value, unit }));
        }
    }

    /// Reports a matrix of the case, whose cells `cell` gives by row and column; as [`metric`](Self::metric) does.
    pub fn matrix(&mut self, head: &MatrixHead<'_>, cell: &mut dyn FnMut(usize, usize) -> Option<u64>) {
        if let Some(Reporter { case, sink }) = &mut self.reporter {
            emit::matrix(*case, head, cell, *sink);
        }
    }
}

/// Up to `N` samples, in order, on whichever core measures them.
#[derive(Clone, Debug)]
pub struct Probe<const N: usize> {
    plan: Plan,
    overhead: Ticks,
    seen: u32,
    backwards: u64,
    clamped: u64,
    values: [u64; N],
    len: usize,
}

impl<const N: usize> Probe<N> {
    /// Whether another window is wanted.
    #[must_use]
    pub fn more(&self) -> bool {
        self.len < N && self.backwards == 0
    }

    /// Takes a window of `batch` operations between two readings of the clock, less the overhead.
    pub fn window(&mut self, start: Ticks, stop: Ticks) {
        self.seen = self.seen.saturating_add(1);
        let Some(length) = stop.since(start) else {
            self.backwards += 1;
            return;
        };
        if self.seen <= self.plan.warm_up {
            return;
        }
        let net = length.since(self.overhead);
        self.clamped += u64::from(net.is_none());
        if let Some(slot) = self.values.get_mut(self.len) {
            *slot = self.plan.scale.value(net.unwrap_or_default(), self.plan.batch);
            self.len += 1;
        }
    }

    /// The samples in the unit of the row.
    #[must_use]
    pub fn values(&self) -> &[u64] {
        self.values.get(..self.len).unwrap_or_default()
    }

    /// The median; `None` without samples.
    #[must_use]
    pub fn median(&self) -> Option<u64> {
        let mut values = self.values;
        crate::stats::median(values.get_mut(..self.len)?)
    }
}
