//! From a memory map to spans: how many there are, how much metadata each node needs, and the building of it.

use super::Frames;
use super::bits::Level;
use super::chunk::Chunk;
use super::index::Index;
use super::span::{BASE_CHUNKS, Span};
use super::state::State;
use crate::carve::Carve;
use crate::error::FrameError;
use crate::id::{CHUNK_FRAMES, FRAME_BYTES, FrameId, PhysRange, WORD_FRAMES, Zone};
use core::ops::Range;
use percpu::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use percpu::{MAX_NODES, NodeId, NodeSet};

/// Pieces that a memory map may fall into: per node, by zone, and wherever a hole of a gibibyte or more lies.
pub const MAX_SPANS: usize = 192;

/// The first chunk above the zone for old devices: 16 MiB.
const DMA_END: usize = (16 << 20) / FRAME_BYTES / CHUNK_FRAMES;
/// A hole of this many chunks (1 GiB) begins a new span; smaller ones stay inside, at 192 bytes of metadata per 2 MiB.
const GAP: usize = (1 << 30) / FRAME_BYTES / CHUNK_FRAMES;
/// The upper zone of a span starts at a multiple of one of these: 1 GiB, 128 MiB, 2 MiB.
const HUGE_STEPS: [usize; 3] = [GAP, GAP / 8, 1];
/// With fewer chunks on a node for each of its cores than this, nobody keeps one between two operations.
const KEEP_CHUNKS: usize = 32;

/// What the allocator is built from. Ranges may come in any order; `memory` must not overlap.
#[derive(Clone, Copy)]
pub struct Config<'a> {
    /// All memory, with its node.
    pub memory: &'a [(NodeId, PhysRange)],
    /// What of it is in use already: the kernel, the boot modules, this allocator's metadata. May overlap anything.
    pub reserved: &'a [PhysRange],
    /// What of it is in use and will come back, frame by frame, by [`Frames::put`](super::Frames::put): files that the loader has placed.
    pub taken: &'a [PhysRange],
    /// The SLIT: how far the second node is from the first.
    pub distance: &'a dyn Fn(NodeId, NodeId) -> u8,
    /// Cores that will allocate.
    pub cores: usize,
}

impl core::fmt::Debug for Config<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Config")
            .field("memory", &self.memory)
            .field("reserved", &self.reserved)
            .field("taken", &self.taken)
            .finish_non_exhaustive()
    }
}

/// One span to be: chunk numbers `first..end`.
#[derive(Clone, Copy, Debug)]
struct Piece {
    node: NodeId,
    zone: Zone,
    first: usize,
    end: usize,
}

impl Piece {
    /// The chunk number at which the span's indexes start.
    const fn base(&self) -> usize {
        self.first / BASE_CHUNKS * BASE_CHUNKS
    }

    /// Numbers in the span's indexes.
    const fn capacity(&self) -> usize {
        self.end - self.base()
    }

    fn bytes(&self) -> usize {
        let chunks = (self.end - self.first) * size_of::<Chunk>() + align_of::<Chunk>();
        let states = (self.capacity() * size_of::<AtomicU16>()).next_multiple_of(size_of::<u64>());
        chunks + states + (Level::LISTS + 1) * Index::words(self.capacity()) * size_of::<AtomicU64>()
    }
}

/// Per node: all nodes by distance, and where its spans are.
#[derive(Debug)]
pub(crate) struct NodeTable {
    by_distance: [[u8; MAX_NODES]; MAX_NODES],
    spans: [(u8, u8); MAX_NODES],
}

const _: () = assert!(MAX_SPANS < 256 && MAX_NODES <= 256);

impl NodeTable {
    /// All nodes, the nearest to `from` first.
    pub(crate) fn by_distance(&self, from: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        self.by_distance[from.index()].iter().filter_map(|&node| NodeId::from_index(usize::from(node)))
    }

    /// Indexes that include every span of the node, and perhaps others'.
    pub(crate) fn spans(&self, node: NodeId) -> Range<usize> {
        let (first, end) = self.spans[node.index()];
        usize::from(first)..usize::from(end)
    }

    fn new(pieces: &[Piece], distance: &dyn Fn(NodeId, NodeId) -> u8) -> Self {
        let mut table = Self { by_distance: [[0; MAX_NODES]; MAX_NODES], spans: [(0, 0); MAX_NODES] };
        for from in (0..MAX_NODES).filter_map(NodeId::from_index) {
            let row = &mut table.by_distance[from.index()];
            for (entry, node) in row.iter_mut().zip(0u8..) {
                *entry = node;
            }
            let key = |node: &u8| {
                NodeId::from_index(usize::from(*node)).map(|to| (to != from, distance(from, to), *node))
            };
            row.sort_unstable_by_key(key);
        }
        for (piece, index) in pieces.iter().zip(0u8..) {
            let (first, end) = &mut table.spans[piece.node.index()];
            *first = if *end == 0 { index } else { *first };
            *end = index + 1;
        }
        table
    }
}

