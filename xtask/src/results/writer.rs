//! Writes one run directory, row by row.
//!
//! The order of writes is what makes an interrupted run usable: see R1 to R3 in [`super`].

use crate::error::{Class, Error, Result};
use crate::results::disk::{Disk, Sync};
use crate::results::hlog::{self, Interval, Sparse};
use crate::results::reader::Run;
use crate::results::schema::{
    CaseRow, CaseStatus, CompleteFile, Counts, EnvFile, HistRef, MatrixRef, RunFile, RunStatus, TraceRow,
    VERSION,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the trace in a run directory.
pub const TRACE: &str = "trace.jsonl";

/// What a matrix file is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// What it shows.
    pub name: String,
    /// Unit of the cells.
    pub unit: String,
    /// What the rows are.
    pub row_axis: String,
    /// What the columns are.
    pub col_axis: String,
    /// Numbers that label the rows.
    pub rows: Vec<u64>,
    /// Numbers that label the columns.
    pub cols: Vec<u64>,
    /// Cells, row by row; `None` was not measured.
    pub cells: Vec<Option<u64>>,
}

/// Everything one finished case leaves behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The row, its file references still empty.
    pub row: CaseRow,
    /// The histogram, if samples were taken.
    pub hist: Option<Sparse>,
    /// When the measurement ran, for the interval log.
    pub interval: Interval,
    /// The matrices.
    pub matrices: Vec<Matrix>,
}

/// A run directory that is being written.
pub struct RunWriter<D: Disk> {
    disk: D,
    dir: PathBuf,
    run: RunFile,
    env: EnvFile,
    rows: Vec<CaseRow>,
    files: BTreeMap<String, u64>,
    hlogs: BTreeMap<String, (u32, Vec<u8>)>,
}

impl<D: Disk> RunWriter<D> {
    /// Creates `<root>/<lane>/<machine>/<id>` with `run.json` (status `partial`) and `env.json`.
    ///
    /// # Errors
    /// The file system refuses; a full disk has its own class.
    pub fn create(disk: D, root: &Path, run: RunFile, env: EnvFile) -> Result<Self> {
        let dir = root.join(&run.lane).join(&run.machine).join(&run.id);
        for path in [dir.clone(), dir.join("hist"), dir.join("matrix")] {
            disk.make_dir(&path).map_err(|error| Error::io(&error, "create", &path))?;
        }
        let mut writer =
            Self { disk, dir, run, env, rows: Vec::new(), files: BTreeMap::new(), hlogs: BTreeMap::new() };
        writer.run.status = RunStatus::Partial;
        writer.append("cases.jsonl", b"", Sync::Now)?;
        writer.append("serial.log", b"", Sync::Now)?;
        writer.save_env()?;
        writer.save_run()?;
        Ok(writer)
    }

    /// The run directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Rows so far.
    pub fn rows(&self) -> &[CaseRow] {
        &self.rows
    }

    /// What was asked for and how far it got.
    pub fn run(&self) -> &RunFile {
        &self.run
    }

    /// What the run knows of its surroundings.
    pub fn env(&self) -> &EnvFile {
        &self.env
    }

    /// Changes `run.json`.
    ///
    /// # Errors
    /// As [`RunWriter::create`].
    pub fn update_run(&mut self, change: impl FnOnce(&mut RunFile)) -> Result<()> {
        change(&mut self.run);
        self.save_run()
    }

    /// Changes `env.json`.
    ///
    /// # Errors
    /// As [`RunWriter::create`].
    pub fn update_env(&mut self, change: impl FnOnce(&mut EnvFile)) -> Result<()> {
        change(&mut self.env);
        self.save_env()
    }

    /// Appends to `serial.log`.
    ///
    /// # Errors
    /// As [`RunWriter::create`].
    pub fn serial(&mut self, bytes: &[u8]) -> Result<()> {
        self.append("serial.log", bytes, Sync::Later)
    }

    /// Appends to `trace.jsonl`, which is there only if something was traced.
    ///
    /// # Errors
    /// As [`RunWriter::create`].
    pub fn trace(&mut self, rows: &[TraceRow]) -> Result<()> {
        let mut lines = Vec::new();
        for row in rows {
            lines.extend(encode(row)?);
            lines.push(b'\n');
        }
        self.append(TRACE, &lines, Sync::Later)
    }

    /// Writes a finished case: histogram, matrices, then the row (R1).
    ///
    /// # Errors
    /// As [`RunWriter::create`]; the row is then not part of the run.
    pub fn case(&mut self, finished: Finished) -> Result<&CaseRow> {
        let Finished { mut row, hist, interval, matrices } = finished;
        if let Some(hist) = hist {
            row.hist = Some(self.histogram(&row.id, &hist, interval)?);
        }
        for matrix in &matrices {
            let reference = self.matrix(&row, matrix)?;
            row.matrices.push(reference);
        }
        let mut line = encode(&row)?;
        line.push(b'\n');
        self.append("cases.jsonl", &line, Sync::Now)?;
        count(&mut self.run.counts, row.status);
        self.rows.push(row);
        self.save_run()?;
        Ok(&self.rows[self.rows.len() - 1])
    }

