//! The host's machine: a core is a thread that has entered it.
//!
//! [`Machine::run`] makes the calling thread a core of a machine for the length of a closure; core-local statics, the current
//! core's id and remote access then work as in the kernel. A thread that has entered no machine is core 0 of its own private
//! machine, so a simple test needs no set-up. Machines live for ever, as the real one does (invariant L1). Threads may take turns at
//! being a core, so a core-local type that minds changing threads has no place in a host test.
//!
//! * H1: one thread at a time runs a core.

use crate::id::{CoreId, MAX_CORES};
use std::boxed::Box;
use std::cell::Cell;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::vec::Vec;

/// Core-local statics one host process may have.
const MAX_STATICS: usize = 512;

/// A machine of several cores inside this process.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    cores: &'static [Core],
}

#[derive(Debug)]
struct Core {
    id: CoreId,
    taken: Mutex<bool>,
    /// One entry per core-local static: this core's copy, made at first use.
    copies: [OnceLock<Copied>; MAX_STATICS],
}

/// A core's leaked copy of a static, its type forgotten.
#[derive(Clone, Copy, Debug)]
struct Copied(*mut ());

// SAFETY: only an address; who may follow it is the business of `PerCpu`, by its witnesses and bounds.
unsafe impl Send for Copied {}
// SAFETY: as above.
unsafe impl Sync for Copied {}

impl Core {
    fn new(id: CoreId) -> Self {
        Self { id, taken: Mutex::new(false), copies: [const { OnceLock::new() }; MAX_STATICS] }
    }

    fn take(&self) -> bool {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        !core::mem::replace(&mut *taken, true)
    }

    fn give_back(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }
}

/// The core a thread is, and its machine.
#[derive(Clone, Copy)]
struct Place {
    machine: Machine,
    core: &'static Core,
}

std::thread_local! {
    static PLACE: Cell<Option<Place>> = const { Cell::new(None) };
}

impl Machine {
    /// A machine with cores `0..cores`.
    ///
    /// # Panics
    /// When `cores` is zero or above [`MAX_CORES`].
    #[must_use]
    pub fn new(cores: usize) -> Self {
        assert!((1..=MAX_CORES).contains(&cores), "H2: a machine has 1 to {MAX_CORES} cores");
        let all: Vec<Core> = (0..cores).filter_map(CoreId::from_index).map(Core::new).collect();
        let cores: &'static [Core] = Box::leak(all.into_boxed_slice());
        // Reachable from a static, so that leak checkers know it is meant to stay.
        static ALL: Mutex<Vec<&'static [Core]>> = Mutex::new(Vec::new());
        ALL.lock().unwrap_or_else(PoisonError::into_inner).push(cores);
        Self { cores }
    }

    /// Runs `f` as core `core` of this machine.
    ///
    /// # Panics
    /// When the machine has no such core, or another thread is running it (H1).
    pub fn run<R>(self, core: CoreId, f: impl FnOnce() -> R) -> R {
        struct Leave(Option<Place>, &'static Core);
        impl Drop for Leave {
            fn drop(&mut self) {
                PLACE.set(self.0);
                self.1.give_back();
            }
        }

        let core = self.cores.get(core.index()).expect("H3: the machine has this core");
        assert!(core.take(), "H1: one thread at a time runs a core");
        let _leave = Leave(PLACE.replace(Some(Place { machine: self, core })), core);
        f()
    }

    /// Runs `f` on every core at once, each on a thread of its own, and returns the results in order.
    ///
    /// # Panics
    /// When `f` panics on any core.
    pub fn run_all<R: Send>(self, f: impl Fn(CoreId) -> R + Sync) -> Vec<R> {
        let f = &f;
        std::thread::scope(|scope| {
            let start = |core: &'static Core| scope.spawn(move || self.run(core.id, || f(core.id)));
            let threads: Vec<_> = self.cores.iter().map(start).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, R>| thread.join();
            threads.into_iter().map(|thread| join(thread).expect("no core panics")).collect()
        })
    }

    /// The number of cores.
    #[must_use]
    pub fn cores(self) -> usize {
        self.cores.len()
    }
}

fn place() -> Place {
    PLACE.get().unwrap_or_else(enter_private_machine)
}

#[cold]
fn enter_private_machine() -> Place {
    let machine = Machine::new(1);
    let core = &machine.cores[0];
    assert!(core.take(), "H1: one thread at a time runs a core");
    let place = Place { machine, core };
    PLACE.set(Some(place));
    place
}

pub(crate) mod backend {
    //! What [`crate::arch`] offers on the host.

