//! `cargo xtask report`: a run as one offline HTML file, and as the result table of the README.
//!
//! [`html`] writes the page with every table in it, [`charts`] the data that `assets/report.js` draws with uPlot;
//! [`groups`] sorts rows into benchmarks, scaling curves and peer comparisons; [`markdown`] is the README's table.
//! H1: whatever comes from a run is escaped, once, where it enters the page ([`html::escape`], [`charts::embed`]).

mod charts;
mod groups;
mod html;
mod markdown;
mod sections;
mod systems;

#[cfg(test)]
mod browser_tests;

use crate::cli::ReportArgs;
use crate::error::{Error, Result};
use crate::peers::{self, PeerFile};
use crate::results::disk::{Disk, FileSystem};
use crate::results::reader::Run;
use crate::{bench, ui, workspace};
use std::path::PathBuf;

pub use groups::float;

/// Name of the report in a run directory.
const NAME: &str = "report.html";

/// The subcommand.
///
/// # Errors
/// The run cannot be read, or the report not written.
pub fn execute(args: &ReportArgs) -> Result<()> {
    let run = match &args.run {
        Some(dir) => Run::open(dir)?,
        None => Run::latest(&bench::runs())?,
    };
    if args.markdown {
        ui::line(&markdown::table(&run, &peers()));
        return Ok(());
    }
    if args.update_readme {
        return update_readme(&run);
    }
    ui::line(&format!("report: {}", write(&run)?.display()));
    Ok(())
}

/// The name of the report in a run directory, and the report.
///
/// # Errors
/// A file of the run cannot be read.
pub fn render(run: &Run) -> Result<(&'static str, String)> {
    Ok((NAME, html::page(run)?))
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
    let page = html::page(run)?;
    let path = path(run);
    FileSystem.replace(&path, page.as_bytes()).map_err(|error| Error::io(&error, "write", &path))?;
    Ok(path)
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
