//! Puts chunked histograms and matrices together again.

use std::string::{String, ToString};
use std::vec::Vec;

use super::varint;
use super::{HistChunk, MatrixChunk, MatrixPart};
use crate::bench::Unit;
use crate::hist::{Layout, SparsePairs};

/// What a chunk made of the thing it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Chunking<T> {
    /// There is more to come.
    Partial,
    /// All is there.
    Complete(T),
    /// Chunks are missing, or their content is wrong; what was gathered is dropped.
    Broken,
}

/// The histogram of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseHist {
    /// Index of the case.
    pub case: u32,
    /// Significant decimal digits of the layout.
    pub digits: u8,
    /// Non-empty buckets in ascending order, with their counts.
    pub buckets: Vec<(u32, u32)>,
}

impl SparseHist {
    /// The non-empty buckets as (lowest value, highest value, count).
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64, u32)> + '_ {
        let layout = Layout::new(self.digits);
        self.buckets.iter().map(move |&(bucket, count)| {
            let bucket = bucket as usize;
            (layout.lowest(bucket), layout.highest(bucket), count)
        })
    }
}

/// Gathers the chunks of one histogram after the other.
#[derive(Debug, Default)]
pub struct HistAssembly {
    hist: SparseHist,
    chunks: u32,
}

impl HistAssembly {
    /// Takes the next chunk.
    pub fn add(&mut self, chunk: &HistChunk<'_>) -> Chunking<SparseHist> {
        if chunk.chunk == 0 {
            self.hist = SparseHist { case: chunk.case, digits: chunk.digits, buckets: Vec::new() };
            self.chunks = 0;
        }
        if self.gather(chunk).is_none() {
            *self = Self { hist: SparseHist::default(), chunks: u32::MAX };
            return Chunking::Broken;
        }
        self.chunks += 1;
        if !chunk.last {
            return Chunking::Partial;
        }
        let hist = core::mem::take(&mut self.hist);
        let total: u64 = hist.buckets.iter().map(|&(_, count)| u64::from(count)).sum();
        if total == chunk.total { Chunking::Complete(hist) } else { Chunking::Broken }
    }

    fn gather(&mut self, chunk: &HistChunk<'_>) -> Option<()> {
        let own = &mut self.hist;
        let fits = chunk.chunk == self.chunks && chunk.case == own.case && chunk.digits == own.digits;
        if !fits || !(1..=5).contains(&chunk.digits) {
            return None;
        }
        for pair in SparsePairs::new(chunk.pairs) {
            let (bucket, count) = pair.ok()?;
            if own.buckets.last().is_some_and(|&(last, _)| last >= bucket) || bucket >= MAX_BUCKETS {
                return None;
            }
            own.buckets.push((bucket, count));
        }
        Some(())
    }
}

/// No layout has so many buckets: 2^18 for each of at most 64 doublings.
const MAX_BUCKETS: u32 = 1 << 24;

/// A matrix of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Index of the case.
    pub case: u32,
    /// Name of the matrix among those of the case.
    pub name: String,
    /// Unit of the cells.
    pub unit: Unit,
    /// What the rows are.
    pub row_axis: String,
    /// What the columns are.
    pub col_axis: String,
    /// The numbers that label the rows.
    pub rows: Vec<u64>,
    /// The numbers that label the columns.
    pub cols: Vec<u64>,
    /// The cells, row by row; `None` where nothing was measured.
    pub cells: Vec<Option<u64>>,
}

/// Gathers the chunks of one matrix after the other.
#[derive(Debug, Default)]
pub struct MatrixAssembly {
    matrix: Option<Matrix>,
    chunks: u32,
}

impl MatrixAssembly {
    /// Takes the next chunk.
    pub fn add(&mut self, chunk: &MatrixChunk<'_>) -> Chunking<Matrix> {
        if chunk.chunk == 0 {
            self.matrix = Some(Matrix {
                case: chunk.case,
                name: chunk.name.to_string(),
                unit: chunk.unit,
                row_axis: chunk.row_axis.to_string(),
                col_axis: chunk.col_axis.to_string(),
                rows: Vec::new(),
                cols: Vec::new(),
                cells: Vec::new(),
            });
            self.chunks = 0;
        }
        let Some(matrix) =
            self.matrix.as_mut().filter(|own| self.chunks == chunk.chunk && own.matches(chunk))
        else {
            self.matrix = None;
            return Chunking::Broken;
        };
        self.chunks += 1;
        if matrix.gather(chunk).is_none() {
            self.matrix = None;
            return Chunking::Broken;
        }
        if !chunk.last {
            return Chunking::Partial;
        }
        match self.matrix.take().filter(|matrix| matrix.is_whole(chunk)) {
            Some(matrix) => Chunking::Complete(matrix),
            None => Chunking::Broken,
        }
    }
}

impl Matrix {
    /// The cell at a row and a column; `None` where nothing was measured, and outside the matrix.
    #[must_use]
    pub fn cell(&self, row: usize, col: usize) -> Option<u64> {
        if col >= self.cols.len() {
            return None;
        }
        self.cells.get(row * self.cols.len() + col).copied().flatten()
    }

    fn matches(&self, chunk: &MatrixChunk<'_>) -> bool {
        (self.case, self.name.as_str(), self.unit) == (chunk.case, chunk.name, chunk.unit)
    }

    fn gather(&mut self, chunk: &MatrixChunk<'_>) -> Option<()> {
        let mut data = chunk.data;
        while !data.is_empty() {
            let number = varint::read(&mut data)?;
            match chunk.part {
                MatrixPart::Rows => self.rows.push(number),
                MatrixPart::Cols => self.cols.push(number),
                MatrixPart::Cells => self.cells.push(number.checked_sub(1)),
            }
        }
        Some(())
    }

    fn is_whole(&self, chunk: &MatrixChunk<'_>) -> bool {
        self.rows.len() as u64 == u64::from(chunk.rows)
            && self.cols.len() as u64 == u64::from(chunk.cols)
            && self.cells.len() == self.rows.len() * self.cols.len()
    }
}
