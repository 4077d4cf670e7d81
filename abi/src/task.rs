//! Threads and processes: what is passed to make them, and what is told about them. All structures are plain memory of fixed layout.

use crate::cap::{Handle, Rights};

/// A time that never comes: what waits until then waits for ever.
pub const NEVER: u64 = u64::MAX;

/// Largest number of cores that a mask can name.
pub const MASK_CORES: usize = 288;

/// A set of cores: bit `n % 64` of word `n / 64` is core `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct CoreMask(pub [u64; MASK_CORES.div_ceil(64)]);

impl CoreMask {
    /// Every core.
    pub const ALL: Self = Self([u64::MAX; MASK_CORES.div_ceil(64)]);

    /// One core; nothing for a number that no core has.
    #[must_use]
    pub const fn one(core: usize) -> Self {
        let mut words = [0; MASK_CORES.div_ceil(64)];
        if core < MASK_CORES {
            words[core / 64] = 1 << (core % 64);
        }
        Self(words)
    }
}

/// A thread to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ThreadSpec {
    /// Address of its first instruction.
    pub entry: u64,
    /// Its first stack pointer.
    pub stack: u64,
    /// What `rdi` holds at its start.
    pub argument: u64,
    /// Base of its FS segment.
    pub tls: u64,
    /// [`ThreadSpec::NO_FPU`].
    pub flags: u64,
}

impl ThreadSpec {
    /// The thread promises to use no floating point or vector registers: nothing is saved for it, and use of them ends it.
    pub const NO_FPU: u64 = 1 << 0;
}

/// How a thread is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SchedSpec {
    /// [`SchedSpec::NORMAL`], [`SchedSpec::REAL_TIME`] or [`SchedSpec::DEADLINE`].
    pub class: u64,
    /// Real time: the fixed priority, [`SchedSpec::REAL_TIME_LOWEST`] to 255, the higher the more urgent. Otherwise 0.
    pub priority: u64,
    /// Time that the thread may use in each period, in ticks; 0 for no limit, which `DEADLINE` does not allow.
    pub budget: u64,
    /// Length of a period in ticks; 0 with no budget.
    pub period: u64,
    /// `DEADLINE`: ticks from a period's start by which the budget has to be had, at most the period.
    pub deadline: u64,
}

impl SchedSpec {
    /// Shares what is left, by a feedback queue of five levels.
    pub const NORMAL: u64 = 0;
    /// Runs whenever nothing more urgent does.
    pub const REAL_TIME: u64 = 1;
    /// Earliest deadline first, admitted only if every promise on the core can be kept.
    pub const DEADLINE: u64 = 2;
    /// The lowest priority of `REAL_TIME`.
    pub const REAL_TIME_LOWEST: u64 = 64;
}

/// What `thread_info` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ThreadInfo {
    /// Number of the thread, unique for the machine's run.
    pub id: u64,
    /// Number of its process.
    pub process: u64,
    /// [`ThreadState`] as a number.
    pub state: u32,
    /// The core that it runs on, or ran on last.
    pub core: u32,
    /// Class as in [`SchedSpec`].
    pub class: u32,
    /// Its present priority.
    pub priority: u32,
    /// Time it has run, in ticks.
    pub ticks: u64,
    /// How often it was switched to.
    pub switches: u64,
    /// How often it has changed cores.
    pub migrations: u64,
    /// The code it ended with.
    pub code: u64,
}

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ThreadState {
    /// Made, not started.
    New = 0,
    /// Runs or could run.
    Runnable = 1,
    /// Waits for something.
    Blocked = 2,
    /// Stopped until it is resumed.
    Suspended = 3,
    /// Has ended.
    Ended = 4,
}

/// What `upcall_wait` tells, in one word: two bits say what the watched thread does now, above them is the word given to `thread_watch`,
/// without its two highest bits. Changes in between are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Upcall(pub u64);

impl Upcall {
    /// The watched thread waits in the kernel.
    pub const BLOCKED: u64 = 1;
    /// It can run again.
    pub const UNBLOCKED: u64 = 2;
    /// It has ended.
    pub const ENDED: u64 = 3;

    /// The word for a thread and what it does.
    #[must_use]
    pub const fn new(badge: u64, event: u64) -> Self {
        Self(badge << 2 | event & 3)
    }

    /// The word by which the thread is known.
    #[must_use]
    pub const fn badge(self) -> u64 {
        self.0 >> 2
    }

    /// What it does: one of the three.
    #[must_use]
    pub const fn event(self) -> u64 {
        self.0 & 3
    }
}

/// Bytes of a process's name.
pub const NAME_BYTES: usize = 32;

/// A capability to be given to a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Grant {
    /// One of the maker's own; needs `GRANT`.
    pub handle: Handle,
    /// What the new one may do, at most what the maker's may.
    pub rights: u64,
    /// A word that the new one carries.
    pub badge: u64,
}

impl Grant {
    /// All that the maker's own allows.
    #[must_use]
    pub const fn whole(handle: Handle) -> Self {
        Self { handle, rights: Rights::ALL.0 as u64, badge: 0 }
    }
}

/// A process to be made. Texts are UTF-8; arguments and environment are strings that each end with a zero byte, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ProcessSpec {
    /// Address and length of the ELF image in the caller's memory; or address 0, and `image_bytes` is the number of a program that the
    /// loader has brought.
    pub image: u64,
    /// See `image`.
    pub image_bytes: u64,
    /// Address and length of the name, at most [`NAME_BYTES`].
    pub name: u64,
    /// See `name`.
    pub name_bytes: u64,
    /// Address and length of the arguments.
    pub arguments: u64,
    /// See `arguments`.
    pub arguments_bytes: u64,
    /// Address and length of the environment.
    pub environment: u64,
    /// See `environment`.
    pub environment_bytes: u64,
    /// Address of [`Grant`]s.
    pub grants: u64,
    /// How many.
    pub grants_count: u64,
    /// [`ProcessSpec::FIXED`], [`ProcessSpec::NO_FPU`].
    pub flags: u64,
}

