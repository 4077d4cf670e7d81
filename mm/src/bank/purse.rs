//! Purses: quota that one payer, a space, an object or a process, has drawn from its bank ahead. What it takes costs one word of its own;
//! the bank's line is touched once for [`BATCH`] of them.
//!
//! * Q4: what is drawn is credit or in use. Whoever takes is refused only if the bank has not that much free, the credit included.
//! * Q5: what is drawn, and who pays, changes under the lock bit. Whoever holds it has the credit, too: others find none, and wait.

use super::{Bank, BankError};
use percpu::const_fn;
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::sync::hint;

/// What a purse draws at once where the bank has plenty, and at most twice what it keeps.
pub const BATCH: usize = 64;

/// A block that is taken for speed is taken where the bank has so many times as much free.
const PLENTY: usize = 8;

/// In [`Purse::drawn`]: somebody changes it.
const LOCKED: u64 = 1 << 63;

/// Whose bank pays: a word that the [`Source`] understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Payer(u64);

impl Payer {
    /// Nobody: what is taken is not counted anywhere.
    pub const NOBODY: Self = Self(0);

    /// The payer of a word that is not 0.
    #[must_use]
    pub const fn new(word: u64) -> Self {
        Self(word)
    }

    /// The word.
    #[must_use]
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }
}

/// The banks behind the payers, for one currency.
pub trait Source {
    /// Charges the payer's bank: at least so much, at most so much. `None` if it has not the least.
    fn draw(&mut self, payer: Payer, least: usize, most: usize) -> Option<usize>;

    /// Refunds.
    fn pay_back(&mut self, payer: Payer, amount: usize);

    /// What the payer's bank has free.
    fn spare(&self, payer: Payer) -> usize;
}

/// The bank is exhausted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exhausted;

/// See the module comment.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `credit` | any core | any | see `lock` |
/// | `drawn`, `payer` | who holds the lock bit in `drawn` (Q5) | the same | Acquire / Release |
#[derive(Debug)]
#[repr(C)]
pub struct Purse {
    credit: AtomicU64,
    drawn: AtomicU64,
    payer: AtomicU64,
}

impl Purse {
    const_fn! {
        /// Nothing drawn yet.
        #[must_use]
        pub const fn new(payer: Payer) -> Self {
            Self {
                credit: AtomicU64::new(0),
                drawn: AtomicU64::new(0),
                payer: AtomicU64::new(payer.0),
            }
        }
    }

    /// Takes so much.
    ///
    /// # Errors
    /// [`Exhausted`]; nothing has changed.
    #[inline(always)]
    pub fn take(&self, amount: usize, source: &mut impl Source) -> Result<(), Exhausted> {
        self.take_ahead(amount, BATCH, source)
    }

    /// As [`Purse::take`], for a payer that will never need more than so much from now on: no more is drawn.
    ///
    /// # Errors
    /// As [`Purse::take`].
    #[inline(always)]
    pub fn take_ahead(&self, amount: usize, most: usize, source: &mut impl Source) -> Result<(), Exhausted> {
        if self.take_credit(amount as u64) { Ok(()) } else { self.take_drawing(amount, most, source) }
    }

    #[inline(always)]
    fn take_credit(&self, amount: u64) -> bool {
        // ORDER: Relaxed, all: only the number counts; who takes and who gives back order what they took by other means.
        let mut credit = self.credit.load(Ordering::Relaxed);
        while credit >= amount {
            let left = credit - amount;
            // ORDER: Relaxed; as above.
            match self.credit.compare_exchange_weak(credit, left, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => credit = now,
            }
        }
        false
    }

    #[cold]
    fn take_drawing(&self, amount: usize, most: usize, source: &mut impl Source) -> Result<(), Exhausted> {
        let hold = self.hold();
        let have = self.seize();
        if have >= amount {
            self.add(have - amount);
            return Ok(());
        }
        let least = amount - have;
        match source.draw(self.payer(), least, least.max(most.min(BATCH))) {
            Some(got) => {
                hold.drawn(|drawn| drawn + got as u64);
                self.add(have + got - amount);
                Ok(())
            }
            None => {
                self.add(have);
                Err(Exhausted)
            }
        }
    }

    /// Takes so much if the bank has plenty: for what saves time and can be done without.
    pub fn take_spare(&self, amount: usize, source: &mut impl Source) -> Result<(), Exhausted> {
        if source.spare(self.payer()) / PLENTY < amount { Err(Exhausted) } else { self.take(amount, source) }
    }

    /// Gives so much back that was taken.
    #[inline(always)]
    pub fn put(&self, amount: usize, source: &mut impl Source) {
        // ORDER: Relaxed: as in `take_credit`.
        let before = self.credit.fetch_add(amount as u64, Ordering::Relaxed);
        if before + amount as u64 > 2 * BATCH as u64 {
            self.pay_back(BATCH, source);
        }
    }

    /// Gives the bank back what was drawn and is not in use.
    pub fn trim(&self, source: &mut impl Source) {
        self.pay_back(0, source);
    }

    /// As [`Purse::trim`], unless somebody holds the purse, the caller perhaps.
    pub fn try_trim(&self, source: &mut impl Source) {
        if let Some(hold) = self.try_hold() {
            self.pay_back_holding(&hold, 0, source);
        }
    }

    #[cold]
    fn pay_back(&self, keep: usize, source: &mut impl Source) {
        self.pay_back_holding(&self.hold(), keep, source);
    }

