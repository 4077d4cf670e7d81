//! Calls on interrupts, ports and device registers.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use percpu::IrqOff;

use super::{Result, find, get, table};
use crate::interrupt::Interrupt;
use crate::machine_object::{Devices, Interrupts};
use crate::notification::Notification;
use crate::ports::Ports;
use crate::region::Region;

pub(super) fn interrupt_claim(irq: &mut IrqOff, interrupts: u64, line: u64) -> Result {
    find::<Interrupts>(irq, interrupts, Rights::CREATE)?;
    let line = Interrupt::claim(irq, line)?;
    table(irq).insert(line, Rights::ALL).map(|handle| handle.0)
}

pub(super) fn interrupt_bind(irq: &mut IrqOff, interrupt: u64, notification: u64, bits: u64) -> Result {
    let interrupt = find::<Interrupt>(irq, interrupt, Rights::CONTROL)?;
    let to = get::<Notification>(irq, notification, Rights::SEND)?;
    // A badge says which bits its capability may set.
    let badge = table(irq).entry(Handle(notification))?.badge;
    let bits = if badge == 0 { bits } else { bits & badge };
    interrupt.bind(irq, to, bits).map(|()| 0)
}

#[inline(always)]
pub(super) fn interrupt_ack(irq: &mut IrqOff, interrupt: u64) -> Result {
    let interrupt = find::<Interrupt>(irq, interrupt, Rights::CONTROL)?;
    interrupt.acknowledge(irq).map(|()| 0)
}

pub(super) fn interrupt_mask(irq: &mut IrqOff, interrupt: u64, masked: u64) -> Result {
    let interrupt = find::<Interrupt>(irq, interrupt, Rights::CONTROL)?;
    match masked {
        0 => interrupt.unmask(irq),
        1 => interrupt.mask(irq),
        _ => return Err(Error::BadArgument),
    }
    Ok(0)
}

pub(super) fn interrupt_affinity(irq: &mut IrqOff, interrupt: u64, core: u64) -> Result {
    let interrupt = find::<Interrupt>(irq, interrupt, Rights::CONTROL)?;
    interrupt.move_to(irq, core).map(|()| 0)
}

pub(super) fn ports_claim(irq: &mut IrqOff, ports: u64, first: u64, count: u64) -> Result {
    let ports = find::<Ports>(irq, ports, Rights::GRANT)?;
    let claimed = ports.claim(irq, first, count)?;
    table(irq).insert(claimed, Rights::ALL).map(|handle| handle.0)
}

#[inline(always)]
pub(super) fn port_read(irq: &mut IrqOff, ports: u64, port: u64, width: u64) -> Result {
    find::<Ports>(irq, ports, Rights::OBSERVE)?.read(port, width)
}

#[inline(always)]
pub(super) fn port_write(irq: &mut IrqOff, ports: u64, port: u64, width: u64, value: u64) -> Result {
    find::<Ports>(irq, ports, Rights::WRITE)?.write(port, width, value).map(|()| 0)
}

pub(super) fn device_claim(irq: &mut IrqOff, devices: u64, address: u64, pages: u64) -> Result {
    find::<Devices>(irq, devices, Rights::CREATE)?;
    let region = Region::device(irq, address, pages)?;
    table(irq).insert(region, Rights::ALL).map(|handle| handle.0)
}