/// How a memory map is cut into spans.
#[derive(Clone, Debug)]
pub struct Plan {
    pieces: [Piece; MAX_SPANS],
    count: usize,
}

impl Plan {
    /// Cuts up the memory map.
    ///
    /// # Errors
    /// [`FrameError::BadRange`], [`FrameError::TooManySpans`], [`FrameError::NoNode`] for a map without memory.
    pub fn new(config: &Config<'_>) -> Result<Self, FrameError> {
        let none = Piece { node: NodeId::new(0), zone: Zone::Normal, first: 0, end: 0 };
        let mut plan = Self { pieces: [none; MAX_SPANS], count: 0 };
        let mut done = FrameId::new(0);
        while let Some(&(node, range)) =
            config.memory.iter().filter(|(_, range)| range.end > done).min_by_key(|(_, range)| range.start)
        {
            if range.start < done || range.is_empty() {
                return Err(FrameError::BadRange);
            }
            done = range.end;
            plan.add(node, range.start.chunk(), range.end.number().div_ceil(CHUNK_FRAMES))?;
        }
        if plan.count == 0 { Err(FrameError::NoNode) } else { plan.split_huge() }
    }

    fn add(&mut self, node: NodeId, first: usize, end: usize) -> Result<(), FrameError> {
        // A chunk that two nodes share belongs to the lower one; the other's frames in it stay unused.
        let taken = self.last().map_or(0, |last| last.end);
        let mut first =
            if self.last().is_some_and(|last| last.node != node) { first.max(taken) } else { first };
        if first < DMA_END && first < end {
            self.extend(Piece { node, zone: Zone::Dma, first, end: end.min(DMA_END) })?;
            first = DMA_END;
        }
        if first < end { self.extend(Piece { node, zone: Zone::Normal, first, end }) } else { Ok(()) }
    }

    fn last(&self) -> Option<&Piece> {
        self.pieces[..self.count].last()
    }

    fn extend(&mut self, piece: Piece) -> Result<(), FrameError> {
        if let Some(last) = self.pieces[..self.count].last_mut()
            && last.node == piece.node
            && last.zone == piece.zone
            && piece.first < last.end + GAP
        {
            last.end = piece.end.max(last.end);
            return Ok(());
        }
        self.insert(self.count, piece)
    }

    fn insert(&mut self, at: usize, piece: Piece) -> Result<(), FrameError> {
        if self.count == MAX_SPANS {
            return Err(FrameError::TooManySpans);
        }
        self.pieces.copy_within(at..self.count, at + 1);
        self.pieces[at] = piece;
        self.count += 1;
        Ok(())
    }

    /// Makes the upper half or so of each normal span its own, at a boundary that cuts no large block.
    fn split_huge(mut self) -> Result<Self, FrameError> {
        let mut at = 0;
        while at < self.count {
            let piece = self.pieces[at];
            let middle = piece.first.midpoint(piece.end);
            let quarter = (piece.end - piece.first) / 4;
            let mut cuts = HUGE_STEPS.into_iter().map(|step| middle.next_multiple_of(step));
            let cut = cuts.find(|&cut| cut + quarter.max(1) <= piece.end && cut > piece.first);
            if piece.zone == Zone::Normal
                && let Some(cut) = cut
            {
                self.pieces[at].end = cut;
                self.insert(at + 1, Piece { zone: Zone::Huge, first: cut, ..piece })?;
                at += 1;
            }
            at += 1;
        }
        Ok(self)
    }

    fn pieces(&self) -> &[Piece] {
        &self.pieces[..self.count]
    }

    /// The node whose metadata memory also holds the tables that all nodes share.
    fn root(&self) -> NodeId {
        self.pieces[0].node
    }

