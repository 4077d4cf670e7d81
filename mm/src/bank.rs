//! Quota banks: memory, or whatever else is counted, is charged to the bank of the process that caused it.
//!
//! A child's limit is carved out of what its parent has free, so that a charge touches the line of its own bank and no ancestor's; what
//! a whole tree can use is bounded by its root's limit. Destroying a bank gives its limit back to its parent.
//!
//! * Q1: free + charged + the children's limits = limit, in every bank at every moment that no operation is under way on it.
//! * Q2: what was charged can be refunded, whatever happens meanwhile: neither resizing nor destroying takes it away.
//! * Q3: a destroyed bank has no children and nothing charged, and nothing can be charged to it any more.

mod purse;
mod word;

#[cfg(all(test, loom))]
mod models;

pub use purse::{BATCH, Exhausted, Moving, Payer, Purse, Source};

use core::fmt;
use percpu::const_fn;
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::sync::hint;
use word::Word;

/// The largest limit: 256 TiB less a byte.
pub const MAX_LIMIT: usize = Word::MAX_FREE;
/// Most children of one bank.
pub const MAX_CHILDREN: usize = Word::MAX_CHILDREN;

/// Why an operation was refused. Nothing has changed when one is returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum BankError {
    /// The bank has not that much free.
    Exhausted,
    /// Something is charged to the bank still.
    Charged,
    /// The bank has children.
    Children,
    /// The bank has as many children as it can.
    TooManyChildren,
    /// The bank is destroyed.
    Destroyed,
    /// Another core is resizing or destroying the bank. Try again.
    Busy,
    /// More is to be refunded than is charged.
    NotCharged,
    /// The limit is above [`MAX_LIMIT`].
    TooLarge,
}

impl fmt::Display for BankError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exhausted => "the bank has not that much free",
            Self::Charged => "something is charged to the bank",
            Self::Children => "the bank has children",
            Self::TooManyChildren => "the bank has as many children as it can",
            Self::Destroyed => "the bank is destroyed",
            Self::Busy => "another core is changing the bank",
            Self::NotCharged => "more is to be refunded than is charged",
            Self::TooLarge => "the limit is too large",
        })
    }
}

impl core::error::Error for BankError {}

/// Figures of a bank. Exact while nothing changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BankStats {
    /// Bytes that the bank and its children may use.
    pub limit: usize,
    /// Bytes that are charged or carved out for children.
    pub used: usize,
    /// The most that were.
    pub peak: usize,
    /// Charges that were refused.
    pub refused: usize,
    /// Living children.
    pub children: usize,
}

/// A bank.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `word` | any core, by compare-exchange | any | AcqRel | the bank's |
/// | `limit` | who has set BUSY in `word` | any | Release / Acquire, see `resize` | with `word` |
/// | `peak`, `refused` | any core that charges | any | Relaxed | with `word` |
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Bank<'p> {
    word: AtomicU64,
    limit: AtomicU64,
    peak: AtomicU64,
    refused: AtomicU64,
    parent: Option<&'p Bank<'p>>,
}

#[cfg(not(loom))]
const _: () =
    assert!(size_of::<Bank<'_>>() == percpu::CACHE_LINE && align_of::<Bank<'_>>() == percpu::CACHE_LINE);

impl<'p> Bank<'p> {
    const_fn! {
        /// A bank without a parent: the memory of a whole machine. A limit above [`MAX_LIMIT`] is cut to it.
        #[must_use]
        pub const fn root(limit: usize) -> Self {
            let word = Word::new(if limit > MAX_LIMIT { MAX_LIMIT } else { limit });
            Self {
                word: AtomicU64::new(word.raw()),
                limit: AtomicU64::new(word.raw()),
                peak: AtomicU64::new(0),
                refused: AtomicU64::new(0),
                parent: None,
            }
        }
    }

    /// A child whose limit comes out of what this bank has free.
    ///
    /// # Errors
    /// [`BankError::Exhausted`], [`BankError::TooManyChildren`], [`BankError::Destroyed`].
    pub fn child(&'p self, limit: usize) -> Result<Self, BankError> {
        self.change(|word| word.carve(limit))?;
        self.note_peak();
        Ok(Self { parent: Some(self), ..Self::root(limit) })
    }

