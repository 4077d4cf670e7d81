//! Kernel objects: counted references from capabilities and from each other, and giving objects back when no core looks at them.
//!
//! * **N1** An object lives while its count is above 0, and from then on until every core has left the kernel once (`percpu::epoch`). So a
//!   core that has found an object through a capability may use it until it leaves the kernel, without counting.
//! * **N2** Every kind of object is one Rust type, whose header is its first field.

use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use abi::cap::{ObjectKind, Rights};
use cap::{Doomed, Family, Gone, Ticket};
use percpu::epoch::{self, Retired};
use percpu::sync::atomic::{AtomicU32, Ordering};
use percpu::{Held, IrqOff};

use crate::dispatch;
use crate::endpoint::{Endpoint, Reply};
use crate::notification::Notification;

/// The beginning of every object.
///
/// | field | writer | readers | ordering |
/// |---|---|---|---|
/// | `retired` | who takes the count to 0 | the same core | – |
/// | `doomed` | who has `lock` | the same | its own |
/// | `refs` | any core | any core | Relaxed up, AcqRel down |
/// | `lock` | any core | any core | its own |
///
/// Whoever derives or deletes a capability for the object writes this line anyway, for the count: so the lock of its capabilities is here.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Header {
    retired: Retired,
    doomed: Doomed,
    refs: AtomicU32,
    lock: Ticket,
}

const _: () = assert!(size_of::<Header>() == 40, "with a thread's node and place it takes one line");

impl Header {
    /// An object with one reference, which [`Ref::adopt`] makes.
    pub(crate) const fn new() -> Self {
        Self { retired: Retired::new(), doomed: Doomed::new(), refs: AtomicU32::new(1), lock: Ticket::new() }
    }

    /// What the capabilities for the object share.
    pub(crate) const fn family(&self) -> Family<'_> {
        Family { lock: &self.lock, doomed: &self.doomed }
    }

    /// Gives an object that has been given up one reference again, for a last piece of work.
    pub(crate) fn revive(&self) {
        // ORDER: Relaxed: nobody else has the object (`Object::destroy`).
        self.refs.store(1, Ordering::Relaxed);
    }
}

/// A kind of object.
///
/// # Safety
/// 1. The header is the first field (N2).
pub(crate) unsafe trait Object: Sized {
    /// Its kind, which no other type has.
    const KIND: ObjectKind;

    /// Ends the object: nobody refers to it any more.
    ///
    /// # Safety
    /// 1. `object` is not used by anybody else, now or later (N1).
    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>);
}

/// A counted reference.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Ref<T: Object>(NonNull<T>);

// SAFETY: objects are used from all cores; what each core may do with one is the business of its type.
unsafe impl<T: Object + Sync> Send for Ref<T> {}
// SAFETY: as above.
unsafe impl<T: Object + Sync> Sync for Ref<T> {}

impl<T: Object> Ref<T> {
    /// The reference that a new object comes with, or that [`Ref::into_word`] gave up.
    ///
    /// # Safety
    /// 1. The caller has a count of the object, which becomes this reference.
    pub(crate) const unsafe fn adopt(object: NonNull<T>) -> Self {
        Self(object)
    }

    /// Where it is.
    pub(crate) const fn as_ptr(&self) -> NonNull<T> {
        self.0
    }

    /// As found through a capability.
    pub(crate) fn found(&self) -> Found<T> {
        Found(self.0, PhantomData)
    }

    /// The reference as a capability holds it.
    pub(crate) fn into_word(self) -> u64 {
        let word = self.0.expose_provenance().get() as u64;
        core::mem::forget(self);
        word
    }
}

fn header<T: Object>(object: NonNull<T>) -> NonNull<Header> {
    object.cast()
}

impl<T: Object> Clone for Ref<T> {
    fn clone(&self) -> Self {
        // SAFETY: the reference keeps the object alive (N1), whose header is its first field (N2).
        acquire(unsafe { header(self.0).as_ref() });
        Self(self.0)
    }
}

impl<T: Object> Deref for Ref<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the reference keeps the object alive (N1).
        unsafe { self.0.as_ref() }
    }
}

impl<T: Object> Drop for Ref<T> {
    fn drop(&mut self) {
        // SAFETY: this was one count, which is given up here.
        IrqOff::with(|irq| unsafe { release(irq, header(self.0), reclaim::<T>) });
    }
}

/// Counts one more reference.
pub(crate) fn acquire(header: &Header) {
    // ORDER: Relaxed: whoever adds has a reference, or has found one that it will look at again (`cap`).
    let before = header.refs.fetch_add(1, Ordering::Relaxed);
    assert!(before > 0 && before < u32::MAX / 2, "N1: references are added to living objects only");
}

/// Counts one more reference of an object that may be about to end; `false` if it is.
pub(crate) fn try_acquire(header: &Header) -> bool {
    // ORDER: Relaxed: a guess, which the exchange verifies.
    let mut seen = header.refs.load(Ordering::Relaxed);
    while seen != 0 {
        // ORDER: Acquire: the place where the object was found is looked at again afterwards (`cap::Table::derive`). Relaxed on failure:
        // another guess.
        match header.refs.compare_exchange_weak(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => seen = now,
        }
    }
    false
}

