//! Sends histograms and matrices in chunks that fit a frame.

use crate::bench::Unit;
use crate::hist::{DEFAULT_DIGITS, Hist};
use crate::record::{HistChunk, MatrixChunk, MatrixPart, Record, Sink, varint};

/// Bytes of data in a chunk: what a frame holds, less ample room for the names.
const CHUNK: usize = 3 << 10;

/// What a matrix is, but for its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixHead<'a> {
    /// Name of the matrix among those of the case.
    pub name: &'a str,
    /// Unit of the cells.
    pub unit: Unit,
    /// What the rows are, `source core`.
    pub row_axis: &'a str,
    /// What the columns are, `target core`.
    pub col_axis: &'a str,
    /// The numbers that label the rows.
    pub rows: &'a [u32],
    /// The numbers that label the columns.
    pub cols: &'a [u32],
}

/// Sends a histogram.
pub(super) fn hist(case: u32, hist: &Hist<'_, DEFAULT_DIGITS>, sink: &mut dyn Sink) {
    let total = hist.buckets().map(|(_, count)| u64::from(count)).sum();
    let mut buffer = [0; CHUNK];
    let (mut chunk, mut from) = (0, Some(0));
    while let Some(bucket) = from {
        let (used, next) = hist.encode_sparse(bucket, &mut buffer);
        let pairs = buffer.get(..used).unwrap_or_default();
        let last = next.is_none();
        sink.send(&Record::Hist(HistChunk { case, chunk, last, digits: DEFAULT_DIGITS, total, pairs }));
        chunk += 1;
        from = next;
    }
}

/// Sends a matrix.
pub(super) fn matrix(
    case: u32,
    head: &MatrixHead<'_>,
    cell: &mut dyn FnMut(usize, usize) -> Option<u64>,
    sink: &mut dyn Sink,
) {
    let mut sender = Sender { case, head, chunk: 0, buffer: [0; CHUNK], sink };
    sender.list(MatrixPart::Rows, head.rows.iter().map(|&label| u64::from(label)));
    sender.list(MatrixPart::Cols, head.cols.iter().map(|&label| u64::from(label)));
    let places = (0..head.rows.len()).flat_map(|row| (0..head.cols.len()).map(move |col| (row, col)));
    // A cell is its value plus one, so that 0 can stand for none.
    sender.list(
        MatrixPart::Cells,
        places.map(|(row, col)| cell(row, col).map_or(0, |value| value.saturating_add(1))),
    );
}

struct Sender<'s> {
    case: u32,
    head: &'s MatrixHead<'s>,
    chunk: u32,
    buffer: [u8; CHUNK],
    sink: &'s mut dyn Sink,
}

impl Sender<'_> {
    fn list(&mut self, part: MatrixPart, numbers: impl Iterator<Item = u64>) {
        let mut used = 0;
        for number in numbers {
            if used + varint::MAX > CHUNK {
                self.flush(part, used, false);
                used = 0;
            }
            used += varint::write(number, self.buffer.get_mut(used..).unwrap_or_default());
        }
        self.flush(part, used, part == MatrixPart::Cells);
    }

    fn flush(&mut self, part: MatrixPart, used: usize, last: bool) {
        let Self { case, head, chunk, .. } = *self;
        self.sink.send(&Record::Matrix(MatrixChunk {
            case,
            name: head.name,
            unit: head.unit,
            row_axis: head.row_axis,
            col_axis: head.col_axis,
            rows: u32::try_from(head.rows.len()).unwrap_or(u32::MAX),
            cols: u32::try_from(head.cols.len()).unwrap_or(u32::MAX),
            part,
            chunk,
            last,
            data: self.buffer.get(..used).unwrap_or_default(),
        }));
        self.chunk += 1;
    }
}
