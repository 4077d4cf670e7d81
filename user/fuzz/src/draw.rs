//! What the fuzzer draws: half of the arguments make sense, so that calls get past their first check; the other half lie at the edges.

use alloc::vec::Vec;
use core::ptr::NonNull;

use abi::cap::{Handle, Rights};
use abi::ipc::{CAPS, MessageCall, Tag, WORDS};
use abi::syscall::{Description, Kind};
use perf::prng::Prng;
use rt::handle::{Debug, Endpoint, Owned, Process, Result, Typed};
use rt::ipc::Message;
use rt::memory;
use rt::process::{Builder, Image};
use rt::start::Start;
use rt::time::{self, Deadline};

/// Most handles that are remembered.
const HANDLES: usize = 64;
/// Bytes of the memory that structures and buffers begin in, and pages of all of it: what calls write may be longer.
const SCRATCH: u64 = 4096;
const SCRATCH_PAGES: usize = 64;
/// Ticks of the farthest deadline but for the rare ones: calls shall not sleep long.
const NEAR: u64 = 100_000;

/// Values at which checks change their minds.
const EDGES: &[u64] = &[
    0,
    1,
    2,
    0xfff,
    0x1000,
    0x1001,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_f000,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0xffff_7fff_ffff_ffff,
    0xffff_8000_0000_0000,
    0xffff_ffff_8000_0000,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 0xfff,
    u64::MAX - 1,
    u64::MAX,
];

/// A stream of calls; the same for the same seed and thread, apart from deadlines, addresses and handles.
///
/// The process that most calls are about is a child that never runs: about itself the fuzzer may only ask, since it would soon be dead,
/// and what comes after the first lethal call would never be tried.
pub(crate) struct Draw {
    prng: Prng,
    /// The seed, for reports.
    pub(crate) seed: u64,
    /// Number of the thread, for reports.
    pub(crate) thread: u32,
    handles: Vec<u64>,
    /// How many handles were learned: the next one's place.
    learned: usize,
    scratch: NonNull<u64>,
    /// Where all threads meet: not drawn itself, for nothing that is lasts long.
    meeting: Endpoint,
    /// This process, to be asked only; deleted with this value.
    own: Owned<Process>,
}

/// Handles that stay, or come again: the child, this process as one that may only be looked at, and an endpoint.
const FIXED: usize = 3;

impl Draw {
    pub(crate) fn new(seed: u64, thread: u32, meeting: Endpoint) -> Result<Self> {
        let own = Start::get().process().derive(Rights::OBSERVE.with(Rights::GRANT), 0)?;
        let scratch = memory::map(SCRATCH_PAGES)?.cast();
        let child = child().map_or(0, |child| child.handle().0);
        let mut handles: Vec<u64> = [child, own.handle().0, copy_of(meeting)].into();
        // Copies: the debug interface shall stay there for reports.
        let copy = |handle: &Handle| Debug(*handle).derive(Rights::ALL, 0).ok().map(Owned::keep);
        handles.extend(Start::get().handles().iter().filter_map(copy).map(|copy| copy.handle().0));
        let prng = Prng::stream(seed, thread);
        Ok(Self { prng, seed, thread, handles, learned: 0, scratch, meeting, own })
    }

    /// Makes a new child: the last one is probably dead by now, and gives its capability back. So it does with the endpoint.
    pub(crate) fn renew(&mut self) {
        if let Some(slot) = self.handles.get_mut(FIXED - 1) {
            drop(Owned::new(Endpoint(Handle(*slot))));
            *slot = copy_of(self.meeting);
        }
        if let Some(slot) = self.handles.first_mut() {
            drop(Owned::new(Process(Handle(*slot))));
            *slot = child().map_or(0, |child| child.handle().0);
        }
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.prng.below(count) == 0
    }

