//! Trace rings: what happened on a core, in the order in which it happened.
//!
//! [`Event`] comes from one table, which also says what the numbers of a [`TraceRecord`] mean; [`Ring`] keeps the newest of them.
//! A ring belongs to one core, which alone writes and reads it, with interrupts off: there is nothing to synchronise, and who wants
//! another core's records asks that core.

mod ring;

pub use ring::{Ring, Taken};

use abi::debug::TraceEvents;

/// What a number of a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Number of a thread; 0 is the idle loop.
    Thread,
    /// Number of a process.
    Process,
    /// Number of a core.
    Core,
    /// Number of a system call.
    Call,
    /// Status of a system call: 0, or the number of an error.
    Status,
    /// An address.
    Address,
    /// A duration in ticks.
    Ticks,
    /// A number whose meaning is the event's.
    Value,
}

/// A number of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// Numbers of a record.
pub const ARGUMENTS: usize = 3;

macro_rules! events {
    ($( $(#[doc = $text:literal])* $number:literal $variant:ident $word:literal $events:ident ( $($argument:ident : $kind:ident),* ); )*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Event { $( $(#[doc = $text])* $variant = $number ),* }

        impl Event {
            /// Every event, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The event that a number stands for.
            #[must_use]
            pub const fn decode(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// The word of files.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// The event that a word stands for.
            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }

            /// The kind that it is switched on with.
            #[inline(always)]
            #[must_use]
            pub const fn events(self) -> TraceEvents {
                match self { $(Self::$variant => TraceEvents::$events),* }
            }

            /// What the numbers of its records are, in order; at most [`ARGUMENTS`].
            #[must_use]
            pub const fn arguments(self) -> &'static [Argument] {
                match self { $(Self::$variant => &[$( Argument { name: stringify!($argument), kind: Kind::$kind } ),*]),* }
            }
        }
    };
}

events! {
    /// The core goes over from one thread to another.
    1 Switch "switch" SWITCH (from: Thread, to: Thread, state: Value);
    /// A thread could run again, on the core named last; recorded by whoever woke it.
    2 Ready "ready" WAKE (thread: Thread, waker: Thread, core: Core);
    /// A system call is entered; its first argument.
    3 SyscallEnter "syscall-enter" SYSCALL (number: Call, argument: Value);
    /// A system call returns.
    4 SyscallExit "syscall-exit" SYSCALL (number: Call, status: Status);
    /// A page fault on user memory: bit 0 of `access` says write, bit 1 execute, bit 2 user mode, bit 3 that something was mapped;
    /// 0 as the outcome that the access is made again.
    5 PageFault "page-fault" FAULT (address: Address, access: Value, outcome: Value);
    /// An interrupt from another core.
    6 Ipi "ipi" INTERRUPT ();
    /// The timer's interrupt, and how long after the time it was set for.
    7 Timer "timer" INTERRUPT (late: Ticks);
    /// Another interrupt.
    8 Irq "irq" INTERRUPT (vector: Value);
    /// A core takes a thread from another that has more.
    9 Steal "steal" MIGRATE (thread: Thread, from: Core, to: Core);
    /// A thread goes to another core for another reason.
    10 Migrate "migrate" MIGRATE (thread: Thread, from: Core, to: Core);
    /// A process is made.
    11 ProcessCreate "process-create" PROCESS (process: Process, parent: Process);
    /// A process ends, for a reason of `abi::task::ExitStatus`.
    12 ProcessExit "process-exit" PROCESS (process: Process, code: Value, reason: Value);
    /// A thread is made.
    13 ThreadCreate "thread-create" PROCESS (thread: Thread, process: Process);
    /// A thread ends.
    14 ThreadExit "thread-exit" PROCESS (thread: Thread, code: Value);
    /// A value that a program or a test put in.
    15 Mark "mark" MARK (value: Value, more: Value, tag: Value);
}

const _: () = {
    let mut i = 0;
    while i < Event::ALL.len() {
        assert!(Event::ALL[i] as usize == i + 1, "numbers are dense and ascending from 1");
        assert!(Event::ALL[i].arguments().len() <= ARGUMENTS, "a record has room for three numbers");
        i += 1;
    }
};

/// One event of one core. The memory of a ring, and what `trace_read` hands out: [`TraceRecord::BYTES`] bytes, little-endian, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C, align(32))]
pub struct TraceRecord {
    /// When, in ticks of the time-stamp counter.
    pub ticks: u64,
    /// First number of the event.
    pub a: u64,
    /// Second number.
    pub b: u64,
    /// Third number.
    pub c: u32,
    /// The core.
    pub core: u16,
    /// [`Event`] as a number.
    pub event: u16,
}

const _: () = assert!(
    size_of::<TraceRecord>() == TraceRecord::BYTES && align_of::<TraceRecord>() == TraceRecord::BYTES
);

impl TraceRecord {
    /// Bytes of a record.
    pub const BYTES: usize = 32;

    /// The record as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let Self { ticks, a, b, c, core, event } = *self;
        let words = [ticks, a, b, u64::from(c) | u64::from(core) << 32 | u64::from(event) << 48];
        let mut bytes = [0; Self::BYTES];
        for (slot, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *slot = word.to_le_bytes();
        }
        bytes
    }

    /// The record that bytes stand for, whatever event it names.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*chunk);
        }
        let [ticks, a, b, last] = words;
        Self { ticks, a, b, c: last as u32, core: (last >> 32) as u16, event: (last >> 48) as u16 }
    }

    /// Its numbers with what they are; nothing for an unknown event.
    pub fn arguments(&self) -> impl Iterator<Item = (Argument, u64)> {
        let known = Event::decode(self.event).map(Event::arguments).unwrap_or_default();
        known.iter().copied().zip([self.a, self.b, u64::from(self.c)])
    }
}