    /// The run as a reader will find it once `COMPLETE` exists.
    fn as_read(&self) -> Run {
        let Self { dir, run, env, rows, .. } = self;
        Run { dir: dir.clone(), run: run.clone(), env: env.clone(), rows: rows.clone() }
    }

    /// Puts a file that `COMPLETE` does not list into the directory.
    fn derived(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        self.disk.replace(&path, content).map_err(|error| Error::io(&error, "write", &path))
    }

    /// Ends a run that measured everything: final `run.json`, the derived file, and then `COMPLETE` (R2).
    ///
    /// `derive` makes the derived file, its name and its content, from the run as it will be read back.
    ///
    /// # Errors
    /// As [`RunWriter::create`], or `derive` fails; the run then stays partial.
    pub fn complete(
        &mut self,
        finished: String,
        derive: impl FnOnce(&Run) -> Result<(&'static str, String)>,
    ) -> Result<()> {
        self.run.status = RunStatus::Complete;
        self.run.finished = Some(finished);
        self.save_run()?;
        let (name, content) = derive(&self.as_read())?;
        self.derived(name, content.as_bytes())?;
        let rows = u32::try_from(self.rows.len())
            .map_err(|_| Error::new(Class::Io, "a run cannot hold more than 2^32 rows"))?;
        let complete = CompleteFile { schema: VERSION, rows, files: self.files.clone() };
        self.derived("COMPLETE", &pretty(&complete)?)
    }

    fn save_run(&mut self) -> Result<()> {
        let content = pretty(&self.run)?;
        self.replace("run.json", &content)
    }

    fn save_env(&mut self) -> Result<()> {
        let content = pretty(&self.env)?;
        self.replace("env.json", &content)
    }

    fn histogram(&mut self, id: &str, hist: &Sparse, interval: Interval) -> Result<HistRef> {
        let file = format!("hist/{}.hlog", file_name(id));
        let (next, mut content) = match self.hlogs.get(&file) {
            Some((next, content)) => (*next, content.clone()),
            None => (0, hlog::header(id)),
        };
        content.extend_from_slice(&hlog::line(hist, interval)?);
        self.replace(&file, &content)?;
        self.hlogs.insert(file.clone(), (next + 1, content));
        Ok(HistRef { file, interval: next })
    }

    fn matrix(&mut self, row: &CaseRow, matrix: &Matrix) -> Result<MatrixRef> {
        let boot = row.boot;
        let file = format!("matrix/{}+{}+boot{boot}.csv", file_name(&row.id), file_name(&matrix.name));
        self.replace(&file, csv(matrix).as_bytes())?;
        let Matrix { name, unit, row_axis, col_axis, .. } = matrix.clone();
        Ok(MatrixRef { name, unit, row_axis, col_axis, file })
    }

    fn replace(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        self.disk.replace(&path, content).map_err(|error| Error::io(&error, "write", &path))?;
        self.files.insert(name.to_owned(), bytes(content));
        Ok(())
    }

    fn append(&mut self, name: &str, content: &[u8], sync: Sync) -> Result<()> {
        let path = self.dir.join(name);
        self.disk.append(&path, content, sync).map_err(|error| Error::io(&error, "write", &path))?;
        *self.files.entry(name.to_owned()).or_default() += bytes(content);
        Ok(())
    }
}

fn bytes(content: &[u8]) -> u64 {
    u64::try_from(content.len()).unwrap_or(u64::MAX)
}

fn count(counts: &mut Counts, status: CaseStatus) {
    let slot = match status {
        CaseStatus::Ok => &mut counts.ok,
        CaseStatus::Failed => &mut counts.failed,
        CaseStatus::Refused => &mut counts.refused,
        CaseStatus::Skipped => &mut counts.skipped,
    };
    *slot += 1;
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::new(Class::Io, format!("cannot encode a row: {error}")))
}

fn pretty(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|error| Error::new(Class::Io, format!("cannot encode a file of the run: {error}")))?;
    text.push(b'\n');
    Ok(text)
}

/// A case key as a file name: `/` becomes `~`, and every byte outside a safe set is percent-encoded, so that distinct
/// keys have distinct names on every file system.
#[must_use]
pub fn file_name(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'/' => name.push('~'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'=' | b',' => {
                name.push(char::from(byte));
            }
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    name
}

/// A matrix as CSV (RFC 4180): labels in the first row and column, an empty cell for what was not measured.
#[must_use]
pub fn csv(matrix: &Matrix) -> String {
    let corner = format!("{} / {}", matrix.row_axis, matrix.col_axis);
    let mut text = format!("\"{}\"", corner.replace('"', "\"\""));
    for label in &matrix.cols {
        text.push_str(&format!(",{label}"));
    }
    text.push('\n');
    let width = matrix.cols.len().max(1);
    for (label, cells) in matrix.rows.iter().zip(matrix.cells.chunks(width)) {
        text.push_str(&label.to_string());
        for cell in cells {
            text.push(',');
            text.push_str(&cell.map(|value| value.to_string()).unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
