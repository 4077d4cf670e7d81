//! The threads of a process (V2).

use abi::error::Error;
use abi::task::{ExitStatus, ProcessState, ThreadSpec};
use percpu::sync::atomic::Ordering;
use percpu::{CoreSet, Held, IrqOff};
use perf::trace::Event;

use super::Process;
use crate::arch::user::extra;
use crate::bank::Objects;
use crate::object::{Header, Ref, try_acquire};
use crate::thread::{Thread, ThreadRef};
use crate::{jobs, trace};

/// A process's threads that have not ended.
#[derive(Debug)]
pub(super) struct Threads {
    pub(super) first: Option<ThreadRef>,
    pub(super) last: Option<ThreadRef>,
    pub(super) count: usize,
}

impl Threads {
    pub(super) fn push(&mut self, thread: ThreadRef) {
        thread.siblings.set((self.last, None));
        match self.last {
            Some(last) => last.siblings.set((last.siblings.get().0, Some(thread))),
            None => self.first = Some(thread),
        }
        self.last = Some(thread);
        self.count += 1;
    }

    pub(super) fn remove(&mut self, thread: ThreadRef) {
        let (previous, next) = thread.siblings.replace((None, None));
        match previous {
            Some(previous) => previous.siblings.set((previous.siblings.get().0, next)),
            None => self.first = next,
        }
        match next {
            Some(next) => next.siblings.set((previous, next.siblings.get().1)),
            None => self.last = previous,
        }
        self.count -= 1;
    }
}

impl Process {
    /// Visits its threads that have not ended, with the list's lock held.
    pub(crate) fn each_thread(&self, held: &mut Held<'_, 0>, mut visit: impl FnMut(ThreadRef)) -> usize {
        self.threads.with(held, |threads, _| {
            let mut at = threads.first;
            while let Some(thread) = at {
                visit(thread);
                at = thread.siblings.get().1;
            }
            threads.count
        })
    }

    /// Makes a thread in it, not started.
    ///
    /// # Errors
    /// [`Error::WrongState`] if the process is not running; those of [`Thread::new`].
    pub(crate) fn make_thread(
        process: &Ref<Self>,
        irq: &mut IrqOff,
        spec: &ThreadSpec,
        affinity: CoreSet,
    ) -> Result<Ref<Thread>, Error> {
        let home = irq.core();
        process.objects.take(1, &mut Objects).map_err(|_| Error::NoMemory)?;
        let thread = Thread::new(irq, process.clone(), spec, home, affinity)
            .inspect_err(|_| process.objects.put(1, &mut Objects))?;
        // SAFETY: the list keeps it only until it ends, or until `destroy` takes it out (V2).
        let entry = unsafe { ThreadRef::new(thread.as_ptr()) };
        let entered = irq.locks(|held| {
            process.threads.with(held, |threads, _| {
                let enters = process.is_running();
                if enters && process.limits().is_some() {
                    thread.limited.set(true);
                    thread.set_extra(extra::LIMITED, true);
                }
                if enters {
                    threads.push(entry);
                }
                enters
            })
        });
        if !entered {
            thread.never_listed();
            return Err(Error::WrongState);
        }
        trace::event(irq, Event::ThreadCreate, thread.id(), process.id, 0);
        Ok(thread)
    }

    /// The first of the threads sought, which it is no longer when `is_sought` has been asked. The list is turned to it: mostly the next one
    /// is first then, though somebody else may be turning it, too.
    pub(super) fn next_of(
        &self,
        held: &mut Held<'_, 0>,
        is_sought: impl Fn(&ThreadRef) -> bool,
    ) -> Option<Ref<Thread>> {
        self.threads.with(held, |threads, _| {
            for _ in 0..threads.count {
                let thread = threads.first?;
                threads.remove(thread);
                threads.push(thread);
                if !is_sought(&thread) {
                    continue;
                }
                // SAFETY: it is in the list, so its memory is a thread's (V2); `destroy` waits for the lock.
                let living = try_acquire(unsafe { thread.as_ptr().cast::<Header>().as_ref() });
                if living {
                    // SAFETY: the count that was just taken.
                    return Some(unsafe { Ref::adopt(thread.as_ptr()) });
                }
            }
            None
        })
    }

    /// A thread has ended: with the last, the process does. At the thread's home.
    pub(crate) fn thread_ended(process: Ref<Self>, held: &mut Held<'_, 0>, thread: ThreadRef, ticks: u64) {
        // ORDER: Relaxed: a figure.
        process.ticks.fetch_add(ticks, Ordering::Relaxed);
        let code = thread.exit_code().unwrap_or(0);
        let last = process.threads.with(held, |threads, _| {
            threads.remove(thread);
            if threads.count == 0 && process.is_running() {
                let status = ExitStatus { reason: ExitStatus::EXITED, code, ..ExitStatus::default() };
                // SAFETY: as in `begin_end` (V1).
                unsafe { process.status.get().write(status) };
                process.set_state(ProcessState::Ending);
            }
            threads.count == 0 && process.state() == ProcessState::Ending
        });
        if last {
            jobs::begin(held, process);
        }
    }

    /// A thread's memory goes back.
    pub(crate) fn thread_gone(&self) {
        self.objects.put(1, &mut Objects);
        if self.state() == ProcessState::Ended {
            self.trim();
        }
    }

    /// A thread that never started goes with its last reference.
    pub(crate) fn forget_thread(process: Ref<Self>, held: &mut Held<'_, 0>, thread: ThreadRef) {
        Self::thread_ended(process, held, thread, 0);
    }
}
