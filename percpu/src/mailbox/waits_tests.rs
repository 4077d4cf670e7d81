//! Loom models of waiting and of asking for work: real inboxes between cores; the lists of waiters (`wait`, `dispatch`) and the request of an
//! idle core (`spread`) are the kernel's, one to one, without what does not concern the protocol. Preemption bound: 3.

use super::{Inbox, Kick, Node, Rest, Urgency};
use crate::lock::Held;
use crate::pin::IrqOff;
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::sync::{Arc, Mutex, Notify};
use loom::thread;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Keys, each of the list of its number.
const FIRST: u32 = 0;
const SECOND: u32 = 1;
const NOWHERE: u32 = u32::MAX;
const MOVING: u32 = u32::MAX - 1;

/// One thread, which lives on core 0, two lists that it may be in, and core 0's inbox. The node is first.
#[repr(C)]
struct Scene {
    node: Node,
    list: AtomicU32,
    /// Whether the thread is in each list.
    lists: [Mutex<bool>; 2],
    /// What its call returns: written by whoever decides how its wait ends.
    answer: UnsafeCell<u64>,
    woken: AtomicBool,
    /// What it waits for.
    word: AtomicU32,
    inbox: Inbox,
    interrupt: Notify,
}

// SAFETY: `answer` is written by who takes the thread out of its list, and read by its home after the message; the model shows that.
unsafe impl Send for Scene {}
// SAFETY: as above.
unsafe impl Sync for Scene {}

const WOKEN: u64 = 1;
const TIMED_OUT: u64 = 2;

/// # Safety
/// 1. `node` is that of a living [`Scene`].
unsafe fn deliver_wake(node: NonNull<Node>, _: &mut Held<'_, 0>) {
    // SAFETY: obligation 1; it is first.
    let scene: &Scene = unsafe { node.cast().as_ref() };
    assert!(!scene.woken.swap(true, Ordering::Relaxed), "a wait ends once");
}

impl Scene {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            node: Node::new(),
            list: AtomicU32::new(NOWHERE),
            lists: [Mutex::new(false), Mutex::new(false)],
            answer: UnsafeCell::new(0),
            woken: AtomicBool::new(false),
            word: AtomicU32::new(0),
            inbox: Inbox::new(),
            interrupt: Notify::new(),
        })
    }

    fn at(&self) -> u32 {
        self.list.load(Ordering::Relaxed)
    }

    fn enlist(&self, key: u32) {
        let mut list = self.lists[key as usize].lock().expect("no poison");
        assert!(!*list, "it is in one list at most");
        self.list.store(key, Ordering::Relaxed);
        *list = true;
    }

    fn delist(&self) -> bool {
        loop {
            let at = self.at();
            if at == NOWHERE {
                return false;
            }
            let Some(list) = self.lists.get(at as usize) else {
                thread::yield_now();
                continue;
            };
            let mut list = list.lock().expect("no poison");
            if self.at() == at {
                assert!(core::mem::replace(&mut *list, false), "it is in the list that its word names");
                self.list.store(NOWHERE, Ordering::Relaxed);
                return true;
            }
        }
    }

    fn pop(&self, key: u32, now: u32) -> bool {
        let mut list = self.lists[key as usize].lock().expect("no poison");
        let there = core::mem::replace(&mut *list, false);
        if there {
            self.list.store(now, Ordering::Relaxed);
        }
        there
    }

    fn write(&self, answer: u64) {
        // SAFETY: by who has taken the thread out of its list.
        self.answer.with_mut(|own| unsafe { *own = answer });
    }

    /// As `wait::wake` on another core.
    fn wake(&self, key: u32) -> u32 {
        if !self.pop(key, NOWHERE) {
            return 0;
        }
        self.write(WOKEN);
        // SAFETY: taken out of its list once, so in no inbox; the scene outlives the cores.
        let kick = unsafe { self.inbox.push(NonNull::from(self).cast(), deliver_wake, Urgency::Eager) };
        if kick == Kick::Interrupt {
            self.interrupt.notify();
        }
        1
    }

    fn requeue(&self, from: u32, to: u32) -> u32 {
        let moved = self.pop(from, MOVING);
        if moved {
            self.enlist(to);
        }
        u32::from(moved)
    }

    /// Core 0 has nothing to run until the wake comes.
    fn sleep(&self, irq: &mut IrqOff) {
        self.inbox.serve(irq);
        while !self.woken.load(Ordering::Relaxed) {
            if self.inbox.arm(irq, Rest::Halted) {
                self.interrupt.wait();
            }
            self.inbox.serve(irq);
        }
    }

    /// As `dispatch::do_not_block`: whether somebody has woken it.
    fn second_thoughts(&self, irq: &mut IrqOff) -> bool {
        let listed = self.delist();
        while !listed && !self.woken.load(Ordering::Relaxed) {
            self.inbox.serve(irq);
            thread::yield_now();
        }
        !listed
    }

    /// As `dispatch::time_out`, with the message awaited where somebody else has been quicker.
    fn time_out(&self, irq: &mut IrqOff) {
        if self.delist() {
            self.write(TIMED_OUT);
        } else {
            self.sleep(irq);
        }
    }

    /// Nothing is left behind; what the thread was told.
    fn told(&self) -> u64 {
        assert!(self.at() == NOWHERE, "it is in no list");
        assert!(!self.inbox.has_message(), "nothing is on its way to it");
        // SAFETY: its wait has ended.
        self.answer.with(|own| unsafe { *own })
    }
}

