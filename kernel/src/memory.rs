//! Physical memory: the kernel's frame allocator, its core-local caches, and who feeds it.

use mm::frames::{Config, CoreCache, Frames, Plan, Request};
use mm::space::FrameInfo;
use mm::{FrameError, FrameId, Order, PhysRange};
use percpu::sync::atomic::{AtomicU64, Ordering};
use percpu::{CoreCell, CoreId, IrqOff, NodeId, core_local};
use spin::Once;
use x86_64::{PhysAddr, VirtAddr};

use crate::arch::paging::{self, Kind};
use crate::arch::walk;
use crate::early;
use crate::image;
use crate::layout::{self, INFO};
use crate::loader::{self, MAX_RANGES, Module, Use};
use crate::{cores, machine, start, symbols};

const NOTHING: PhysRange = PhysRange::new(FrameId::new(0), FrameId::new(0));

static FRAMES: Once<Frames<'static>> = Once::new();

core_local! {
    /// This core's part of the frame allocator.
    static CACHE: CoreCell<CoreCache<'static>> = CoreCell::new(CoreCache::new(CoreId::new(0), NodeId::new(0)));
}

/// Bytes that were taken before the frame allocator was there, the image and kept files included, the laboratory not. Written once, by
/// [`init`].
static KEPT_BYTES: AtomicU64 = AtomicU64::new(0);

/// Ranges with their nodes, of fixed capacity: a range of the memory map can fall into several at node borders.
struct NodeRanges {
    items: [(NodeId, PhysRange); MAX_RANGES],
    len: usize,
}

impl NodeRanges {
    /// What the frame allocator will have: the memory that is left, and the loader's.
    fn free() -> Self {
        let none = (NodeId::new(0), NOTHING);
        let mut ranges = Self { items: [none; MAX_RANGES], len: 0 };
        early::with(|early| early.ranges().iter().for_each(|&range| ranges.add(range)));
        start::handover().ranges.of(Use::Reclaimable).for_each(|range| ranges.add(range));
        ranges.add(loaded_part());
        ranges.add(image::given_back());
        programs().for_each(|range| ranges.add(range));
        ranges
    }

    fn all(&self) -> &[(NodeId, PhysRange)] {
        &self.items[..self.len]
    }

    /// Cuts a range at the borders of the firmware's affinity ranges; what none covers is node 0's.
    fn add(&mut self, range: PhysRange) {
        let topology = machine::topology();
        let mut at = range.start.address();
        let end = range.end.address();
        while at < end {
            let (node, until) = match topology.range_of(at) {
                Some(known) => (known.node, known.end),
                None => {
                    let next = topology.memory().iter().map(|r| r.start).find(|&s| s > at);
                    (NodeId::new(0), next.unwrap_or(end))
                }
            };
            let until = until.min(end);
            self.push(node, PhysRange::inside(at, until));
            at = until;
        }
    }

    fn push(&mut self, node: NodeId, range: PhysRange) {
        if range.is_empty() {
            return;
        }
        match self.items.get_mut(self.len) {
            Some(slot) => {
                *slot = (node, range);
                self.len += 1;
            }
            None => crate::log!("memory: no room to keep track of {range:?}: not used"),
        }
    }
}

/// Builds the frame allocator from all memory that is left, the loader's included: every core has left its stack and its tables.
///
/// # Errors
/// As [`Plan::new`] and [`Frames::new`]; [`FrameError::OutOfMemory`] where a node has no room for its metadata.
pub(crate) fn init() -> Result<(), FrameError> {
    let topology = machine::topology();
    for &(node, range) in NodeRanges::free().all() {
        map_info(node, range).ok_or(FrameError::OutOfMemory)?;
    }
    // Again, since the words have taken a part.
    let ranges = NodeRanges::free();
    let distance = |a: NodeId, b: NodeId| {
        let known = a.index() < topology.node_count() && b.index() < topology.node_count();
        if known { topology.distance(a, b) } else { u8::MAX }
    };
    let memory = ranges.all();
    let mut taken = [NOTHING; loader::MAX_PROGRAMS];
    taken.iter_mut().zip(programs()).for_each(|(slot, range)| *slot = range);
    let config =
        Config { memory, reserved: &[], taken: &taken, distance: &distance, cores: topology.core_count() };
    let plan = Plan::new(&config)?;
    let mut reserved = [NOTHING; percpu::MAX_NODES];
    for node in plan.nodes().iter() {
        let bytes = plan.metadata_bytes(node) as u64;
        let at = early::take_near(node, bytes).ok_or(FrameError::OutOfMemory)?.as_u64();
        reserved[node.index()] = PhysRange::covering(at, at + bytes);
    }
    let config = Config { reserved: &reserved, ..config };
    let frames = Frames::new(&config, &plan, |node, bytes| {
        let at = layout::direct(PhysAddr::new(reserved[node.index()].start.address())).as_mut_ptr::<u64>();
        // SAFETY: `take_near` gave this node's metadata that much zeroed memory above, for good, and this is its one use.
        unsafe { core::slice::from_raw_parts_mut(at, bytes / size_of::<u64>()) }
    })?;
    FRAMES.call_once(|| frames);
    let taken = early::finish();
    let kept: u64 =
        start::handover().ranges.of(Use::Kept).map(|range| range.frames() as u64 * early::PAGE).sum();
    let managed = loaded_part().frames() + programs().map(|range| range.frames()).sum::<usize>();
    let kept = kept - managed as u64 * early::PAGE - laboratory_bytes();
    // ORDER: Relaxed; read for reports only, after every core has been started by calls that order it.
    KEPT_BYTES.store(taken + kept, Ordering::Relaxed);
    Ok(())
}

