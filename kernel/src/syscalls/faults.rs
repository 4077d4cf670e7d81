//! Calls on the delivery of faults, and on passing pages.

use abi::error::Error;
use percpu::IrqOff;

use super::Result;

pub(super) fn process_handler(_: &mut IrqOff, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn pages_pass(_: &mut IrqOff, _: u64, _: u64, _: u64, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}
