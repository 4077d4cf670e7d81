//! Processes: an address space, a capability table and threads, from an image to the end.
//!
//! * **V1** A process ends once: whoever takes it out of [`ProcessState::Running`] (or `New`) under the lock of its list says how.
//! * **V2** A thread is in its process's list from when it is made until it has ended; none comes in once the process ends.
//! * **V3** The space and the table are taken down by one job (`jobs`), which begins when the process ends without threads, or is given up
//!   before it has started; nobody has a thread in the space then, and cores that still have its tables loaded are told.
//! * **V4** A process keeps the bank that `objects` and its space draw from; another takes over from it before the start only.

use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::mem::{ManuallyDrop, offset_of};
use core::ptr::{self, NonNull};

use abi::cap::{Handle, ObjectKind, Rights};
use abi::error::Error;
use abi::task::{ExitStatus, NAME_BYTES, ProcessSpec, ProcessState, Startup as Block, ThreadSpec};
use mm::bank::{Payer, Purse};
use mm::space::Frames;
use mm::user::UserPtr;
use percpu::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use percpu::{CoreSet, Guests, Held, IrqOff, Lock};
use perf::trace::Event;

use crate::arch::user::extra;
use crate::arch::usercopy::Word;
use crate::bank::{Bank, Objects};
use crate::limits::{Counted, Limits};
use crate::object::{Header, Object, Ref, try_acquire};
use crate::programs::load::{self, LoadError, Randomness};
use crate::programs::startup::{Startup, Text};
use crate::programs::{Machine, Program};
use crate::spaces::{self, Space, Tap};
use crate::tables::Capabilities;
use crate::thread::{self, Thread, ThreadRef};
use crate::{dispatch, handler, homes, jobs, limits, machine, slabs, trace};

/// Pages above the start of a process's heap at which the kernel looks for room: what is below is the program's own choice.
const ROOM: u64 = 1 << 24;

/// Pages of a main thread's stack.
const STACK_PAGES: usize = 64;

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

/// A process's threads that have not ended.
#[derive(Debug)]
struct Threads {
    first: Option<ThreadRef>,
    last: Option<ThreadRef>,
    count: usize,
}

impl Threads {
    fn push(&mut self, thread: ThreadRef) {
        thread.siblings.set((self.last, None));
        match self.last {
            Some(last) => last.siblings.set((last.siblings.get().0, Some(thread))),
            None => self.first = Some(thread),
        }
        self.last = Some(thread);
        self.count += 1;
    }

    fn remove(&mut self, thread: ThreadRef) {
        let (previous, next) = thread.siblings.replace((None, None));
        match previous {
            Some(previous) => previous.siblings.set((previous.siblings.get().0, next)),
            None => self.first = next,
        }
        match next {
            Some(next) => next.siblings.set((previous, next.siblings.get().1)),
            None => self.last = previous,
        }
        self.count -= 1;
    }
}

/// A process to be made.
pub(crate) struct Maker<'a> {
    /// What it runs.
    pub(crate) program: &'a Program,
    /// Its name, cut at [`NAME_BYTES`].
    pub(crate) name: &'a [u8],
    /// Bytes of its arguments and environment.
    pub(crate) texts: (usize, usize),
    /// Number of the process that makes it; 0 for the kernel.
    pub(crate) parent: u64,
    /// Flags of [`ProcessSpec`].
    pub(crate) flags: u64,
    /// The bank that pays.
    pub(crate) bank: Ref<Bank>,
    /// The limits of the process that makes it, for which the new one's are no wider.
    pub(crate) limits: Option<&'a Limits>,
}

/// Gives a new process its capabilities: fills the handles, or says why not.
pub(crate) type Giver<'a> =
    &'a mut dyn FnMut(&mut IrqOff, &Capabilities, &mut [Handle]) -> Result<usize, Error>;

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::TooMuchText | LoadError::BadStack => Self::BadArgument,
            LoadError::Unreadable => Self::BadAddress,
            LoadError::Space(_) => Self::NoMemory,
        }
    }
}

