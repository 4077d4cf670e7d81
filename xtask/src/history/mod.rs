//! `cargo xtask history`: where the figures of a case changed over many runs.
//!
//! [`points`] finds changes where figures have noise; exact ones change wherever two runs differ. [`plot`] draws them.

mod plot;
mod points;

use crate::cli::HistoryArgs;
use crate::compare::side::{Side, exact};
use crate::compare::{self, schema::Measure};
use crate::error::{Class, Error, Result};
use crate::results::disk::{Disk, FileSystem};
use crate::results::reader::{self, Run};
use crate::results::schema::Direction;
use crate::results::units;
use crate::{bench, ui};
use abi::boot::selects;
use points::Change;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Version of the format.
const VERSION: u32 = 1;
/// Runs below which hardly any change is found where figures have noise.
const FEW: usize = 6;
/// The smallest change that is shown where figures have noise.
const INTEREST: f64 = 0.03;

/// What `cargo xtask history --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HistoryFile {
    /// Version of the format.
    pub schema: u32,
    /// Every series that matches.
    pub series: Vec<SeriesFile>,
}

/// The medians of one case over the boots of many runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SeriesFile {
    /// Key of the case.
    pub id: String,
    /// Version of the benchmark body.
    pub version: u32,
    /// Lane.
    pub lane: String,
    /// Machine.
    pub machine: String,
    /// Effort.
    pub profile: String,
    /// CPU and emulator of the host; empty where figures do not depend on them.
    pub host: String,
    /// Unit of the medians, as recorded.
    pub unit: String,
    /// Its boots, in the order of their runs.
    pub points: Vec<Point>,
    /// Its changes, in the same order.
    pub changes: Vec<ChangeFile>,
}

/// One boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Its run.
    pub run: String,
    /// Commit measured; absent where unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Median.
    pub p50: u64,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeFile {
    /// Number of the first point after it, from 0.
    pub at: u32,
    /// Median from the change before it.
    pub before: u64,
    /// Median to the change after it.
    pub after: u64,
    /// Probability of a split as good by chance; absent where figures are exact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
}

/// Points between two changes.
pub(crate) struct Level {
    /// Its first point.
    pub(crate) from: usize,
    /// The point after its last.
    pub(crate) to: usize,
    /// Their median.
    pub(crate) p50: u64,
}

impl SeriesFile {
    /// The levels between the changes.
    pub(crate) fn levels(&self) -> Vec<Level> {
        let at = self.changes.iter().map(|change| usize::try_from(change.at).unwrap_or(0));
        let bounds: Vec<usize> = std::iter::once(0).chain(at).chain([self.points.len()]).collect();
        let level = |pair: &[usize]| Level {
            from: pair[0],
            to: pair[1],
            p50: middle(&self.points[pair[0]..pair[1]]),
        };
        bounds.windows(2).filter(|pair| pair[0] < pair[1]).map(level).collect()
    }

    fn sentences(&self) -> Vec<String> {
        let head = format!(
            "{} ({}, {}, {}): {} boots",
            self.id,
            self.lane,
            self.machine,
            self.profile,
            self.points.len()
        );
        let line = |change: &ChangeFile| {
            let point = &self.points[usize::try_from(change.at).unwrap_or(0)];
            let commit =
                point.commit.as_deref().map_or("unknown", |commit| commit.get(..12).unwrap_or(commit));
            let p = change.p.map_or(String::new(), |p| format!(", p {p:.4}"));
            format!(
                "  {} to {} {} ({:+.1} %{p}) since {}, commit {commit}",
                units::show(change.before, &self.unit),
                units::show(change.after, &self.unit),
                units::label(&self.unit),
                100.0 * ratio(change.before, change.after).exp_m1(),
                point.run
            )
        };
        std::iter::once(head).chain(self.changes.iter().map(line)).collect()
    }
}