/// A thread enlists, looks, and blocks or has second thoughts; another changes the word and wakes: it never sleeps for ever, and a wake
/// that was counted has reached it.
///
/// Planted: a look before it enlists; second thoughts that do not wait for the message.
#[test]
fn loom_no_wake_is_lost() {
    check(|| {
        let scene = Scene::new();
        let waker = {
            let scene = scene.clone();
            thread::spawn(move || {
                scene.word.store(1, Ordering::Relaxed);
                scene.wake(FIRST)
            })
        };
        let woken = IrqOff::with(|irq| {
            scene.enlist(FIRST);
            if scene.word.load(Ordering::Relaxed) == 0 {
                scene.sleep(irq);
                true
            } else {
                scene.second_thoughts(irq)
            }
        });
        assert_eq!(waker.join().expect("waker ends"), u32::from(woken));
        assert_eq!(scene.told(), if woken { WOKEN } else { 0 });
    });
}

/// A wake and the timeout: one of them decides.
#[test]
fn loom_wake_meets_timeout() {
    check(|| {
        let scene = Scene::new();
        scene.enlist(FIRST);
        let waker = {
            let scene = scene.clone();
            thread::spawn(move || scene.wake(FIRST))
        };
        IrqOff::with(|irq| scene.time_out(irq));
        let count = waker.join().expect("waker ends");
        assert_eq!(scene.told(), if count == 1 { WOKEN } else { TIMED_OUT });
    });
}

/// The thread is moved to another list, and perhaps woken there, while its timeout comes.
///
/// Planted: two words for the list, of which one can be old under the other's lock; no second look under the lock; `MOVING` taken for a list;
/// a thread that is nowhere between two lists.
#[test]
fn loom_requeue_meets_timeout() {
    for wakes in [false, true] {
        check(move || {
            let scene = Scene::new();
            scene.enlist(FIRST);
            let other = {
                let scene = scene.clone();
                thread::spawn(move || {
                    let moved = scene.requeue(FIRST, SECOND);
                    (moved, if wakes { scene.wake(SECOND) } else { 0 })
                })
            };
            IrqOff::with(|irq| scene.time_out(irq));
            let (moved, count) = other.join().expect("waker ends");
            assert!(count <= moved);
            assert_eq!(scene.told(), if count == 1 { WOKEN } else { TIMED_OUT });
        });
    }
}

/// An idle core, and another that it asks for a thread; as `spread::Request`. The node is first.
#[repr(C)]
struct Request {
    node: Node,
    asked: AtomicBool,
    cores: NonNull<Cores>,
}

/// A thread that can be given away, or woken, once; its node is first.
#[repr(C)]
struct Loose {
    node: Node,
    cores: NonNull<Cores>,
}

