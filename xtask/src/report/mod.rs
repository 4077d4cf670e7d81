//! `cargo xtask report`: runs as one offline HTML file, and a run as the result table of the README.
//!
//! [`page`] is what is shown: sides of runs, verdicts of `compare`, series of `history`. [`html`] writes the file, [`sections`] its
//! body from top to bottom ([`verdicts`], [`history`], [`benches`] with [`matrices`], [`environment`]), [`charts`] the data that
//! `assets/report.js` draws with uPlot, [`strips`] the drawings inside tables, [`command`] what reproduces a figure. [`groups`]
//! sorts rows into benchmarks, scaling curves and peer comparisons; [`markdown`] is the README's table.
//! H1: whatever comes from a run is escaped, once, where it enters the page ([`html::escape`], [`charts::embed`]).

mod benches;
mod charts;
mod command;
mod environment;
mod groups;
mod history;
mod html;
mod markdown;
mod matrices;
mod page;
mod sections;
mod strips;
mod systems;
mod verdicts;

#[cfg(test)]
mod browser_tests;

use crate::cli::ReportArgs;
use crate::compare::side::Side;
use crate::error::{Class, Error, Result};
use crate::peers::{self, PeerFile};
use crate::results::disk::{Disk, FileSystem};
use crate::results::reader::Run;
use crate::{bench, compare, ui, workspace};
use page::{Page, Shown};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub use groups::float;

/// Name of the report in a run directory.
const NAME: &str = "report.html";
/// Name of a report that shows more than the run in whose directory it lies.
const COMPARISON: &str = "comparison.html";

/// The subcommand.
///
/// # Errors
/// A run cannot be read or compared, or the report not written.
pub fn execute(args: &ReportArgs) -> Result<()> {
    let mut sides: Vec<Vec<Run>> = Vec::new();
    for names in &args.runs {
        sides.push(open(names)?);
    }
    if sides.is_empty() {
        sides.push(vec![Run::latest(&bench::runs())?]);
    }
    if args.markdown || args.update_readme {
        let [side] = sides.as_slice() else { return Err(one_side("the result table")) };
        let [run] = side.as_slice() else { return Err(one_side("the result table")) };
        if args.markdown {
            ui::line(&markdown::table(run, &peers()));
            return Ok(());
        }
        return update_readme(run);
    }
    let page = page(args, sides)?;
    let path = match &args.output {
        Some(path) => path.clone(),
        None if page.alone()
            && page.newest().runs.len() == 1
            && page.history.is_none()
            && page.found.is_none() =>
        {
            path(page.newest().last())
        }
        None => page.newest().last().dir.join(COMPARISON),
    };
    put(&path, &html::page(&page)?)?;
    ui::line(&format!("report: {}", path.display()));
    Ok(())
}

fn one_side(what: &str) -> Error {
    Error::new(Class::Usage, format!("{what} is of one run")).next("name one run directory")
}

/// The runs of one side: directories joined by commas.
fn open(names: &str) -> Result<Vec<Run>> {
    let runs: Vec<Run> = names
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| Run::open(Path::new(name)))
        .collect::<Result<_>>()?;
    if runs.is_empty() {
        return Err(Error::new(Class::Usage, "a side has no run").next("name a run directory for each side"));
    }
    Ok(runs)
}

/// The page that the flags ask for.
fn page(args: &ReportArgs, sides: Vec<Vec<Run>>) -> Result<Page> {
    let command = command(args, &sides);
    let compared = match &args.base {
        Some(base) => Some(judged(base, &sides)?),
        None => None,
    };
    let (mut shown, mut found, mut words) = (Vec::new(), None, None);
    let single = sides.len() == 1;
    if let Some((file, base, new)) = compared {
        (found, words) = (Some(file), Some((base.0, new)));
        if !base.1.is_empty() {
            shown.push(Shown { label: "base".to_owned(), runs: base.1 });
        }
    }
    let alone = single && shown.is_empty();
    for (place, runs) in sides.into_iter().enumerate() {
        let label = match (alone, single) {
            (true, _) => String::new(),
            (false, true) => "new".to_owned(),
            (false, false) => letters(place),
        };
        shown.push(Shown { label, runs });
    }
    let mut page = Page::of(shown, command)?;
    (page.found, page.compared) = (found, words);
    if let Some(root) = &args.history {
        page.history = Some(series(&page, root.as_deref())?);
        page.history_root.clone_from(root);
    }
    Ok(page)
}

