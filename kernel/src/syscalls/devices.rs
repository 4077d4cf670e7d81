//! Calls on interrupts, ports and device registers.

use abi::error::Error;
use percpu::IrqOff;

use super::Result;

pub(super) fn interrupt_claim(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn interrupt_bind(_: &mut IrqOff, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn interrupt_ack(_: &mut IrqOff, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn interrupt_mask(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn interrupt_affinity(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn ports_claim(_: &mut IrqOff, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn port_read(_: &mut IrqOff, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn port_write(_: &mut IrqOff, _: u64, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn device_claim(_: &mut IrqOff, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}
