//! Banks: what programs may have of memory and of objects, carved out of what others have.
//!
//! | what | pays | when |
//! |---|---|---|
//! | pages, tables and records of a space | its process's bank, in frames | when a frame is taken; a reservation of 2 MiB whole |
//! | pages of a region, or of an image that was brought along | the bank of who made it, in frames | when a frame is taken, until nobody shows it |
//! | a process, its threads, leaves of its table | its own bank, in objects | while they are there |
//! | every other object | the bank of the process that made it, in objects | while it is there ([`Charge`]) |
//!
//! Spaces, regions and processes draw ahead (`mm::bank::Purse`). Who has something charged to a bank keeps it, so a bank that goes has nothing
//! charged (Q3), and its part is its parent's again.

use core::mem::offset_of;
use core::ptr::NonNull;

use abi::cap::ObjectKind;
use abi::error::Error;
use abi::quota::{BankInfo, BankSpec};
use mm::bank::{self, BankError, BankStats, Payer, Source};
use percpu::{Held, IrqOff};
use spin::Once;

use crate::object::{self, Header, Object, Ref};
use crate::{dispatch, memory, slabs};

/// Objects for which the root bank has room, for each frame of the machine: the smallest ones take 128 bytes.
const OBJECTS_PER_FRAME: usize = 32;

/// What the machine has. Its count never reaches 0.
static ROOT: Once<Bank> = Once::new();

/// A bank.
#[repr(C)]
pub(crate) struct Bank {
    header: Header,
    /// Keeps the bank that this one was made from, to which the accounts refer.
    parent: Option<Ref<Self>>,
    charge: Option<Charge>,
    frames: bank::Bank<'static>,
    objects: bank::Bank<'static>,
}

const _: () = assert!(offset_of!(Bank, header) == 0, "N2: the header comes first");

impl Bank {
    /// A reference to the bank that has all memory of the machine.
    pub(crate) fn root() -> Ref<Self> {
        let root = ROOT.call_once(|| {
            let frames = memory::frames().stats().frames;
            Self {
                header: Header::new(),
                parent: None,
                charge: None,
                frames: bank::Bank::root(frames),
                objects: bank::Bank::root(frames * OBJECTS_PER_FRAME),
            }
        });
        // SAFETY: the count with which the header begins is never given up, so this is one more than there are.
        let own = unsafe { Ref::adopt(NonNull::from_ref(root)) };
        let another = own.clone();
        core::mem::forget(own);
        another
    }

