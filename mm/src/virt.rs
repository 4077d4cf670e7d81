//! Virtual page numbers and ranges of them, and what may be asked of the user half of the address space.

use core::fmt;

use crate::id::FRAME_BYTES;

/// Bytes of the smallest page.
pub const PAGE_BYTES: usize = FRAME_BYTES;

/// Pages of the user half: addresses below 2^47 (Intel SDM volume 1, §3.3.7.1: canonical addressing with four levels).
pub const USER_PAGES: usize = 1 << 35;

/// The size of a page, by the level of the table whose entry maps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum PageSize {
    /// 4 KiB.
    Small,
    /// 2 MiB.
    Huge,
    /// 1 GiB.
    Giant,
}

impl PageSize {
    /// How many 4 KiB pages.
    #[must_use]
    #[inline(always)]
    pub const fn pages(self) -> usize {
        match self {
            Self::Small => 1,
            Self::Huge => 1 << 9,
            Self::Giant => 1 << 18,
        }
    }
}

/// A virtual page number: address / 4096, without its sign extension. Written `V0x1f`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct PageId(usize);

impl PageId {
    /// The page with this number.
    #[must_use]
    #[inline(always)]
    pub const fn new(number: usize) -> Self {
        Self(number)
    }

    /// The page that holds this address of the user half.
    #[must_use]
    #[inline(always)]
    pub const fn containing(address: usize) -> Self {
        Self(address / PAGE_BYTES)
    }

    /// The page number.
    #[must_use]
    #[inline(always)]
    pub const fn number(self) -> usize {
        self.0
    }

    /// The address of the page's first byte.
    #[must_use]
    #[inline(always)]
    pub const fn address(self) -> usize {
        self.0 * PAGE_BYTES
    }
}

impl fmt::Debug for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "V{:#x}", self.0)
    }
}

/// Consecutive pages of the user half, the end not included; never empty. Written `V0x0..V0x10`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRange {
    start: usize,
    end: usize,
}

impl PageRange {
    /// `count` pages from `start`; nothing if there is none, or if one of them is not in the user half.
    #[must_use]
    #[inline]
    pub const fn new(start: PageId, count: usize) -> Option<Self> {
        match start.0.checked_add(count) {
            Some(end) if count != 0 && end <= USER_PAGES => Some(Self { start: start.0, end }),
            _ => None,
        }
    }

    /// The pages of `bytes` bytes from `address`, both multiples of the page size; nothing if they are not, if there are none, or if one
    /// of them is not in the user half: the range overflows, is not canonical, or is the kernel's.
    #[must_use]
    #[inline]
    pub const fn of_bytes(address: usize, bytes: usize) -> Option<Self> {
        if !(address | bytes).is_multiple_of(PAGE_BYTES) {
            return None;
        }
        Self::new(PageId::containing(address), bytes / PAGE_BYTES)
    }

    /// The first page.
    #[must_use]
    #[inline(always)]
    pub const fn start(self) -> PageId {
        PageId(self.start)
    }

    /// The page after the last.
    #[must_use]
    #[inline(always)]
    pub const fn end(self) -> PageId {
        PageId(self.end)
    }

    /// How many pages.
    #[must_use]
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> usize {
        self.end - self.start
    }

    /// Whether the page is inside.
    #[must_use]
    #[inline]
    pub const fn contains(self, page: PageId) -> bool {
        self.start <= page.0 && page.0 < self.end
    }

    /// The pages that both ranges have.
    #[must_use]
    #[inline]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }
}

impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", self.start(), self.end())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{PageId, PageRange, USER_PAGES};
    use std::format;

    #[test]
    fn bad_ranges_are_refused() {
        let top = USER_PAGES * 4096;
        assert_eq!(PageRange::of_bytes(0, 0), None, "empty");
        assert_eq!(PageRange::of_bytes(1, 4096), None, "misaligned start");
        assert_eq!(PageRange::of_bytes(4096, 1), None, "misaligned length");
        assert_eq!(PageRange::of_bytes(top, 4096), None, "not canonical");
        assert_eq!(PageRange::of_bytes(top - 4096, 8192), None, "runs out of the half");
        assert_eq!(PageRange::of_bytes(usize::MAX - 4095, 4096), None, "the kernel's half");
        assert_eq!(PageRange::of_bytes(4096, usize::MAX - 4095), None, "overflows");
        assert!(PageRange::of_bytes(top - 4096, 4096).is_some());
    }

    #[test]
    fn ranges_meet() {
        let range = |start, count| PageRange::new(PageId::new(start), count).unwrap();
        assert_eq!(range(2, 4).intersection(range(4, 9)), Some(range(4, 2)));
        assert_eq!(range(2, 2).intersection(range(4, 9)), None);
        assert!(range(2, 2).contains(PageId::new(3)) && !range(2, 2).contains(PageId::new(4)));
        assert_eq!(format!("{:?}", range(1, 2)), "V0x1..V0x3");
    }
}
