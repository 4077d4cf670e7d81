//! What happens at a time without a thread: the common part of timers, leases and whatever else has an end.
//!
//! * AL1: an alarm has a home ([`Place`]), the core that set it last. Only the home arms, disarms and rings it, with interrupts off.
//! * AL2: what an armed alarm is a part of is given back by the alarm's home, which takes it out of its times first ([`retire`]). So a core may
//!   ring what it finds there, though its times hold no reference.
//!
//! A core rings at most [`BATCH`] alarms before it looks at anything else; what is due besides rings at once after that.

use core::mem::offset_of;
use core::ptr::NonNull;

use percpu::mailbox::{self, Deliver, Kick, Node, Urgency};
use percpu::place::Place;
use percpu::{CoreId, Held, Ipi, IrqOff, core_local};
use sched::{Heap, Links, Part, Stem};

use crate::arch::ipi::Interrupts;
use crate::arch::timer;

/// Most that ring in one go.
const BATCH: usize = 16;

core_local! {
    /// What happens on this core, and when.
    static TIMES: Heap<AlarmRef, Own> = const { Heap::new() };
}

/// What an alarm does: it is given the time for which it was set, and the present one; says when it is to ring again, `NEVER` for not at all.
///
/// # Safety
/// 1. The alarm is part of an object of the kind that the function is for, which is there, and this is its home.
pub(crate) type Ring = unsafe fn(NonNull<Alarm>, &mut Held<'_, 0>, u64, u64) -> u64;

/// A time at which something happens; a part of an object.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `node` | who ends the object | the home | by the inbox |
/// | `place` | the home; who becomes it | any core | its own |
/// | `links`, `stem` | the home | the same | – |
/// | `ring` | nobody | any core | – |
#[repr(C)]
pub(crate) struct Alarm {
    node: Node,
    links: Links<AlarmRef>,
    stem: Stem<AlarmRef>,
    place: Place,
    ring: Ring,
}

/// An alarm in a core's times.
#[derive(Clone, Copy, PartialEq, Eq)]
struct AlarmRef(NonNull<Alarm>);

/// The links by which alarms are in a core's times.
struct Own;

impl Part<AlarmRef> for Own {
    fn links(alarm: &AlarmRef) -> &Links<AlarmRef> {
        // SAFETY: it is there while it is in a core's times (AL2), or while it comes in or goes out.
        unsafe { &(*alarm.0.as_ptr()).links }
    }

    fn stem(alarm: &AlarmRef) -> &Stem<AlarmRef> {
        // SAFETY: as above.
        unsafe { &(*alarm.0.as_ptr()).stem }
    }
}

// SAFETY: every field follows the table above.
unsafe impl Sync for Alarm {}

impl Alarm {
    /// Not armed.
    pub(crate) const fn new(home: CoreId, ring: Ring) -> Self {
        Self { node: Node::new(), links: Links::new(), stem: Stem::new(), place: Place::new(home), ring }
    }

    /// The alarm that a node is part of.
    pub(crate) const fn of_node(node: NonNull<Node>) -> NonNull<Self> {
        const { assert!(offset_of!(Alarm, node) == 0) };
        node.cast()
    }

    /// Takes it out of its home's times. At its home.
    pub(crate) fn disarm(&self, irq: &IrqOff) {
        if self.stem.is_in() {
            TIMES.owned(irq).remove(AlarmRef(NonNull::from_ref(self)));
        }
    }

    /// Has it ring at a time, past or not. At its home.
    fn arm(&self, irq: &IrqOff, at: u64) {
        if at != sched::NEVER {
            TIMES.owned(irq).insert(AlarmRef(NonNull::from_ref(self)), at);
            timer::arm_before(irq, at);
        }
    }

    /// Has it ring on this core, which becomes its home, at a time that `prepare` says there and then. The caller keeps what it is part of.
    pub(crate) fn set(&self, irq: &mut IrqOff, prepare: impl Fn(&mut Held<'_, 0>) -> u64) {
        let here = irq.core();
        percpu::place::at_home(irq, &Interrupts, &self.place, |held| {
            self.disarm(held);
            if held.core() != here {
                self.place.depart(here);
            }
            0
        });
        percpu::race_point!("alarm.departed");
        self.place.settle(here);
        let at = irq.locks(prepare);
        self.arm(irq, at);
    }
}

/// Ends what an alarm is part of: `free` is called at the home, and disarms it and gives the memory back.
///
/// # Safety
/// 1. Nobody refers to the object any more.
/// 2. `free` expects the node of this object's alarm.
pub(crate) unsafe fn retire(held: &mut Held<'_, 0>, alarm: NonNull<Alarm>, free: Deliver) {
    // SAFETY: obligation 1: it is there until `free` gives it back.
    let own = unsafe { alarm.as_ref() };
    let node = NonNull::from_ref(&own.node);
    // Nobody is there to set it, so it stays where it is.
    let home = own.place.look().core;
    if home == held.core() {
        // SAFETY: obligation 2.
        return unsafe { free(node, held) };
    }
    let inbox = mailbox::INBOX.of(home).expect("AL1: a home is a core that runs");
    // SAFETY: sent once, here; it stays until it has been delivered; obligation 2.
    if unsafe { inbox.push(node, free, Urgency::Eager) } == Kick::Interrupt {
        Interrupts.send(home);
    }
}

/// When something happens on this core next.
#[inline(always)]
pub(crate) fn next(irq: &IrqOff) -> u64 {
    TIMES.owned(irq).least()
}

/// Rings what is due, up to a bound.
#[inline(never)]
pub(crate) fn ring(irq: &mut IrqOff, now: u64) {
    for _ in 0..BATCH {
        let due = next(irq);
        if due > now {
            return;
        }
        let Some(AlarmRef(alarm)) = TIMES.owned(irq).pop() else { return };
        // SAFETY: it was in this core's times, so it is there (AL2).
        let ring = unsafe { alarm.as_ref() }.ring;
        // SAFETY: what it is part of was made with this function, and is there; this core is the home (AL1).
        let again = irq.locks(|held| unsafe { ring(alarm, held, due, now) });
        // SAFETY: as above: it goes by a message to this core, or here, which is not now.
        unsafe { alarm.as_ref() }.arm(irq, again);
    }
}
