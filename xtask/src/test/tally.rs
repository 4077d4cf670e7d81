//! Counting tests, and the lines that say how they went.

use crate::ui;
use std::fmt;

/// How one test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should.
    Passed,
    /// Not as it should; what was seen.
    Failed(String),
    /// It makes no sense here; why.
    Skipped(String),
}

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Passed tests.
    pub passed: u32,
    /// Failed tests.
    pub failed: u32,
    /// Skipped tests.
    pub skipped: u32,
}

impl Tally {
    /// Counts one test and prints its line.
    pub(super) fn record(&mut self, name: &str, verdict: &Verdict) {
        self.count(verdict);
        ui::line(&match verdict {
            Verdict::Passed => format!("test {name} ... ok"),
            Verdict::Failed(why) => format!("test {name} ... FAILED\n{}", indent(why)),
            Verdict::Skipped(why) => format!("test {name} ... skipped: {why}"),
        });
    }

    fn count(&mut self, verdict: &Verdict) {
        let counter = match verdict {
            Verdict::Passed => &mut self.passed,
            Verdict::Failed(_) => &mut self.failed,
            Verdict::Skipped(_) => &mut self.skipped,
        };
        *counter += 1;
    }

    /// Both counts together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    /// Tests that were selected at all.
    pub(super) fn selected(self) -> u32 {
        self.passed + self.failed + self.skipped
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped != 0 {
            write!(out, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Tally, Verdict};

    #[test]
    fn the_summary_line() {
        let mut tally = Tally::default();
        tally.count(&Verdict::Passed);
        assert_eq!(tally.to_string(), "1 passed, 0 failed");
        tally.count(&Verdict::Failed("why".into()));
        tally.count(&Verdict::Skipped("needs QEMU 9".into()));
        assert_eq!(tally.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!((tally.selected(), tally.plus(tally).passed), (3, 2));
    }
}
