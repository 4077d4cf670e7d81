//! Mapping: a region is made by writing what its pages are into the entries that cover it.

use super::entry::{ENTRIES, Entry, FRAMES, Hold, Level, size, span};
use super::memory::{Memory, Pool};
use super::object::Object;
use super::pending::Halt;
use super::record::Terms;
use super::unmap::Unmap;
use super::walk::{Act, Leaves, Stop, Visit};
use super::{Cx, Kind, Progress, Protection, Space, SpaceError};
use crate::frames::Policy;
use crate::id::FrameId;
use crate::virt::{PageId, PageRange, PageSize};
use percpu::sync::atomic::{AtomicU64, Ordering};

/// What a new region shows.
#[derive(Debug)]
pub enum Backing<'o, M> {
    /// Zeroed pages of its own.
    Anonymous,
    /// An object's pages, from this one on.
    Shared(&'o Object<M>, usize),
    /// The same, but a page that is written is copied first.
    Copy(&'o Object<M>, usize),
    /// Physical memory from this frame on, uncached. Nobody gives it back, and the allocator must not have it.
    Device(FrameId),
    /// Pages that somebody else supplies, who is told this word.
    Pager(u64),
    /// Nothing; an access is reported as a hit.
    Guard,
    /// Nothing; the range is taken.
    Reserved,
}

/// When pages of a shared object are entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// Each when it is first touched.
    Touched,
    /// All at once.
    Now,
}

/// A new region.
#[derive(Debug)]
pub struct Mapping<'o, M> {
    /// What it shows.
    pub backing: Backing<'o, M>,
    /// What may be done with it.
    pub protection: Protection,
    /// Where its own frames shall lie.
    pub policy: Policy,
    /// When pages of an object are entered. Anonymous pages always wait for the first touch; a device's are entered at once.
    pub when: When,
}

impl<'o, M: Memory> Mapping<'o, M> {
    /// A region near whoever touches it first.
    #[must_use]
    pub const fn new(backing: Backing<'o, M>, protection: Protection) -> Self {
        Self { backing, protection, policy: Policy::Local, when: When::Touched }
    }

    /// Anonymous memory, readable and writable.
    #[must_use]
    pub const fn anonymous() -> Self {
        Self::new(Backing::Anonymous, Protection::ReadWrite)
    }

    /// The same region, entered at once.
    #[must_use]
    pub fn now(self) -> Self {
        Self { when: When::Now, ..self }
    }

    /// The same region with its frames elsewhere.
    #[must_use]
    pub fn placed(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    const fn kind(&self) -> Kind {
        match self.backing {
            Backing::Anonymous => Kind::Anonymous,
            Backing::Shared(..) => Kind::Shared,
            Backing::Copy(..) => Kind::Copy,
            Backing::Device(_) => Kind::Device,
            Backing::Pager(_) => Kind::Pager,
            Backing::Guard => Kind::Guard,
            Backing::Reserved => Kind::Reserved,
        }
    }

    /// What goes into a record, if the region needs one.
    #[inline]
    fn terms(&self, range: PageRange) -> Result<Option<Terms>, SpaceError> {
        let plain =
            Terms { kind: self.kind(), policy: self.policy, base: range.start(), offset: 0, object: None };
        match &self.backing {
            Backing::Shared(object, offset) | Backing::Copy(object, offset) => {
                let end = offset.checked_add(range.len()).ok_or(SpaceError::BeyondObject)?;
                if end > object.pages() {
                    return Err(SpaceError::BeyondObject);
                }
                Ok(Some(Terms { offset: *offset as u64, object: Some(object.frame()), ..plain }))
            }
            Backing::Device(frame) => match frame.number().checked_add(range.len()) {
                Some(end) if end <= FRAMES => Ok(None),
                _ => Err(SpaceError::BeyondObject),
            },
            Backing::Pager(cookie) => Ok(Some(Terms { offset: *cookie, ..plain })),
            Backing::Anonymous if self.policy != Policy::Local => Ok(Some(plain)),
            _ => Ok(None),
        }
    }
}

/// Where the entries of a new region come from.
enum Source<'o, M> {
    /// The same for all.
    Lazy,
    /// Consecutive frames; the frame of the region's first page.
    Frames(FrameId),
    /// An object's blocks; the object's page that the region's first shows.
    Object(&'o Object<M>, usize),
}

struct Map<'o, M> {
    source: Source<'o, M>,
    start: PageId,
    /// The entry without frame: a leaf of level 1, or the lazy entry.
    entry: Entry,
    /// The lazy entry of higher levels.
    large: Entry,
    giant: bool,
    /// Up to here the range is mapped.
    done: PageId,
}

