//! Leases: something that one owner has for a time. What it is, its maker knows; the kernel keeps the time, and ends what is over.
//!
//! * LE1: a lease has at most one turn at a time. A turn's object is made when it begins, and never serves another: whoever still has a
//!   capability for it after its end finds it dead.
//! * LE2: a turn is over when its deadline has come, whether an alarm has rung or not: whoever looks later than that ends it first. Each turn ends
//!   once, and its end signals the notification once.
//!
//! Both are objects of one kind: the lease, which its maker has, and the turn, which goes to the owner.

use core::mem::offset_of;
use core::ptr::NonNull;

use abi::cap::ObjectKind;
use abi::error::Error;
use abi::quota::LeaseInfo;
use abi::task::NEVER;
use percpu::mailbox::Node;
use percpu::{Held, IrqOff, Lock};

use crate::alarm::{self, Alarm};
use crate::arch::tsc;
use crate::notification::{self, Notification};
use crate::object::{Header, Object, Ref};
use crate::slabs;

/// Level of the locks around turns. A leaf.
const LEVEL: u8 = 70;

/// A lease, or one turn of it.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `header` | see [`Header`] | any core | its own |
/// | `alarm` | see [`Alarm`]; a turn's is never set | | |
/// | `state` | any core; a turn's is not used | any core | its lock |
/// | the rest | nobody | any core | – |
#[repr(C)]
pub(crate) struct Lease {
    header: Header,
    alarm: Alarm,
    state: Lock<LEVEL, State>,
    /// What the end of a turn signals; a turn's own has nothing.
    target: Option<(Ref<Notification>, u64)>,
    /// The lease that this is a turn of, and the turn's number.
    turn: Option<(Ref<Lease>, u64)>,
}

/// How far a lease has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// Whether the last turn still goes on.
    held: bool,
    deadline: u64,
    quality: u64,
    /// Turns that have begun: the number of the last.
    turns: u64,
    expired: u64,
}

/// What a look at a lease has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
enum Ended {
    Nothing,
    /// A turn, whose end is to be signalled.
    Turn,
}

impl State {
    const NEW: Self = Self { held: false, deadline: NEVER, quality: 0, turns: 0, expired: 0 };

    /// Ends the turn if its time is over (LE2).
    const fn expire(&mut self, now: u64) -> Ended {
        if !self.held || now < self.deadline {
            return Ended::Nothing;
        }
        self.held = false;
        self.expired += 1;
        Ended::Turn
    }

    /// Begins a turn, and gives its number.
    const fn begin(&mut self, deadline: u64, quality: u64) -> Option<u64> {
        if self.held {
            return None;
        }
        *self = Self { held: true, deadline, quality, turns: self.turns + 1, expired: self.expired };
        Some(self.turns)
    }

    /// Whether a turn goes on: that of a number, or any.
    const fn goes_on(&self, turn: Option<u64>) -> bool {
        match turn {
            None => self.held,
            Some(turn) => self.held && turn == self.turns,
        }
    }

    /// When the alarm is to ring.
    const fn due(&self) -> u64 {
        if self.held { self.deadline } else { NEVER }
    }

    const fn told(&self, now: u64) -> LeaseInfo {
        LeaseInfo {
            held: self.held as u64,
            deadline: self.deadline,
            remaining: if self.held { self.deadline.saturating_sub(now) } else { 0 },
            quality: self.quality,
            turns: self.turns,
            expired: self.expired,
        }
    }
}

// SAFETY: every field follows the table above.
unsafe impl Sync for Lease {}

const _: () = assert!(offset_of!(Lease, header) == 0, "N2: the header comes first");

