//! `cargo xtask calibrate`: how much boots of one build differ on this host, which no comparison here can see through.
//!
//! It measures, or takes runs of one build that are there, and writes `results/noise/`; `compare` raises its smallest differences by it,
//! and says so. What is known of other cases stays: a calibration with a filter adds to it.

use crate::cli::{BenchArgs, CalibrateArgs};
use crate::compare::schema::{Measure, Noise, NoiseFile, VERSION};
use crate::compare::side::{self, Identity, Series, Side};
use crate::compare::{self, stats};
use crate::error::{Class, Error, Result};
use crate::results::reader;
use crate::{bench, ui, workspace};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Boots measured unless told otherwise.
const BOOTS: u32 = 16;
/// Boots below which a spread says nothing.
const LEAST: u32 = 8;

/// The subcommand.
///
/// # Errors
/// Whatever stops the measurement; [`Class::Unusable`] if the runs are of several builds, too few boots, or exact.
pub fn execute(args: &CalibrateArgs) -> Result<()> {
    let runs = match &args.from {
        Some(names) => names.split(',').map(PathBuf::from).collect(),
        None => vec![measure(&args.bench)?],
    };
    let side = Side::read(&runs)?;
    let fresh = noise(&side)?;
    let path = path(&side.identity);
    summary(&fresh).iter().for_each(|line| ui::line(line));
    let file = match known(&side.identity) {
        Ok(Known::Here(_, old)) => merged(*old, fresh),
        // A file of another host, of another format or damaged is replaced.
        Ok(Known::Elsewhere(_) | Known::Nowhere) | Err(_) => fresh,
    };
    let folder = path.parent().unwrap_or(workspace::root());
    std::fs::create_dir_all(folder).map_err(|error| Error::io(&error, "create", folder))?;
    compare::write(&path, &file)?;
    ui::line(&format!("calibrate: the noise of {} cases is in {}", file.cases.len(), path.display()));
    ui::line("calibrate: comparisons of runs of this host, machine, profile and number of samples use it");
    Ok(())
}

fn measure(args: &BenchArgs) -> Result<PathBuf> {
    let args = BenchArgs { boots: args.boots.or(Some(BOOTS)), ..args.clone() };
    let nothing = || Error::new(Class::Usage, "`--list` measures nothing").next("leave --list out");
    bench::measured(&args)?.ok_or_else(nothing)
}

/// Where the noise of a machine is kept: samples fewer or more give medians that differ more or less.
fn path(identity: &Identity) -> PathBuf {
    let folder = workspace::root().join("results/noise").join(&identity.lane);
    let samples = identity.samples.map_or_else(String::new, |samples| format!(".{samples}"));
    folder.join(format!("{}.{}{samples}.json", identity.machine, identity.profile))
}

/// What is known of a machine's noise.
pub(crate) enum Known {
    /// Nothing.
    Nowhere,
    /// That of another host, in this file: nothing.
    Elsewhere(PathBuf),
    /// This.
    Here(PathBuf, Box<NoiseFile>),
}

impl Known {
    /// The noise, if it is that of this host.
    pub(crate) fn here(&self) -> Option<(&Path, &NoiseFile)> {
        match self {
            Self::Here(path, file) => Some((path, file)),
            Self::Elsewhere(_) | Self::Nowhere => None,
        }
    }
}

/// Looks for what is known of a machine's noise.
///
/// # Errors
/// The file is there and cannot be read.
pub(crate) fn known(identity: &Identity) -> Result<Known> {
    let path = path(identity);
    if !path.exists() {
        return Ok(Known::Nowhere);
    }
    let again = "calibrate again: `cargo xtask calibrate`";
    let file: NoiseFile = reader::json(&path).map_err(|error| error.next(again))?;
    let here = file.schema == VERSION && file.host == identity.host;
    Ok(if here { Known::Here(path, Box::new(file)) } else { Known::Elsewhere(path) })
}

/// What was known with what is: a case measured again is as it was measured last.
fn merged(old: NoiseFile, fresh: NoiseFile) -> NoiseFile {
    let mut all = NoiseFile { cases: old.cases, runs: old.runs, commits: old.commits, ..fresh };
    all.cases.extend(fresh.cases);
    for (into, from) in [(&mut all.runs, fresh.runs), (&mut all.commits, fresh.commits)] {
        into.extend(from.into_iter().filter(|name| !into.contains(name)).collect::<Vec<String>>());
    }
    all
}

/// The noise between the boots of one build.
fn noise(side: &Side) -> Result<NoiseFile> {
    let refused = |what: &str, next: &str| Err(Error::new(Class::Unusable, what).next(next));
    if side::exact(&side.identity.lane) {
        return refused(
            "figures of this lane are exact: there is no noise to measure",
            "calibrate another lane",
        );
    }
    if side.about.commits.len() > 1
        || side.runs.iter().any(|run| run.env.git.dirty == Some(true)) && side.runs.len() > 1
    {
        return refused(
            "the runs are of different builds",
            "name runs of one commit, with nothing changed since",
        );
    }
    if side.about.boots < LEAST {
        return refused("the noise of so few boots says nothing", "measure at least 8 boots: `--boots 8`");
    }
    let good = side.series.iter().filter(|(_, series)| series.flaw(side.boots()).is_none());
    Ok(NoiseFile {
        schema: VERSION,
        lane: side.identity.lane.clone(),
        machine: side.identity.machine.clone(),
        profile: side.identity.profile.clone(),
        host: side.identity.host.clone(),
        runs: side.about.runs.clone(),
        commits: side.about.commits.clone(),
        cases: good.map(|(id, series)| (id.clone(), of(series))).collect(),
    })
}

/// The noise of every figure of a case.
fn of(series: &Series) -> BTreeMap<Measure, Noise> {
    let noise = |measure| {
        let values = compare::logarithms(&series.figures(measure)?);
        let (first, second) = values.split_at(values.len() / 2);
        let drift = (stats::median(&mut second.to_vec()) - stats::median(&mut first.to_vec())).abs();
        let boots = u32::try_from(values.len()).unwrap_or(u32::MAX);
        Some((measure, Noise { boots, sigma: stats::spread(&values), drift }))
    };
    Measure::ALL.into_iter().filter_map(noise).collect()
}

/// The noisiest cases, and how the others are.
fn summary(file: &NoiseFile) -> Vec<String> {
    let mut sigmas: Vec<(f64, &str)> = file
        .cases
        .iter()
        .filter_map(|(id, noise)| Some((noise.get(&Measure::P50)?.sigma, id.as_str())))
        .collect();
    sigmas.sort_by(|a, b| b.0.total_cmp(&a.0));
    let Some((middle, _)) = sigmas.get(sigmas.len() / 2) else {
        return vec!["calibrate: no case has a median".to_owned()];
    };
    let mut lines = vec![format!(
        "calibrate: medians of boots differ by {:.2} % (σ) in the middle one of {} cases; most in:",
        100.0 * middle,
        sigmas.len()
    )];
    lines.extend(sigmas.iter().take(5).map(|(sigma, id)| format!("  {:6.2} %  {id}", 100.0 * sigma)));
    lines
}

#[cfg(test)]
#[path = "calibrate_tests.rs"]
mod tests;
