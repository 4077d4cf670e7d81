//! Calls on leases.

use abi::cap::Rights;
use percpu::IrqOff;

use super::notifications::target;
use super::{Result, find, get, table, user};
use crate::lease::{self, Lease};

pub(super) fn lease_create(irq: &mut IrqOff, notification: u64, bits: u64) -> Result {
    let (notification, bits) = target(irq, notification, bits)?;
    let lease = Lease::new(irq, notification, bits)?;
    table(irq).insert(lease, Rights::ALL).map(|handle| handle.0)
}

pub(super) fn lease_allocate(irq: &mut IrqOff, lease: u64, deadline: u64, quality: u64) -> Result {
    let lease = get::<Lease>(irq, lease, Rights::CONTROL)?;
    let turn = lease::allocate(irq, &lease, deadline, quality)?;
    // Without a slot for it the turn goes at once, and the lease is free again.
    let rights = Rights::OBSERVE.with(Rights::WRITE).with(Rights::GRANT);
    table(irq).insert(turn, rights).map(|handle| handle.0)
}

pub(super) fn lease_release(irq: &mut IrqOff, lease: u64) -> Result {
    let lease = find::<Lease>(irq, lease, Rights::WRITE)?;
    irq.locks(|held| lease::release(held, &lease)).map(|()| 0)
}

pub(super) fn lease_info(irq: &mut IrqOff, lease: u64, info: u64) -> Result {
    let lease = find::<Lease>(irq, lease, Rights::OBSERVE)?;
    let told = irq.locks(|held| lease::info(held, &lease))?;
    user::write(irq, info, &told).map(|()| 0)
}
