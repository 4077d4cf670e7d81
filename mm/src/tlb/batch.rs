//! What one shootdown takes back: a few ranges of pages, or simply everything.
//!
//! Plain data of little more than one cache line on the initiator's stack, which the targets read.

use ::core::fmt;
use ::core::mem::MaybeUninit;

use crate::virt::{PageId, PageRange, PageSize};

/// Pages up to which they are invalidated one by one; more flush the space.
pub const FLUSH_THRESHOLD: usize = 32;

/// Ranges that do not touch each other, up to which they are kept apart; more flush the space.
pub const RANGES: usize = 8;

/// Up to [`FLUSH_THRESHOLD`] neighbouring pages of one size, in one word: the number of the first in units of that size (bits 63:16), how
/// many (15:8), and the size (7:0).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
struct Span(u64);

const COUNT_SHIFT: u32 = 8;
const FIRST_SHIFT: u32 = 16;
const FIELD: u64 = 0xff;

const _: () = assert!(FLUSH_THRESHOLD <= FIELD as usize);

impl Span {
    const fn new(first: usize, end: usize, size: PageSize) -> Self {
        let count = (end - first) as u64;
        Self((first as u64) << FIRST_SHIFT | count << COUNT_SHIFT | size as u64)
    }

    /// The first page's number, in units of the size.
    #[inline(always)]
    const fn first(self) -> usize {
        (self.0 >> FIRST_SHIFT) as usize
    }

    #[inline(always)]
    const fn count(self) -> usize {
        (self.0 >> COUNT_SHIFT & FIELD) as usize
    }

    #[inline(always)]
    const fn end(self) -> usize {
        self.first() + self.count()
    }

    #[inline(always)]
    const fn size(self) -> PageSize {
        match self.0 & FIELD {
            0 => PageSize::Small,
            1 => PageSize::Huge,
            _ => PageSize::Giant,
        }
    }

    /// Whether pages `first..end` of a size lie beside or across the span, so that both together are one.
    const fn touches(self, first: usize, end: usize, size: PageSize) -> bool {
        self.size() as u8 == size as u8 && first <= self.end() && self.first() <= end
    }
}

const _: () =
    assert!(PageSize::Small as u64 == 0 && PageSize::Huge as u64 == 1 && PageSize::Giant as u64 == 2);

/// Changes of one space that its cores are told of together.
///
/// Only what takes rights back belongs here, and after the tables say so.
#[derive(Clone, Copy)]
pub struct Batch {
    /// The first `len` are there: an empty batch, the common one, costs nothing to make.
    spans: [MaybeUninit<Span>; RANGES],
    len: usize,
    /// Pages in all spans.
    pages: usize,
    whole: bool,
    tables: bool,
}

impl Batch {
    /// Nothing.
    #[must_use]
    #[inline(always)]
    pub const fn new() -> Self {
        Self { spans: [MaybeUninit::uninit(); RANGES], len: 0, pages: 0, whole: false, tables: false }
    }

    /// Adds pages that were mapped with pages of `size`. What is too much to list becomes "everything".
    #[inline(always)]
    pub fn add(&mut self, range: PageRange, size: PageSize) {
        self.add_pages(range.start(), range.len(), size);
    }

    /// As `add`, for pages that are known to be of the user half.
    #[inline(always)]
    pub(crate) fn add_pages(&mut self, start: PageId, pages: usize, size: PageSize) {
        debug_assert!(PageRange::new(start, pages).is_some(), "X9: only the user half is taken back");
        let (first, end) = (start.number() / size.pages(), (start.number() + pages).div_ceil(size.pages()));
        if self.whole || end - first > FLUSH_THRESHOLD {
            self.whole = true;
            return;
        }
        if self.len == 0 {
            self.spans[0].write(Span::new(first, end, size));
            (self.len, self.pages) = (1, end - first);
            return;
        }
        self.add_more(first, end, size);
    }

    /// As `add`, to spans that are there already.
    fn add_more(&mut self, first: usize, end: usize, size: PageSize) {
        let known = self.spans.get_mut(..self.len).unwrap_or_default();
        // SAFETY: the first `len` have been written.
        let known = unsafe { known.assume_init_mut() };
        if let Some(span) = known.iter_mut().find(|span| span.touches(first, end, size)) {
            let (first, end) = (first.min(span.first()), end.max(span.end()));
            self.pages += end - first - span.count();
            // Not stored if it does not fit: the threshold below is smaller.
            *span = Span::new(first, end.min(first + FLUSH_THRESHOLD), size);
        } else if let Some(free) = self.spans.get_mut(self.len) {
            free.write(Span::new(first, end, size));
            self.len += 1;
            self.pages += end - first;
        } else {
            self.whole = true;
        }
        self.whole |= self.pages > FLUSH_THRESHOLD;
    }

    /// Takes everything out.
    #[inline(always)]
    pub fn clear(&mut self) {
        (self.len, self.pages, self.whole, self.tables) = (0, 0, false, false);
    }

    /// Adds every page of the space.
    pub fn add_all(&mut self) {
        self.whole = true;
    }

