//! Interrupt lines as objects: claimed by one driver, delivered as bits of a notification, quiet until the driver has acknowledged.
//!
//! A line has one vector on all cores and one object, which stays where it is for ever, so an interrupt finds its object by its vector.
//! What may happen to it next is one word ([`Word`]). A line is held back by the word: an edge that comes meanwhile is noted (`PENDING`),
//! for a controller forgets edges of a masked pin. Only then is the pin masked as well, so that a device that goes on costs nothing: further
//! edges would say no more. Who lets the line go opens the pin first and delivers the noted edge after that. The pin of a level is masked as
//! soon as it is delivered.
//!
//! * **I2** Only lines that end at a pin are claimed.
//! * **I3** `HELD` is changed before the pin, which is set under its controller's lock from the word as it is then: whoever comes last sets what
//!   the word says.
//! * **I4** A route is used by an interrupt that has found it until the core leaves the kernel; it is given back by an epoch.

use core::cell::Cell;
use core::mem::{ManuallyDrop, offset_of};
use core::ptr::{self, NonNull};

use abi::cap::ObjectKind;
use abi::debug::Counter;
use abi::error::Error;
use percpu::epoch::{self, Retired};
use percpu::sync::atomic::{AtomicPtr, AtomicU16, AtomicU32, Ordering};
use percpu::{CoreId, Held, IrqOff, core_local};
use perf::trace::Event;

use crate::arch::apic;
use crate::arch::ioapic::{self, FIRST_VECTOR, Gate, LINES, Pin, Target, Trigger};
use crate::notification::{self, Notification};
use crate::object::{Header, Object, Ref};
use crate::{cores, dispatch, machine, metrics, slabs, trace};

/// What a line's next interrupt does: 0 delivers an edge, and is the common case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u32);

/// What is to be done after a change of a [`Word`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Step {
    /// Whether the pin may have to be set anew (I3).
    pub(crate) pin: bool,
    /// Whether the notification is signalled.
    pub(crate) signal: bool,
    /// Whether nobody has asked for the interrupt.
    pub(crate) spurious: bool,
}

impl Step {
    const NOTHING: Self = Self { pin: false, signal: false, spurious: false };
}

impl Word {
    /// Signalled, and not acknowledged yet.
    const WAITING: u32 = 1 << 0;
    /// Masked by its driver.
    const MASKED: u32 = 1 << 1;
    /// An edge has come that was not delivered.
    const PENDING: u32 = 1 << 2;
    /// The pin is masked.
    const HELD: u32 = 1 << 3;
    /// The line's trigger is its level.
    const LEVEL: u32 = 1 << 4;
    /// Nobody has claimed it.
    const FREE: u32 = 1 << 5;
    /// It is being given up.
    const CLOSING: u32 = 1 << 6;

    /// An edge is delivered.
    const OPEN: Self = Self(0);
    /// Nobody has it.
    pub(crate) const UNCLAIMED: Self = Self(Self::FREE | Self::HELD);
    /// Nobody has it any more, but there is something to be given back.
    const ENDING: Self = Self(Self::CLOSING | Self::HELD);

    /// Just claimed: nothing comes before the first acknowledgement.
    pub(crate) const fn claimed(trigger: Trigger) -> Self {
        let level = match trigger {
            Trigger::Edge => 0,
            Trigger::Level => Self::LEVEL,
        };
        Self(Self::WAITING | Self::HELD | level)
    }

    const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    /// Whether the pin is to be masked.
    pub(crate) const fn is_held(self) -> bool {
        self.has(Self::HELD)
    }

    /// An interrupt has come.
    pub(crate) const fn came(self) -> (Self, Step) {
        if self.has(Self::FREE | Self::CLOSING) {
            return (self, Step { spurious: true, ..Step::NOTHING });
        }
        let quiet = self.has(Self::WAITING | Self::MASKED);
        if self.has(Self::LEVEL) {
            // A level that was held back says so again when it is let go.
            let delivered = if quiet { 0 } else { Self::WAITING };
            let step = Step { pin: true, signal: !quiet, spurious: quiet };
            return (Self(self.0 | Self::HELD | delivered), step);
        }
        if quiet {
            return (Self(self.0 | Self::PENDING | Self::HELD), Step { pin: true, ..Step::NOTHING });
        }
        (Self(self.0 | Self::WAITING), Step { signal: true, ..Step::NOTHING })
    }

    /// The driver has dealt with it.
    pub(crate) const fn acknowledged(self) -> (Self, Step) {
        Self(self.0 & !Self::WAITING).let_go()
    }

    /// The driver does not want it.
    pub(crate) const fn masked(self) -> (Self, Step) {
        let held = if self.has(Self::LEVEL) { Self::HELD } else { 0 };
        (Self(self.0 | Self::MASKED | held), Step { pin: held != 0, ..Step::NOTHING })
    }

