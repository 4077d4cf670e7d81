//! The physical frame allocator: bitmaps below 2 MiB, a buddy above, one set per NUMA node.
//!
//! Memory is divided into chunks of 512 frames. A chunk is wholly free, an allocated block (or part of one), or *split*.
//! Wholly free chunks stand in one bitmap per span, in which an aligned run of ones is a free block: neighbours coalesce by
//! lying side by side. From a split chunk only the core that has it reserved allocates, with plain loads and stores; freeing
//! into a chunk that somebody else has reserved, or nobody, is one locked operation. A chunk that its core is done with goes
//! back to the pool, on one of four lists by how useful its free frames are.
//!
//! Nothing here takes a lock. Every call but the first on an exhausted chunk touches lines of the calling core alone.
//! Reasons and measurements: `docs/adr/0001-frame-allocator.md`. Invariants M1–M4: `frames/span.rs`.

mod bits;
mod cache;
mod chunk;
mod convert;
mod index;
#[cfg(all(test, loom))]
mod models;
mod order;
mod plan;
mod request;
mod span;
mod state;
mod stats;

pub use cache::{CoreCache, MAGAZINE, SLOTS};
pub use plan::{Config, MAX_SPANS, Plan};
pub use request::{Policy, Request};
pub use stats::Stats;

use crate::error::FrameError;
use crate::id::{CHUNK_ORDER, FrameId, Order, Zone};
use cache::{ADOPT_AFTER, ADOPTED, AWAY, CLASSES, ROUND, Slot, class};
use chunk::Chunk;
use percpu::{NodeId, NodeSet};
use plan::NodeTable;
use span::{BASE_CHUNKS, Span};

/// The allocator of a whole machine, shared by every core. Metadata lies in memory that the caller has given, for `'m`.
#[derive(Debug)]
pub struct Frames<'m> {
    spans: &'m [Span<'m>],
    nodes: &'m NodeTable,
    /// Nodes that have memory.
    populated: NodeSet,
}

/// How hard to look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    /// Lists only; chunks stay reserved for the next time.
    Usual,
    /// Everything; nothing stays reserved.
    Last,
}

impl<'m> Frames<'m> {
    /// Takes a block of normal memory, from the home node if it has any.
    ///
    /// # Errors
    /// [`FrameError::OutOfMemory`], or [`FrameError::Held`] when other cores' caches may hold enough.
    #[inline(always)]
    pub fn get(&self, cache: &mut CoreCache<'m>, order: Order) -> Result<FrameId, FrameError> {
        match self.get_fast(cache, order) {
            Some(frame) => Ok(frame),
            None => self.get_slow(cache, order, Request::LOCAL),
        }
    }

    /// Takes a block where the request says.
    ///
    /// # Errors
    /// As [`Frames::get`], and [`FrameError::NoNode`] when the request names no node that has memory.
    #[inline]
    pub fn get_from(
        &self,
        cache: &mut CoreCache<'m>,
        order: Order,
        request: Request,
    ) -> Result<FrameId, FrameError> {
        if request.is_local()
            && let Some(frame) = self.get_fast(cache, order)
        {
            return Ok(frame);
        }
        self.get_slow(cache, order, request)
    }

    #[inline(always)]
    fn get_fast(&self, cache: &mut CoreCache<'m>, order: Order) -> Option<FrameId> {
        if order.is_small() {
            return cache.slots[class(order.get())].take_here(order.get());
        }
        if order != CHUNK_ORDER || cache.stocked == 0 {
            return None;
        }
        self.get_stocked(cache)
    }

    /// Takes a chunk out of the magazine.
    #[inline]
    fn get_stocked(&self, cache: &mut CoreCache<'m>) -> Option<FrameId> {
        let at = cache.stocked.checked_sub(1)?;
        let (span, offset) = *cache.magazine.get(at)?;
        cache.stocked = at;
        let span = self.spans.get(span)?;
        span.set_huge(offset, CHUNK_ORDER);
        Some(span.frame(offset))
    }

