//! One boot of one machine: runs the kernel's tests on it, and checks the machine it reports.

use super::machines::{Machine, Need, Table};
use super::seen::Seen;
use super::tally::{Tally, Verdict};
use crate::error::Result;
use crate::guest::{End, Event, Flow, Limits, Session};
use crate::qemu::{self, Payload, Qemu, QemuSpec, X2APIC_SINCE};
use crate::ui::Progress;
use abi::boot::{ApicMode, Mitigate, selects};
use abi::exit::Exit;
use perf::record::{Outcome, Record};
use std::time::Duration;

/// A small machine is done long before.
const TOTAL: Duration = Duration::from_secs(180);
const SILENCE: Duration = Duration::from_secs(60);

/// What is selected on one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// Whether the check of the topology counts.
    topology: bool,
    /// The kernel's filter; `None` for no test of its own.
    kernel: Option<String>,
}

impl Selection {
    /// What the user's filter selects on `machine`. Names are `topology/<machine>` and `<machine>/<kernel test>`; a word
    /// without a slash may also be part of the name of a kernel test, which is looked for on machines with the whole table.
    pub(super) fn of(filter: &str, machine: &Machine) -> Self {
        let topology = selects(filter, &format!("topology/{}", machine.name));
        let whole = machine.table.filter();
        if filter.is_empty() {
            return Self { topology, kernel: Some(whole) };
        }
        let mut words = Vec::new();
        for word in filter.split(',').filter(|word| !word.is_empty()) {
            match word.split_once('/') {
                Some((name, test)) if machine.name.ends_with(name) && !name.is_empty() => words.push(test),
                Some(_) => {}
                None if machine.name.contains(word) => return Self { topology, kernel: Some(whole) },
                None if machine.table == Table::Whole => words.push(word),
                None => {}
            }
        }
        if words.contains(&"") {
            return Self { topology, kernel: Some(whole) };
        }
        Self { topology, kernel: (!words.is_empty()).then(|| words.join(",")) }
    }

    fn is_empty(&self) -> bool {
        !self.topology && self.kernel.is_none()
    }
}

/// What a boot said.
#[derive(Default)]
struct Heard {
    seen: Seen,
    running: Option<String>,
    ended: Vec<(String, Verdict)>,
    damage: Vec<String>,
    done: bool,
}

impl Heard {
    fn note(&mut self, event: Event<'_>) -> Flow {
        match event {
            Event::Text(_) => {}
            Event::Frame { record, .. } => self.note_record(record),
            damage @ (Event::Gap { .. } | Event::Corrupt { .. }) => self.damage.push(format!("{damage:?}")),
        }
        Flow::Continue
    }

    fn note_record(&mut self, record: &Record<'_>) {
        self.seen.note(record);
        match record {
            Record::TestStart(start) => self.running = Some(start.name.to_owned()),
            Record::TestEnd(end) => {
                self.running = None;
                let verdict = match end.outcome {
                    Outcome::Passed => Verdict::Passed,
                    Outcome::Failed => Verdict::Failed(end.message.to_owned()),
                    Outcome::Skipped => Verdict::Skipped(end.message.to_owned()),
                };
                self.ended.push((end.name.to_owned(), verdict));
            }
            Record::Done(_) => self.done = true,
            _ => {}
        }
    }
}

/// Boots `machine`, if `filter` selects anything on it.
///
/// # Errors
/// QEMU cannot be started, or the user interrupts.
pub(super) fn run(filter: &str, machine: &Machine, qemu: &Qemu, payload: &Payload) -> Result<Tally> {
    let selection = Selection::of(filter, machine);
    let mut tally = Tally::default();
    if selection.is_empty() {
        return Ok(tally);
    }
    let accelerator = machine.accelerator();
    if machine.x2apic == Need::Yes && !qemu.has_x2apic(accelerator) {
        let why = Verdict::Skipped(format!("needs QEMU {}", X2APIC_SINCE.major));
        tally.record(&format!("topology/{}", machine.name), &why);
        return Ok(tally);
    }
    let progress = Progress::start("", None);
    progress.note(&format!("{}: {}", machine.name, machine.topology));
    let spec = QemuSpec::new(machine.topology.clone(), accelerator);
    let mut session = Session::start(qemu, &spec, payload, &command_line(machine, &selection))?;
    let mut heard = Heard::default();
    let patience = qemu::patience(&machine.topology);
    let limits = Limits { total: TOTAL * patience, silence: SILENCE * patience };
    let end = session.listen(limits, |event| heard.note(event))?;
    drop(progress);
    if end == End::Interrupted {
        return end.error().map_or(Ok(tally), Err);
    }
    let log = format!("the end of the log:\n{}\nstarted with: {}", session.tail(), session.command_line());
    let apic = machine.expected_apic(qemu, accelerator);
    for (name, verdict) in judge(machine, &selection, apic, heard, &end, &log) {
        tally.record(&name, &verdict);
    }
    Ok(tally)
}

fn command_line(machine: &Machine, selection: &Selection) -> String {
    // A filter that no test's name can contain: only the topology is of interest.
    let filter = selection.kernel.as_deref().unwrap_or("!");
    let mut line = String::from("mode=test lane=tcg");
    if !filter.is_empty() {
        line.push_str(&format!(" filter={filter}"));
    }
    if machine.apic != ApicMode::Auto {
        line.push_str(&format!(" apic={}", machine.apic.word()));
    }
    if machine.mitigations != Mitigate::Auto {
        line.push_str(&format!(" mitigations={}", machine.mitigations.word()));
    }
    line
}

