//! Calls on endpoints and replies.

use abi::error::Error;
use percpu::IrqOff;

use super::Result;

pub(super) fn endpoint_create(_: &mut IrqOff) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn reply_save(_: &mut IrqOff) -> Result {
    Err(Error::Unsupported)
}
