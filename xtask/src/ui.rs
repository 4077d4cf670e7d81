//! What the user sees while something runs: a live line on a terminal, plain lines elsewhere.

use crate::interrupt;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Prints one line to standard output. A closed pipe is not worth a panic: the exit code still tells the outcome.
pub fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Prints one line to standard error: what is said beside the answer, which a program may read.
pub fn aside(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A time in whole seconds, as short as it can be: `1m1s`.
#[must_use]
pub fn duration(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string().replace(' ', "")
}

/// One activity that takes a while.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Shows that `text` goes on; with a known number of steps as a bar.
    #[must_use]
    pub fn start(text: &str, steps: Option<u64>) -> Self {
        if !io::stderr().is_terminal() {
            if !text.is_empty() {
                line(text);
            }
            return Self { bar: None };
        }
        let bar = match steps {
            Some(steps) => ProgressBar::new(steps).with_style(style("{bar:30} {pos}/{len} {elapsed} {msg}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {elapsed} {msg}")),
        };
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(interrupt::POLL * 2);
        Self { bar: Some(bar) }
    }

    /// Replaces the live text; elsewhere than on a terminal nothing is printed.
    pub fn note(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    /// Replaces the live text; elsewhere than on a terminal it is a line of its own, beside what the command answers.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => aside(text),
        }
    }

    /// As [`aside`], above the live line.
    pub fn aside(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| aside(text)),
            None => aside(text),
        }
    }

    /// One more step is done.
    pub fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Prints a line that stays.
    pub fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| line(text)),
            None => line(text),
        }
    }

    /// Time since the start; zero where nothing is shown.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.bar.as_ref().map_or(Duration::ZERO, ProgressBar::elapsed)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
