//! Processes: an address space, a capability table and threads, from an image to the end.
//!
//! * **V1** A process ends once: whoever takes it out of [`ProcessState::Running`] (or `New`) under the lock of its list says how.
//! * **V2** A thread is in its process's list from when it is made until it has ended; none comes in once the process ends.
//! * **V3** The space and the table are taken down by one job (`jobs`), which begins when the process ends without threads, or is given up
//!   before it has started; nobody has a thread in the space then, and cores that still have its tables loaded are told.
//! * **V4** A process keeps the bank that `objects` and its space draw from; another takes over from it before the start only.
//! * **V5** A process that has not begun to run has no capability for one that has not: they could keep each other for ever. Each that has begun
//!   gives up what it has when it ends.

mod ending;
mod making;
mod paying;
mod threads;

use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::mem::{ManuallyDrop, offset_of};

use abi::task::{ExitStatus, NAME_BYTES, ProcessState};
use mm::bank::Purse;
use percpu::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use percpu::{Guests, IrqOff, Lock};

use crate::bank::Bank;
use crate::handler;
use crate::jobs;
use crate::limits::Limits;
use crate::object::{Header, Ref};
use crate::spaces::Space;
use crate::tables::Capabilities;
use threads::Threads;

pub(crate) use making::Maker;

/// A process.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `header` | see [`Header`] | any core | its own |
/// | `state` | under the lock of `threads`; the job | any core | SeqCst / Acquire |
/// | `status` | who ends the process (V1) | who has seen it end | by `state` |
/// | `threads` | any core | any core | its lock |
/// | `space`, `capabilities` | see there; the job ends them (V3) | threads of the process | their own |
/// | `handler` | any core | threads of the process | its lock |
/// | `begun` | once, who starts it | any core | Relaxed: it alone matters |
/// | `ticks`, `faults` | any core | any core | Relaxed: figures |
/// | `guests` | any core | the job | its own, with `state` |
/// | `job` | the job's core | the same | – |
/// | `bank` | under the lock of `threads`, before the start | the same; its threads | by the start |
/// | `objects` | who makes or ends a thread or leaf | any core | its own |
/// | `limits` | once, under the lock of `threads` | any core | Release / Acquire |
#[repr(C, align(64))]
pub(crate) struct Process {
    header: Header,
    space: UnsafeCell<ManuallyDrop<Space>>,
    capabilities: Capabilities,
    threads: Lock<50, Threads>,
    pub(crate) handler: handler::Slot,
    state: AtomicU32,
    begun: AtomicBool,
    status: UnsafeCell<ExitStatus>,
    ticks: AtomicU64,
    faults: AtomicU64,
    /// Cores that are at work on the space for a thread of another process.
    guests: Guests,
    /// The page where the kernel looks next when it may choose.
    place: AtomicU64,
    id: u64,
    parent: u64,
    entry: u64,
    startup: u64,
    main_flags: u64,
    name: [u8; NAME_BYTES],
    pub(crate) job: Cell<jobs::Link>,
    bank: UnsafeCell<Ref<Bank>>,
    /// Pays for the process, its threads and the leaves of its table.
    objects: Purse,
    /// Its limits, or null. Set once, under the lock of `threads`; they stay as long as the process.
    limits: AtomicPtr<Limits>,
}

// SAFETY: every field follows the table above.
unsafe impl Sync for Process {}

/// Memory that a process takes, its table's root apart.
pub(crate) const BYTES: usize = Layout::new::<Process>().size();

const _: () = {
    assert!(offset_of!(Process, header) == 0, "N2: the header comes first");
    assert!(BYTES <= 1024, "a process takes at most 1 KiB, its capability table apart");
    assert!(size_of::<Space>() <= 512, "an address space takes at most 512 bytes, its page tables apart");
};

impl Process {
    /// Its number.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// The number of the process that made it.
    pub(crate) const fn parent(&self) -> u64 {
        self.parent
    }

    /// Its name, filled with zeroes.
    pub(crate) const fn name(&self) -> &[u8; NAME_BYTES] {
        &self.name
    }

