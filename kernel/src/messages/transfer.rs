//! Capabilities of messages.

use abi::cap::Handle;
use abi::ipc::{CAPS, Tag, WORDS};
use percpu::IrqOff;

use crate::arch::user::register;
use crate::thread::ThreadRef;

/// Hands the capabilities of a message on, as many as the receiver takes and as can be; their handles come into the receiver's last words.
/// Both threads are the caller's to use (Y3), so both processes have their tables.
#[inline(never)]
pub(super) fn all(irq: &IrqOff, sender: ThreadRef, receiver: ThreadRef, tag: Tag, accepted: usize) -> Tag {
    let word = |number| register::WORDS[WORDS - 1 - number];
    let parties = (sender, receiver);
    let sent = |number| sender.register(word(number));
    hand_on(irq, parties, (tag, accepted), sent, |number, handle| receiver.set_register(word(number), handle))
}

/// As [`all`], for `message.S`: the message is in its registers, and of its last words those that are handles are replaced. Gives the tag that the
/// receiver is told.
///
/// # Safety
/// 1. As for a system call's entry: interrupts are off, no witness is in use. `sender` is current, and `receiver` was taken out of where it waited.
/// 2. At `words` lie the last words, the last one first.
pub(crate) unsafe extern "C" fn in_registers(
    sender: ThreadRef,
    receiver: ThreadRef,
    tag: Tag,
    words: *mut [u64; CAPS],
) -> Tag {
    // SAFETY: obligation 1.
    let irq = unsafe { IrqOff::assume() };
    // SAFETY: obligation 2; the assembly looks at them afterwards.
    let words = core::cell::Cell::from_mut(unsafe { &mut *words }).as_array_of_cells();
    let accepted = Tag(receiver.register(register::TAG)).accepts();
    let sent = |number: usize| words[number % CAPS].get();
    hand_on(&irq, (sender, receiver), (tag, accepted), sent, |number, handle| {
        words[number % CAPS].set(handle)
    })
}

/// As [`in_registers`], of the only capability of a message, which does not move: the receiver's handle, or none if it gets none.
///
/// # Safety
/// 1. As there.
pub(crate) unsafe extern "C" fn one_in_registers(
    sender: ThreadRef,
    handle: Handle,
    receiver: ThreadRef,
) -> Handle {
    // SAFETY: obligation 1.
    let irq = unsafe { IrqOff::assume() };
    if Tag(receiver.register(register::TAG)).accepts() == 0 {
        return Handle::NONE;
    }
    sender.capabilities().pass(&irq, handle, receiver.capabilities(), false).unwrap_or(Handle::NONE)
}

#[inline(always)]
fn hand_on(
    irq: &IrqOff,
    (sender, receiver): (ThreadRef, ThreadRef),
    (tag, accepted): (Tag, usize),
    sent: impl Fn(usize) -> u64,
    told: impl Fn(usize, u64),
) -> Tag {
    let (from, to) = (sender.capabilities(), receiver.capabilities());
    let mut passed = 0;
    for number in 0..tag.caps().min(accepted).min(CAPS) {
        let Ok(there) = from.pass(irq, Handle(sent(number)), to, tag.has(Tag::MOVE)) else { break };
        told(number, there.0);
        passed += 1;
    }
    let delivered = tag.delivered(passed);
    if passed < tag.caps() { delivered.with(Tag::LOST) } else { delivered }
}
