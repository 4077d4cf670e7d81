//! Runs the selected cases as often as asked for, starting the machine again after every case that killed it.
//!
//! B1: a case that ended is on disk before the next event is looked at. B2: a failed case never runs again in the same
//! repetition: the next start skips it with `after=`. B3: a start that ends no case ends the suite, so it terminates.

use crate::bench::progress::{Output, Progress};
use crate::bench::target::Target;
use crate::error::{Class, Error, Result};
use crate::guest::{End, Flow, Limits};
use crate::report;
use crate::results::collect::{Boot, Collector, Step};
use crate::results::disk::Disk;
use crate::results::env;
use crate::results::schema::CaseStatus;
use crate::results::writer::{Finished, RunWriter};
use abi::boot::{Lane, Profile};
use perf::record::Event;
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

/// Lines of the serial log kept for a failed row.
const TAIL: usize = 20;
/// Problems noted one by one; a broken line could give thousands.
const PROBLEMS: usize = 100;

/// What to measure.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Words joined by `,`.
    pub(super) filter: String,
    /// Effort.
    pub(super) profile: Profile,
    /// Samples of each case; 0 names the cases without running them.
    pub(super) samples: Option<u32>,
    /// Lane.
    pub(super) lane: Lane,
    /// Repetitions.
    pub(super) repeats: u32,
    /// Kinds of trace events to record, joined by `,`; empty for none.
    pub(super) trace: String,
    /// How long a start and a case may take.
    pub(super) limits: Limits,
}

impl Plan {
    /// The kernel command line of a start that skips the first `after` selected cases.
    pub(super) fn command_line(&self, after: u32) -> String {
        let mut line = format!("mode=bench lane={} profile={}", self.lane.word(), self.profile.word());
        if let Some(samples) = self.samples {
            line.push_str(&format!(" samples={samples}"));
        }
        if !self.filter.is_empty() {
            line.push_str(&format!(" filter={}", self.filter));
        }
        if !self.trace.is_empty() {
            line.push_str(&format!(" trace={}", self.trace));
        }
        if after != 0 {
            line.push_str(&format!(" after={after}"));
        }
        line
    }
}

/// Limits of a profile: what a start may take in all, and how long one case may be silent.
pub(super) fn limits(profile: Profile, lane: Lane) -> Limits {
    // Where the clock counts instructions, the quarter of a second of a case is 250 million of them, and some rows wait for a second. One
    // thread of the host executes those of all cores, 25 to 40 million in a second, a quarter of that on a host that compiles meanwhile.
    let slow = if lane == Lane::Icount { 5 } else { 1 };
    let minutes = |count: u64| Duration::from_secs(60 * count * slow);
    match profile {
        Profile::Quick => Limits { total: minutes(30), silence: minutes(1) },
        Profile::Ci => Limits { total: minutes(120), silence: minutes(3) },
        Profile::Full => Limits { total: minutes(24 * 60), silence: minutes(30) },
    }
}

/// How a suite that went through ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Class of the first failure of a row; `None` when every row is fine.
    pub(super) first_failure: Option<Class>,
}

/// A suite that runs into a run directory.
pub(super) struct Suite<D: Disk> {
    writer: RunWriter<D>,
    plan: Plan,
    output: Output,
    tail: VecDeque<String>,
    outcome: Outcome,
    /// A case of which nothing arrived: the run stays partial.
    lost: bool,
}

/// How one start of the target ended.
enum Start {
    /// Every case has its row.
    Done,
    /// The case that ran has been noted as failed; go on after so many cases.
    Again(u32),
}

impl<D: Disk> Suite<D> {
    /// A suite that has not run.
    pub(super) fn new(writer: RunWriter<D>, plan: Plan, output: Output) -> Self {
        Self { writer, plan, output, tail: VecDeque::new(), outcome: Outcome::default(), lost: false }
    }

