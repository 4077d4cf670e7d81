//! Records: what entries of page tables say by number because it does not fit into them.
//!
//! A record belongs to one mapping: what it shows, from where, and where its frames shall lie. Record 0 stands for plain anonymous memory
//! and devices, and needs no memory. The records of a space lie in frames of their own, which are taken when they are first needed.
//!
//! * O2: a record is alive while its count of pages is not 0; entries name only records that are alive. It is in its object's list all that
//!   time, and leaves it, under the list's lock, before it is free again.

use super::entry::RECORDS;
use super::memory::{self, Memory, Pool, Shortage};
use super::object::{Attachment, Object};
use super::{Kind, SpaceError};
use crate::bank::Purse;
use crate::frames::Policy;
use crate::id::{FRAME_BYTES, FrameId, Order};
use crate::virt::PageId;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use percpu::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use percpu::{NodeId, NodeSet};

/// What is written into a record while it has an owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) kind: Kind,
    pub(super) policy: Policy,
    /// The page where it begins.
    pub(super) base: PageId,
    /// The object's page that is shown there; what a pager is told.
    pub(super) offset: u64,
    /// The object's own frame.
    pub(super) object: Option<FrameId>,
}

/// One record.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `pages` | whoever claims it, unmaps pages of it, or splits a mapping of it | the same | AcqRel |
/// | links | who holds the lock of the object's list | the same | by the lock |
/// | the rest | the claimer, before an entry names it | who has found an entry that names it | by the entry |
#[repr(C, align(64))]
pub(super) struct Record {
    pages: AtomicU64,
    /// Kind, policy's tag, and the space's id.
    head: AtomicU64,
    policy: AtomicU64,
    base: AtomicU64,
    offset: AtomicU64,
    object: AtomicU64,
    next: AtomicPtr<Record>,
    before: AtomicPtr<Record>,
}

const PER_FRAME: usize = FRAME_BYTES / size_of::<Record>();
/// Frames that all records of a space take.
const FRAMES: usize = RECORDS / PER_FRAME;
const _: () = assert!(PER_FRAME == 64 && FRAMES * PER_FRAME == RECORDS);

/// What a record that is taken out of its object's list counts in a step, in entries: the object may go with it, and a few frames.
const DETACHED: usize = 256;

/// Marks a record that is claimed and not yet filled.
const CLAIMED: u64 = 1 << 63;

impl Record {
    fn load(word: &AtomicU64) -> u64 {
        // ORDER: Relaxed: the entry through which the record was found was published after it was filled (O2).
        word.load(Ordering::Relaxed)
    }

