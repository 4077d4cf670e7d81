//! `cargo xtask compare`: judges one build by another, case by case.
//!
//! [`side`] puts runs together, [`judge`] has the rules where figures have noise and [`exact`] where they have none, [`stats`] the
//! statistics, [`render`] what people read, [`schema`] what programs read. A base is runs, or the committed figures of the instruction
//! lane (`results/baselines/`), which `--bless` writes.

mod exact;
mod judge;
mod render;
pub mod schema;
pub(crate) mod side;
pub(crate) mod stats;

use crate::cli::{CompareArgs, CompareOutput};
use crate::error::{Class, Error, Result};
use crate::results::disk::{Disk, FileSystem};
use crate::results::reader::{self, Run};
use crate::{bench, calibrate, ui, workspace};
pub(crate) use judge::{logarithms, middle, show as shown};
pub(crate) use render::summary;
use schema::{BaselineCase, BaselineFile, CompareFile, Finding, SideFile, VERSION, Verdict};
use side::{Identity, Side};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The word for the committed figures that fit the new side.
pub(crate) const BASELINE: &str = "baseline";

/// The subcommand.
///
/// # Errors
/// The sides cannot be read or compared; with `--gate`, [`Class::Regressed`] if a case regressed, is missing or contradicts itself, and
/// [`Class::Unusable`] if there are too few boots for any verdict.
pub fn execute(args: &CompareArgs) -> Result<()> {
    let new = match &args.new {
        Some(names) => Side::read(&dirs(names))?,
        None => Side::of(vec![Run::latest(&bench::runs())?])?,
    };
    if args.bless {
        return bless(&args.base, &new);
    }
    let found = compare(&Base::read(&args.base, &new.identity)?, &new)?;
    show(&args.output, &found)?;
    if args.output.gate { gate(&found) } else { Ok(()) }
}

/// Shows what was found as asked for.
///
/// # Errors
/// The markdown cannot be written.
pub(crate) fn show(args: &CompareOutput, found: &CompareFile) -> Result<()> {
    if let Some(path) = &args.markdown {
        let text = render::markdown(found);
        FileSystem.replace(path, text.as_bytes()).map_err(|error| Error::io(&error, "write", path))?;
    }
    let text = if args.json { pretty(found)? } else { render::text(found, args.all) };
    ui::line(text.trim_end());
    Ok(())
}

/// The gate without a word: whether the runs `new` pass beside `base`, which is as on the command line.
///
/// # Errors
/// As [`execute`].
pub(crate) fn pass(base: &str, new: &[PathBuf]) -> Result<()> {
    let new = Side::read(new)?;
    compare(&Base::read(base, &new.identity)?, &new).and_then(|found| gate(&found))
}

/// Writes the exact figures of runs into a file that can be a base.
///
/// # Errors
/// They cannot be relied on, or the file not be written.
pub(crate) fn commit(path: &Path, runs: &[PathBuf]) -> Result<()> {
    write(path, &exact::bless(&Side::read(runs)?)?)
}

/// Compares two sides of noisy figures that were measured in any way.
///
/// # Errors
/// They are not comparable.
pub(crate) fn runs(base: Side, new: &Side) -> Result<CompareFile> {
    compare(&Base::Runs(Box::new(base)), new)
}

/// What comes of the runs `new` beside `base`, which is as on the command line; and the runs of the base, none if it is committed figures.
///
/// # Errors
/// As [`execute`] without the gate.
pub(crate) fn judged(base: &str, new: &Side) -> Result<(CompareFile, Vec<Run>)> {
    let base = Base::read(base, &new.identity)?;
    let found = compare(&base, new)?;
    let runs = match base {
        Base::Runs(side) => side.runs,
        Base::Committed(..) => Vec::new(),
    };
    Ok((found, runs))
}

/// What is compared with.
enum Base {
    Runs(Box<Side>),
    Committed(PathBuf, Box<BaselineFile>),
}

impl Base {
    /// Reads what the words of the command line name.
    fn read(names: &str, new: &Identity) -> Result<Self> {
        let path = baseline_path(names, new);
        match path {
            Some(path) => {
                let file: BaselineFile = reader::json(&path).map_err(|error| {
                    error.next("bless one: `cargo xtask compare baseline RUN --bless`, of an icount run with --boots 2")
                })?;
                if file.schema != VERSION {
                    let what =
                        format!("{} has format version {}, not {VERSION}", path.display(), file.schema);
                    return Err(Error::new(Class::BadRun, what).next("bless it again"));
                }
                Ok(Self::Committed(path, Box::new(file)))
            }
            None => Ok(Self::Runs(Box::new(Side::read(&dirs(names))?))),
        }
    }