    /// A call of the list; rarely none of the table.
    pub(crate) fn call<'c>(&mut self, calls: &[&'c Description]) -> Option<&'c Description> {
        let drawn = self.prng.below(calls.len() as u64 + 1) as usize;
        calls.get(drawn).copied().or_else(|| if self.one_in(8) { None } else { calls.first().copied() })
    }

    /// Number and arguments. Registers that the call does not read hold garbage.
    pub(crate) fn arguments(&mut self, call: Option<&Description>) -> (u64, [u64; 6]) {
        let mut arguments = [0; 6];
        for slot in &mut arguments {
            *slot = self.prng.bits();
        }
        let Some(call) = call else { return (self.edge(), arguments) };
        for (slot, argument) in arguments.iter_mut().zip(call.arguments) {
            *slot = self.argument(argument.kind);
        }
        (call.number, arguments)
    }

    /// A message call, which gives up soon unless it does not wait at all.
    pub(crate) fn message(&mut self) -> (MessageCall, Handle, Message, Deadline) {
        let call = match self.prng.below(5) {
            0 => MessageCall::Send,
            1 => MessageCall::Receive,
            2 => MessageCall::Reply,
            3 => MessageCall::Call,
            _ => MessageCall::ReplyReceive,
        };
        let handle = match self.prng.below(4) {
            0 => self.handle(),
            1 if call == MessageCall::Reply => Handle::NONE.0,
            _ => self.handles.get(FIXED - 1).copied().unwrap_or_default(),
        };
        let bits = self.prng.bits();
        let counts = (self.prng.below(CAPS as u64 + 1) as usize, self.prng.below(CAPS as u64 + 1) as usize);
        let tag = if self.one_in(8) {
            Tag(bits)
        } else {
            Tag(bits & Tag::KNOWN).with_caps(counts.0).accepting(counts.1)
        };
        let mut words = [0; WORDS];
        for word in &mut words {
            *word = if self.one_in(2) { self.handle() } else { self.prng.bits() };
        }
        let deadline = Deadline(time::now().count() + self.prng.below(NEAR));
        (call, Handle(handle), Message { badge: 0, tag, words }, deadline)
    }

    fn argument(&mut self, kind: Kind) -> u64 {
        // A deadline at an edge can be one that never comes. An early one has passed.
        if kind != Kind::Deadline && self.one_in(4) {
            let edge = self.edge();
            return if kind == Kind::Handle { self.spared(edge) } else { edge };
        }
        match kind {
            Kind::Handle => self.handle(),
            Kind::In | Kind::Bytes => {
                self.fill();
                self.place()
            }
            Kind::Out | Kind::Buffer => self.place(),
            Kind::Count => self.prng.below(64),
            Kind::Address => self.address(),
            Kind::Deadline if self.one_in(4) => time::now().count().saturating_sub(self.prng.below(1 << 40)),
            Kind::Deadline => time::now().count() + self.prng.below(NEAR),
            Kind::Value => self.prng.bits() >> self.prng.below(64),
            Kind::Choice => self.prng.below(8),
        }
    }

    fn edge(&mut self) -> u64 {
        let edge = EDGES.get(self.prng.below(EDGES.len() as u64) as usize).copied().unwrap_or_default();
        edge.wrapping_add(self.prng.below(3)).wrapping_sub(1)
    }

    fn handle(&mut self) -> u64 {
        let known = self.handles.get(self.prng.below(self.handles.len() as u64) as usize).copied();
        let known = known.unwrap_or_default();
        let handle = match self.prng.below(8) {
            // Another generation of a slot that is or was in use.
            0 => Handle::new(Handle(known).index(), self.prng.below(8) as u32).0,
            1 => self.prng.bits(),
            _ => known,
        };
        self.spared(handle)
    }

    /// Handles of the first slots are at an edge of numbers: this process's own, with every right. Stopped, or with a filter, it would not come to
    /// an end.
    fn spared(&self, handle: u64) -> u64 {
        let start = Start::get();
        let own = [start.process().handle().0, start.thread().handle().0];
        if own.contains(&handle) { self.own.handle().0 } else { handle }
    }

    /// An address in the scratch memory, mostly one where a structure fits.
    fn place(&mut self) -> u64 {
        let start = self.scratch.as_ptr() as u64;
        match self.prng.below(8) {
            0 => start + self.prng.below(SCRATCH),
            _ => start + self.prng.below(SCRATCH / 64) * 64,
        }
    }

    /// Addresses for mapping: around the range that the kernel names as free, aligned more often than not.
    fn address(&mut self) -> u64 {
        let base = Start::get().raw().heap;
        let page = base + (self.prng.below(1 << 12) << 12);
        match self.prng.below(8) {
            0 => 0,
            1 => page + self.prng.below(4096),
            2 => self.place(),
            _ => page,
        }
    }

    /// Puts words into the scratch memory that structures are read from: small numbers, known handles, addresses, edges.
    fn fill(&mut self) {
        for _ in 0..16 {
            let word = match self.prng.below(4) {
                0 => self.prng.below(256),
                1 => self.handle(),
                2 => self.place(),
                _ => self.edge(),
            };
            let at = self.prng.below(SCRATCH / 8) as usize;
            // SAFETY: inside the memory that `new` has mapped; the kernel writes there only during this thread's calls, and a volatile
            // write assumes nothing of what else it might do.
            unsafe { self.scratch.as_ptr().wrapping_add(at).write_volatile(word) };
        }
    }

    /// Remembers a handle that a call has given.
    pub(crate) fn learn(&mut self, call: Option<&Description>, status: u64, value: u64) {
        if status == 0 && call.is_some_and(|call| call.value.starts_with("handle")) {
            self.remember(value);
        }
    }

    /// Remembers a handle that has come from somewhere.
    pub(crate) fn remember(&mut self, value: u64) {
        // Not drawn: what a call answers must not change the sequence.
        if self.handles.len() < HANDLES {
            self.handles.push(value);
        } else {
            let at = FIXED + self.learned % (HANDLES - FIXED);
            if let Some(slot) = self.handles.get_mut(at) {
                *slot = value;
            }
            self.learned += 1;
        }
    }
}

/// A process that was made and not started; none where the loader has brought no `nop`.
fn child() -> Option<Process> {
    let start = Start::get();
    let image = Image::Loaded(start.program("nop")?);
    Builder::new(image).name("victim").create(start.process()).ok().map(Owned::keep)
}

/// A capability for an endpoint that may be given away; none if there is no room.
fn copy_of(endpoint: Endpoint) -> u64 {
    endpoint.derive(Rights::ALL, 1).map_or(0, |copy| copy.keep().handle().0)
}