/// The subcommand.
///
/// # Errors
/// [`Class::NothingMatched`], or the drawing cannot be written.
pub fn execute(args: &HistoryArgs) -> Result<()> {
    let root = args.runs.clone().unwrap_or_else(bench::runs);
    let file = HistoryFile { schema: VERSION, series: below(&root, &args.filter)? };
    if file.series.is_empty() {
        let what =
            format!("no complete run below {} has a case that matches `{}`", root.display(), args.filter);
        return Err(Error::new(Class::NothingMatched, what).next("make runs with `cargo xtask bench`"));
    }
    let changed: Vec<&SeriesFile> = file.series.iter().filter(|series| !series.changes.is_empty()).collect();
    if let Some(path) = &args.plot {
        let text = plot::svg(&changed);
        FileSystem.replace(path, text.as_bytes()).map_err(|error| Error::io(&error, "write", path))?;
    }
    if args.json {
        ui::line(compare::pretty(&file)?.trim_end());
        return Ok(());
    }
    let shown = file.series.iter().filter(|series| args.all || !series.changes.is_empty());
    shown.flat_map(SeriesFile::sentences).for_each(|line| ui::line(&line));
    ui::line(&format!("{} of {} series changed", changed.len(), file.series.len()));
    if let Some(note) = too_few(&file.series) {
        ui::line(&note);
    }
    Ok(())
}

/// What to know of series that are too short for a change to be found in them.
fn too_few(series: &[SeriesFile]) -> Option<String> {
    let runs = |one: &SeriesFile| one.points.chunk_by(|a, b| a.run == b.run).count();
    let short = series.iter().filter(|one| !exact(&one.lane) && runs(one) < FEW).count();
    (short > 0).then(|| format!("note: {short} series have fewer than {FEW} runs, in which hardly any change can be told from chance"))
}

/// The series of the complete runs below `root`, of the cases that `filter` selects.
///
/// # Errors
/// A run is not what a side can be made of.
pub(crate) fn below(root: &Path, filter: &str) -> Result<Vec<SeriesFile>> {
    let mut dirs = reader::list(root);
    dirs.sort_by_key(|dir| dir.file_name().map(ToOwned::to_owned));
    // A run of another format, or a damaged one, is no reason to see nothing of the others.
    let runs: Vec<Run> = dirs.iter().filter_map(|dir| Run::open(dir).ok()).filter(Run::is_complete).collect();
    series(runs, filter)
}

/// The series of runs in the order of time, sorted by what they share.
fn series(runs: Vec<Run>, filter: &str) -> Result<Vec<SeriesFile>> {
    let mut found: BTreeMap<[String; 7], SeriesFile> = BTreeMap::new();
    for run in runs {
        let (name, commit) = (run.run.id.clone(), run.env.git.commit.clone());
        let side = Side::of(vec![run])?;
        for (id, case) in side.series.iter().filter(|(id, _)| selects(filter, id)) {
            let good = case.flaw(side.boots()).is_none() && case.direction() != Direction::Neutral;
            let (Some(figures), Some(unit)) = (case.figures(Measure::P50).filter(|_| good), case.unit())
            else {
                continue;
            };
            let who = &side.identity;
            let samples = who.samples.map_or_else(String::new, |samples| samples.to_string());
            let version = case.version();
            let key = [&who.lane, &who.machine, &who.profile, &who.host, &samples, id, &version.to_string()]
                .map(Clone::clone);
            let one = found.entry(key).or_insert_with(|| SeriesFile {
                id: id.clone(),
                version,
                lane: who.lane.clone(),
                machine: who.machine.clone(),
                profile: who.profile.clone(),
                host: who.host.clone(),
                unit: unit.to_owned(),
                points: Vec::new(),
                changes: Vec::new(),
            });
            let point = |p50| Point { run: name.clone(), commit: commit.clone(), p50 };
            one.points.extend(figures.into_iter().map(point));
        }
    }
    let mut found: Vec<SeriesFile> = found.into_values().collect();
    found.iter_mut().for_each(|series| series.changes = changes(series));
    Ok(found)
}