/// The frames of the bundle's programs: in use until `programs::install` has read them.
fn programs() -> impl Iterator<Item = PhysRange> {
    start::handover().programs().iter().map(Module::range)
}

/// The frames of the kernel's ELF file that hold nothing but what has been loaded elsewhere: headers and segments.
fn loaded_part() -> PhysRange {
    match (start::handover().file, symbols::first_byte()) {
        (Some((file, _)), Some(first)) => PhysRange::inside(file.as_u64(), file.as_u64() + first as u64),
        _ => NOTHING,
    }
}

/// Pages of [`INFO`] hold the words of so many frames.
const INFO_FRAMES: u64 = early::PAGE / size_of::<FrameInfo>() as u64;

/// Maps zeroed memory of the node for the words of a range's frames. `None` if there is none.
fn map_info(node: NodeId, range: PhysRange) -> Option<()> {
    let is_there = |page: u64| walk::lookup(VirtAddr::new(INFO.base + page * early::PAGE)).is_some();
    let mut first = range.start.number() as u64 / INFO_FRAMES;
    let mut end = (range.end.number() as u64).div_ceil(INFO_FRAMES);
    // Neighbouring ranges share a page at most at each end.
    while first < end && is_there(first) {
        first += 1;
    }
    while first < end && is_there(end - 1) {
        end -= 1;
    }
    if first == end {
        return Some(());
    }
    let bytes = (end - first) * early::PAGE;
    let at = early::take_near(node, bytes)?.as_u64();
    let to = VirtAddr::new(INFO.base + first * early::PAGE);
    paging::map(to, PhysRange::inside(at, at + bytes), Kind::Data)
}

/// Gives the core that runs this its own cache. Before its first allocation.
pub(crate) fn enter(core: CoreId) {
    let node = machine::topology().node_of(core);
    IrqOff::with(|irq| CACHE.with_mut(irq, |cache| *cache = CoreCache::new(core, node)));
}

/// The frame allocator.
pub(crate) fn frames() -> &'static Frames<'static> {
    FRAMES.get().expect("the frame allocator is built before anything but bring-up asks for it")
}

