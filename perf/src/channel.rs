//! Records from a program to the kernel's harness, through a page that both can see: a stream of bytes with one writer and one reader.
//!
//! The program owns a [`Sender`], which is a [`Sink`]. The kernel owns a [`Receiver`] and looks whenever the program [waits](Channel::full)
//! or has ended. A message is its length (4 bytes, little-endian) and a record in postcard form; there is no checksum, since memory does not
//! lose bytes. The reader trusts nothing that it reads: a damaged ring gives [`Damaged`], never an access outside.
//!
//! The kernel numbers and frames the records anew for the serial line, so that a program cannot damage that; the indices of its cases
//! follow those of the kernel's own table, see [`Record::shifted`].
//!
//! One page, because the kernel sees frames one by one: messages longer than the ring go through it piece by piece. A writer that finds no
//! room, or wants all to be read, raises `full` and sleeps on `tail`; a writer that is done raises `closed`.

use crate::record::{MAX_PAYLOAD, Record, Sink};
use crate::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Bytes of the ring: a power of two, so that positions can run around.
const DATA: usize = if cfg!(loom) { 8 } else { 2 << 10 };
/// Bytes of a message's length.
const LENGTH: usize = size_of::<u32>();

const _: () = assert!(DATA.is_power_of_two());

/// The shared memory. All zeroes is an empty channel.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `head`, `full`, `closed` | the program | the kernel | Release and Acquire |
/// | `tail` | the kernel | the program | Release and Acquire |
/// | `data` | the program | the kernel | between `tail` and `head` the kernel's, elsewhere the program's |
#[derive(Debug)]
#[repr(C)]
pub struct Channel {
    head: Line,
    tail: Line,
    full: Line,
    closed: Line,
    data: [AtomicU8; DATA],
}

/// A word on a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
struct Line(AtomicU32);

#[cfg(not(loom))]
const _: () = assert!(size_of::<Channel>() == 4 * 64 + DATA && size_of::<Channel>() <= 4096);

impl Default for Channel {
    fn default() -> Self {
        Self::new()
    }
}

impl Channel {
    /// An empty channel.
    #[must_use]
    pub fn new() -> Self {
        let line = || Line(AtomicU32::new(0));
        let data = core::array::from_fn(|_| AtomicU8::new(0));
        Self { head: line(), tail: line(), full: line(), closed: line(), data }
    }

    /// Whether the writer waits for its messages to be read.
    #[must_use]
    pub fn full(&self) -> bool {
        // ORDER: Acquire pairs with Release in `Sender::wait_for_room`: all that it wrote before is seen.
        self.full.0.load(Ordering::Acquire) != 0
    }

    /// Whether the writer is done.
    #[must_use]
    pub fn closed(&self) -> bool {
        // ORDER: Acquire pairs with Release in `Sender::close`: all that it wrote is seen.
        self.closed.0.load(Ordering::Acquire) != 0
    }

    fn put(&self, at: u32, bytes: &[u8]) {
        for (place, &byte) in (0..).map(|offset| index(at, offset)).zip(bytes) {
            if let Some(slot) = self.data.get(place) {
                // ORDER: Relaxed; published by `head`, and `tail` was read with Acquire before.
                slot.store(byte, Ordering::Relaxed);
            }
        }
    }

    fn get(&self, at: u32, bytes: &mut [u8]) {
        for (place, byte) in (0..).map(|offset| index(at, offset)).zip(bytes) {
            if let Some(slot) = self.data.get(place) {
                // ORDER: Relaxed; `head` was read with Acquire before.
                *byte = slot.load(Ordering::Relaxed);
            }
        }
    }
}

/// Where in `data` a position is.
const fn index(at: u32, offset: u32) -> usize {
    at.wrapping_add(offset) as usize % DATA
}

/// A message longer than any record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// The program's end.
pub struct Sender<'c, W: FnMut(&AtomicU32, u32)> {
    channel: &'c Channel,
    head: u32,
    /// Sleeps while the word holds the value; may return for no reason.
    wait: W,
}

impl<'c, W: FnMut(&AtomicU32, u32)> Sender<'c, W> {
    /// The one writer of a channel that is empty. `wait` sleeps while a word holds a value; it may return for no reason, and must in time.
    pub fn new(channel: &'c Channel, wait: W) -> Self {
        Self { channel, head: 0, wait }
    }

    /// Sends a message; waits for room.
    ///
    /// # Errors
    /// [`TooLong`] for more than [`MAX_PAYLOAD`] bytes.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= MAX_PAYLOAD).ok_or(TooLong)?;
        self.push(&length.to_le_bytes());
        self.push(bytes);
        Ok(())
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // ORDER: Acquire pairs with Release in `pull`: the bytes before it have been read.
            let tail = self.channel.tail.0.load(Ordering::Acquire);
            let used = self.head.wrapping_sub(tail) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(DATA.saturating_sub(used)));
            if now.is_empty() {
                self.wait_for_room(tail);
                continue;
            }
            self.channel.put(self.head, now);
            self.head = self.head.wrapping_add(now.len() as u32);
            // ORDER: Release pairs with Acquire in `pull`: the bytes are there.
            self.channel.head.0.store(self.head, Ordering::Release);
            bytes = later;
        }
    }

    fn wait_for_room(&mut self, tail: u32) {
        // ORDER: Release pairs with Acquire in `Channel::full`: who sees the flag sees the bytes.
        self.channel.full.0.store(1, Ordering::Release);
        (self.wait)(&self.channel.tail.0, tail);
        // ORDER: Relaxed; only who reads may be late.
        self.channel.full.0.store(0, Ordering::Relaxed);
    }

    /// Waits until everything has been read.
    pub fn flush(&mut self) {
        loop {
            // ORDER: Acquire pairs with Release in `pull`: the bytes before it have been read.
            let tail = self.channel.tail.0.load(Ordering::Acquire);
            if tail == self.head {
                return;
            }
            self.wait_for_room(tail);
        }
    }

    /// Says that nothing more comes.
    pub fn close(self) {
        // ORDER: Release pairs with Acquire in `Channel::closed`.
        self.channel.closed.0.store(1, Ordering::Release);
    }
}

