//! One word for each frame: what it is used for, and how a mapping of it is found.
//!
//! The word means something only while the frame belongs to an address space or to a memory object; whoever takes a frame writes it, nobody
//! clears it.
//!
//! | word | the frame is | changed by |
//! |---|---|---|
//! | `Private(space, page)` | one page of one space | who holds the lock of the page's unit |
//! | `Counted(n)` | shared by `n` copy-on-write mappings | any core, by compare-exchange |
//! | `Object(page)` | that page of a memory object | who puts it into the object, once |
//! | `Table` | a page table, see [`Word`] | who holds the table's lock |
//! | `Stale(next)` | unmapped, waiting for the shootdown, in a list | who unmapped it |

use crate::id::{FrameId, Order};
use crate::virt::PageId;
use percpu::sync::atomic::{AtomicU64, Ordering};

const TAG_BITS: u32 = 3;
const TAG: u64 = (1 << TAG_BITS) - 1;
const PRIVATE: u64 = 1;
const COUNTED: u64 = 2;
const TABLE: u64 = 3;
const OBJECT: u64 = 4;
const STALE: u64 = 5;

/// Where the payload starts: below it are the tag and a table's flags.
const SHIFT: u32 = 8;
const PAGE_BITS: u32 = 35;
const FRAME_BITS: u32 = 40;

const LOCKED: u64 = 1 << 3;
const COUNT_SHIFT: u32 = SHIFT;
const POPULATED_SHIFT: u32 = 18;
const RESERVED_SHIFT: u32 = 28;
/// A count of entries goes to 512, inclusive.
const COUNT: u64 = (1 << 10) - 1;

/// What a frame is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Nothing that address spaces know of.
    Unknown,
    /// One page of one space: the low bits of the space's id, and the page.
    Private {
        /// The space's id, its low 21 bits.
        space: u64,
        /// The page that shows the frame.
        page: PageId,
    },
    /// Shared by this many copy-on-write mappings.
    Counted(u64),
    /// A page table.
    Table,
    /// This page of a memory object, whose attachments say where it is shown.
    Object(usize),
    /// Unmapped and not yet given back.
    Stale,
}

/// The word of one frame.
#[derive(Debug)]
#[repr(transparent)]
pub struct FrameInfo(AtomicU64);

/// How a stale frame goes back once the shootdown is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// At once.
    Now,
    /// When no core can be looking at it any more: a table that others reach without a lock.
    Later,
}

