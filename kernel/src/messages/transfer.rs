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
    let (from, to) = (sender.capabilities(), receiver.capabilities());
    let mut passed = 0;
    for number in 0..tag.caps().min(accepted).min(CAPS) {
        let word = register::WORDS[WORDS - 1 - number];
        let handle = Handle(sender.register(word));
        let Ok(there) = from.pass(irq, handle, to, tag.has(Tag::MOVE)) else { break };
        receiver.set_register(word, there.0);
        passed += 1;
    }
    let delivered = tag.delivered(passed);
    if passed < tag.caps() { delivered.with(Tag::LOST) } else { delivered }
}