    #[cold]
    #[inline(never)]
    fn get_slow(
        &self,
        cache: &mut CoreCache<'m>,
        order: Order,
        request: Request,
    ) -> Result<FrameId, FrameError> {
        if request.is_local()
            && order.is_small()
            && let Some(frame) = cache.slots[class(order.get())].take(order.get())
        {
            return Ok(frame);
        }
        let (start, allowed) = self.targets(cache, request.policy)?;
        for effort in [Effort::Usual, Effort::Last] {
            for node in self.nodes.by_distance(start).filter(|&node| allowed.contains(node)) {
                if let Some(frame) = self.get_on(cache, node, request.zone, order, effort) {
                    return Ok(frame);
                }
            }
            self.drain(cache);
        }
        let mut spans = self.spans.iter().filter(|span| allowed.contains(span.node));
        Err(if spans.any(Span::is_held) { FrameError::Held } else { FrameError::OutOfMemory })
    }

    /// The node to start from and the nodes that are allowed.
    fn targets(&self, cache: &mut CoreCache<'m>, policy: Policy) -> Result<(NodeId, NodeSet), FrameError> {
        let (start, set) = match policy {
            Policy::Local => (cache.home, self.populated),
            Policy::LocalOnly => (cache.home, NodeSet::one(cache.home)),
            Policy::Prefer(node) => (node, self.populated),
            Policy::Bind(set) => (cache.home, set),
            Policy::Interleave(set) => {
                let set = NodeSet::from_bits(set.bits() & self.populated.bits());
                cache.turn = cache.turn.wrapping_add(1);
                let turn = cache.turn.checked_rem(set.len()).ok_or(FrameError::NoNode)?;
                (set.iter().nth(turn).ok_or(FrameError::NoNode)?, set)
            }
        };
        let allowed = NodeSet::from_bits(set.bits() & self.populated.bits());
        if allowed.is_empty() { Err(FrameError::NoNode) } else { Ok((start, allowed)) }
    }

    fn get_on(
        &self,
        cache: &mut CoreCache<'m>,
        node: NodeId,
        zone: Zone,
        order: Order,
        effort: Effort,
    ) -> Option<FrameId> {
        if !order.is_small() {
            let stock =
                order == CHUNK_ORDER && zone == Zone::Normal && node == cache.home && effort == Effort::Usual;
            // The magazine comes first: `stock` may only fill an empty one.
            if stock && let Some(frame) = self.get_stocked(cache) {
                return Some(frame);
            }
            if stock && let Some(frame) = self.stock(cache) {
                return Some(frame);
            }
            return self.zone_spans(node, zone, order).find_map(|(_, span)| span.take_huge(order));
        }
        let home = node == cache.home && zone == Zone::Normal;
        let at = if home { class(order.get()) } else { CLASSES + node.index() % AWAY };
        let fits = self
            .spans
            .get(cache.slots[at].span)
            .is_some_and(|span| span.node == node && allows(zone, span.zone));
        if fits && let Some(frame) = cache.slots[at].take(order.get()) {
            return Some(frame);
        }
        self.empty(&mut cache.slots[at]);
        if home && order == Order::FRAME && effort == Effort::Usual && self.use_adopted(cache, node) {
            if let Some(frame) = cache.slots[at].take(0) {
                return Some(frame);
            }
            self.empty(&mut cache.slots[at]);
        }
        self.refill(cache, at, (node, zone), order, effort)
    }

    /// Fills the magazine half from one word of the index of whole chunks, and takes one of them.
    fn stock(&self, cache: &mut CoreCache<'m>) -> Option<FrameId> {
        let (last, from) = cache.source;
        let near = self.spans.get(last).and_then(|span| Some((last, span.whole.take_some(from, ROUND)?)));
        let anywhere = || {
            let mut spans =
                self.zone_spans(cache.home, Zone::Normal, CHUNK_ORDER).filter(|(_, span)| span.keep);
            spans.find_map(|(index, span)| Some((index, span.whole.take_some(0, ROUND)?)))
        };
        let (index, (first, mut chunks)) = near.or_else(anywhere)?;
        let span = self.spans.get(index)?;
        cache.source = (index, first);
        for place in cache.magazine.iter_mut().skip(cache.stocked) {
            if chunks == 0 {
                break;
            }
            *place = (index, first + chunks.trailing_zeros() as usize);
            chunks &= chunks - 1;
            span.set_held(place.1);
            cache.stocked += 1;
        }
        debug_assert!(chunks == 0, "an empty magazine has room for a round");
        self.get_stocked(cache)
    }

