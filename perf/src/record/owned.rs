//! Records that outlive the buffer they came in.

use std::vec::Vec;

use super::Record;

/// A record that owns its text and data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned(Vec<u8>);

impl Owned {
    /// A copy of a record, which may be larger than a frame.
    #[must_use]
    pub fn new(record: &Record<'_>) -> Self {
        // postcard fails only on sequences of unknown length and on full buffers; there are neither.
        Self(postcard::to_allocvec(record).expect("P8: every record can be serialised"))
    }

    /// The record.
    #[must_use]
    pub fn get(&self) -> Record<'_> {
        postcard::from_bytes(&self.0).expect("P8: what was serialised can be read back")
    }
}

impl From<&Record<'_>> for Owned {
    fn from(record: &Record<'_>) -> Self {
        Self::new(record)
    }
}
