//! Calls on banks and limits.

use abi::error::Error;
use percpu::IrqOff;

use super::Result;

pub(super) fn bank_create(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn bank_info(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn bank_assign(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn process_limit(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}
