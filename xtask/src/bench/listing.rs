//! `--list`: names the selected cases. The table lives in the kernel, so the kernel is asked: a start with
//! `samples=0` reports every case as skipped.

use crate::bench::suite::Plan;
use crate::bench::target::Target;
use crate::error::{Class, Error, Result};
use crate::guest::{End, Flow};
use crate::results::units;
use crate::ui;
use perf::record::{Event, Record};

/// Prints one line for each case that the filter selects in the lane.
pub(super) fn print(plan: &Plan, target: &mut dyn Target) -> Result<()> {
    let mut lines = Vec::new();
    let mut log = Vec::new();
    let mut done = false;
    let end = target.boot(&plan.command_line(0), plan.limits, &mut |event| {
        match event {
            Event::Frame { record: Record::Case(row), .. } => {
                let key = if row.params.is_empty() {
                    row.id.to_owned()
                } else {
                    format!("{}/{}", row.id, row.params)
                };
                let (class, scope) = (row.placement.class.word(), row.scope.word());
                lines.push((key, class, scope, units::label(row.unit.word()).to_owned()));
            }
            Event::Frame { record: Record::Done(_), .. } => done = true,
            Event::Frame { .. } | Event::Gap { .. } => {}
            Event::Text(line) => log.push(format!("\n  | {line}")),
            Event::Corrupt { reason, .. } => log.push(format!("\n  | damaged data: {reason}")),
        }
        Flow::Continue
    })?;
    if !done {
        let class = end.error().map_or(Class::CorruptFrame, |error| error.class());
        let from = log.len().saturating_sub(10);
        let what = match end {
            End::Exit(abi::exit::Exit::NothingMatched) => {
                format!("the filter `{}` matches no case", plan.filter)
            }
            end => format!("the cases could not be listed: {end}{}", log[from..].concat()),
        };
        return Err(Error::new(class, what));
    }
    let width = lines.iter().map(|(key, ..)| key.chars().count()).max().unwrap_or(0);
    for (key, class, scope, unit) in &lines {
        ui::line(&format!("{key:<width$}  {class:<8} {scope:<8} {unit}"));
    }
    ui::line(&format!("{} cases in the lane {}", lines.len(), plan.lane.word()));
    Ok(())
}
