//! The two ends. They differ in who writes to the slots, and in how many the other's index lets them go on: so both are an [`End`].

use core::fmt;

use abi::error::Error;
use abi::task::NEVER;

use super::{Bell, Item, Result, WORDS};
use crate::sync::atomic::{AtomicU64, Ordering};

/// Lines before the slots.
const LINES: usize = 4;

/// States of an end.
const AWAKE: u64 = 0;
const WAITS: u64 = 1;
const CLOSED: u64 = 2;

type Line = [AtomicU64; WORDS];

/// What an end tells the other one.
///
/// | field | line | writer | readers | ordering |
/// |---|---|---|---|---|
/// | `index` | 0 producer's, 1 consumer's | its end | the other | SeqCst, which is Release and Acquire too (CH1) |
/// | `state` | 2 producer's, 3 consumer's | its end; the other from `WAITS` to `AWAKE` | the other | SeqCst (CH1, CH3) |
/// | `want` | the line of `state`, in its second half | its end | the other | published by `state` |
///
/// The lines of states are written when somebody sleeps, and so stay in both caches else.
#[derive(Clone, Copy)]
struct Told<'m> {
    /// Items sent or taken.
    index: &'m AtomicU64,
    state: &'m AtomicU64,
    /// The other's index at which to ring.
    want: &'m AtomicU64,
}

impl<'m> Told<'m> {
    fn of(index: &'m Line, state: &'m Line) -> Option<Self> {
        Some(Self { index: index.first()?, state: state.first()?, want: state.last()? })
    }

    /// Publishes an index, a state, or that it waits, before any later look at the other's words.
    #[inline(always)]
    fn publish(word: &AtomicU64, value: u64) {
        // ORDER: SeqCst: before the looks of `look` and `End::go_on` in the total order (CH1). As a Release it pairs with the same: the slot
        // has been written, or read.
        word.swap(value, Ordering::SeqCst);
        // Loom takes SeqCst accesses for AcqRel.
        #[cfg(loom)]
        // ORDER: SeqCst: stands for that of the swap.
        crate::sync::atomic::fence(Ordering::SeqCst);
    }
}

/// What both ends are.
struct End<'m, B: Bell> {
    own: Told<'m>,
    peer: Told<'m>,
    slots: &'m [Line],
    bell: B,
    /// Sent or taken by this end: the own index, never read back.
    done: u64,
    /// Up to where `done` can go, by the last look at the other's index.
    limit: u64,
    /// What `limit` is ahead of the other's index: the length of the ring, or nothing.
    ahead: u64,
    /// The slot of `done`.
    at: usize,
}

