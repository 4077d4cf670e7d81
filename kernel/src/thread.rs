//! Threads: the block that holds one, and what may be done with it where.
//!
//! * **Y1** A thread that has started belongs to one core, its home ([`Place`]). Only the home changes how it is scheduled, with
//!   interrupts off; others ask it, by a message or a call.
//! * **Y2** A started thread is in exactly one place: current at its home, in a queue of its home, in flight to a core (its node in that
//!   core's inbox), waiting (`wait`), or stopped.
//! * **Y3** Whoever takes a thread out of a list of waiters, under the list's lock, and nobody else, decides how its wait ends, writes the
//!   results and sends it home.

use core::alloc::Layout;
use core::cell::{Cell, UnsafeCell};
use core::fmt;
use core::mem::offset_of;
use core::num::NonZeroU64;
use core::ptr::{self, NonNull};

use abi::cap::ObjectKind;
use abi::error::Error;
use abi::task::{ThreadSpec, ThreadState};
use ipc::{Link, Party, Word};
use mm::user::USER_END;
use percpu::mailbox::Node;
use percpu::place::Place;
use percpu::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use percpu::{CoreId, CoreSet, Held, IrqOff};
use sched::{Class, Task};

use crate::arch::fpu;
use crate::arch::user::{Frame, extra};
use crate::notification::Notification;
use crate::object::{self, Header, Object, Ref};
use crate::process::Process;
use crate::revoke::Revocation;
use crate::spaces::Space;
use crate::tables::{Capabilities, Slots};
use crate::talk::Talk;
use crate::{handler, homes, inherit, slabs, wait};

/// A thread.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `header` | see [`Header`] | any core | its own | 0 |
/// | `node` | who sends the thread home (Y3), or its home | its home | by the inbox | 0 |
/// | `place` | the home, which also gives it away | any core | its own | 0 |
/// | `ended`, `code` | the home, once | any core | Release / Acquire | 0, cold |
/// | `frame` | the CPU while current; who decides how a wait ends; else the home | the same | by the inbox | 1–3 |
/// | `space`, `process`, `id` | nobody after the start | any core | – | hot |
/// | `talk`, `link`, `pressure` | see [`Talk`], [`Link`], [`inherit::Pressure`] | | | hot, cold |
/// | `waiter` | who holds the lock of the list that `link` names | the same | by the lock | cold |
/// | the rest | the home | the home | – | hot |
#[repr(C, align(64))]
pub(crate) struct Thread {
    header: Header,
    pub(crate) node: Node,
    pub(crate) place: Place,
    ended: AtomicU32,
    frame: UnsafeCell<Frame>,
    /// What the scheduler keeps of it.
    pub(crate) task: Task<ThreadRef>,
    space: *const Space,
    /// Its process's capabilities.
    table: *const Slots,
    /// What it has to do with messages.
    pub(crate) talk: Talk,
    pub(crate) fpu: Cell<Option<fpu::Area>>,
    tls: Cell<u64>,
    /// What it does, apart from what `task` knows.
    pub(crate) state: Doing,
    /// Stopped until resumed, as soon as it would run.
    pub(crate) suspended: Cell<bool>,
    /// To be ended, as soon as nothing else holds it.
    pub(crate) doomed: Cell<bool>,
    /// Woken while it was still current (see `wait`).
    pub(crate) woken: Cell<bool>,
    pub(crate) migrations: Cell<u64>,
    /// Since when it could run without having run, 0 for a thread that does or cannot.
    pub(crate) ready_since: Cell<u64>,
    /// Bits of `arch::user::extra`.
    pub(crate) extras: Cell<u32>,
    /// What a call that sleeps returns.
    value: Cell<u64>,
    affinity: Cell<CoreSet>,
    pub(crate) link: Link,
    pub(crate) waiter: wait::Waiter,
    code: AtomicU64,
    id: u64,
    process: Ref<Process>,
    /// Its neighbours in the process's list, under that list's lock.
    pub(crate) siblings: Cell<(Option<ThreadRef>, Option<ThreadRef>)>,
    /// Somebody who ends the process has seen it, under the same lock.
    pub(crate) condemned: Cell<bool>,
    /// Somebody who limits the process has seen it, under the same lock.
    pub(crate) limited: Cell<bool>,
    /// It never came into the list.
    unlisted: Cell<bool>,
    pub(crate) watch: crate::upcall::Watch,
    /// What it has to do with inheritance.
    pub(crate) pressure: inherit::Pressure,
    /// What it is revoking, between two steps.
    pub(crate) revocation: Cell<Option<Revocation>>,
    /// What is not in its frame of a fault that it waits for an answer to (FH1).
    pub(crate) fault: handler::NoteCell,
    /// The notification whose bits it is told while it receives (NF2).
    pub(crate) bound: Cell<Option<Ref<Notification>>>,
}

