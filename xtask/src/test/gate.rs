//! The instruction gate: a kernel whose calls take eight instructions more does not pass beside today's.

use super::tally::{Tally, Verdict};
use crate::cli::{BenchArgs, LaneChoice, MachineArgs};
use crate::error::{Class, Error, Result};
use crate::image::Flavour;
use crate::topology::Mebibytes;
use crate::{bench, compare, workspace};
use abi::boot::{Lane, Profile, selects};
use std::path::PathBuf;

/// The planted instructions.
const PLANTED: &str = "gate/planted";
/// Half a round trip, with one call in it.
const ROW: &str = "ipc.call/words=0,space=other";

/// Runs those that `filter` selects.
///
/// # Errors
/// A kernel cannot be built, a machine not started, or the user interrupts.
pub(super) fn run(filter: &str) -> Result<Tally> {
    let mut tally = Tally::default();
    if selects(filter, PLANTED) {
        let today = workspace::output("gate")?.join("today.json");
        compare::commit(&today, &[measure("ipc.call", Flavour::Plain)?])?;
        let slow = measure("ipc.call", Flavour::SlowCall)?;
        let refused = compare::pass(&today.display().to_string(), &[slow]);
        tally.record(PLANTED, &caught(refused));
    }
    Ok(tally)
}

/// The run of two boots on one core, where every figure counts instructions exactly.
fn measure(words: &str, flavour: Flavour) -> Result<PathBuf> {
    let args = BenchArgs {
        filter: words.to_owned(),
        list: false,
        profile: Profile::Quick,
        lane: LaneChoice::Fixed(Lane::Icount),
        boots: Some(2),
        machine: MachineArgs { smp: 1, nodes: 1, mem: Mebibytes::new(1024), topology: None },
        samples: Some(100),
        trace: None,
        out: Some(workspace::output("gate")?),
        machine_file: None,
    };
    bench::flavoured(&args, flavour)?.ok_or_else(|| Error::new(Class::NothingMatched, "nothing was measured"))
}

fn verdict(passed: Result<()>) -> Verdict {
    passed.map_or_else(|error| Verdict::Failed(error.to_string()), |()| Verdict::Passed)
}

/// The planted instructions are found out if the gate names the row and their number.
fn caught(passed: Result<()>) -> Verdict {
    let said = match passed {
        Ok(()) => return Verdict::Failed("the gate let eight more instructions pass".to_owned()),
        Err(error) if error.class() == Class::Regressed => error.to_string(),
        Err(error) => return verdict(Err(error)),
    };
    let named = said.lines().any(|line| line.contains(ROW) && line.contains("+8.00 instructions"));
    if named {
        Verdict::Passed
    } else {
        Verdict::Failed(format!("the gate does not name {ROW} and +8.00:\n{said}"))
    }
}

#[cfg(test)]
mod tests {
    use super::{ROW, caught};
    use crate::error::{Class, Error};
    use crate::test::tally::Verdict;

    #[test]
    fn the_gate_must_name_the_case_and_the_difference() {
        let refused = |class, what: String| caught(Err(Error::new(class, what)));
        let line = |difference: &str| format!("1 of 1:\n  REGRESSED {ROW} p50 ({difference} instructions)");
        assert_eq!(refused(Class::Regressed, line("+8.00")), Verdict::Passed);
        assert_ne!(refused(Class::Regressed, line("+9.00")), Verdict::Passed);
        assert_ne!(refused(Class::Regressed, "+8.00 instructions".to_owned()), Verdict::Passed);
        assert_ne!(refused(Class::Unusable, line("+8.00")), Verdict::Passed);
        assert_ne!(caught(Ok(())), Verdict::Passed);
    }
}