    /// Runs every repetition.
    ///
    /// # Errors
    /// What stopped the suite. The run directory then is a partial run.
    pub(super) fn run(&mut self, target: &mut dyn Target) -> Result<Outcome> {
        for repeat in 0..self.plan.repeats {
            let mut after = 0;
            while let Start::Again(next) = self.start(target, repeat, after)? {
                after = next;
            }
        }
        let counts = self.writer.run().counts;
        if counts.ok == 0 && counts.failed == 0 && counts.refused != 0 {
            self.note_failure(Class::Unusable);
        }
        Ok(self.outcome)
    }

    /// Writes the report and then marks the run as complete, unless a case is missing.
    ///
    /// # Errors
    /// The file system refuses, or a file of the run cannot be read back.
    pub(super) fn close(&mut self) -> Result<()> {
        if self.lost {
            return Ok(());
        }
        self.writer.complete(env::timestamp(SystemTime::now()), report::render)
    }

    fn start(&mut self, target: &mut dyn Target, repeat: u32, after: u32) -> Result<Start> {
        let boot = self.writer.run().boots;
        self.writer.update_run(|run| run.boots += 1)?;
        self.tail.clear();
        self.writer.serial(format!("--- repeat {repeat}, boot {boot}, after {after}\n").as_bytes())?;
        let lane = self.plan.lane.word().to_owned();
        let mut hearing = Hearing {
            collector: Collector::new(Boot { lane, repeat, boot }),
            progress: Progress::new(self.output, repeat, self.plan.repeats),
            begun: false,
            done: false,
            error: None,
            case_began: Instant::now(),
            overdue: false,
        };
        let cmdline = self.plan.command_line(after);
        let limits = self.plan.limits;
        let end = target.boot(&cmdline, limits, &mut |event| self.hear(&mut hearing, event))?;
        if let Some(error) = hearing.error.take() {
            return Err(error);
        }
        self.settle(hearing, &end, after)
    }

    /// One event: to disk, then to the screen.
    fn hear(&mut self, hearing: &mut Hearing, event: Event<'_>) -> Flow {
        let result = match event {
            Event::Text(line) => self.text(line),
            Event::Corrupt { offset, reason } => {
                self.problem(&format!("damaged data at byte {offset} of the serial port: {reason}"), hearing)
            }
            Event::Gap { expected, found } => {
                hearing.collector.gap();
                self.problem(
                    &format!("records are missing: number {found} came instead of {expected}"),
                    hearing,
                )
            }
            Event::Frame { record, .. } => hearing
                .collector
                .take(record, SystemTime::now())
                .into_iter()
                .try_for_each(|step| self.step(step, hearing)),
        };
        if let Err(error) = result {
            hearing.error = Some(error);
            return Flow::Stop;
        }
        // Silence is the session's to notice; a case that goes on talking for ever is noticed here.
        hearing.overdue = hearing.case_began.elapsed() > self.plan.limits.total / 2;
        if hearing.overdue { Flow::Stop } else { Flow::Continue }
    }

    fn text(&mut self, line: &str) -> Result<()> {
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
        self.writer.serial(format!("{line}\n").as_bytes())
    }

    fn step(&mut self, step: Step, hearing: &mut Hearing) -> Result<()> {
        match step {
            Step::Suite { cases: 0, .. } => {
                let what = format!("the filter `{}` matches no case of the lane", self.plan.filter);
                Err(Error::new(Class::NothingMatched, what).next("see `cargo xtask bench --list`"))
            }
            Step::Suite { target, cases } => {
                hearing.begun = true;
                hearing.progress.suite(cases, hearing.collector.next().unwrap_or(0));
                let repeats = self.plan.repeats;
                self.writer.update_run(|run| run.counts.expected = cases * repeats)?;
                if self.writer.env().target.is_none() {
                    self.writer.update_env(|env| env.target = Some(*target))?;
                }
                Ok(())
            }
            Step::Started { index, key } => {
                hearing.case_began = Instant::now();
                hearing.progress.started(index, &key);
                self.writer.serial(format!("--- case {index}: {key}\n").as_bytes())
            }
            Step::Finished(finished) => self.finished(*finished, hearing, Class::CorruptFrame),
            Step::Lost(index) => {
                self.lost = true;
                self.problem(&format!("nothing of case {index} arrived"), hearing)
            }
            Step::Trace(rows) => self.writer.trace(&rows),
            Step::Done => {
                hearing.done = true;
                if hearing.begun {
                    return Ok(());
                }
                // Nobody knows how many cases there should be.
                self.lost = true;
                self.problem("the beginning of the suite did not arrive", hearing)
            }
        }
    }

