//! Threads that talk on one core meet nobody else: no line of memory that a core writes on the way is read or written by another core that
//! does the same.
//!
//! Two pairs on two cores call and answer, in one space and in four, while a plugin of QEMU's (`witness/`) writes down every access of the
//! kernel's from entry to exit. The ways of a call and of an answer are those that are commonest; what happens else now and then, as an
//! interrupt, is left out, and has to be rare.

use super::tally::{Tally, Verdict};
use crate::error::{Error, Result};
use crate::guest::{End, Event, Flow, Limits, Session};
use crate::image::Image;
use crate::qemu::{Accelerator, Qemu, QemuSpec};
use crate::topology::{Mebibytes, Topology};
use crate::witness::{self, Symbols};
use crate::workspace;
use abi::boot::selects;
use abi::exit::Exit;
use perf::record::{Record, Status};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// What is tested, and how many cases of the row come before it.
///
/// Planted: the kernel's way of a call adds 0 to a word that all cores have. Seen in one space only: in two the row was not measured then.
const TESTS: [(&str, u32); 2] = [("local/same-space", 0), ("local/other-space", 1)];
const ROW: &str = "ipc.pairs/cores=2";
/// Where the kernel begins with a message.
const THROUGH: &str = "message_entry";
/// Stays of each core in the kernel that are left out, as the threads find each other meanwhile; and looked at.
const SKIPPED: usize = 400;
const SEEN: usize = 1000;
/// The ways of a call and of an answer.
const WAYS: usize = 2;
/// Of each core's stays so many hundredths take them.
const LEAST_SHARE: usize = 95;
const LINE: u64 = 64;
/// How often the row may fail to measure, before that is a failure.
const ATTEMPTS: u32 = 4;

const LIMITS: Limits = Limits { total: Duration::from_secs(120), silence: Duration::from_secs(60) };

/// Runs the tests that `filter` selects.
///
/// # Errors
/// QEMU cannot be started, the plugin cannot be built, or the user interrupts.
pub(super) fn run(filter: &str, qemu: &Qemu, image: &Image) -> Result<Tally> {
    let mut tally = Tally::default();
    let chosen: Vec<_> = TESTS.iter().filter(|(name, _)| selects(filter, name)).collect();
    if chosen.is_empty() {
        return Ok(tally);
    }
    if !qemu.takes_plugins()? {
        let why = String::from(witness::NO_PLUGINS);
        chosen.iter().for_each(|(name, _)| tally.record(name, &Verdict::Skipped(why.clone())));
        return Ok(tally);
    }
    let plugin = witness::build()?;
    let entry = Symbols::of(&image.kernel)?.address(THROUGH)?;
    for (name, after) in chosen {
        let told = workspace::output("witness")?.join("stays");
        let wanted = format!(
            "file={},out={},through={entry:x},skip={SKIPPED},most={SEEN}",
            plugin.display(),
            told.display()
        );
        tally.record(name, &attempt(&wanted, *after, &told, qemu, image)?);
    }
    Ok(tally)
}

fn attempt(plugin: &str, after: u32, told: &Path, qemu: &Qemu, image: &Image) -> Result<Verdict> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match boot(plugin, after, qemu, image)? {
            Booted::Measured => {
                let text = fs::read_to_string(told).map_err(|error| Error::io(&error, "read", told))?;
                return Ok(judge(&text));
            }
            Booted::NotMeasured(why) => last = why,
            Booted::Failed(why) => return Ok(Verdict::Failed(why)),
        }
    }
    Ok(Verdict::Failed(format!("{ROW} was not measured in {ATTEMPTS} boots: {last}")))
}

enum Booted {
    Measured,
    /// As on a host that is too busy: the clock is unsteady, or a thread does nothing for a whole window.
    NotMeasured(String),
    Failed(String),
}

fn boot(plugin: &str, after: u32, qemu: &Qemu, image: &Image) -> Result<Booted> {
    // A thread for each core: without, a plugin is told the number of the core that ran an instruction first, whoever runs it.
    let spec = QemuSpec::new(Topology::even(2, 1, Mebibytes::new(512))?, Accelerator::TcgMulti);
    let spec = QemuSpec { plugin: Some(plugin.to_owned()), ..spec };
    // The row is none of the emulator's usual lane, where it would take too long on one thread.
    let line = format!("mode=bench lane=kvm samples=1 after={after} filter={ROW}");
    let mut session = Session::start(qemu, &spec, &image.payload, &line)?;
    let mut first = None;
    let end = session.listen(LIMITS, |event| {
        if let Event::Frame { record: Record::Case(row), .. } = event
            && first.is_none()
        {
            first = Some((row.status, row.reason.to_owned()));
        }
        Flow::Continue
    })?;
    Ok(match (end, first) {
        (End::Interrupted, _) => {
            return End::Interrupted.error().map_or(Ok(Booted::Failed(String::new())), Err);
        }
        (End::Exit(Exit::Success), Some((Status::Ok, _))) => Booted::Measured,
        (End::Exit(_), Some((status, reason))) => Booted::NotMeasured(format!("{status}: {reason}")),
        (end, _) => Booted::Failed(format!("{end}\nthe end of the log:\n{}", session.tail())),
    })
}

/// The lines that a way through the kernel reads or writes, each with an instruction that does.
#[derive(Debug, Default)]
struct Way {
    stays: usize,
    reads: BTreeMap<u64, u64>,
    writes: BTreeMap<u64, u64>,
    devices: Vec<u64>,
}

/// The stays of one core, by the instructions that were executed.
type Ways = BTreeMap<Vec<u64>, Way>;

