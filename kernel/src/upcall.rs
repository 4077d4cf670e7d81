//! Upcalls: a thread is told when threads that it watches block, can run again, and end, so that a scheduler in user space can keep its
//! workers busy (after T. Anderson et al., "Scheduler Activations", SOSP 1991, without giving the news a processor of its own).
//!
//! A watched thread has one event, the last; the watcher has a list of threads with news. So nothing is allocated, and nothing can overflow.

use core::cell::Cell;

use abi::error::Error;
use abi::task::Upcall;
use percpu::{Held, IrqOff, Lock, core_local};

use crate::arch::user::{HEAD, extra};
use crate::object::Ref;
use crate::thread::{State, Thread, ThreadRef};
use crate::{dispatch, wait};

/// Level of the locks around news. A leaf.
const LEVEL: u8 = 70;

/// What a thread has to do with upcalls: as one that is watched, and as a watcher.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `watched`, `watcher`, `badge` | the watched thread's home | the same | – |
/// | `next`, `event`, `told` | who holds the watcher's lock, or has closed its list | the same | by the lock |
/// | `news` | any core | any core | its lock |
pub(crate) struct Watch {
    watched: Cell<bool>,
    watcher: Cell<Option<Ref<Thread>>>,
    badge: Cell<u64>,
    /// The next thread with news for the same watcher.
    next: Cell<Option<Ref<Thread>>>,
    event: Cell<u64>,
    /// Whether it is in its watcher's list.
    told: Cell<bool>,
    /// Threads with news for this one.
    news: Lock<LEVEL, News>,
}

/// A list of threads with news, the latest first.
struct News {
    first: Option<Ref<Thread>>,
    /// Whoever they are for has ended.
    closed: bool,
}

core_local! {
    /// This core is about to wake a watcher, which may have a watcher itself.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

impl Watch {
    /// Whether somebody is told what the thread does.
    #[inline(always)]
    pub(crate) fn is_watched(&self) -> bool {
        self.watched.get()
    }

    /// Neither.
    pub(crate) const fn new() -> Self {
        Self {
            watched: Cell::new(false),
            watcher: Cell::new(None),
            badge: Cell::new(0),
            next: Cell::new(None),
            event: Cell::new(0),
            told: Cell::new(false),
            news: Lock::new(News { first: None, closed: false }),
        }
    }
}

/// Has what a thread does told to a watcher. At the thread's home.
///
/// # Errors
/// [`Error::WrongState`] if it has a watcher already, or has ended.
pub(crate) fn watch(
    held: &Held<'_, 0>,
    thread: ThreadRef,
    watcher: Ref<Thread>,
    badge: u64,
) -> Result<(), Error> {
    if thread.state.get() == State::Ended || thread.watch.watched.replace(true) {
        return Err(Error::WrongState);
    }
    thread.watch.badge.set(badge);
    thread.set_extra(extra::WATCHED, true);
    thread.state.wait_plainly();
    HEAD.owned(held).set_extra(extra::THREAD, true);
    thread.watch.watcher.set(Some(watcher));
    Ok(())
}

/// The current thread is about to leave its core without being able to run.
#[inline(always)]
pub(crate) fn blocked(irq: &mut IrqOff, thread: ThreadRef) {
    if thread.watch.watched.get() {
        irq.locks(|held| tell(held, thread, Upcall::BLOCKED));
    }
}

/// A thread can run again.
#[inline(always)]
pub(crate) fn unblocked(held: &mut Held<'_, 0>, thread: ThreadRef) {
    if thread.watch.watched.get() {
        tell(held, thread, Upcall::UNBLOCKED);
    }
}

/// A thread has ended: its watcher is told, and no longer kept, nor are those that it has watched.
pub(crate) fn ended(held: &mut Held<'_, 0>, thread: ThreadRef) {
    if thread.watch.watched.get() {
        tell(held, thread, Upcall::ENDED);
        thread.watch.watched.set(false);
        thread.set_extra(extra::WATCHED, false);
        drop(thread.watch.watcher.take());
    }
    let left = thread.watch.news.with(held, |news, _| {
        news.closed = true;
        news.first.take()
    });
    forget(left);
}

/// Gives up news that nobody will read.
fn forget(mut first: Option<Ref<Thread>>) {
    while let Some(thread) = first {
        first = thread.watch.next.take();
        thread.watch.told.set(false);
    }
}

fn tell(held: &mut Held<'_, 0>, thread: ThreadRef, event: u64) {
    let Some(watcher) = thread.watch.watcher.take() else { return };
    let open = watcher.watch.news.with(held, |news, _| {
        if news.closed {
            return false;
        }
        thread.watch.event.set(event);
        if !thread.watch.told.replace(true) {
            thread.watch.next.set(news.first.take());
            news.first = Some(thread.counted());
        }
        true
    });
    if open {
        wake(held, key(&watcher));
    }
    thread.watch.watcher.set(Some(watcher));
}

/// Wakes a watcher. That is news for its own watcher, and so on: from the second on they are woken by a message, for the stack is finite.
fn wake(held: &mut Held<'_, 0>, key: wait::Key) {
    if TELLING.owned(held).replace(true) {
        wait::wake_by_message(held, key);
        return;
    }
    wait::wake(held, key, 1, 0, 0);
    TELLING.owned(held).set(false);
}

/// What a watcher waits for.
fn key(watcher: &Thread) -> wait::Key {
    wait::Key::object(core::ptr::NonNull::from_ref(&watcher.watch))
}

/// One piece of news for a thread.
fn take(held: &mut Held<'_, 0>, watcher: &Thread) -> Option<Upcall> {
    let thread = watcher.watch.news.with(held, |news, _| {
        let first = news.first.take()?;
        news.first = first.watch.next.take();
        first.watch.told.set(false);
        let upcall = Upcall::new(first.watch.badge.get(), first.watch.event.get());
        Some((first, upcall))
    })?;
    Some(thread.1)
}

/// Waits for news: returns them, or blocks, and returns no news when woken, so that the caller looks again.
///
/// # Errors
/// [`Error::TimedOut`], when the time comes.
pub(crate) fn wait(irq: &mut IrqOff, deadline: u64) -> Result<u64, Error> {
    let thread = dispatch::current(irq);
    wait::enlist(irq, thread, key(&thread));
    match irq.locks(|held| take(held, &thread)) {
        Some(upcall) => {
            // Whoever has woken it meanwhile has left news, which the next look finds.
            let _waited = dispatch::do_not_block(irq, thread);
            Ok(upcall.0)
        }
        None => dispatch::block(irq, deadline),
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        forget(self.news.get_mut().first.take());
    }
}
