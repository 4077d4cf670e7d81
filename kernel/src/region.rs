//! Regions: memory that several processes map, and device registers.

use core::mem::{ManuallyDrop, offset_of};
use core::ptr::NonNull;

use abi::cap::ObjectKind;
use abi::error::Error;
use mm::bank::Payer;
use mm::id::FRAME_BYTES;
use mm::space::{Backing, Pool};
use mm::{FrameId, PageSize, PhysRange};
use percpu::{Held, IrqOff};

use crate::arch::{apic, paging};
use crate::bank::{self, Charge};
use crate::object::{Header, Object, Ref};
use crate::spaces::{self, Physical, Tap};
use crate::{machine, slabs, start};

/// What several processes map. Mappings keep the pages of memory; the region may go before them.
#[repr(C)]
pub(crate) struct Region {
    header: Header,
    content: Content,
    /// None for the kernel's own.
    charge: Option<Charge>,
}

/// What a region shows.
enum Content {
    /// Memory, an `mm::space::Object`.
    Memory(ManuallyDrop<spaces::Object>),
    /// Device registers, which no memory map names and the kernel does not use.
    Device(PhysRange),
}

const _: () = assert!(offset_of!(Region, header) == 0, "N2: the header comes first");

/// Most pages of one region: 1 GiB.
const MAX_PAGES: u64 = 1 << 18;

/// Memory of every PC, of which the memory map need not name all.
const CONVENTIONAL: PhysRange = PhysRange::inside(0, 640 << 10);

impl Region {
    /// A region of zeroed pages, which are taken when first touched, and for which nobody pays.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for no pages or too many; [`Error::NoMemory`].
    pub(crate) fn new(irq: &IrqOff, pages: u64) -> Result<Ref<Self>, Error> {
        Self::make(irq, pages, None)
    }

    /// As [`Region::new`]; the current process's bank pays.
    ///
    /// # Errors
    /// As [`Region::new`].
    pub(crate) fn charged(irq: &IrqOff, pages: u64) -> Result<Ref<Self>, Error> {
        Self::make(irq, pages, Some(Charge::current(irq)?))
    }

    fn make(irq: &IrqOff, pages: u64, charge: Option<Charge>) -> Result<Ref<Self>, Error> {
        if pages == 0 || pages > MAX_PAGES {
            return Err(Error::BadArgument);
        }
        let payer = charge.as_ref().map_or(Payer::NOBODY, |charge| bank::keep(charge.bank().clone()));
        let tap = &mut Tap::new(irq);
        let Ok(object) = spaces::Object::paid_by(payer, Physical, tap, pages as usize, PageSize::Small)
        else {
            tap.forget(payer);
            return Err(Error::NoMemory);
        };
        Self::show(irq, Content::Memory(ManuallyDrop::new(object)), charge)
    }

    /// A region of device registers from a physical address on.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for no pages, too many, an address inside a page or beyond what the CPU can address; [`Error::Occupied`] where
    /// there is memory, or something that the kernel uses; [`Error::NoMemory`].
    pub(crate) fn device(irq: &IrqOff, address: u64, pages: u64) -> Result<Ref<Self>, Error> {
        let bytes = (1..=MAX_PAGES).contains(&pages).then_some(pages * FRAME_BYTES as u64);
        let end = bytes.and_then(|bytes| address.checked_add(bytes));
        let end = end.filter(|&end| end <= 1 << machine::features().physical_bits);
        let end = end.filter(|_| address.is_multiple_of(FRAME_BYTES as u64)).ok_or(Error::BadArgument)?;
        let range = PhysRange::inside(address, end);
        let memory = start::handover().ranges.all().iter();
        let occupied = memory
            .map(|&(other, _)| other)
            .chain([CONVENTIONAL, apic::reserved()])
            .any(|other| meet(range, other));
        if occupied || paging::uses(range) {
            return Err(Error::Occupied);
        }
        Self::show(irq, Content::Device(range), Some(Charge::current(irq)?))
    }

    fn show(irq: &IrqOff, content: Content, charge: Option<Charge>) -> Result<Ref<Self>, Error> {
        let Some(memory) = slabs::take::<Self>(irq) else {
            content.release(irq);
            return Err(Error::NoMemory);
        };
        // SAFETY: memory for one region, which is ours.
        unsafe { memory.write(Self { header: Header::new(), content, charge }) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// Its pages, if it is memory.
    pub(crate) fn object(&self) -> Option<&spaces::Object> {
        match &self.content {
            Content::Memory(object) => Some(object),
            Content::Device(_) => None,
        }
    }

    /// The frame of one of its pages of memory, taken if nobody has touched it yet.
    pub(crate) fn frame(&self, irq: &IrqOff, page: usize) -> Option<FrameId> {
        self.object()?.page(&mut Tap::new(irq), page).ok().flatten()
    }

    /// What a mapping of so many of its pages shows, from one on.
    ///
    /// # Errors
    /// [`Error::BadArgument`] if it has no such pages.
    pub(crate) fn backing(&self, first: u64, pages: u64) -> Result<Backing<'_, Physical>, Error> {
        match &self.content {
            // `mm::space` looks whether there are so many.
            Content::Memory(object) => Ok(Backing::Shared(object, first as usize)),
            Content::Device(range) => {
                let end = first.checked_add(pages).filter(|&end| end <= range.frames() as u64);
                end.ok_or(Error::BadArgument)?;
                Ok(Backing::Device(FrameId::new(range.start.number() + first as usize)))
            }
        }
    }
}

fn meet(a: PhysRange, b: PhysRange) -> bool {
    a.start < b.end && b.start < a.end
}

impl Content {
    fn release(self, irq: &IrqOff) {
        match self {
            Self::Memory(object) => ManuallyDrop::into_inner(object).let_go(&mut Tap::new(irq)),
            Self::Device(_) => {}
        }
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Region {
    const KIND: ObjectKind = ObjectKind::Region;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1: nobody uses it any more.
        let Self { content, charge, .. } = unsafe { object.read() };
        content.release(held);
        drop(charge);
        slabs::give(held, object);
    }
}
