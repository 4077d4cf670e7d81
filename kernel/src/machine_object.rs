//! Objects that are there as long as the machine runs: a core, the debug interface, all interrupt lines, all device registers.

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

/// All interrupt lines: what single ones are claimed from.
#[repr(C)]
pub(crate) struct Interrupts {
    header: Header,
}

/// All device registers: what regions of them are claimed from.
#[repr(C)]
pub(crate) struct Devices {
    header: Header,
}

const _: () = {
    assert!(offset_of!(Core, header) == 0 && offset_of!(Debug, header) == 0, "N2: the header comes first");
    assert!(offset_of!(Interrupts, header) == 0 && offset_of!(Devices, header) == 0, "N2: as above");
};

core_local! {
    /// The object for this core.
    static CORE: Core = Core { header: Header::new() };
}

static DEBUG: Debug = Debug { header: Header::new() };
static INTERRUPTS: Interrupts = Interrupts { header: Header::new() };
static DEVICES: Devices = Devices { header: Header::new() };

/// One more reference to an object that stays for ever.
fn another<T: Object>(object: &'static T) -> Ref<T> {
    // SAFETY: the count with which the header begins is never given up, so this is one more than there are.
    let own = unsafe { Ref::adopt(NonNull::from_ref(object)) };
    let another = own.clone();
    core::mem::forget(own);
    another
}

impl Core {
    /// A reference to the object for a core; `None` for a core that there is not.
    pub(crate) fn of(core: CoreId) -> Option<Ref<Self>> {
        CORE.of(core).map(another)
    }

    /// Which core it is for.
    pub(crate) fn id(&self, cores: impl Iterator<Item = CoreId>) -> Option<CoreId> {
        cores.into_iter().find(|&core| CORE.of(core).is_some_and(|other| core::ptr::eq(other, self)))
    }
}

impl Debug {
    /// A reference to the debug interface.
    pub(crate) fn get() -> Ref<Self> {
        another(&DEBUG)
    }
}

impl Interrupts {
    /// A reference to all interrupt lines.
    pub(crate) fn get() -> Ref<Self> {
        another(&INTERRUPTS)
    }
}

impl Devices {
    /// A reference to all device registers.
    pub(crate) fn get() -> Ref<Self> {
        another(&DEVICES)
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

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Interrupts {
    const KIND: ObjectKind = ObjectKind::Interrupts;

    unsafe fn destroy(_: NonNull<Self>, _: &mut Held<'_, 0>) {
        unreachable!("N1: the count with which all interrupt lines begin is never given up");
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Devices {
    const KIND: ObjectKind = ObjectKind::Devices;

    unsafe fn destroy(_: NonNull<Self>, _: &mut Held<'_, 0>) {
        unreachable!("N1: the count with which all device registers begin is never given up");
    }
}