    fn identity(&self) -> Identity {
        match self {
            Self::Runs(side) => side.identity.clone(),
            Self::Committed(_, file) => Identity {
                lane: file.lane.clone(),
                machine: file.machine.clone(),
                profile: file.profile.clone(),
                samples: file.samples,
                host: String::new(),
            },
        }
    }

    fn about(&self) -> SideFile {
        match self {
            Self::Runs(side) => side.about.clone(),
            Self::Committed(path, file) => SideFile {
                runs: vec![path.strip_prefix(workspace::root()).unwrap_or(path).display().to_string()],
                commits: file.commit.iter().cloned().collect(),
                boots: 0,
            },
        }
    }

    /// The exact figures, and what is wrong with the others.
    fn figures(&self) -> (BTreeMap<String, BaselineCase>, Vec<Finding>) {
        match self {
            Self::Runs(side) => exact::figures(side),
            Self::Committed(_, file) => (file.cases.clone(), Vec::new()),
        }
    }
}

/// The file of committed figures that `names` means, if it means one.
fn baseline_path(names: &str, new: &Identity) -> Option<PathBuf> {
    if names == BASELINE {
        let folder = workspace::root().join("results/baselines").join(&new.lane);
        return Some(folder.join(format!("{}.{}.json", new.machine, new.profile)));
    }
    let path = Path::new(names);
    (path.extension()? == "json").then(|| path.to_owned())
}

fn dirs(names: &str) -> Vec<PathBuf> {
    names.split(',').filter(|name| !name.is_empty()).map(PathBuf::from).collect()
}

fn compare(base: &Base, new: &Side) -> Result<CompareFile> {
    base.identity().admit(&new.identity)?;
    let mut remarks = Vec::new();
    let (mut noise, mut alpha) = (None::<PathBuf>, None);
    let (mut cases, added) = match base {
        Base::Runs(side) if !side::exact(&new.identity.lane) => {
            alpha = Some(judge::ALPHA);
            let known = calibrate::known(&new.identity)?;
            let judged = judge::judge(side, new, known.here().map(|(_, file)| file));
            remarks.push(noise_remark(&known, &new.identity, &judged.0));
            remarks.extend(turns_remark(side, new));
            noise = known.here().map(|(path, _)| path.to_owned());
            judged
        }
        base => {
            remarks.extend(exact_remarks(base, new));
            let (figures, flaws) = base.figures();
            let (mut cases, added) = exact::judge(&figures, new);
            cases.extend(flaws);
            (cases, added)
        }
    };
    cases.sort_by(|a, b| (a.verdict, &a.id, a.measure).cmp(&(b.verdict, &b.id, b.measure)));
    let mut counts = BTreeMap::new();
    cases.iter().for_each(|case| *counts.entry(case.verdict).or_insert(0) += 1);
    if cases.is_empty() {
        return Err(Error::new(Class::Unusable, "the sides have no case in common")
            .next("measure both with the same filter"));
    }
    Ok(CompareFile {
        schema: VERSION,
        lane: new.identity.lane.clone(),
        machine: new.identity.machine.clone(),
        profile: new.identity.profile.clone(),
        base: base.about(),
        new: new.about.clone(),
        alpha,
        noise: noise.map(|path| path.display().to_string()),
        counts,
        cases,
        added,
        remarks,
    })
}

/// That the host may have changed between the sides, which no test of boots can see.
fn turns_remark(base: &Side, new: &Side) -> Option<String> {
    // Times sort as text.
    let times = |side: &Side| {
        let started = || side.runs.iter().map(|run| run.run.started.clone());
        started().min().zip(started().max())
    };
    let ((base_first, base_last), (new_first, new_last)) = times(base).zip(times(new))?;
    (base_last < new_first || new_last < base_first).then(|| {
        "one side was measured after the other, so what the host did meanwhile counts as well; `cargo xtask ab` measures in turn"
            .to_owned()
    })
}

