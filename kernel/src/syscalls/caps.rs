//! Calls on capabilities as such.

use abi::cap::{CapInfo, Handle, Rights};
use abi::error::Error;
use percpu::IrqOff;

use super::{Result, get, table, user};
use crate::process::Process;
use crate::tables::Holder;
use crate::{expiry, revoke};

pub(super) fn cap_derive(irq: &mut IrqOff, from: u64, rights: u64, badge: u64) -> Result {
    let own = table(irq);
    let rights = Rights(rights as u16).and(Rights::ALL);
    own.derive(irq, Handle(from), (rights, badge), own, Holder::Runs).map(|handle| handle.0)
}

pub(super) fn cap_delete(irq: &mut IrqOff, handle: u64) -> Result {
    table(irq).delete(irq, Handle(handle)).map(|()| 0)
}

/// The planted flaw that the measurement of interrupts-off stretches has to notice: turns of a loop, of more than two instructions each.
const PLANTED: bool = cfg!(feature = "slow-call");
const LONG: u32 = 10_000;

pub(super) fn cap_info(irq: &mut IrqOff, handle: u64, info: u64) -> Result {
    let entry = table(irq).entry(Handle(handle))?;
    percpu::race_point!("caps.found");
    if PLANTED {
        (0..LONG).for_each(|turn| _ = core::hint::black_box(turn));
    }
    let told = CapInfo { kind: entry.kind as u32, rights: u32::from(entry.rights.0), badge: entry.badge };
    user::write(irq, info, &told).map(|()| 0)
}

pub(super) fn cap_revoke(irq: &mut IrqOff, handle: u64) -> Result {
    let own = table(irq);
    if own.entry(Handle(handle))?.rights.and(Rights::CONTROL.with(Rights::GRANT)) == Rights::NONE {
        return Err(Error::MissingRight);
    }
    revoke::revoke(irq, own, Handle(handle))
}

pub(super) fn cap_grant(irq: &mut IrqOff, process: u64, from: u64, rights: u64, badge: u64) -> Result {
    let rights = Rights(rights as u16).and(Rights::ALL);
    let own = table(irq);
    hand_over(irq, process, |irq, to| {
        own.derive(irq, Handle(from), (rights, badge), to.capabilities(), Holder::Other(to))
    })
}

pub(super) fn cap_transfer(irq: &mut IrqOff, process: u64, from: u64) -> Result {
    let own = table(irq);
    hand_over(irq, process, |_, to| own.move_to(Handle(from), to.capabilities(), Holder::Other(to)))
}

/// Puts something into a process's table, which is kept from being taken down meanwhile.
fn hand_over(
    irq: &mut IrqOff,
    process: u64,
    put: impl FnOnce(&IrqOff, &Process) -> Result<Handle>,
) -> Result {
    let process = get::<Process>(irq, process, Rights::CONTROL)?;
    let handle = process.visit(irq, |irq| put(irq, &process));
    handle.ok_or(Error::WrongState)?.map(|handle| handle.0)
}

pub(super) fn cap_expire(irq: &mut IrqOff, handle: u64, deadline: u64) -> Result {
    expiry::expire(irq, table(irq), Handle(handle), deadline).map(|()| 0)
}