impl Lease {
    fn make(
        irq: &IrqOff,
        target: Option<(Ref<Notification>, u64)>,
        turn: Option<(Ref<Self>, u64)>,
    ) -> Result<Ref<Self>, Error> {
        let memory = slabs::take::<Self>(irq).ok_or(Error::NoMemory)?;
        let lease = Self {
            header: Header::new(),
            alarm: Alarm::new(irq.core(), ring),
            state: Lock::new(State::NEW),
            target,
            turn,
        };
        // SAFETY: memory for one lease, the caller's alone.
        unsafe { memory.write(lease) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// A lease that nobody has; with one reference for the caller.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub(crate) fn new(irq: &IrqOff, notification: Ref<Notification>, bits: u64) -> Result<Ref<Self>, Error> {
        Self::make(irq, Some((notification, bits)), None)
    }

    /// The lease itself, and which turn of it this is.
    fn whole(&self) -> (&Self, Option<u64>) {
        match &self.turn {
            None => (self, None),
            Some((of, number)) => (of, Some(*number)),
        }
    }

    /// Looks at the state after it was brought up to date (LE2), and signals if a turn has ended before or by that.
    fn update<R>(&self, held: &mut Held<'_, 0>, now: u64, f: impl FnOnce(&mut State) -> (R, Ended)) -> R {
        let (result, before, then) = self.state.with(held, |state, _| {
            let before = state.expire(now);
            let (result, then) = f(state);
            (result, before, then)
        });
        let Some((notification, bits)) = &self.target else { return result };
        for ended in [before, then] {
            if ended == Ended::Turn {
                percpu::race_point!("lease.ended");
                notification::signal(held, notification, *bits);
            }
        }
        result
    }

    fn end(&self, held: &mut Held<'_, 0>, turn: Option<u64>) -> Result<(), Error> {
        let refusal = if turn.is_some() { Error::BadHandle } else { Error::WrongState };
        self.update(held, tsc::now(), |state| {
            if !state.goes_on(turn) {
                return (Err(refusal), Ended::Nothing);
            }
            state.held = false;
            (Ok(()), Ended::Turn)
        })
    }
}

/// Begins a turn, whose object it gives.
///
/// # Errors
/// [`Error::WrongState`] while there is one, and for a turn; [`Error::TimedOut`] if the deadline has passed; [`Error::NoMemory`].
pub(crate) fn allocate(
    irq: &mut IrqOff,
    lease: &Ref<Lease>,
    deadline: u64,
    quality: u64,
) -> Result<Ref<Lease>, Error> {
    if lease.turn.is_some() {
        return Err(Error::WrongState);
    }
    let now = tsc::now();
    if deadline <= now {
        return Err(Error::TimedOut);
    }
    let begin = |state: &mut State| (state.begin(deadline, quality), Ended::Nothing);
    let number = irq.locks(|held| lease.update(held, now, begin)).ok_or(Error::WrongState)?;
    let turn = match Lease::make(irq, None, Some((lease.clone(), number))) {
        Ok(turn) => turn,
        Err(error) => {
            irq.locks(|held| lease.end(held, Some(number)))?;
            return Err(error);
        }
    };
    // If this turn has ended meanwhile, and another has begun, the alarm is that one's.
    lease.alarm.set(irq, |held| lease.state.with(held, |state, _| state.due()));
    Ok(turn)
}

/// Ends a turn before its time.
///
/// # Errors
/// [`Error::BadHandle`] for a turn that is over; [`Error::WrongState`] for a lease that nobody has.
pub(crate) fn release(held: &mut Held<'_, 0>, lease: &Lease) -> Result<(), Error> {
    let (whole, turn) = lease.whole();
    whole.end(held, turn)
}

/// Tells about a lease.
///
/// # Errors
/// [`Error::BadHandle`] for a turn that is over.
pub(crate) fn info(held: &mut Held<'_, 0>, lease: &Lease) -> Result<LeaseInfo, Error> {
    let (whole, turn) = lease.whole();
    let now = tsc::now();
    whole.update(held, now, |state| {
        let told =
            if turn.is_some() && !state.goes_on(turn) { Err(Error::BadHandle) } else { Ok(state.told(now)) };
        (told, Ended::Nothing)
    })
}

/// # Safety
/// 1. The alarm of a lease.
const unsafe fn lease_of(alarm: NonNull<Alarm>) -> NonNull<Lease> {
    // SAFETY: obligation 1: the result is the lease.
    unsafe { alarm.byte_sub(offset_of!(Lease, alarm)) }.cast()
}

/// # Safety
/// 1. The alarm of a lease, which is there.
unsafe fn ring(alarm: NonNull<Alarm>, held: &mut Held<'_, 0>, _: u64, now: u64) -> u64 {
    // SAFETY: obligation 1.
    let lease = unsafe { lease_of(alarm) };
    // SAFETY: obligation 1: it keeps the lease.
    let lease = unsafe { lease.as_ref() };
    lease.update(held, now, |state| (state.due(), Ended::Nothing))
}

/// # Safety
/// 1. `node` is that of the alarm of a lease that nobody refers to any more, and this its home.
unsafe fn free(node: NonNull<Node>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1.
    let at = unsafe { lease_of(Alarm::of_node(node)) };
    // SAFETY: obligation 1.
    unsafe { at.as_ref() }.alarm.disarm(held);
    // SAFETY: obligation 1; its memory is given back below, and nothing else of it is used.
    drop(unsafe { at.read() });
    slabs::give(held, at);
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Lease {
    const KIND: ObjectKind = ObjectKind::Lease;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1.
        let own = unsafe { object.as_ref() };
        if let Some((of, number)) = &own.turn {
            // An owner that is gone, or has thrown its capability away, has the lease no longer; that it was over already is as good.
            let _ = of.end(held, Some(*number));
        }
        // SAFETY: obligation 1; `free` is for leases.
        unsafe { alarm::retire(held, NonNull::from_ref(&own.alarm), free) }
    }
}
