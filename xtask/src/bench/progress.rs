//! Live progress: which case runs, how many there are, how long it may still take.

use crate::results::schema::{CaseRow, CaseStatus};
use crate::ui::{self, duration};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// Where progress goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Output {
    /// One live line, and lines only for what is wrong.
    Terminal,
    /// A line for each case.
    Lines(fn(&str)),
}

impl Output {
    /// What standard error allows.
    pub(super) fn detect() -> Self {
        if io::stderr().is_terminal() { Self::Terminal } else { Self::Lines(ui::line) }
    }
}

/// Progress of one start of the target.
pub(super) struct Progress {
    output: Output,
    live: Option<ui::Progress>,
    prefix: String,
    began: Instant,
    first: u32,
    cases: u32,
    index: u32,
}

impl Progress {
    /// Nothing is known yet but the repetition.
    pub(super) fn new(output: Output, repeat: u32, repeats: u32) -> Self {
        let prefix = if repeats > 1 { format!("boot {}/{repeats} ", repeat + 1) } else { String::new() };
        let live = match output {
            Output::Terminal => Some(ui::Progress::start(&format!("bench: {prefix}starting"), None)),
            Output::Lines(_) => None,
        };
        Self { output, live, prefix, began: Instant::now(), first: 0, cases: 0, index: 0 }
    }

    /// The suite has begun.
    pub(super) fn suite(&mut self, cases: u32, first: u32) {
        (self.cases, self.first, self.began) = (cases, first, Instant::now());
        match self.output {
            Output::Terminal => {
                let live = ui::Progress::start("", Some(u64::from(cases)));
                (0..first).for_each(|_| live.step());
                self.live = Some(live);
            }
            Output::Lines(print) => print(&format!("bench: {}{cases} cases", self.prefix)),
        }
    }

    /// A case has begun.
    pub(super) fn started(&mut self, index: u32, key: &str) {
        self.index = index;
        let left =
            remaining(self.began.elapsed(), index - self.first.min(index), self.cases.saturating_sub(index));
        let left = left.map(|left| format!(", about {} left", duration(left))).unwrap_or_default();
        if let Some(live) = &self.live {
            live.note(&format!("{}{key}{left}", self.prefix));
        }
    }

    /// A case has ended.
    pub(super) fn finished(&mut self, row: &CaseRow) {
        let (place, time) = (self.index + 1, duration(self.began.elapsed()));
        let line = format!("[{place:>3}/{}] {time:>6} {}{}{}", self.cases, self.prefix, row.id, remark(row));
        match (self.output, &self.live) {
            (Output::Lines(print), _) => print(&line),
            (Output::Terminal, Some(live)) => {
                live.step();
                if row.status == CaseStatus::Failed {
                    live.print(&line);
                }
            }
            (Output::Terminal, None) => {}
        }
    }

    /// Something is wrong that belongs to no case.
    pub(super) fn warn(&mut self, what: &str) {
        let line = format!("warning: {what}");
        match (self.output, &self.live) {
            (Output::Lines(print), _) => print(&line),
            (Output::Terminal, Some(live)) => live.print(&line),
            (Output::Terminal, None) => ui::line(&line),
        }
    }
}

fn remark(row: &CaseRow) -> String {
    let reason = row.reason.as_deref().unwrap_or("no reason given");
    match row.status {
        CaseStatus::Ok => String::new(),
        CaseStatus::Failed => format!(": FAILED, {reason}"),
        CaseStatus::Refused => format!(": refused, {reason}"),
        CaseStatus::Skipped => format!(": skipped, {reason}"),
    }
}

/// Time for `left` cases if they take as long as the `done` ones did on average; nothing is said before the third.
fn remaining(elapsed: Duration, done: u32, left: u32) -> Option<Duration> {
    (done >= 3).then(|| elapsed * left / done)
}

#[cfg(test)]
mod tests {
    use super::{duration, remaining};
    use std::time::Duration;

    #[test]
    fn the_estimate_waits_for_three_cases() {
        assert_eq!(remaining(Duration::from_secs(10), 2, 8), None);
        assert_eq!(remaining(Duration::from_secs(12), 4, 8), Some(Duration::from_secs(24)));
        assert_eq!(duration(Duration::from_millis(61_900)), "1m1s");
    }
}