impl<M: Memory> Space<M> {
    /// Makes a region in a range where nothing is mapped. Large ones are made in one go: what is entered at once is entered here.
    ///
    /// # Errors
    /// [`SpaceError::Occupied`], [`SpaceError::Shortage`], [`SpaceError::TooManyMappings`], [`SpaceError::BeyondObject`]. What was made until
    /// then is unmapped again.
    #[inline]
    pub fn map<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        range: PageRange,
        mapping: &Mapping<'_, M>,
    ) -> Result<(), SpaceError> {
        let record = match mapping.terms(range)? {
            None => 0,
            Some(terms) => {
                self.records.add((&self.purse, cx.pool), &terms, self.tlb.id().raw(), range.len())?
            }
        };
        let map = self.plan(range, mapping, record);
        let one = match &map.source {
            _ if range.len() != 1 => Ok(None),
            Source::Lazy => Ok(Some(map.entry)),
            Source::Frames(first) => Ok(Some(at(map.entry, first.number()))),
            // Without a frame there is nothing to enter: the long way says why.
            Source::Object(object, first) => {
                object.page(cx.pool, *first).map(|frame| frame.map(|frame| at(map.entry, frame.number())))
            }
        };
        match one {
            Ok(Some(entry)) if self.map_one(range.start(), entry) => Ok(()),
            _ => self.map_many(cx, range, map, record),
        }
    }

    #[inline(never)]
    fn map_many<P: Pool>(
        &self,
        cx: &mut Cx<'_, P>,
        range: PageRange,
        mut map: Map<'_, M>,
        record: usize,
    ) -> Result<(), SpaceError> {
        let result = loop {
            let Some(rest) = PageRange::new(map.done, range.end().number() - map.done.number()) else {
                break Ok(());
            };
            cx.steps = super::STEP;
            match self.walk(cx, rest, &mut map) {
                Ok(Progress::Done(())) => break Ok(()),
                Ok(Progress::More(at)) => map.done = at,
                Err(error) => break Err(error),
            }
        };
        if result.is_err() {
            self.unmake(cx, range, map.done, record);
        }
        result
    }

    #[inline(always)]
    fn plan<'o>(&self, range: PageRange, mapping: &Mapping<'o, M>, record: usize) -> Map<'o, M> {
        let bits = self.format.bits(mapping.protection);
        let lazy = Entry::lazy(mapping.kind(), bits, record);
        let leaf = |hold| Entry::leaf(1, FrameId::new(0), hold, bits, record);
        let (source, entry) = match mapping.backing {
            Backing::Device(frame) => (Source::Frames(frame), leaf(Hold::Borrowed).uncached()),
            Backing::Shared(object, offset) if mapping.when == When::Now => {
                (Source::Object(object, offset), leaf(Hold::Borrowed))
            }
            Backing::Copy(object, offset) if mapping.when == When::Now => {
                (Source::Object(object, offset), leaf(Hold::BorrowedCopy))
            }
            _ => (Source::Lazy, lazy),
        };
        let large = if matches!(mapping.backing, Backing::Anonymous) { lazy.roomy() } else { lazy };
        let giant = self.format.has(3);
        Map { source, start: range.start(), entry, large, giant, done: range.start() }
    }

    /// Takes back what a mapping that failed has made: everything up to `done`. Nobody has been told of it, but a core may have touched it.
    #[cold]
    fn unmake<P: Pool>(&self, cx: &mut Cx<'_, P>, range: PageRange, done: PageId, record: usize) {
        let made = done.number() - range.start().number();
        let rest = range.len() - made;
        // First, while there is room for it: another core may have put regions with other records where this one was.
        if record != 0 && rest != 0 {
            let noted = cx.pending.subtract(record, rest);
            debug_assert!(noted, "the record of what was made is the first that is noted");
        }
        if let Some(made) = PageRange::new(range.start(), made) {
            cx.steps = usize::MAX;
            // Nothing that was just made has to be split. What meets other cores' regions may stop half way, and stays mapped.
            _ = self.walk(cx, made, &mut Unmap::new(self));
        }
    }
}

