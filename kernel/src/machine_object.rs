//! Objects that are there as long as the machine runs: a core, the debug interface.

use core::mem::offset_of;
use core::ptr::NonNull;

use abi::cap::ObjectKind;
use percpu::{CoreId, Held, core_local};

use crate::object::{Header, Object, Ref};

/// A core of the machine, as a capability names it.
#[repr(C)]
pub(crate) struct Core {
    header: Header,
}

/// The debug interface.
#[repr(C)]
pub(crate) struct Debug {
    header: Header,
}

const _: () =
    assert!(offset_of!(Core, header) == 0 && offset_of!(Debug, header) == 0, "N2: the header comes first");

core_local! {
    /// The object for this core.
    static CORE: Core = Core { header: Header::new() };
}

static DEBUG: Debug = Debug { header: Header::new() };

impl Core {
    /// A reference to the object for a core; `None` for a core that there is not.
    pub(crate) fn of(core: CoreId) -> Option<Ref<Self>> {
        // SAFETY: the count with which the header begins is never given up, so this is one more than there are.
        let own = unsafe { Ref::adopt(NonNull::from_ref(CORE.of(core)?)) };
        let another = own.clone();
        core::mem::forget(own);
        Some(another)
    }

    /// Which core it is for.
    pub(crate) fn id(&self, cores: impl Iterator<Item = CoreId>) -> Option<CoreId> {
        cores.into_iter().find(|&core| CORE.of(core).is_some_and(|other| core::ptr::eq(other, self)))
    }
}

impl Debug {
    /// A reference to the debug interface.
    pub(crate) fn get() -> Ref<Self> {
        // SAFETY: as in `Core::of`.
        let own = unsafe { Ref::adopt(NonNull::from_ref(&DEBUG)) };
        let another = own.clone();
        core::mem::forget(own);
        another
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Core {
    const KIND: ObjectKind = ObjectKind::Core;

    unsafe fn destroy(_: NonNull<Self>, _: &mut Held<'_, 0>) {
        unreachable!("N1: the count with which a core's object begins is never given up");
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Debug {
    const KIND: ObjectKind = ObjectKind::Debug;

    unsafe fn destroy(_: NonNull<Self>, _: &mut Held<'_, 0>) {
        unreachable!("N1: the count with which the debug interface begins is never given up");
    }
}