    /// The driver wants it again.
    pub(crate) const fn unmasked(self) -> (Self, Step) {
        Self(self.0 & !Self::MASKED).let_go()
    }

    /// Delivers what is noted and opens the pin, unless there is another reason to hold the line back.
    const fn let_go(self) -> (Self, Step) {
        if self.has(Self::WAITING | Self::MASKED | Self::FREE | Self::CLOSING) {
            return (self, Step::NOTHING);
        }
        let signal = self.has(Self::PENDING);
        let waiting = if signal { Self::WAITING } else { 0 };
        let step = Step { pin: self.is_held(), signal, spurious: false };
        (Self(self.0 & !(Self::PENDING | Self::HELD) | waiting), step)
    }
}

/// Where interrupts of a line go.
#[repr(C)]
struct Route {
    retired: Retired,
    notification: ManuallyDrop<Ref<Notification>>,
    bits: u64,
}

/// A line.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `header` | see [`Header`] | any core | its own |
/// | `word` | whoever has a capability, or takes its interrupt | the same | Acquire / Release between claims, otherwise Relaxed |
/// | `core` | whoever sets where it leads, under the controller's lock | any core | Relaxed: a figure |
/// | `route` | whoever has a capability | who takes its interrupt | Release / Acquire |
#[repr(C, align(64))]
pub(crate) struct Interrupt {
    header: Header,
    word: AtomicU32,
    core: AtomicU16,
    route: AtomicPtr<Route>,
}

const _: () = {
    assert!(offset_of!(Interrupt, header) == 0, "N2: the header comes first");
    assert!(offset_of!(Route, retired) == 0, "the link comes first");
    assert!(size_of::<Interrupt>() == 64, "a line of memory for a line");
};

/// All lines, by their numbers; line `n` has vector `FIRST_VECTOR + n`.
static ALL: [Interrupt; LINES] = [const {
    Interrupt {
        header: Header::new(),
        word: AtomicU32::new(Word::UNCLAIMED.0),
        core: AtomicU16::new(0),
        route: AtomicPtr::new(ptr::null_mut()),
    }
}; LINES];

core_local! {
    /// Lines that have interrupted this core while it had left the kernel, one bit each; see [`note`].
    static NOTED: [Cell<u64>; LINES.div_ceil(64)] = const { [const { Cell::new(0) }; LINES.div_ceil(64)] };
    /// Whether there are any.
    static HAS_NOTED: Cell<bool> = const { Cell::new(false) };
}

impl Interrupt {
    /// Claims a line, which a core near the caller takes from now on.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there is no such line, or no core that it can be led to; [`Error::Occupied`] while somebody has it.
    pub(crate) fn claim(irq: &mut IrqOff, number: u64) -> Result<Ref<Self>, Error> {
        let number = usize::try_from(number).map_err(|_| Error::Unsupported)?;
        let pin = ioapic::pin(number).ok_or(Error::Unsupported)?;
        let line = &ALL[number];
        let own = irq.core();
        let (core, target) = [own, machine::boot_core()]
            .into_iter()
            .find_map(|core| Some((core, Target::new(machine::apic_id(core))?)))
            .ok_or(Error::Unsupported)?;
        let claimed = Word::claimed(pin.trigger());
        // ORDER: Acquire pairs with Release in `destroy`: the last owner is done with it. Relaxed on failure: nothing follows from it.
        line.word
            .compare_exchange(Word::UNCLAIMED.0, claimed.0, Ordering::Acquire, Ordering::Relaxed)
            .map_err(|_| Error::Occupied)?;
        line.header.revive();
        // SAFETY: the count that was just made; nobody else has the line.
        let line = unsafe { Ref::adopt(NonNull::from_ref(line)) };
        irq.locks(|held| line.lead_to(held, pin, core, target));
        Ok(line)
    }

    /// Its number.
    fn number(&self) -> usize {
        (ptr::from_ref(self).addr() - ALL.as_ptr().addr()) / size_of::<Self>()
    }

    fn vector(&self) -> u8 {
        FIRST_VECTOR + self.number() as u8
    }

    fn pin(&self) -> Pin {
        ioapic::pin(self.number()).expect("I2: a claimed line has a pin")
    }

    fn lead_to(&self, held: &mut Held<'_, 0>, pin: Pin, core: CoreId, target: Target) {
        ioapic::with(held, pin, |entry| {
            entry.set_target(target);
            // ORDER: Relaxed: a figure, written under the controller's lock.
            self.core.store(core.raw(), Ordering::Relaxed);
        });
    }