impl<M: Memory> Map<'_, M> {
    #[inline(always)]
    fn offset(&self, page: PageId) -> usize {
        page.number() - self.start.number()
    }
}

/// A frame's bits in an entry.
#[inline(always)]
const fn at(entry: Entry, frame: usize) -> Entry {
    Entry::from_raw(entry.raw() | FrameId::new(frame).address())
}

impl<M: Memory, P: Pool> Visit<M, P> for Map<'_, M> {
    const CREATES: bool = true;

    #[inline]
    fn block(&mut self, cx: &mut Cx<'_, P>, page: PageId, level: Level, old: Entry) -> Result<Act, Stop> {
        if !old.is_empty() {
            return Err(Halt::Error(SpaceError::Occupied));
        }
        let offset = self.offset(page);
        let possible = level == 2 || self.giant;
        let frame = match &self.source {
            Source::Lazy => {
                self.done = PageId::new(page.number() + span(level));
                return Ok(Act::Set(self.large));
            }
            Source::Frames(first) => Some(first.number() + offset),
            Source::Object(object, first) if object.granule().pages() >= span(level) && possible => {
                let place = object.page(cx.pool, first + offset).map_err(|s| Halt::Error(s.into()))?;
                place.map(FrameId::number)
            }
            Source::Object(..) => None,
        };
        Ok(match frame {
            Some(frame) if possible && frame % span(level) == 0 && !self.entry.is_copy() => {
                self.done = PageId::new(page.number() + span(level));
                Act::Set(at(self.entry, frame).enlarge())
            }
            _ => Act::Split,
        })
    }

    #[inline]
    fn part(&mut self, _: PageId, _: usize, old: Entry) -> Result<Act, Stop> {
        if old.is_empty() { Ok(Act::Split) } else { Err(Halt::Error(SpaceError::Occupied)) }
    }

    #[inline]
    fn leaves(&mut self, cx: &mut Cx<'_, P>, leaves: &mut Leaves<M>) -> Result<(), Stop> {
        let offset = self.offset(leaves.page);
        let entry = self.entry;
        let result = match &self.source {
            Source::Lazy => put(leaves, core::iter::repeat(entry)),
            Source::Frames(first) => put(leaves, (first.number() + offset..).map(|frame| at(entry, frame))),
            Source::Object(object, first) if object.granule() == PageSize::Small => {
                put_pages(cx.pool, leaves, object, first + offset, entry)
            }
            Source::Object(object, first) => put_parts(cx.pool, leaves, object, first + offset, entry),
        };
        if let Err(error) = result {
            // What was entered and emptied again may be cached by now.
            cx.pending.invalidate(leaves.page, leaves.len(), PageSize::Small);
            return Err(Halt::Error(error));
        }
        self.done = PageId::new(leaves.page.number() + leaves.len());
        Ok(())
    }
}