fn judge(text: &str) -> Verdict {
    let Some(cores) = read(text) else {
        return Verdict::Failed(String::from("the plugin has written something else"));
    };
    if cores.len() != 2 {
        return Verdict::Failed(format!("{} cores were seen", cores.len()));
    }
    let mut wrong = Vec::new();
    let commonest = |(core, ways): (u32, Ways)| {
        let total: usize = ways.values().map(|way| way.stays).sum();
        let mut ways: Vec<Way> = ways.into_values().collect();
        ways.sort_by_key(|way| std::cmp::Reverse(way.stays));
        ways.truncate(WAYS);
        let taken: usize = ways.iter().map(|way| way.stays).sum();
        if total < SEEN || taken * 100 < total * LEAST_SHARE {
            wrong.push(format!("core {core}: {taken} of {total} stays take the commonest ways"));
        }
        (core, ways)
    };
    let cores: Vec<_> = cores.into_iter().map(commonest).collect();
    for (core, ways) in &cores {
        let others = cores.iter().filter(|(other, _)| other != core);
        wrong.extend(ways.iter().flat_map(|way| &way.devices).map(|at| format!("{at:x} accesses a device")));
        for (other, theirs) in others {
            wrong.extend(meetings(*core, ways, *other, theirs));
        }
    }
    if wrong.is_empty() { Verdict::Passed } else { Verdict::Failed(wrong.join("\n")) }
}

/// Lines that a core writes and another reads or writes.
fn meetings(core: u32, ways: &[Way], other: u32, theirs: &[Way]) -> Vec<String> {
    let mut found = BTreeMap::new();
    for (line, writer) in ways.iter().flat_map(|way| &way.writes) {
        let met = theirs.iter().find_map(|way| way.writes.get(line).or_else(|| way.reads.get(line)));
        if let Some(met) = met {
            found.insert(*line, (*writer, *met));
        }
    }
    let tell = |(line, (writer, met)): (u64, (u64, u64))| {
        let at = line * LINE;
        format!(
            "physical line {at:x}: written by core {core} at {writer:x}, accessed by core {other} at {met:x}"
        )
    };
    found.into_iter().map(tell).collect()
}

/// The plugin's file; `None` if it is something else.
fn read(text: &str) -> Option<BTreeMap<u32, Ways>> {
    let mut cores: BTreeMap<u32, Ways> = BTreeMap::new();
    let mut stay: Option<(u32, Vec<u64>, Way)> = None;
    let mut close = |stay: Option<(u32, Vec<u64>, Way)>| {
        let Some((core, way, seen)) = stay else { return };
        let all = cores.entry(core).or_default().entry(way).or_default();
        all.stays += 1;
        all.reads.extend(seen.reads);
        all.writes.extend(seen.writes);
        all.devices.extend(seen.devices);
    };
    for line in text.lines() {
        let (word, rest) = line.split_once(' ')?;
        let mut numbers = rest.split(' ').map(|number| u64::from_str_radix(number, 16));
        let mut next = || numbers.next()?.ok();
        if word == "enter" {
            close(stay.take());
            stay = Some((u32::try_from(next()?).ok()?, Vec::new(), Way::default()));
            continue;
        }
        let (_, way, seen) = stay.as_mut()?;
        if word == "run" {
            way.push(next()?);
            continue;
        }
        let (by, _, from, bytes) = (*way.last()?, next()?, next()?, next()?);
        let lines = from / LINE..=(from + bytes - 1) / LINE;
        match word {
            "read" => seen.reads.extend(lines.map(|line| (line, by))),
            "write" => seen.writes.extend(lines.map(|line| (line, by))),
            "device" => seen.devices.push(by),
            _ => return None,
        }
    }
    close(stay);
    Some(cores)
}

#[cfg(test)]
mod tests {
    use super::{SEEN, Verdict, judge};

    /// Stays of two cores, each a call at one address and an answer at another, that read and write these addresses.
    fn stays(count: usize, touched: [&str; 2]) -> String {
        let stay = |core: usize, at: &str| format!("enter {core}\nrun {at}\n{}\n", touched[core]);
        let both = |core| stay(core, "10") + &stay(core, "20");
        (0..2).map(|core| both(core).repeat(count / 2)).collect()
    }

    fn fails(text: &str, part: &str) {
        let Verdict::Failed(why) = judge(text) else { panic!("{part}: passed") };
        assert!(why.contains(part), "{why}");
    }

    #[test]
    fn apart_is_fine() {
        let touched = ["write 0 1000 8\nread 0 3000 8", "write 0 1040 8\nread 0 3000 8"];
        assert_eq!(judge(&stays(SEEN, touched)), Verdict::Passed);
    }

    #[test]
    fn each_meeting_is_found() {
        fails(
            &stays(SEEN, ["write 0 1000 8", "write 0 1038 8"]),
            "line 1000: written by core 0 at 20, accessed by core 1",
        );
        fails(
            &stays(SEEN, ["read 0 1000 8", "write 0 ffc 8"]),
            "line 1000: written by core 1 at 20, accessed by core 0",
        );
        fails(&stays(SEEN, ["read 0 1000 8", "device 0 fee00000 4"]), "20 accesses a device");
    }

    #[test]
    fn too_little_says_nothing() {
        fails(&stays(SEEN - 2, ["read 0 1000 8", "read 0 1000 8"]), "stays take the commonest ways");
        let other = |way: usize| format!("enter 0\nrun {way:x}\n");
        let others: String = (0x100..0x100 + SEEN / 10).map(other).collect();
        fails(&(stays(SEEN, ["read 0 0 8", "read 0 0 8"]) + &others), "1000 of 1100 stays");
        fails("enter 0\nrun 10\n", "1 cores were seen");
        fails("what 1", "something else");
    }
}
