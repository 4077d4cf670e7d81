//! The records of a benchmark case, and of traces.

use abi::boot::Lane;
use serde::{Deserialize, Serialize};

use crate::bench::{Direction, Placement, Scope, Unit};
use crate::record::MAX_PAYLOAD;
use crate::trace::TraceRecord;
use crate::words::words;

words! {
    /// How a case ended.
    Status {
        /// Measured.
        Ok "ok";
        /// Broken: the body reported an error.
        Failed "failed";
        /// Not measured because the clock cannot be trusted.
        Refused "refused";
        /// Not measured because it makes no sense here.
        Skipped "skipped";
    }
}

/// What an empty window cost, in thousandths of a tick of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overhead {
    /// The smallest: this is what was subtracted from each window.
    pub min: u64,
    /// The median.
    pub median: u64,
    /// The distance between the first and the third quartile.
    pub spread: u64,
}

/// The row of a case: everything but its histogram and matrices. Values are in `unit`, per operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseRow<'a> {
    /// Index among the selected cases, from 0.
    pub index: u32,
    /// The benchmark row.
    pub id: &'a str,
    /// Version of the benchmark row.
    pub version: u32,
    /// Parameters as in the key, `order=0,mem=local`; the key is `id`, or `id/params` if there are any.
    pub params: &'a str,
    /// Where it ran.
    pub placement: Placement,
    /// The lane it ran in.
    #[serde(with = "lane_word")]
    pub lane: Lane,
    /// The unit of the values.
    pub unit: Unit,
    /// Which way is better.
    pub direction: Direction,
    /// What one operation spans.
    pub scope: Scope,
    /// How it ended.
    pub status: Status,
    /// Why, when it did not end well; may also hold a remark.
    pub reason: &'a str,
    /// Number of samples; one sample is one timed window.
    pub n: u64,
    /// Operations per timed window.
    pub batch: u32,
    /// Windows run before the first sample was taken.
    pub warm_up: u32,
    /// What an empty window cost; absent where nothing was timed.
    pub overhead: Option<Overhead>,
    /// Windows that took less than the overhead and count as 0.
    pub clamped: u64,
    /// Samples beyond the range of the histogram.
    pub overflow: u64,
    /// Smallest value, exactly.
    pub min: Option<u64>,
    /// Median. Percentiles that `n` does not support are absent.
    pub p50: Option<u64>,
    /// 90th percentile.
    pub p90: Option<u64>,
    /// 99th percentile.
    pub p99: Option<u64>,
    /// 99.9th percentile.
    pub p999: Option<u64>,
    /// 99.99th percentile.
    pub p9999: Option<u64>,
    /// Greatest value, exactly.
    pub max: Option<u64>,
    /// Mean without its fraction.
    pub mean: Option<u64>,
}

/// Part of the histogram of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistChunk<'a> {
    /// Index of the case.
    pub case: u32,
    /// Number of this chunk, from 0.
    pub chunk: u32,
    /// Whether it is the last one.
    pub last: bool,
    /// Significant decimal digits of the layout.
    pub digits: u8,
    /// Samples in all buckets of the histogram: what the counts of all chunks must add up to.
    pub total: u64,
    /// Pairs of bucket and count, see [`SparsePairs`](crate::hist::SparsePairs).
    pub pairs: &'a [u8],
}

/// Part of a matrix of a case: a piece of one of three lists of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixChunk<'a> {
    /// Index of the case.
    pub case: u32,
    /// Name of the matrix among those of the case.
    pub name: &'a str,
    /// Unit of the cells.
    pub unit: Unit,
    /// What the rows are, `source core`.
    pub row_axis: &'a str,
    /// What the columns are, `target core`.
    pub col_axis: &'a str,
    /// Number of rows.
    pub rows: u32,
    /// Number of columns.
    pub cols: u32,
    /// Which list this is a piece of.
    pub part: MatrixPart,
    /// Number of this chunk among all chunks of the matrix, from 0.
    pub chunk: u32,
    /// Whether it is the last chunk of the matrix.
    pub last: bool,
    /// Variable-length integers. A cell is its value plus one, or 0 for no value.
    pub data: &'a [u8],
}

words! {
    /// The lists that make up a matrix, in the order they are sent.
    MatrixPart {
        /// The numbers (of cores or nodes) that label the rows.
        Rows "rows";
        /// The numbers that label the columns.
        Cols "cols";
        /// The cells, row by row.
        Cells "cells";
    }
}

/// Part of the trace ring of a core, oldest records first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceChunk<'a> {
    /// The core.
    pub core: u32,
    /// Number of the first record of this chunk, counted on this core from the start; a gap says how many were overwritten.
    pub first: u64,
    /// Records one after the other, see [`TraceRecord::to_bytes`](crate::trace::TraceRecord::to_bytes).
    pub records: &'a [u8],
}

impl TraceChunk<'_> {
    /// Most records of a chunk.
    pub const MAX_RECORDS: usize = 64;
}

const _: () = assert!(TraceChunk::MAX_RECORDS * TraceRecord::BYTES + 32 <= MAX_PAYLOAD);

/// A lane as its word: `abi` depends on nothing, so it cannot derive this.
mod lane_word {
    use abi::boot::Lane;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(lane: &Lane, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(lane.word())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Lane, D::Error> {
        let word = <&str>::deserialize(deserializer)?;
        Lane::parse(word).ok_or_else(|| D::Error::custom("unknown lane"))
    }
}
