//! One side of a comparison: runs of one lane, machine and profile, their boots put together case by case.

use super::schema::{Measure, SideFile};
use crate::error::{Class, Error, Result};
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus, Direction};
use abi::boot::Lane;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Samples of a boot below which its 99th percentile is chance.
const TAIL_SAMPLES: u64 = 10_000;
/// How the name of a metric ends that is a throughput.
const RATE: &str = ".per.second";

/// What figures must share to be comparable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) lane: String,
    pub(crate) machine: String,
    pub(crate) profile: String,
    pub(crate) samples: Option<u32>,
    /// The host's CPU and emulator; empty where figures do not depend on them.
    pub(crate) host: String,
}

impl Identity {
    fn of(run: &Run) -> Self {
        let host = if exact(&run.run.lane) {
            String::new()
        } else {
            let emulator = run.env.qemu.as_ref().map_or("no emulator", |qemu| qemu.version.as_str());
            format!("{}, {} threads, {emulator}", run.env.host.cpu, run.env.host.threads)
        };
        Self {
            lane: run.run.lane.clone(),
            machine: run.run.machine.clone(),
            profile: run.run.profile.clone(),
            samples: run.run.samples,
            host,
        }
    }

    /// Refuses another identity.
    ///
    /// # Errors
    /// [`Class::Unusable`], with the action that makes the sides comparable.
    pub(crate) fn admit(&self, other: &Self) -> Result<()> {
        let number =
            |samples: Option<u32>| samples.map_or("the profile's".to_owned(), |samples| samples.to_string());
        let parts = [
            ("lanes", &self.lane, &other.lane, format!("measure the other side with `--lane {}`", self.lane)),
            (
                "machines",
                &self.machine,
                &other.machine,
                format!(
                    "measure the other side with the flags `--smp`, `--nodes` and `--mem` of {}",
                    self.machine
                ),
            ),
            (
                "profiles",
                &self.profile,
                &other.profile,
                format!("measure the other side with `--profile {}`", self.profile),
            ),
            (
                "numbers of samples",
                &number(self.samples),
                &number(other.samples),
                "measure both sides with the same `--samples`".to_owned(),
            ),
            (
                "hosts",
                &self.host,
                &other.host,
                "measure both sides here: `cargo xtask ab REV_A REV_B`".to_owned(),
            ),
        ];
        match parts.into_iter().find(|(_, mine, theirs, _)| mine != theirs) {
            Some((what, mine, theirs, next)) => {
                let what = format!("different {what} are never compared: {mine} and {theirs}");
                Err(Error::new(Class::Unusable, what).next(next))
            }
            None => Ok(()),
        }
    }
}

/// Whether every boot of a lane gives the same figures.
pub(crate) fn exact(lane: &str) -> bool {
    lane == Lane::Icount.word()
}

/// One case over the boots of a side.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// Its rows, one for each boot, in the order they were measured.
    pub(crate) rows: Vec<CaseRow>,
}

impl Series {
    /// A row of the newest version, for what all rows share.
    fn last(&self) -> Option<&CaseRow> {
        self.rows.iter().max_by_key(|row| row.version)
    }

    /// Version of the benchmark body; 0 if no boot ended the case.
    pub(crate) fn version(&self) -> u32 {
        self.last().map_or(0, |row| row.version)
    }

    /// Unit of the percentiles.
    pub(crate) fn unit(&self) -> Option<&str> {
        self.last()?.unit.as_deref()
    }

    /// Which way is better; unknown counts as neither.
    pub(crate) fn direction(&self) -> Direction {
        self.last().and_then(|row| row.direction).unwrap_or(Direction::Neutral)
    }

    /// Operations in a timed window.
    pub(crate) fn batch(&self) -> u32 {
        self.last().and_then(|row| row.batch).unwrap_or(1)
    }

    /// Whether it makes no sense on this machine, in every boot.
    pub(crate) fn skipped(&self) -> bool {
        self.rows.iter().all(|row| row.status == CaseStatus::Skipped)
    }

