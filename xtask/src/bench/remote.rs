//! A machine that commands switch on: real hardware with a power switch and a serial line that other programs reach.
//!
//! A TOML file names the commands; `sh` runs them with the kernel command line in `NEARFIELD_CMDLINE`. Each start builds, opens the
//! console, and only then switches the machine on, so that nothing it says is missed.

use crate::bench::target::Target;
use crate::error::{Class, Error, Result};
use crate::guest::{End, Flow, Limits, Session};
use crate::process;
use crate::ui;
use abi::boot::Lane;
use perf::record::{Event, Record};
use serde::Deserialize;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The variable that commands find the kernel command line in.
const CMDLINE: &str = "NEARFIELD_CMDLINE";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Commands {
    /// Name of the machine in results.
    name: String,
    /// `hw`, or the lane that the machine really is.
    #[serde(default = "hardware")]
    lane: String,
    /// Makes what the machine boots with the kernel command line, and puts it where it boots from.
    build: Option<String>,
    /// Gives the serial port on its standard output until it is stopped.
    console: String,
    /// Switches the machine on, or off and on.
    power: String,
    /// Switches it off after a start.
    off: Option<String>,
}

fn hardware() -> String {
    Lane::Hw.word().to_owned()
}

/// The machine.
#[derive(Debug)]
pub(super) struct Remote {
    commands: Commands,
    lane: Lane,
}

impl Remote {
    /// Reads the file of a machine.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| Error::io(&error, "read", path))?;
        Self::parse(&text).map_err(|error| error.within(&path.display().to_string()))
    }

    fn parse(text: &str) -> Result<Self> {
        let bad = |what: String| {
            Error::new(Class::Usage, what).next("results/README.md shows what the file of a machine holds")
        };
        let commands: Commands = toml::from_str(text).map_err(|error| bad(error.message().to_owned()))?;
        let lane = Lane::parse(&commands.lane).filter(|&lane| lane != Lane::Native);
        let lane = lane.ok_or_else(|| bad(format!("a machine has no lane `{}`", commands.lane)))?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if commands.name.is_empty() || commands.name.starts_with('.') || !commands.name.chars().all(plain) {
            return Err(bad(format!("the name `{}` is no name of a folder", commands.name)));
        }
        Ok(Self { commands, lane })
    }

    /// Its name in results.
    pub(super) fn name(&self) -> &str {
        &self.commands.name
    }

    /// The lane it measures in.
    pub(super) fn lane(&self) -> Lane {
        self.lane
    }
}

/// Runs one of the commands to its end.
fn command(what: &str, line: &str, cmdline: &str) -> Result<()> {
    ui::line(&format!("machine: {what}: {line}"));
    let next = "try the command by hand";
    process::succeed(&mut shell(line, cmdline), Class::Io, &format!("the command `{what}`"), next).map(|_| ())
}

fn shell(line: &str, cmdline: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).env(CMDLINE, cmdline);
    command
}

