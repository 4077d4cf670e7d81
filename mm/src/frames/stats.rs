//! Figures per node and zone, counted when asked for: the fast paths keep no counters.

use super::Frames;
use super::span::Span;
use super::state::State;
use crate::id::{CHUNK_FRAMES, CHUNK_ORDER, Order, Zone};
use percpu::NodeId;

/// How the memory of a node or zone is used. Exact when nothing changes meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Managed frames.
    pub frames: usize,
    /// Free frames, those that cores hold included.
    pub free: usize,
    /// Free frames inside chunks that cores have reserved or keep in magazines.
    pub held: usize,
    /// Chunks of which every frame is free and that no core holds.
    pub whole_chunks: usize,
    /// Chunks reserved by a core or in a magazine.
    pub held_chunks: usize,
    /// Chunks split into small blocks, reserved ones included.
    pub split_chunks: usize,
}

impl Stats {
    /// The largest number of wholly free chunks that this many free frames can form.
    #[must_use]
    pub const fn ideal_chunks(&self) -> usize {
        self.free / CHUNK_FRAMES
    }

    fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.free += other.free;
        self.held += other.held;
        self.whole_chunks += other.whole_chunks;
        self.held_chunks += other.held_chunks;
        self.split_chunks += other.split_chunks;
    }
}

fn of_span(span: &Span<'_>) -> Stats {
    let whole_chunks = span.whole.len();
    let mut stats =
        Stats { frames: span.frames, whole_chunks, free: whole_chunks * CHUNK_FRAMES, ..Stats::default() };
    for offset in span.first..span.states.len() {
        match span.state(offset) {
            State::Held => {
                stats.free += CHUNK_FRAMES;
                stats.held += CHUNK_FRAMES;
                stats.held_chunks += 1;
            }
            state @ (State::Reserved(_) | State::Pooled(_)) => {
                let (open, mine) = span.chunk(offset).count();
                let reserved = matches!(state, State::Reserved(_));
                stats.free += open + mine;
                stats.held += if reserved { open + mine } else { 0 };
                stats.held_chunks += usize::from(reserved);
                stats.split_chunks += 1;
            }
            State::Absent | State::Unsplit | State::Huge(_) => {}
        }
    }
    stats
}

impl Frames<'_> {
    /// The whole machine's figures.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.sum(|_| true)
    }

    /// One node's figures.
    #[must_use]
    pub fn node_stats(&self, node: NodeId) -> Stats {
        self.sum(|span| span.node == node)
    }

    /// The figures of one zone of one node.
    #[must_use]
    pub fn zone_stats(&self, node: NodeId, zone: Zone) -> Stats {
        self.sum(|span| span.node == node && span.zone == zone)
    }

    /// How many blocks of a chunk or more could be taken at once, cores' caches aside; 0 for smaller orders.
    #[must_use]
    pub fn free_blocks(&self, order: Order) -> usize {
        let Some(run) = order.get().checked_sub(CHUNK_ORDER.get()) else { return 0 };
        self.spans.iter().map(|span| span.whole.count_runs(run, span.base)).sum()
    }

    fn sum(&self, of: impl Fn(&Span<'_>) -> bool) -> Stats {
        let mut total = Stats::default();
        self.spans.iter().filter(|span| of(span)).for_each(|span| total.add(of_span(span)));
        total
    }
}
