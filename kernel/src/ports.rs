//! Ranges of I/O ports as objects. All ports together are one object, of which ranges are claimed; only claimed ones can be accessed, and
//! those that the kernel uses itself cannot be claimed.

use core::mem::offset_of;
use core::ptr::NonNull;

use abi::cap::ObjectKind;
use abi::error::Error;
use percpu::{Held, IrqOff};

use crate::arch::io::{self, KEPT_PORTS, Width};
use crate::bank::Charge;
use crate::object::{Header, Object, Ref};
use crate::slabs;

/// Ports that there are.
const COUNT: u32 = 1 << 16;

/// Some ports, one after the other.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u32,
    end: u32,
}

impl Range {
    const NONE: Self = Self { first: 0, end: 0 };
    const ALL: Self = Self { first: 0, end: COUNT };

    /// Nothing for a range without ports, or beyond the last one.
    fn new(first: u64, count: u64) -> Option<Self> {
        let end = first.checked_add(count).filter(|&end| first < end && end <= u64::from(COUNT))?;
        Some(Self { first: first as u32, end: end as u32 })
    }

    #[inline(always)]
    const fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.end <= self.end
    }

    const fn meets(self, (first, last): (u16, u16)) -> bool {
        self.first <= last as u32 && (first as u32) < self.end
    }
}

/// A range of ports.
#[repr(C)]
pub(crate) struct Ports {
    header: Header,
    /// What can be claimed of it.
    claimable: Range,
    /// What can be accessed.
    open: Range,
    /// None for those that are there from the beginning.
    _charge: Option<Charge>,
}

const _: () = assert!(offset_of!(Ports, header) == 0, "N2: the header comes first");

static ALL: Ports = Ports { header: Header::new(), claimable: Range::ALL, open: Range::NONE, _charge: None };

impl Ports {
    /// A reference to all ports.
    pub(crate) fn all() -> Ref<Self> {
        // SAFETY: the count with which the header begins is never given up, so this is one more than there are.
        let own = unsafe { Ref::adopt(NonNull::from_ref(&ALL)) };
        let another = own.clone();
        core::mem::forget(own);
        another
    }

    /// Some of these ports.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for none, or others than these; [`Error::Occupied`] for ports of the kernel's; [`Error::NoMemory`].
    pub(crate) fn claim(&self, irq: &IrqOff, first: u64, count: u64) -> Result<Ref<Self>, Error> {
        let range = Range::new(first, count).filter(|&range| self.claimable.contains(range));
        let range = range.ok_or(Error::BadArgument)?;
        if KEPT_PORTS.into_iter().any(|kept| range.meets(kept)) {
            return Err(Error::Occupied);
        }
        let charge = Charge::current(irq)?;
        let memory = slabs::take::<Self>(irq).ok_or(Error::NoMemory)?;
        let ports = Self { header: Header::new(), claimable: range, open: range, _charge: Some(charge) };
        // SAFETY: memory for one range, which is ours.
        unsafe { memory.write(ports) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// The port and width of an access, all of which is in the range.
    #[inline(always)]
    fn access(&self, port: u64, width: u64) -> Result<(u16, Width), Error> {
        let width = Width::new(width).ok_or(Error::BadArgument)?;
        let first = port as u32;
        // A port of 16 bits and at most 4 more: no overflow.
        let accessed = Range { first, end: (first & 0xffff) + width.bytes() };
        if port >= u64::from(COUNT) || !self.open.contains(accessed) {
            return Err(Error::BadArgument);
        }
        Ok((first as u16, width))
    }

    /// Reads a port.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for one that is not among these, or a width that none has.
    #[inline(always)]
    pub(crate) fn read(&self, port: u64, width: u64) -> Result<u64, Error> {
        let (port, width) = self.access(port, width)?;
        // SAFETY: what is open was claimed by a program, and `claim` gives none of the kernel's.
        Ok(u64::from(unsafe { io::read_port(port, width) }))
    }

    /// Writes to a port.
    ///
    /// # Errors
    /// As for [`read`](Self::read); [`Error::BadArgument`] for a value that does not fit.
    #[inline(always)]
    pub(crate) fn write(&self, port: u64, width: u64, value: u64) -> Result<(), Error> {
        let (port, width) = self.access(port, width)?;
        if value >> (8 * width.bytes()) != 0 {
            return Err(Error::BadArgument);
        }
        // SAFETY: as in `read`.
        unsafe { io::write_port(port, width, value as u32) };
        Ok(())
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Ports {
    const KIND: ObjectKind = ObjectKind::Ports;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1, once.
        drop(unsafe { object.read() });
        slabs::give(held, object);
    }
}