impl<'m, B: Bell> End<'m, B> {
    /// The lines of the two ends, and the slots.
    fn lines(memory: &'m [AtomicU64]) -> Result<([Told<'m>; 2], &'m [Line])> {
        let (lines, _) = memory.as_chunks::<WORDS>();
        let (told, slots) = lines.split_at_checked(LINES).ok_or(Error::BadArgument)?;
        let [sent, taken, producer, consumer] = told else { return Err(Error::BadArgument) };
        let ends = [Told::of(sent, producer), Told::of(taken, consumer)];
        match ends {
            [Some(producer), Some(consumer)] if !slots.is_empty() => Ok(([producer, consumer], slots)),
            _ => Err(Error::BadArgument),
        }
    }

    fn new(own: Told<'m>, peer: Told<'m>, slots: &'m [Line], bell: B, ahead: u64) -> Self {
        Self { own, peer, slots, bell, done: 0, limit: ahead, ahead, at: 0 }
    }

    /// The slot that is this end's, if one is by what was last seen.
    #[inline(always)]
    fn slot(&self) -> Option<&'m Line> {
        if self.done == self.limit { None } else { self.slots.get(self.at) }
    }

    /// Hands the slot to the other end, and wakes that if it waits for it.
    #[inline(always)]
    fn go_on(&mut self) -> Result {
        self.done = self.done.wrapping_add(1);
        self.at = if self.at + 1 == self.slots.len() { 0 } else { self.at + 1 };
        Told::publish(self.own.index, self.done);
        // ORDER: SeqCst: after `publish` in the total order (CH1); partner: `publish` in `wait` and `close`.
        match self.peer.state.load(Ordering::SeqCst) {
            AWAKE => Ok(()),
            state => self.attend(state),
        }
    }

    /// The other end is not awake.
    #[cold]
    fn attend(&self, state: u64) -> Result {
        match state {
            WAITS => {
                // ORDER: Relaxed; published by `state`. One of an earlier or later wait wakes too early, or leaves it to who waits, who looks
                // after its `publish`.
                let want = self.peer.want.load(Ordering::Relaxed);
                if self.done.wrapping_sub(want).cast_signed() >= 0 { self.ring() } else { Ok(()) }
            }
            CLOSED => Err(Error::PeerGone),
            _ => Err(Error::BadArgument),
        }
    }

    /// Rings if the other end sleeps and need not.
    fn nudge(&self) -> Result {
        // ORDER: Relaxed; CH1 has been kept by `go_on`.
        if self.peer.state.load(Ordering::Relaxed) == WAITS { self.attend(WAITS) } else { Ok(()) }
    }

    /// Rings for who waits, once. It is `AWAKE` before: afterwards it could wait anew, and would lose that.
    fn ring(&self) -> Result {
        let state = self.peer.state;
        // ORDER: Relaxed, both: the bell brings what was written to who sleeps; the word has only to change once.
        if state.compare_exchange(WAITS, AWAKE, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return Ok(());
        }
        self.bell.ring().map_err(gone).inspect_err(|_| {
            // It sleeps on, for the next to try.
            // ORDER: Relaxed, both; as above.
            let _ = state.compare_exchange(AWAKE, WAITS, Ordering::Relaxed, Ordering::Relaxed);
        })
    }

    /// Looks how far the other end is; whether it has reached an index.
    ///
    /// The state before the index: what a closed end has sent is seen (CH3).
    #[cold]
    fn look(&mut self, want: u64) -> Result<bool> {
        // ORDER: SeqCst, both: after `publish` in `wait` in the total order (CH1); partner: `publish` in `go_on` and `close`, with which they
        // pair as Acquire.
        let state = self.peer.state.load(Ordering::SeqCst);
        // ORDER: SeqCst; as above.
        let index = self.peer.index.load(Ordering::SeqCst);
        let limit = index.wrapping_add(self.ahead);
        let room = limit.wrapping_sub(self.done);
        // CH2: no more than the ring has, and never less than before.
        if room > self.slots.len() as u64 || room < self.limit.wrapping_sub(self.done) {
            return Err(Error::BadArgument);
        }
        self.limit = limit;
        match state {
            _ if index.wrapping_sub(want).cast_signed() >= 0 => Ok(true),
            AWAKE | WAITS => Ok(false),
            CLOSED => Err(Error::PeerGone),
            _ => Err(Error::BadArgument),
        }
    }

    /// The other's index with which this end could go on.
    fn next(&self) -> u64 {
        self.done.wrapping_sub(self.ahead).wrapping_add(1)
    }

    /// Looks for a slot once.
    #[cold]
    fn try_more(&mut self) -> Result {
        if self.look(self.next())? { Ok(()) } else { Err(Error::WouldBlock) }
    }

    /// Sleeps until the other's index has reached this one.
    #[cold]
    fn wait(&mut self, want: u64, deadline: u64) -> Result {
        if self.look(want)? {
            return Ok(());
        }
        loop {
            // Before both sleep: a ring that failed is made good.
            self.nudge()?;
            // ORDER: Relaxed; published by `state`.
            self.own.want.store(want, Ordering::Relaxed);
            Told::publish(self.own.state, WAITS);
            let slept = match self.look(want) {
                Ok(false) => self.bell.wait(deadline).map_err(gone),
                looked => return self.awake(looked.map(drop)),
            };
            if slept.is_err() {
                // It may have come meanwhile.
                let last = self.look(want);
                return self.awake(if last == Ok(true) { Ok(()) } else { slept });
            }
        }
    }

    fn awake(&self, result: Result) -> Result {
        // ORDER: Relaxed: who sees `WAITS` still rings once in vain.
        self.own.state.store(AWAKE, Ordering::Relaxed);
        result
    }

    /// Tells the other end that nothing more comes or is taken.
    fn close(&self) {
        Told::publish(self.own.state, CLOSED);
        // ORDER: SeqCst: after `publish` in the total order (CH1); partner: `publish` in `wait`.
        if self.peer.state.load(Ordering::SeqCst) == WAITS {
            // Who is gone needs not be told.
            let _ = self.ring();
        }
    }
}

/// A bell that is gone is as good as the other end gone.
fn gone(error: Error) -> Error {
    if error == Error::BadHandle { Error::PeerGone } else { error }
}

/// The end that sends. Closed when it goes.
///
/// Every call here fails with [`Error::PeerGone`] when the other end is closed or its bell is gone, and with [`Error::BadArgument`] when the
/// memory holds what no consumer writes. These, and what else [`Bell::ring`] says, may be told of an item that is in the
/// ring, or has been taken.
pub struct Producer<'m, B: Bell>(End<'m, B>);

