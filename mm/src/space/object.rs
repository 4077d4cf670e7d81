//! Memory objects: frames that several regions can show, in one space or in many.
//!
//! The object's own frame holds its header and the directory; below that are frames of 512 words, as deep as the size needs. A frame is
//! put in when it is first needed, zeroed, by one exchange, and stays until the object goes: who shows the object reads the directory
//! without a lock. Attachments, the records of the spaces that show it, are in a list behind the object's lock: with it, a frame's word
//! leads to every page that shows the frame.
//!
//! * O1: the object lives as long as its count of references: one for each handle and each attachment.
//! * O3: `populated` is the number of pages for which there are frames, once the last reference is gone; before that it may lag behind.

use super::Progress;
use super::info::Use;
use super::memory::{self, Frames, Memory, Pool, Shortage};
use super::record::Record;
use crate::bank::{Payer, Purse};
use crate::frames::Policy;
use crate::id::{FRAME_BYTES, FrameId, Order};
use crate::virt::PageSize;
use core::ptr::{self, NonNull};
use percpu::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Words of a directory frame.
const FAN: usize = 512;
/// Words of the header.
const HEAD: usize = 8;
/// Directory words in the object's own frame.
const SLOTS: usize = FAN - HEAD;
/// Bits of a block's number for each level of directory frames.
const SHIFT: u32 = FAN.ilog2();
/// Levels of directory frames that an object has at most: enough for a user half.
const MAX_DEPTH: usize = 3;
const _: () = assert!(SLOTS << (SHIFT as usize * MAX_DEPTH) >= crate::virt::USER_PAGES);
/// Blocks that go back in one step, about: up to 160 instructions each.
const AT_ONCE: usize = 96;
/// What a block that goes back counts in a step, where a word that is looked at counts one.
const GIVEN: usize = 16;
/// So few go back where the last reference goes: a core may have tens of objects to end in a row.
const FEW: usize = 8;
/// Words that are looked at together.
const LINE: usize = 8;

/// The object's own frame.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `refs` | any core | any core | AcqRel |
/// | `first`, and the links of records | who holds `locked` | the same | by the lock |
/// | `populated` | who puts a frame in | statistics, and who ends the object | Relaxed |
/// | `purse` | who puts a frame in | – | its own |
/// | `slots`, and directory frames | who puts something in, once | any core | Release / Acquire |
/// | the rest | nobody after start | any core | – |
#[repr(C, align(4096))]
pub(super) struct Header {
    refs: AtomicUsize,
    locked: AtomicBool,
    granule: PageSize,
    depth: u8,
    /// Made to take over what a space shares (`lend`): nobody has a handle.
    lending: bool,
    first: AtomicPtr<Record>,
    pages: usize,
    populated: AtomicUsize,
    /// Pays for every frame of the object.
    purse: Purse,
    slots: [AtomicU64; SLOTS],
}

const _: () = assert!(size_of::<Header>() == FRAME_BYTES);
const _: () = assert!(core::mem::offset_of!(Header, slots) == HEAD * size_of::<u64>());

/// A reference to a memory object. It is given up by [`Object::release`], since that may give frames back.
#[derive(Debug)]
#[must_use = "a reference that is dropped keeps the object for ever"]
pub struct Object<M> {
    frame: FrameId,
    memory: M,
}

/// The order of the blocks of a granule.
const fn order(granule: PageSize) -> Order {
    match granule {
        PageSize::Small => Order::FRAME,
        PageSize::Huge => Order::HUGE,
        PageSize::Giant => Order::GIANT,
    }
}

impl<M: Memory> Object<M> {
    /// An object of `pages` pages that nobody has put a frame into, rounded up to whole granules: the size of the blocks it is made of.
    /// Nobody pays for it.
    ///
    /// # Errors
    /// [`Shortage`]: no frame for the directory; also for more pages than an address space has.
    pub fn new<P: Pool>(memory: M, pool: &mut P, pages: usize, granule: PageSize) -> Result<Self, Shortage> {
        Self::paid_by(Payer::NOBODY, memory, pool, pages, granule)
    }

    /// As [`Object::new`]; its frames are paid for, whoever shows them, until the pool is told to [forget](Pool::forget) the payer.
    ///
    /// # Errors
    /// As [`Object::new`], and then the pool is not told.
    pub fn paid_by<P: Pool>(
        payer: Payer,
        memory: M,
        pool: &mut P,
        pages: usize,
        granule: PageSize,
    ) -> Result<Self, Shortage> {
        Self::make(payer, memory, pool, (pages, granule), false)
    }

