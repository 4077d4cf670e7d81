//! Runs benchmark tables: selects cases, measures them, and reports every one of them with a status.
//!
//! One sample is one timed window of `batch` operations; see [`Meter`] for what happens inside and outside of it. Before a
//! case, the clock is calibrated on the measuring core ([`Calibration`]); a clock that cannot be trusted gives a `refused` row.

mod calibrate;
mod emit;
mod meter;
mod plan;

pub use calibrate::{Calibration, Refusal, Steadiness};
pub use emit::MatrixHead;
pub use meter::{Meter, Probe, Tally};
pub use plan::{Plan, Scale, Settings};

use core::fmt;

use crate::bench::{Bench, Case, CaseKey, Context, KeyText, Params, Text};
use crate::hist::Summary;
use crate::record::{CaseRow, CaseStart, Done, Overhead, Record, Sink, Status, SuiteStart};

/// Why a case gave no figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Something is broken.
    Failed(&'static str),
    /// It makes no sense on this machine.
    Skipped(&'static str),
    /// The clock cannot be trusted.
    Refused(Refusal),
}

impl Trouble {
    /// The status of the row.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Failed(_) => Status::Failed,
            Self::Skipped(_) => Status::Skipped,
            Self::Refused(_) => Status::Refused,
        }
    }

    /// The reason as a short phrase for people.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Failed(reason) | Self::Skipped(reason) => reason,
            Self::Refused(refusal) => refusal.describe(),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status(), self.reason())
    }
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A selected case of a table.
pub struct Selected<'t, 'k, C: Context> {
    /// Its row.
    pub row: &'t Bench<C>,
    /// The case.
    pub case: Case,
    /// Its index among the selected cases, from 0.
    pub index: u32,
    /// Its key.
    pub key: &'k str,
}

/// Calls `visit` with every selected case of a table.
///
/// A case is selected if its row is valid in the lane and its key has one of the words of the filter.
pub fn select<'t, C: Context>(
    table: &'t [Bench<C>],
    context: &C,
    settings: &Settings<'_>,
    visit: &mut dyn FnMut(Selected<'t, '_, C>),
) {
    let mut index = 0;
    for row in table.iter().filter(|row| row.lanes.has(settings.lane)) {
        (row.cases)(context, &mut |case| {
            let key = key_text(row.id, &case.params);
            if abi::boot::selects(settings.filter, key.as_str()) {
                visit(Selected { row, case, index, key: key.as_str() });
                index += 1;
            }
        });
    }
}

/// Runs the selected cases of a table and reports to `sink`: `SuiteStart`, and for each case `CaseStart`, its metrics,
/// matrices and histogram, and `Case`. Gives the counts for the `Done` record, which the caller sends; `run == 0` and
/// `skipped == 0` together mean that the filter matched nothing.
///
/// `counts` is the memory of the histogram, on the node of the core that calls; [`crate::hist::DEFAULT_COUNTS`] long.
pub fn run<C: Context>(
    table: &[Bench<C>],
    context: &mut C,
    settings: &Settings<'_>,
    counts: &mut [u32],
    sink: &mut dyn Sink,
) -> Done {
    let mut cases = 0;
    select(table, context, settings, &mut |_| cases += 1);
    sink.send(&Record::SuiteStart(SuiteStart { cases, first: settings.after.min(cases) }));
    let mut done = Done::default();
    for index in settings.after..cases {
        // The body needs the context exclusively, so the table is walked anew for each case rather than kept.
        let mut found = None;
        select(table, context, settings, &mut |selected| {
            if selected.index == index {
                found = Some((selected.row, selected.case));
            }
        });
        let Some((row, case)) = found else { break };
        match run_case(row, &case, index, context, settings, counts, sink) {
            Status::Ok => done.run += 1,
            Status::Failed => {
                done.run += 1;
                done.failed += 1;
            }
            Status::Refused | Status::Skipped => done.skipped += 1,
        }
    }
    done
}

