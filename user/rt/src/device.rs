//! What drivers need: interrupt lines, I/O ports, device registers.

use abi::cap::Handle;

use crate::handle::{Devices, Interrupt, Interrupts, Owned, Ports, Region, Result};
use crate::sys;

impl Interrupts {
    /// Claims a line; below 16 the numbers are those of the ISA bus.
    ///
    /// # Errors
    /// See `interrupt_claim`.
    pub fn claim(self, line: u64) -> Result<Owned<Interrupt>> {
        // SAFETY: no address is passed.
        let handle = unsafe { sys::interrupt_claim(self.0, line) }?;
        Ok(Owned::new(Interrupt(Handle(handle))))
    }
}

impl Interrupt {
    /// Has it signal bits of a notification.
    ///
    /// # Errors
    /// See `interrupt_bind`.
    pub fn bind(self, notification: Handle, bits: u64) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::interrupt_bind(self.0, notification, bits) }.map(drop)
    }

    /// Lets it come: for the first time, or again after it was signalled.
    ///
    /// # Errors
    /// See `interrupt_ack`.
    #[inline(always)]
    pub fn acknowledge(self) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::interrupt_ack(self.0) }.map(drop)
    }

    /// Masks it.
    ///
    /// # Errors
    /// See `interrupt_mask`.
    pub fn mask(self) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::interrupt_mask(self.0, 1) }.map(drop)
    }

    /// Takes [`mask`](Self::mask) back.
    ///
    /// # Errors
    /// See `interrupt_mask`.
    pub fn unmask(self) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::interrupt_mask(self.0, 0) }.map(drop)
    }

    /// Says which core takes it.
    ///
    /// # Errors
    /// See `interrupt_affinity`.
    pub fn lead_to(self, core: usize) -> Result<()> {
        // SAFETY: no address is passed.
        unsafe { sys::interrupt_affinity(self.0, core as u64) }.map(drop)
    }
}

impl Ports {
    /// Claims some of these ports.
    ///
    /// # Errors
    /// See `ports_claim`.
    pub fn claim(self, first: u16, count: u32) -> Result<Owned<Self>> {
        // SAFETY: no address is passed.
        let handle = unsafe { sys::ports_claim(self.0, u64::from(first), u64::from(count)) }?;
        Ok(Owned::new(Self(Handle(handle))))
    }

    /// Reads a port of so many bytes.
    ///
    /// # Errors
    /// See `port_read`.
    #[inline(always)]
    pub fn read(self, port: u16, bytes: u64) -> Result<u32> {
        // SAFETY: no address is passed.
        unsafe { sys::port_read(self.0, u64::from(port), bytes) }.map(|value| value as u32)
    }

    /// Writes to a port of so many bytes.
    ///
    /// # Errors
    /// See `port_write`.
    ///
    /// # Safety
    /// 1. Whatever the device does then, it leaves memory alone that this program uses.
    #[inline(always)]
    pub unsafe fn write(self, port: u16, bytes: u64, value: u32) -> Result<()> {
        // SAFETY: no address is passed; the caller's promise (1).
        unsafe { sys::port_write(self.0, u64::from(port), bytes, u64::from(value)) }.map(drop)
    }
}

impl Devices {
    /// Claims pages of device registers; [`crate::memory::registers`] maps them.
    ///
    /// # Errors
    /// See `device_claim`.
    pub fn claim(self, address: u64, pages: u64) -> Result<Owned<Region>> {
        // SAFETY: no address is passed.
        let handle = unsafe { sys::device_claim(self.0, address, pages) }?;
        Ok(Owned::new(Region(Handle(handle))))
    }
}