    fn claim(&self) -> bool {
        // ORDER: Relaxed: a first look. Acquire pairs with Release in `subtract`: the last owner is done with it. Relaxed on failure: the
        // next one is tried.
        self.pages.load(Ordering::Relaxed) == 0
            && self.pages.compare_exchange(0, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn fill(&self, terms: &Terms, space: u64, pages: usize) {
        let (tag, payload) = pack(terms.policy);
        let head = space << 8 | tag << 4 | terms.kind as u64;
        for (word, value) in [
            (&self.head, head),
            (&self.policy, payload),
            (&self.base, terms.base.number() as u64),
            (&self.offset, terms.offset),
            (&self.object, terms.object.map_or(0, FrameId::number) as u64),
            (&self.pages, pages as u64),
        ] {
            // ORDER: Relaxed: as in `load`.
            word.store(value, Ordering::Relaxed);
        }
    }

    /// More pages for a record that is alive; `false` if it is not.
    pub(super) fn extend(&self, pages: u64) -> bool {
        // ORDER: AcqRel: as in `Records::subtract`. Relaxed on failure: nothing is read by it.
        let extended = self.pages.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |now| {
            (now != 0 && now & CLAIMED == 0).then_some(now + pages)
        });
        extended.is_ok()
    }

    pub(super) fn kind(&self) -> Kind {
        Kind::from_number(Self::load(&self.head) & 0xf)
    }

    pub(super) fn policy(&self) -> Policy {
        unpack(Self::load(&self.head) >> 4 & 0xf, Self::load(&self.policy))
    }

    pub(super) fn terms(&self) -> Terms {
        Terms {
            kind: self.kind(),
            policy: self.policy(),
            base: PageId::new(Self::load(&self.base) as usize),
            offset: Self::load(&self.offset),
            object: self.object(),
        }
    }

    fn object(&self) -> Option<FrameId> {
        match Self::load(&self.object) {
            0 => None,
            frame => Some(FrameId::new(frame as usize)),
        }
    }

    /// What a pager is told.
    pub(super) fn cookie(&self) -> u64 {
        Self::load(&self.offset)
    }

    /// The object's page that `page` shows.
    #[inline]
    pub(super) fn offset_of(&self, page: PageId) -> usize {
        (Self::load(&self.offset) as usize)
            .wrapping_add(page.number().wrapping_sub(Self::load(&self.base) as usize))
    }

    /// What a record says that shows at `to` what this one shows at `from`.
    pub(super) fn moved(&self, from: PageId, to: PageId) -> Terms {
        let terms = self.terms();
        match terms.object {
            Some(_) => Terms { base: to, offset: self.offset_of(from) as u64, ..terms },
            None => {
                let before = from.number().wrapping_sub(terms.base.number());
                Terms { base: PageId::new(to.number().wrapping_sub(before)), ..terms }
            }
        }
    }

    /// Whether the record shows at `page` what these terms show there.
    pub(super) fn shows(&self, terms: &Terms, page: PageId) -> bool {
        let own = self.terms();
        let place = |terms: &Terms| {
            let within = page.number().wrapping_sub(terms.base.number());
            match terms.object {
                Some(_) => (0, terms.offset.wrapping_add(within as u64)),
                None => (within, terms.offset),
            }
        };
        own.kind == terms.kind
            && own.policy == terms.policy
            && own.object == terms.object
            && place(&own) == place(terms)
    }

    pub(super) fn attachment(&self) -> Attachment {
        Attachment {
            space: Self::load(&self.head) >> 8,
            page: Self::load(&self.base) as usize,
            offset: Self::load(&self.offset) as usize,
            // A record that is on its way out of the list has none.
            pages: (Self::load(&self.pages) & !CLAIMED) as usize,
        }
    }

    pub(super) fn next(&self) -> *mut Self {
        // ORDER: Relaxed: behind the list's lock.
        self.next.load(Ordering::Relaxed)
    }

    fn link(&self, first: &AtomicPtr<Self>) {
        let own = ptr::from_ref(self).cast_mut();
        // ORDER: Relaxed, all four: behind the list's lock.
        let next = first.load(Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        self.next.store(next, Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        self.before.store(ptr::null_mut(), Ordering::Relaxed);
        if let Some(next) = NonNull::new(next) {
            // SAFETY: O2: a record in the list is alive, and its links are ours behind the lock.
            // ORDER: Relaxed; as above.
            unsafe { next.as_ref() }.before.store(own, Ordering::Relaxed);
        }
        // ORDER: Relaxed; as above.
        first.store(own, Ordering::Relaxed);
    }

    fn unlink(&self, first: &AtomicPtr<Self>) {
        // ORDER: Relaxed, all four: behind the list's lock.
        let (next, before) = (self.next(), self.before.load(Ordering::Relaxed));
        if let Some(next) = NonNull::new(next) {
            // SAFETY: O2: as in `link`.
            // ORDER: Relaxed; as above.
            unsafe { next.as_ref() }.before.store(before, Ordering::Relaxed);
        }
        match NonNull::new(before) {
            // ORDER: Relaxed; as above.
            None => first.store(next, Ordering::Relaxed),
            Some(before) => {
                // SAFETY: O2: as in `link`.
                // ORDER: Relaxed; as above.
                unsafe { before.as_ref() }.next.store(next, Ordering::Relaxed);
            }
        }
    }
}

const LOCAL: u64 = 0;
const LOCAL_ONLY: u64 = 1;
const PREFER: u64 = 2;
const BIND: u64 = 3;
const INTERLEAVE: u64 = 4;

const fn pack(policy: Policy) -> (u64, u64) {
    match policy {
        Policy::Local => (LOCAL, 0),
        Policy::LocalOnly => (LOCAL_ONLY, 0),
        Policy::Prefer(node) => (PREFER, node.index() as u64),
        Policy::Bind(set) => (BIND, set.bits()),
        Policy::Interleave(set) => (INTERLEAVE, set.bits()),
    }
}

fn unpack(tag: u64, payload: u64) -> Policy {
    match tag {
        LOCAL_ONLY => Policy::LocalOnly,
        PREFER => NodeId::from_index(payload as usize).map_or(Policy::Local, Policy::Prefer),
        BIND => Policy::Bind(NodeSet::from_bits(payload)),
        INTERLEAVE => Policy::Interleave(NodeSet::from_bits(payload)),
        _ => Policy::Local,
    }
}

/// The records of a space.
#[derive(Debug)]
pub(super) struct Records<M> {
    memory: M,
    /// The numbers of the frames; 0 for none.
    frames: [AtomicU64; FRAMES],
    /// Where a free record was found last; a hint.
    hint: AtomicU64,
    /// No record from this number on was ever claimed.
    end: AtomicU64,
}

impl<M: Memory> Records<M> {
    pub(super) const fn new(memory: M) -> Self {
        let frames = [const { AtomicU64::new(0) }; FRAMES];
        Self { memory, frames, hint: AtomicU64::new(1), end: AtomicU64::new(1) }
    }

    /// The word of the frame that a record is in.
    #[inline(always)]
    fn frame_word(&self, number: usize) -> &AtomicU64 {
        &self.frames[number / PER_FRAME % FRAMES]
    }

    /// The record with a number, if its frame is there. Number 0 has none.
    #[inline]
    pub(super) fn get(&self, number: usize) -> Option<&Record> {
        if number == 0 {
            return None;
        }
        // ORDER: Acquire pairs with Release in `frame_of`.
        let frame = self.frame_word(number).load(Ordering::Acquire);
        (frame != 0).then(|| self.record(frame, number))
    }

    fn record(&self, frame: u64, number: usize) -> &Record {
        let records = self.memory.at(FrameId::new(frame as usize)).cast::<[Record; PER_FRAME]>();
        // SAFETY: a frame of records stays as long as the space; records are atomic words, for which any bytes will do.
        let records: &[Record; PER_FRAME] = unsafe { records.as_ref() };
        &records[number % PER_FRAME]
    }

    /// Claims a record for `pages` pages, and attaches it to its object, of which it takes a reference of its own.
    pub(super) fn add<P: Pool>(
        &self,
        (purse, pool): (&Purse, &mut P),
        terms: &Terms,
        space: u64,
        pages: usize,
    ) -> Result<usize, SpaceError> {
        // ORDER: Relaxed: a hint.
        let from = self.hint.load(Ordering::Relaxed) as usize;
        for step in 0..RECORDS {
            let number = (from + step) % RECORDS;
            if number == 0 {
                continue;
            }
            let record = match self.get(number) {
                Some(record) => record,
                None => self.grow(purse, pool, number)?,
            };
            if record.claim() {
                record.fill(terms, space, pages);
                if let Some(object) = terms.object {
                    attach(self.memory, object, record);
                }
                let next = (number + 1) as u64;
                // ORDER: Relaxed: a hint.
                self.hint.store(next, Ordering::Relaxed);
                // ORDER: Relaxed, both: it only grows, and is acted upon when nobody claims any more (A6).
                if next > self.end.load(Ordering::Relaxed) {
                    // ORDER: Relaxed; as above.
                    self.end.fetch_max(next, Ordering::Relaxed);
                }
                return Ok(number);
            }
        }
        Err(SpaceError::TooManyMappings)
    }

    #[cold]
    fn grow<P: Pool>(&self, purse: &Purse, pool: &mut P, number: usize) -> Result<&Record, SpaceError> {
        let place = self.frame_word(number);
        // ORDER: Acquire pairs with Release in `frame_of`.
        let frame = match place.load(Ordering::Acquire) {
            0 => self.frame_of(purse, pool, place)?,
            frame => frame,
        };
        Ok(self.record(frame, number))
    }

    /// A frame of free records for an empty word; if somebody else was first, theirs.
    fn frame_of<P: Pool>(&self, purse: &Purse, pool: &mut P, place: &AtomicU64) -> Result<u64, SpaceError> {
        let frame = memory::take(purse, pool, Order::FRAME, Policy::Local)?;
        for number in 0..PER_FRAME {
            // Only that: the other words are written before anybody reads them (O2).
            // ORDER: Relaxed: nobody is led to the frame yet; the exchange below publishes.
            self.record(frame.number() as u64, number).pages.store(0, Ordering::Relaxed);
        }
        // ORDER: AcqRel: Release pairs with Acquire of readers: the records are free. Acquire on failure: so are theirs.
        match place.compare_exchange(0, frame.number() as u64, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(frame.number() as u64),
            Err(theirs) => {
                memory::give(purse, pool, frame, Order::FRAME);
                Ok(theirs)
            }
        }
    }

    /// Takes pages off a record; with the last one it is free again and its object has a reference less.
    ///
    /// No core caches a translation of these pages.
    pub(super) fn subtract<P: Pool>(&self, pool: &mut P, number: usize, pages: u64) {
        let Some(record) = self.get(number) else { return };
        if pages == 0 {
            return;
        }
        // ORDER: AcqRel: among those who take pages off, whoever takes the last ones comes after all others.
        let before = record.pages.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |now| {
            debug_assert!(now & CLAIMED == 0 && now >= pages, "O2: {pages} pages of {now} go");
            // The last page goes only when the record has left the list (O2).
            Some(if now == pages { CLAIMED } else { now.wrapping_sub(pages) })
        });
        if before == Ok(pages) {
            self.free(pool, record);
        }
    }

    /// Frees every record, whatever pages it has, as far as the step goes: `left` counts entries. `false` if it ended before.
    ///
    /// Nobody else has the space (A6).
    pub(super) fn detach<P: Pool>(&self, pool: &mut P, left: &mut usize) -> bool {
        // ORDER: Relaxed: as in `add`.
        let end = self.end.load(Ordering::Relaxed) as usize;
        for record in (1..end).filter_map(|number| self.get(number)) {
            // ORDER: Relaxed: as for `end`.
            if record.pages.load(Ordering::Relaxed) == 0 {
                continue;
            }
            if *left == 0 {
                return false;
            }
            *left = left.saturating_sub(DETACHED);
            self.free(pool, record);
        }
        true
    }

    /// Takes a record without pages out of its object's list, and frees it.
    #[inline(always)]
    fn free<P: Pool>(&self, pool: &mut P, record: &Record) {
        if let Some(frame) = record.object() {
            // SAFETY: O1: the record's own reference, which it gives up here.
            let object = unsafe { Object::from_frame(frame, self.memory) };
            object.with_list(|first| record.unlink(first));
            object.let_go(pool);
        }
        // ORDER: Release pairs with Acquire in `claim`.
        record.pages.store(0, Ordering::Release);
    }

    /// Gives the frames back, when the space has no mapping left.
    pub(super) fn destroy<P: Pool>(&self, purse: &Purse, pool: &mut P) {
        for word in &self.frames {
            // ORDER: Acquire pairs with Release in `frame_of`; nobody else has the space any more.
            match word.swap(0, Ordering::Acquire) {
                0 => {}
                frame => memory::give(purse, pool, FrameId::new(frame as usize), Order::FRAME),
            }
        }
    }

    /// Frames that the records take.
    pub(super) fn frames(&self) -> usize {
        // ORDER: Relaxed: counted, not followed.
        self.frames.iter().filter(|word| word.load(Ordering::Relaxed) != 0).count()
    }

    /// Every record that is alive, with its number.
    pub(super) fn alive(&self) -> impl Iterator<Item = (usize, u64)> {
        (1..RECORDS).filter_map(|number| {
            // ORDER: Relaxed: a statistic.
            let pages = self.get(number)?.pages.load(Ordering::Relaxed);
            (pages != 0).then_some((number, pages))
        })
    }
}

fn attach<M: Memory>(memory: M, frame: FrameId, record: &Record) {
    // SAFETY: O1: the caller holds a reference, of which this is not another one: it is shared, and the value forgotten.
    let object = ManuallyDrop::new(unsafe { Object::from_frame(frame, memory) });
    // The record's reference, until `subtract` gives it up.
    let _kept = ManuallyDrop::new(object.share());
    object.with_list(|first| record.link(first));
}

/// The object that a record shows, for the moment; the record's own reference keeps it.
pub(super) fn with_object<M: Memory, R>(
    memory: M,
    record: &Record,
    f: impl FnOnce(&Object<M>) -> R,
) -> Option<R> {
    let frame = record.object()?;
    // SAFETY: O1, O2: the record is alive, since an entry under the caller's lock names it or a page of it is held; the value is forgotten.
    let object = ManuallyDrop::new(unsafe { Object::from_frame(frame, memory) });
    Some(f(&object))
}

impl From<Shortage> for SpaceError {
    fn from(shortage: Shortage) -> Self {
        Self::Shortage(shortage)
    }
}
