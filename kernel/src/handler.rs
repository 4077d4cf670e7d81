//! Faults as messages: what a process's handler is told of a fault that the kernel cannot resolve, and what it answers.
//!
//! A thread that faults calls the handler's endpoint (`messages`), though it made no call: what happened is the message, its registers stay
//! in its frame, and the answer says whether it goes on with them. A handler that is gone, or that receives without having answered, has
//! refused: then the process ends as without a handler.
//!
//! * FH1: a thread that waits as a caller and came into the kernel by an exception has faulted. Nobody writes to its frame but
//!   [`answered`] and [`refused`].

use core::cell::Cell;
use core::mem::offset_of;

use abi::error::Error;
use abi::ipc::{Fault, Tag};
use abi::task::ExitStatus;
use percpu::{Held, IrqOff, Lock};

use crate::arch::user::{Frame, SYSCALL, register};
use crate::endpoint::Endpoint;
use crate::messages;
use crate::object::Ref;
use crate::process::Process;
use crate::thread::ThreadRef;

/// Where a process's faults go.
pub(crate) struct Handler {
    pub(crate) endpoint: Ref<Endpoint>,
    pub(crate) badge: u64,
    /// [`Fault::PAGES`], [`Fault::EXCEPTIONS`].
    pub(crate) kinds: u64,
}

/// The handler of a process.
pub(crate) type Slot = Lock<55, Option<Handler>>;

/// What the frame of a thread that has faulted does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Note {
    address: u64,
    badge: u64,
}

/// The note of a thread.
pub(crate) type NoteCell = Cell<Note>;

/// Vectors that are the machine's misfortune and no program's: NMI, double fault, machine check.
const MACHINE: u64 = 1 << 2 | 1 << 8 | 1 << 18;

/// In place of an instruction's address: the handler has refused. No program can be there, so the way back to ring 3 asks [`status`].
const REFUSED: u64 = 1 << 63;

/// Where a refused fault's vector and instruction are noted; the program's registers are of no use any more.
const VECTOR: usize = offset_of!(Frame, rdi);
const INSTRUCTION: usize = offset_of!(Frame, rsi);

/// Has a process's faults go elsewhere from now on.
///
/// # Errors
/// [`Error::WrongState`] if it does not live any more.
pub(crate) fn set(irq: &mut IrqOff, process: &Process, handler: Option<Handler>) -> Result<(), Error> {
    if !process.lives() {
        return Err(Error::WrongState);
    }
    // Given up behind the lock.
    let _before = irq.locks(|held| replace(held, process, handler));
    Ok(())
}

/// Takes the handler out, of a process that has ended.
pub(crate) fn clear(held: &mut Held<'_, 0>, process: &Process) {
    let _before = replace(held, process, None);
}

fn replace(held: &mut Held<'_, 0>, process: &Process, handler: Option<Handler>) -> Option<Handler> {
    process.handler.with(held, |slot, _| core::mem::replace(slot, handler))
}

/// Tells the handler of the current thread's process of a fault, and waits for its answer. Returns if there is none.
pub(crate) fn report(irq: &mut IrqOff, thread: ThreadRef, kind: u64, address: u64) {
    let vector = thread.register(offset_of!(Frame, vector)) as u32;
    if MACHINE >> vector & 1 != 0 {
        return;
    }
    let found = irq.locks(|held| {
        thread.process().handler.with(held, |slot, _| {
            let handler = slot.as_ref().filter(|handler| handler.kinds & kind != 0)?;
            Some((handler.endpoint.found(), handler.badge))
        })
    });
    if let Some((endpoint, badge)) = found {
        thread.fault.set(Note { address, badge });
        messages::call_for_fault(irq, thread, endpoint);
    }
}

/// Whether a thread that waits as a caller has faulted (FH1).
#[inline(always)]
pub(crate) fn has_faulted(thread: ThreadRef) -> bool {
    (thread.register(offset_of!(Frame, vector)) as u32) < SYSCALL
}

/// Writes what happened to a thread into the frame of one that receives.
pub(crate) fn tell(faulted: ThreadRef, receiver: ThreadRef) {
    let Note { address, badge } = faulted.fault.get();
    let mut words = [0; abi::ipc::WORDS];
    words[Fault::Address as usize] = address;
    words[Fault::Instruction as usize] = faulted.register(offset_of!(Frame, rip));
    words[Fault::Code as usize] = faulted.register(offset_of!(Frame, error));
    words[Fault::Thread as usize] = faulted.id();
    words[Fault::Stack as usize] = faulted.register(offset_of!(Frame, rsp));
    register::WORDS.iter().zip(words).for_each(|(&place, word)| receiver.set_register(place, word));
    let vector = faulted.register(offset_of!(Frame, vector)) as u32;
    receiver.set_register(register::TAG, Tag::new(vector, Fault::COUNT).with(Tag::FAULT).0);
    receiver.set_register(register::BADGE, badge);
    receiver.set_register(register::STATUS, 0);
}

/// The handler has answered a thread that faulted, which is still to be sent home.
pub(crate) fn answered(faulted: ThreadRef, label: u32) {
    if label != Fault::RETRY {
        refused(faulted);
    }
}

/// The thread's process ends as soon as the thread would run.
#[cold]
pub(crate) fn refused(faulted: ThreadRef) {
    faulted.set_register(VECTOR, faulted.register(offset_of!(Frame, vector)));
    faulted.set_register(INSTRUCTION, faulted.register(offset_of!(Frame, rip)));
    faulted.set_register(offset_of!(Frame, vector), u64::from(SYSCALL));
    faulted.set_register(offset_of!(Frame, rip), REFUSED);
}

/// How the process of a thread ends that cannot go back to ring 3, if a handler has refused.
pub(crate) fn status(thread: ThreadRef) -> Option<ExitStatus> {
    let refused = thread.register(offset_of!(Frame, rip)) == REFUSED;
    refused.then(|| ExitStatus {
        reason: ExitStatus::FAULTED,
        code: u64::from(thread.register(VECTOR) as u32),
        address: thread.fault.get().address,
        instruction: thread.register(INSTRUCTION),
    })
}