    /// Why it cannot be compared, if it cannot: a boot without it counts, too.
    pub(crate) fn flaw(&self, boots: usize) -> Option<String> {
        let bad: Vec<&CaseRow> = self.rows.iter().filter(|row| row.status != CaseStatus::Ok).collect();
        if let Some(first) = bad.first() {
            let reason = first.reason.as_deref().unwrap_or("no reason given");
            let how = match first.status {
                CaseStatus::Refused => "refused",
                CaseStatus::Skipped => "skipped",
                CaseStatus::Failed | CaseStatus::Ok => "failed",
            };
            return Some(format!("{how} in {} of {boots} boots: {reason}", bad.len()));
        }
        if self.rows.iter().any(|row| row.version != self.version()) {
            return Some("boots of different versions of the benchmark".to_owned());
        }
        (self.rows.len() != boots).then(|| format!("measured in {} of {boots} boots", self.rows.len()))
    }

    /// The figure of each boot; `None` unless every boot has it.
    pub(crate) fn figures(&self, measure: Measure) -> Option<Vec<u64>> {
        let figure = |row: &CaseRow| match measure {
            Measure::P50 => row.p50,
            Measure::P99 => row.p99.filter(|_| row.n >= TAIL_SAMPLES),
            Measure::Throughput => {
                row.metrics.iter().find(|metric| metric.name.ends_with(RATE)).map(|metric| metric.value)
            }
        };
        self.rows.iter().map(figure).collect::<Option<Vec<u64>>>().filter(|figures| !figures.is_empty())
    }
}

/// One side.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    pub(crate) identity: Identity,
    pub(crate) about: SideFile,
    pub(crate) series: BTreeMap<String, Series>,
    /// Ticks of the clock in a second, where it is known.
    pub(crate) hz: Option<u64>,
    /// Runs, for what else is to be known of them.
    pub(crate) runs: Vec<Run>,
}

impl Side {
    /// Reads complete runs.
    ///
    /// # Errors
    /// A run cannot be read, is partial, or does not fit the others.
    pub(crate) fn read(dirs: &[PathBuf]) -> Result<Self> {
        Self::of(dirs.iter().map(|dir| Run::open(dir)).collect::<Result<Vec<Run>>>()?)
    }

    /// Puts runs together.
    ///
    /// # Errors
    /// As [`Side::read`].
    pub(crate) fn of(runs: Vec<Run>) -> Result<Self> {
        let Some(first) = runs.first() else {
            return Err(
                Error::new(Class::Usage, "a side has no run").next("name a run directory for each side")
            );
        };
        let identity = Identity::of(first);
        let hz = first.env.target.as_ref().map(|target| target.clock.hz);
        let mut about = SideFile::default();
        let mut series: BTreeMap<String, Series> = BTreeMap::new();
        for run in &runs {
            if !run.is_complete() {
                let what = format!("{} is a partial run", run.dir.display());
                return Err(
                    Error::new(Class::Unusable, what).next("measure it again to its end, or leave it out")
                );
            }
            identity.admit(&Identity::of(run)).map_err(|error| error.within(&run.run.id))?;
            if about.runs.contains(&run.run.id) {
                let what = format!("the run {} is named twice on a side", run.run.id);
                return Err(Error::new(Class::Usage, what).next("name each run once: a boot counts once"));
            }
            about.runs.push(run.run.id.clone());
            about.boots += run.run.repeats;
            let commit = run.env.git.commit.clone().filter(|commit| !about.commits.contains(commit));
            about.commits.extend(commit);
            for row in &run.rows {
                series
                    .entry(row.id.clone())
                    .or_insert_with(|| Series { rows: Vec::new() })
                    .rows
                    .push(row.clone());
            }
        }
        Ok(Self { identity, about, series, hz, runs })
    }
    /// Boots.
    pub(crate) fn boots(&self) -> usize {
        usize::try_from(self.about.boots).unwrap_or(usize::MAX)
    }
}
