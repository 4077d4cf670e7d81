//! The system calls: one table, from which everything that names a call is made.
//!
//! Registers (x86-64, `syscall`): number in `rax`; arguments in `rdi rsi rdx r10 r8 r9`; status in `rax` (0, or an [`Error`]'s
//! number), value in `rdx`. The CPU clobbers `rcx` and `r11`, the kernel `rsi rdi r8 r9 r10`; everything else is kept.
//!
//! [`for_each_syscall!`](crate::for_each_syscall) hands the table to a macro: the kernel makes its dispatch table of it, the runtime its
//! stubs, [`TABLE`] the description that the fuzzer draws from and `docs/syscalls.md` is written from.
//!
//! [`Error`]: crate::error::Error

/// What an argument is: what the kernel reads it as, and what a fuzzer has to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A capability of the caller's process.
    Handle,
    /// The address of a structure that the call reads.
    In,
    /// The address of a structure that the call writes.
    Out,
    /// The address of bytes that the call reads.
    Bytes,
    /// The address of bytes that the call writes.
    Buffer,
    /// How many bytes, pages or things.
    Count,
    /// An address that is not accessed by the call itself.
    Address,
    /// An absolute time in ticks of the time-stamp counter.
    Deadline,
    /// A word whose meaning is the call's.
    Value,
    /// One of few values, or a set of bits.
    Choice,
}

impl Kind {
    /// The word of the manual.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Handle => "handle",
            Self::In => "in",
            Self::Out => "out",
            Self::Bytes => "bytes",
            Self::Buffer => "buffer",
            Self::Count => "count",
            Self::Address => "address",
            Self::Deadline => "deadline",
            Self::Value => "value",
            Self::Choice => "choice",
        }
    }
}

/// One argument of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
}

/// One call, as the manual and the fuzzer see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Number in `rax`.
    pub number: u64,
    /// Name of the stub.
    pub name: &'static str,
    /// Arguments in the order of their registers.
    pub arguments: &'static [Argument],
    /// What `rdx` holds after success; empty for nothing.
    pub value: &'static str,
    /// What the call does, line by line.
    pub text: &'static [&'static str],
}

/// Most arguments that a call has.
pub const MAX_ARGUMENTS: usize = 6;