    fn pay_back_holding(&self, hold: &Hold<'_>, keep: usize, source: &mut impl Source) {
        let have = self.seize();
        let keep = have.min(keep);
        if have > keep {
            source.pay_back(self.payer(), have - keep);
            hold.drawn(|drawn| drawn - (have - keep) as u64);
        }
        self.add(keep);
    }

    /// Gives the bank back all that was drawn: what was taken is gone, or never comes back here.
    pub fn close(&self, source: &mut impl Source) {
        let hold = self.hold();
        // What is credit is part of it.
        self.seize();
        let drawn = hold.amount();
        if drawn > 0 {
            source.pay_back(self.payer(), drawn);
            hold.drawn(|_| 0);
        }
    }

    /// What was taken and not given back. Exact while nothing changes.
    #[must_use]
    pub fn in_use(&self) -> usize {
        // ORDER: Relaxed, both: figures.
        let drawn = self.drawn.load(Ordering::Relaxed) & !LOCKED;
        // ORDER: Relaxed; as above.
        drawn.saturating_sub(self.credit.load(Ordering::Relaxed)) as usize
    }

    /// Who pays.
    #[must_use]
    pub fn payer(&self) -> Payer {
        // ORDER: Relaxed: under the lock (Q5), or a payer that was one a moment ago.
        Payer(self.payer.load(Ordering::Relaxed))
    }

    /// Holds the purse so that somebody else can be made to pay for all that is in use, and no more: nothing is drawn beyond it.
    pub fn move_to_another(&self, source: &mut impl Source) -> Moving<'_> {
        let hold = self.hold();
        let have = self.seize();
        if have > 0 {
            source.pay_back(self.payer(), have);
            hold.drawn(|drawn| drawn - have as u64);
        }
        Moving { hold }
    }

    /// Has another purse of the same payer's have so much that was taken from this one; `false`, and nothing, if the payers are two.
    pub fn hand(&self, to: &Self, amount: usize) -> bool {
        if core::ptr::eq(self, to) {
            return true;
        }
        // In the order of their addresses, so that two that hand to each other do not wait for each other.
        let self_first = core::ptr::from_ref(self).addr() < core::ptr::from_ref(to).addr();
        let (first, second) = if self_first { (self, to) } else { (to, self) };
        let (first, second) = (first.hold(), second.hold());
        let (from, to) = if self_first { (&first, &second) } else { (&second, &first) };
        let same = from.0.payer() == to.0.payer();
        if same {
            from.drawn(|drawn| drawn - amount as u64);
            to.drawn(|drawn| drawn + amount as u64);
        }
        same
    }

    fn hold(&self) -> Hold<'_> {
        loop {
            match self.try_hold() {
                Some(hold) => return hold,
                None => hint::spin_loop(),
            }
        }
    }

    fn try_hold(&self) -> Option<Hold<'_>> {
        // ORDER: Acquire pairs with Release in `Hold::drop`: the payer and the credit are as the last holder left them.
        let before = self.drawn.fetch_or(LOCKED, Ordering::Acquire);
        (before & LOCKED == 0).then(|| Hold(self))
    }

    /// Takes all credit, under the lock.
    fn seize(&self) -> usize {
        // ORDER: Relaxed: as in `take_credit`.
        self.credit.swap(0, Ordering::Relaxed) as usize
    }

    fn add(&self, amount: usize) {
        // ORDER: Relaxed: as in `take_credit`.
        self.credit.fetch_add(amount as u64, Ordering::Relaxed);
    }
}

/// The lock bit.
#[derive(Debug)]
struct Hold<'p>(&'p Purse);

impl Hold<'_> {
    fn amount(&self) -> usize {
        // ORDER: Relaxed: only the holder changes it (Q5).
        (self.0.drawn.load(Ordering::Relaxed) & !LOCKED) as usize
    }

    fn drawn(&self, change: impl FnOnce(u64) -> u64) {
        let drawn = change(self.amount() as u64);
        // ORDER: Relaxed: as above; published by the release of the lock.
        self.0.drawn.store(drawn | LOCKED, Ordering::Relaxed);
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        // ORDER: Release pairs with Acquire in `Purse::hold`.
        self.0.drawn.fetch_and(!LOCKED, Ordering::Release);
    }
}

/// A purse whose payer is about to change. Dropped as it is, it is as before.
#[derive(Debug)]
#[must_use = "whoever takes from the purse waits for the end of this"]
pub struct Moving<'p> {
    hold: Hold<'p>,
}

impl Moving<'_> {
    /// What the new payer has to be charged, and the old one gets back.
    #[must_use]
    pub fn amount(&self) -> usize {
        self.hold.amount()
    }

    /// Makes another payer pay, whose bank has been charged.
    pub fn settle(self, payer: Payer) {
        // ORDER: Relaxed: under the lock (Q5), whose release publishes it.
        self.hold.0.payer.store(payer.0, Ordering::Relaxed);
    }
}

impl Bank<'_> {
    /// Charges between so much and so much: less where little is left, so that of two who draw ahead neither keeps the rest from the other.
    ///
    /// # Errors
    /// [`BankError::Exhausted`] if the bank has not the least; [`BankError::Destroyed`].
    pub fn draw(&self, least: usize, most: usize) -> Result<usize, BankError> {
        // The share is of what was free a moment ago: a figure. What is charged is charged exactly.
        let wanted = (self.free() / PLENTY).min(most);
        if wanted > least && self.charge(wanted).is_ok() {
            return Ok(wanted);
        }
        self.charge(least).map(|()| least)
    }
}
