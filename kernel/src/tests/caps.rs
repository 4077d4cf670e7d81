//! Capabilities that are handed on, revoked and expire, by programs (`user/caps` says there what it checks).

use super::user::passes;
use super::{Bed, Result};
use crate::machine;

/// Operations of all threads together: in a run of continuous integration, and per second of a soak.
const OPS: u64 = 20_000;
const OPS_PER_SECOND: u64 = 20_000;

/// Each call, alone, and its errors.
pub(super) fn calls(_: &mut Bed) -> Result {
    passes("caps", format_args!("kind=calls "))
}

/// Threads of several processes that revoke, derive, grant, transfer, delete and use at once.
///
/// The feature `late-derive` plants a bug that this ought to find, and has not found yet: a pass says little.
pub(super) fn race(bed: &mut Bed) -> Result {
    // Beside the leading process, which has two.
    let threads = (machine::topology().core_count().saturating_sub(2) / 3).max(1);
    let count = (OPS + OPS_PER_SECOND * u64::from(bed.soak)) / (3 * threads as u64);
    passes("caps", format_args!("kind=race threads={threads} count={count} seed={} ", bed.seed))
}
