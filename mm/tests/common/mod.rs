//! A machine for address spaces on the host: frames in an arena, a pool that watches what it gives and takes, and the CPU's side of paging.

#![expect(dead_code, reason = "each test file uses a part")]

pub(crate) mod bed;

use mm::bank::Payer;
use mm::frames::Policy;
use mm::space::{Access, Broken, FrameInfo, Memory, Pool, Shortage, Space, Usage};
use mm::{FrameId, Order, PageId};
use percpu::sync::atomic::{AtomicU64, Ordering};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;
use std::sync::Mutex;

/// The first frame of every arena: aligned to the largest block.
pub(crate) const BASE: usize = 1 << 18;

/// Memory of one arena, which lives for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arena {
    start: NonNull<u8>,
    info: &'static [FrameInfo],
}

// SAFETY: only an address and shared words.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) fn new(frames: usize) -> Self {
        let layout = std::alloc::Layout::from_size_align(frames * 4096, 1 << 21).unwrap();
        // SAFETY: the layout has a size.
        let start = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("host memory");
        let info: Vec<FrameInfo> = (0..frames).map(|_| FrameInfo::new()).collect();
        Self { start, info: Vec::leak(info) }
    }

    /// Gives the memory back; nobody uses the arena any more.
    pub(crate) fn free(self) {
        let layout = std::alloc::Layout::from_size_align(self.info.len() * 4096, 1 << 21).unwrap();
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), layout) };
    }

    /// One word of a frame.
    pub(crate) fn word(self, frame: FrameId, index: usize) -> *mut u64 {
        // SAFETY: inside the frame.
        unsafe { self.at(frame).cast::<u64>().add(index).as_ptr() }
    }

    pub(crate) fn read(self, frame: FrameId, index: usize) -> u64 {
        // SAFETY: inside the arena; other threads do not write it now.
        unsafe { self.word(frame, index).read_volatile() }
    }

    pub(crate) fn write(self, frame: FrameId, index: usize, value: u64) {
        // SAFETY: as above.
        unsafe { self.word(frame, index).write_volatile(value) };
    }
}

// SAFETY: the arena is never freed, frames follow each other, and each has its word.
unsafe impl Memory for Arena {
    fn at(self, frame: FrameId) -> NonNull<u8> {
        let index = frame.number().checked_sub(BASE).expect("a frame of the arena");
        assert!(index < self.info.len(), "{frame:?} is not in the arena");
        // SAFETY: inside the allocation.
        unsafe { self.start.add(index * 4096) }
    }

    fn info(self, frame: FrameId) -> &'static FrameInfo {
        &self.info[frame.number() - BASE]
    }

    /// A block of 1 GiB is zero from the host, which has no such memory unless it is touched.
    fn zero(self, frame: FrameId, order: Order) {
        if order != Order::GIANT {
            // SAFETY: inside the arena, and the block is the caller's.
            unsafe { self.at(frame).cast::<u64>().write_bytes(0, order.frames() * 512) };
        }
    }
}

/// What a freed frame's words say.
pub(crate) const POISON: u64 = 0xdead_beef_dead_beef;

#[derive(Debug)]
struct State {
    /// Free frames.
    free: BTreeSet<usize>,
    taken: BTreeMap<usize, Order>,
    retired: Vec<FrameId>,
    /// Takes that succeed before one fails; `None`: all do.
    fail_at: Option<usize>,
    takes: usize,
    /// What each payer has been charged, and may still be.
    charged: BTreeMap<u64, usize>,
    left: BTreeMap<u64, usize>,
}

/// Gives frames and watches: no frame is given twice, taken back twice, or in another size.
#[derive(Debug)]
pub(crate) struct Watch {
    arena: Arena,
    state: Mutex<State>,
}