/// Hands the table to a macro: rows of `#[doc] number name Variant (argument: Kind, …) -> "value";`, numbers dense and ascending.
#[macro_export]
macro_rules! for_each_syscall {
    ($callback:path) => { $callback! {
        /// Does nothing: what entering and leaving the kernel costs.
        0 null Null () -> "";
        /// Lets another thread of the same priority run, if there is one.
        1 yield_now YieldNow () -> "";
        /// Makes a thread in a process, not yet started; `spec` is a `ThreadSpec`. Needs `CREATE`.
        2 thread_create ThreadCreate (process: Handle, spec: In) -> "handle of the thread";
        /// Starts a thread that was made. Needs `CONTROL`.
        3 thread_start ThreadStart (thread: Handle) -> "";
        /// Ends the calling thread. Does not return.
        4 thread_exit ThreadExit (code: Value) -> "";
        /// Waits until a thread has ended. Needs `OBSERVE`. Fails with `TimedOut` after the deadline, with `BadHandle` if the thread goes unstarted.
        5 thread_join ThreadJoin (thread: Handle, deadline: Deadline) -> "the thread's exit code";
        /// Stops a thread until it is resumed, whatever it does. Needs `CONTROL`.
        6 thread_suspend ThreadSuspend (thread: Handle) -> "";
        /// Lets a suspended thread go on. Needs `CONTROL`.
        7 thread_resume ThreadResume (thread: Handle) -> "";
        /// Ends a thread. Needs `CONTROL`.
        8 thread_kill ThreadKill (thread: Handle, code: Value) -> "";
        /// Says on which cores a thread may run; `cores` is a `CoreMask`. Needs `CONTROL`.
        9 thread_affinity ThreadAffinity (thread: Handle, cores: In) -> "";
        /// Says how a thread is scheduled; `spec` is a `SchedSpec`. Needs `CONTROL`. Fails with `NotAdmitted` if a deadline cannot be kept, with
        /// `WrongState` if the thread may not run on the core that would have to keep it.
        10 thread_schedule ThreadSchedule (thread: Handle, spec: In) -> "";
        /// Tells about a thread; `info` is a `ThreadInfo`. Needs `OBSERVE`.
        11 thread_info ThreadInfo (thread: Handle, info: Out) -> "";
        /// Sets the base of the calling thread's FS segment.
        12 thread_tls ThreadTls (base: Address) -> "";
        /// Has a thread's blocking and unblocking told to the calling thread, with a word by which it knows it. Needs `CONTROL`.
        13 thread_watch ThreadWatch (thread: Handle, badge: Value) -> "";
        /// Waits until a watched thread has blocked, unblocked or ended. See `Upcall` for the value.
        14 upcall_wait UpcallWait (deadline: Deadline) -> "an `Upcall`";
        /// Sleeps until a time.
        15 sleep Sleep (until: Deadline) -> "";
        /// Ends a period of a thread that has one: sleeps until the next begins.
        16 period_end PeriodEnd () -> "periods that were missed";
        /// Makes a process from an ELF image; `spec` is a `ProcessSpec`. Its main thread waits to be started. Needs `CREATE` on the parent.
        17 process_create ProcessCreate (parent: Handle, spec: In) -> "handle of the process";
        /// Starts the main thread. Needs `CONTROL`. Fails with `BadAddress` if somebody has unmapped what the thread is to be told.
        18 process_start ProcessStart (process: Handle) -> "";
        /// Waits until a process has ended and everything it had is given back; how it ended is in its `ProcessInfo`. Needs `OBSERVE`.
        19 process_wait ProcessWait (process: Handle, deadline: Deadline) -> "the code it ended with";
        /// Ends a process and all its threads. Needs `CONTROL`.
        20 process_kill ProcessKill (process: Handle, code: Value) -> "";
        /// Ends the caller's process. Does not return.
        21 process_exit ProcessExit (code: Value) -> "";
        /// Tells about a process; `info` is a `ProcessInfo`. Needs `OBSERVE`.
        22 process_info ProcessInfo (process: Handle, info: Out) -> "";
        /// Maps zeroed pages into a process, taken when first touched. Needs `MAP`. Address 0 lets the kernel choose.
        23 map Map (process: Handle, address: Address, pages: Count, protection: Choice) -> "the address";
        /// Unmaps pages. Needs `MAP`.
        24 unmap Unmap (process: Handle, address: Address, pages: Count) -> "";
        /// Changes what may be done with pages. Needs `MAP`.
        25 protect Protect (process: Handle, address: Address, pages: Count, protection: Choice) -> "";
        /// Makes a region: memory that several processes can map.
        26 region_create RegionCreate (pages: Count) -> "handle of the region";
        /// Maps pages of a region into a process. Needs `MAP` on both, and `WRITE` on the region for a writable protection.
        27 region_map RegionMap (process: Handle, region: Handle, address: Address, first: Count, pages: Count, protection: Choice) -> "the address";
        /// Makes another capability for the same object, with no more rights. Needs `GRANT`.
        28 cap_derive CapDerive (from: Handle, rights: Choice, badge: Value) -> "handle";
        /// Deletes a capability.
        29 cap_delete CapDelete (handle: Handle) -> "";
        /// Tells about a capability; `info` is a `CapInfo`.
        30 cap_info CapInfo (handle: Handle, info: Out) -> "";
        /// Waits until woken, if the 32-bit word at the address holds the expected value. Fails with `Mismatch` if it does not.
        31 futex_wait FutexWait (word: Address, expected: Value, deadline: Deadline) -> "";
        /// Wakes at most so many threads that wait on the word.
        32 futex_wake FutexWake (word: Address, count: Count) -> "threads woken";
        /// Wakes one thread that waits on one word and lets at most so many others wait on another instead.
        33 futex_requeue FutexRequeue (word: Address, to: Address, count: Count) -> "threads woken or moved";
        /// Reserves a core for threads that are bound to it alone, or gives it back. Needs `CONTROL` on the core.
        34 core_reserve CoreReserve (core: Handle, reserved: Choice) -> "";
        /// Tells about a core; `info` is a `CoreInfo`. Needs `OBSERVE`.
        35 core_info CoreInfo (core: Handle, info: Out) -> "";
        /// Writes text to the kernel's log. Needs `WRITE` on the debug interface.
        36 debug_write DebugWrite (debug: Handle, text: Bytes, length: Count) -> "";
        /// Writes what the kernel knows of something to a buffer as text: a process, memory, the scheduler. Needs `OBSERVE` on the debug interface.
        37 debug_dump DebugDump (debug: Handle, what: Choice, subject: Handle, buffer: Buffer, length: Count) -> "bytes written";
        /// Switches kinds of trace events on; `events` is a set of bits. Needs `CONTROL` on the debug interface.
        38 trace_switch TraceSwitch (debug: Handle, events: Choice) -> "the bits before";
        /// Takes trace records of a core out of its ring. Needs `OBSERVE` on the debug interface.
        39 trace_read TraceRead (debug: Handle, core: Count, buffer: Buffer, length: Count) -> "bytes written";
        /// Reads the counters and histograms of a core; `metrics` is a `Metrics`. Needs `OBSERVE` on the debug interface.
        40 metrics Metrics (debug: Handle, core: Count, metrics: Out) -> "";
    } };
}

macro_rules! define {
    ($( $(#[doc = $text:literal])* $number:literal $name:ident $variant:ident ( $($argument:ident : $kind:ident),* ) -> $value:literal; )*) => {
        /// A system call by its number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum Syscall { $( $(#[doc = $text])* $variant = $number ),* }

        impl Syscall {
            /// Every call, by ascending number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The call that a number stands for.
            #[must_use]
            pub const fn decode(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }

        /// Every call, by ascending number.
        pub const TABLE: &[Description] = &[$( Description {
            number: $number,
            name: stringify!($name),
            arguments: &[$( Argument { name: stringify!($argument), kind: Kind::$kind } ),*],
            value: $value,
            text: &[$($text),*],
        } ),*];
    };
}

for_each_syscall!(define);

/// How many calls there are; every number below is one.
pub const COUNT: usize = TABLE.len();

const _: () = {
    let mut i = 0;
    while i < COUNT {
        assert!(TABLE[i].number as usize == i, "numbers are dense and ascending");
        assert!(TABLE[i].arguments.len() <= MAX_ARGUMENTS, "a call has at most six arguments");
        i += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::{COUNT, Syscall, TABLE};

    #[test]
    fn every_number_decodes_to_its_own_call_and_no_other_does() {
        for (index, &call) in Syscall::ALL.iter().enumerate() {
            assert_eq!(Syscall::decode(index as u64), Some(call));
        }
        assert_eq!(Syscall::decode(COUNT as u64), None);
        assert_eq!(Syscall::decode(u64::MAX), None);
    }

    #[test]
    fn names_are_unique_and_described() {
        for (index, row) in TABLE.iter().enumerate() {
            assert!(!row.text.is_empty(), "{}", row.name);
            assert!(TABLE[..index].iter().all(|other| other.name != row.name), "{}", row.name);
        }
    }
}