/// What this machine's own noise did to the verdicts, or how it would come to be known.
fn noise_remark(known: &calibrate::Known, identity: &Identity, cases: &[Finding]) -> String {
    let measure =
        format!("measure it: `cargo xtask calibrate --lane {}`, with the flags of these runs", identity.lane);
    match known {
        calibrate::Known::Nowhere => format!("this machine's own noise is not known; {measure}"),
        calibrate::Known::Elsewhere(path) => {
            format!("the noise in {} is that of another host; {measure}", workspace::shown(path))
        }
        calibrate::Known::Here(path, file) => {
            let tested = cases.iter().filter(|case| case.test.is_some());
            let (known, unknown): (Vec<&Finding>, Vec<&Finding>) = tested.partition(|case| {
                file.cases.get(&case.id).is_some_and(|known| known.contains_key(&case.measure))
            });
            let raised = known.iter().filter(|case| judge::raised(case)).count();
            let rest = match unknown.len() {
                0 => String::new(),
                count => format!("; of {count} figures it is not known"),
            };
            format!(
                "this machine's own noise ({}) raises the bound of {raised} of {} figures{rest}",
                workspace::shown(path),
                known.len()
            )
        }
    }
}

fn exact_remarks(base: &Base, new: &Side) -> Vec<String> {
    let mut remarks = Vec::new();
    if new.boots() < 2 {
        remarks.push("the new side has one boot, which does not show that boots agree".to_owned());
    }
    let Base::Committed(_, file) = base else { return remarks };
    let newest = new.runs.last();
    let compiler = newest.map(|run| run.env.rustc.as_str());
    if compiler.is_some_and(|compiler| compiler != file.rustc) {
        remarks.push(format!("other compilers: {} and {}", file.rustc, compiler.unwrap_or_default()));
    }
    let emulator = newest.and_then(|run| run.env.qemu.as_ref()).map(|qemu| qemu.version.clone());
    if emulator != file.qemu {
        let name = |version: Option<&str>| version.unwrap_or("none").to_owned();
        remarks.push(format!(
            "other emulators: {} and {}",
            name(file.qemu.as_deref()),
            name(emulator.as_deref())
        ));
    }
    remarks
}

/// Turns what was found into an exit code.
///
/// # Errors
/// As [`execute`] with `--gate`.
pub(crate) fn gate(found: &CompareFile) -> Result<()> {
    let count = |verdict| found.counts.get(&verdict).copied().unwrap_or(0);
    let exact = found.alpha.is_none();
    let bad = |case: &&Finding| match case.verdict {
        Verdict::Regressed | Verdict::Missing => true,
        // Where figures are exact, boots that differ are a fault of their own.
        Verdict::Noisy => exact,
        Verdict::Inconclusive | Verdict::Improved | Verdict::Unchanged => false,
    };
    let refused: Vec<String> = found.cases.iter().filter(bad).map(render::sentence).collect();
    if !refused.is_empty() {
        let next = if exact {
            "mend it; or, if it is meant, say why in the commit and bless it: `cargo xtask compare baseline RUN --bless`"
        } else {
            "mend it; `cargo xtask report RUN` shows the histograms"
        };
        let what = format!(
            "{} of {} figures do not pass:\n{}",
            refused.len(),
            found.cases.len(),
            refused.join("\n")
        );
        return Err(Error::new(Class::Regressed, what).next(next));
    }
    let undecided = |what: &str, next: &str| Err(Error::new(Class::Unusable, what).next(next));
    if exact && found.new.boots < 2 {
        return undecided(
            "one boot does not show that boots agree",
            "measure with `cargo xtask bench --lane icount --boots 2`",
        );
    }
    if count(Verdict::Improved) + count(Verdict::Unchanged) == 0 {
        let reason = found.cases.first().map_or("", |case| case.reason.as_str());
        return undecided(
            &format!("no figure could be decided: {reason}"),
            "measure more boots: `cargo xtask bench --boots 8`, or `cargo xtask ab`",
        );
    }
    Ok(())
}

/// Writes the committed figures anew.
fn bless(names: &str, new: &Side) -> Result<()> {
    let Some(path) = baseline_path(names, &new.identity) else {
        return Err(Error::new(Class::Usage, "only a file of committed figures can be blessed")
            .next("write `cargo xtask compare baseline RUN --bless`"));
    };
    let file = exact::bless(new)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| Error::io(&error, "create", folder))?;
    write(&path, &file)?;
    ui::line(&format!("compare: blessed {} cases in {}; commit it", file.cases.len(), path.display()));
    Ok(())
}

/// A file of the laboratory as text.
///
/// # Errors
/// It cannot be written as JSON.
pub(crate) fn pretty(file: &impl serde::Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(file)
        .map_err(|error| Error::new(Class::Io, format!("cannot write JSON: {error}")))?;
    Ok(text + "\n")
}

/// Puts a file of the laboratory in place.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(path: &Path, file: &impl serde::Serialize) -> Result<()> {
    let text = pretty(file)?;
    FileSystem.replace(path, text.as_bytes()).map_err(|error| Error::io(&error, "write", path))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
