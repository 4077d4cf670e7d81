//! Endpoints, where messages are sent to and received from, and replies, which answer one caller once.
//!
//! * EP1: an endpoint counts the capabilities that allow to receive from it. When the last one goes it closes: who waits there, and whoever
//!   sends from then on, is told `PeerGone`. So the clients of a server that has died do not wait for ever.
//! * EP2: who waits at an endpoint holds no reference to it. When the last capability goes, its last step tells those who wait, and its memory
//!   stays for one more epoch, for cores that have read where a thread waits (IQ2).

use core::cell::Cell;
use core::mem::offset_of;
use core::ptr::NonNull;

use abi::cap::{ObjectKind, Rights};
use abi::error::Error;
use ipc::{At, Guard, Kind, Queue, ReplySlot};
use percpu::sync::atomic::{AtomicU32, Ordering};
use percpu::{Held, IrqOff};

use crate::bank::Charge;
use crate::object::{Header, Object, Ref};
use crate::thread::{Thread, ThreadRef};
use crate::{homes, messages, slabs};

/// An endpoint.
///
/// | field | writer | readers | ordering | line |
/// |---|---|---|---|---|
/// | `header` | see [`Header`] | any core | its own | 0 |
/// | `queue` | any core | any core | its own | 1 |
/// | `receivers` | who makes and deletes capabilities | the same, senders | SeqCst | 0 |
/// | `ending` | who ends it | the same | – | 0 |
/// | `desk` | who holds the queue's lock | the same | by the lock | 1 |
#[repr(C, align(64))]
pub(crate) struct Endpoint {
    header: Header,
    /// Capabilities with `RECEIVE`.
    receivers: AtomicU32,
    /// Its waiters have been told; only its memory is left.
    ending: Cell<bool>,
    charge: Charge,
    hot: Hot,
}

/// Who serves, and how urgently somebody waits (`inherit`).
pub(crate) struct Desk {
    server: Cell<Option<Ref<Thread>>>,
    /// The most urgent of the senders, if there is a real-time one; else 0.
    pub(crate) waiting: Cell<u32>,
}

impl Desk {
    /// The server.
    pub(crate) fn server(&self) -> Option<Ref<Thread>> {
        let server = self.server.take();
        self.server.set(server.clone());
        server
    }

    /// Makes a thread the server; the one before, if it was another.
    pub(crate) fn take_over(&self, thread: ThreadRef) -> Option<Ref<Thread>> {
        let before = self.server.take();
        if before.as_ref().is_some_and(|before| before.as_ptr() == thread.as_ptr()) {
            self.server.set(before);
            return None;
        }
        self.server.set(Some(thread.counted()));
        before
    }
}

/// What messages touch, by itself on a line.
#[repr(C, align(64))]
struct Hot {
    queue: Queue<ThreadRef>,
    desk: Desk,
}

// SAFETY: every field follows the table above.
unsafe impl Sync for Endpoint {}

/// A caller that somebody has to answer, as a capability.
#[repr(C)]
pub(crate) struct Reply {
    header: Header,
    slot: ReplySlot<ThreadRef>,
    ending: Cell<bool>,
    charge: Charge,
}

// SAFETY: the slot is atomic, and `ending` belongs to who ends the object.
unsafe impl Sync for Reply {}

const _: () = {
    assert!(
        offset_of!(Endpoint, header) == 0 && offset_of!(Reply, header) == 0,
        "N2: the header comes first"
    );
    assert!(size_of::<Endpoint>() == 128 && size_of::<Reply>() <= 64);
};

impl Endpoint {
    /// Where the assembly finds the queue's word.
    pub(crate) const WORD: usize = offset_of!(Self, hot.queue) + Queue::<ThreadRef>::WORD;

