//! Threads with stacks of their own, each above a page that cannot be written to.
//!
//! A thread that ends by itself leaves its value and has its stack given back by who joins it (R1). One that was killed leaves both.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use abi::cap::Handle;
use abi::error::Error;
use abi::task::{CoreMask, SchedSpec, ThreadSpec};

use crate::arch::undefined;
use crate::handle::{Owned, Result, Thread, Typed, address};
use crate::memory::{self, PAGE};
use crate::start::Start;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::cell::UnsafeCell;
use crate::sys;
use crate::time::Deadline;

/// Pages of a stack, its guard left out, if nothing else is asked for.
pub const STACK_PAGES: usize = 16;

/// A stack. Given back when it goes.
#[derive(Debug)]
pub struct Stack {
    start: NonNull<u8>,
    pages: usize,
}

// SAFETY: it owns its memory.
unsafe impl Send for Stack {}
// SAFETY: a shared one can do nothing but tell its address.
unsafe impl Sync for Stack {}

impl Stack {
    /// A stack of so many pages, and one more below it.
    ///
    /// # Errors
    /// See `map`.
    pub fn new(pages: usize) -> Result<Self> {
        let pages = pages + 1;
        let stack = Self { start: memory::map(pages)?, pages };
        // SAFETY: the page was mapped just now, and nothing but a stack that has run over will write to it.
        unsafe { memory::guard(stack.start, 1) }?;
        Ok(stack)
    }

    /// What the stack pointer is when a function begins that was called from nowhere: 8 below a multiple of 16 (System V ABI, AMD64
    /// supplement, section 3.2.2), and the return address, 0, is mapped.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.start.as_ptr() as u64 + (self.pages * PAGE) as u64 - 8
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: R1: who drops a stack knows that nothing runs on it.
        let _ = unsafe { memory::unmap(self.start, self.pages) };
    }
}

/// How a thread is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    pages: usize,
    flags: u64,
    cores: Option<CoreMask>,
    schedule: Option<SchedSpec>,
}

impl Default for Builder {
    fn default() -> Self {
        Self { pages: STACK_PAGES, flags: 0, cores: None, schedule: None }
    }
}

impl Builder {
    /// Pages of its stack.
    #[must_use]
    pub fn stack(self, pages: usize) -> Self {
        Self { pages, ..self }
    }

    /// [`ThreadSpec::NO_FPU`].
    #[must_use]
    pub fn flags(self, flags: u64) -> Self {
        Self { flags, ..self }
    }

    /// The cores that it may run on.
    #[must_use]
    pub fn cores(self, cores: CoreMask) -> Self {
        Self { cores: Some(cores), ..self }
    }

    /// How it is scheduled.
    #[must_use]
    pub fn schedule(self, spec: SchedSpec) -> Self {
        Self { schedule: Some(spec), ..self }
    }

    /// Makes a thread that calls a function, and starts it.
    ///
    /// # Errors
    /// See `map`, `thread_create`, `thread_affinity`, `thread_schedule` and `thread_start`.
    pub fn spawn<T, W>(self, work: W) -> Result<JoinHandle<T>>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        // SAFETY: nothing is borrowed.
        unsafe { self.spawn_borrowing(work) }
    }

    /// Has another thread call `work` while this one calls `beside`; returns when both have ended. Both may borrow.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn), and then `beside` is not called; `WrongState` if the thread was killed.
    pub fn both<T, R>(
        self,
        work: impl FnOnce() -> T + Send,
        beside: impl FnOnce(Thread) -> R,
    ) -> Result<(T, R)>
    where
        T: Send,
    {
        // SAFETY: the handle is joined here, before what is borrowed ends; a panic in between ends the process.
        let handle = unsafe { self.spawn_borrowing(work) }?;
        let value = beside(handle.thread());
        Ok((handle.join()?, value))
    }

    /// Makes a thread that calls a function, and starts it.
    ///
    /// # Safety
    /// 1. The handle is joined, or dropped, before anything ends that `work` or its value borrows.
    unsafe fn spawn_borrowing<T: Send, W: FnOnce() -> T + Send>(self, work: W) -> Result<JoinHandle<T>> {
        let stack = Stack::new(self.pages)?;
        let packet = Arc::new(Packet { done: AtomicBool::new(false), value: UnsafeCell::new(None) });
        let job = Box::into_raw(Box::new(Job { work, packet: Arc::clone(&packet) }));
        // SAFETY: `run` takes the box that `job` points to, once; the stack lives until the thread has ended by itself (R1).
        let thread = unsafe { self.create(run::<T, W>, job as u64, &stack) }.and_then(|thread| {
            thread.start()?;
            Ok(thread)
        });
        match thread {
            Ok(thread) => Ok(JoinHandle { thread, packet, stack: ManuallyDrop::new(stack) }),
            Err(error) => {
                // SAFETY: from `into_raw` above; the thread was never started.
                drop(unsafe { Box::from_raw(job) });
                Err(error)
            }
        }
    }

    /// Makes a thread without any of the above: a function, a word, a stack. Not started yet.
    ///
    /// # Errors
    /// See `thread_create`, `thread_affinity` and `thread_schedule`.
    ///
    /// # Safety
    /// 1. The function may run with this word on another thread.
    /// 2. The stack is used by nobody else, and lives until the thread has ended.
    pub unsafe fn create(
        self,
        entry: extern "C" fn(u64) -> !,
        argument: u64,
        stack: &Stack,
    ) -> Result<Owned<Thread>> {
        let spec = ThreadSpec {
            entry: entry as usize as u64,
            stack: stack.top(),
            argument,
            tls: 0,
            flags: self.flags,
        };
        let own = Start::get().process().handle();
        // SAFETY: the structure is only read; what the thread does is the caller's promise (1, 2).
        let thread = Owned::new(Thread(Handle(unsafe { sys::thread_create(own, address(&spec)) }?)));
        if let Some(cores) = &self.cores {
            thread.bind(cores)?;
        }
        if let Some(spec) = &self.schedule {
            thread.schedule(spec)?;
        }
        Ok(thread)
    }
}

