//! Memory before there is a frame allocator: usable ranges of the memory map, consumed from the bottom of each node.
//!
//! What is taken here is kept forever (page tables, allocator metadata, core areas). It lies where the frame allocator starts too, at the
//! low end, so that large blocks stay whole at the other; memory below 16 MiB is left to devices that need it.

use mm::{FrameId, PhysRange};
use percpu::{IrqOff, NodeId};
use x86_64::PhysAddr;

use crate::loader::{MAX_RANGES, Ranges, Use};
use crate::{levels, machine};

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;
/// Nothing below is used: it is the frame allocator's zone for old devices.
const LOWEST: u64 = 16 << 20;

const EMPTY: PhysRange = PhysRange::new(FrameId::new(0), FrameId::new(0));

/// The usable ranges that are left.
pub(crate) struct Early {
    ranges: [PhysRange; MAX_RANGES],
    len: usize,
    taken: u64,
    /// Where physical memory is visible at present, so that it can be zeroed.
    offset: u64,
}

impl Early {
    /// All usable ranges of the memory map; physical memory is visible at `offset`.
    pub(crate) fn new(map: &Ranges, offset: u64) -> Self {
        let mut early = Self { ranges: [EMPTY; MAX_RANGES], len: 0, taken: 0, offset };
        for range in map.of(Use::Usable) {
            early.ranges[early.len] = range;
            early.len += 1;
        }
        early
    }

    /// Tells where physical memory is visible from now on.
    pub(crate) fn relocate(&mut self, offset: u64) {
        self.offset = offset;
    }

    /// The ranges that are left.
    pub(crate) fn ranges(&self) -> &[PhysRange] {
        &self.ranges[..self.len]
    }

    /// Takes `bytes` bytes, rounded up to pages and zeroed, from within `within`: the lowest place that has them.
    pub(crate) fn take_within(&mut self, bytes: u64, within: PhysRange) -> Option<PhysAddr> {
        let bytes = bytes.next_multiple_of(PAGE);
        let fits = |range: &PhysRange| {
            let start = range.start.max(within.start).address().max(LOWEST);
            let end = range.end.min(within.end).address();
            (start < end && end - start >= bytes).then_some(start)
        };
        let (index, start) = (0..self.len)
            .filter_map(|i| fits(&self.ranges[i]).map(|start| (i, start)))
            .min_by_key(|&(_, start)| start)?;
        let end = start + bytes;
        self.cut(index, start, end)?;
        self.taken += bytes;
        let at = (self.offset + start) as *mut u8;
        // SAFETY: the range was usable memory that nothing owned, visible at `offset`; it now belongs to the caller.
        unsafe { at.write_bytes(0, bytes as usize) };
        Some(PhysAddr::new(start))
    }

    /// Takes bytes from anywhere.
    pub(crate) fn take(&mut self, bytes: u64) -> Option<PhysAddr> {
        self.take_within(bytes, PhysRange::inside(0, u64::MAX))
    }

    /// Removes `[start, end)` from range `index`; what lies below it becomes a range of its own, if anything does.
    fn cut(&mut self, index: usize, start: u64, end: u64) -> Option<()> {
        let range = self.ranges[index];
        if start > range.start.address() {
            *self.ranges.get_mut(self.len)? = PhysRange::new(range.start, FrameId::containing(start));
            self.len += 1;
        }
        self.ranges[index] = PhysRange::new(FrameId::containing(end), range.end);
        Some(())
    }
}

/// Uses the early memory; `None` once the frame allocator has taken over.
pub(crate) fn with<R>(f: impl FnOnce(&mut Early) -> R) -> Option<R> {
    IrqOff::with(|irq| irq.locks(|held| levels::EARLY.with(held, |early, _| early.as_mut().map(f))))
}

/// Takes bytes on a node, or on the nearest one that has them: zeroed, page aligned.
pub(crate) fn take_near(node: NodeId, bytes: u64) -> Option<PhysAddr> {
    let topology = machine::topology();
    let on_node = |early: &mut Early, node| {
        let mut ranges = topology.memory().iter().filter(|range| range.node == node);
        ranges.find_map(|range| early.take_within(bytes, PhysRange::inside(range.start, range.end)))
    };
    with(|early| {
        let near = topology.nodes_by_distance(node).find_map(|n| on_node(early, n));
        // Without an SRAT no range has a node.
        near.or_else(|| early.take(bytes))
    })
    .flatten()
}

/// Ends early memory and returns how many bytes were taken. What is left belongs to the frame allocator from now on.
pub(crate) fn finish() -> u64 {
    let early = IrqOff::with(|irq| irq.locks(|held| levels::EARLY.with(held, |early, _| early.take())));
    early.map_or(0, |early| early.taken)
}

/// A zeroed page for a page table.
pub(crate) fn page() -> Option<PhysAddr> {
    with(|early| early.take(PAGE)).flatten()
}