/// Fills entries that must be empty; if one is not, empties again those before it.
#[inline(always)]
fn put<M: Memory>(leaves: &mut Leaves<M>, news: impl Iterator<Item = Entry>) -> Result<(), SpaceError> {
    let mut made = 0;
    for (place, new) in leaves.entries().iter().zip(news) {
        // ORDER: Relaxed: entries of this table change under the unit's lock, which we have.
        if place.load(Ordering::Relaxed) != 0 {
            clear(leaves, made);
            return Err(SpaceError::Occupied);
        }
        // ORDER: Release pairs with other cores' walks: the page is complete before it is led to.
        place.store(new.raw(), Ordering::Release);
        made += 1;
    }
    leaves.word = leaves.word.add(made);
    Ok(())
}

/// Empties the first entries again.
#[cold]
fn clear<M: Memory>(leaves: &mut Leaves<M>, count: isize) {
    for place in leaves.entries().iter().take(count.unsigned_abs()) {
        // ORDER: Relaxed: as in `put`; the invalidation follows.
        place.store(0, Ordering::Relaxed);
    }
}

/// Enters pages of an object made of 4 KiB blocks, a run of its directory at a time.
#[inline(always)]
fn put_pages<M: Memory, P: Pool>(
    pool: &mut P,
    leaves: &mut Leaves<M>,
    object: &Object<M>,
    first: usize,
    entry: Entry,
) -> Result<(), SpaceError> {
    let mut made = 0;
    while made < leaves.len() {
        let run = match object.words(pool, first + made) {
            Ok(words) => put_run(pool, leaves, (object, first), words, (made, entry)),
            Err(shortage) => Err((shortage.into(), 0)),
        };
        match run {
            Ok(count) => made += count,
            Err((error, count)) => {
                clear(leaves, (made + count) as isize);
                return Err(error);
            }
        }
    }
    leaves.word = leaves.word.add(made as isize);
    Ok(())
}

#[inline(always)]
fn put_run<M: Memory, P: Pool>(
    pool: &mut P,
    leaves: &Leaves<M>,
    (object, first): (&Object<M>, usize),
    words: &[AtomicU64],
    (made, entry): (usize, Entry),
) -> Result<usize, (SpaceError, usize)> {
    let mut count = 0;
    for (place, word) in leaves.entries().iter().skip(made).zip(words) {
        // ORDER: Acquire pairs with Release in `Object::publish`: the frame is zeroed.
        let mut frame = word.load(Ordering::Acquire) as usize;
        if frame == 0 {
            match object.page(pool, first + made + count) {
                Ok(Some(found)) => frame = found.number(),
                Ok(None) => return Err((SpaceError::BeyondObject, count)),
                Err(shortage) => return Err((shortage.into(), count)),
            }
        }
        // ORDER: Relaxed: as in `put`.
        if place.load(Ordering::Relaxed) != 0 {
            return Err((SpaceError::Occupied, count));
        }
        // ORDER: Release: as in `put`.
        place.store(at(entry, frame).raw(), Ordering::Release);
        count += 1;
    }
    Ok(count)
}

/// Enters 4 KiB parts of an object's larger blocks.
fn put_parts<M: Memory, P: Pool>(
    pool: &mut P,
    leaves: &mut Leaves<M>,
    object: &Object<M>,
    first: usize,
    entry: Entry,
) -> Result<(), SpaceError> {
    for made in 0..leaves.len() {
        let frame = match object.page(pool, first + made) {
            Ok(Some(frame)) => frame.number(),
            Ok(None) => return Err(undo(leaves, made, SpaceError::BeyondObject)),
            Err(shortage) => return Err(undo(leaves, made, shortage.into())),
        };
        let old = leaves.table.get(leaves.from + made);
        if !old.is_empty() {
            return Err(undo(leaves, made, SpaceError::Occupied));
        }
        leaves.table.set(leaves.from + made, at(entry, frame));
    }
    leaves.word = leaves.word.add(leaves.len() as isize);
    Ok(())
}

#[cold]
fn undo<M: Memory>(leaves: &mut Leaves<M>, made: usize, error: SpaceError) -> SpaceError {
    clear(leaves, made as isize);
    error
}

const _: () = assert!(ENTRIES == size(2).pages());
