//! Calls on notifications and timers.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use percpu::IrqOff;

use super::{Result, find, get, pack, table, unpack};
use crate::homes::at_home;
use crate::notification::{self, Notification};
use crate::object::{Found, Ref};
use crate::thread::Thread;
use crate::timers::Timer;

pub(super) fn notification_create(irq: &mut IrqOff) -> Result {
    let notification = Notification::new(irq)?;
    table(irq).insert(notification, Rights::ALL).map(|handle| handle.0)
}

/// The notification that a handle names, and the bits that may be set through it.
#[inline(always)]
fn signalled(irq: &IrqOff, handle: u64, bits: u64) -> Result<(Found<Notification>, u64)> {
    let (found, badge) = table(irq).find_badged::<Notification>(Handle(handle), Rights::SEND)?;
    Ok((found, if badge == 0 { bits } else { bits & badge }))
}

pub(super) fn notification_signal(irq: &mut IrqOff, notification: u64, bits: u64) -> Result {
    let (notification, bits) = signalled(irq, notification, bits)?;
    notification::signal_by_thread(irq, &notification, bits);
    Ok(0)
}

pub(super) fn notification_broadcast(irq: &mut IrqOff, notification: u64, bits: u64) -> Result {
    let (notification, bits) = signalled(irq, notification, bits)?;
    Ok(irq.locks(|held| notification::broadcast(held, &notification, bits)))
}

pub(super) fn notification_wait(irq: &mut IrqOff, notification: u64, deadline: u64) -> Result {
    let notification = find::<Notification>(irq, notification, Rights::RECEIVE)?;
    match notification.poll() {
        0 => notification::wait(irq, &notification, deadline),
        bits => Ok(bits),
    }
}

pub(super) fn notification_poll(irq: &mut IrqOff, notification: u64) -> Result {
    let notification = find::<Notification>(irq, notification, Rights::RECEIVE)?;
    match notification.poll() {
        0 => Err(Error::WouldBlock),
        bits => Ok(bits),
    }
}

pub(super) fn notification_bind(irq: &mut IrqOff, notification: u64, thread: u64) -> Result {
    let thread = get::<Thread>(irq, thread, Rights::CONTROL)?;
    if Handle(notification) == Handle::NONE {
        return unpack(at_home(irq, &thread, |_, thread| pack(notification::unbind(thread))));
    }
    let bound = get::<Notification>(irq, notification, Rights::RECEIVE)?;
    let bound = percpu::Lock::<90, _>::new(Some(bound));
    unpack(at_home(irq, &thread, |held, thread| {
        let bound = bound.with(held, |bound, _| bound.take());
        pack(bound.map_or(Err(Error::WrongState), |bound| notification::bind(held, thread, bound)))
    }))
}

/// As [`signalled`], to be kept.
pub(super) fn target(irq: &IrqOff, handle: u64, bits: u64) -> Result<(Ref<Notification>, u64)> {
    let (found, bits) = signalled(irq, handle, bits)?;
    Ok((found.try_ref().ok_or(Error::BadHandle)?, bits))
}

pub(super) fn timer_create(irq: &mut IrqOff, notification: u64, bits: u64) -> Result {
    let (notification, bits) = target(irq, notification, bits)?;
    let timer = Timer::new(irq, notification, bits)?;
    table(irq).insert(timer, Rights::ALL).map(|handle| handle.0)
}

pub(super) fn timer_set(irq: &mut IrqOff, timer: u64, deadline: u64, period: u64) -> Result {
    let timer = get::<Timer>(irq, timer, Rights::CONTROL)?;
    timer.set(irq, deadline, period).map(|()| 0)
}
