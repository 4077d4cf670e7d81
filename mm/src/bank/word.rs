//! The state of a bank in one word, and every way it may change.
//!
//! | bits | meaning |
//! |---|---|
//! | 0 to 47 | bytes that are free: neither charged nor carved out |
//! | 48 to 61 | children |
//! | 62 | BUSY: somebody is resizing or destroying the bank; charges and refunds go on |
//! | 63 | DESTROYED |

use super::BankError;

/// A bank's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Word(u64);

const FREE_BITS: u32 = 48;
const FREE: u64 = (1 << FREE_BITS) - 1;
const CHILD: u64 = 1 << FREE_BITS;
const BUSY: u64 = 1 << 62;
const DESTROYED: u64 = 1 << 63;
const CHILDREN: u64 = (BUSY - 1) & !FREE;

type Step = Result<Word, BankError>;

impl Word {
    pub(super) const MAX_FREE: usize = FREE as usize;
    pub(super) const MAX_CHILDREN: usize = (CHILDREN >> FREE_BITS) as usize;

    /// A fresh bank with so much free; the amount is at most [`Word::MAX_FREE`].
    pub(super) const fn new(free: usize) -> Self {
        Self(free as u64 & FREE)
    }

    pub(super) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(super) const fn raw(self) -> u64 {
        self.0
    }

    /// A count that was kept in 64 bits.
    pub(super) const fn figure(raw: u64) -> usize {
        raw as usize
    }

    pub(super) const fn free(self) -> usize {
        (self.0 & FREE) as usize
    }

    pub(super) const fn children(self) -> usize {
        ((self.0 & CHILDREN) >> FREE_BITS) as usize
    }

    pub(super) const fn is_destroyed(self) -> bool {
        self.0 & DESTROYED != 0
    }

    pub(super) const fn is_busy(self) -> bool {
        self.0 & BUSY != 0
    }

    /// Less free.
    pub(super) const fn charge(self, bytes: usize) -> Step {
        if self.is_destroyed() {
            Err(BankError::Destroyed)
        } else if bytes > self.free() {
            Err(BankError::Exhausted)
        } else {
            Ok(Self(self.0 - bytes as u64))
        }
    }

    /// More free, up to the limit.
    pub(super) const fn refund(self, bytes: usize, limit: usize) -> Step {
        match self.free().checked_add(bytes) {
            Some(free) if free <= limit && !self.is_destroyed() => Ok(Self(self.0 + bytes as u64)),
            _ => Err(BankError::NotCharged),
        }
    }

    /// One more child with this limit.
    pub(super) const fn carve(self, limit: usize) -> Step {
        match self.charge(limit) {
            Ok(_) if self.children() == Self::MAX_CHILDREN => Err(BankError::TooManyChildren),
            Ok(word) => Ok(Self(word.0 + CHILD)),
            Err(error) => Err(error),
        }
    }

    /// One child less, which had this limit.
    pub(super) const fn merge(self, bytes: usize, limit: usize) -> Step {
        match self.refund(bytes, limit) {
            Ok(word) if self.children() > 0 => Ok(Self(word.0 - CHILD)),
            _ => Err(BankError::NotCharged),
        }
    }

    /// For who wants to resize or destroy.
    pub(super) const fn lock(self) -> Step {
        if self.is_destroyed() {
            Err(BankError::Destroyed)
        } else if self.is_busy() {
            Err(BankError::Busy)
        } else {
            Ok(Self(self.0 | BUSY))
        }
    }

    pub(super) const fn unlock(self) -> Self {
        Self(self.0 & !BUSY)
    }

    /// The end, if everything of the limit is free.
    pub(super) const fn destroy(self, limit: usize) -> Step {
        if self.children() > 0 {
            Err(BankError::Children)
        } else if self.free() != limit {
            Err(BankError::Charged)
        } else {
            Ok(Self(DESTROYED))
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{BUSY, BankError, CHILD, DESTROYED, Word};

    const SMALL: usize = 6;

    /// Every state with little of everything, and those at the ends of the fields.
    fn states() -> impl Iterator<Item = Word> {
        let free = (0..SMALL).chain([Word::MAX_FREE - 1, Word::MAX_FREE]);
        let children = [0, 1, 2, Word::MAX_CHILDREN - 1, Word::MAX_CHILDREN];
        free.flat_map(move |free| {
            children.into_iter().flat_map(move |children| {
                [0, BUSY, DESTROYED].map(|flags| Word(Word::new(free).0 + children as u64 * CHILD + flags))
            })
        })
    }

    fn parts(word: Word) -> (usize, usize, bool, bool) {
        (word.free(), word.children(), word.is_busy(), word.is_destroyed())
    }

    #[test]
    fn each_step_changes_its_own_field() {
        for word in states() {
            let (free, children, busy, destroyed) = parts(word);
            for bytes in (0..SMALL).chain([Word::MAX_FREE, usize::MAX]) {
                let charged = (!destroyed && bytes <= free).then(|| (free - bytes, children, busy, false));
                assert_eq!(word.charge(bytes).ok().map(parts), charged, "{word:?} {bytes}");
                let carved = charged.filter(|_| children < Word::MAX_CHILDREN);
                let carved = carved.map(|(free, children, busy, _)| (free, children + 1, busy, false));
                assert_eq!(word.carve(bytes).ok().map(parts), carved, "{word:?} {bytes}");
                for limit in (0..SMALL).chain([Word::MAX_FREE]) {
                    let fits = free.checked_add(bytes).is_some_and(|sum| sum <= limit) && !destroyed;
                    let refunded = fits.then(|| (free + bytes, children, busy, false));
                    assert_eq!(word.refund(bytes, limit).ok().map(parts), refunded);
                    let merged = refunded.filter(|_| children > 0);
                    let merged = merged.map(|(free, children, busy, _)| (free, children - 1, busy, false));
                    assert_eq!(word.merge(bytes, limit).ok().map(parts), merged);
                }
            }
        }
    }

    #[test]
    fn one_at_a_time_resizes_or_destroys() {
        for word in states() {
            let (free, children, busy, destroyed) = parts(word);
            let expected = match (destroyed, busy) {
                (true, _) => Err(BankError::Destroyed),
                (_, true) => Err(BankError::Busy),
                _ => Ok((free, children, true, false)),
            };
            assert_eq!(word.lock().map(parts), expected);
            assert_eq!(parts(word.unlock()), (free, children, false, destroyed));
            for limit in 0..SMALL {
                let ended = word.destroy(limit);
                assert_eq!(ended.is_ok(), children == 0 && free == limit, "{word:?} {limit}");
                assert!(
                    ended.is_ok_and(|word| word.charge(0) == Err(BankError::Destroyed)) || ended.is_err()
                );
            }
        }
    }
}