/// The verdicts on everything a boot was asked for. `log` is added to what a broken boot is blamed for.
fn judge(
    machine: &Machine,
    selection: &Selection,
    apic: &str,
    heard: Heard,
    end: &End,
    log: &str,
) -> Vec<(String, Verdict)> {
    let broken = || format!("{end}; {log}");
    let failed = heard.ended.iter().any(|(_, verdict)| matches!(verdict, Verdict::Failed(_)));
    let mut wrong = heard.seen.differences(&machine.topology, apic);
    wrong.extend(heard.damage);
    let mut verdicts = heard.ended;
    match (heard.running, end) {
        // A test that was cut off is the culprit; the boot itself went well.
        (Some(name), _) => verdicts.push((name, Verdict::Failed(broken()))),
        (None, End::Exit(Exit::Success | Exit::NothingMatched)) if heard.done && !failed => {}
        (None, End::Exit(Exit::TestsFailed)) if heard.done && failed => {}
        (None, _) => wrong.push(broken()),
    }
    for (name, _) in &mut verdicts {
        *name = format!("{}/{name}", machine.name);
    }
    // A boot that was only asked for its tests still counts when it goes wrong as a whole.
    if selection.topology || !wrong.is_empty() {
        let verdict = if wrong.is_empty() { Verdict::Passed } else { Verdict::Failed(wrong.join("\n")) };
        verdicts.push((format!("topology/{}", machine.name), verdict));
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::{Heard, Selection, command_line, judge};
    use crate::guest::End;
    use crate::test::machines::{self, BASIC, Machine};
    use crate::test::tally::Verdict;
    use abi::exit::Exit;
    use perf::record::{Done, Outcome, Record, TestEnd, TestStart};

    fn machine(name: &str) -> Machine {
        machines::all().into_iter().find(|machine| machine.name == name).unwrap()
    }

    fn words(filter: &str, name: &str) -> (bool, Option<String>) {
        let selection = Selection::of(filter, &machine(name));
        (selection.topology, selection.kernel)
    }

    #[test]
    fn filters() {
        assert_eq!(words("", "smp2"), (true, Some(String::new())));
        assert_eq!(words("", "uneven"), (true, Some(BASIC.join(","))));
        assert_eq!(words("frames", "smp2"), (false, Some("frames".into())));
        assert_eq!(words("frames", "uneven"), (false, None));
        assert_eq!(words("topology/uneven", "uneven"), (true, None));
        assert_eq!(words("topology/uneven", "smp2"), (false, None));
        assert_eq!(words("uneven", "uneven"), (true, Some(BASIC.join(","))));
        assert_eq!(words("smp2/frames.nodes,smp4/ipi", "smp2"), (false, Some("frames.nodes".into())));
        assert_eq!(words("smp2/", "smp2"), (false, Some(String::new())));
    }

    #[test]
    fn command_lines() {
        let line = |filter, name| command_line(&machine(name), &Selection::of(filter, &machine(name)));
        assert_eq!(line("", "smp1"), "mode=test lane=tcg");
        assert_eq!(line("topology/uneven", "uneven"), "mode=test lane=tcg filter=!");
        assert_eq!(line("clock", "xapic"), "mode=test lane=tcg filter=clock apic=xapic");
        assert!(line("isolated", "isolated").ends_with(" mitigations=all"));
        for name in ["smp1", "xapic"] {
            assert!(abi::boot::Params::parse(&line("clock", name)).is_ok());
        }
    }

    /// The verdicts after these records and this end, on a boot that reports no machine.
    fn verdicts(records: &[Record<'_>], end: End) -> Vec<(String, Verdict)> {
        let mut heard = Heard::default();
        for record in records {
            heard.note_record(record);
        }
        let selection = Selection { topology: false, kernel: Some(String::new()) };
        judge(&machine("smp1"), &selection, "xapic", heard, &end, "the log")
    }

    fn end(name: &str, outcome: Outcome) -> Record<'_> {
        Record::TestEnd(TestEnd { name, outcome, message: "" })
    }

    #[test]
    fn a_panic_fails_the_running_test() {
        let start = Record::TestStart(TestStart { name: "a" });
        let found = verdicts(&[start], End::Exit(Exit::Panic));
        assert_eq!(found[0].0, "smp1/a");
        assert!(
            matches!(&found[0].1, Verdict::Failed(why) if why.contains("panicked") && why.contains("the log"))
        );
    }

    #[test]
    fn the_exit_code_and_the_records_must_agree() {
        let blamed = |records: &[Record<'_>], end| {
            let found = verdicts(records, end);
            let (name, Verdict::Failed(why)) = found.last().unwrap() else { panic!("{found:?}") };
            assert_eq!(name, "topology/smp1");
            why.contains("the log")
        };
        let (good, bad, done) =
            (end("a", Outcome::Passed), end("a", Outcome::Failed), Record::Done(Done::default()));
        assert!(!blamed(&[good, done], End::Exit(Exit::Success)));
        assert!(!blamed(&[bad, done], End::Exit(Exit::TestsFailed)));
        assert!(blamed(&[bad, done], End::Exit(Exit::Success)));
        assert!(blamed(&[good, done], End::Exit(Exit::TestsFailed)));
        assert!(blamed(&[good], End::Exit(Exit::Success)));
        assert!(blamed(&[good, done], End::Qemu("reset".into())));
    }
}