impl Process {
    /// A process with its program mapped and its capabilities given, not started; with one reference for the caller. `text` reads the
    /// arguments and the environment as for `programs::load`.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::BadArgument`], [`Error::BadAddress`], and those of `give`. Everything is taken back.
    pub(crate) fn new(
        irq: &mut IrqOff,
        maker: &Maker<'_>,
        give: Giver<'_>,
        text: Text<'_>,
    ) -> Result<Ref<Self>, Error> {
        if maker.flags & !(ProcessSpec::FIXED | ProcessSpec::NO_FPU) != 0 {
            return Err(Error::BadArgument);
        }
        let process = Self::empty(irq, maker)?;
        trace::event(irq, Event::ProcessCreate, process.id, process.parent, 0);
        // From here on giving the reference up takes everything back (`Object::destroy`).
        let mut handles = [Handle::NONE; ProcessSpec::MAX_GRANTS as usize];
        let given = give(irq, &process.capabilities, &mut handles)?;
        let startup = Startup {
            arguments: maker.texts.0,
            environment: maker.texts.1,
            handles: &handles[..given],
            process: Handle::NONE,
            thread: Handle::NONE,
            id: process.id,
        };
        let fixed = maker.flags & ProcessSpec::FIXED != 0;
        let randomness = if fixed { Randomness::Fixed } else { Randomness::Drawn };
        let place = (STACK_PAGES, randomness);
        let loaded = load::load(irq, &Machine, process.space(), maker.program, place, &startup, text)?;
        let at = process.as_ptr().as_ptr();
        // SAFETY: in bounds; nobody else has the process yet.
        unsafe { at.wrapping_byte_add(offset_of!(Self, entry)).cast::<u64>().write(loaded.entry as u64) };
        // SAFETY: as above.
        unsafe { at.wrapping_byte_add(offset_of!(Self, startup)).cast::<u64>().write(loaded.startup as u64) };
        // ORDER: Relaxed: a hint.
        process.place.store(loaded.layout.heap.number() as u64 + ROOM, Ordering::Relaxed);
        Ok(process)
    }