/// Runs `f` with the allocator and this core's cache.
#[inline(always)]
pub(crate) fn with<R>(
    irq: &IrqOff,
    f: impl FnOnce(&'static Frames<'static>, &mut CoreCache<'static>) -> R,
) -> R {
    let frames = frames();
    CACHE.with_mut(irq, |cache| f(frames, cache))
}

/// A zeroed frame for a page table.
pub(crate) fn table_frame() -> Option<PhysAddr> {
    if FRAMES.get().is_none() {
        return early::page();
    }
    let frame =
        IrqOff::with(|irq| with(irq, |frames, cache| frames.get_from(cache, Order::FRAME, Request::LOCAL)));
    let at = PhysAddr::new(frame.ok()?.address());
    // SAFETY: the frame is ours alone and the direct map shows all memory.
    unsafe { layout::direct(at).as_mut_ptr::<u8>().write_bytes(0, early::PAGE as usize) };
    Some(at)
}

/// Bytes that the memory map names: usable, the loader's, and what holds the kernel and firmware tables.
pub(crate) fn total_bytes() -> u64 {
    start::handover().ranges.all().iter().map(|(range, _)| range.frames() as u64 * early::PAGE).sum()
}

/// A block of frames that goes back when it is dropped. It is dropped on the core that uses it.
pub(crate) struct Block {
    frame: FrameId,
    order: Order,
}

impl Block {
    /// A block of normal memory near this core.
    pub(crate) fn new(order: Order) -> Option<Self> {
        Self::on(order, Request::LOCAL)
    }

    /// A block where the request says.
    pub(crate) fn on(order: Order, request: Request) -> Option<Self> {
        let frame = IrqOff::with(|irq| with(irq, |frames, cache| frames.get_from(cache, order, request)));
        Some(Self { frame: frame.ok()?, order })
    }

    /// The block's first frame.
    pub(crate) fn frame(&self) -> FrameId {
        self.frame
    }

    /// The block's first byte in the direct map.
    pub(crate) fn start(&self) -> *mut u8 {
        layout::direct(PhysAddr::new(self.frame.address())).as_mut_ptr()
    }

    /// The first `count` 32-bit words, with whatever is in them.
    ///
    /// # Panics
    /// If the block is smaller.
    pub(crate) fn u32s(&mut self, count: usize) -> &mut [u32] {
        assert!(count * size_of::<u32>() <= self.order.frames() * early::PAGE as usize);
        // SAFETY: the block is ours alone, visible in the direct map, and any bytes are a `u32`.
        unsafe { core::slice::from_raw_parts_mut(self.start().cast(), count) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let put = IrqOff::with(|irq| with(irq, |frames, cache| frames.put(cache, self.frame, self.order)));
        put.expect("a block that was taken can be given back once");
    }
}

/// `count` values for good, on the calling core's node; `None` if there is not that much contiguous memory.
pub(crate) fn array<T: Copy>(count: usize, value: T) -> Option<&'static mut [T]> {
    array_of(count, |_| value)
}

/// As [`array`], each value by its index.
pub(crate) fn array_of<T>(count: usize, value: impl Fn(usize) -> T) -> Option<&'static mut [T]> {
    const { assert!(align_of::<T>() <= early::PAGE as usize) };
    let block = Block::new(Order::for_bytes(count * size_of::<T>())?)?;
    let at = block.start().cast::<T>();
    core::mem::forget(block);
    for i in 0..count {
        // SAFETY: the block is large enough and frame aligned.
        let slot = unsafe { at.add(i) };
        // SAFETY: as above, and it is ours for good.
        unsafe { slot.write(value(i)) };
    }
    // SAFETY: `count` initialised values that nobody else has and that are never given back.
    Some(unsafe { core::slice::from_raw_parts_mut(at, count) })
}

/// Free frames of all nodes, those in caches included. Exact only while no core allocates.
pub(crate) fn free_frames() -> usize {
    frames().stats().free
}

/// Bytes of a node that the memory map names, whoever has them now.
pub(crate) fn node_bytes(node: NodeId) -> u64 {
    let topology = machine::topology();
    let overlap = |range: PhysRange, start: u64, end: u64| {
        range.end.address().min(end).saturating_sub(range.start.address().max(start))
    };
    let map = start::handover().ranges.all().iter().map(|&(range, _)| range);
    map.map(|range| {
        let known = topology.memory().iter();
        let covered: u64 = known.clone().map(|m| overlap(range, m.start, m.end)).sum();
        let own: u64 = known.filter(|m| m.node == node).map(|m| overlap(range, m.start, m.end)).sum();
        // What no affinity range covers is node 0's.
        let rest = range.frames() as u64 * early::PAGE - covered;
        if node == NodeId::new(0) { own + rest } else { own }
    })
    .sum()
}

/// Gives back what every core's cache holds, so that all free memory is in the open.
pub(crate) fn drain_all(crew: &mut cores::Crew) {
    crew.run(&cores::all_online(), |held| with(held, |frames, cache| frames.drain(cache)));
}

/// Bytes of the tests' and benchmarks' code, which a kernel that runs neither does not keep.
pub(crate) fn laboratory_bytes() -> u64 {
    image::laboratory().frames() as u64 * early::PAGE
}

/// Bytes that the kernel itself occupies in operation: image without [`laboratory_bytes`], bundle, page tables, metadata, stacks and
/// core-local data.
pub(crate) fn kernel_bytes() -> u64 {
    // ORDER: Relaxed; see `init`.
    KEPT_BYTES.load(Ordering::Relaxed)
}

/// Gives back the frames of a program's file, which nobody will read any more. Once for each.
pub(crate) fn give_back(module: &Module) {
    let range = module.range();
    for frame in range.start.number()..range.end.number() {
        let put = IrqOff::with(|irq| {
            with(irq, |frames, cache| frames.put(cache, FrameId::new(frame), Order::FRAME))
        });
        put.expect("the frames of programs were handed out one by one when the allocator was made");
    }
}