impl<'m, B: Bell> Producer<'m, B> {
    /// The producer of a channel in so many words, a multiple of 64 bytes, the first four lines of which are no items. All zeroes is an
    /// empty channel; both ends take the same words, and each is made once.
    ///
    /// # Errors
    /// [`Error::BadArgument`] if there is no room for an item.
    pub fn new(memory: &'m [AtomicU64], bell: B) -> Result<Self> {
        let ([own, peer], slots) = End::<B>::lines(memory)?;
        Ok(Self(End::new(own, peer, slots, bell, slots.len() as u64)))
    }

    /// Items that the channel holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.slots.len()
    }

    /// Sends an item if there is room.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if there is none.
    #[inline]
    pub fn try_send(&mut self, item: &Item) -> Result {
        if let Some(slot) = self.0.slot() {
            return self.put(slot, item);
        }
        self.0.try_more()?;
        self.put(self.0.slot().ok_or(Error::WouldBlock)?, item)
    }

    /// Sends an item; waits for room.
    ///
    /// # Errors
    /// See [`Producer`].
    #[inline]
    pub fn send(&mut self, item: &Item) -> Result {
        self.send_until(item, NEVER)
    }

    /// Sends an item; waits for room, but not beyond a time in ticks of the clock.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    #[inline]
    pub fn send_until(&mut self, item: &Item, deadline: u64) -> Result {
        if let Some(slot) = self.0.slot() {
            return self.put(slot, item);
        }
        self.0.wait(self.0.next(), deadline)?;
        self.put(self.0.slot().ok_or(Error::WouldBlock)?, item)
    }

    /// Waits until all that was sent has been taken, but not beyond a time in ticks of the clock.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub fn complete_until(&mut self, deadline: u64) -> Result {
        self.0.wait(self.0.done, deadline)
    }

    /// As [`complete_until`](Self::complete_until), without a time.
    ///
    /// # Errors
    /// See [`Producer`].
    pub fn complete(&mut self) -> Result {
        self.complete_until(NEVER)
    }

    #[inline(always)]
    fn put(&mut self, slot: &Line, item: &Item) -> Result {
        for (word, &value) in slot.iter().zip(item) {
            // ORDER: Relaxed; published by `index`.
            word.store(value, Ordering::Relaxed);
        }
        self.0.go_on()
    }
}

/// The end that receives. Closed when it goes.
///
/// Every call here fails with [`Error::PeerGone`] when all has been taken and the other end is closed or its bell is gone, and with
/// [`Error::BadArgument`] when the memory holds what no producer writes.
pub struct Consumer<'m, B: Bell>(End<'m, B>);

impl<'m, B: Bell> Consumer<'m, B> {
    /// The consumer of a channel; see [`Producer::new`].
    ///
    /// # Errors
    /// [`Error::BadArgument`] if there is no room for an item.
    pub fn new(memory: &'m [AtomicU64], bell: B) -> Result<Self> {
        let ([peer, own], slots) = End::<B>::lines(memory)?;
        Ok(Self(End::new(own, peer, slots, bell, 0)))
    }

    /// Takes an item if there is one.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if there is none.
    #[inline]
    pub fn try_receive(&mut self) -> Result<Item> {
        if let Some(slot) = self.0.slot() {
            return Ok(self.take(slot));
        }
        self.0.try_more()?;
        Ok(self.take(self.0.slot().ok_or(Error::WouldBlock)?))
    }

    /// Takes an item; waits for one.
    ///
    /// # Errors
    /// See [`Consumer`].
    #[inline]
    pub fn receive(&mut self) -> Result<Item> {
        self.receive_until(NEVER)
    }

    /// Takes an item; waits for one, but not beyond a time in ticks of the clock.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    #[inline]
    pub fn receive_until(&mut self, deadline: u64) -> Result<Item> {
        if let Some(slot) = self.0.slot() {
            return Ok(self.take(slot));
        }
        self.0.wait(self.0.next(), deadline)?;
        Ok(self.take(self.0.slot().ok_or(Error::WouldBlock)?))
    }

    #[inline(always)]
    fn take(&mut self, slot: &Line) -> Item {
        // ORDER: Relaxed; `index` was read with Acquire before.
        let item = core::array::from_fn(|word| slot[word].load(Ordering::Relaxed));
        // A producer that is gone leaves what it has sent, and is told nothing.
        let _ = self.0.go_on();
        item
    }
}

impl<B: Bell> Drop for Producer<'_, B> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<B: Bell> Drop for Consumer<'_, B> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<B: Bell> fmt::Debug for Producer<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Producer")
    }
}

impl<B: Bell> fmt::Debug for Consumer<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Consumer")
    }
}
