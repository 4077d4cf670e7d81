//! The hunts for stale translations, for capabilities that outlive their revocation, and for messages that go astray between threads that are
//! killed and moved, in images with delays in the windows of races: the good one passes, and those with planted bugs, shootdowns that are
//! acknowledged too early, derivations that come too late, and revocations that return too early, are found out.

use super::host::Effort;
use super::tally::{Tally, Verdict};
use crate::error::Result;
use crate::guest::{End, Event, Flow, Limits, Session};
use crate::image::{self, Flavour};
use crate::qemu::{Accelerator, Payload, Qemu, QemuSpec};
use crate::topology::{Mebibytes, Topology};
use crate::ui::Progress;
use abi::boot::selects;
use abi::exit::Exit;
use perf::record::{Outcome, Record};
use std::time::Duration;

/// The kernel's tests that must notice the planted bugs.
const STALE: &str = "spaces.stale_hunt";
const RACE: &str = "cap.race";
/// How long the hunt goes on in a soak.
const SOAK: Duration = Duration::from_secs(600);
/// How long the hunt may take to find the planted bug, of guest time.
const PATIENCE: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(120);

/// What a boot must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Every test passes.
    Clean,
    /// This test fails, and the guest says so by its exit code.
    Caught(&'static str),
}

/// Threads of their own for the cores: the races are real.
const REAL: Accelerator = Accelerator::TcgMulti;
/// One thread for all cores, which goes on to the next one in the middle of every delay: some hundred times as many races, however busy the host is, but
/// what a core has written is seen at once.
const DEALT: Accelerator = Accelerator::TcgSingle;

/// One boot.
struct Case {
    name: &'static str,
    flavour: Flavour,
    accelerator: Accelerator,
    cores: u32,
    /// The kernel's tests.
    tests: &'static str,
    wanted: Wanted,
}

const CASES: &[Case] = &[
    Case {
        name: "hunt/racing-4",
        flavour: Flavour::Racing,
        accelerator: REAL,
        cores: 4,
        tests: "spaces,tlb,cap,user.bound,user.storm,user.walk,user.kills",
        wanted: Wanted::Clean,
    },
    Case {
        name: "hunt/racing-8",
        flavour: Flavour::Racing,
        accelerator: REAL,
        cores: 8,
        tests: "spaces,tlb,cap",
        wanted: Wanted::Clean,
    },
    Case {
        name: "hunt/revoking-8",
        flavour: Flavour::Racing,
        accelerator: DEALT,
        cores: 8,
        tests: RACE,
        wanted: Wanted::Clean,
    },
    Case {
        name: "hunt/early-ack",
        flavour: Flavour::EarlyAck,
        accelerator: REAL,
        cores: 4,
        tests: STALE,
        wanted: Wanted::Caught(STALE),
    },
    Case {
        name: "hunt/late-derive",
        flavour: Flavour::LateDerive,
        accelerator: DEALT,
        cores: 4,
        tests: RACE,
        wanted: Wanted::Caught(RACE),
    },
    Case {
        name: "hunt/hasty-revoke",
        flavour: Flavour::HastyRevoke,
        accelerator: DEALT,
        cores: 4,
        tests: RACE,
        wanted: Wanted::Caught(RACE),
    },
];

/// Runs those that `filter` selects.
///
/// # Errors
/// An image cannot be built, QEMU cannot be started, or the user interrupts.
pub(super) fn run(filter: &str, effort: Effort, qemu: &Qemu) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut built: Option<(Flavour, Payload)> = None;
    for case in CASES.iter().filter(|case| selects(filter, case.name)) {
        let progress = Progress::start(&format!("test: {}", case.name), None);
        let payload = match built.take() {
            Some((flavour, payload)) if flavour == case.flavour => payload,
            _ => image::build(case.flavour)?.payload,
        };
        let verdict = boot(case, effort, qemu, &payload)?;
        built = Some((case.flavour, payload));
        drop(progress);
        tally.record(case.name, &verdict);
    }
    Ok(tally)
}

fn command_line(case: &Case, effort: Effort) -> String {
    let line = format!("mode=test lane=tcg filter={}", case.tests);
    match (effort, case.wanted) {
        (Effort::Soak, Wanted::Clean) => format!("{line} soak={} seed={}", SOAK.as_secs(), case.cores),
        // It ends when the bug is found, long before.
        (_, Wanted::Caught(_)) => format!("{line} soak={}", PATIENCE.as_secs()),
        _ => line,
    }
}