/// What a thread leaves.
struct Packet<T> {
    done: AtomicBool,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is written by the thread before `done` is set, and taken by who has seen it set; each of them is one.
unsafe impl<T: Send> Sync for Packet<T> {}

struct Job<T, W> {
    work: W,
    packet: Arc<Packet<T>>,
}

/// The first function of a spawned thread.
extern "C" fn run<T, W: FnOnce() -> T>(job: u64) -> ! {
    {
        // The box goes at once: a thread that is killed after this has nothing of the heap's in its hands but what `work` takes.
        let Job { work, packet } = {
            // SAFETY: the address of a box that `spawn` has leaked for this.
            let job = unsafe { Box::from_raw(job as *mut Job<T, W>) };
            *job
        };
        let value = work();
        packet.value.with_mut(|slot| {
            // SAFETY: nobody else touches it before `done` is set.
            unsafe { *slot = Some(value) };
        });
        // ORDER: Release pairs with Acquire in `JoinHandle::take`.
        packet.done.store(true, Ordering::Release);
    }
    exit(0)
}

/// Ends the calling thread: by an exception if a filter forbids it to exit. What is on its stack is not dropped.
pub fn exit(code: u64) -> ! {
    loop {
        // SAFETY: no address is passed; this thread runs on no more.
        if unsafe { sys::thread_exit(code) } == Err(Error::Filtered) {
            undefined();
        }
    }
}

/// Lets another thread of the same priority run.
#[inline(always)]
pub fn yield_now() {
    // SAFETY: no address is passed. There is no way to fail.
    let _ = unsafe { sys::yield_now() };
}

/// Ends the calling thread's period: sleeps until the next begins. Gives the periods that have passed without being ended.
///
/// # Errors
/// See `period_end`.
pub fn period_end() -> Result<u64> {
    // SAFETY: no address is passed.
    unsafe { sys::period_end() }
}

/// Makes a thread that calls a function, and starts it.
///
/// # Errors
/// See [`Builder::spawn`].
pub fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>> {
    Builder::default().spawn(work)
}

/// A thread that can be waited for. Dropping it waits too: the stack has to be given back.
#[derive(Debug)]
pub struct JoinHandle<T> {
    thread: Owned<Thread>,
    packet: Arc<Packet<T>>,
    stack: ManuallyDrop<Stack>,
}

impl<T> core::fmt::Debug for Packet<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Packet")
    }
}

impl<T> JoinHandle<T> {
    /// The thread.
    #[must_use]
    pub fn thread(&self) -> Thread {
        *self.thread
    }

    /// Waits for its end; gives what the function returned.
    ///
    /// # Errors
    /// `WrongState` if it was killed before it returned; else see `thread_join`.
    pub fn join(mut self) -> Result<T> {
        self.thread.join(Deadline::NEVER)?;
        self.take().ok_or(Error::WrongState)
    }

    /// What the thread left, if it has ended by itself and this is the first time.
    fn take(&mut self) -> Option<T> {
        // ORDER: Acquire pairs with Release in `run`.
        if !self.packet.done.load(Ordering::Acquire) {
            return None;
        }
        self.packet.value.with_mut(|slot| {
            // SAFETY: the thread has set `done`, and `self` is borrowed exclusively.
            unsafe { (*slot).take() }
        })
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let ended = self.thread.join(Deadline::NEVER).is_ok();
        // ORDER: Acquire pairs with Release in `run`.
        if ended && self.packet.done.load(Ordering::Acquire) {
            // SAFETY: R1: the thread ended by itself; the stack is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.stack) };
        }
    }
}
