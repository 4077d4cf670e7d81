//! Many user threads, *fibers*, on few kernel threads, *workers*: a switch between fibers stays in user mode.
//!
//! A pool keeps as many workers running as it was made for. When a fiber blocks in the kernel its worker does too; the kernel tells the
//! pool's watcher (`thread_watch`, `upcall_wait`), which lets a spare worker take its place, or makes one. When the blocked one comes back
//! there is one too many: the next worker between two fibers parks. So the number of running workers is the one asked for but for the
//! time that a notice takes; a worker that was preempted, or serves a page fault, counts as running. A fiber that never yields, blocks or
//! ends keeps its worker.
//!
//! Invariants: F1 a fiber belongs to one holder: the ready queue, or the worker that runs it. F2 a fiber's stack is gone on with by its
//! worker alone, and the worker's by that fiber alone. F3 a worker that is parked is in `parked`, and whoever takes it out wakes it.

mod crew;

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::arch::fiber;
use crate::handle::Result;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::cell::UnsafeCell;
use crate::thread::{JoinHandle, Stack};

use crew::Crew;

/// Pages of a fiber's stack.
const STACK_PAGES: usize = 8;

/// What a fiber does, whatever it leaves.
type Work = Box<dyn FnOnce(&Context) + Send>;

/// Why a fiber went back to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Back {
    Yielded,
    Ended,
}

/// A fiber while it does not run: its stack, and where to go on.
struct Fiber {
    stack: Stack,
    /// Where to go on with the fiber.
    own: u64,
    /// Where to go on with its worker.
    worker: u64,
    back: Back,
    work: Option<Work>,
    crew: Arc<Crew>,
}

impl Fiber {
    fn new(crew: Arc<Crew>, work: Work) -> Result<Box<Self>> {
        let stack = Stack::new(STACK_PAGES)?;
        let mut fiber =
            Box::new(Self { stack, own: 0, worker: 0, back: Back::Yielded, work: Some(work), crew });
        let word = core::ptr::from_mut(&mut *fiber) as u64;
        // SAFETY: the top of a stack is 8 below a multiple of 16, and nothing is on it yet.
        fiber.own = unsafe { fiber::first(fiber.stack.top() + 8, word) };
        Ok(fiber)
    }

    /// Goes on with the fiber until it yields or ends; on its worker's stack.
    fn run(&mut self) -> Back {
        let left = &raw mut self.worker;
        // SAFETY: F1, F2: this worker alone has the fiber, which stays where it is in its box.
        unsafe { fiber::switch(left, self.own) };
        self.back
    }
}

/// The first function of a fiber, on its own stack.
pub(crate) extern "C" fn begin(word: u64) -> ! {
    let at = word as *mut Fiber;
    let context = Context { fiber: at };
    // SAFETY: F2: the fiber runs, so its worker waits in `run`, and nobody else has it.
    let work = unsafe { (*at).work.take() };
    if let Some(work) = work {
        work(&context);
    }
    loop {
        context.leave(Back::Ended);
    }
}

/// What a fiber does to itself. It is handed down by reference, and cannot leave its fiber.
pub struct Context {
    fiber: *mut Fiber,
}

impl Context {
    /// Lets other fibers run on this worker; may go on on another one.
    pub fn yield_now(&self) {
        self.leave(Back::Yielded);
    }

    /// Starts another fiber in the same pool.
    ///
    /// # Errors
    /// See `map`.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Context) -> T + Send + 'static,
    ) -> Result<Handle<T>> {
        // SAFETY: F2: the fiber runs, here; its crew does not change.
        let crew = unsafe { &(*self.fiber).crew };
        spawn(crew, work)
    }

    fn leave(&self, back: Back) {
        // SAFETY: F2: the fiber runs, here, so its worker waits in `run`.
        unsafe { (*self.fiber).back = back };
        // SAFETY: as above.
        let worker = unsafe { (*self.fiber).worker };
        // SAFETY: as above.
        let own = unsafe { &raw mut (*self.fiber).own };
        // SAFETY: F2: `worker` is what the switch in `run` has stored; `own` is in the fiber's box, which outlives its stack's use.
        unsafe { fiber::switch(own, worker) };
    }
}

/// What a fiber leaves.
struct Left<T> {
    done: AtomicBool,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value is written by the fiber before `done` is set, and taken by the one handle after.
unsafe impl<T: Send> Sync for Left<T> {}

/// A fiber whose value can be had.
pub struct Handle<T>(Arc<Left<T>>);

impl<T> Handle<T> {
    /// Whether it has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        // ORDER: Acquire pairs with Release in `spawn`: the value is there.
        self.0.done.load(Ordering::Acquire)
    }

    /// Waits for its end, from another fiber: yields until then.
    pub fn join(self, context: &Context) -> T {
        while !self.ended() {
            context.yield_now();
        }
        self.value().expect("F4: an ended fiber has left its value")
    }

    /// What it has returned, if it has ended: as after [`Pool::finish`].
    #[must_use]
    pub fn value(self) -> Option<T> {
        if !self.ended() {
            return None;
        }
        self.0.value.with_mut(|slot| {
            // SAFETY: the fiber has set `done` and is through with it; there is one handle.
            unsafe { (*slot).take() }
        })
    }
}

fn spawn<T: Send + 'static>(
    crew: &Arc<Crew>,
    work: impl FnOnce(&Context) -> T + Send + 'static,
) -> Result<Handle<T>> {
    let left = Arc::new(Left { done: AtomicBool::new(false), value: UnsafeCell::new(None) });
    let to = Arc::clone(&left);
    let job = move |context: &Context| {
        let value = work(context);
        to.value.with_mut(|slot| {
            // SAFETY: nobody else touches it before `done` is set.
            unsafe { *slot = Some(value) };
        });
        // ORDER: Release pairs with Acquire in `Handle::ended`.
        to.done.store(true, Ordering::Release);
    };
    crew.enter(Fiber::new(Arc::clone(crew), Box::new(job))?);
    Ok(Handle(left))
}

// SAFETY: F1: whoever holds a fiber that does not run holds all of it; what is on its stack was left there by code that may run on any
// thread, since a program has no thread-local storage, and is gone on with by one at a time.
unsafe impl Send for Fiber {}

/// Workers and their fibers.
pub struct Pool {
    crew: Arc<Crew>,
    watcher: JoinHandle<Result<()>>,
}

impl Pool {
    /// A pool that keeps so many workers running.
    ///
    /// # Errors
    /// See `map` and `thread_create`.
    pub fn new(workers: usize) -> Result<Self> {
        let crew = Arc::new(Crew::new(workers.max(1)));
        let watched = Arc::clone(&crew);
        let watcher = crate::thread::spawn(move || watched.watch())?;
        Ok(Self { crew, watcher })
    }

    /// Starts a fiber.
    ///
    /// # Errors
    /// See `map`.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Context) -> T + Send + 'static,
    ) -> Result<Handle<T>> {
        spawn(&self.crew, work)
    }

    /// Waits until all fibers have ended, those too that they start, and then ends the workers.
    ///
    /// # Errors
    /// What the watcher could not do: make the first workers, or watch one.
    pub fn finish(self) -> Result<()> {
        self.crew.close();
        self.watcher.join()?
    }
}