impl FrameInfo {
    percpu::const_fn! {
        /// The word of a frame that nobody has used.
        #[must_use]
        pub const fn new() -> Self {
            Self(AtomicU64::new(0))
        }
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        // ORDER: Relaxed: what the word says is read under the lock that its writer held, or is verified by an exchange.
        self.0.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn store(&self, word: u64) {
        // ORDER: Relaxed: as in `load`; a frame reaches another core only through an entry or an exchange that publishes it.
        self.0.store(word, Ordering::Relaxed);
    }

    /// What the frame is used for.
    #[must_use]
    pub fn usage(&self) -> Use {
        let word = self.load();
        match word & TAG {
            PRIVATE => Use::Private {
                space: word >> (SHIFT + PAGE_BITS),
                page: PageId::new((word >> SHIFT) as usize & ((1 << PAGE_BITS) - 1)),
            },
            COUNTED => Use::Counted(word >> SHIFT),
            TABLE => Use::Table,
            OBJECT => Use::Object((word >> SHIFT) as usize),
            STALE => Use::Stale,
            _ => Use::Unknown,
        }
    }

    /// Becomes a page of a space.
    #[inline(always)]
    pub(crate) fn set_private(&self, space: u64, page: PageId) {
        self.store(space << (SHIFT + PAGE_BITS) | (page.number() as u64) << SHIFT | PRIVATE);
    }

    /// Becomes a page of a memory object.
    pub(crate) fn set_object(&self, page: usize) {
        self.store((page as u64) << SHIFT | OBJECT);
    }

    /// One more copy-on-write mapping shows the frame; the caller's own mapping keeps it alive.
    pub(crate) fn share(&self) {
        let mut word = self.load();
        loop {
            let next = match word & TAG {
                COUNTED => word + (1 << SHIFT),
                _ => 2 << SHIFT | COUNTED,
            };
            // ORDER: Relaxed: only the number counts; who drops a reference orders its accesses by `unshare`.
            match self.0.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// One mapping less; says whether it was the last one.
    pub(crate) fn unshare(&self) -> bool {
        // ORDER: AcqRel: Release, so that our accesses to the frame come before its next use; Acquire for whoever gets the last one.
        let before = self.0.fetch_sub(1 << SHIFT, Ordering::AcqRel);
        debug_assert!(before & TAG == COUNTED, "A4: only a counted frame is dropped by a reference");
        before >> SHIFT == 1
    }

    /// Whether the caller's mapping is the only one.
    pub(crate) fn is_sole(&self) -> bool {
        // ORDER: Acquire pairs with Release in `unshare`: the others are done with the frame.
        self.0.load(Ordering::Acquire) == 1 << SHIFT | COUNTED
    }

    /// Joins a list of stale frames.
    pub(crate) fn set_stale(&self, next: Option<FrameId>, order: Order, way: Way) {
        // 0 ends the list: frame 0 is never managed (the first page of memory is firmware's).
        let next = next.map_or(0, FrameId::number) as u64;
        let later = u64::from(way == Way::Later);
        let word = later << (SHIFT + FRAME_BITS + 8)
            | u64::from(order.raw()) << (SHIFT + FRAME_BITS)
            | next << SHIFT
            | STALE;
        // Relaxed is enough for a table, too: a core that still finds it here, and sees this late, waits for its lock in vain, looks again,
        // and reads nothing through the word. Its entries are ordered by the grace period before the frame's next use.
        self.store(word);
    }

    /// The next stale frame of the list, and how this one goes back.
    pub(crate) fn stale(&self) -> (Option<FrameId>, Order, Way) {
        let word = self.load();
        debug_assert!(word & TAG == STALE, "A3: a list of stale frames holds stale frames");
        let next = (word >> SHIFT) as usize & ((1 << FRAME_BITS) - 1);
        let order = Order::new((word >> (SHIFT + FRAME_BITS)) as u8).unwrap_or_default();
        let way = if word >> (SHIFT + FRAME_BITS + 8) == 0 { Way::Now } else { Way::Later };
        (if next == 0 { None } else { Some(FrameId::new(next)) }, order, way)
    }

    /// Becomes a page table whose lock the caller has if the word says so.
    #[inline]
    pub(crate) fn set_table(&self, word: Word) {
        self.store(word.0);
    }

    /// A table's word; the caller holds the lock that covers it.
    #[inline(always)]
    pub(crate) fn table(&self) -> Word {
        Word(self.load())
    }

    /// Takes the lock of a table; nothing if the frame is no table any more.
    #[inline(always)]
    pub(crate) fn lock(&self) -> Option<Word> {
        let mut word = self.load();
        loop {
            if word & TAG != TABLE {
                return None;
            }
            if word & LOCKED == 0 {
                // ORDER: Acquire pairs with Release in `unlock`: the entries are as the last holder left them. Relaxed on failure: a guess.
                match self.0.compare_exchange_weak(word, word | LOCKED, Ordering::Acquire, Ordering::Relaxed)
                {
                    Ok(_) => return Some(Word(word | LOCKED)),
                    Err(now) => word = now,
                }
            } else {
                percpu::sync::hint::spin_loop();
                word = self.load();
            }
        }
    }

    /// Leaves the lock, with the word as it is now.
    #[inline(always)]
    pub(crate) fn unlock(&self, word: Word) {
        // ORDER: Release pairs with Acquire in `lock`.
        self.0.store(word.0 & !LOCKED, Ordering::Release);
    }
}

impl Default for FrameInfo {
    fn default() -> Self {
        Self::new()
    }
}

/// A page table's word: its lock, how many of its entries are not empty, and the reservation of a table of 4 KiB pages: the block of 2 MiB
/// whose frames it shows in order, and how many of them it shows already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Word(u64);

impl Word {
    /// A table with so many entries in use, and no reservation.
    #[inline(always)]
    pub(crate) const fn new(count: usize) -> Self {
        Self((count as u64) << COUNT_SHIFT | TABLE)
    }

    /// The same, locked.
    pub(crate) const fn locked(count: usize) -> Self {
        Self(Self::new(count).0 | LOCKED)
    }

    /// Entries that are not empty.
    #[inline(always)]
    pub(crate) const fn count(self) -> usize {
        (self.0 >> COUNT_SHIFT & COUNT) as usize
    }

    /// With so many more entries in use, or fewer.
    #[inline(always)]
    pub(crate) const fn add(self, delta: isize) -> Self {
        Self(self.0.wrapping_add_signed((delta as i64) << COUNT_SHIFT))
    }

    /// The block whose frames the table shows in order.
    #[inline(always)]
    pub(crate) const fn reservation(self) -> Option<FrameId> {
        match self.0 >> RESERVED_SHIFT {
            0 => None,
            chunk => Some(FrameId::new((chunk as usize) << Order::HUGE.get())),
        }
    }

    /// With a block of which nothing is shown yet.
    pub(crate) const fn with_reservation(self, block: FrameId) -> Self {
        Self(self.without_reservation().0 | ((block.number() >> Order::HUGE.get()) as u64) << RESERVED_SHIFT)
    }

    /// Without a block.
    pub(crate) const fn without_reservation(self) -> Self {
        Self(self.0 & ((1 << POPULATED_SHIFT) - 1))
    }

    /// How many frames of the reservation are shown.
    #[inline(always)]
    pub(crate) const fn populated(self) -> usize {
        (self.0 >> POPULATED_SHIFT & COUNT) as usize
    }

    /// With one more frame shown.
    #[inline(always)]
    pub(crate) const fn populate(self) -> Self {
        Self(self.0 + (1 << POPULATED_SHIFT))
    }
}

const _: () = assert!(POPULATED_SHIFT - COUNT_SHIFT == 10 && RESERVED_SHIFT - POPULATED_SHIFT == 10);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{FrameInfo, Use, Way, Word};
    use crate::id::{FrameId, Order};
    use crate::virt::PageId;

    #[test]
    fn words_say_what_was_put_in() {
        let info = FrameInfo::new();
        assert_eq!(info.usage(), Use::Unknown);
        info.set_private(0x1f_ffff, PageId::new((1 << 35) - 1));
        assert_eq!(info.usage(), Use::Private { space: 0x1f_ffff, page: PageId::new((1 << 35) - 1) });
        info.share();
        info.share();
        assert_eq!(info.usage(), Use::Counted(3));
        assert!(!info.unshare() && !info.is_sole());
        assert!(!info.unshare() && info.is_sole() && info.unshare());
        info.set_stale(Some(FrameId::new((1 << 40) - 1)), Order::HUGE, Way::Later);
        assert_eq!(info.stale(), (Some(FrameId::new((1 << 40) - 1)), Order::HUGE, Way::Later));
        assert_eq!(info.lock(), None);
        info.set_stale(None, Order::FRAME, Way::Now);
        assert_eq!(info.stale(), (None, Order::FRAME, Way::Now));
    }

    #[test]
    fn table_words_keep_their_parts_apart() {
        let block = FrameId::new(0x7_ffff_fe00);
        let mut word = Word::new(512).with_reservation(block);
        for shown in 0..512 {
            assert_eq!((word.populated(), word.count(), word.reservation()), (shown, 512, Some(block)));
            word = word.populate();
        }
        assert_eq!(word.populated(), 512);
        assert_eq!(word.add(-512).count(), 0);
        assert_eq!(word.without_reservation(), Word::new(512));
        let info = FrameInfo::new();
        info.set_table(word);
        let locked = info.lock().unwrap();
        info.unlock(locked.add(-1));
        assert_eq!(info.table(), word.add(-1));
    }
}