    fn empty(irq: &mut IrqOff, maker: &Maker<'_>) -> Result<Ref<Self>, Error> {
        let limits = match maker.limits {
            Some(parent) => Some(Counted::new(irq, Some(parent)).ok_or(Error::NoMemory)?),
            None => None,
        };
        let payer = maker.bank.payer();
        let objects = Purse::new(payer);
        objects.take(1, &mut Objects).map_err(|_| Error::NoMemory)?;
        let Some((memory, capabilities, space)) = Self::parts(irq, payer) else {
            objects.close(&mut Objects);
            return Err(Error::NoMemory);
        };
        let mut name = [0; NAME_BYTES];
        let length = maker.name.len().min(NAME_BYTES);
        name[..length].copy_from_slice(&maker.name[..length]);
        let process = Self {
            header: Header::new(),
            space: UnsafeCell::new(ManuallyDrop::new(space)),
            capabilities,
            threads: Lock::new(Threads { first: None, last: None, count: 0 }),
            handler: handler::Slot::new(None),
            state: AtomicU32::new(ProcessState::New as u32),
            status: UnsafeCell::new(ExitStatus::default()),
            ticks: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            guests: Guests::new(),
            place: AtomicU64::new(0),
            id: thread::next_id(),
            parent: maker.parent,
            entry: 0,
            startup: 0,
            main_flags: if maker.flags & ProcessSpec::NO_FPU != 0 { ThreadSpec::NO_FPU } else { 0 },
            name,
            job: Cell::new(None),
            bank: UnsafeCell::new(maker.bank.clone()),
            objects,
            limits: AtomicPtr::new(limits.map_or(ptr::null_mut(), Counted::into_raw)),
        };
        // SAFETY: memory for one process, the caller's alone.
        unsafe { memory.write(process) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// Memory for a process, its table and its space.
    fn parts(irq: &IrqOff, payer: Payer) -> Option<(NonNull<Self>, Capabilities, Space)> {
        let memory = slabs::take::<Self>(irq)?;
        // SAFETY: inside the memory.
        let purse = unsafe { memory.byte_add(offset_of!(Self, objects)) }.cast();
        let Some(capabilities) = Capabilities::new(irq, Some(purse)) else {
            slabs::give(irq, memory);
            return None;
        };
        let Some(space) = spaces::create(irq, payer) else {
            capabilities.free(irq);
            slabs::give(irq, memory);
            return None;
        };
        Some((memory, capabilities, space))
    }

    /// The bank that pays for what the process has and makes.
    ///
    /// # Safety
    /// 1. The process has started, or the caller has the lock of its list; the reference ends before either does.
    pub(crate) unsafe fn bank(&self) -> &Ref<Bank> {
        // SAFETY: obligation 1: nobody changes it (V4).
        unsafe { &*self.bank.get() }
    }

    /// The same, counted, whatever the process does.
    pub(crate) fn counted_bank(&self, irq: &mut IrqOff) -> Ref<Bank> {
        irq.locks(|held| {
            self.threads.with(held, |_, _| {
                // SAFETY: under the lock.
                unsafe { self.bank() }.clone()
            })
        })
    }

    /// Has another bank pay from now on, also for what the process has already.
    ///
    /// # Errors
    /// [`Error::WrongState`] if it has been started; [`Error::NoMemory`] if the bank has not that much.
    pub(crate) fn assign(&self, irq: &mut IrqOff, bank: Ref<Bank>) -> Result<(), Error> {
        let before = irq.locks(|held| {
            self.threads.with(held, |_, held| {
                if self.state() != ProcessState::New {
                    return Err(Error::WrongState);
                }
                let frames = self.space().purse().move_to_another(&mut Frames(&mut Tap::new(held)));
                let objects = self.objects.move_to_another(&mut Objects);
                bank.charge(frames.amount(), objects.amount())?;
                // SAFETY: under the lock.
                unsafe { self.bank() }.refund(frames.amount(), objects.amount());
                frames.settle(bank.payer());
                objects.settle(bank.payer());
                // SAFETY: under the lock, before the start (V4).
                Ok(unsafe { self.bank.get().replace(bank.clone()) })
            })
        })?;
        // Under no lock, as `bank`: the last reference retires it.
        drop(before);
        Ok(())
    }

    /// Its limits, if it has any.
    #[inline]
    pub(crate) fn limits(&self) -> Option<&Limits> {
        // ORDER: Acquire pairs with Release in `limit`: they are filled in.
        let at = self.limits.load(Ordering::Acquire);
        // SAFETY: null, or limits that stay as long as the process.
        unsafe { at.as_ref() }
    }

    /// Tightens its limits. When this returns, every call that its threads make is checked.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; nothing has changed.
    pub(crate) fn limit(&self, irq: &mut IrqOff, asked: &abi::quota::Limits) -> Result<(), Error> {
        let mut new = match self.limits() {
            Some(_) => None,
            None => Some(Counted::new(irq, None).ok_or(Error::NoMemory)?),
        };
        irq.locks(|held| {
            self.threads.with(held, |_, _| {
                if let Some(limits) = self.limits() {
                    return limits.tighten(asked);
                }
                let Some(limits) = new.take() else { return };
                limits.tighten(asked);
                // ORDER: Release pairs with Acquire in `limits`.
                self.limits.store(limits.into_raw(), Ordering::Release);
            });
        });
        percpu::race_point!("process.limited");
        while let Some(thread) = irq.locks(|held| self.next_unlimited(held)) {
            homes::at_home(irq, &thread, |held, thread| {
                thread.set_extra(extra::LIMITED, true);
                // Whoever would switch to it directly has to load it whole.
                thread.state.wait_plainly();
                if dispatch::running(held) == Some(thread) {
                    limits::load(held, thread);
                }
                0
            });
        }
        Ok(())
    }

    /// A thread that does not know yet that the process has limits.
    fn next_unlimited(&self, held: &mut Held<'_, 0>) -> Option<Ref<Thread>> {
        self.next_of(held, |thread| !thread.limited.replace(true))
    }

    /// The bank gets back what the process has drawn ahead.
    pub(crate) fn trim(&self) {
        self.objects.trim(&mut Objects);
    }

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

    /// Visits its threads that have not ended, with the list's lock held.
    pub(crate) fn each_thread(&self, held: &mut Held<'_, 0>, mut visit: impl FnMut(ThreadRef)) -> usize {
        self.threads.with(held, |threads, _| {
            let mut at = threads.first;
            while let Some(thread) = at {
                visit(thread);
                at = thread.siblings.get().1;
            }
            threads.count
        })
    }

    /// Makes a thread in it, not started.
    ///
    /// # Errors
    /// [`Error::WrongState`] if the process is not running; those of [`Thread::new`].
    pub(crate) fn make_thread(
        process: &Ref<Self>,
        irq: &mut IrqOff,
        spec: &ThreadSpec,
        affinity: CoreSet,
    ) -> Result<Ref<Thread>, Error> {
        let home = irq.core();
        process.objects.take(1, &mut Objects).map_err(|_| Error::NoMemory)?;
        let thread = Thread::new(irq, process.clone(), spec, home, affinity)
            .inspect_err(|_| process.objects.put(1, &mut Objects))?;
        // SAFETY: the list keeps it only until it ends, or until `destroy` takes it out (V2).
        let entry = unsafe { ThreadRef::new(thread.as_ptr()) };
        let entered = irq.locks(|held| {
            process.threads.with(held, |threads, _| {
                let enters = process.is_running();
                if enters && process.limits().is_some() {
                    thread.limited.set(true);
                    thread.set_extra(extra::LIMITED, true);
                }
                if enters {
                    threads.push(entry);
                }
                enters
            })
        });
        if !entered {
            thread.never_listed();
            return Err(Error::WrongState);
        }
        trace::event(irq, Event::ThreadCreate, thread.id(), process.id, 0);
        Ok(thread)
    }

    /// Starts its main thread.
    ///
    /// # Errors
    /// [`Error::WrongState`] if it has been started, or ended; [`Error::NoMemory`], [`Error::NoSlot`], or [`Error::BadAddress`] if its startup
    /// block cannot be written to, after which it can be tried again.
    pub(crate) fn start(process: &Ref<Self>, irq: &mut IrqOff) -> Result<Ref<Thread>, Error> {
        let began = irq.locks(|held| {
            process.threads.with(held, |_, _| {
                let new = process.state() == ProcessState::New;
                if new {
                    process.set_state(ProcessState::Running);
                }
                new
            })
        });
        if !began {
            return Err(Error::WrongState);
        }
        percpu::race_point!("process.running");
        let result = Self::start_main(process, irq);
        if result.is_err() {
            // Nothing has run: it is as new as before, unless somebody has ended it meanwhile.
            irq.locks(|held| {
                process.threads.with(held, |_, _| {
                    process.start_again();
                });
            });
        }
        result
    }

    fn start_main(process: &Ref<Self>, irq: &mut IrqOff) -> Result<Ref<Thread>, Error> {
        let spec = ThreadSpec {
            entry: process.entry,
            stack: process.startup,
            argument: process.startup,
            tls: 0,
            flags: process.main_flags,
        };
        let thread =
            Self::make_thread(process, irq, &spec, CoreSet::first(machine::topology().core_count()))?;
        let table = process.capabilities();
        let own = table.insert(thread.clone(), Rights::ALL)?;
        let itself = match table.insert(process.clone(), Rights::ALL) {
            Ok(handle) => handle,
            Err(error) => {
                table.delete(irq, own)?;
                return Err(error);
            }
        };
        if !process.tell(irq, own, itself) {
            table.delete(irq, own)?;
            table.delete(irq, itself)?;
            return Err(Error::BadAddress);
        }
        irq.locks(|held| {
            // SAFETY: `thread` keeps it.
            homes::start(held, unsafe { ThreadRef::new(thread.as_ptr()) })
        })?;
        Ok(thread)
    }

    /// Writes its first handles into the startup block, as the program would: whoever may map in it may have put anything there. `false` if it
    /// cannot be written to.
    fn tell(&self, irq: &mut IrqOff, thread: Handle, process: Handle) -> bool {
        // The main thread, which has not started, keeps the process from being taken down.
        spaces::borrow(irq, self.space(), |irq| {
            let mut write = |offset: usize, handle: Handle| {
                let word = UserPtr::<u64>::new(self.startup as usize + offset).check();
                word.is_ok_and(|word| u64::store(irq, word, handle.0).is_ok())
            };
            write(offset_of!(Block, thread), thread) && write(offset_of!(Block, process), process)
        })
    }

    /// Ends the current thread's process, and this thread before it runs another of its instructions, also where somebody else is ending the
    /// process and has not come to it yet.
    pub(crate) fn end_own(irq: &mut IrqOff, status: ExitStatus) {
        let thread = dispatch::current(irq);
        let process = thread.process().clone();
        Self::end(&process, irq, status);
        irq.locks(|held| homes::kill(held, thread, status.code));
    }

    /// Takes the process out of its life, unless somebody has already (V1); says whether it did, and whether no thread is left.
    fn begin_end(&self, held: &mut Held<'_, 0>, status: ExitStatus) -> Option<bool> {
        self.threads.with(held, |threads, _| {
            if !self.lives() {
                return None;
            }
            // SAFETY: under the lock, before the state that lets others read it (V1).
            unsafe { self.status.get().write(status) };
            self.set_state(ProcessState::Ending);
            Some(threads.count == 0)
        })
    }

    /// Ends a process and all its threads; nothing if it ends already. Its threads have left it, or will before they next run a
    /// program's instruction, when this returns.
    pub(crate) fn end(process: &Ref<Self>, irq: &mut IrqOff, status: ExitStatus) {
        match irq.locks(|held| process.begin_end(held, status)) {
            None => return,
            Some(true) => return jobs::begin(irq, process.clone()),
            Some(false) => {}
        }
        percpu::race_point!("process.ending");
        while let Some(thread) = irq.locks(|held| process.next_to_kill(held)) {
            homes::at_home(irq, &thread, |held, thread| {
                homes::kill(held, thread, status.code);
                0
            });
        }
    }

    /// A thread that nobody has asked to end yet.
    fn next_to_kill(&self, held: &mut Held<'_, 0>) -> Option<Ref<Thread>> {
        self.next_of(held, |thread| !thread.condemned.replace(true))
    }

    /// The first of the threads sought, which it is no longer when `is_sought` has been asked. The list is turned to it: mostly the next one
    /// is first then, though somebody else may be turning it, too.
    fn next_of(&self, held: &mut Held<'_, 0>, is_sought: impl Fn(&ThreadRef) -> bool) -> Option<Ref<Thread>> {
        self.threads.with(held, |threads, _| {
            for _ in 0..threads.count {
                let thread = threads.first?;
                threads.remove(thread);
                threads.push(thread);
                if !is_sought(&thread) {
                    continue;
                }
                // SAFETY: it is in the list, so its memory is a thread's (V2); `destroy` waits for the lock.
                let living = try_acquire(unsafe { thread.as_ptr().cast::<Header>().as_ref() });
                if living {
                    // SAFETY: the count that was just taken.
                    return Some(unsafe { Ref::adopt(thread.as_ptr()) });
                }
            }
            None
        })
    }

    /// A thread has ended: with the last, the process does. At the thread's home.
    pub(crate) fn thread_ended(process: Ref<Self>, held: &mut Held<'_, 0>, thread: ThreadRef, ticks: u64) {
        // ORDER: Relaxed: a figure.
        process.ticks.fetch_add(ticks, Ordering::Relaxed);
        let code = thread.exit_code().unwrap_or(0);
        let last = process.threads.with(held, |threads, _| {
            threads.remove(thread);
            if threads.count == 0 && process.is_running() {
                let status = ExitStatus { reason: ExitStatus::EXITED, code, ..ExitStatus::default() };
                // SAFETY: as in `begin_end` (V1).
                unsafe { process.status.get().write(status) };
                process.set_state(ProcessState::Ending);
            }
            threads.count == 0 && process.state() == ProcessState::Ending
        });
        if last {
            jobs::begin(held, process);
        }
    }

    /// A thread's memory goes back.
    pub(crate) fn thread_gone(&self) {
        self.objects.put(1, &mut Objects);
        if self.state() == ProcessState::Ended {
            self.trim();
        }
    }

    /// A thread that never started goes with its last reference.
    pub(crate) fn forget_thread(process: Ref<Self>, held: &mut Held<'_, 0>, thread: ThreadRef) {
        Self::thread_ended(process, held, thread, 0);
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Process {
    const KIND: ObjectKind = ObjectKind::Process;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1: nobody uses it any more.
        let process = unsafe { object.as_ref() };
        if process.state() == ProcessState::Ended {
            handler::clear(held, process);
            process.objects.close(&mut Objects);
            // SAFETY: as above.
            drop(unsafe { process.bank.get().read() });
            // SAFETY: as above; set by `limit` or from the start, and never taken out before.
            // ORDER: Relaxed: nobody else has the process any more.
            drop(unsafe { Counted::from_raw(process.limits.load(Ordering::Relaxed)) });
            return slabs::give(held, object);
        }
        // Given up before it started. It comes back here when it has been taken down.
        process.set_state(ProcessState::Ending);
        process.header.revive();
        // SAFETY: the count that `revive` has made.
        jobs::begin(held, unsafe { Ref::adopt(object) });
    }
}