    /// An object of 4 KiB blocks that takes over what a space shares. The payer is kept for it.
    pub(super) fn lending<P: Pool>(
        payer: Payer,
        memory: M,
        pool: &mut P,
        pages: usize,
    ) -> Result<Self, Shortage> {
        let payer = pool.keep(payer).ok_or(Shortage::Quota)?;
        let made = Self::make(payer, memory, pool, (pages, PageSize::Small), true);
        if made.is_err() {
            pool.forget(payer);
        }
        made
    }

    /// Whether it was made by [`Object::lending`].
    pub(super) fn is_lending(&self) -> bool {
        self.header().lending
    }

    /// Pays for what the object takes over.
    pub(super) fn purse(&self) -> &Purse {
        &self.header().purse
    }

    fn make<P: Pool>(
        payer: Payer,
        memory: M,
        pool: &mut P,
        (pages, granule): (usize, PageSize),
        lending: bool,
    ) -> Result<Self, Shortage> {
        if pages > crate::virt::USER_PAGES {
            return Err(Shortage::Memory);
        }
        let pages = pages.max(1).next_multiple_of(granule.pages());
        let mut depth = 0;
        let mut reach = SLOTS * granule.pages();
        while reach < pages {
            reach = reach.saturating_mul(FAN);
            depth += 1;
        }
        let purse = Purse::new(payer);
        let frame = match memory::take_ahead(&purse, pool, Order::FRAME, Policy::Local, 1) {
            Ok(frame) => frame,
            Err(shortage) => {
                purse.close(&mut Frames(pool));
                return Err(shortage);
            }
        };
        let header = Header {
            refs: AtomicUsize::new(1),
            locked: AtomicBool::new(false),
            granule,
            depth,
            lending,
            first: AtomicPtr::new(ptr::null_mut()),
            pages,
            populated: AtomicUsize::new(0),
            purse,
            slots: [const { AtomicU64::new(0) }; SLOTS],
        };
        // SAFETY: the frame was just taken, so it is ours alone, and a header is a frame's size.
        unsafe { memory.at(frame).cast::<Header>().write(header) };
        memory.info(frame).set_object(usize::MAX >> 8);
        Ok(Self { frame, memory })
    }

    /// # Safety
    /// 1. `frame` is the own frame of an object of which the caller holds a reference that this value takes over (O1).
    pub(super) const unsafe fn from_frame(frame: FrameId, memory: M) -> Self {
        Self { frame, memory }
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: O1: our reference keeps the object, whose own frame holds its header; all of it is atomic or constant.
        unsafe { self.memory.at(self.frame).cast().as_ref() }
    }

    /// The object's name in records: its own frame.
    pub(super) const fn frame(&self) -> FrameId {
        self.frame
    }

