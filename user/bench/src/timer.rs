//! Time: how late a sleeper wakes.

use perf::bench::{Bench, Case, Class, Direction, Lanes, Quantity, Scope, Value};
use perf::clock::{Clock, Nanos, Ticks};
use perf::runner::Trouble;
use rt::time::{self, Deadline, Tsc};

use super::team::Hogs;
use super::{Lab, Meter, failed};

const PERIODS: [(&str, Nanos); 3] =
    [("100us", Nanos::new(100_000)), ("1ms", Nanos::from_millis(1)), ("10ms", Nanos::from_millis(10))];
const NONE: &str = "none";
const HOGS: &str = "hogs";

/// Periods that are not counted, and the least number of those that are: what the 90th percentile needs.
const WARM_UP: u64 = 4;
const LEAST: u64 = 100;

/// A periodic sleeper.
pub(super) const JITTER: Bench<Lab> = Bench {
    id: "timer.jitter",
    version: 1,
    doc: "how much later than intended a thread that sleeps until every period's end goes on, alone on its core or beside two threads of lower class",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::OneWay,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore],
    batch: 1,
    cases: |lab, visit| {
        for load in [NONE, HOGS] {
            for (word, _) in PERIODS {
                let case = Case::new(lab.alone()).with("period", Value::Word(word));
                visit(case.with("load", Value::Word(load)));
            }
        }
    },
    run: |lab, case, meter| {
        let word = case.params.word("period");
        let period = PERIODS.iter().find(|(known, _)| Some(*known) == word).map(|&(_, period)| period);
        let period = lab.start.timebase().ticks(period.ok_or(Trouble::Failed("no such period"))?);
        let hogs = case.params.word("load") == Some(HOGS);
        let _hogs = hogs.then(|| Hogs::start(2)).transpose().map_err(failed)?;
        sleep_again_and_again(period, meter)
    },
};

fn sleep_again_and_again(period: Ticks, meter: &mut Meter<'_>) -> Result<(), Trouble> {
    let plan = meter.plan();
    let fit = plan.budget.map_or(u64::MAX, |budget| budget.count() / period.count().max(1));
    let periods = fit.min(u64::from(plan.samples)).max(LEAST);
    let mut due = time::now().saturating_add(period);
    for number in 0..WARM_UP + periods {
        time::sleep(Deadline(due.count()));
        let at = Tsc.stop();
        let late = at.since(due).ok_or(Trouble::Failed("woken before the time"))?;
        if number >= WARM_UP {
            meter.value(plan.scale.value(late, 1));
        }
        // Who has slept through a whole period begins anew.
        let base = if late < period { due } else { at };
        due = base.saturating_add(period);
    }
    Ok(())
}
