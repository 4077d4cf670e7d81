//! The end of a process: of all its threads, then of what it has (V1, V3).

use core::ptr::NonNull;

use abi::cap::ObjectKind;
use abi::task::{ExitStatus, ProcessState};
use percpu::sync::atomic::Ordering;
use percpu::{Held, IrqOff};

use super::Process;
use crate::bank::Objects;
use crate::limits::Counted;
use crate::object::{Object, Ref};
use crate::thread::Thread;
use crate::{dispatch, handler, homes, jobs, slabs};

impl Process {
    /// Ends the current thread's process, and this thread before it runs another of its instructions, also where somebody else is ending the
    /// process and has not come to it yet.
    pub(crate) fn end_own(irq: &mut IrqOff, status: ExitStatus) {
        let thread = dispatch::current(irq);
        let process = thread.process().clone();
        Self::end(&process, irq, status);
        irq.locks(|held| homes::kill(held, thread, status.code));
    }

    /// Takes the process out of its life, unless somebody has already (V1); says whether it did, and whether no thread is left.
    fn begin_end(&self, held: &mut Held<'_, 0>, status: ExitStatus) -> Option<bool> {
        self.threads.with(held, |threads, _| {
            if !self.lives() {
                return None;
            }
            // SAFETY: under the lock, before the state that lets others read it (V1).
            unsafe { self.status.get().write(status) };
            self.set_state(ProcessState::Ending);
            Some(threads.count == 0)
        })
    }

    /// Ends a process and all its threads; nothing if it ends already. Its threads have left it, or will before they next run a
    /// program's instruction, when this returns.
    pub(crate) fn end(process: &Ref<Self>, irq: &mut IrqOff, status: ExitStatus) {
        match irq.locks(|held| process.begin_end(held, status)) {
            None => return,
            Some(true) => return jobs::begin(irq, process.clone()),
            Some(false) => {}
        }
        percpu::race_point!("process.ending");
        while let Some(thread) = irq.locks(|held| process.next_to_kill(held)) {
            homes::at_home(irq, &thread, |held, thread| {
                homes::kill(held, thread, status.code);
                0
            });
        }
    }

    /// A thread that nobody has asked to end yet.
    fn next_to_kill(&self, held: &mut Held<'_, 0>) -> Option<Ref<Thread>> {
        self.next_of(held, |thread| !thread.condemned.replace(true))
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Process {
    const KIND: ObjectKind = ObjectKind::Process;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1: nobody uses it any more.
        let process = unsafe { object.as_ref() };
        if process.state() == ProcessState::Ended {
            handler::clear(held, process);
            process.objects.close(&mut Objects);
            // SAFETY: as above.
            drop(unsafe { process.bank.get().read() });
            // SAFETY: as above; set by `limit` or from the start, and never taken out before.
            // ORDER: Relaxed: nobody else has the process any more.
            drop(unsafe { Counted::from_raw(process.limits.load(Ordering::Relaxed)) });
            return slabs::give(held, object);
        }
        // Given up before it started. It comes back here when it has been taken down.
        process.set_state(ProcessState::Ending);
        process.header.revive();
        // SAFETY: the count that `revive` has made.
        jobs::begin(held, unsafe { Ref::adopt(object) });
    }
}