impl Watch {
    /// A pool of the arena's first frames.
    pub(crate) fn new(arena: Arena, frames: usize) -> Self {
        let free = (BASE..BASE + frames).collect();
        let state = State {
            free,
            taken: BTreeMap::new(),
            retired: Vec::new(),
            fail_at: None,
            takes: 0,
            charged: BTreeMap::new(),
            left: BTreeMap::new(),
        };
        Self { arena, state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes the `n`th take from now on fail, counted from 0.
    pub(crate) fn fail_at(&self, n: Option<usize>) {
        let mut state = self.state();
        state.takes = 0;
        state.fail_at = n;
    }

    /// Lets a payer be charged so much more and no more; as much as it likes if nothing is said.
    pub(crate) fn limit(&self, payer: u64, frames: usize) {
        self.state().left.insert(payer, frames);
    }

    /// Payers that have been charged for something they have not been paid back for.
    pub(crate) fn owing(&self) -> BTreeMap<u64, usize> {
        self.state().charged.iter().filter(|(_, charged)| **charged != 0).map(|(&p, &c)| (p, c)).collect()
    }

    /// How often frames were asked for since.
    pub(crate) fn takes(&self) -> usize {
        self.state().takes
    }

    /// Frames that are taken, retired ones not counted.
    pub(crate) fn used(&self) -> usize {
        let state = self.state();
        state.taken.values().map(|order| order.frames()).sum::<usize>() - state.retired.len()
    }

    /// Every core has left the kernel: what was retired is free.
    pub(crate) fn grace(&self) {
        let retired = std::mem::take(&mut self.state().retired);
        for frame in retired {
            self.put(frame, Order::FRAME);
        }
    }

    fn put(&self, frame: FrameId, order: Order) {
        let mut state = self.state();
        let taken = state.taken.remove(&frame.number());
        assert_eq!(taken, Some(order), "{frame:?} goes back as it was taken");
        for number in frame.number()..frame.number() + order.frames() {
            // A block of 1 GiB is memory that nobody has touched, and stays so.
            let marks: &[usize] = if order == Order::GIANT { &[] } else { &[0, 1, 511] };
            for &index in marks {
                self.arena.write(FrameId::new(number), index, POISON);
            }
            assert!(state.free.insert(number));
        }
    }
}

/// A core's way to the pool.
#[derive(Debug)]
pub(crate) struct Tap<'w>(pub(crate) &'w Watch);

impl Pool for Tap<'_> {
    fn take(&mut self, order: Order, _: Policy) -> Result<FrameId, Shortage> {
        let mut state = self.0.state();
        let this = state.takes;
        state.takes += 1;
        if state.fail_at == Some(this) {
            return Err(Shortage::Memory);
        }
        let count = order.frames();
        let whole = |&&start: &&usize| {
            start % count == 0 && (start..start + count).all(|number| state.free.contains(&number))
        };
        // Large blocks from the top, so that small ones do not get in their way.
        let found = if count == 1 {
            state.free.first().copied()
        } else {
            state.free.iter().rev().find(whole).copied()
        };
        let start = found.ok_or(Shortage::Memory)?;
        for number in start..start + count {
            state.free.remove(&number);
        }
        state.taken.insert(start, order);
        Ok(FrameId::new(start))
    }

    fn give(&mut self, frame: FrameId, order: Order) {
        self.0.put(frame, order);
    }

    fn draw(&mut self, payer: Payer, least: usize, most: usize) -> Option<usize> {
        let mut state = self.0.state();
        let got = match state.left.get_mut(&payer.word()) {
            Some(left) if *left < least => return None,
            Some(left) => {
                let got = most.min(*left / 8).max(least);
                *left -= got;
                got
            }
            None => most,
        };
        *state.charged.entry(payer.word()).or_default() += got;
        Some(got)
    }

    fn pay_back(&mut self, payer: Payer, amount: usize) {
        let mut state = self.0.state();
        let charged = state.charged.entry(payer.word()).or_default();
        *charged = charged.checked_sub(amount).expect("no more is paid back than was charged");
        if let Some(left) = state.left.get_mut(&payer.word()) {
            *left += amount;
        }
    }

    fn spare(&self, payer: Payer) -> usize {
        self.0.state().left.get(&payer.word()).copied().unwrap_or(usize::MAX)
    }