/// Gives one reference up; the last retires the object.
///
/// # Safety
/// 1. The caller gives up a count of the object.
/// 2. `reclaim` is the object's type's.
unsafe fn release(irq: &IrqOff, header: NonNull<Header>, reclaim: epoch::Reclaim) {
    // SAFETY: obligation 1: it lives as long as this count is there.
    let refs = unsafe { &header.as_ref().refs };
    // ORDER: AcqRel: Release publishes what was done with the object; Acquire, for the last one, pairs with the others' Release.
    if refs.fetch_sub(1, Ordering::AcqRel) == 1 {
        // SAFETY: nobody has a reference, and who found the object before leaves the kernel before it ripens (N1); the link is the
        // header's first field; retired once, as the count reaches 0 once; cores that run kernel code are awake.
        unsafe { epoch::retire(irq, header.cast(), reclaim) };
        dispatch::note_retired(irq);
    }
}

/// # Safety
/// 1. `link` is the first field of the header of a `T` that nobody can reach any more.
unsafe fn reclaim<T: Object>(link: NonNull<Retired>, held: &mut Held<'_, 0>) {
    // SAFETY: obligation 1, and N2.
    unsafe { T::destroy(link.cast(), held) };
}

/// Gives up the reference that a capability held.
///
/// # Safety
/// 1. The object's word came from [`Ref::into_word`] of an object of this kind, and its count is the caller's to give up.
pub(crate) unsafe fn drop_word(irq: &IrqOff, gone: Gone) {
    if gone.kind == ObjectKind::Endpoint {
        let at = address(gone.object).cast::<Endpoint>();
        // SAFETY: obligation 1: the reference keeps it until below.
        unsafe { at.as_ref() }.lost(gone.rights);
    }
    if gone.kind == ObjectKind::Notification {
        let at = address(gone.object).cast::<Notification>();
        // SAFETY: as above.
        unsafe { at.as_ref() }.lost();
    }
    let header = address(gone.object);
    let reclaim = match gone.kind {
        ObjectKind::Process => reclaim::<crate::process::Process>,
        ObjectKind::Thread => reclaim::<crate::thread::Thread>,
        ObjectKind::Region => reclaim::<crate::region::Region>,
        ObjectKind::Bank => reclaim::<crate::bank::Bank>,
        ObjectKind::Core => reclaim::<crate::machine_object::Core>,
        ObjectKind::Debug => reclaim::<crate::machine_object::Debug>,
        ObjectKind::Endpoint => reclaim::<Endpoint>,
        ObjectKind::Reply => reclaim::<Reply>,
        ObjectKind::Notification => reclaim::<Notification>,
        ObjectKind::Interrupt => reclaim::<crate::interrupt::Interrupt>,
        ObjectKind::Interrupts => reclaim::<crate::machine_object::Interrupts>,
        ObjectKind::Ports => reclaim::<crate::ports::Ports>,
        ObjectKind::Devices => reclaim::<crate::machine_object::Devices>,
        ObjectKind::Timer => reclaim::<crate::timers::Timer>,
        ObjectKind::Lease => reclaim::<crate::lease::Lease>,
    };
    // SAFETY: obligation 1.
    unsafe { release(irq, header, reclaim) };
}

/// A capability with these rights has been made for an object.
///
/// # Safety
/// 1. `word` is the object in a capability of this kind, which a reference keeps.
pub(crate) unsafe fn gained(word: u64, kind: ObjectKind, rights: Rights) {
    if kind == ObjectKind::Endpoint {
        let at = address(word).cast::<Endpoint>();
        // SAFETY: obligation 1.
        unsafe { at.as_ref() }.gained(rights);
    }
    if kind == ObjectKind::Notification {
        let at = address(word).cast::<Notification>();
        // SAFETY: obligation 1.
        unsafe { at.as_ref() }.gained();
    }
}

/// Counts one more reference, for a capability with these rights; `false` if the object is about to end.
///
/// # Safety
/// 1. `word` is the object in a capability of this kind, which was live at some moment since the core entered the kernel.
pub(crate) unsafe fn try_gain(word: u64, kind: ObjectKind, rights: Rights) -> bool {
    // SAFETY: obligation 1: the memory is an object's until the core leaves the kernel (N1); the header is first (N2).
    let living = try_acquire(unsafe { address(word).as_ref() });
    if living {
        // SAFETY: obligation 1; the reference was just taken.
        unsafe { gained(word, kind, rights) };
    }
    living
}

/// The header of the object in a capability.
pub(crate) fn address(word: u64) -> NonNull<Header> {
    NonNull::new(core::ptr::with_exposed_provenance_mut(word as usize))
        .expect("N2: a capability names an object")
}

/// An object that was found through a capability: usable until the core leaves the kernel (N1). Never stored.
#[derive(Debug)]
pub(crate) struct Found<T>(NonNull<T>, PhantomData<*const T>);

impl<T> Clone for Found<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Found<T> {}

impl<T: Object> Found<T> {
    /// # Safety
    /// 1. `word` is the object in a capability of this kind, which was live at some moment since the core entered the kernel.
    #[inline(always)]
    pub(crate) unsafe fn from_word(word: u64) -> Self {
        let at = core::ptr::with_exposed_provenance_mut(word as usize);
        percpu::race_point!("object.found");
        // SAFETY: obligation 1: an object's address is not null.
        Self(unsafe { NonNull::new_unchecked(at) }, PhantomData)
    }

    /// A counted reference; `None` if the last one has been given up meanwhile.
    pub(crate) fn try_ref(self) -> Option<Ref<T>> {
        // SAFETY: the memory is an object's until the core leaves the kernel (N1); the header is first (N2).
        let living = try_acquire(unsafe { header(self.0).as_ref() });
        // SAFETY: the count that was just taken.
        living.then(|| unsafe { Ref::adopt(self.0) })
    }

    /// Where it is.
    pub(crate) fn as_ptr(self) -> NonNull<T> {
        self.0
    }
}

impl<T> Deref for Found<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: usable until the core leaves the kernel (N1), and it is not stored.
        unsafe { self.0.as_ref() }
    }
}