fn boot(case: &Case, effort: Effort, qemu: &Qemu, payload: &Payload) -> Result<Verdict> {
    let spec = QemuSpec::new(Topology::even(case.cores, 2, Mebibytes::new(2048))?, case.accelerator);
    let mut session = Session::start(qemu, &spec, payload, &command_line(case, effort))?;
    let mut failed = Vec::new();
    let mut damage = Vec::new();
    // Every test with time to spare takes the soak's, of which it says nothing meanwhile.
    let extra = if effort == Effort::Soak { SOAK * 6 } else { Duration::ZERO };
    let limits = Limits { total: LIMIT + extra, silence: LIMIT + extra };
    let end = session.listen(limits, |event| {
        match event {
            Event::Frame { record: Record::TestEnd(end), .. } if end.outcome == Outcome::Failed => {
                failed.push((end.name.to_owned(), end.message.to_owned()));
            }
            damaged @ (Event::Gap { .. } | Event::Corrupt { .. }) => damage.push(format!("{damaged:?}")),
            Event::Frame { .. } | Event::Text(_) => {}
        }
        Flow::Continue
    })?;
    if end == End::Interrupted {
        return end.error().map_or(Ok(Verdict::Passed), Err);
    }
    let verdict = judge(case.wanted, &end, &failed, &damage);
    Ok(match verdict {
        Verdict::Failed(why) => {
            let (tail, line) = (session.tail(), session.command_line());
            Verdict::Failed(format!("{why}\nthe end of the log:\n{tail}\nstarted with: {line}"))
        }
        other => other,
    })
}

/// The verdict on a boot that ended so, with these tests failed.
fn judge(wanted: Wanted, end: &End, failed: &[(String, String)], damage: &[String]) -> Verdict {
    let expected = match wanted {
        Wanted::Clean => *end == End::Exit(Exit::Success) && failed.is_empty(),
        Wanted::Caught(hunter) => {
            *end == End::Exit(Exit::TestsFailed) && matches!(failed, [(name, _)] if name == hunter)
        }
    };
    match (wanted, expected && damage.is_empty()) {
        (_, true) => Verdict::Passed,
        (Wanted::Clean, false) => Verdict::Failed(format!("{end}; failed: {failed:?}; {damage:?}")),
        (Wanted::Caught(_), false) => {
            Verdict::Failed(format!("the planted bug is not found: {end}; failed: {failed:?}; {damage:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CASES, DEALT, Effort, RACE, STALE, Verdict, Wanted, command_line, judge};
    use crate::guest::End;
    use abi::boot::{Params, selects};
    use abi::exit::Exit;

    #[test]
    fn every_boot_runs_its_hunt() {
        for case in CASES {
            for effort in [Effort::Usual, Effort::Soak] {
                let line = command_line(case, effort);
                let params = Params::parse(&line).unwrap();
                let hunts: &[&str] = match case.wanted {
                    Wanted::Clean if case.accelerator == DEALT => &[RACE],
                    Wanted::Clean => &[STALE, RACE],
                    Wanted::Caught(hunter) => &[hunter],
                };
                assert!(hunts.iter().all(|hunt| params.selects(hunt)), "{line}");
                let long = effort == Effort::Soak || case.wanted != Wanted::Clean;
                assert_eq!(params.soak != 0, long, "{line}");
            }
            assert!(selects("hunt", case.name));
        }
    }

    #[test]
    fn the_planted_bug_must_be_found_by_the_hunt() {
        let failed = |name: &str| vec![(name.to_owned(), String::from("why"))];
        let passes = |wanted, exit, failed: &[(String, String)]| {
            judge(wanted, &End::Exit(exit), failed, &[]) == Verdict::Passed
        };
        assert!(passes(Wanted::Clean, Exit::Success, &[]));
        assert!(!passes(Wanted::Clean, Exit::TestsFailed, &failed(STALE)));
        assert!(!passes(Wanted::Clean, Exit::NothingMatched, &[]));
        assert!(passes(Wanted::Caught(STALE), Exit::TestsFailed, &failed(STALE)));
        assert!(!passes(Wanted::Caught(STALE), Exit::TestsFailed, &failed("tlb.busy")));
        assert!(!passes(Wanted::Caught(STALE), Exit::Panic, &[]));
        assert!(!passes(Wanted::Caught(STALE), Exit::Success, &[]));
        assert_ne!(
            judge(Wanted::Clean, &End::Exit(Exit::Success), &[], &[String::from("gap")]),
            Verdict::Passed
        );
    }
}