    fn retire(&mut self, frame: FrameId) {
        let mut state = self.0.state();
        assert_eq!(state.taken.get(&frame.number()), Some(&Order::FRAME));
        state.retired.push(frame);
    }

    fn split(&mut self, block: FrameId) {
        let mut state = self.0.state();
        assert_eq!(state.taken.remove(&block.number()), Some(Order::HUGE), "{block:?} is a block");
        for number in block.number()..block.number() + 512 {
            state.taken.insert(number, Order::FRAME);
        }
    }

    fn merge(&mut self, block: FrameId) -> bool {
        let mut state = self.0.state();
        let numbers = block.number()..block.number() + 512;
        if numbers.clone().any(|number| state.taken.get(&number) != Some(&Order::FRAME)) {
            return false;
        }
        for number in numbers {
            state.taken.remove(&number);
        }
        state.taken.insert(block.number(), Order::HUGE);
        true
    }
}

/// A translation as the CPU finds it, and caches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translation {
    pub(crate) frame: FrameId,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
    /// 4 KiB pages of the page it belongs to.
    pub(crate) span: usize,
}

impl Translation {
    pub(crate) fn allows(self, access: Access) -> bool {
        match access {
            Access::Read => true,
            Access::Write => self.writable,
            Access::Execute => self.executable,
        }
    }
}

/// The CPU's walk (Intel SDM volume 3, §5.5), written from the manual and not from the code under test.
pub(crate) fn walk(arena: Arena, root: FrameId, page: PageId) -> Option<Translation> {
    let mut table = root;
    let (mut writable, mut executable, mut user) = (true, true, true);
    for level in (1..=4).rev() {
        let index = page.number() >> (9 * (level - 1)) & 511;
        // SAFETY: a word of a table, which is accessed atomically.
        let word = unsafe { AtomicU64::from_ptr(arena.word(table, index)) };
        // ORDER: Acquire pairs with Release in `Table::set`, as a CPU's walk does.
        let entry = word.load(Ordering::Acquire);
        if entry & 1 == 0 {
            return None;
        }
        writable &= entry & 2 != 0;
        user &= entry & 4 != 0;
        executable &= entry >> 63 == 0;
        let frame = (entry >> 12 & ((1 << 40) - 1)) as usize;
        if level == 1 || entry & 0x80 != 0 {
            assert!(level < 4, "no page of 512 GiB");
            assert!(user, "user pages only");
            let span = 1 << (9 * (level - 1));
            assert_eq!(frame % span, 0, "reserved bits of a large page");
            let frame = FrameId::new(frame + page.number() % span);
            return Some(Translation { frame, writable, executable, span });
        }
        table = FrameId::new(frame);
    }
    None
}

/// A core's translation cache: it forgets only what it is told to.
#[derive(Debug, Default)]
pub(crate) struct Tlb(RefCell<BTreeMap<usize, Translation>>);

impl Tlb {
    /// A translation from the cache, or by a walk, which is cached.
    pub(crate) fn translate(&self, arena: Arena, root: FrameId, page: PageId) -> Option<Translation> {
        let known = self.0.borrow().get(&page.number()).copied();
        known.or_else(|| {
            let found = walk(arena, root, page)?;
            self.0.borrow_mut().insert(page.number(), found);
            Some(found)
        })
    }

    /// A fault drops the translation that made it (SDM volume 3, §5.10.4.1).
    pub(crate) fn faulted(&self, page: PageId) {
        self.0.borrow_mut().remove(&page.number());
    }

    /// Forgets what `of` says.
    pub(crate) fn forget(&self, of: impl Fn(PageId) -> bool) {
        self.0.borrow_mut().retain(|&page, _| !of(PageId::new(page)));
    }
}

/// What a space holds: everything that is said twice says the same, and what it has paid for is what it owns (A8).
pub(crate) fn check(space: &Space<Arena>) -> Result<Usage, Broken> {
    let usage = space.check()?;
    let owned = usage.frames() + usage.counted;
    assert_eq!(space.purse().in_use(), owned, "A8: paid for, and owned: {usage:?}");
    Ok(usage)
}
