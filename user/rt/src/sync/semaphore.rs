//! A counting semaphore of one word: how many may pass, and how many wait.

use abi::task::NEVER;

use super::atomic::{AtomicU32, Ordering};
use super::{Futex, Waited};

/// Permits in the low half, waiting threads in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u32);

impl Word {
    const PERMIT: u32 = 1;
    const WAITER: u32 = 1 << 16;
    const MOST: u32 = Self::WAITER - 1;

    const fn permits(self) -> u32 {
        self.0 & Self::MOST
    }

    const fn waiters(self) -> u32 {
        self.0 >> 16
    }

    /// One permit fewer; `None` if there is none.
    const fn take(self) -> Option<Self> {
        if self.permits() == 0 { None } else { Some(Self(self.0 - Self::PERMIT)) }
    }

    /// One permit more; `None` if there are as many as can be.
    const fn give(self) -> Option<Self> {
        if self.permits() == Self::MOST { None } else { Some(Self(self.0 + Self::PERMIT)) }
    }

    /// One waiter more: the caller, who found no permit.
    const fn enter(self) -> Self {
        Self(self.0.wrapping_add(Self::WAITER))
    }

    /// One waiter fewer.
    const fn leave(self) -> Self {
        Self(self.0.wrapping_sub(Self::WAITER))
    }
}

/// Lets so many pass as there are permits; at most 65,535 permits, and as many waiting threads.
#[derive(Debug)]
pub struct Semaphore<F: Futex> {
    word: AtomicU32,
    futex: F,
}

impl<F: Futex> Semaphore<F> {
    perf::const_fn! {
        /// A semaphore with so many permits.
        pub const fn with(permits: u16, futex: F) -> Self {
            Self { word: AtomicU32::new(permits as u32), futex }
        }
    }

    /// Takes a permit; waits for one.
    #[inline]
    pub fn acquire(&self) {
        let _ = self.acquire_until(NEVER);
    }

    /// Takes a permit if there is one.
    #[inline]
    pub fn try_acquire(&self) -> bool {
        self.change(|word| word.take()).is_some()
    }

    /// Takes a permit; waits for one, but not beyond a time in ticks of the clock. Gives whether it was had.
    #[inline]
    pub fn acquire_until(&self, deadline: u64) -> bool {
        self.try_acquire() || self.wait(deadline)
    }

    /// Gives a permit, one's own or a new one. Gives whether there was room for it.
    #[inline]
    pub fn release(&self) -> bool {
        let before = self.change(|word| word.give());
        if before.is_some_and(|word| word.waiters() > 0) {
            self.wake();
        }
        before.is_some()
    }

    /// Changes the word; gives what it was.
    #[inline]
    fn change(&self, step: impl Fn(Word) -> Option<Word>) -> Option<Word> {
        // ORDER: AcqRel: giving a permit publishes, taking one sees what was written before it was given. Relaxed where nothing is changed.
        let changed = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |word| step(Word(word)).map(|word| word.0));
        changed.ok().map(Word)
    }

    #[cold]
    fn wait(&self, deadline: u64) -> bool {
        // Either a permit at once, or counted among those who wait; in one step, so that who gives one knows of us.
        let before = self.change(|word| Some(word.take().unwrap_or(word.enter())));
        let Some(mut seen) = before.filter(|word| word.take().is_none()).map(Word::enter) else {
            return true;
        };
        loop {
            let waited = self.futex.wait(&self.word, seen.0, deadline);
            if self.change(|word| word.take().map(Word::leave)).is_some() {
                return true;
            }
            if waited == Waited::TimedOut {
                let before = self.change(|word| Some(word.take().unwrap_or(word).leave()));
                return before.is_some_and(|word| word.take().is_some());
            }
            // ORDER: Relaxed; the kernel compares again, and does not sleep if there is a permit by then.
            seen = Word(self.word.load(Ordering::Relaxed) & !Word::MOST);
        }
    }

    #[cold]
    fn wake(&self) {
        self.futex.wake(&self.word, 1);
    }
}

#[cfg(target_os = "none")]
impl Semaphore<super::Kernel> {
    /// A semaphore with so many permits.
    #[must_use]
    pub const fn new(permits: u16) -> Self {
        Self::with(permits, super::Kernel)
    }
}