    /// An endpoint at which nobody waits; with one reference for the caller.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub(crate) fn new(irq: &IrqOff) -> Result<Ref<Self>, Error> {
        let charge = Charge::current(irq)?;
        let memory = slabs::take::<Self>(irq).ok_or(Error::NoMemory)?;
        let endpoint = Self {
            header: Header::new(),
            receivers: AtomicU32::new(0),
            ending: Cell::new(false),
            charge,
            hot: Hot { queue: Queue::new(), desk: Desk { server: Cell::new(None), waiting: Cell::new(0) } },
        };
        // SAFETY: memory for one endpoint, the caller's alone.
        unsafe { memory.write(endpoint) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// Who waits.
    #[inline(always)]
    pub(crate) fn queue(&self) -> &Queue<ThreadRef> {
        &self.hot.queue
    }

    /// What belongs to whoever has locked the queue.
    pub(crate) fn desk(&self, _: &Guard<'_, ThreadRef>) -> &Desk {
        &self.hot.desk
    }

    /// A capability for it has been made.
    pub(crate) fn gained(&self, rights: Rights) {
        if rights.has(Rights::RECEIVE) {
            // ORDER: SeqCst: with `lost`, which closes only at 0.
            self.receivers.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A capability for it is gone.
    pub(crate) fn lost(&self, rights: Rights) {
        // ORDER: SeqCst: as in `gained`.
        if rights.has(Rights::RECEIVE) && self.receivers.fetch_sub(1, Ordering::SeqCst) == 1 {
            IrqOff::with(|irq| irq.locks(|held| self.close(held)));
        }
    }

    /// Nobody receives any more: tells whoever waits. A receiver's own capability may have gone while it waited.
    fn close(&self, held: &mut Held<'_, 0>) {
        let server = {
            let mut queue = self.hot.queue.lock();
            queue.close();
            self.desk(&queue).server.take()
        };
        drop(server);
        loop {
            let Some(thread) = self.hot.queue.lock().pop() else { break };
            thread.link.set_at(At::NOWHERE);
            percpu::race_point!("endpoint.closed");
            messages::refuse(thread, Error::PeerGone);
            homes::send_home(held, thread);
        }
    }

    /// Whether nobody waits.
    fn is_deserted(&self) -> bool {
        matches!(self.hot.queue.lock().kind(), Kind::Nobody | Kind::Closed)
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Endpoint {
    const KIND: ObjectKind = ObjectKind::Endpoint;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1: it is there until this gives it back.
        let own = unsafe { object.as_ref() };
        if own.ending.replace(true) {
            debug_assert!(own.is_deserted(), "EP2: who waited has been told");
            // SAFETY: as above, once.
            drop(unsafe { object.read() }.charge);
            return slabs::give(held, object);
        }
        own.close(held);
        own.header.revive();
        // SAFETY: the reference that it was just given.
        drop(unsafe { Ref::adopt(object) });
    }
}

impl Reply {
    /// A reply for nobody yet; with one reference for the caller.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub(crate) fn new(irq: &IrqOff) -> Result<Ref<Self>, Error> {
        let charge = Charge::current(irq)?;
        let memory = slabs::take::<Self>(irq).ok_or(Error::NoMemory)?;
        let reply = Self { header: Header::new(), slot: ReplySlot::new(), ending: Cell::new(false), charge };
        // SAFETY: memory for one reply, the caller's alone.
        unsafe { memory.write(reply) };
        // SAFETY: the count that a header begins with.
        Ok(unsafe { Ref::adopt(memory) })
    }

    /// The caller.
    pub(crate) const fn slot(&self) -> &ReplySlot<ThreadRef> {
        &self.slot
    }
}

// SAFETY: the header is the first field, as asserted above.
unsafe impl Object for Reply {
    const KIND: ObjectKind = ObjectKind::Reply;

    unsafe fn destroy(object: NonNull<Self>, held: &mut Held<'_, 0>) {
        // SAFETY: obligation 1: it is there until this gives it back.
        let own = unsafe { object.as_ref() };
        if own.ending.replace(true) {
            // SAFETY: as above, once.
            drop(unsafe { object.read() }.charge);
            return slabs::give(held, object);
        }
        if let Some(caller) = own.slot.take() {
            caller.link.set_at(At::NOWHERE);
            messages::refuse(caller, Error::PeerGone);
            homes::send_home(held, caller);
        }
        // As for an endpoint (EP2).
        own.header.revive();
        // SAFETY: the reference that it was just given.
        drop(unsafe { Ref::adopt(object) });
    }
}
