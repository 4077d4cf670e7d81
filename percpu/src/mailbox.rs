//! The inbox of a core: an intrusive queue that any core may push to and its owner drains.
//!
//! A message is a [`Node`] inside something the sender owns: a call on its stack, a thread to be woken, an object on its way
//! home. A push is one compare-exchange and allocates nothing; a drain is one exchange, after which the batch is turned round to
//! first-in-first-out order. It is Treiber's stack ("Systems Programming: Coping with Parallelism", IBM RJ 5118, 1986) taken as a
//! whole, which also disposes of the ABA problem: nobody ever pops a single node.
//!
//! * B1: a node is in at most one inbox at a time, and stays valid until it is delivered.
//! * B2: each pushed message is delivered exactly once, those of one sender in the order of their pushes.
//! * B3: an owner that has armed itself is woken by the next push: the exchange that delivers also tells whether to interrupt.

mod word;

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, loom))]
mod waits_tests;

pub use word::{Kick, Rest, Urgency};

#[cfg(not(loom))]
use crate::CACHE_LINE;
use crate::const_fn;
use crate::lock::Held;
use crate::pin::IrqOff;
use crate::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use crate::sync::cell::UnsafeCell;
use core::ptr::{self, NonNull};
use word::{TAGS, Word};

/// What is done with a message when it arrives. It may take locks; it cannot wait for another core, which would need `&mut IrqOff`.
///
/// # Safety
/// 1. Called once per push, with the node that was pushed. From then on the node is free to be pushed again.
pub type Deliver = unsafe fn(NonNull<Node>, &mut Held<'_, 0>);

/// The link of a message; the first field of whatever carries it.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `link` | the sender before the push, the owner after the drain | the owner | by the inbox word | the message's |
#[derive(Debug)]
#[repr(C, align(8))]
pub struct Node {
    link: UnsafeCell<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    next: *mut Node,
    deliver: Option<Deliver>,
}

const _: () = assert!(align_of::<Node>() > TAGS, "B4: the tag bits are free in a node's address");

// SAFETY: `link` is written by the sender before the push and read by the owner after the drain; B1 and the Release/Acquire
// pair of these two order the accesses.
unsafe impl Send for Node {}
// SAFETY: as above; a shared reference gives no other access.
unsafe impl Sync for Node {}

impl Node {
    const_fn! {
        /// A link that is in no inbox.
        #[must_use]
        pub const fn new() -> Self {
            Self { link: UnsafeCell::new(Link { next: ptr::null_mut(), deliver: None }) }
        }
    }

    /// # Safety
    /// 1. Nobody else accesses the link now (B1).
    unsafe fn set_link(&self, link: Link) {
        // SAFETY: obligation 1.
        self.link.with_mut(|own| unsafe { *own = link });
    }

    /// # Safety
    /// 1. Nobody writes the link now (B1).
    unsafe fn link(&self) -> Link {
        // SAFETY: obligation 1.
        self.link.with(|own| unsafe { *own })
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

/// The inbox of one core.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `word` | any core pushes; the owner drains and arms | any core | Release push, Acquire drain | its own |
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Inbox {
    word: AtomicPtr<Node>,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Inbox>() == CACHE_LINE && align_of::<Inbox>() == CACHE_LINE);

#[cfg(not(loom))]
crate::core_local! {
    /// This core's inbox.
    pub static INBOX: Inbox = Inbox::new();
}

/// Serves the inbox of the core that calls, unless it has armed itself and not served since: then it serves on waking. For its interrupt
/// handlers.
#[cfg(not(loom))]
#[inline(always)]
pub fn serve_unless_armed(irq: &mut IrqOff) -> usize {
    let inbox = INBOX.local(irq);
    // ORDER: Relaxed: only the owner arms and disarms, and this is its core.
    let word = Word(inbox.word.load(Ordering::Relaxed).addr());
    if word.is_armed() || word.newest() == 0 {
        return 0;
    }
    let oldest = inbox.take();
    irq.locks(|held| deliver_all(oldest, held))
}

/// Delivers everything that has arrived at the core that calls, as [`Inbox::serve`] of its inbox.
#[cfg(not(loom))]
#[inline(always)]
pub fn serve_own(irq: &mut IrqOff) -> usize {
    let oldest = INBOX.local(irq).take();
    irq.locks(|held| deliver_all(oldest, held))
}

/// Delivers a list that was taken out of the own inbox; returns how many messages it had.
#[inline(always)]
fn deliver_all(oldest: *mut Node, held: &mut Held<'_, 0>) -> usize {
    let mut at = oldest;
    let mut count = 0;
    while let Some(node) = NonNull::new(at) {
        // SAFETY: the node is valid until delivered (B1).
        let own = unsafe { node.as_ref() };
        // SAFETY: its sender does not touch it between push and delivery (B1).
        let link = unsafe { own.link() };
        // Read before the delivery, which may give the node away.
        at = link.next;
        let deliver = link.deliver.expect("B5: a pushed node has its delivery");
        // SAFETY: taken out of the inbox once, so delivered once; the rest is obligation 3 of `push`.
        unsafe { deliver(node, held) };
        count += 1;
    }
    count
}

impl Inbox {
    const_fn! {
        /// An empty inbox whose owner runs.
        #[must_use]
        pub const fn new() -> Self {
            Self { word: AtomicPtr::new(ptr::without_provenance_mut(Word::EMPTY.0)) }
        }
    }

    /// Adds a message: one compare-exchange. The caller acts on the [`Kick`].
    ///
    /// # Safety
    /// 1. `node` is in no inbox, and nobody else pushes it or touches its link until it is delivered (B1).
    /// 2. `node`, and what `deliver` reaches through it, stays valid until `deliver` gives it up.
    /// 3. `deliver` is sound to call once with `node`, on the owner's core.
    #[inline]
    pub unsafe fn push(&self, node: NonNull<Node>, deliver: Deliver, urgency: Urgency) -> Kick {
        // ORDER: Relaxed: a guess, which the exchange below verifies.
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let word = Word(seen.addr());
            let link = Link { next: seen.map_addr(|_| word.newest()), deliver: Some(deliver) };
            // SAFETY: the node is valid and ours until the exchange below succeeds (obligations 1, 2).
            let own = unsafe { node.as_ref() };
            // SAFETY: nobody else has it yet (obligation 1).
            unsafe { own.set_link(link) };
            let (next, kick) = word.push(node.addr().get(), urgency);
            let next = node.as_ptr().map_addr(|_| next.0);
            // ORDER: Release pairs with Acquire in `take`: the owner sees the message. Pushes in between are exchanges and so
            // continue the release sequence. Relaxed on failure: only another guess.
            match self.word.compare_exchange_weak(seen, next, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return kick,
                Err(now) => seen = now,
            }
        }
    }

    /// Whether there is nothing to serve and the owner is marked as running: one load of the owner's own line.
    #[must_use]
    #[inline(always)]
    pub fn is_quiet(&self) -> bool {
        // ORDER: Relaxed: a hint; a message that is missed here is seen at the next look, or kicks.
        self.word.load(Ordering::Relaxed).addr() == Word::EMPTY.0
    }

    /// Whether there is something to serve. An owner that monitors the line looks once more after it has begun to.
    #[must_use]
    #[inline(always)]
    pub fn has_message(&self) -> bool {
        // ORDER: Relaxed: a push that is not seen here comes later, and so ends the owner's rest as its kind of rest demands.
        Word(self.word.load(Ordering::Relaxed).addr()).newest() != 0
    }

    /// Delivers everything that has arrived, in order, and marks the owner as running. Returns the number of messages.
    ///
    /// The owner calls this; a message that arrives meanwhile stays for the next call.
    #[inline]
    pub fn serve(&self, irq: &mut IrqOff) -> usize {
        if self.is_quiet() {
            return 0;
        }
        let oldest = self.take();
        irq.locks(|held| deliver_all(oldest, held))
    }

    /// Takes the whole list, oldest first.
    #[inline(always)]
    fn take(&self) -> *mut Node {
        // ORDER: Acquire pairs with Release in `push`: we see the messages. Nothing is published by emptying.
        let mut newest = self.word.swap(ptr::without_provenance_mut(Word::EMPTY.0), Ordering::Acquire);
        newest = newest.map_addr(|word| Word(word).newest());
        let mut oldest = ptr::null_mut();
        while let Some(node) = NonNull::new(newest) {
            // SAFETY: the node is valid until delivered (B1).
            let own = unsafe { node.as_ref() };
            // SAFETY: out of the inbox and not yet delivered, it is ours alone.
            let link = unsafe { own.link() };
            // SAFETY: as above.
            unsafe { own.set_link(Link { next: oldest, ..link }) };
            oldest = newest;
            newest = link.next;
        }
        oldest
    }

    /// Marks the owner as resting, unless there are messages: `false` means that it has to serve them first.
    ///
    /// With [`Rest::Halted`] the owner keeps interrupts off from before this call until the instruction that both enables them and
    /// stops; a kick that comes in between is then pending and stops the stop. After waking, [`Inbox::serve`] ends the rest.
    #[must_use]
    pub fn arm(&self, _irq: &IrqOff, rest: Rest) -> bool {
        // ORDER: Relaxed: a guess, which the exchange below verifies.
        let mut seen = self.word.load(Ordering::Relaxed);
        while let Some(next) = Word(seen.addr()).arm(rest) {
            let next = ptr::without_provenance_mut(next.0);
            // ORDER: Relaxed: who pushes next reads the rest from this very word, and reads nothing else by it.
            match self.word.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// The line a resting owner may monitor: every push writes it.
    #[must_use]
    pub fn monitor_address(&self) -> *const () {
        ptr::from_ref(&self.word).cast()
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

/// A message that says only "something has changed": raised many times before it is delivered, it is delivered once.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `node` | as [`Node`] | the owner | by the inbox | with the rest |
/// | `raised` | any core sets, the owner clears | both | AcqRel exchanges | with the rest |
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Signal {
    node: Node,
    raised: AtomicBool,
    handler: fn(&'static Signal, &mut Held<'_, 0>),
}

#[cfg(not(loom))]
const _: () = assert!(core::mem::offset_of!(Signal, node) == 0 && size_of::<Signal>() == CACHE_LINE);

impl Signal {
    const_fn! {
        /// A signal that `handler` answers.
        #[must_use]
        pub const fn new(handler: fn(&'static Signal, &mut Held<'_, 0>)) -> Self {
            Self { node: Node::new(), raised: AtomicBool::new(false), handler }
        }
    }

    /// Makes the owner of `inbox` run the handler once after this call. A signal is raised to one inbox only.
    #[inline]
    pub fn raise(&'static self, inbox: &Inbox, urgency: Urgency) -> Kick {
        // ORDER: AcqRel: Release pairs with Acquire in `deliver`: the handler sees what we did before raising, also when another
        // raise is already on its way. Acquire pairs with Release in `deliver`: the node is ours again.
        if self.raised.swap(true, Ordering::AcqRel) {
            return Kick::None;
        }
        // SAFETY: `raised` was clear, so the node is in no inbox and nobody else pushes it; it lives for ever, and `deliver` expects
        // a signal's node.
        unsafe { inbox.push(NonNull::from_ref(self).cast(), Self::deliver, urgency) }
    }

    /// # Safety
    /// 1. `node` is the node of a signal.
    unsafe fn deliver(node: NonNull<Node>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1, the node being at offset 0; a raised signal is `'static`.
        let signal: &'static Self = unsafe { node.cast().as_ref() };
        // ORDER: AcqRel: Acquire pairs with Release in `raise` of everybody who found it raised; Release lets the next raise have
        // the node. Cleared before the handler runs, so that what comes later is answered anew.
        signal.raised.swap(false, Ordering::AcqRel);
        (signal.handler)(signal, held);
    }
}