    /// Pages, whether there are frames for them or not.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.header().pages
    }

    /// The size of the blocks it is made of.
    #[must_use]
    pub fn granule(&self) -> PageSize {
        self.header().granule
    }

    /// Pages for which there are frames.
    #[must_use]
    pub fn populated(&self) -> usize {
        // ORDER: Relaxed: a statistic.
        self.header().populated.load(Ordering::Relaxed)
    }

    /// Another reference.
    pub fn share(&self) -> Self {
        // ORDER: Relaxed: our own reference keeps the object meanwhile; nothing is read through the count.
        self.header().refs.fetch_add(1, Ordering::Relaxed);
        Self { frame: self.frame, memory: self.memory }
    }

    /// The frame that shows a page, put in and zeroed if there was none; `None` beyond the end.
    ///
    /// # Errors
    /// [`Shortage`]; the object is as before, though it may have a directory frame more.
    #[inline]
    pub fn page<P: Pool>(&self, pool: &mut P, page: usize) -> Result<Option<FrameId>, Shortage> {
        let header = self.header();
        if page >= header.pages {
            return Ok(None);
        }
        let granule = header.granule.pages();
        let (words, index) = self.place(pool, page / granule)?;
        let place = &words[index];
        // ORDER: Acquire pairs with Release in `publish`: the frame is zeroed.
        let block = match place.load(Ordering::Acquire) {
            0 => self.fill(pool, place, page / granule)?,
            block => block,
        };
        Ok(Some(FrameId::new(block as usize + page % granule)))
    }

    /// The word of a block: the directory frame it is in, and its index there. The directory frames above it are made.
    #[inline]
    fn place<P: Pool>(&self, pool: &mut P, block: usize) -> Result<(&[AtomicU64], usize), Shortage> {
        let header = self.header();
        let mut level = u32::from(header.depth);
        let mut words: &[AtomicU64] = &header.slots;
        while level > 0 {
            let place = &words[(block >> (9 * level)) % FAN];
            // ORDER: Acquire pairs with Release in `publish`: the directory frame is zeroed.
            let node = match place.load(Ordering::Acquire) {
                0 => self.deepen(pool, place)?,
                node => node,
            };
            level -= 1;
            // SAFETY: O1: a directory frame of this object stays as long as the object; it is nothing but atomic words.
            let frame: &[AtomicU64; FAN] =
                unsafe { self.memory.at(FrameId::new(node as usize)).cast().as_ref() };
            words = frame;
        }
        Ok((words, block % FAN))
    }

    /// The words of consecutive blocks from `block` on, as far as one directory frame goes.
    pub(super) fn words<P: Pool>(&self, pool: &mut P, block: usize) -> Result<&[AtomicU64], Shortage> {
        let (words, index) = self.place(pool, block)?;
        Ok(&words[index..])
    }

    #[cold]
    fn deepen<P: Pool>(&self, pool: &mut P, place: &AtomicU64) -> Result<u64, Shortage> {
        let frame = memory::take_ahead(&self.header().purse, pool, Order::FRAME, Policy::Local, 1)?;
        self.memory.zero(frame, Order::FRAME);
        self.memory.info(frame).set_object(usize::MAX >> 8);
        Ok(self.publish(pool, place, frame, Order::FRAME))
    }

    #[cold]
    fn fill<P: Pool>(&self, pool: &mut P, place: &AtomicU64, block: usize) -> Result<u64, Shortage> {
        let header = self.header();
        let order = order(header.granule);
        let frame =
            memory::take_ahead(&header.purse, pool, order, Policy::Local, header.pages - self.populated())?;
        self.memory.zero(frame, order);
        let first = block * header.granule.pages();
        self.memory.info(frame).set_object(first);
        let now = self.publish(pool, place, frame, order);
        if now == frame.number() as u64 {
            // ORDER: Relaxed: a statistic.
            header.populated.fetch_add(header.granule.pages(), Ordering::Relaxed);
        }
        Ok(now)
    }

    /// Puts a frame into an empty word; if somebody else was first, takes theirs and gives this one back.
    fn publish<P: Pool>(&self, pool: &mut P, place: &AtomicU64, frame: FrameId, order: Order) -> u64 {
        let new = frame.number() as u64;
        // ORDER: AcqRel: Release pairs with Acquire of readers: the frame is zeroed. Acquire on failure: so is theirs.
        match place.compare_exchange(0, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => new,
            Err(theirs) => {
                memory::give(&self.header().purse, pool, frame, order);
                theirs
            }
        }
    }

    /// Takes over consecutive frames as pages that nobody has asked for yet, each a block of its own; returns how many, as far as one directory
    /// frame goes.
    ///
    /// # Errors
    /// [`Shortage`]: no frame for the directory; nothing is taken over.
    pub(super) fn adopt<P: Pool>(
        &self,
        pool: &mut P,
        first: usize,
        frames: impl Iterator<Item = FrameId>,
    ) -> Result<usize, Shortage> {
        debug_assert!(self.granule() == PageSize::Small, "an object of other blocks takes no frames over");
        let words = self.words(pool, first)?;
        let mut count = 0;
        for (place, frame) in words.iter().zip(frames) {
            // ORDER: Relaxed: a look.
            debug_assert!(place.load(Ordering::Relaxed) == 0, "nobody has asked for the page");
            self.memory.info(frame).set_object(first + count);
            // ORDER: Release pairs with Acquire in `page`: the frame is filled.
            place.store(frame.number() as u64, Ordering::Release);
            count += 1;
        }
        // ORDER: Relaxed: a statistic.
        self.header().populated.fetch_add(count, Ordering::Relaxed);
        Ok(count)
    }

    /// Makes sure that there are frames for all pages of a range, cut at the end.
    ///
    /// # Errors
    /// [`Shortage`]; what was put in until then stays.
    pub fn populate<P: Pool>(&self, pool: &mut P, first: usize, count: usize) -> Result<(), Shortage> {
        let mut page = first;
        while page < first.saturating_add(count) && self.page(pool, page)?.is_some() {
            page = (page + 1).next_multiple_of(self.granule().pages());
        }
        Ok(())
    }

    /// Runs `f` with the list of attachments locked.
    pub(super) fn with_list<R>(&self, f: impl FnOnce(&AtomicPtr<Record>) -> R) -> R {
        let header = self.header();
        // ORDER: Acquire pairs with Release below.
        while header.locked.swap(true, Ordering::Acquire) {
            percpu::sync::hint::spin_loop();
        }
        let result = f(&header.first);
        // ORDER: Release pairs with Acquire above.
        header.locked.store(false, Ordering::Release);
        result
    }

    /// Calls `visit` with each place that shows the object: the space's id, the page where the object's page `offset` is shown, that
    /// offset, and how many pages the place had when it was made. Parts of a place may be unmapped by now.
    pub fn attachments(&self, mut visit: impl FnMut(Attachment)) {
        self.with_list(|first| {
            // ORDER: Relaxed: behind the lock, as all links.
            let mut at = first.load(Ordering::Relaxed);
            while let Some(record) = NonNull::new(at) {
                // SAFETY: O2: a record in the list is alive, and leaves the list under the lock that we hold.
                let record = unsafe { record.as_ref() };
                visit(record.attachment());
                at = record.next();
            }
        });
    }

    /// Where the object shows this frame, if it is one of its own: the page, by the frame's word.
    #[must_use]
    pub fn page_of(&self, frame: FrameId) -> Option<usize> {
        let granule = self.granule().pages();
        let head = FrameId::new(frame.number() & !(granule - 1));
        // The word says which page, not of which object: the directory decides.
        let Use::Object(first) = self.memory.info(head).usage() else { return None };
        if first >= self.pages() {
            return None;
        }
        let (words, index) = self.place(&mut Nothing, first / granule).ok()?;
        // ORDER: Relaxed: compared, not followed.
        let own = words.get(index)?.load(Ordering::Relaxed) == head.number() as u64;
        own.then(|| first + frame.number() - head.number())
    }

    /// Gives the reference up; with the last one the object goes, and its frames with it: all at once.
    pub fn release<P: Pool>(self, pool: &mut P) {
        if let Some(orphan) = self.unref() {
            orphan.end(pool);
        }
    }

    /// As [`Object::release`], but an object that takes more than a step is offered to the pool, which may end it step by step
    /// ([`Orphans`](super::Orphans)).
    pub fn let_go<P: Pool>(self, pool: &mut P) {
        let Some(orphan) = self.unref() else { return };
        let few = orphan.header().depth == 0 && orphan.populated() <= orphan.granule().pages() * FEW;
        if few || !pool.orphan(orphan.frame) {
            orphan.end(pool);
        }
    }

    fn end<P: Pool>(&self, pool: &mut P) {
        let mut at = 0;
        // SAFETY: nobody else has the object, and nobody will: its last reference is gone.
        while let Progress::More(next) = unsafe { self.destroy(pool, at) } {
            at = next;
        }
    }

    /// Gives the reference up; returns it if it was the last one.
    pub(super) fn unref(self) -> Option<Self> {
        // ORDER: AcqRel: Release: our accesses come before the end; Acquire: everybody's do, for whoever ends it.
        let before = self.header().refs.fetch_sub(1, Ordering::AcqRel);
        (before == 1).then_some(self)
    }

    /// Gives back about [`AT_ONCE`] frames, of the blocks from `at` on; it is called with 0, and then with what it says, until it is
    /// [`Progress::Done`]. The last step takes the object's own frame.
    ///
    /// # Safety
    /// 1. No reference to the object is left.
    /// 2. Steps follow each other, and nothing follows the last.
    pub(super) unsafe fn destroy<P: Pool>(&self, pool: &mut P, mut at: usize) -> Progress<usize> {
        let header = self.header();
        let end = header.pages / header.granule.pages();
        let mut left = AT_ONCE * GIVEN;
        while at < end && !(header.depth == 0 && self.populated() == 0) {
            if left == 0 {
                return Progress::More(at);
            }
            let next = self.destroy_some(pool, at, &mut left);
            // With the last block every directory frame goes that is still there.
            self.drop_directories(pool, at, if next < end { next } else { usize::MAX });
            at = next;
        }
        // All that was paid for is gone, but for this frame.
        let payer = header.purse.payer();
        header.purse.close(&mut Frames(pool));
        pool.give(self.frame, Order::FRAME);
        pool.forget(payer);
        Progress::Done(())
    }

    /// Gives back the blocks of one directory frame from `at` on, as far as the step goes; returns the block behind them, or the one behind
    /// the hole that `at` is in.
    fn destroy_some<P: Pool>(&self, pool: &mut P, at: usize, left: &mut usize) -> usize {
        let header = self.header();
        let mut words: &[AtomicU64] = &header.slots;
        for level in (1..=u32::from(header.depth)).rev() {
            let index = at >> (SHIFT * level);
            let Some(below) = self.directory(words, index) else {
                // ORDER: Relaxed: nobody else has the object.
                let is_hole = |word: &&AtomicU64| word.load(Ordering::Relaxed) == 0;
                let holes = words.iter().skip(within(words, index)).take_while(is_hole).count();
                *left = left.saturating_sub(holes);
                return (index + holes) << (SHIFT * level);
            };
            words = below;
        }
        let mut next = at;
        let rest = words.get(within(words, at)..).unwrap_or_default();
        let mut populated = self.populated();
        for line in rest.chunks(LINE) {
            if *left == 0 || populated == 0 && header.depth == 0 {
                break;
            }
            next += line.len();
            let given = self.destroy_line(pool, line);
            populated -= given * header.granule.pages();
            *left = left.saturating_sub(line.len() + GIVEN * given);
        }
        // ORDER: Relaxed: nobody else has the object.
        header.populated.store(populated, Ordering::Relaxed);
        next
    }

    /// Gives back the blocks of some words; returns how many.
    #[inline(always)]
    fn destroy_line<P: Pool>(&self, pool: &mut P, line: &[AtomicU64]) -> usize {
        // ORDER: Acquire pairs with Release in `publish`; nobody else has the object.
        let any = line.iter().fold(0, |any, word| any | word.load(Ordering::Acquire));
        if any == 0 {
            return 0;
        }
        let order = order(self.header().granule);
        // ORDER: Relaxed: read above.
        let blocks = line.iter().map(|word| word.load(Ordering::Relaxed)).filter(|&block| block != 0);
        blocks.map(|block| pool.give(FrameId::new(block as usize), order)).count()
    }

    /// Gives back the directory frames that hold block `at` but not block `next`.
    fn drop_directories<P: Pool>(&self, pool: &mut P, at: usize, next: usize) {
        let depth = u32::from(self.header().depth);
        let mut frames = [None; MAX_DEPTH];
        let mut words: &[AtomicU64] = &self.header().slots;
        // From the top: a frame must be there to lead to the one below.
        for level in (1..=depth).rev() {
            let index = at >> (SHIFT * level);
            let Some(below) = self.directory(words, index) else { break };
            if at >> (SHIFT * level) != next >> (SHIFT * level) {
                let word = words.get(within(words, index));
                // ORDER: Relaxed: as in `destroy_some`, which has read it.
                let frame = word.map(|word| FrameId::new(word.load(Ordering::Relaxed) as usize));
                if let Some(place) = frames.get_mut(level as usize - 1) {
                    *place = frame;
                }
            }
            words = below;
        }
        frames.into_iter().flatten().for_each(|frame| pool.give(frame, Order::FRAME));
    }

    /// The directory frame that a word leads to, if there is one.
    fn directory(&self, words: &[AtomicU64], index: usize) -> Option<&[AtomicU64]> {
        // ORDER: Acquire pairs with Release in `publish`: the directory frame is zeroed.
        match words.get(within(words, index))?.load(Ordering::Acquire) {
            0 => None,
            node => {
                // SAFETY: O1: a directory frame of this object stays as long as the object; it is nothing but atomic words.
                let frame: &[AtomicU64; FAN] =
                    unsafe { self.memory.at(FrameId::new(node as usize)).cast().as_ref() };
                Some(frame)
            }
        }
    }
}

/// Where the entry with this number of its level stands in a directory frame; the object's own holds all of its level.
const fn within(words: &[AtomicU64], index: usize) -> usize {
    if words.len() == FAN { index % FAN } else { index }
}

/// A pool without a frame: for looking at a directory without making one.
struct Nothing;

impl Pool for Nothing {
    fn take(&mut self, _: Order, _: Policy) -> Result<FrameId, Shortage> {
        Err(Shortage::Memory)
    }

    fn give(&mut self, _: FrameId, _: Order) {}

    fn retire(&mut self, _: FrameId) {}

    fn split(&mut self, _: FrameId) {}

    fn merge(&mut self, _: FrameId) -> bool {
        false
    }
}

/// A place that shows an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// The id of the space.
    pub space: u64,
    /// The number of the first page.
    pub page: usize,
    /// The object's page that is shown there.
    pub offset: usize,
    /// How many pages are still shown.
    pub pages: usize,
}