    /// A bank with a part of another's quota, for the current process, which pays for it as an object.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if the other bank has not that much, or the current process's bank no object.
    pub(crate) fn carve(irq: &IrqOff, parent: Ref<Self>, spec: &BankSpec) -> Result<Ref<Self>, Error> {
        let charge = Charge::current(irq)?;
        let memory = slabs::take::<Self>(irq).ok_or(Error::NoMemory)?;
        // SAFETY: the parent lies still, and the new bank keeps it until its own accounts are closed.
        let of: &'static Self = unsafe { parent.as_ptr().as_ref() };
        let Ok((frames, objects)) = of.accounts(spec) else {
            slabs::give(irq, memory);
            return Err(Error::NoMemory);
        };
        let bank =
            Self { header: Header::new(), parent: Some(parent), charge: Some(charge), frames, objects };
        // SAFETY: memory for one bank, which is ours.
        unsafe { memory.write(bank) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// Accounts with parts of what this bank has free.
    fn accounts(
        &'static self,
        spec: &BankSpec,
    ) -> Result<(bank::Bank<'static>, bank::Bank<'static>), BankError> {
        let frames = self.frames.child(spec.frames as usize)?;
        match self.objects.child(spec.objects as usize) {
            Ok(objects) => Ok((frames, objects)),
            Err(error) => frames.destroy().and(Err(error)),
        }
    }

    /// What `bank_info` tells.
    pub(crate) fn info(&self) -> BankInfo {
        let (frames, objects) = (self.frames.stats(), self.objects.stats());
        let both = |of: fn(&BankStats) -> usize| BankSpec {
            frames: of(&frames) as u64,
            objects: of(&objects) as u64,
        };
        BankInfo { limit: both(|stats| stats.limit), spent: both(|stats| stats.used) }
    }

    /// Charges so much at once.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; nothing has changed.
    pub(crate) fn charge(&self, frames: usize, objects: usize) -> Result<(), Error> {
        self.frames.charge(frames).map_err(|_| Error::NoMemory)?;
        let charged = self.objects.charge(objects).map_err(|_| Error::NoMemory);
        if charged.is_err() {
            refund(&self.frames, frames);
        }
        charged
    }

    /// Takes back what [`Bank::charge`] has charged.
    pub(crate) fn refund(&self, frames: usize, objects: usize) {
        refund(&self.frames, frames);
        refund(&self.objects, objects);
    }

    /// The payer that the bank is. Whoever has it keeps the bank.
    pub(crate) fn payer(&self) -> Payer {
        Payer::new(core::ptr::from_ref(self).expose_provenance() as u64)
    }
}

fn refund(bank: &bank::Bank<'_>, amount: usize) {
    bank.refund(amount).expect("Q2: what was charged can be refunded");
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Bank {
    const KIND: ObjectKind = ObjectKind::Bank;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1: nobody uses it any more.
        let bank = unsafe { object.as_ref() };
        let ended = bank.frames.destroy().and(bank.objects.destroy());
        ended.expect("Q3: who has something charged to a bank keeps it, as do its children");
        // SAFETY: as above: its references to others go now.
        drop(unsafe { object.read() });
        slabs::give(held, object);
    }
}

/// The bank behind a payer.
///
/// # Safety
/// 1. The payer keeps its bank until the core leaves the kernel, or did a moment ago (N1).
unsafe fn behind(payer: Payer) -> Option<&'static Bank> {
    let at = core::ptr::with_exposed_provenance::<Bank>(payer.word() as usize);
    // SAFETY: obligation 1; null for nobody.
    unsafe { at.as_ref() }
}

/// [`Source::draw`] for frames.
///
/// # Safety
/// 1. As for [`behind`].
pub(crate) unsafe fn draw_frames(payer: Payer, least: usize, most: usize) -> Option<usize> {
    // SAFETY: obligation 1.
    match unsafe { behind(payer) } {
        Some(bank) => bank.frames.draw(least, most).ok(),
        None => Some(most),
    }
}

/// [`Source::pay_back`] for frames.
///
/// # Safety
/// 1. As for [`behind`].
pub(crate) unsafe fn pay_frames_back(payer: Payer, amount: usize) {
    // SAFETY: obligation 1.
    if let Some(bank) = unsafe { behind(payer) } {
        refund(&bank.frames, amount);
    }
}

/// [`Source::spare`] for frames.
///
/// # Safety
/// 1. As for [`behind`].
pub(crate) unsafe fn spare_frames(payer: Payer) -> usize {
    // SAFETY: obligation 1.
    unsafe { behind(payer) }.map_or(usize::MAX, |bank| bank.frames.free())
}

/// A payer that keeps its bank; [`forget`] ends that.
pub(crate) fn keep(bank: Ref<Bank>) -> Payer {
    Payer::new(bank.into_word())
}

/// As [`keep`], of the bank behind another payer; `None` if that bank is about to go.
///
/// # Safety
/// 1. As for [`behind`].
pub(crate) unsafe fn keep_another(payer: Payer) -> Option<Payer> {
    // SAFETY: obligation 1.
    let bank = unsafe { behind(payer) };
    bank.is_none_or(|bank| object::try_acquire(&bank.header)).then_some(payer)
}

/// Ends what [`keep`] began.
///
/// # Safety
/// 1. Once for each payer of [`keep`]; nothing is charged by it any more.
pub(crate) unsafe fn forget(payer: Payer) {
    let at = core::ptr::with_exposed_provenance_mut::<Bank>(payer.word() as usize);
    if let Some(bank) = NonNull::new(at) {
        // SAFETY: obligation 1: the count that `keep` has taken over.
        drop(unsafe { Ref::adopt(bank) });
    }
}

/// Objects, of the banks of purses that their processes keep.
#[derive(Debug)]
pub(crate) struct Objects;

impl Source for Objects {
    fn draw(&mut self, payer: Payer, least: usize, most: usize) -> Option<usize> {
        // SAFETY: a process keeps its bank as long as it has a purse (V4).
        unsafe { behind(payer) }.and_then(|bank| bank.objects.draw(least, most).ok())
    }

    fn pay_back(&mut self, payer: Payer, amount: usize) {
        // SAFETY: as above.
        if let Some(bank) = unsafe { behind(payer) } {
            refund(&bank.objects, amount);
        }
    }

    fn spare(&self, payer: Payer) -> usize {
        // SAFETY: as above.
        unsafe { behind(payer) }.map_or(0, |bank| bank.objects.free())
    }
}

/// One object that is charged to a bank, until this is dropped: a field of the object.
pub(crate) struct Charge(Ref<Bank>);

impl Charge {
    /// Charges the current process's bank.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub(crate) fn current(irq: &IrqOff) -> Result<Self, Error> {
        let thread = dispatch::current(irq);
        // SAFETY: a thread of the process runs.
        let bank = unsafe { thread.process().bank() }.clone();
        if bank.charge(0, 1).is_err() {
            // The process may have the last ones in its purse.
            thread.process().trim();
            bank.charge(0, 1)?;
        }
        Ok(Self(bank))
    }
}

impl Charge {
    /// The bank.
    pub(crate) const fn bank(&self) -> &Ref<Bank> {
        &self.0
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.0.refund(0, 1);
    }
}