impl Target for Remote {
    fn boot(
        &mut self,
        cmdline: &str,
        limits: Limits,
        listener: &mut dyn FnMut(Event<'_>) -> Flow,
    ) -> Result<End> {
        let Commands { build, console, power, off, .. } = &self.commands;
        if let Some(build) = build {
            command("build", build, cmdline)?;
        }
        let mut session = Session::attach(&mut shell(console, cmdline), console.clone())?;
        command("power", power, cmdline)?;
        // Hardware does not go away by itself when its suite is done.
        let mut hear = |event: Event<'_>| {
            let done = matches!(event, Event::Frame { record: Record::Done(_), .. });
            match listener(event) {
                Flow::Continue if done => Flow::Stop,
                flow => flow,
            }
        };
        let end = session.listen(limits, &mut hear)?;
        drop(session);
        if let Some(off) = off {
            command("off", off, cmdline)?;
        }
        // The exit status of the console is not the guest's.
        Ok(match end {
            End::Exit(_) => End::Console("its exit status says nothing about the machine".to_owned()),
            End::Qemu(why) => End::Console(why),
            end => end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Remote;
    use crate::bench::progress::Output;
    use crate::bench::suite::{Outcome, Plan, Suite};
    use crate::error::{Class, Result};
    use crate::guest::Limits;
    use crate::results::disk::FileSystem;
    use crate::results::reader::Run;
    use crate::results::schema::CaseStatus;
    use crate::results::testing::{self, TempDir};
    use crate::results::writer::RunWriter;
    use abi::boot::{Lane, Profile};
    use std::fs;
    use std::time::Duration;

    const KEYS: [&str; 3] = ["a.b/x=1", "a.b/x=2", "c"];

    /// A machine in a folder: its power command lets the next of its starts speak on a serial line that a pipe plays.
    fn machine(dir: &TempDir, starts: &[Vec<u8>]) -> Remote {
        for (number, bytes) in starts.iter().enumerate() {
            fs::write(dir.path().join(format!("start{number}")), bytes).unwrap();
        }
        let here = dir.path().display();
        let text = format!(
            "name = \"fake-1\"\nlane = \"tcg\"\n\
             build = 'rm -f {here}/line; mkfifo {here}/line; echo \"$NEARFIELD_CMDLINE\" >> {here}/lines'\n\
             console = 'cat {here}/line; sleep 600'\n\
             power = 'n=$(wc -l < {here}/lines); (cat {here}/start$((n - 1)) > {here}/line) > /dev/null 2>&1 &'\n\
             off = 'echo off >> {here}/switched'\n"
        );
        Remote::parse(&text).unwrap()
    }

    fn run(dir: &TempDir, remote: &mut Remote) -> Result<Outcome> {
        let limits = Limits { total: Duration::from_secs(120), silence: Duration::from_secs(3) };
        let plan = Plan {
            filter: String::new(),
            profile: Profile::Quick,
            samples: None,
            lane: Lane::Tcg,
            repeats: 1,
            trace: String::new(),
            limits,
        };
        let writer = RunWriter::create(
            FileSystem,
            &dir.path().join("runs"),
            testing::run_file("r"),
            testing::env_file(),
        )?;
        let mut suite = Suite::new(writer, plan, Output::Lines(|_| ()));
        suite.run(remote).and_then(|outcome| suite.close().map(|()| outcome))
    }

    /// The second case hangs the machine in its first start: it is switched on again behind it.
    #[test]
    fn a_machine_is_built_for_switched_on_and_heard() {
        let dir = TempDir::new("machine");
        let died = testing::suite_frames(&KEYS, 0)[..5 + 7 + 3].concat();
        let rest = testing::suite_frames(&KEYS, 2).concat();
        let outcome = run(&dir, &mut machine(&dir, &[died, rest])).unwrap();
        assert_eq!(outcome.first_failure, Some(Class::Timeout));
        let run = Run::latest(&dir.path().join("runs")).unwrap();
        assert!(run.is_complete());
        let statuses: Vec<CaseStatus> = run.rows.iter().map(|row| row.status).collect();
        assert_eq!(statuses, [CaseStatus::Ok, CaseStatus::Failed, CaseStatus::Ok]);
        let lines = fs::read_to_string(dir.path().join("lines")).unwrap();
        assert_eq!(lines, "mode=bench lane=tcg profile=quick\nmode=bench lane=tcg profile=quick after=2\n");
        assert_eq!(fs::read_to_string(dir.path().join("switched")).unwrap(), "off\noff\n");
    }

    #[test]
    fn a_command_that_fails_ends_the_suite() {
        let dir = TempDir::new("machine-fails");
        let text = "name = \"x\"\nconsole = \"sleep 600\"\npower = \"echo no such outlet >&2; exit 3\"\n";
        let error = run(&dir, &mut Remote::parse(text).unwrap()).unwrap_err();
        assert_eq!(error.class(), Class::Io);
        assert!(error.to_string().contains("no such outlet"), "{error}");
        let text = "name = \"x\"\nconsole = \"echo unplugged >&2; exit 67\"\npower = \"true\"\n";
        let dir = TempDir::new("machine-deaf");
        let error = run(&dir, &mut Remote::parse(text).unwrap()).unwrap_err();
        assert_eq!(error.class(), Class::Io);
        assert!(error.to_string().contains("console"), "{error}");
    }

    #[test]
    fn files_say_what_is_wrong_with_them() {
        let good = "name = \"x\"\nconsole = \"a\"\npower = \"b\"\n";
        assert_eq!(Remote::parse(good).unwrap().lane(), Lane::Hw);
        for bad in [
            "name = \"x\"\n",
            &good.replace("\"x\"", "\"../x\""),
            &good.replace("\"x\"", "\"\""),
            &format!("{good}lane = \"fast\"\n"),
            &format!("{good}lane = \"native\"\n"),
            &format!("{good}volts = 230\n"),
        ] {
            assert_eq!(Remote::parse(bad).unwrap_err().class(), Class::Usage, "{bad}");
        }
    }
}