/// Names the selected cases without running any: each is reported as skipped, with the reason `listed`.
pub fn list<C: Context>(
    table: &[Bench<C>],
    context: &C,
    settings: &Settings<'_>,
    sink: &mut dyn Sink,
) -> Done {
    let mut done = Done::default();
    select(table, context, settings, &mut |_| done.skipped += 1);
    sink.send(&Record::SuiteStart(SuiteStart { cases: done.skipped, first: 0 }));
    select(table, context, settings, &mut |selected| {
        let Selected { row, case, index, .. } = selected;
        let result = Outcome::new(Plan::new(settings, case.batch.unwrap_or(row.batch)));
        let params = params_text(&case.params);
        let row = result.row(row, &case, index, settings, Err(Trouble::Skipped("listed")), &params);
        sink.send(&Record::Case(row));
    });
    done
}

fn run_case<C: Context>(
    row: &Bench<C>,
    case: &Case,
    index: u32,
    context: &mut C,
    settings: &Settings<'_>,
    counts: &mut [u32],
    sink: &mut dyn Sink,
) -> Status {
    sink.send(&Record::CaseStart(CaseStart { index, key: key_text(row.id, &case.params).as_str() }));
    let plan = Plan::new(settings, case.batch.unwrap_or(row.batch));
    let mut result = Outcome::new(plan);
    let status = match Meter::new(context.clock(), plan, counts) {
        Err(refusal) => Err(Trouble::Refused(refusal)),
        Ok(meter) => {
            let mut meter = meter.reporting(index, sink);
            let status = (row.run)(context, case, &mut meter).and_then(|()| meter.verdict());
            if status.is_ok() {
                meter.send_hist();
            }
            let (tally, calibration) = meter.close();
            result.take(&tally, calibration);
            status
        }
    };
    let params = params_text(&case.params);
    let row = result.row(row, case, index, settings, status, &params);
    sink.send(&Record::Case(row));
    row.status
}

/// What goes into the row of a case, as far as it is known when the case ends.
struct Outcome {
    plan: Plan,
    summary: Summary,
    overhead: Option<Overhead>,
    warm_up: u32,
    clamped: u64,
    overflow: u64,
    remark: &'static str,
}

impl Outcome {
    fn new(plan: Plan) -> Self {
        let summary = Summary::default();
        Self { plan, summary, overhead: None, warm_up: 0, clamped: 0, overflow: 0, remark: "" }
    }

    fn take(&mut self, tally: &Tally<'_>, calibration: Calibration) {
        self.summary = tally.hist().summary();
        self.overhead = Some(calibration.overhead());
        self.warm_up = tally.warmed_up();
        self.clamped = tally.clamped();
        self.overflow = tally.hist().overflow();
        self.remark = match (tally.hist().saturated(), tally.out_of_time()) {
            (1.., _) => "a bucket was full: no percentiles",
            (0, true) => "the time budget ended the sampling",
            (0, false) => "",
        };
    }

    fn row<'r, C: Context>(
        &self,
        row: &'r Bench<C>,
        case: &Case,
        index: u32,
        settings: &Settings<'_>,
        status: Result<(), Trouble>,
        params: &'r KeyText,
    ) -> CaseRow<'r> {
        // Figures of a case that did not end well would be taken for real ones.
        let summary = if status.is_ok() { self.summary } else { Summary::default() };
        CaseRow {
            index,
            id: row.id,
            version: row.version,
            params: params.as_str(),
            placement: case.placement,
            lane: settings.lane,
            unit: row.quantity.unit(settings.lane),
            direction: row.direction,
            scope: row.scope,
            status: status.map_or_else(Trouble::status, |()| Status::Ok),
            reason: status.map_or_else(Trouble::reason, |()| self.remark),
            n: summary.n,
            batch: self.plan.batch,
            warm_up: self.warm_up,
            overhead: self.overhead,
            clamped: self.clamped,
            overflow: self.overflow,
            min: summary.min,
            p50: summary.p50,
            p90: summary.p90,
            p99: summary.p99,
            p999: summary.p999,
            p9999: summary.p9999,
            max: summary.max,
            mean: summary.mean,
        }
    }
}

/// The key of a case. One that is too long, which [`bench::check`](crate::bench::check) rules out, becomes empty.
fn key_text(id: &str, params: &Params) -> KeyText {
    CaseKey { id, params }.text().unwrap_or_default()
}

fn params_text(params: &Params) -> KeyText {
    Text::of(format_args!("{params}")).unwrap_or_default()
}
