//! Tests that need no QEMU: every crate's own, the loader's portable part, and the loom models.

use super::tally::Tally;
use crate::error::{Class, Error, Result};
use crate::process;
use crate::programs;
use crate::ui::{self, Progress};
use crate::workspace;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// One call of `cargo test`.
struct Group {
    name: &'static str,
    arguments: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// Optimised, and so many more random histories.
    Long,
    /// Built with `--cfg loom`, which replaces every atomic and leaves only the models; in a target folder of its own.
    Loom,
}

const GROUPS: &[Group] = &[
    Group { name: "crates", arguments: &["--workspace", "--exclude", "kernel"], kind: Kind::Plain },
    Group {
        name: "models",
        arguments: &["--release", "-p", "mm", "--test", "space_model"],
        kind: Kind::Long,
    },
    Group {
        name: "loom",
        arguments: &[
            "--release",
            "-p",
            "percpu",
            "-p",
            "mm",
            "-p",
            "cap",
            "-p",
            "ipc",
            "-p",
            "perf",
            "-p",
            "rt",
            "--lib",
        ],
        kind: Kind::Loom,
    },
];

/// Random histories of address spaces: 4 million operations and accesses, and 400 million.
const CASES: &str = "2000";
const SOAK_CASES: &str = "200000";

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
        let started = Instant::now();
        let limit = if effort == Effort::Soak { LIMIT_SOAK } else { LIMIT };
        let output = process::collect_within(&mut command(group, filter, effort), limit)?;
        drop(progress);
        let tally = judge(group, &output)?;
        ui::line(&format!("test: {}: {tally}, in {} s", group.name, started.elapsed().as_secs()));
        total = total.plus(tally);
    }
    Ok(total)
}

fn command(group: &Group, filter: &str, effort: Effort) -> Command {
    let mut command = workspace::cargo();
    command.args(["test", "--no-fail-fast"]).args(group.arguments);
    if group.arguments.contains(&"--workspace") {
        programs::exclude(&mut command);
    }
    if group.kind == Kind::Long {
        let cases = if effort == Effort::Soak { SOAK_CASES } else { CASES };
        command.env("SPACE_CASES", cases);
    }
    if group.kind == Kind::Loom {
        command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", workspace::target().join("loom"));
    }
    command.arg("--").args(filter.split(',').filter(|word| !word.is_empty()));
    command
}

fn judge(group: &Group, output: &Output) -> Result<Tally> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut tally = count(&stdout);
    for line in skipped(&stderr) {
        ui::line(&format!("test: {line}"));
        // To libtest it has passed.
        tally.passed = tally.passed.saturating_sub(1);
        tally.skipped += 1;
    }
    if output.status.success() {
        return Ok(tally);
    }
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

/// What tests say that lack something they need: one line each, however often they say it.
fn skipped(stderr: &str) -> BTreeSet<&str> {
    stderr.lines().filter(|line| line.starts_with("skipped: ")).collect()
}

/// The part of libtest's output that explains failures: everything but the passed tests.
fn failures(stdout: &str) -> impl Iterator<Item = &str> {
    let dull =
        |line: &&str| (line.starts_with("test ") && line.ends_with("... ok")) || line.trim().is_empty();
    stdout.lines().filter(move |line| !dull(line))
}

#[cfg(test)]
mod tests {
    use super::{GROUPS, Tally, command, count, failures, judge, skipped};
    use std::process::{ExitStatus, Output};

    const OUTPUT: &str = "\nrunning 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nboom\n\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.01s\n\n\
        running 3 tests\ntest result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.2s\n";

    #[test]
    fn adds_up_libtest() {
        assert_eq!(count(OUTPUT), Tally { passed: 13, failed: 1, skipped: 2 });
        assert_eq!(count("error: could not compile"), Tally::default());
    }

    #[test]
    fn what_a_host_lacks_is_counted_as_skipped() {
        let stderr = "   Running a\nskipped: a: no Chromium\nskipped: b: no jq\nskipped: b: no jq\n";
        assert_eq!(skipped(stderr).len(), 2);
        let output = Output {
            status: ExitStatus::default(),
            stdout: b"test result: ok. 5 passed; 0 failed; 0 ignored;\n".to_vec(),
            stderr: stderr.into(),
        };
        assert_eq!(judge(&GROUPS[0], &output).unwrap(), Tally { passed: 3, failed: 0, skipped: 2 });
    }

    #[test]
    fn shows_what_failed() {
        let shown: Vec<_> = failures(OUTPUT).collect();
        assert!(shown.contains(&"boom") && !shown.contains(&"test a ... ok"));
    }

    #[test]
    fn filters_are_alternatives() {
        for group in GROUPS {
            let words = |filter: &str| {
                let command = command(group, filter, super::Effort::Usual);
                let words: Vec<_> =
                    command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
                words.split(|word| word == "--").nth(1).unwrap_or_default().to_vec()
            };
            assert_eq!(words(""), Vec::<String>::new());
            assert_eq!(words("mailbox,,epoch"), ["mailbox", "epoch"]);
        }
    }
}
