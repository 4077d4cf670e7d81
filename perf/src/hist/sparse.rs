//! Histograms as bytes: the non-empty buckets as pairs of variable-length integers.
//!
//! A pair is (distance to the bucket before it, count), each in LEB128 (DWARF 5, section 7.6). The first distance of a chunk
//! counts from bucket 0, so every chunk can be read alone.

use super::Hist;
use crate::record::varint;

/// Most bytes of a pair: a bucket index below 2^32 and a 32-bit count.
const MAX_PAIR: usize = 10;

impl<const DIGITS: u8> Hist<'_, DIGITS> {
    /// Encodes the non-empty buckets from bucket `from` on into `out`, as many as fit.
    /// Gives the bytes used and the bucket to go on from, `None` when all are done.
    pub fn encode_sparse(&self, from: usize, out: &mut [u8]) -> (usize, Option<usize>) {
        let (mut used, mut last) = (0, 0);
        for (bucket, count) in self.buckets().skip_while(|&(bucket, _)| bucket < from) {
            let Some(room) = out.get_mut(used..used + MAX_PAIR) else {
                return (used, Some(bucket));
            };
            let distance = varint::write(bucket as u64 - last, room);
            let width = varint::write(u64::from(count), room.get_mut(distance..).unwrap_or_default());
            used += distance + width;
            last = bucket as u64;
        }
        (used, None)
    }
}

/// Bytes that are no sparse histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads pairs of (bucket, count) back. After an error it ends.
#[derive(Clone, Debug)]
pub struct SparsePairs<'a> {
    rest: &'a [u8],
    last: u64,
}

impl<'a> SparsePairs<'a> {
    /// The pairs of one chunk.
    #[must_use]
    pub fn new(chunk: &'a [u8]) -> Self {
        Self { rest: chunk, last: 0 }
    }

    fn pair(&mut self) -> Option<(u32, u32)> {
        let distance = varint::read(&mut self.rest)?;
        let count = varint::read(&mut self.rest)?;
        self.last = self.last.checked_add(distance)?;
        Some((u32::try_from(self.last).ok()?, u32::try_from(count).ok()?))
    }
}

impl Iterator for SparsePairs<'_> {
    type Item = Result<(u32, u32), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let pair = self.pair();
        if pair.is_none() {
            self.rest = &[];
        }
        Some(pair.ok_or(Malformed))
    }
}
