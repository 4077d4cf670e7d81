//! Calls on the delivery of faults.

use abi::error::Error;
use percpu::IrqOff;

use super::Result;

pub(super) fn process_handler(_: &mut IrqOff, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}