/// What `compare` says, the base on the command line and its runs, and the new side on the command line.
type Judged = (compare::schema::CompareFile, (String, Vec<Run>), String);

fn judged(base: &str, sides: &[Vec<Run>]) -> Result<Judged> {
    let [new] = sides else {
        return Err(Error::new(Class::Usage, "a base is compared with one side")
            .next("join the runs of one build by commas, or leave --base out"));
    };
    let (found, runs) = compare::judged(base, &Side::of(new.clone())?)?;
    let base = match runs.as_slice() {
        [] => command::quoted(base),
        runs => paths(runs),
    };
    Ok((found, (base, runs), paths(new)))
}

fn paths(runs: &[Run]) -> String {
    runs.iter().map(|run| command::path(&run.dir)).collect::<Vec<_>>().join(",")
}

/// A, B, … Z, then numbers.
fn letters(place: usize) -> String {
    match u8::try_from(place).ok().filter(|&place| place < 26) {
        Some(place) => char::from(b'A' + place).to_string(),
        None => (place + 1).to_string(),
    }
}

/// The command that writes this page.
fn command(args: &ReportArgs, sides: &[Vec<Run>]) -> String {
    let mut words = vec!["cargo xtask report".to_owned()];
    words.extend(sides.iter().map(|runs| paths(runs)));
    words.extend(args.base.iter().map(|base| format!("--base {}", command::quoted(base))));
    words.extend(args.history.iter().map(|root| match root {
        Some(root) => format!("--history={}", command::path(root)),
        None => "--history".to_owned(),
    }));
    words.join(" ")
}

/// The series of the cases on the page, of its lane and machine.
fn series(page: &Page, root: Option<&Path>) -> Result<Vec<crate::history::SeriesFile>> {
    let runs = bench::runs();
    let mut series = crate::history::below(root.unwrap_or(&runs), "")?;
    let shown: BTreeSet<&str> = page
        .sides
        .iter()
        .flat_map(|side| &side.runs)
        .flat_map(|run| &run.rows)
        .map(|row| row.id.as_str())
        .collect();
    let file = &page.newest().last().run;
    series.retain(|one| {
        one.lane == file.lane && one.machine == file.machine && shown.contains(one.id.as_str())
    });
    Ok(series)
}

/// The name of the report in a run directory, and the report.
///
/// # Errors
/// A file of the run cannot be read.
pub fn render(run: &Run) -> Result<(&'static str, String)> {
    let command = format!("cargo xtask report {}", command::path(&run.dir));
    let side = Shown { label: String::new(), runs: vec![run.clone()] };
    Ok((NAME, html::page(&Page::of(vec![side], command)?)?))
}

/// The result table as markdown.
#[must_use]
pub fn table(run: &Run) -> String {
    markdown::table(run, &peers())
}

/// Where the report of a run is, if it has one.
#[must_use]
pub fn path(run: &Run) -> PathBuf {
    run.dir.join(NAME)
}

/// Writes `report.html` into the run directory.
///
/// # Errors
/// A file of the run cannot be read, or the report not written.
pub fn write(run: &Run) -> Result<PathBuf> {
    let (_, page) = render(run)?;
    let path = path(run);
    put(&path, &page)?;
    Ok(path)
}

fn put(path: &Path, page: &str) -> Result<()> {
    FileSystem.replace(path, page.as_bytes()).map_err(|error| Error::io(&error, "write", path))
}

/// What is known of other systems. A file that is not sound keeps no run from its report: a test holds the committed ones to it.
fn peers() -> Vec<PeerFile> {
    peers::load(&peers::folder()).unwrap_or_else(|error| {
        eprintln!("warning: no figures of other systems: {error}");
        Vec::new()
    })
}

fn update_readme(run: &Run) -> Result<()> {
    let path = workspace::root().join("README.md");
    let old = std::fs::read_to_string(&path).map_err(|error| Error::io(&error, "read", &path))?;
    let new = markdown::replace(&old, &markdown::table(run, &peers()))
        .map_err(|error| error.within("README.md"))?;
    FileSystem.replace(&path, new.as_bytes()).map_err(|error| Error::io(&error, "write", &path))?;
    ui::line(&format!("report: updated {}", path.display()));
    Ok(())
}