    /// Has the line signal bits of a notification from now on. Whether it is held back does not change.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for no bits; [`Error::NoMemory`].
    pub(crate) fn bind(&self, irq: &IrqOff, notification: Ref<Notification>, bits: u64) -> Result<(), Error> {
        if bits == 0 {
            return Err(Error::BadArgument);
        }
        let memory = slabs::take::<Route>(irq).ok_or(Error::NoMemory)?;
        let route = Route { retired: Retired::new(), notification: ManuallyDrop::new(notification), bits };
        // SAFETY: memory for one route, which is ours.
        unsafe { memory.write(route) };
        // ORDER: Release pairs with Acquire in `signal`: the route is complete. Acquire: the old one, which is given back, is too.
        let old = self.route.swap(memory.as_ptr(), Ordering::AcqRel);
        retire_route(irq, old);
        Ok(())
    }

    /// Changes the word; says what is to be done about it.
    #[inline(always)]
    fn change(&self, f: impl Fn(Word) -> (Word, Step)) -> Step {
        // ORDER: Relaxed: a guess, which the exchange verifies.
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let (word, step) = f(Word(seen));
            // ORDER: Relaxed: what the word says of the pin is read again under the controller's lock (I3), and the route is published by
            // itself.
            match self.word.compare_exchange_weak(seen, word.0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return step,
                Err(now) => seen = now,
            }
        }
    }

    /// The driver has dealt with what was signalled.
    ///
    /// # Errors
    /// [`Error::WrongState`] if it is not bound: nobody would hear of it.
    #[inline(always)]
    pub(crate) fn acknowledge(&self, irq: &mut IrqOff) -> Result<(), Error> {
        // ORDER: Relaxed: as in `change`. This is its common case.
        let usual =
            self.word.compare_exchange(Word::WAITING, Word::OPEN.0, Ordering::Relaxed, Ordering::Relaxed);
        if usual.is_ok() { Ok(()) } else { self.acknowledge_otherwise(irq) }
    }

    #[inline(never)]
    fn acknowledge_otherwise(&self, irq: &mut IrqOff) -> Result<(), Error> {
        // ORDER: Relaxed: who is bound stays so; what is bound is read elsewhere.
        if self.route.load(Ordering::Relaxed).is_null() {
            return Err(Error::WrongState);
        }
        let step = self.change(Word::acknowledged);
        irq.locks(|held| self.perform(held, step));
        Ok(())
    }

    /// Masks the line for its driver, until [`unmask`](Self::unmask); edges that come meanwhile are delivered then.
    pub(crate) fn mask(&self, irq: &mut IrqOff) {
        let step = self.change(Word::masked);
        irq.locks(|held| self.perform(held, step));
    }

    /// Takes [`mask`](Self::mask) back.
    pub(crate) fn unmask(&self, irq: &mut IrqOff) {
        let step = self.change(Word::unmasked);
        irq.locks(|held| self.perform(held, step));
    }

    /// Has another core take the line. What is on its way to the old one is taken there.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for a core that there is not; [`Error::Unsupported`] for one that a controller cannot name.
    pub(crate) fn move_to(&self, irq: &mut IrqOff, core: u64) -> Result<(), Error> {
        let core = usize::try_from(core).ok().and_then(CoreId::from_index);
        let core = core.filter(|&core| cores::all_online().contains(core)).ok_or(Error::BadArgument)?;
        let target = Target::new(machine::apic_id(core)).ok_or(Error::Unsupported)?;
        irq.locks(|held| self.lead_to(held, self.pin(), core, target));
        Ok(())
    }

    /// Sets the pin first: an edge that comes after it finds the word as it is to be, and one before it is what is signalled.
    fn perform(&self, held: &mut Held<'_, 0>, step: Step) {
        if step.pin {
            self.set_pin(held);
        }
        if step.signal {
            self.signal(held);
        }
    }

    fn set_pin(&self, held: &mut Held<'_, 0>) {
        let vector = self.vector();
        ioapic::with(held, self.pin(), |entry| {
            // ORDER: Relaxed: the lock orders it after every change whose pin was set before (I3).
            let held_back = Word(self.word.load(Ordering::Relaxed)).is_held();
            entry.set_gate(vector, if held_back { Gate::Masked } else { Gate::Open });
        });
    }

    /// Where it leads now, for the time that this core is in the kernel.
    #[inline(always)]
    fn route(&self, _: &IrqOff) -> Option<&Route> {
        // ORDER: Acquire pairs with Release in `bind`: the route is complete.
        let route = self.route.load(Ordering::Acquire);
        // SAFETY: I4: null, or a route that stays until this core leaves the kernel.
        unsafe { route.as_ref() }
    }

    /// Signals the notification, if there is one.
    fn signal(&self, held: &mut Held<'_, 0>) {
        if let Some(route) = self.route(held) {
            notification::signal(held, &route.notification, route.bits);
        }
    }

    /// An interrupt that is no edge of a line that waits for one; whether it is to be signalled.
    #[cold]
    #[inline(never)]
    fn came_otherwise(&self, held: &mut Held<'_, 0>) -> bool {
        let step = self.change(Word::came);
        if step.pin {
            self.set_pin(held);
        }
        // After the pin: a level that is asserted still would come again at once.
        apic::end_of_interrupt();
        if step.spurious {
            metrics::count(held, Counter::SpuriousInterrupts);
        }
        step.signal
    }
}