// SAFETY: every field follows the table above: constant, atomic, guarded by a lock, or touched by the thread's home only (Y1, R1).
unsafe impl Sync for Thread {}

/// What a thread does, as its home sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not started.
    New,
    /// Current, queued, or in flight.
    Runnable,
    /// Waits to be woken, perhaps not beyond a time.
    Blocked,
    /// Waits for a time only.
    Asleep,
    /// Would run, but is suspended.
    Parked,
    /// Has ended.
    Ended,
}

impl State {
    /// As programs see it.
    pub(crate) const fn told(self) -> ThreadState {
        match self {
            Self::New => ThreadState::New,
            Self::Runnable => ThreadState::Runnable,
            Self::Blocked | Self::Asleep => ThreadState::Blocked,
            Self::Parked => ThreadState::Suspended,
            Self::Ended => ThreadState::Ended,
        }
    }
}

/// What a thread does, and whether it may be switched to where it waits.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `direct` | the home | the same; a core that thinks of switching to it | Relaxed: only the home finds its own mark |
/// | `state` | the home | the same | – |
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Doing {
    /// The mark of its home, if it waits and can go on there as soon as a message is in the registers; else 0. Says, if it is not 0,
    /// that the thread is blocked, so that the way that switches to it (`message.S`) writes nothing else.
    direct: AtomicU32,
    state: Cell<State>,
}

impl Doing {
    /// In `direct`, with the mark: a thread that goes on with all its registers, not with a message.
    pub(crate) const FAULTED: u32 = 1 << 31;
    /// In `direct`, with the mark: a thread that has extended state, which has to be loaded, and nothing else of `extra`.
    pub(crate) const STATE: u32 = 1 << 30;
    /// Where the assembly finds `direct`.
    pub(crate) const DIRECT: usize = offset_of!(Self, direct);

    const fn new() -> Self {
        Self { direct: AtomicU32::new(0), state: Cell::new(State::New) }
    }

    /// For the home.
    #[inline(always)]
    pub(crate) fn get(&self) -> State {
        // ORDER: Relaxed: the home wrote it.
        if self.direct.load(Ordering::Relaxed) != 0 { State::Blocked } else { self.state.get() }
    }

    /// By the home.
    #[inline(always)]
    pub(crate) fn set(&self, state: State) {
        self.state.set(state);
        self.set_direct(0);
    }

    /// The thread is about to wait. With a mark, its home's, it can be switched to; 0 if more has to be done then.
    #[inline(always)]
    pub(crate) fn wait(&self, mark: u32) {
        self.state.set(if mark == 0 { State::Blocked } else { State::Runnable });
        self.set_direct(mark);
    }

    /// Whether the thread waits and could be switched to at its home.
    pub(crate) fn waits_directly(&self) -> bool {
        // ORDER: Relaxed: for the home, which wrote it.
        self.direct.load(Ordering::Relaxed) != 0
    }

    /// A thread that waits cannot be switched to any more without more being done. By its home.
    pub(crate) fn wait_plainly(&self) {
        let state = self.get();
        self.set(state);
    }

    /// Whether the thread waits and can be switched to on the core with this mark.
    #[inline(always)]
    pub(crate) fn is_direct(&self, mark: u32) -> bool {
        // ORDER: Relaxed: if it is this core's mark, this core wrote it.
        self.direct.load(Ordering::Relaxed) & !Self::FAULTED == mark
    }

    #[inline(always)]
    fn set_direct(&self, mark: u32) {
        // ORDER: Relaxed: nothing goes with it: its own core reads it, others find a number that is not theirs.
        self.direct.store(mark, Ordering::Relaxed);
    }
}

const _: () = {
    assert!(offset_of!(Thread, header) == 0, "N2: the header comes first");
    assert!(Thread::FRAME.is_multiple_of(16), "the CPU aligns its stack to 16 before it pushes");
    assert!(size_of::<Thread>() <= 1024, "a thread takes at most 1 KiB, extended state apart");
};

/// Numbers of threads and processes: unique for the run. Written when one is made, which takes far longer.
static IDS: AtomicU64 = AtomicU64::new(1);

/// The next number.
pub(crate) fn next_id() -> u64 {
    // ORDER: Relaxed: only uniqueness matters.
    IDS.fetch_add(1, Ordering::Relaxed)
}

