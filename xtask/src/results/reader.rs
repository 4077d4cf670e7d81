//! Reads run directories back, refusing whatever is damaged and accepting whatever is merely unfinished.

use crate::error::{Class, Error, Result};
use crate::results::hlog;
use crate::results::schema::{
    CaseRow, CompleteFile, EnvFile, HistRef, RunFile, RunStatus, TraceRow, VERSION,
};
use crate::results::writer::TRACE;
use hdrhistogram::Histogram;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::{Path, PathBuf};

/// A run, read from its directory.
#[derive(Clone, Debug)]
pub struct Run {
    /// The directory.
    pub dir: PathBuf,
    /// What was asked for and how far it got.
    pub run: RunFile,
    /// Its surroundings.
    pub env: EnvFile,
    /// Its rows, in the order they were measured.
    pub rows: Vec<CaseRow>,
}

impl Run {
    /// Reads a run directory. Without `COMPLETE` the run counts as partial, whatever else it says.
    ///
    /// # Errors
    /// [`Class::BadRun`]: it is no run directory, or one that is damaged.
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            return Err(Error::new(Class::BadRun, format!("{} is not a directory", dir.display()))
                .next("pass a directory below results/runs, or nothing for the latest run"));
        }
        let mut run: RunFile = json(&dir.join("run.json"))?;
        let env: EnvFile = json(&dir.join("env.json"))?;
        for (file, schema) in [("run.json", run.schema), ("env.json", env.schema)] {
            if schema != VERSION {
                return Err(bad(&dir.join(file), &format!("has format version {schema}, not {VERSION}"))
                    .next("read it with the xtask of the commit named in env.json"));
            }
        }
        let complete = dir.join("COMPLETE");
        let rows: Vec<CaseRow> = lines(&dir.join("cases.jsonl"), complete.exists())?;
        if complete.exists() {
            check_sizes(dir, &json(&complete)?, rows.len())?;
        } else {
            run.status = RunStatus::Partial;
        }
        Ok(Self { dir: dir.to_owned(), run, env, rows })
    }

    /// The newest run below `root` (by the time in its name), complete or not.
    ///
    /// # Errors
    /// [`Class::BadRun`]: there is none, or it is damaged.
    pub fn latest(root: &Path) -> Result<Self> {
        let newest = list(root).into_iter().max_by_key(|dir| dir.file_name().map(ToOwned::to_owned));
        match newest {
            Some(dir) => Self::open(&dir),
            None => Err(Error::new(Class::BadRun, format!("no run below {}", root.display()))
                .next("make one with `cargo xtask bench`")),
        }
    }

    /// Whether everything selected was measured.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.run.status == RunStatus::Complete
    }

    /// The histogram of a row.
    ///
    /// # Errors
    /// [`Class::BadRun`]: the file is missing or damaged.
    pub fn histogram(&self, reference: &HistRef) -> Result<Histogram<u64>> {
        let path = self.inside(&reference.file)?;
        let text = fs::read(&path).map_err(|error| bad(&path, &error.to_string()))?;
        let histograms = hlog::read(&text).map_err(|error| error.within(&path.display().to_string()))?;
        let index = usize::try_from(reference.interval).unwrap_or(usize::MAX);
        histograms
            .into_iter()
            .nth(index)
            .ok_or_else(|| bad(&path, &format!("has no interval {}", reference.interval)))
    }

    /// A matrix file as text cells; the first row and the first column are labels.
    ///
    /// # Errors
    /// [`Class::BadRun`]: the file is missing or damaged.
    pub fn matrix(&self, file: &str) -> Result<Vec<Vec<String>>> {
        let path = self.inside(file)?;
        let text = fs::read_to_string(&path).map_err(|error| bad(&path, &error.to_string()))?;
        let table = csv(&text).ok_or_else(|| bad(&path, "has an unclosed quote"))?;
        let width = table.first().map_or(0, Vec::len);
        if width < 2 || table.iter().any(|line| line.len() != width) {
            return Err(bad(&path, "is not a rectangular table"));
        }
        Ok(table)
    }

    /// What was traced, in the order in which it arrived; `None` if nothing was.
    ///
    /// # Errors
    /// [`Class::BadRun`]: the file is damaged.
    pub fn trace(&self) -> Result<Option<Vec<TraceRow>>> {
        let path = self.dir.join(TRACE);
        if path.exists() { lines(&path, self.is_complete()).map(Some) } else { Ok(None) }
    }

    /// A path named in a row, which must not lead out of the run.
    fn inside(&self, name: &str) -> Result<PathBuf> {
        let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
        if Path::new(name).components().all(plain) {
            Ok(self.dir.join(name))
        } else {
            Err(bad(&self.dir.join("cases.jsonl"), &format!("names a file outside the run: {name}")))
        }
    }
}

/// Every run directory below `root`, which has the levels lane, machine, run.
#[must_use]
pub fn list(root: &Path) -> Vec<PathBuf> {
    let mut level = vec![root.to_owned()];
    for _ in 0..3 {
        level = level.iter().flat_map(|dir| children(dir)).collect();
    }
    level.retain(|dir| dir.join("run.json").is_file());
    level
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(|path| path.is_dir()).collect()
}

fn bad(path: &Path, what: &str) -> Error {
    Error::new(Class::BadRun, format!("{}: {what}", path.display()))
}

/// A file of one JSON object.
///
/// # Errors
/// [`Class::BadRun`]: it is missing or damaged.
pub fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(|error| bad(path, &error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| bad(path, &error.to_string()))
}

/// The objects of a file of lines. In an unfinished run the last line may be cut off, and is then dropped.
fn lines<T: DeserializeOwned>(path: &Path, complete: bool) -> Result<Vec<T>> {
    let text = fs::read(path).map_err(|error| bad(path, &error.to_string()))?;
    let mut rows = Vec::new();
    for (index, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        if !line.ends_with(b"\n") && !complete {
            break;
        }
        let row = serde_json::from_slice(line)
            .map_err(|error| bad(path, &format!("line {}: {error}", index + 1)))?;
        rows.push(row);
    }
    Ok(rows)
}

fn check_sizes(dir: &Path, complete: &CompleteFile, rows: usize) -> Result<()> {
    if complete.schema != VERSION {
        return Err(bad(
            &dir.join("COMPLETE"),
            &format!("has format version {}, not {VERSION}", complete.schema),
        ));
    }
    for (name, &size) in &complete.files {
        let path = dir.join(name);
        let found = fs::metadata(&path).map_err(|error| bad(&path, &error.to_string()))?.len();
        if found != size {
            return Err(bad(&path, &format!("has {found} bytes, but COMPLETE says {size}")));
        }
    }
    if usize::try_from(complete.rows) != Ok(rows) {
        return Err(bad(
            &dir.join("cases.jsonl"),
            &format!("has {rows} rows, but COMPLETE says {}", complete.rows),
        ));
    }
    Ok(())
}

/// Splits CSV (RFC 4180) into cells.
fn csv(text: &str) -> Option<Vec<Vec<String>>> {
    let (mut table, mut line, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (quoted, c) {
            (true, '"') if chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            (_, '"') => quoted = !quoted,
            (false, ',') => line.push(std::mem::take(&mut cell)),
            (false, '\n') => {
                line.push(std::mem::take(&mut cell));
                table.push(std::mem::take(&mut line));
            }
            (_, c) => cell.push(c),
        }
    }
    (!quoted).then_some(table)
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
