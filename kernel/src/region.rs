//! Regions: memory that several processes map.

use core::mem::{ManuallyDrop, offset_of};
use core::ptr::NonNull;

use abi::cap::ObjectKind;
use abi::error::Error;
use mm::PageSize;
use percpu::{Held, IrqOff};

use crate::object::{Header, Object, Ref};
use crate::slabs;
use crate::spaces::{self, Physical, Tap};

/// Memory that several processes map: a capability for an `mm::space::Object`. Mappings keep the pages; the region may go before them.
#[repr(C)]
pub(crate) struct Region {
    header: Header,
    object: ManuallyDrop<spaces::Object>,
}

const _: () = assert!(offset_of!(Region, header) == 0, "N2: the header comes first");

/// Most pages of one region: 1 GiB.
const MAX_PAGES: u64 = 1 << 18;

impl Region {
    /// A region of zeroed pages, which are taken when first touched.
    ///
    /// # Errors
    /// [`Error::BadArgument`] for no pages or too many; [`Error::NoMemory`].
    pub(crate) fn new(irq: &IrqOff, pages: u64) -> Result<Ref<Self>, Error> {
        if pages == 0 || pages > MAX_PAGES {
            return Err(Error::BadArgument);
        }
        let memory = slabs::take::<Self>(irq).ok_or(Error::NoMemory)?;
        let made = spaces::Object::new(Physical, &mut Tap::new(irq), pages as usize, PageSize::Small);
        let Ok(object) = made else {
            slabs::give(irq, memory);
            return Err(Error::NoMemory);
        };
        let region = Self { header: Header::new(), object: ManuallyDrop::new(object) };
        // SAFETY: memory for one region, which is ours.
        unsafe { memory.write(region) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// Its pages.
    pub(crate) fn object(&self) -> &spaces::Object {
        &self.object
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Region {
    const KIND: ObjectKind = ObjectKind::Region;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1: nobody uses it any more.
        let region = unsafe { object.read() };
        ManuallyDrop::into_inner(region.object).release(&mut Tap::new(held));
        slabs::give(held, object);
    }
}
