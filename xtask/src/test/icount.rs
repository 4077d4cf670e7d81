//! What emulation that counts instructions promises: two boots give the same figures, and the shortest paths stay
//! within their budgets of instructions.

use super::tally::{Tally, Verdict};
use crate::error::Result;
use crate::guest::{End, Event, Flow, Limits, Session};
use crate::image::Image;
use crate::qemu::{Accelerator, Qemu, QemuSpec};
use crate::topology::{Mebibytes, Topology};
use abi::boot::selects;
use abi::exit::Exit;
use perf::record::Record;
use std::time::Duration;

const NAME: &str = "icount/repeat";
const LINE: &str = "mode=bench lane=icount samples=200 filter=frame.pair,heap.pair,percpu.access,hist.record";
const LIMITS: Limits = Limits { total: Duration::from_secs(180), silence: Duration::from_secs(60) };

/// The most that the median of a case may be.
struct Budget {
    id: &'static str,
    /// Words that the parameters of the case have, among others.
    params: &'static [&'static str],
    /// In thousandths of an instruction.
    limit: u64,
}

const BUDGETS: &[Budget] = &[
    Budget { id: "frame.pair", params: &["order=0", "mem=local"], limit: 50_000 },
    Budget { id: "heap.pair", params: &[], limit: 40_000 },
    Budget { id: "hist.record", params: &[], limit: 20_000 },
    Budget { id: "percpu.access", params: &[], limit: 3_000 },
];

/// A case as it was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Figures {
    id: String,
    params: String,
    p50: Option<u64>,
    /// Every field of the record.
    record: String,
}

/// Runs the test if `filter` selects it.
///
/// # Errors
/// QEMU cannot be started, or the user interrupts.
pub(super) fn run(filter: &str, qemu: &Qemu, image: &Image) -> Result<Tally> {
    let mut tally = Tally::default();
    if !selects(filter, NAME) {
        return Ok(tally);
    }
    let verdict = match (boot(qemu, image)?, boot(qemu, image)?) {
        (Ok(first), Ok(second)) => judge(&first, &second),
        (Err(why), _) | (_, Err(why)) => Verdict::Failed(why),
    };
    tally.record(NAME, &verdict);
    Ok(tally)
}

/// What one boot measures, or why it did not.
fn boot(qemu: &Qemu, image: &Image) -> Result<std::result::Result<Vec<Figures>, String>> {
    let spec = QemuSpec::new(Topology::even(1, 1, Mebibytes::new(512))?, Accelerator::Icount);
    let mut session = Session::start(qemu, &spec, &image.payload, LINE)?;
    let (mut cases, mut damage) = (Vec::new(), Vec::new());
    let end = session.listen(LIMITS, |event| {
        match event {
            Event::Frame { record: Record::Case(row), .. } => cases.push(Figures {
                id: row.id.to_owned(),
                params: row.params.to_owned(),
                p50: row.p50,
                record: format!("{row:?}"),
            }),
            damaged @ (Event::Gap { .. } | Event::Corrupt { .. }) => damage.push(format!("{damaged:?}")),
            Event::Frame { .. } | Event::Text(_) => {}
        }
        Flow::Continue
    })?;
    match end {
        End::Exit(Exit::Success) if damage.is_empty() => Ok(Ok(cases)),
        End::Interrupted => end.error().map_or(Ok(Ok(cases)), Err),
        end => Ok(Err(format!("{end}; {}\nthe end of the log:\n{}", damage.join("\n"), session.tail()))),
    }
}

fn judge(first: &[Figures], second: &[Figures]) -> Verdict {
    let mut wrong = Vec::new();
    if first.len() != second.len() {
        wrong.push(format!("{} cases, then {}", first.len(), second.len()));
    }
    let differing = first.iter().zip(second).filter(|(first, second)| first != second);
    wrong.extend(
        differing.map(|(first, second)| format!("two boots differ:\n{}\n{}", first.record, second.record)),
    );
    for budget in BUDGETS {
        wrong.extend(over(budget, first));
    }
    if wrong.is_empty() { Verdict::Passed } else { Verdict::Failed(wrong.join("\n")) }
}

/// What is wrong with the cases a budget is about, of which there must be some.
fn over(budget: &Budget, cases: &[Figures]) -> Vec<String> {
    let applies = |case: &&Figures| {
        let has = |word: &&str| case.params.split(',').any(|param| param == *word);
        case.id == budget.id && budget.params.iter().all(has)
    };
    let meant: Vec<&Figures> = cases.iter().filter(applies).collect();
    if meant.is_empty() {
        return vec![format!("no case of {} was measured", budget.id)];
    }
    let over = meant.into_iter().filter(|case| case.p50.is_none_or(|median| median > budget.limit));
    over.map(|case| {
        format!("{}: allowed are {} thousandths of an instruction: {}", case.id, budget.limit, case.record)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{Figures, LINE, Verdict, judge};

    fn cases(pair: u64) -> Vec<Figures> {
        let case = |id: &str, params: &str, p50| Figures {
            id: id.to_owned(),
            params: params.to_owned(),
            p50: Some(p50),
            record: format!("{id} {p50}"),
        };
        vec![
            case("frame.pair", "order=0,mem=local,cores=1", pair),
            case("frame.pair", "order=9,mem=local,cores=1", 900_000),
            case("heap.pair", "bytes=64,cores=1", 40_000),
            case("hist.record", "", 20_000),
            case("percpu.access", "", 3_000),
        ]
    }

    #[test]
    fn equal_and_within_budget() {
        assert!(abi::boot::Params::parse(LINE).is_ok());
        assert_eq!(judge(&cases(50_000), &cases(50_000)), Verdict::Passed);
    }

    #[test]
    fn each_fault_is_found() {
        let fails = |first: &[Figures], second: &[Figures], part: &str| {
            let Verdict::Failed(why) = judge(first, second) else { panic!("{part}: passed") };
            assert!(why.contains(part), "{why}");
        };
        fails(&cases(50_001), &cases(50_001), "frame.pair: allowed are 50000");
        fails(&cases(40_000), &cases(40_001), "two boots differ");
        fails(&cases(1), &cases(1)[..4], "5 cases, then 4");
        fails(&[], &[], "no case of hist.record");
    }
}