    /// Charges so many bytes.
    ///
    /// # Errors
    /// [`BankError::Exhausted`], [`BankError::Destroyed`].
    #[inline]
    pub fn charge(&self, bytes: usize) -> Result<(), BankError> {
        match self.change(|word| word.charge(bytes)) {
            Ok(()) => {
                self.note_peak();
                Ok(())
            }
            Err(error) => {
                // ORDER: Relaxed: a figure.
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Takes back a charge of so many bytes.
    ///
    /// # Errors
    /// [`BankError::NotCharged`] if the bank notices that so much was never charged: what is charged and what is carved out for
    /// children is one sum to it.
    #[inline]
    pub fn refund(&self, bytes: usize) -> Result<(), BankError> {
        self.put(|word, limit| word.refund(bytes, limit))
    }

    /// Gives something back to what is free. The limit is another word than the one that is compared, so a refusal may come from two
    /// that were never true at once; it counts only if it repeats while nobody can change the limit (Q2).
    #[inline]
    fn put(&self, step: impl Fn(Word, usize) -> Result<Word, BankError>) -> Result<(), BankError> {
        match self.change(|word| step(word, self.limit())) {
            Ok(()) => Ok(()),
            Err(_) => self.put_locked(step),
        }
    }

    #[cold]
    fn put_locked(&self, step: impl Fn(Word, usize) -> Result<Word, BankError>) -> Result<(), BankError> {
        loop {
            match self.change(Word::lock) {
                Ok(()) => break,
                Err(BankError::Busy) => hint::spin_loop(),
                Err(_) => return Err(BankError::NotCharged),
            }
        }
        let limit = self.limit();
        let done = self.change(|word| step(word, limit));
        self.change(|word| Ok(word.unlock()))?;
        done
    }

    /// Changes the limit; the difference comes from, or goes to, what the parent has free. A root just changes.
    ///
    /// # Errors
    /// [`BankError::Exhausted`] if this bank has not the difference free, or the parent has not; [`BankError::Busy`],
    /// [`BankError::Destroyed`], [`BankError::TooLarge`].
    pub fn resize(&self, limit: usize) -> Result<(), BankError> {
        if limit > MAX_LIMIT {
            return Err(BankError::TooLarge);
        }
        self.change(Word::lock)?;
        let old = self.limit();
        let done =
            if limit >= old { self.extend(limit, limit - old) } else { self.shrink(limit, old - limit) };
        self.change(|word| Ok(word.unlock()))?;
        done
    }

    /// Under BUSY. The limit rises before what is free does, and falls after it: the free part never looks larger than the limit.
    fn extend(&self, limit: usize, more: usize) -> Result<(), BankError> {
        if let Some(parent) = self.parent {
            parent.change(|word| word.charge(more))?;
            parent.note_peak();
        }
        self.set_limit(limit);
        self.change(|word| word.refund(more, limit))
    }

    fn shrink(&self, limit: usize, less: usize) -> Result<(), BankError> {
        self.change(|word| word.charge(less))?;
        self.set_limit(limit);
        match self.parent {
            Some(parent) => parent.refund(less),
            None => Ok(()),
        }
    }

    /// Ends the bank: its limit goes back to its parent. Afterwards nothing can be charged to it.
    ///
    /// # Errors
    /// [`BankError::Charged`] or [`BankError::Children`] while something is; [`BankError::Busy`], [`BankError::Destroyed`].
    pub fn destroy(&self) -> Result<(), BankError> {
        self.change(Word::lock)?;
        // Nobody else changes the limit now, and hence the comparison inside means what it says.
        let limit = self.limit();
        if let Err(error) = self.change(|word| word.destroy(limit)) {
            self.change(|word| Ok(word.unlock()))?;
            return Err(error);
        }
        match self.parent {
            Some(parent) => parent.put(|word, own| word.merge(limit, own)),
            None => Ok(()),
        }
    }

    /// What is free: neither charged nor carved out.
    #[must_use]
    pub fn free(&self) -> usize {
        self.word().free()
    }

    /// The bank's figures.
    #[must_use]
    pub fn stats(&self) -> BankStats {
        let (word, limit) = self.both();
        // ORDER: Relaxed: figures.
        let (peak, refused) = (self.peak.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed));
        let used = if word.is_destroyed() { 0 } else { limit.saturating_sub(word.free()) };
        BankStats {
            limit: if word.is_destroyed() { 0 } else { limit },
            used,
            peak: Word::figure(peak).max(used),
            refused: Word::figure(refused),
            children: word.children(),
        }
    }

    /// Word and limit of one moment, as far as figures need it: the word was the same before and after the limit was read, and nobody was
    /// changing the limit.
    fn both(&self) -> (Word, usize) {
        loop {
            let (word, limit) = (self.word(), self.limit());
            // Nobody lets go of a bank that is destroyed.
            if word.is_destroyed() || self.word() == word && !word.is_busy() {
                return (word, limit);
            }
            hint::spin_loop();
        }
    }

    fn word(&self) -> Word {
        // ORDER: Acquire pairs with Release in `change`: the limit is as new as the word.
        Word::from_raw(self.word.load(Ordering::Acquire))
    }

    fn limit(&self) -> usize {
        // ORDER: Acquire pairs with Release in `set_limit`: who sees a lower limit sees what was taken for it before.
        Word::figure(self.limit.load(Ordering::Acquire))
    }

    fn set_limit(&self, limit: usize) {
        // ORDER: Release pairs with Acquire in `limit`.
        self.limit.store(Word::new(limit).raw(), Ordering::Release);
    }

    /// Applies a transition.
    #[inline]
    fn change(&self, step: impl Fn(Word) -> Result<Word, BankError>) -> Result<(), BankError> {
        // ORDER: Acquire pairs with Release below: the limit is read after the word, and is as new as it at least.
        let mut seen = self.word.load(Ordering::Acquire);
        loop {
            let next = step(Word::from_raw(seen))?;
            // ORDER: AcqRel: Release pairs with Acquire here and in `word`: who finds the bank unlocked sees its limit. Acquire on
            // failure as above.
            match self.word.compare_exchange_weak(seen, next.raw(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    #[inline]
    fn note_peak(&self) {
        let used = self.limit().saturating_sub(self.word().free());
        let used = Word::new(used).raw();
        // ORDER: Relaxed, here and below: a figure. Written only when it rises, which is rare.
        if used > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(used, Ordering::Relaxed);
        }
    }
}
