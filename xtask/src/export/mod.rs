//! `cargo xtask export`: a run in the formats of other tools.
//!
//! Each format has its module; [`series`] is what several share: names that keep lanes and machines apart, figures in the unit people read.
//! X1: a run that is not complete says so in every format, and where a format knows only names, by its names: a time series never
//!     takes its figures for those of a complete run.

mod bmf;
mod csv;
mod gha;
mod hgrm;
mod jmh;
mod openmetrics;
mod series;

#[cfg(test)]
mod consumer_tests;
#[cfg(test)]
mod reader_tests;

use crate::cli::ExportArgs;
use crate::error::{Class, Error, Result};
use crate::results::disk::{Disk, FileSystem};
use crate::results::reader::Run;
use crate::{bench, report, ui};
use serde::Serialize;
use std::path::Path;

/// A format of other tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line for each row, RFC 4180.
    Csv,
    /// Bencher Metric Format.
    Bmf,
    /// What JMH writes.
    Jmh,
    /// github-action-benchmark, tool `customSmallerIsBetter`.
    Gha,
    /// github-action-benchmark, tool `customBiggerIsBetter`.
    GhaBigger,
    /// OpenMetrics text, which Prometheus reads.
    OpenMetrics,
    /// The table of `cargo xtask report --markdown`.
    Markdown,
    /// Percentile distributions for HdrHistogram's plotter: a folder.
    Hgrm,
}

impl Format {
    /// Every word that [`parse`](Self::parse) knows.
    pub const WORDS: &'static [&'static str] =
        &["csv", "bmf", "jmh", "gha", "gha-bigger", "openmetrics", "markdown", "hgrm"];

    /// The format that a word stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "csv" => Self::Csv,
            "bmf" => Self::Bmf,
            "jmh" => Self::Jmh,
            "gha" => Self::Gha,
            "gha-bigger" => Self::GhaBigger,
            "openmetrics" => Self::OpenMetrics,
            "markdown" => Self::Markdown,
            "hgrm" => Self::Hgrm,
            _ => return None,
        })
    }
}

/// The subcommand.
///
/// # Errors
/// The run cannot be read, or the export not written.
pub fn execute(args: &ExportArgs) -> Result<()> {
    let run = match &args.run {
        Some(dir) => Run::open(dir)?,
        None => Run::latest(&bench::runs())?,
    };
    if !run.is_complete() {
        // Not on standard output, which may be the export itself.
        eprintln!("warning: {} is incomplete, and the export says so", run.dir.display());
    }
    if args.to == Format::Hgrm {
        let folder = args.output.clone().unwrap_or_else(|| run.dir.join("hgrm"));
        let files = hgrm::files(&run)?;
        std::fs::create_dir_all(&folder).map_err(|error| Error::io(&error, "create", &folder))?;
        for (name, text) in &files {
            write(&folder.join(name), text)?;
        }
        ui::line(&format!("export: {} files in {}", files.len(), folder.display()));
        return Ok(());
    }
    let text = render(&run, args.to)?;
    if let Some(what) = lacking(&text, args.to) {
        eprintln!("warning: {what}");
    }
    match &args.output {
        None => ui::line(text.trim_end_matches('\n')),
        Some(path) => {
            write(path, &text)?;
            ui::line(&format!("export: {}", path.display()));
        }
    }
    Ok(())
}

/// Why the reader of a format will not take this export: github-action-benchmark fails on a file without entries.
fn lacking(text: &str, format: Format) -> Option<&'static str> {
    match format {
        Format::Gha if text.trim() == "[]" => {
            Some("no good row of this run should be small: the export is empty, which its reader refuses")
        }
        Format::GhaBigger if text.trim() == "[]" => {
            Some("no good row of this run should be great: the export is empty, which its reader refuses")
        }
        _ => None,
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    FileSystem.replace(path, text.as_bytes()).map_err(|error| Error::io(&error, "write", path))
}

/// A run in a format that is one file.
fn render(run: &Run, format: Format) -> Result<String> {
    match format {
        Format::Csv => csv::render(run),
        Format::Bmf => pretty(&bmf::render(run)),
        Format::Jmh => pretty(&jmh::render(run)?),
        Format::Gha => pretty(&gha::render(run, crate::results::schema::Direction::Smaller)),
        Format::GhaBigger => pretty(&gha::render(run, crate::results::schema::Direction::Greater)),
        Format::OpenMetrics => Ok(openmetrics::render(run)),
        Format::Markdown => Ok(report::table(run)),
        Format::Hgrm => {
            Err(Error::new(Class::Usage, "hgrm is a folder, not a file").next("name a folder with -o"))
        }
    }
}

fn pretty(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Error::new(Class::Io, format!("cannot encode the export: {error}")))
}
