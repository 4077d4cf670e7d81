//! Who pays for a process, and what limits its calls (V4).

use abi::error::Error;
use abi::task::ProcessState;
use mm::space::Frames;
use percpu::sync::atomic::Ordering;
use percpu::{Held, IrqOff};

use super::Process;
use crate::arch::user::extra;
use crate::bank::{Bank, Objects};
use crate::limits::{Counted, Limits};
use crate::object::Ref;
use crate::spaces::Tap;
use crate::thread::Thread;
use crate::{dispatch, homes, limits};

impl Process {
    /// The bank that pays for what the process has and makes.
    ///
    /// # Safety
    /// 1. The process has started, or the caller has the lock of its list; the reference ends before either does.
    pub(crate) unsafe fn bank(&self) -> &Ref<Bank> {
        // SAFETY: obligation 1: nobody changes it (V4).
        unsafe { &*self.bank.get() }
    }

    /// The same, counted, whatever the process does.
    pub(crate) fn counted_bank(&self, irq: &mut IrqOff) -> Ref<Bank> {
        irq.locks(|held| {
            self.threads.with(held, |_, _| {
                // SAFETY: under the lock.
                unsafe { self.bank() }.clone()
            })
        })
    }

    /// Has another bank pay from now on, also for what the process has already.
    ///
    /// # Errors
    /// [`Error::WrongState`] if it has been started; [`Error::NoMemory`] if the bank has not that much.
    pub(crate) fn assign(&self, irq: &mut IrqOff, bank: Ref<Bank>) -> Result<(), Error> {
        let before = irq.locks(|held| {
            self.threads.with(held, |_, held| {
                if self.state() != ProcessState::New {
                    return Err(Error::WrongState);
                }
                let frames = self.space().purse().move_to_another(&mut Frames(&mut Tap::new(held)));
                let objects = self.objects.move_to_another(&mut Objects);
                bank.charge(frames.amount(), objects.amount())?;
                // SAFETY: under the lock.
                unsafe { self.bank() }.refund(frames.amount(), objects.amount());
                frames.settle(bank.payer());
                objects.settle(bank.payer());
                // SAFETY: under the lock, before the start (V4).
                Ok(unsafe { self.bank.get().replace(bank.clone()) })
            })
        })?;
        // Under no lock, as `bank`: the last reference retires it.
        drop(before);
        Ok(())
    }

    /// Its limits, if it has any.
    #[inline]
    pub(crate) fn limits(&self) -> Option<&Limits> {
        // ORDER: Acquire pairs with Release in `limit`: they are filled in.
        let at = self.limits.load(Ordering::Acquire);
        // SAFETY: null, or limits that stay as long as the process.
        unsafe { at.as_ref() }
    }

    /// Tightens its limits. When this returns, every call that its threads make is checked.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; nothing has changed.
    pub(crate) fn limit(&self, irq: &mut IrqOff, asked: &abi::quota::Limits) -> Result<(), Error> {
        let mut new = match self.limits() {
            Some(_) => None,
            None => Some(Counted::new(irq, None).ok_or(Error::NoMemory)?),
        };
        irq.locks(|held| {
            self.threads.with(held, |_, _| {
                if let Some(limits) = self.limits() {
                    return limits.tighten(asked);
                }
                let Some(limits) = new.take() else { return };
                limits.tighten(asked);
                // ORDER: Release pairs with Acquire in `limits`.
                self.limits.store(limits.into_raw(), Ordering::Release);
            });
        });
        percpu::race_point!("process.limited");
        while let Some(thread) = irq.locks(|held| self.next_unlimited(held)) {
            homes::at_home(irq, &thread, |held, thread| {
                thread.set_extra(extra::LIMITED, true);
                // Whoever would switch to it directly has to load it whole.
                thread.state.wait_plainly();
                if dispatch::running(held) == Some(thread) {
                    limits::load(held, thread);
                }
                0
            });
        }
        Ok(())
    }

    /// A thread that does not know yet that the process has limits.
    fn next_unlimited(&self, held: &mut Held<'_, 0>) -> Option<Ref<Thread>> {
        self.next_of(held, |thread| !thread.limited.replace(true))
    }

    /// The bank gets back what the process has drawn ahead.
    pub(crate) fn trim(&self) {
        self.objects.trim(&mut Objects);
    }
}