    use super::{Copied, Core, MAX_STATICS, place};
    use crate::id::CoreId;
    use core::ptr;
    use std::boxed::Box;
    use std::sync::{Mutex, OnceLock, PoisonError};

    /// One core-local static: its number, and how to make a copy.
    pub(crate) struct Slot<T> {
        number: OnceLock<usize>,
        init: fn() -> T,
    }

    impl<T> Slot<T> {
        pub(crate) const fn new(init: fn() -> T) -> Self {
            Self { number: OnceLock::new(), init }
        }

        pub(crate) fn own(&self) -> *const T {
            self.copy(place().core)
        }

        pub(crate) fn of(&self, core: CoreId) -> Option<*const T> {
            place().machine.cores.get(core.index()).map(|core| self.copy(core))
        }

        fn copy(&self, core: &'static Core) -> *const T {
            let number = *self.number.get_or_init(next_number);
            let make = || Copied(ptr::from_mut(Box::leak(Box::new((self.init)()))).cast());
            core.copies[number].get_or_init(make).0.cast()
        }
    }

    fn next_number() -> usize {
        static NEXT: Mutex<usize> = Mutex::new(0);
        let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *next;
        assert!(number < MAX_STATICS, "H4: at most {MAX_STATICS} core-local statics in a host process");
        *next += 1;
        number
    }

    pub(crate) fn current_core() -> CoreId {
        place().core.id
    }

    /// The host's cores have no interrupts: nothing to save.
    pub(crate) struct NoFlags;

    pub(crate) fn irq_save() -> NoFlags {
        NoFlags
    }

    pub(crate) fn irq_restore(_: NoFlags) {}
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Machine;
    use crate::id::CoreId;
    use crate::local::CoreCell;
    use crate::pin::IrqOff;
    use crate::sync::atomic::{AtomicU64, Ordering};
    use core::cell::Cell;

    crate::core_local! {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        static OWN: Cell<u32> = Cell::new(7);
        static LIST: CoreCell<[u8; 3]> = CoreCell::new([0; 3]);
    }

    #[test]
    fn each_core_has_its_copy() {
        let machine = Machine::new(3);
        machine.run_all(|core| {
            IrqOff::with(|irq| {
                assert_eq!(irq.core(), core);
                COUNT.local(irq).fetch_add(core.index() as u64, Ordering::Relaxed);
                assert_eq!(OWN.owned(irq).replace(core.raw().into()), 7);
            });
        });
        machine.run(CoreId::new(0), || {
            let read = |core| COUNT.of(CoreId::new(core)).map(|count| count.load(Ordering::Relaxed));
            assert_eq!([read(0), read(1), read(2), read(3)], [Some(0), Some(1), Some(2), None]);
        });
    }

    #[test]
    fn a_thread_outside_is_its_own_machine() {
        IrqOff::with(|irq| {
            LIST.with_mut(irq, |list| list[0] += 1);
            LIST.with_mut(irq, |list| assert_eq!(*list, [1, 0, 0]));
        });
    }

    #[test]
    #[should_panic(expected = "L3")]
    fn entering_a_cell_twice_panics() {
        IrqOff::with(|irq| LIST.with_mut(irq, |_| LIST.with_mut(irq, |_| ())));
    }

    #[test]
    #[should_panic(expected = "H1")]
    fn a_core_is_run_once() {
        let machine = Machine::new(1);
        machine.run(CoreId::new(0), || machine.run(CoreId::new(0), || ()));
    }
}