    /// Bytes of metadata that the node's memory must provide, 0 for a node without memory. A multiple of 8.
    #[must_use]
    pub fn metadata_bytes(&self, node: NodeId) -> usize {
        let own: usize = self.pieces().iter().filter(|piece| piece.node == node).map(Piece::bytes).sum();
        if own == 0 || node != self.root() {
            return own;
        }
        let tables = self.count * size_of::<Span<'_>>() + size_of::<NodeTable>();
        own + (tables + align_of::<Span<'_>>() + align_of::<NodeTable>()).next_multiple_of(size_of::<u64>())
    }

    /// Nodes that have memory.
    #[must_use]
    pub fn nodes(&self) -> NodeSet {
        self.pieces().iter().map(|piece| piece.node).collect()
    }
}

impl<'m> Frames<'m> {
    /// Builds the allocator. `memory` is asked once per node that has memory, for the number of bytes that
    /// [`Plan::metadata_bytes`] says, and returns words that may hold anything; by rights they lie on that node.
    ///
    /// # Errors
    /// [`FrameError::SmallMetadata`] when it returns less.
    pub fn new(
        config: &Config<'_>,
        plan: &Plan,
        mut memory: impl FnMut(NodeId, usize) -> &'m mut [u64],
    ) -> Result<Self, FrameError> {
        let mut carves = [const { None }; MAX_NODES];
        for node in plan.nodes().iter() {
            carves[node.index()] = Some(Carve::new(memory(node, plan.metadata_bytes(node))));
        }
        let root = &mut carves[plan.root().index()];
        let root = root.as_mut().ok_or(FrameError::SmallMetadata)?;
        let nodes = &*root.list(1, |_| NodeTable::new(plan.pieces(), config.distance))?;
        let spans = root.room(plan.count)?;
        let per_node =
            |node| plan.pieces().iter().filter(|p| p.node == node).map(|p| p.end - p.first).sum::<usize>();
        let cores_per_node = config.cores.div_ceil(plan.nodes().len());
        for (place, piece) in spans.iter_mut().zip(plan.pieces()) {
            let carve = carves[piece.node.index()].as_mut().ok_or(FrameError::SmallMetadata)?;
            let keep = piece.zone != Zone::Dma && per_node(piece.node) >= KEEP_CHUNKS * cores_per_node;
            let mut span = build(piece, carve, keep)?;
            populate(&mut span, config);
            place.write(span);
        }
        // SAFETY: the loop has written every element: there are as many pieces as places.
        let spans = unsafe { spans.assume_init_mut() };
        Ok(Self { spans, nodes: &nodes[0], populated: plan.nodes() })
    }
}

/// A span in which nothing is managed yet.
fn build<'m>(piece: &Piece, carve: &mut Carve<'m>, keep: bool) -> Result<Span<'m>, FrameError> {
    let chunks = carve.list(piece.end - piece.first, |_| Chunk::holes())?;
    let states = carve.list(piece.capacity(), |_| AtomicU16::new(State::Absent.pack()))?;
    let mut index = || {
        let words = carve.list(Index::words(piece.capacity()), |_| AtomicU64::new(0))?;
        Ok(Index::new(words, piece.capacity()))
    };
    let whole = index()?;
    let lists = [index()?, index()?, index()?, index()?];
    Ok(Span {
        node: piece.node,
        zone: piece.zone,
        base: piece.base(),
        first: piece.first - piece.base(),
        frames: 0,
        keep,
        chunks,
        states,
        whole,
        lists,
    })
}

/// Makes the span's part of the memory map free.
fn populate(span: &mut Span<'_>, config: &Config<'_>) {
    let chunks = |range: PhysRange| {
        let first = range.start.chunk().max(span.base + span.first);
        first..range.end.number().div_ceil(CHUNK_FRAMES).min(span.base + span.states.len())
    };
    for &(_, range) in config.memory.iter().filter(|(node, _)| *node == span.node) {
        for chunk in chunks(range) {
            words_of(range, chunk).for_each(|(word, mask)| span.chunk(chunk - span.base).add(word, mask));
        }
    }
    for &range in config.taken {
        for chunk in chunks(range) {
            words_of(range, chunk)
                .for_each(|(word, mask)| span.chunk(chunk - span.base).hand_out(word, mask));
        }
    }
    for &range in config.reserved {
        for chunk in chunks(range) {
            words_of(range, chunk).for_each(|(word, mask)| span.chunk(chunk - span.base).exclude(word, mask));
        }
    }
    for offset in span.first..span.states.len() {
        let chunk = span.chunk(offset);
        let state = match chunk.level() {
            _ if chunk.is_open() => State::Unsplit,
            Level::NONE if chunk.managed() == 0 => State::Absent,
            level => State::Pooled(level),
        };
        // ORDER: Relaxed: one thread builds the allocator; sharing it publishes.
        span.states[offset].store(state.pack(), Ordering::Relaxed);
        match state {
            State::Unsplit => span.whole.set(offset),
            State::Pooled(level) => level.list().into_iter().for_each(|list| span.lists[list].set(offset)),
            _ => {}
        }
        span.frames += chunk.managed();
    }
}

/// The part of a range that lies in a chunk, word by word.
fn words_of(range: PhysRange, chunk: usize) -> impl Iterator<Item = (usize, u64)> {
    let start = chunk * CHUNK_FRAMES;
    let (from, to) = (range.start.number().max(start), range.end.number().min(start + CHUNK_FRAMES));
    (0..CHUNK_FRAMES / WORD_FRAMES).filter_map(move |word| {
        let low = start + word * WORD_FRAMES;
        let (from, to) = (from.max(low), to.min(low + WORD_FRAMES));
        let bits = to.checked_sub(from).filter(|&bits| bits > 0)?;
        let ones = if bits == WORD_FRAMES { u64::MAX } else { (1 << bits) - 1 };
        Some((word, ones << (from - low)))
    })
}
