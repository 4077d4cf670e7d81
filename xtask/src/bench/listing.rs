//! `--list`: names the selected cases. The table lives in the kernel, so the kernel is asked: a start with
//! `samples=0` reports every case as skipped.

use crate::bench::suite::Plan;
use crate::bench::target::Target;
use crate::error::{Class, Error, Result};
use crate::guest::{End, Flow};
use crate::results::units;
use crate::ui;
use abi::exit::Exit;
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
    if lines.is_empty() && matches!(end, End::Exit(Exit::Success | Exit::NothingMatched)) {
        return Err(nothing_matched(plan));
    }
    if !done {
        let class = end.error().map_or(Class::CorruptFrame, |error| error.class());
        let from = log.len().saturating_sub(10);
        let what = format!("the cases could not be listed: {end}{}", log[from..].concat());
        return Err(Error::new(class, what));
    }
    let width = lines.iter().map(|(key, ..)| key.chars().count()).max().unwrap_or(0);
    for (key, class, scope, unit) in &lines {
        ui::line(&format!("{key:<width$}  {class:<8} {scope:<8} {unit}"));
    }
    ui::line(&format!("{} cases in the lane {}", lines.len(), plan.lane.word()));
    Ok(())
}

fn nothing_matched(plan: &Plan) -> Error {
    let what = format!("the filter `{}` matches no case in the lane {}", plan.filter, plan.lane.word());
    Error::new(Class::NothingMatched, what).next("run `cargo xtask bench --list` to see every case")
}

#[cfg(test)]
mod tests {
    use super::print;
    use crate::bench::suite::{self, Plan};
    use crate::bench::target::Target;
    use crate::error::{Class, Result};
    use crate::guest::{End, Flow, Limits};
    use abi::boot::{Lane, Profile};
    use abi::exit::Exit;
    use perf::record::{Done, Event, Record};

    /// A guest that names no case and ends so.
    struct Empty {
        done: bool,
        end: End,
    }

    impl Target for Empty {
        fn boot(&mut self, _: &str, _: Limits, listener: &mut dyn FnMut(Event<'_>) -> Flow) -> Result<End> {
            if self.done {
                let record = &Record::Done(Done::default());
                assert_eq!(listener(Event::Frame { sequence: 0, record }), Flow::Continue);
            }
            Ok(self.end.clone())
        }
    }

    #[test]
    fn a_list_of_nothing_is_an_error() {
        let plan = Plan {
            filter: "nosuch".to_owned(),
            profile: Profile::Quick,
            samples: Some(0),
            lane: Lane::Tcg,
            repeats: 1,
            trace: String::new(),
            limits: suite::limits(Profile::Quick, Lane::Tcg),
        };
        let class = |done, end| print(&plan, &mut Empty { done, end }).map_err(|error| error.class());
        assert_eq!(class(true, End::Exit(Exit::Success)), Err(Class::NothingMatched));
        assert_eq!(class(true, End::Exit(Exit::NothingMatched)), Err(Class::NothingMatched));
        assert_eq!(class(false, End::Exit(Exit::NothingMatched)), Err(Class::NothingMatched));
        assert_eq!(class(false, End::Exit(Exit::Panic)), Err(Class::GuestPanic));
        let error = print(&plan, &mut Empty { done: true, end: End::Exit(Exit::Success) }).unwrap_err();
        assert!(error.to_string().contains("--list"), "{error}");
    }
}
