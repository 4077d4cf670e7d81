//! Notifications: bits that are set without waiting, and waited for; timers, which set them at a time; leases, whose end does.

use abi::cap::{Handle, Rights};
use abi::error::Error;
use abi::quota::LeaseInfo;

use crate::handle::{Lease, Notification, Owned, Result, Thread, Timer, Typed, info};
use crate::sys;
use crate::time::Deadline;

impl Notification {
    /// Makes a notification.
    ///
    /// # Errors
    /// See `notification_create`.
    pub fn create() -> Result<Owned<Self>> {
        // SAFETY: no address is passed.
        let handle = unsafe { sys::notification_create() }?;
        Ok(Owned::new(Self(Handle(handle))))
    }

    /// A capability that can only signal, and only these bits; all bits for 0.
    ///
    /// # Errors
    /// See `cap_derive`.
    pub fn signaller(self, bits: u64) -> Result<Owned<Self>> {
        self.derive(Rights::SEND.with(Rights::GRANT), bits)
    }

    /// Sets bits, and wakes one thread that waits.
    ///
    /// # Errors
    /// See `notification_signal`.
    #[inline(always)]
    pub fn signal(self, bits: u64) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::notification_signal(self.handle(), bits) }.map(drop)
    }

    /// Wakes every thread that waits, each with the bits; sets them if none does. Gives how many were woken.
    ///
    /// # Errors
    /// See `notification_broadcast`.
    pub fn broadcast(self, bits: u64) -> Result<u64> {
        // SAFETY: no address is passed.
        unsafe { sys::notification_broadcast(self.handle(), bits) }
    }

    /// Waits until a bit is set, and takes all that are.
    ///
    /// # Errors
    /// `PeerGone` if the last capability goes meanwhile; see `notification_wait`.
    #[inline(always)]
    pub fn wait(self) -> Result<u64> {
        self.wait_until(Deadline::NEVER)
    }

    /// As [`wait`](Self::wait), giving up at a time.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and `TimedOut`.
    #[inline(always)]
    pub fn wait_until(self, deadline: Deadline) -> Result<u64> {
        // SAFETY: no address is passed.
        unsafe { sys::notification_wait(self.handle(), deadline.0) }
    }

    /// Takes the bits that are set; 0 if none is.
    ///
    /// # Errors
    /// See `notification_poll`.
    pub fn poll(self) -> Result<u64> {
        // SAFETY: no address is passed.
        match unsafe { sys::notification_poll(self.handle()) } {
            Err(Error::WouldBlock) => Ok(0),
            answer => answer,
        }
    }

    /// Has the bits told to a thread while it receives at an endpoint: as a message with the tag's bit `SIGNAL`, the bits being its badge.
    ///
    /// # Errors
    /// `WrongState` if either has another one already; see `notification_bind`.
    pub fn bind(self, thread: Thread) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::notification_bind(self.handle(), thread.handle()) }.map(drop)
    }
}

impl Thread {
    /// Ends what [`Notification::bind`] has begun.
    ///
    /// # Errors
    /// `WrongState` if nothing is bound to it.
    pub fn unbind(self) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::notification_bind(Handle::NONE, self.handle()) }.map(drop)
    }
}

impl Timer {
    /// Makes a timer that signals bits of a notification. It goes with its last capability.
    ///
    /// # Errors
    /// See `timer_create`.
    pub fn create(notification: Notification, bits: u64) -> Result<Owned<Self>> {
        // SAFETY: no address is passed.
        let handle = unsafe { sys::timer_create(notification.handle(), bits) }?;
        Ok(Owned::new(Self(Handle(handle))))
    }

    /// Signals once, at a time, on the core that calls. What was set before is forgotten.
    ///
    /// # Errors
    /// See `timer_set`.
    pub fn set(self, at: Deadline) -> Result<()> {
        self.set_periodic(at, 0)
    }

    /// Signals at a time, and every so many ticks from then on.
    ///
    /// # Errors
    /// `BadArgument` for periods too short to be served; see `timer_set`.
    pub fn set_periodic(self, first: Deadline, period: u64) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::timer_set(self.handle(), first.0, period) }.map(drop)
    }

    /// Signals no more.
    ///
    /// # Errors
    /// See `timer_set`.
    pub fn stop(self) -> Result<()> {
        self.set(Deadline::NEVER)
    }
}

impl Lease {
    /// Makes a lease, whose end signals bits of a notification.
    ///
    /// # Errors
    /// See `lease_create`.
    pub fn create(notification: Notification, bits: u64) -> Result<Owned<Self>> {
        // SAFETY: no address is passed.
        let handle = unsafe { sys::lease_create(notification.handle(), bits) }?;
        Ok(Owned::new(Self(Handle(handle))))
    }

    /// Gives the lease to an owner until a time; what comes back is the owner's capability, to be passed on. It is of no use any more when the
    /// time has come, or the lease has been released.
    ///
    /// # Errors
    /// `WrongState` while it has an owner; see `lease_allocate`.
    pub fn allocate(self, until: Deadline, quality: u64) -> Result<Owned<Self>> {
        // SAFETY: no address is passed.
        let handle = unsafe { sys::lease_allocate(self.handle(), until.0, quality) }?;
        Ok(Owned::new(Self(Handle(handle))))
    }

    /// Ends it before its time.
    ///
    /// # Errors
    /// `BadHandle` through an owner's capability whose time is over; `WrongState` if it has no owner; see `lease_release`.
    pub fn release(self) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::lease_release(self.handle()) }.map(drop)
    }

    /// Tells about it.
    ///
    /// # Errors
    /// `BadHandle` through an owner's capability whose time is over; see `lease_info`.
    pub fn info(self) -> Result<LeaseInfo> {
        info(|at| {
            // SAFETY: `info` gives the address of a `LeaseInfo` of its own.
            unsafe { sys::lease_info(self.handle(), at) }
        })
    }
}