    /// Its address space.
    #[inline(always)]
    pub(crate) fn space(&self) -> &Space {
        // SAFETY: it is there until the job ends it, when nobody asks any more (V3).
        unsafe { &*self.space.get() }
    }

    /// Takes the space out, to end it.
    ///
    /// # Safety
    /// 1. Called once, by the job (V3); nobody uses the space afterwards.
    pub(crate) unsafe fn take_space(&self) -> Space {
        // SAFETY: obligation 1.
        let space = unsafe { &mut *self.space.get() };
        // SAFETY: obligation 1.
        unsafe { ManuallyDrop::take(space) }
    }

    /// Its capabilities.
    #[inline(always)]
    pub(crate) const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What it does.
    pub(crate) fn state(&self) -> ProcessState {
        // ORDER: Acquire pairs with Release in `set_state`: what came before is seen.
        match self.state.load(Ordering::Acquire) {
            0 => ProcessState::New,
            1 => ProcessState::Running,
            2 => ProcessState::Ending,
            _ => ProcessState::Ended,
        }
    }

    /// Whether threads may start in it.
    pub(crate) fn is_running(&self) -> bool {
        self.state() == ProcessState::Running
    }

    /// Whether it has not begun to end.
    pub(crate) fn lives(&self) -> bool {
        matches!(self.state(), ProcessState::New | ProcessState::Running)
    }

    /// Whether it runs, or has (V5).
    pub(crate) fn has_begun(&self) -> bool {
        // ORDER: Relaxed: once set it stays, and whoever does not see it yet refuses.
        self.begun.load(Ordering::Relaxed)
    }

    /// Makes it as new as before a start that has failed, unless somebody has ended it meanwhile. Under the lock of the list.
    fn start_again(&self) {
        if self.is_running() {
            self.set_state(ProcessState::New);
        }
    }

    pub(crate) fn set_state(&self, state: ProcessState) {
        // ORDER: SeqCst: as a Release it pairs with Acquire in `state`; it comes before the look at `guests` in the total order (`Guests`).
        self.state.store(state as u32, Ordering::SeqCst);
    }

    /// How it ended, once it has begun to.
    pub(crate) fn status(&self) -> ExitStatus {
        match self.state() {
            ProcessState::New | ProcessState::Running => ExitStatus::default(),
            // SAFETY: written before the state that was just seen, and never again (V1).
            ProcessState::Ending | ProcessState::Ended => unsafe { self.status.get().read() },
        }
    }

    /// Ticks that its ended threads have run, and faults served.
    pub(crate) fn figures(&self) -> (u64, u64) {
        // ORDER: Relaxed, both: figures.
        let ticks = self.ticks.load(Ordering::Relaxed);
        // ORDER: Relaxed; as above.
        (ticks, self.faults.load(Ordering::Relaxed))
    }

    /// Works on the space or the table for a thread of whatever process; `None` if the process does not live any more. It is not taken down
    /// meanwhile (V3).
    pub(crate) fn visit<R>(&self, irq: &mut IrqOff, f: impl FnOnce(&mut IrqOff) -> R) -> Option<R> {
        // ORDER: SeqCst, as `Guests::visit` wants it.
        let lives = || self.state.load(Ordering::SeqCst) <= ProcessState::Running as u32;
        self.guests.visit(lives, || f(irq))
    }

    /// Whether somebody is at work on it who may not have seen that it ends.
    pub(crate) fn has_guests(&self) -> bool {
        self.guests.are_there()
    }

    /// The next page, less one, at which to look for room for so many pages: each is named once, so neighbours in time are neighbours in
    /// space, and share page tables.
    pub(crate) fn next_place(&self, pages: u64) -> u64 {
        // ORDER: Relaxed: a hint, which the space checks.
        self.place.fetch_add(pages, Ordering::Relaxed)
    }

    /// Counts a page fault served.
    #[inline(always)]
    pub(crate) fn count_fault(&self) {
        // ORDER: Relaxed: a figure.
        self.faults.fetch_add(1, Ordering::Relaxed);
    }
}