impl<W: FnMut(&AtomicU32, u32)> Sink for Sender<'_, W> {
    fn send(&mut self, record: &Record<'_>) {
        let mut message = [0; MAX_PAYLOAD];
        // What does not fit a frame could not be sent on either; every record that the runner makes does.
        if let Ok(bytes) = postcard::to_slice(record, &mut message) {
            let _ = self.send_bytes(bytes);
        }
        // Should the case hang or take the machine with it, what ended before it is safe, and the blame falls on the right one.
        if matches!(record, Record::CaseStart(_)) {
            self.flush();
        }
    }
}

/// What is in the ring was not written by a [`Sender`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// The kernel's end. About 4 KiB: the message that is coming in.
#[derive(Debug)]
pub struct Receiver<'c> {
    channel: &'c Channel,
    tail: u32,
    length: [u8; LENGTH],
    message: [u8; MAX_PAYLOAD],
    /// Bytes of the message that are there, those of its length included.
    filled: usize,
}

impl<'c> Receiver<'c> {
    /// The one reader of a channel that nobody has read from.
    #[must_use]
    pub const fn new(channel: &'c Channel) -> Self {
        Self { channel, tail: 0, length: [0; LENGTH], message: [0; MAX_PAYLOAD], filled: 0 }
    }

    /// The word that the writer sleeps on: to be woken after messages were taken.
    #[must_use]
    pub const fn word(&self) -> &'c AtomicU32 {
        &self.channel.tail.0
    }

    /// Takes what there is of a message; gives it when it is whole.
    ///
    /// # Errors
    /// [`Damaged`]; nothing more can be had then.
    pub fn next_bytes(&mut self) -> Result<Option<&[u8]>, Damaged> {
        if self.filled < LENGTH {
            let rest = self.length.get_mut(self.filled..).unwrap_or_default();
            self.filled += pull(self.channel, &mut self.tail, rest)?;
            if self.filled < LENGTH {
                return Ok(None);
            }
        }
        let length = u32::from_le_bytes(self.length) as usize;
        let from = self.filled - LENGTH;
        let rest = self.message.get_mut(..length).ok_or(Damaged)?.get_mut(from..).unwrap_or_default();
        self.filled += pull(self.channel, &mut self.tail, rest)?;
        if self.filled < LENGTH + length {
            return Ok(None);
        }
        self.filled = 0;
        Ok(self.message.get(..length))
    }

    /// Takes a record; `None` if there is no whole one now.
    ///
    /// # Errors
    /// [`Damaged`], also for a message that is no record.
    pub fn take(&mut self) -> Result<Option<Record<'_>>, Damaged> {
        let bytes = self.next_bytes()?;
        bytes.map(|bytes| postcard::from_bytes(bytes).map_err(|_| Damaged)).transpose()
    }
}

/// Takes as many bytes as there are and as fit; gives how many.
fn pull(channel: &Channel, tail: &mut u32, to: &mut [u8]) -> Result<usize, Damaged> {
    // ORDER: Acquire pairs with Release in `Sender::push`.
    let head = channel.head.0.load(Ordering::Acquire);
    let there = head.wrapping_sub(*tail) as usize;
    if there > DATA {
        return Err(Damaged);
    }
    let count = there.min(to.len());
    channel.get(*tail, to.get_mut(..count).unwrap_or_default());
    *tail = tail.wrapping_add(count as u32);
    // ORDER: Release pairs with Acquire in `Sender::push`: the bytes have been read.
    channel.tail.0.store(*tail, Ordering::Release);
    Ok(count)
}

#[cfg(all(test, loom))]
mod models {
    use super::{Channel, Receiver, Sender};
    use loom::sync::Arc;

    /// Two messages through a ring that holds one and a bit: none is lost, torn or seen early. Planted: `Relaxed` for `head`'s Release.
    #[test]
    fn loom_messages_arrive_whole_and_in_order() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(|| {
            let channel = Arc::new(Channel::new());
            let writer = Arc::clone(&channel);
            let thread = loom::thread::spawn(move || {
                let mut sender = Sender::new(&writer, |_, _| loom::thread::yield_now());
                for message in [[1, 2], [3, 4]] {
                    sender.send_bytes(&message).unwrap();
                }
                sender.close();
            });
            let mut receiver = Receiver::new(&channel);
            let mut expected = [[1, 2], [3, 4]].iter();
            while expected.len() > 0 {
                match receiver.next_bytes().unwrap() {
                    Some(message) => assert_eq!(message, expected.next().unwrap()),
                    None => loom::thread::yield_now(),
                }
            }
            thread.join().unwrap();
            assert!(channel.closed() && receiver.next_bytes() == Ok(None));
        });
    }
}
