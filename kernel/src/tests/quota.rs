//! Banks, filters and rates, tested by a program: `user/quota` says what exactly. That the machine's bank has back what it had is looked at after
//! every test (`run_one`).

use abi::boot::Lane;
use abi::task::ExitStatus;

use super::user::run_paying;
use super::{Bed, Result, ensure};
use crate::bank::Bank;

fn check(bed: &Bed, only: &str) -> Result {
    let exact = if bed.lane == Lane::Icount { "exact=1" } else { "exact=0" };
    let mut arguments = [0; 64];
    let bytes = [b"only=", only.as_bytes(), b"\0", exact.as_bytes(), b"\0"];
    let length = bytes.iter().map(|part| part.len()).sum::<usize>();
    arguments.iter_mut().zip(bytes.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    let status = run_paying("quota", &arguments[..length], Some(&Bank::root()))?;
    let fine = status.reason == ExitStatus::EXITED && status.code == 0;
    ensure!(fine, "quota {only} ended with {status:x?}");
    Ok(())
}

/// What is charged, to whom, and when there is no more.
pub(super) fn banks(bed: &mut Bed) -> Result {
    check(bed, "bank.")
}

/// What may not be called is not.
pub(super) fn filters(bed: &mut Bed) -> Result {
    check(bed, "filter.")
}

/// How many calls are let through.
pub(super) fn rates(bed: &mut Bed) -> Result {
    check(bed, "rate.")
}
