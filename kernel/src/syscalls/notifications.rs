//! Calls on notifications and timers.

use abi::error::Error;
use percpu::IrqOff;

use super::Result;

pub(super) fn notification_create(_: &mut IrqOff) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn notification_signal(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn notification_broadcast(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn notification_wait(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn notification_poll(_: &mut IrqOff, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn notification_bind(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn timer_create(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn timer_set(_: &mut IrqOff, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}