    /// Tells that frames of page tables are taken out as well, to be used for something else. Then cores that idle on the space are asked,
    /// too: a processor walks tables ahead of need, and writes accessed bits while it does.
    pub fn tables_freed(&mut self) {
        self.tables = true;
    }

    /// Whether there is nothing to do.
    #[must_use]
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.len == 0 && !self.whole && !self.tables
    }

    /// Whether page tables are given back.
    #[must_use]
    #[inline(always)]
    pub const fn frees_tables(&self) -> bool {
        self.tables
    }

    /// Whether the whole space has to be flushed.
    #[must_use]
    #[inline(always)]
    pub const fn is_whole(&self) -> bool {
        // Without a page to invalidate, nothing else drops what is cached of the upper levels.
        self.whole || self.len == 0
    }

    /// How many pages are to be invalidated, if not the whole space.
    #[must_use]
    #[inline(always)]
    pub const fn pages(&self) -> usize {
        self.pages
    }

    #[inline(always)]
    fn spans(&self) -> &[Span] {
        let used = self.spans.get(..self.len).unwrap_or_default();
        // SAFETY: the first `len` have been written.
        unsafe { used.assume_init_ref() }
    }

    /// Whether a core that does what the batch says drops a translation of this page.
    #[must_use]
    pub fn covers(&self, page: PageId) -> bool {
        let covers = |span: &Span| {
            let at = page.number() / span.size().pages();
            (span.first()..span.end()).contains(&at)
        };
        !self.is_empty() && (self.is_whole() || self.spans().iter().any(covers))
    }

    /// Calls `f` for each page to be invalidated, if not the whole space.
    #[inline(always)]
    pub(super) fn each_page(&self, mut f: impl FnMut(PageId)) {
        for span in self.spans() {
            let step = span.size().pages();
            let first = span.first() * step;
            for i in 0..span.count() {
                f(PageId::new(first + i * step));
            }
        }
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        if self.is_whole() {
            list.entry(&"everything");
        } else {
            self.each_page(|page| {
                list.entry(&page);
            });
        }
        list.finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Batch, FLUSH_THRESHOLD, RANGES};
    use crate::virt::{PageId, PageRange, PageSize, USER_PAGES};
    use proptest::collection::vec;
    use proptest::{prop_assert, prop_assert_eq, proptest};
    use std::collections::BTreeSet;
    use std::vec::Vec;

    fn range(start: usize, count: usize) -> PageRange {
        PageRange::new(PageId::new(start), count).expect("pages of the user half")
    }

    fn pages(batch: &Batch) -> Vec<usize> {
        let mut pages = Vec::new();
        batch.each_page(|page| pages.push(page.number()));
        pages
    }

    #[test]
    fn neighbours_become_one() {
        let mut batch = Batch::new();
        for start in [20, 22, 21, 18, 19] {
            batch.add(range(start, 1), PageSize::Small);
        }
        assert_eq!((batch.len, batch.pages()), (3, 5));
        assert!(!batch.is_whole() && !batch.is_empty());
        assert_eq!(pages(&batch).into_iter().collect::<BTreeSet<_>>(), (18..23).collect());
    }

    #[test]
    fn sizes_are_kept_apart() {
        let mut batch = Batch::new();
        batch.add(range(512, 1024), PageSize::Huge);
        batch.add(range(511, 1), PageSize::Small);
        batch.add(range(USER_PAGES - (1 << 18), 1 << 18), PageSize::Giant);
        assert_eq!(pages(&batch), [512, 1024, 511, USER_PAGES - (1 << 18)]);
    }

    #[test]
    fn too_much_is_everything() {
        let mut batch = Batch::new();
        batch.add(range(7, FLUSH_THRESHOLD), PageSize::Small);
        assert!(!batch.is_whole());
        batch.add(range(7 + FLUSH_THRESHOLD, 1), PageSize::Small);
        assert!(batch.is_whole(), "a page too many");
        let mut batch = Batch::new();
        for start in 0..=RANGES {
            assert!(start == 0 || !batch.is_whole());
            batch.add(range(start * 2, 1), PageSize::Small);
        }
        assert!(batch.is_whole(), "a range too many");
        let mut batch = Batch::new();
        batch.add(range(0, USER_PAGES), PageSize::Small);
        assert!(batch.is_whole());
    }

    #[test]
    fn tables_alone_flush() {
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.tables_freed();
        assert!(!batch.is_empty() && batch.is_whole() && batch.frees_tables());
        batch.add(range(1, 1), PageSize::Small);
        assert!(!batch.is_whole() && batch.frees_tables());
    }

    proptest! {
        #[test]
        fn nothing_is_lost(ranges in vec((0usize..60, 1usize..6), 0..12)) {
            let mut batch = Batch::new();
            let mut model = BTreeSet::new();
            for (start, count) in ranges {
                batch.add(range(start, count), PageSize::Small);
                model.extend(start..start + count);
            }
            prop_assert_eq!(batch.is_empty(), model.is_empty());
            if !batch.is_whole() {
                prop_assert_eq!(pages(&batch).len(), batch.pages());
                prop_assert_eq!(pages(&batch).into_iter().collect::<BTreeSet<_>>(), model);
                prop_assert!(batch.pages() <= FLUSH_THRESHOLD);
            }
        }
    }
}
