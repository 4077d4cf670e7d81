//! Calls on leases.

use abi::error::Error;
use percpu::IrqOff;

use super::Result;

pub(super) fn lease_create(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn lease_allocate(_: &mut IrqOff, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn lease_release(_: &mut IrqOff, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn lease_info(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}
