//! Capabilities with types. A handle is a plain word, copied at will; [`Owned`] deletes the capability when it goes.
//!
//! A capability that is gone, or lacks a right, is an error of the call, never a danger to this process: so these functions are safe.
//! What changes this process's own memory is in [`crate::memory`].

use core::ops::Deref;

use abi::cap::{CapInfo, Handle, Rights};
use abi::debug::Metrics;
use abi::error::Error;
use abi::quota::{BankInfo, BankSpec, Limits};
use abi::task::{CoreInfo, CoreMask, ExitStatus, ProcessInfo, SchedSpec, ThreadInfo, Upcall};

use crate::sync::atomic::AtomicU32;
use crate::sys;
use crate::time::Deadline;

/// The result of a call.
pub type Result<T> = core::result::Result<T, Error>;

/// A handle with a type.
pub trait Typed: Copy {
    /// The bare handle.
    fn handle(self) -> Handle;

    /// Makes another capability for the same object, with these rights at most.
    ///
    /// # Errors
    /// See `cap_derive`.
    fn derive(self, rights: Rights, badge: u64) -> Result<Owned<Self>>;

    /// Deletes what was derived of it, wherever that is; how many this call has deleted. Nothing is done with any of them any more when it returns.
    ///
    /// # Errors
    /// See `cap_revoke`.
    fn revoke(self) -> Result<u64> {
        // SAFETY: no address is passed.
        unsafe { sys::cap_revoke(self.handle()) }
    }

    /// Has it deleted at a time, and what was derived of it; [`Deadline::NEVER`] takes that back.
    ///
    /// # Errors
    /// See `cap_expire`.
    fn expire(self, at: Deadline) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::cap_expire(self.handle(), at.0) }.map(drop)
    }

    /// As [`about`](Self::about), told in memory that others may look at: kind, rights, and the halves of the badge.
    ///
    /// # Errors
    /// See `cap_info`.
    fn about_in(self, words: &[AtomicU32; 4]) -> Result<()> {
        // SAFETY: the address is of as many bytes as a `CapInfo` has, which anybody may write to.
        unsafe { sys::cap_info(self.handle(), address(words)) }.map(drop)
    }

    /// What the capability is for, and what it allows.
    ///
    /// # Errors
    /// See `cap_info`.
    fn about(self) -> Result<CapInfo> {
        info(|at| {
            // SAFETY: `info` gives the address of a `CapInfo` of its own.
            unsafe { sys::cap_info(self.handle(), at) }
        })
    }
}

macro_rules! handles {
    ($( $(#[doc = $text:literal])* $name:ident; )*) => { $(
        $(#[doc = $text])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(transparent)]
        pub struct $name(pub Handle);

        impl Typed for $name {
            fn handle(self) -> Handle {
                self.0
            }

            fn derive(self, rights: Rights, badge: u64) -> Result<Owned<Self>> {
                // SAFETY: no address is passed.
                let handle = unsafe { sys::cap_derive(self.0, u64::from(rights.0), badge) }?;
                Ok(Owned(Self(Handle(handle))))
            }
        }
    )* };
}

handles! {
    /// A process.
    Process;
    /// A thread.
    Thread;
    /// Memory that several processes can map.
    Region;
    /// A core of the machine.
    Core;
    /// The debug interface.
    Debug;
    /// A quota.
    Bank;
    /// Where messages are sent to and received from.
    Endpoint;
    /// A caller that waits for a reply, once.
    Reply;
    /// An interrupt line.
    Interrupt;
    /// All interrupt lines.
    Interrupts;
    /// A range of I/O ports.
    Ports;
    /// All device registers.
    Devices;
    /// A word of bits that can be set and waited for.
    Notification;
    /// Signals a notification at a time.
    Timer;
    /// Something that one owner has for a time.
    Lease;
}

/// A capability that is deleted with this value. The object lives on while anybody else has one, or while it runs.
#[derive(Debug)]
pub struct Owned<T: Typed>(T);

impl<T: Typed> Owned<T> {
    /// Takes charge of a handle that a call has just given.
    #[must_use]
    pub const fn new(handle: T) -> Self {
        Self(handle)
    }

    /// Gives the handle out of charge: it stays until the process ends.
    #[must_use]
    pub fn keep(self) -> T {
        let handle = self.0;
        core::mem::forget(self);
        handle
    }
}

impl<T: Typed> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Typed> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: no address is passed. That it is gone already is as good as deleted.
        let _ = unsafe { sys::cap_delete(self.0.handle()) };
    }
}