    /// Gives the older half of a full magazine back, the chunks of one word together.
    #[cold]
    fn unstock(&self, cache: &mut CoreCache<'m>, count: usize) {
        let mut rest = &cache.magazine[..count];
        while let Some((&(index, offset), later)) = rest.split_first() {
            let together = 1 + later.iter().take_while(|other| same_word(**other, (index, offset))).count();
            if let Some(span) = self.spans.get(index) {
                span.unhold(rest[..together].iter().map(|&(_, offset)| offset));
            }
            rest = &rest[together..];
        }
        cache.magazine.copy_within(count..cache.stocked, 0);
        cache.stocked -= count;
    }

    /// Reserves a chunk for a slot and takes a block from it.
    fn refill(
        &self,
        cache: &mut CoreCache<'m>,
        at: usize,
        (node, zone): (NodeId, Zone),
        order: Order,
        effort: Effort,
    ) -> Option<FrameId> {
        for (index, span) in self.zone_spans(node, zone, order) {
            while let Some(offset) = match effort {
                Effort::Usual => span.find(order.get(), cache.core),
                Effort::Last => span.find_anywhere(order.get(), cache.core),
            } {
                let slot = &mut cache.slots[at];
                *slot = Slot::new(span.chunk(offset), span.base + offset, index);
                let frame = slot.take(order.get());
                if frame.is_none() || !span.keep || effort == Effort::Last {
                    self.empty(slot);
                }
                if frame.is_some() {
                    return frame;
                }
            }
        }
        None
    }

    /// Makes the chunk that this core has been freeing into the one it takes frames from, if that is on the right node.
    fn use_adopted(&self, cache: &mut CoreCache<'m>, node: NodeId) -> bool {
        let adopted = &cache.slots[ADOPTED];
        let near = adopted.words.is_some()
            && self
                .spans
                .get(adopted.span)
                .is_some_and(|span| span.node == node && span.zone == Zone::Normal);
        if near {
            cache.slots.swap(class(0), ADOPTED);
        }
        near
    }

    /// The spans of a node where a block of this order may come from, best first.
    fn zone_spans(
        &self,
        node: NodeId,
        zone: Zone,
        order: Order,
    ) -> impl Iterator<Item = (usize, &'m Span<'m>)> {
        let range = self.nodes.spans(node);
        let spans = self.spans;
        let zones = match zone {
            Zone::Normal if order.is_small() => [Some(Zone::Normal), Some(Zone::Huge)],
            Zone::Normal => [Some(Zone::Huge), Some(Zone::Normal)],
            only => [Some(only), None],
        };
        zones.into_iter().flatten().flat_map(move |wanted| {
            range
                .clone()
                .filter_map(move |index| spans.get(index).map(|span| (index, span)))
                .filter(move |(_, span)| span.node == node && span.zone == wanted)
        })
    }

    /// Gives a block back.
    ///
    /// # Errors
    /// [`FrameError::DoubleFree`], [`FrameError::WrongOrder`], [`FrameError::Interior`] or [`FrameError::Foreign`]. They are exact for
    /// every call that happens after the allocation and after any earlier free of the block; two frees that race may both
    /// pass as far as the second comes before its core could know of the first.
    #[inline(always)]
    pub fn put(&self, cache: &mut CoreCache<'m>, frame: FrameId, order: Order) -> Result<(), FrameError> {
        // Inlined for its own sake: with a constant order the block's pattern is one too, and this is fifteen instructions.
        if order.is_small()
            && frame.is_aligned(order)
            && cache.slots[class(order.get())].give_here(frame, order.get())
        {
            return Ok(());
        }
        self.put_elsewhere(cache, frame, order)
    }

    /// Puts a block that is not of the word in use.
    #[inline(never)]
    fn put_elsewhere(
        &self,
        cache: &mut CoreCache<'m>,
        frame: FrameId,
        order: Order,
    ) -> Result<(), FrameError> {
        if order.is_small() && frame.is_aligned(order) && cache.slots[ADOPTED].give_here(frame, order.get()) {
            if cache.slots[ADOPTED].is_full_here() {
                self.close_adopted(cache);
            }
            return Ok(());
        }
        self.put_slow(cache, frame, order)
    }