impl Thread {
    /// Where the assembly finds some fields, in bytes from the thread's address.
    pub(crate) const DIRECT: usize = offset_of!(Self, state) + Doing::DIRECT;
    /// As `DIRECT`.
    pub(crate) const SPACE: usize = offset_of!(Self, space);
    /// As `DIRECT`.
    pub(crate) const TABLE: usize = offset_of!(Self, table);
    /// As `DIRECT`.
    pub(crate) const AT: usize = offset_of!(Self, link) + Link::AT;
    /// As `DIRECT`.
    pub(crate) const READY_SINCE: usize = offset_of!(Self, ready_since);
    /// As `DIRECT`.
    pub(crate) const EXTRAS: usize = offset_of!(Self, extras);
    /// As `DIRECT`.
    pub(crate) const TASK: usize = offset_of!(Self, task);
    /// As `DIRECT`.
    pub(crate) const TALK: usize = offset_of!(Self, talk);
    /// Where [`inherit::Pressure`] lies.
    pub(crate) const PRESSURE: usize = offset_of!(Self, pressure);
    /// Where the frame lies, in bytes from the thread's address.
    pub(crate) const FRAME: usize = offset_of!(Self, frame);

    /// A thread of a process, not started, with one reference for the caller.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for an address outside the user half; [`Error::NoMemory`].
    pub(crate) fn new(
        irq: &IrqOff,
        process: Ref<Process>,
        spec: &ThreadSpec,
        home: CoreId,
        affinity: CoreSet,
    ) -> Result<Ref<Self>, Error> {
        let beyond = |address: u64| address >= USER_END as u64;
        if beyond(spec.entry) || spec.stack > USER_END as u64 || beyond(spec.tls) {
            return Err(Error::BadArgument);
        }
        if spec.flags & !ThreadSpec::NO_FPU != 0 {
            return Err(Error::BadArgument);
        }
        let memory = slabs::take::<Self>(irq).ok_or(Error::NoMemory)?;
        let fpu = match spec.flags & ThreadSpec::NO_FPU {
            0 => match fpu::Area::new(irq) {
                Some(area) => Some(area),
                None => {
                    slabs::give(irq, memory);
                    return Err(Error::NoMemory);
                }
            },
            _ => None,
        };
        let extras =
            if fpu.is_some() { extra::STATE } else { 0 } | if spec.tls != 0 { extra::FS_BASE } else { 0 };
        let thread = Self {
            header: Header::new(),
            node: Node::new(),
            place: Place::new(home),
            ended: AtomicU32::new(0),
            frame: UnsafeCell::new(Frame::start(spec.entry, spec.stack, spec.argument)),
            task: Task::new(),
            space: ptr::from_ref(process.space()),
            table: process.capabilities().slots(),
            talk: Talk::new(),
            fpu: Cell::new(fpu),
            tls: Cell::new(spec.tls),
            state: Doing::new(),
            suspended: Cell::new(false),
            doomed: Cell::new(false),
            woken: Cell::new(false),
            migrations: Cell::new(0),
            ready_since: Cell::new(0),
            extras: Cell::new(extras),
            value: Cell::new(0),
            affinity: Cell::new(affinity),
            link: Link::new(),
            waiter: wait::Waiter::new(),
            code: AtomicU64::new(0),
            id: next_id(),
            process,
            siblings: Cell::new((None, None)),
            condemned: Cell::new(false),
            limited: Cell::new(false),
            unlisted: Cell::new(false),
            watch: crate::upcall::Watch::new(),
            pressure: inherit::Pressure::new(),
            revocation: Cell::new(None),
            fault: handler::NoteCell::default(),
            bound: Cell::new(None),
        };
        // SAFETY: memory for one thread, the caller's alone.
        unsafe { memory.write(thread) };
        // SAFETY: written just now, and alive while it names itself.
        unsafe { memory.as_ref() }.talk.begin(ThreadRef(memory));
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// Its number.
    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// Its process.
    #[inline(always)]
    pub(crate) const fn process(&self) -> &Ref<Process> {
        &self.process
    }

    /// Its address space.
    #[inline(always)]
    pub(crate) fn space(&self) -> &Space {
        // SAFETY: the process, which holds the space, lives as long as its threads refer to it.
        unsafe { &*self.space }
    }

    /// The capabilities of its process.
    #[inline(always)]
    pub(crate) fn capabilities(&self) -> &Capabilities {
        self.process.capabilities()
    }

    /// The base of its FS segment, in the user half.
    #[inline(always)]
    pub(crate) fn tls(&self) -> u64 {
        self.tls.get()
    }

    /// Sets the base of its FS segment; by its home.
    pub(crate) fn set_tls(&self, base: u64) {
        self.tls.set(base);
        self.set_extra(extra::FS_BASE, base != 0);
    }

    /// Sets or clears a bit of `arch::user::extra`; by its home.
    #[inline(always)]
    pub(crate) fn set_extra(&self, bit: u32, on: bool) {
        let others = self.extras.get() & !bit;
        self.extras.set(if on { others | bit } else { others });
    }

    /// The cores that it may run on; for its home.
    pub(crate) fn affinity(&self) -> CoreSet {
        self.affinity.get()
    }

    /// Whether it may run on a core; for its home.
    #[inline]
    pub(crate) fn may_run_on(&self, core: CoreId) -> bool {
        // SAFETY: only its home reads and writes it (Y1), and this is over before it does anything else. A copy is 128 bytes.
        let set = unsafe { &*self.affinity.as_ptr() };
        set.contains(core)
    }

    /// Sets the cores that it may run on; by its home.
    pub(crate) fn set_affinity(&self, set: CoreSet) {
        self.affinity.set(set);
    }

    /// Whether it has ended, and with which code.
    pub(crate) fn exit_code(&self) -> Option<u64> {
        // ORDER: Acquire pairs with Release in `set_ended`: the code is there.
        let ended = self.ended.load(Ordering::Acquire) != 0;
        // ORDER: Relaxed: ordered by the load before.
        ended.then(|| self.code.load(Ordering::Relaxed))
    }

    /// Notes the code with which it will end; by its home.
    pub(crate) fn set_code(&self, code: u64) {
        // ORDER: Relaxed: published by `set_ended`.
        self.code.store(code, Ordering::Relaxed);
    }

    /// Says that it has ended; by its home.
    pub(crate) fn set_ended(&self) {
        self.state.set(State::Ended);
        // ORDER: Release pairs with Acquire in `exit_code`.
        self.ended.store(1, Ordering::Release);
    }

    /// A counted reference, for a caller that knows it to live.
    pub(crate) fn counted(&self) -> Ref<Self> {
        self.keep();
        // SAFETY: the count that was just taken.
        unsafe { Ref::adopt(NonNull::from_ref(self)) }
    }

    /// Counts one more reference, which is given up with [`Ref::adopt`].
    pub(crate) fn keep(&self) {
        object::acquire(&self.header);
    }

    /// Counts one more reference, if it is not about to go.
    pub(crate) fn try_keep(&self) -> bool {
        object::try_acquire(&self.header)
    }

    /// Says that its process did not take it.
    pub(crate) fn never_listed(&self) {
        self.unlisted.set(true);
    }

    /// Says what a call that sleeps is to return.
    pub(crate) fn note_value(&self, value: u64) {
        self.value.set(value);
    }

    /// What was noted, and nothing from now on.
    pub(crate) fn take_value(&self) -> u64 {
        self.value.take()
    }

    /// Writes what its system call returns. By whoever decides how its wait ends (Y3), or its home.
    #[inline(always)]
    pub(crate) fn answer(&self, status: u64, value: u64) {
        let frame = self.frame.get();
        // SAFETY: in bounds of the frame, which is the caller's to write (R1, Y3).
        unsafe { frame.wrapping_byte_add(offset_of!(Frame, rax)).cast::<u64>().write(status) };
        // SAFETY: as above.
        unsafe { frame.wrapping_byte_add(offset_of!(Frame, rdx)).cast::<u64>().write(value) };
    }

    /// A register of its frame, by its offset there. By whoever owns the frame (R1, Y3).
    #[inline(always)]
    pub(crate) fn register(&self, offset: usize) -> u64 {
        // SAFETY: in bounds of the frame, which is the caller's to read (R1, Y3).
        unsafe { self.register_at(offset).read() }
    }

    /// Sets a register of its frame, as [`register`](Self::register).
    #[inline(always)]
    pub(crate) fn set_register(&self, offset: usize, value: u64) {
        // SAFETY: in bounds of the frame, which is the caller's to write (R1, Y3).
        unsafe { self.register_at(offset).write(value) }
    }

    #[inline(always)]
    fn register_at(&self, offset: usize) -> *mut u64 {
        debug_assert!(offset < size_of::<Frame>(), "R1: a register lies in the frame");
        self.frame.get().wrapping_byte_add(offset).cast()
    }

    /// Has it make the system call again that it is in, with these arguments. By its home, while it is current; it does not come back.
    pub(crate) fn call_again(&self, number: u64, arguments: [u64; 6]) {
        // SAFETY: the current thread's frame is its home's to write (R1).
        let frame = unsafe { &mut *self.frame.get() };
        frame.call_again(number, arguments);
    }

    /// Its registers, while it is not current; for its home.
    pub(crate) fn frame(&self) -> Frame {
        // SAFETY: the home's to read (R1).
        unsafe { self.frame.get().read() }
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}", self.id)
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Thread {
    const KIND: ObjectKind = ObjectKind::Thread;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        let thread = ThreadRef(object);
        if thread.state.get() == State::New && thread.task.class() == Class::Deadline {
            return homes::send_last(thread);
        }
        // SAFETY: obligation 1: nobody uses it any more.
        unsafe { Self::bury(thread, held) };
    }
}

impl Thread {
    /// Gives a thread's memory back, and what it owns.
    ///
    /// # Safety
    /// 1. Nobody uses it any more, and it holds no promise of its home's.
    pub(crate) unsafe fn bury(own: ThreadRef, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1.
        let thread = unsafe { own.0.read() };
        if thread.state.get() == State::New {
            // Whoever waits for its end has found it before it went, or would be here no more.
            wait::wake(held, wait::Key::object(own.0), u64::MAX, Error::BadHandle as u64, 0);
            if !thread.unlisted.get() {
                Process::forget_thread(thread.process.clone(), held, own);
            }
        }
        drop(thread.fpu.take());
        thread.process.thread_gone();
        drop(thread);
        slabs::give(held, own.0);
    }
}

/// A reference to a thread that need not be counted: it is kept only where the thread is known to live, in the queues of its home, in lists
/// of waiters and of its process, and as the current one, all of which a thread leaves before it ends.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct ThreadRef(NonNull<Thread>);

// SAFETY: a thread is shared between cores (`Thread: Sync`).
unsafe impl Send for ThreadRef {}
// SAFETY: as above.
unsafe impl Sync for ThreadRef {}

impl ThreadRef {
    /// # Safety
    /// 1. The thread lives as long as the reference is used.
    #[inline(always)]
    pub(crate) const unsafe fn new(thread: NonNull<Thread>) -> Self {
        Self(thread)
    }

