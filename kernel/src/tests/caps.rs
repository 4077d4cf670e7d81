//! Capabilities that are handed on, revoked and expire, by programs (`user/caps` says there what it checks).

use super::user::passes;
use super::{Bed, Result};

/// Operations of all threads together: in a run of continuous integration, and per second of a soak.
const OPS: u64 = 20_000;
const OPS_PER_SECOND: u64 = 20_000;

/// Each call, alone, and its errors.
pub(super) fn calls(_: &mut Bed) -> Result {
    passes("caps", format_args!("kind=calls "))
}

/// Threads of several processes that revoke, derive, grant, transfer, delete and use at once.
///
/// Planted: the features `late-derive` (also found by models) and `hasty-revoke`.
pub(super) fn race(bed: &mut Bed) -> Result {
    let count = OPS + OPS_PER_SECOND * u64::from(bed.soak);
    passes("caps", format_args!("kind=race count={count} seed={} ", bed.seed))
}