    #[inline(never)]
    fn put_slow(&self, cache: &mut CoreCache<'m>, frame: FrameId, order: Order) -> Result<(), FrameError> {
        if !frame.is_aligned(order) {
            return Err(FrameError::Interior);
        }
        let chunk = frame.chunk();
        let (index, span, offset) = self.locate(cache.span, chunk).ok_or(FrameError::Foreign)?;
        cache.span = index;
        if !order.is_small() {
            return self.put_huge(cache, (index, span, offset), frame, order);
        }
        let slot = &mut cache.slots[class(order.get())];
        if slot.chunk == chunk {
            return if slot.give(frame, order) { Ok(()) } else { Err(span.blame(offset, frame)) };
        }
        if cache.slots[ADOPTED].chunk == chunk {
            return self.put_adopted(cache, frame, order).map_err(|()| span.blame(offset, frame));
        }
        if cache.last == chunk {
            cache.repeats += 1;
            if cache.repeats >= ADOPT_AFTER && self.adopt(cache, (index, span, offset)) {
                return self.put_adopted(cache, frame, order).map_err(|()| span.blame(offset, frame));
            }
        } else {
            cache.last = chunk;
            cache.repeats = 0;
        }
        span.put_shared(offset, frame, order)
    }

    /// Reserves the chunk that this core is freeing into.
    fn adopt(&self, cache: &mut CoreCache<'m>, (index, span, offset): (usize, &'m Span<'m>, usize)) -> bool {
        cache.repeats = 0;
        if !span.keep || !span.reserve(offset, cache.core) {
            return false;
        }
        let chunk = span.base + offset;
        let slot = Slot::new(span.chunk(offset), chunk, index);
        let mut old = core::mem::replace(&mut cache.slots[ADOPTED], slot);
        self.empty(&mut old);
        true
    }

    fn put_adopted(&self, cache: &mut CoreCache<'m>, frame: FrameId, order: Order) -> Result<(), ()> {
        if !cache.slots[ADOPTED].give(frame, order) {
            return Err(());
        }
        if cache.slots[ADOPTED].is_full_here() {
            self.close_adopted(cache);
        }
        Ok(())
    }

    /// Gives the adopted chunk back as soon as all of it is free: it is a block of order 9 then.
    fn close_adopted(&self, cache: &mut CoreCache<'m>) {
        let slot = &mut cache.slots[ADOPTED];
        if slot.words.is_some_and(Chunk::is_whole) {
            self.empty(slot);
        }
    }

    fn put_huge(
        &self,
        cache: &mut CoreCache<'m>,
        (index, span, offset): (usize, &'m Span<'m>, usize),
        frame: FrameId,
        order: Order,
    ) -> Result<(), FrameError> {
        if order != CHUNK_ORDER || !span.keep || span.node != cache.home {
            return span.put_huge(offset, frame, order);
        }
        if !span.hold(offset) {
            return Err(span.blame(offset, frame));
        }
        if cache.stocked == MAGAZINE {
            self.unstock(cache, ROUND);
        }
        if let Some(place) = cache.magazine.get_mut(cache.stocked) {
            *place = (index, offset);
            cache.stocked += 1;
        }
        Ok(())
    }

    /// The span of a chunk; `hint` is where to look first.
    #[inline]
    fn locate(&self, hint: usize, chunk: usize) -> Option<(usize, &'m Span<'m>, usize)> {
        if let Some(span) = self.spans.get(hint)
            && let Some(offset) = span.offset(chunk)
        {
            return Some((hint, span, offset));
        }
        let after = self.spans.partition_point(|span| span.base + span.first <= chunk);
        let index = after.checked_sub(1)?;
        let span = self.spans.get(index)?;
        span.offset(chunk).map(|offset| (index, span, offset))
    }

    /// Gives a slot's chunk back.
    fn empty(&self, slot: &mut Slot<'m>) {
        if slot.words.is_some()
            && let Some(span) = self.spans.get(slot.span)
        {
            span.release(slot.chunk - span.base);
        }
        *slot = Slot::EMPTY;
    }

    /// Gives back everything that a core holds. Afterwards every free block it held can be had by any core.
    pub fn drain(&self, cache: &mut CoreCache<'m>) {
        for slot in &mut cache.slots {
            self.empty(slot);
        }
        self.unstock(cache, cache.stocked);
    }
}

/// Whether two chunks of a magazine stand in one word of one index.
fn same_word(one: (usize, usize), other: (usize, usize)) -> bool {
    one.0 == other.0 && one.1 / BASE_CHUNKS == other.1 / BASE_CHUNKS
}

/// Whether a request for `zone` may be served from a span of `actual`.
fn allows(zone: Zone, actual: Zone) -> bool {
    zone == actual || zone == Zone::Normal && actual == Zone::Huge
}
