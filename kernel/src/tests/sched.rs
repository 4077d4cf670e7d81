//! What the scheduler promises, checked by programs: `user/policy` says what exactly.
//!
//! Where instructions are counted a promise about time is checked to the letter; elsewhere an emulator's cores stand still now and then
//! without the guest's knowing, so figures are written to the log, and what does not depend on time is checked.

use abi::boot::Lane;

use super::user::passes;
use super::{Bed, Result};

/// Milliseconds of a measurement where time is exact, and elsewhere.
const EXACT_MS: u64 = 1000;
const ROUGH_MS: u64 = 100;

fn check(bed: &Bed, only: &str) -> Result {
    let exact = bed.lane == Lane::Icount;
    let usual = if exact { EXACT_MS } else { ROUGH_MS };
    let ms = usual.max(u64::from(bed.soak) * 1000 / 10);
    passes("policy", format_args!("only={only} exact={} ms={ms} seed={} ", u8::from(exact), bed.seed))
}

/// Equal threads get equal shares, whoever else runs a little, and whenever they came.
pub(super) fn fair(bed: &mut Bed) -> Result {
    check(bed, "fair.")
}

/// Deadlines that were admitted are met, others refused, and budgets enforced.
pub(super) fn deadlines(bed: &mut Bed) -> Result {
    check(bed, "deadlines.")
}

/// A real-time thread runs when its time has come.
pub(super) fn real_time(bed: &mut Bed) -> Result {
    check(bed, "real_time.")
}

/// A thread that runs a little and often does not wait long for those that run on and on.
pub(super) fn interactive(bed: &mut Bed) -> Result {
    check(bed, "interactive.")
}

/// Nobody keeps a core from others, nobody runs where it must not, and threads spread out.
pub(super) fn cores(bed: &mut Bed) -> Result {
    check(bed, "cores.")
}

/// Sleeps end in time and in order.
pub(super) fn timers(bed: &mut Bed) -> Result {
    check(bed, "timers.")
}
