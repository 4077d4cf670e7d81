//! Calls on capabilities as such.

use abi::cap::{CapInfo, Handle, Rights};
use abi::error::Error;
use percpu::IrqOff;

use super::{Result, table, user};

pub(super) fn cap_derive(irq: &mut IrqOff, from: u64, rights: u64, badge: u64) -> Result {
    let own = table(irq);
    let rights = Rights(rights as u16).and(Rights::ALL);
    own.derive(irq, Handle(from), (rights, badge), own).map(|handle| handle.0)
}

pub(super) fn cap_delete(irq: &mut IrqOff, handle: u64) -> Result {
    table(irq).delete(irq, Handle(handle)).map(|()| 0)
}

pub(super) fn cap_info(irq: &mut IrqOff, handle: u64, info: u64) -> Result {
    let entry = table(irq).entry(Handle(handle))?;
    let told = CapInfo { kind: entry.kind as u32, rights: u32::from(entry.rights.0), badge: entry.badge };
    user::write(irq, info, &told).map(|()| 0)
}

pub(super) fn cap_revoke(_: &mut IrqOff, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn cap_grant(_: &mut IrqOff, _: u64, _: u64, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn cap_transfer(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}

pub(super) fn cap_expire(_: &mut IrqOff, _: u64, _: u64) -> Result {
    Err(Error::Unsupported)
}
