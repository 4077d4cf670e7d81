//! Tests that need no QEMU: every crate's own, the loader's portable part, and the loom models.

use super::tally::Tally;
use crate::error::{Class, Error, Result};
use crate::process;
use crate::ui::{self, Progress};
use crate::workspace;
use std::process::{Command, Output};
use std::time::Duration;

/// One call of `cargo test`.
struct Group {
    name: &'static str,
    arguments: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Built with `--cfg loom`, which replaces every atomic; in a target folder of its own.
    Loom,
}

const GROUPS: &[Group] = &[
    Group { name: "host", arguments: &[], kind: Kind::Plain },
    Group { name: "loader", arguments: &["-p", "boot", "--lib"], kind: Kind::Plain },
    Group { name: "loom", arguments: &["--release", "-p", "percpu", "-p", "mm", "--lib"], kind: Kind::Loom },
];

/// What names a loom model: the tests built with `--cfg loom` that are run under it.
const LOOM_FILTER: &str = "loom";
/// Preemptions that loom explores; two find nearly every bug known from experience (CHESS, PLDI 2007, section 5).
const LOOM_PREEMPTIONS: &str = "2";
const LOOM_PREEMPTIONS_SOAK: &str = "4";
const LIMIT: Duration = Duration::from_secs(20 * 60);
const LIMIT_SOAK: Duration = Duration::from_secs(4 * 60 * 60);

/// Effort of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    /// Minutes.
    Usual,
    /// Hours.
    Soak,
}

/// Runs them.
///
/// # Errors
/// A build fails, or a group takes far too long. A failed test is no error but a count.
pub(super) fn run(filter: &str, effort: Effort) -> Result<Tally> {
    let mut total = Tally::default();
    for group in GROUPS {
        let progress = Progress::start(&format!("test: {}", group.name), None);
        let limit = if effort == Effort::Soak { LIMIT_SOAK } else { LIMIT };
        let output = process::collect_within(&mut command(group, filter, effort), limit)?;
        drop(progress);
        let tally = judge(group, &output)?;
        ui::line(&format!("test: {}: {tally}", group.name));
        total = total.plus(tally);
    }
    Ok(total)
}

fn command(group: &Group, filter: &str, effort: Effort) -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--no-fail-fast"]).args(group.arguments);
    let words = filter.split(',').filter(|word| !word.is_empty());
    match group.kind {
        Kind::Plain => {
            command.arg("--").args(words);
        }
        Kind::Loom => {
            let preemptions = if effort == Effort::Soak { LOOM_PREEMPTIONS_SOAK } else { LOOM_PREEMPTIONS };
            command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", workspace::target().join("loom"));
            command.env("LOOM_MAX_PREEMPTIONS", preemptions);
            command.arg("--");
            // libtest takes words as alternatives, so a word is kept only if it says loom already.
            let mut words = words.filter(|word| word.contains(LOOM_FILTER)).peekable();
            match words.peek() {
                Some(_) => command.args(words),
                None => command.arg(LOOM_FILTER),
            };
        }
    }
    command
}

fn judge(group: &Group, output: &Output) -> Result<Tally> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let tally = count(&stdout);
    if output.status.success() {
        return Ok(tally);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    if tally.failed == 0 {
        let what = format!("`cargo test` of {} failed ({})\n{}{}", group.name, output.status, stdout, stderr);
        return Err(Error::new(Class::BuildFailed, what.trim_end()).next("fix what the compiler reports"));
    }
    for line in failures(&stdout) {
        ui::line(line);
    }
    Ok(tally)
}

/// Adds up the `test result:` lines of libtest.
fn count(stdout: &str) -> Tally {
    let mut tally = Tally::default();
    for line in stdout.lines().filter_map(|line| line.strip_prefix("test result: ")) {
        let number = |name: &str| -> u32 {
            let parts = line.split([';', '.']).map(str::trim);
            parts.filter_map(|part| part.strip_suffix(name)?.trim().parse().ok()).next().unwrap_or(0)
        };
        tally.passed += number("passed");
        tally.failed += number("failed");
        tally.skipped += number("ignored");
    }
    tally
}

/// The part of libtest's output that explains failures: everything but the passed tests.
fn failures(stdout: &str) -> impl Iterator<Item = &str> {
    let dull =
        |line: &&str| (line.starts_with("test ") && line.ends_with("... ok")) || line.trim().is_empty();
    stdout.lines().filter(move |line| !dull(line))
}

#[cfg(test)]
mod tests {
    use super::{Effort, GROUPS, Kind, Tally, command, count, failures};

    const OUTPUT: &str = "\nrunning 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nboom\n\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s\n\n\
        running 3 tests\ntest result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.2s\n";

    #[test]
    fn adds_up_libtest() {
        assert_eq!(count(OUTPUT), Tally { passed: 13, failed: 1, skipped: 2 });
        assert_eq!(count("error: could not compile"), Tally::default());
    }

    #[test]
    fn shows_what_failed() {
        let shown: Vec<_> = failures(OUTPUT).collect();
        assert!(shown.contains(&"boom") && !shown.contains(&"test a ... ok"));
    }

    #[test]
    fn loom_runs_models_only() {
        let group = GROUPS.iter().find(|group| group.kind == Kind::Loom).unwrap();
        let words = |filter| {
            let command = command(group, filter, Effort::Usual);
            let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
            words.split(|word| word == "--").nth(1).unwrap().to_vec()
        };
        assert_eq!(words(""), ["loom"]);
        assert_eq!(words("mailbox,loom_epoch"), ["loom_epoch"]);
    }
}
