//! Timers: objects that signal a notification at a time, once or again and again.

use core::cell::Cell;
use core::mem::offset_of;
use core::ptr::NonNull;

use abi::cap::ObjectKind;
use abi::error::Error;
use abi::task::NEVER;
use percpu::mailbox::Node;
use percpu::{Held, IrqOff};

use crate::alarm::{self, Alarm};
use crate::notification::{self, Notification};
use crate::object::{Header, Object, Ref};
use crate::{machine, slabs};

/// The shortest period, as a part of a second: what is shorter would leave its core no time for anything else.
const SHORTEST: u64 = 100_000;

/// A timer.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `header` | see [`Header`] | any core | its own |
/// | `alarm` | see [`Alarm`] | | |
/// | `notification`, `bits` | nobody | any core | – |
/// | `period` | the alarm's home | the same | – |
#[repr(C)]
pub(crate) struct Timer {
    header: Header,
    alarm: Alarm,
    notification: Ref<Notification>,
    bits: u64,
    /// Ticks from one signal to the next; 0 for only one.
    period: Cell<u64>,
}

// SAFETY: every field follows the table above.
unsafe impl Sync for Timer {}

const _: () = assert!(offset_of!(Timer, header) == 0, "N2: the header comes first");

impl Timer {
    /// A timer that is not set; with one reference for the caller.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub(crate) fn new(irq: &IrqOff, notification: Ref<Notification>, bits: u64) -> Result<Ref<Self>, Error> {
        let memory = slabs::take::<Self>(irq).ok_or(Error::NoMemory)?;
        let timer = Self {
            header: Header::new(),
            alarm: Alarm::new(irq.core(), ring),
            notification,
            bits,
            period: Cell::new(0),
        };
        // SAFETY: memory for one timer, the caller's alone.
        unsafe { memory.write(timer) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// Has it signal at a time, on this core, and then every so many ticks, if not 0; what was set before is forgotten.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for a period that is too short.
    pub(crate) fn set(&self, irq: &mut IrqOff, at: u64, period: u64) -> Result<(), Error> {
        if period != 0 && period < machine::clock().0 / SHORTEST {
            return Err(Error::BadArgument);
        }
        self.alarm.set(irq, |_| {
            self.period.set(period);
            at
        });
        Ok(())
    }

    /// When it is to signal next after a time that has come. What was missed is not made up for.
    fn next(&self, due: u64, now: u64) -> u64 {
        let period = self.period.get();
        if period == 0 {
            return NEVER;
        }
        let missed = now.saturating_sub(due) / period;
        due.saturating_add(period.saturating_mul(missed + 1))
    }
}

/// # Safety
/// 1. The alarm of a timer, which is there.
unsafe fn ring(alarm: NonNull<Alarm>, held: &mut Held<'_, 0>, due: u64, now: u64) -> u64 {
    // SAFETY: obligation 1.
    let timer = unsafe { timer_of(alarm) };
    // SAFETY: obligation 1: it keeps the timer.
    let timer = unsafe { timer.as_ref() };
    notification::signal(held, &timer.notification, timer.bits);
    timer.next(due, now)
}

/// # Safety
/// 1. The alarm of a timer.
const unsafe fn timer_of(alarm: NonNull<Alarm>) -> NonNull<Timer> {
    // SAFETY: obligation 1: the result is the timer.
    unsafe { alarm.byte_sub(offset_of!(Timer, alarm)) }.cast()
}

/// # Safety
/// 1. `node` is that of a timer's alarm that nobody refers to any more, and this its home.
unsafe fn free(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1.
    let at = unsafe { timer_of(Alarm::of_node(node)) };
    // SAFETY: obligation 1.
    unsafe { at.as_ref() }.alarm.disarm(held);
    // SAFETY: obligation 1; its memory is given back below, and nothing else of it is used.
    drop(unsafe { at.read() });
    slabs::give(held, at);
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Timer {
    const KIND: ObjectKind = ObjectKind::Timer;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1.
        let alarm = NonNull::from_ref(&unsafe { object.as_ref() }.alarm);
        // SAFETY: obligation 1; `free` is for timers.
        unsafe { alarm::retire(held, alarm, free) }
    }
}