    /// The thread whose node this is.
    ///
    /// # Safety
    /// 1. `node` is the node of a living thread.
    #[inline(always)]
    pub(crate) unsafe fn of_node(node: NonNull<Node>) -> Self {
        // SAFETY: obligation 1: the result is inside, or at the start of, the thread.
        Self(unsafe { node.byte_sub(offset_of!(Thread, node)) }.cast())
    }

    /// Where it is.
    #[inline(always)]
    pub(crate) const fn as_ptr(self) -> NonNull<Thread> {
        self.0
    }

    /// No thread: what stands where one will be named before anybody looks.
    pub(crate) const NOBODY: Self = Self(NonNull::dangling());
}

impl core::ops::Deref for ThreadRef {
    type Target = Thread;

    #[inline(always)]
    fn deref(&self) -> &Thread {
        // SAFETY: it lives as long as this is used (`ThreadRef`).
        unsafe { self.0.as_ref() }
    }
}

impl fmt::Debug for ThreadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl Party for ThreadRef {
    #[inline(always)]
    fn word(self) -> NonZeroU64 {
        // SAFETY: an address is not 0.
        unsafe { NonZeroU64::new_unchecked(self.0.expose_provenance().get() as u64) }
    }

    #[inline(always)]
    fn of_word(word: Word) -> Self {
        let at = ptr::with_exposed_provenance_mut(word.get().get() as usize);
        // SAFETY: the word of a thread (`Word`), whose address is not null, and which lives while it waits and until the epoch after (IQ2).
        Self(unsafe { NonNull::new_unchecked(at) })
    }

    #[inline(always)]
    fn link(&self) -> &Link {
        // SAFETY: it lives as long as this is used (`ThreadRef`).
        unsafe { &(*self.0.as_ptr()).link }
    }
}

impl sched::Entity for ThreadRef {
    #[inline(always)]
    fn task(&self) -> &Task<Self> {
        // SAFETY: it lives as long as this is used (`ThreadRef`).
        unsafe { &(*self.0.as_ptr()).task }
    }
}

/// Memory that a thread takes, extended state apart.
pub(crate) const BYTES: usize = Layout::new::<Thread>().size();