/// The address of a structure that a call reads or writes.
pub(crate) fn address<T>(of: &T) -> u64 {
    core::ptr::from_ref(of) as u64
}

/// Has a call fill a structure.
pub(crate) fn info<T: Default>(call: impl FnOnce(u64) -> sys::Answer) -> Result<T> {
    let mut value = T::default();
    call(core::ptr::from_mut(&mut value) as u64)?;
    Ok(value)
}

impl Thread {
    /// Starts a thread that was made.
    ///
    /// # Errors
    /// See `thread_start`.
    pub fn start(self) -> Result<()> {
        // SAFETY: no address is passed; what the thread runs was settled, and promised about, when it was made.
        unsafe { sys::thread_start(self.0) }.map(drop)
    }

    /// Waits for the end of the thread; gives its code.
    ///
    /// # Errors
    /// See `thread_join`.
    pub fn join(self, deadline: Deadline) -> Result<u64> {
        // SAFETY: no address is passed.
        unsafe { sys::thread_join(self.0, deadline.0) }
    }

    /// Stops the thread until it is resumed.
    ///
    /// # Errors
    /// See `thread_suspend`.
    pub fn suspend(self) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::thread_suspend(self.0) }.map(drop)
    }

    /// Lets a suspended thread go on.
    ///
    /// # Errors
    /// See `thread_resume`.
    pub fn resume(self) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::thread_resume(self.0) }.map(drop)
    }

    /// Ends the thread. What it owned is leaked, its stack included (R1); a lock that it held stays locked.
    ///
    /// # Errors
    /// See `thread_kill`.
    pub fn kill(self, code: u64) -> Result<()> {
        // SAFETY: no address is passed; nothing that the thread had borrowed or owned is used again or given back.
        unsafe { sys::thread_kill(self.0, code) }.map(drop)
    }

    /// Says on which cores it may run.
    ///
    /// # Errors
    /// See `thread_affinity`.
    pub fn bind(self, cores: &CoreMask) -> Result<()> {
        // SAFETY: the address is of a `CoreMask`, which is read.
        unsafe { sys::thread_affinity(self.0, address(cores)) }.map(drop)
    }

    /// Says how it is scheduled.
    ///
    /// # Errors
    /// See `thread_schedule`.
    pub fn schedule(self, spec: &SchedSpec) -> Result<()> {
        // SAFETY: the address is of a `SchedSpec`, which is read.
        unsafe { sys::thread_schedule(self.0, address(spec)) }.map(drop)
    }

    /// Tells about it.
    ///
    /// # Errors
    /// See `thread_info`.
    pub fn info(self) -> Result<ThreadInfo> {
        info(|at| {
            // SAFETY: `info` gives the address of a `ThreadInfo` of its own.
            unsafe { sys::thread_info(self.0, at) }
        })
    }

    /// Has its blocking and unblocking told to the calling thread, see [`next_upcall`].
    ///
    /// # Errors
    /// See `thread_watch`.
    pub fn watch(self, badge: u64) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::thread_watch(self.0, badge) }.map(drop)
    }
}

/// Waits until a watched thread has blocked, unblocked or ended.
///
/// # Errors
/// See `upcall_wait`.
pub fn next_upcall(deadline: Deadline) -> Result<Upcall> {
    loop {
        // SAFETY: no address is passed.
        let upcall = Upcall(unsafe { sys::upcall_wait(deadline.0) }?);
        // Woken, but the news was about to be taken: it is there at the next look, or was for somebody else.
        if upcall.event() != 0 {
            return Ok(upcall);
        }
    }
}

impl Process {
    /// Derives a capability into its table, and gives the handle there.
    ///
    /// # Errors
    /// See `cap_grant`.
    pub fn grant(self, from: impl Typed, rights: Rights, badge: u64) -> Result<Handle> {
        // SAFETY: no address is passed.
        unsafe { sys::cap_grant(self.0, from.handle(), u64::from(rights.0), badge) }.map(Handle)
    }

    /// Moves a capability into its table, and gives the handle there.
    ///
    /// # Errors
    /// See `cap_transfer`.
    pub fn transfer(self, from: impl Typed) -> Result<Handle> {
        // SAFETY: no address is passed.
        unsafe { sys::cap_transfer(self.0, from.handle()) }.map(Handle)
    }