struct Cores {
    idle: Inbox,
    interrupt: Notify,
    loaded: Inbox,
    /// Threads that the loaded core has to give.
    spare: AtomicU32,
    /// Threads that have come to the idle core.
    come: AtomicU32,
}

/// Where the other nodes are: in memory that does not move.
struct Asking {
    request: Request,
    stolen: Loose,
    woken: Loose,
}

// SAFETY: nodes are pushed by one core at a time, as the protocol says; the model shows that.
unsafe impl Send for Asking {}
// SAFETY: as above.
unsafe impl Sync for Asking {}

impl Cores {
    /// # Safety
    /// 1. `node` is that of a [`Loose`] that is in no inbox and outlives the cores.
    unsafe fn send(&self, node: NonNull<Node>) {
        // SAFETY: obligation 1.
        if unsafe { self.idle.push(node, arrive, Urgency::Eager) } == Kick::Interrupt {
            self.interrupt.notify();
        }
    }
}

/// # Safety
/// 1. `node` is that of a living [`Loose`].
unsafe fn arrive(node: NonNull<Node>, _: &mut Held<'_, 0>) {
    // SAFETY: obligation 1; it is first.
    let loose: &Loose = unsafe { node.cast().as_ref() };
    // SAFETY: the cores outlive what they send.
    unsafe { loose.cores.as_ref() }.come.fetch_add(1, Ordering::Relaxed);
}

/// # Safety
/// 1. `node` is that of the request of a living [`Asking`].
unsafe fn deliver_request(node: NonNull<Node>, _: &mut Held<'_, 0>) {
    // SAFETY: obligation 1: the request is the first field.
    let asking: &Asking = unsafe { node.cast().as_ref() };
    // SAFETY: as above.
    let cores = unsafe { asking.request.cores.as_ref() };
    asking.request.asked.store(false, Ordering::Release);
    if cores.spare.swap(0, Ordering::Relaxed) == 1 {
        // SAFETY: given away once.
        unsafe { cores.send(NonNull::from(&asking.stolen).cast()) };
    }
}

/// An idle core asks, arms and sleeps; it is asked back with nothing at first, and is woken for something else. It asks again, and has in
/// the end both what was woken and what it has asked for.
///
/// Planted: a request sent again while it is on its way; Relaxed where it is answered.
#[test]
fn loom_idle_core_asks_and_is_woken() {
    check(|| {
        let cores = Arc::new(Cores {
            idle: Inbox::new(),
            interrupt: Notify::new(),
            loaded: Inbox::new(),
            spare: AtomicU32::new(0),
            come: AtomicU32::new(0),
        });
        let at = NonNull::from(&*cores);
        let loose = || Loose { node: Node::new(), cores: at };
        let request = Request { node: Node::new(), asked: AtomicBool::new(false), cores: at };
        let asking = Arc::new(Asking { request, stolen: loose(), woken: loose() });
        let loaded = {
            let (cores, asking) = (cores.clone(), asking.clone());
            thread::spawn(move || {
                IrqOff::with(|irq| {
                    cores.loaded.serve(irq);
                    cores.spare.store(1, Ordering::Relaxed);
                    // SAFETY: woken once.
                    unsafe { cores.send(NonNull::from(&asking.woken).cast()) };
                    while cores.spare.load(Ordering::Relaxed) == 1 {
                        cores.loaded.serve(irq);
                        thread::yield_now();
                    }
                });
            })
        };
        IrqOff::with(|irq| {
            loop {
                cores.idle.serve(irq);
                if cores.come.load(Ordering::Relaxed) == 2 {
                    break;
                }
                if !asking.request.asked.load(Ordering::Acquire) {
                    asking.request.asked.store(true, Ordering::Relaxed);
                    let node = NonNull::from(&*asking).cast();
                    // SAFETY: not asked, so in no inbox; it outlives the cores.
                    let _ = unsafe { cores.loaded.push(node, deliver_request, Urgency::Eager) };
                }
                if cores.idle.arm(irq, Rest::Halted) {
                    cores.interrupt.wait();
                }
            }
        });
        loaded.join().expect("core ends");
    });
}
