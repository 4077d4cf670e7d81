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
        /// Fails with `WrongState` if it is to be given a process that has not been started: such could keep each other for ever.
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
        /// Unmaps pages. Needs `MAP`. Many go in steps, between which the thread can be interrupted; what has been done stays if a later one fails.
        24 unmap Unmap (process: Handle, address: Address, pages: Count) -> "";
        /// Changes what may be done with pages. Needs `MAP`. In steps, as `unmap`.
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
        /// Takes everything back that was derived from a capability, everywhere; the capability itself stays. No use of what was taken back
        /// succeeds after this has returned. Needs `CONTROL` or `GRANT`.
        41 cap_revoke CapRevoke (handle: Handle) -> "capabilities deleted";
        /// Derives a capability into another process's table. Needs `GRANT` on it, and `CONTROL` on the process. Fails with `WrongState` if neither
        /// that process nor what is handed on, a process, has been started.
        42 cap_grant CapGrant (process: Handle, from: Handle, rights: Choice, badge: Value) -> "the handle there";
        /// Moves a capability into another process's table, with what was derived from it. Needs `GRANT` on it, and `CONTROL` on the process.
        /// Fails as `cap_grant`.
        43 cap_transfer CapTransfer (process: Handle, from: Handle) -> "the handle there";
        /// Has a capability deleted, and what was derived from it, when a time comes. `NEVER` takes that back.
        44 cap_expire CapExpire (handle: Handle, deadline: Deadline) -> "";
        /// Makes an endpoint, through which messages go.
        45 endpoint_create EndpointCreate () -> "handle of the endpoint";
        /// Makes a capability of the caller that this thread has to answer: whoever has it can, once. Fails with `WrongState` if there is none.
        46 reply_save ReplySave () -> "handle of the reply";
        /// Makes a notification: a word of bits that can be set without waiting, and waited for.
        47 notification_create NotificationCreate () -> "handle of the notification";
        /// Sets bits, of those that the capability's badge has if it is not 0, and wakes one thread that waits. Needs `SEND`.
        48 notification_signal NotificationSignal (notification: Handle, bits: Value) -> "";
        /// As `notification_signal`, but every thread that waits is woken with the bits. Needs `SEND`.
        49 notification_broadcast NotificationBroadcast (notification: Handle, bits: Value) -> "threads woken";
        /// Waits until a bit is set, and takes all that are. Needs `RECEIVE`.
        50 notification_wait NotificationWait (notification: Handle, deadline: Deadline) -> "the bits";
        /// Takes the bits that are set; fails with `WouldBlock` if none is. Needs `RECEIVE`.
        51 notification_poll NotificationPoll (notification: Handle) -> "the bits";
        /// Has a notification's bits told to a thread while it receives at an endpoint too; handle 0 for the notification ends that. Needs
        /// `RECEIVE` on the notification, `CONTROL` on the thread.
        52 notification_bind NotificationBind (notification: Handle, thread: Handle) -> "";
        /// Makes a timer that signals bits of a notification. Needs `SEND`.
        53 timer_create TimerCreate (notification: Handle, bits: Value) -> "handle of the timer";
        /// Has a timer signal at a time, and every so many ticks from then on unless that is 0; `NEVER` stops it. Needs `CONTROL`.
        54 timer_set TimerSet (timer: Handle, deadline: Deadline, period: Value) -> "";
        /// Makes the capability of one interrupt line out of that for all. Needs `CREATE`. Fails with `Occupied` while there is one.
        55 interrupt_claim InterruptClaim (interrupts: Handle, line: Count) -> "handle of the interrupt";
        /// Has an interrupt signal bits of a notification; it is masked from then until `interrupt_ack`. Needs `CONTROL`, and `SEND` on the notification.
        56 interrupt_bind InterruptBind (interrupt: Handle, notification: Handle, bits: Value) -> "";
        /// Lets an interrupt come again after it was signalled. Needs `CONTROL`.
        57 interrupt_ack InterruptAck (interrupt: Handle) -> "";
        /// Masks an interrupt, or unmasks it. Needs `CONTROL`.
        58 interrupt_mask InterruptMask (interrupt: Handle, masked: Choice) -> "";
        /// Says which core takes an interrupt. Needs `CONTROL`.
        59 interrupt_affinity InterruptAffinity (interrupt: Handle, core: Count) -> "";
        /// Makes the capability of some I/O ports out of one for more. Needs `GRANT`.
        60 ports_claim PortsClaim (ports: Handle, first: Count, count: Count) -> "handle of the ports";
        /// Reads a port of 1, 2 or 4 bytes. Needs `OBSERVE`.
        61 port_read PortRead (ports: Handle, port: Value, width: Choice) -> "what it held";
        /// Writes to a port of 1, 2 or 4 bytes. Needs `WRITE`.
        62 port_write PortWrite (ports: Handle, port: Value, width: Choice, value: Value) -> "";
        /// Makes a region of device registers, at a physical address that no memory has. Needs `CREATE`.
        63 device_claim DeviceClaim (devices: Handle, address: Value, pages: Count) -> "handle of the region";
        /// Says to which endpoint faults of a process's threads go, by kinds (`Fault`); handle 0: to none. Needs `CONTROL`, and `SEND` on the endpoint.
        64 process_handler ProcessHandler (process: Handle, endpoint: Handle, kinds: Choice) -> "";
        /// Gives pages of one process to another: moved, shared, or to be copied when written (`Passing`). Needs `MAP` on both.
        65 pages_pass PagesPass (from: Handle, address: Address, pages: Count, to: Handle, target: Address, how: Choice) -> "the address there";
        /// Makes a bank: a part of another's quota; `spec` is a `BankSpec`. Needs `CREATE`.
        66 bank_create BankCreate (bank: Handle, spec: In) -> "handle of the bank";
        /// Tells about a bank; `info` is a `BankInfo`. Needs `OBSERVE`.
        67 bank_info BankInfo (bank: Handle, info: Out) -> "";
        /// Has a process that has not started pay from a bank. Needs `CREATE` on the bank, `CONTROL` on the process.
        68 bank_assign BankAssign (bank: Handle, process: Handle) -> "";
        /// Makes a lease: something that one owner has for a time; its end signals bits of a notification. Needs `SEND` on the notification.
        69 lease_create LeaseCreate (notification: Handle, bits: Value) -> "handle of the lease";
        /// Gives a lease to an owner until a deadline, with a figure of its quality. Needs `CONTROL`. Fails with `WrongState` while it has one.
        70 lease_allocate LeaseAllocate (lease: Handle, deadline: Deadline, quality: Value) -> "handle for the owner";
        /// Ends a lease before its time. Needs `WRITE`.
        71 lease_release LeaseRelease (lease: Handle) -> "";
        /// Tells about a lease; `info` is a `LeaseInfo`. Needs `OBSERVE`.
        72 lease_info LeaseInfo (lease: Handle, info: Out) -> "";
        /// Limits a process: which calls it may make, and how many a second; `limits` is a `Limits`. Needs `CONTROL`. Limits only ever tighten.
        73 process_limit ProcessLimit (process: Handle, limits: In) -> "";
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