/// A line has interrupted a program on this core. Does not come back if its driver has the core then.
#[inline(always)]
pub(crate) fn strike(irq: &mut IrqOff, line: usize) {
    let woken = irq.locks(|held| {
        let route = came(held, line)?.route(held)?;
        notification::signal_directly(held, &route.notification, route.bits)
    });
    if let Some(driver) = woken {
        dispatch::overtake(irq, driver);
    }
}

/// A line has interrupted this core, which is in the kernel for it, or is again: the line, if it is to be signalled.
#[inline(always)]
fn came(held: &mut Held<'_, 0>, line: usize) -> Option<&'static Interrupt> {
    let line = ALL.get(line)?;
    metrics::count(held, Counter::DeviceInterrupts);
    trace::event(held, Event::Irq, u64::from(line.vector()), 0, 0);
    // ORDER: Relaxed: as in `change`. This is its common case.
    let usual = line.word.compare_exchange(Word::OPEN.0, Word::WAITING, Ordering::Relaxed, Ordering::Relaxed);
    if usual.is_err() {
        return line.came_otherwise(held).then_some(line);
    }
    apic::end_of_interrupt();
    Some(line)
}

/// A line has interrupted kernel code, which lets that happen only where it has left the kernel as far as objects are concerned (the sleep
/// of an idle core) or is about to look: [`take_noted`] follows. Until then the interrupt stays in service.
pub(crate) fn note(irq: &IrqOff, line: usize) {
    if let Some(word) = NOTED.owned(irq).get(line / 64) {
        word.set(word.get() | 1 << (line % 64));
        HAS_NOTED.owned(irq).set(true);
    }
}

/// Deals with what was noted. In the order in which the controller ends interrupts: the highest vector first.
#[inline(always)]
pub(crate) fn take_noted(held: &mut Held<'_, 0>) {
    if HAS_NOTED.owned(held).take() {
        take_all_noted(held);
    }
}

#[cold]
fn take_all_noted(held: &mut Held<'_, 0>) {
    for index in (0..LINES.div_ceil(64)).rev() {
        let mut bits = NOTED.owned(held)[index].take();
        while bits != 0 {
            let bit = bits.ilog2();
            bits &= !(1 << bit);
            if let Some(line) = came(held, index * 64 + bit as usize) {
                line.signal(held);
            }
        }
    }
}

/// Gives a route back once no core signals along it.
fn retire_route(irq: &IrqOff, route: *mut Route) {
    let Some(route) = NonNull::new(route) else { return };
    // SAFETY: I4: it was taken out of its line by whoever calls this, once, and stays until it is given back; cores that run kernel code are
    // awake.
    unsafe { epoch::retire(irq, route.cast(), give_route) };
    dispatch::note_retired(irq);
}

/// # Safety
/// 1. `link` is the first field of a route that nobody uses any more.
unsafe fn give_route(link: NonNull<Retired>, held: &mut Held<'_, 0>) {
    let route = link.cast::<Route>();
    // SAFETY: obligation 1.
    let Route { notification, .. } = unsafe { route.read() };
    drop(ManuallyDrop::into_inner(notification));
    slabs::give(held, route);
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Interrupt {
    const KIND: ObjectKind = ObjectKind::Interrupt;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: lines stay where they are for ever.
        let line = unsafe { object.as_ref() };
        // ORDER: Relaxed: as in `change`; nothing of the line is delivered from here on.
        line.word.store(Word::ENDING.0, Ordering::Relaxed);
        line.set_pin(held);
        // ORDER: Acquire pairs with Release in `bind`: the route is complete.
        retire_route(held, line.route.swap(ptr::null_mut(), Ordering::Acquire));
        // ORDER: Release pairs with Acquire in `claim`: all of it is done.
        line.word.store(Word::UNCLAIMED.0, Ordering::Release);
    }
}

/// Where a line leads, as its controller says, and which core that should be; for tests.
pub(crate) fn inspect(held: &mut Held<'_, 0>, line: usize) -> Option<(Gate, Target, CoreId)> {
    let (pin, object) = (ioapic::pin(line)?, ALL.get(line)?);
    let (gate, target) = ioapic::with(held, pin, |entry| entry.read());
    // ORDER: Relaxed: a figure.
    let core = CoreId::from_index(object.core.load(Ordering::Relaxed).into())?;
    Some((gate, target, core))
}