    /// Writes a row (B1). `class` says what a failure means that the guest itself did not report.
    fn finished(&mut self, finished: Finished, hearing: &mut Hearing, class: Class) -> Result<()> {
        let reported = finished.row.unit.is_some() && finished.row.batch.is_some();
        let row = self.writer.case(finished)?.clone();
        if row.status == CaseStatus::Failed {
            self.note_failure(if reported { Class::Unusable } else { class });
        }
        hearing.progress.finished(&row);
        Ok(())
    }

    fn problem(&mut self, what: &str, hearing: &mut Hearing) -> Result<()> {
        hearing.progress.warn(what);
        self.note_failure(Class::CorruptFrame);
        self.writer.serial(format!("--- {what}\n").as_bytes())?;
        let what = what.to_owned();
        self.writer.update_run(|run| {
            if run.problems.len() < PROBLEMS {
                run.problems.push(what);
            }
        })
    }

    fn note_failure(&mut self, class: Class) {
        self.outcome.first_failure.get_or_insert(class);
    }

    /// What the end of a start means.
    fn settle(&mut self, mut hearing: Hearing, end: &End, after: u32) -> Result<Start> {
        if *end == End::Interrupted {
            return Err(Error::new(Class::Interrupted, "interrupted; every case that ended is in the run"));
        }
        if hearing.done {
            return Ok(Start::Done);
        }
        let class = end.error().map_or(Class::CorruptFrame, |error| error.class());
        let reason = match (hearing.overdue, end) {
            (true, _) => "the case took too long".to_owned(),
            (false, End::Exit(abi::exit::Exit::Success)) => {
                "the guest ended before every case had ended".to_owned()
            }
            (false, end) => end.to_string(),
        };
        let class = if hearing.overdue { Class::Timeout } else { class };
        let tail: Vec<String> = self.tail.iter().cloned().collect();
        let failed = hearing.collector.fail(&reason, tail, SystemTime::now());
        if hearing.collector.next().is_none() {
            return Err(Error::new(
                class,
                format!("the guest did not begin to measure: {reason}{}", self.quote()),
            ));
        }
        match failed {
            Some(failed) => self.finished(failed, &mut hearing, class)?,
            // Between two cases, or after the last one and before the end of the suite was told.
            None => self.problem(&format!("between two cases: {reason}"), &mut hearing)?,
        }
        match hearing.collector.next() {
            Some(next) if next >= hearing.collector.cases() => Ok(Start::Done),
            Some(next) if next > after => Ok(Start::Again(next)),
            _ => Err(Error::new(
                class,
                format!("the guest ends before any case does: {reason}{}", self.quote()),
            )),
        }
    }

    /// The last lines of the log, to be put under an error.
    fn quote(&self) -> String {
        self.tail.iter().map(|line| format!("\n  | {line}")).collect()
    }
}

/// What is known while a start is being listened to.
struct Hearing {
    collector: Collector,
    progress: Progress,
    begun: bool,
    done: bool,
    error: Option<Error>,
    case_began: Instant,
    overdue: bool,
}

#[cfg(test)]
#[path = "suite_tests.rs"]
mod tests;