    /// Starts the main thread.
    ///
    /// # Errors
    /// See `process_start`.
    pub fn start(self) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::process_start(self.0) }.map(drop)
    }

    /// Waits until it has ended and all it had is given back.
    ///
    /// # Errors
    /// See `process_wait`.
    pub fn wait(self, deadline: Deadline) -> Result<ExitStatus> {
        // SAFETY: no address is passed.
        unsafe { sys::process_wait(self.0, deadline.0) }?;
        self.info().map(|info| info.status)
    }

    /// Ends it and all its threads.
    ///
    /// # Errors
    /// See `process_kill`.
    pub fn kill(self, code: u64) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::process_kill(self.0, code) }.map(drop)
    }

    /// Tells about it.
    ///
    /// # Errors
    /// See `process_info`.
    pub fn info(self) -> Result<ProcessInfo> {
        info(|at| {
            // SAFETY: `info` gives the address of a `ProcessInfo` of its own.
            unsafe { sys::process_info(self.0, at) }
        })
    }
}

impl Process {
    /// Tightens what it may call, and how often.
    ///
    /// # Errors
    /// See `process_limit`.
    pub fn limit(self, limits: &Limits) -> Result<()> {
        // SAFETY: the address is of a `Limits`, which is read.
        unsafe { sys::process_limit(self.0, address(limits)) }.map(drop)
    }
}

impl Bank {
    /// Makes a bank of a part of this one.
    ///
    /// # Errors
    /// See `bank_create`.
    pub fn carve(self, spec: &BankSpec) -> Result<Owned<Self>> {
        // SAFETY: the address is of a `BankSpec`, which is read.
        let handle = unsafe { sys::bank_create(self.0, address(spec)) }?;
        Ok(Owned(Self(Handle(handle))))
    }

    /// Tells about it.
    ///
    /// # Errors
    /// See `bank_info`.
    pub fn info(self) -> Result<BankInfo> {
        info(|at| {
            // SAFETY: `info` gives the address of a `BankInfo` of its own.
            unsafe { sys::bank_info(self.0, at) }
        })
    }

    /// Has a process that has not started pay from it.
    ///
    /// # Errors
    /// See `bank_assign`.
    pub fn assign(self, process: Process) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::bank_assign(self.0, process.0) }.map(drop)
    }
}

impl Region {
    /// Makes a region of so many pages.
    ///
    /// # Errors
    /// See `region_create`.
    pub fn create(pages: u64) -> Result<Owned<Self>> {
        // SAFETY: no address is passed.
        let handle = unsafe { sys::region_create(pages) }?;
        Ok(Owned(Self(Handle(handle))))
    }
}

impl Core {
    /// Tells about it.
    ///
    /// # Errors
    /// See `core_info`.
    pub fn info(self) -> Result<CoreInfo> {
        info(|at| {
            // SAFETY: `info` gives the address of a `CoreInfo` of its own.
            unsafe { sys::core_info(self.0, at) }
        })
    }

    /// Reserves it for threads that are bound to it alone.
    ///
    /// # Errors
    /// See `core_reserve`.
    pub fn reserve(self) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::core_reserve(self.0, 1) }.map(drop)
    }

    /// Gives it back to everybody.
    ///
    /// # Errors
    /// See `core_reserve`.
    pub fn release(self) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::core_reserve(self.0, 0) }.map(drop)
    }
}

impl Debug {
    /// What a core has counted.
    ///
    /// # Errors
    /// See `metrics`.
    pub fn metrics(self, core: usize) -> Result<Metrics> {
        info(|at| {
            // SAFETY: `info` gives the address of a `Metrics` of its own.
            unsafe { sys::metrics(self.0, core as u64, at) }
        })
    }

    /// Writes text to the kernel's log.
    ///
    /// # Errors
    /// See `debug_write`.
    pub fn write(self, text: &str) -> Result<()> {
        // SAFETY: address and length are of bytes, which are read.
        unsafe { sys::debug_write(self.0, text.as_ptr() as u64, text.len() as u64) }.map(drop)
    }

    /// Has the kernel write what it knows of something to a buffer; gives the text.
    ///
    /// # Errors
    /// See `debug_dump`; `BadAddress` if what came is not text.
    pub fn dump(self, what: u64, subject: Handle, buffer: &mut [u8]) -> Result<&str> {
        let (at, length) = (buffer.as_mut_ptr() as u64, buffer.len() as u64);
        // SAFETY: address and length are of bytes that are ours to have written.
        let written = unsafe { sys::debug_dump(self.0, what, subject, at, length) }?;
        let text = buffer.get(..written as usize).ok_or(Error::BadAddress)?;
        core::str::from_utf8(text).map_err(|_| Error::BadAddress)
    }
}