impl ProcessSpec {
    /// No randomised placement: for measurements that must repeat.
    pub const FIXED: u64 = 1 << 0;
    /// The main thread promises as with [`ThreadSpec::NO_FPU`].
    pub const NO_FPU: u64 = 1 << 1;
    /// Most bytes of arguments and environment together.
    pub const MAX_TEXT: u64 = 64 * 1024;
    /// Most capabilities given.
    pub const MAX_GRANTS: u64 = 64;
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ExitStatus {
    /// [`ExitStatus::EXITED`], [`ExitStatus::KILLED`] or [`ExitStatus::FAULTED`].
    pub reason: u64,
    /// The code given to `process_exit` or `process_kill`; for a fault the exception's vector.
    pub code: u64,
    /// For a fault: the address that was accessed, or else that of the instruction.
    pub address: u64,
    /// For a fault: the address of the instruction.
    pub instruction: u64,
}

impl ExitStatus {
    /// It called `process_exit`, or its last thread ended.
    pub const EXITED: u64 = 1;
    /// Another process ended it.
    pub const KILLED: u64 = 2;
    /// It did something that cannot be done.
    pub const FAULTED: u64 = 3;
}

/// What `process_info` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ProcessInfo {
    /// Number of the process, unique for the machine's run.
    pub id: u64,
    /// Number of the process that made it; 0 for the kernel.
    pub parent: u64,
    /// [`ProcessState`] as a number.
    pub state: u64,
    /// How it ended, once it has.
    pub status: ExitStatus,
    /// Threads that have not ended.
    pub threads: u64,
    /// Capabilities.
    pub handles: u64,
    /// Frames of its address space, page tables included.
    pub frames: u64,
    /// Time that its threads have run, in ticks.
    pub ticks: u64,
    /// Page faults served.
    pub faults: u64,
    /// Its name, filled with zeroes.
    pub name: [u8; NAME_BYTES],
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum ProcessState {
    /// Made, not started.
    New = 0,
    /// Has threads.
    Running = 1,
    /// Its threads are being ended and its memory given back.
    Ending = 2,
    /// Has ended, and everything is given back.
    Ended = 3,
}

/// What `core_info` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct CoreInfo {
    /// Number of the core.
    pub core: u64,
    /// Number of its node.
    pub node: u64,
    /// Threads that could run there, the current one included.
    pub runnable: u64,
    /// 1 if it is reserved.
    pub reserved: u64,
    /// Parts per million of its time that deadlines have been promised.
    pub promised: u64,
}

/// What may be done with mapped pages, as `map`, `protect` and `region_map` take it. There is no way to ask for writing and executing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Protection {
    /// Read.
    Read = 1,
    /// Read and write.
    ReadWrite = 2,
    /// Read and execute.
    ReadExecute = 3,
}

impl Protection {
    /// The protection that a word stands for.
    #[must_use]
    pub const fn decode(word: u64) -> Option<Self> {
        match word {
            1 => Some(Self::Read),
            2 => Some(Self::ReadWrite),
            3 => Some(Self::ReadExecute),
            _ => None,
        }
    }
}

/// What a process finds at the address in its main thread's `rdi`. All addresses are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Startup {
    /// [`Startup::VERSION`].
    pub version: u64,
    /// Frequency of the time-stamp counter in hertz.
    pub ticks_per_second: u64,
    /// Cores of the machine.
    pub cores: u64,
    /// Nodes of the machine.
    pub nodes: u64,
    /// Address and length of the arguments, as in [`ProcessSpec`].
    pub arguments: u64,
    /// See `arguments`.
    pub arguments_bytes: u64,
    /// Address and length of the environment.
    pub environment: u64,
    /// See `environment`.
    pub environment_bytes: u64,
    /// Address of the handles of the capabilities that were given, in the order of the [`Grant`]s.
    pub handles: u64,
    /// How many.
    pub handles_count: u64,
    /// The process itself, with every right.
    pub process: Handle,
    /// Its main thread, with every right.
    pub thread: Handle,
    /// How far the image was moved from the addresses in it.
    pub slide: u64,
    /// First address, and the one after the last, of the main thread's stack.
    pub stack_bottom: u64,
    /// See `stack_bottom`.
    pub stack_top: u64,
    /// A free address range for the program's own mappings begins here.
    pub heap: u64,
    /// Sixteen unpredictable bytes, all different for each process unless it is `FIXED`.
    pub random: [u64; 2],
    /// Number of the process.
    pub id: u64,
}

impl Startup {
    /// This layout.
    pub const VERSION: u64 = 1;
}

const _: () = {
    assert!(size_of::<CoreMask>() == 40);
    assert!(size_of::<ThreadSpec>() == 40);
    assert!(size_of::<SchedSpec>() == 40);
    assert!(size_of::<ThreadInfo>() == 64);
    assert!(size_of::<Upcall>() == 8);
    assert!(size_of::<Grant>() == 24);
    assert!(size_of::<ProcessSpec>() == 88);
    assert!(size_of::<ExitStatus>() == 32);
    assert!(size_of::<ProcessInfo>() == 128);
    assert!(size_of::<CoreInfo>() == 40);
    assert!(size_of::<Startup>() == 152);
};