/// The changes of a series: between runs only, as a build does not change within one.
fn changes(series: &SeriesFile) -> Vec<ChangeFile> {
    let points = &series.points;
    let figures = |points: &[Point]| points.iter().map(|point| point.p50).collect::<Vec<u64>>();
    let found: Vec<(usize, Option<f64>)> = if exact(&series.lane) {
        let differ = |&at: &usize| points[at].p50 != points[at - 1].p50;
        (1..points.len()).filter(differ).map(|at| (at, None)).collect()
    } else {
        let runs: Vec<&[Point]> = points.chunk_by(|a, b| a.run == b.run).collect();
        let values: Vec<Vec<f64>> = runs.iter().map(|run| compare::logarithms(&figures(run))).collect();
        let first = |run: usize| runs[..run].iter().map(|run| run.len()).sum();
        let found = points::changes(&values);
        found.into_iter().map(|Change { run, p }| (first(run), Some(p))).collect()
    };
    let bounds: Vec<usize> =
        std::iter::once(0).chain(found.iter().map(|&(at, _)| at)).chain([points.len()]).collect();
    let level = |part: usize| middle(&points[bounds[part]..bounds[part + 1]]);
    let change = |(number, &(at, p)): (usize, &(usize, Option<f64>))| ChangeFile {
        at: u32::try_from(at).unwrap_or(u32::MAX),
        before: level(number),
        after: level(number + 1),
        p,
    };
    let worth = |change: &ChangeFile| {
        change.p.is_none() || ratio(change.before, change.after).abs() >= INTEREST.ln_1p()
    };
    found.iter().enumerate().map(change).filter(worth).collect()
}

/// The logarithm of the ratio of two figures.
fn ratio(before: u64, after: u64) -> f64 {
    let logarithms = compare::logarithms(&[before, after]);
    logarithms[1] - logarithms[0]
}

/// The median of points.
fn middle(points: &[Point]) -> u64 {
    compare::middle(&points.iter().map(|point| point.p50).collect::<Vec<u64>>())
}

#[cfg(test)]
mod tests {
    use super::{plot, series, too_few};
    use crate::compare::testing::{row, run};
    use crate::results::reader::Run;
    use crate::results::schema::CaseRow;

    /// Runs of two boots with these medians.
    fn runs(lane: &str, medians: &[u64]) -> Vec<Run> {
        let one = |(number, &p50): (usize, &u64)| {
            let jitter = |boot: u32| u64::from(boot) * 300 + 200 * (u64::try_from(number).unwrap() % 3);
            let exact = lane == "icount";
            let rows = (0..2).map(|boot| row("a.b/x=1", boot, p50 + if exact { 0 } else { jitter(boot) }));
            let rows: Vec<CaseRow> = rows.chain([0, 1].map(|boot| row("other", boot, 5))).collect();
            let mut run = run(&format!("r{number:02}"), lane, 2, rows);
            run.env.git.commit = Some(format!("{number:040}"));
            run
        };
        medians.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_run_that_changed_a_figure_is_named() {
        let medians: Vec<u64> = (0..12).map(|number| if number < 7 { 100_000 } else { 110_000 }).collect();
        let found = series(runs("tcg", &medians), "a.b").unwrap();
        assert_eq!(found.len(), 1);
        let changes = &found[0].changes;
        assert_eq!((changes.len(), changes[0].at), (1, 14));
        let text = found[0].sentences().join("\n");
        assert!(text.contains("since r07, commit 000000000000") && text.contains("+10.1 %"), "{text}");
        let drawn = plot::svg(&[&found[0]]);
        assert_eq!((drawn.matches("<circle").count(), drawn.matches("stroke-dasharray").count()), (24, 1));
        assert_eq!(drawn.matches("stroke=\"#06c\"").count(), 2);
    }

    /// Planted: every lane is judged as noisy.
    #[test]
    fn exact_figures_change_wherever_they_differ() {
        let found = series(runs("icount", &[210_000, 210_000, 218_000, 210_000]), "a.b").unwrap();
        let at: Vec<u32> = found[0].changes.iter().map(|change| change.at).collect();
        assert_eq!(at, [4, 6]);
        assert_eq!((found[0].changes[0].before, found[0].changes[0].after), (210_000, 218_000));
    }

    #[test]
    fn series_of_different_lanes_stay_apart() {
        let mixed = runs("tcg", &[1; 3]).into_iter().chain(runs("icount", &[9; 3])).collect();
        let found = series(mixed, "a.b").unwrap();
        assert_eq!(found.iter().map(|one| one.points.len()).collect::<Vec<_>>(), [6, 6]);
        assert!(found.iter().all(|one| one.changes.is_empty()));
        assert!(too_few(&found).unwrap().starts_with("note: 1 series"));
        assert_eq!(too_few(&series(runs("tcg", &[1; 6]), "a.b").unwrap()), None);
    }

    #[test]
    fn small_steps_are_not_shown() {
        let medians: Vec<u64> = (0..12).map(|number| if number < 7 { 100_000 } else { 101_500 }).collect();
        assert!(series(runs("tcg", &medians), "a.b").unwrap()[0].changes.is_empty());
    }
}
