//! Loom models of the inbox. Preemption bound: 3.
//!
//! Planted bugs that made them fail once: Relaxed instead of Release in `push`, and Relaxed instead of Acquire in `take` (a race
//! on `value`); no reversal in `take` (order); `arm` that ignores messages, and `push` that forgets to kick a halted owner (deadlock);
//! `deliver` that clears `raised` after the handler (a raise goes unanswered), and Relaxed there (a race on `value`).

use super::{Inbox, Kick, Node, Rest, Signal, Urgency};
use crate::lock::Held;
use crate::pin::IrqOff;
use core::ptr::NonNull;
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Notify};
use loom::thread;
use std::boxed::Box;
use std::sync::Mutex;
use std::vec::Vec;

/// A message whose delivery is logged.
#[repr(C)]
struct Letter {
    node: Node,
    /// Written before the push, read at delivery: loom reports a race if the push does not order them.
    value: UnsafeCell<u32>,
    sender: u32,
    log: std::sync::Arc<Mutex<Vec<(u32, u32)>>>,
}

/// # Safety
/// 1. `node` belongs to a leaked [`Letter`].
unsafe fn deliver(node: NonNull<Node>, _: &mut Held<'_, 0>) {
    // SAFETY: obligation 1; a letter is delivered once, so this takes the leaked box back.
    let letter = unsafe { Box::from_raw(node.cast::<Letter>().as_ptr()) };
    // SAFETY: the sender wrote it before the push.
    let value = letter.value.with(|value| unsafe { *value });
    letter.log.lock().expect("no poison").push((letter.sender, value));
}

fn post(inbox: &Inbox, log: &std::sync::Arc<Mutex<Vec<(u32, u32)>>>, sender: u32, number: u32) -> Kick {
    let letter = Letter { node: Node::new(), value: UnsafeCell::new(0), sender, log: log.clone() };
    // SAFETY: not yet shared.
    letter.value.with_mut(|value| unsafe { *value = number });
    let node = NonNull::from(Box::leak(Box::new(letter))).cast();
    // SAFETY: a new letter is in no inbox, is leaked until delivered, and `deliver` expects letters.
    unsafe { inbox.push(node, deliver, Urgency::Lazy) }
}

fn check(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// B2: nothing is lost or doubled, and each sender's messages stay in order.
#[test]
fn loom_nothing_lost_and_order_kept() {
    check(3, || {
        let inbox = Arc::new(Inbox::new());
        let log = std::sync::Arc::new(Mutex::new(Vec::new()));
        let senders: Vec<_> = [1, 2]
            .into_iter()
            .map(|sender| {
                let (inbox, log) = (inbox.clone(), log.clone());
                thread::spawn(move || {
                    for number in 0..sender {
                        let _ = post(&inbox, &log, sender, number);
                    }
                })
            })
            .collect();
        let mut served = 0;
        while served < 3 {
            served += IrqOff::with(|irq| inbox.serve(irq));
            // Not a join, which would order the messages before the delivery by itself.
            thread::yield_now();
        }
        for sender in senders {
            sender.join().expect("sender ends");
        }
        let log = log.lock().expect("no poison");
        assert_eq!(served, 3);
        for sender in [1, 2] {
            let numbers: Vec<u32> = log.iter().filter(|seen| seen.0 == sender).map(|seen| seen.1).collect();
            assert_eq!(numbers, (0..sender).collect::<Vec<_>>());
        }
    });
}

/// B3: an owner that halts is woken for every message, even a lazy one; loom reports the deadlock otherwise.
#[test]
fn loom_no_wake_is_lost() {
    check(3, || {
        let inbox = Arc::new(Inbox::new());
        // The interrupt: pending until taken.
        let interrupt = Arc::new(Notify::new());
        let log = std::sync::Arc::new(Mutex::new(Vec::new()));
        let senders: Vec<_> = [1, 2]
            .into_iter()
            .map(|sender| {
                let (inbox, interrupt, log) = (inbox.clone(), interrupt.clone(), log.clone());
                thread::spawn(move || {
                    if post(&inbox, &log, sender, 0) == Kick::Interrupt {
                        interrupt.notify();
                    }
                })
            })
            .collect();
        IrqOff::with(|irq| {
            let mut served = 0;
            while served < 2 {
                served += inbox.serve(irq);
                if served < 2 && inbox.arm(irq, Rest::Halted) {
                    interrupt.wait();
                }
            }
        });
        for sender in senders {
            sender.join().expect("sender ends");
        }
    });
}

struct Changes {
    value: [UnsafeCell<u32>; 2],
    /// Bit `i`: sender `i` has written its value and is about to raise.
    written: AtomicUsize,
    /// What the handler found written at its latest run.
    found: AtomicUsize,
    signal: Signal,
}

// SAFETY: each value is written by one sender before it sets its bit, and read after the bit was seen.
unsafe impl Sync for Changes {}

/// The handler runs after every raise and sees what the raiser did before it.
#[test]
fn loom_signal_answers_every_raise() {
    loom::lazy_static! {
        static ref CHANGES: Changes = Changes {
            value: [UnsafeCell::new(0), UnsafeCell::new(0)],
            written: AtomicUsize::new(0),
            found: AtomicUsize::new(0),
            signal: Signal::new(|_, _| {
                // Relaxed on purpose: only the signal may order the reads below after the writes.
                let written = CHANGES.written.load(Ordering::Relaxed);
                CHANGES.found.store(written, Ordering::Relaxed);
            }),
        };
    }
    check(3, || {
        let inbox = Arc::new(Inbox::new());
        let raise = |inbox: &Inbox, bit: usize| {
            // SAFETY: nobody else touches this sender's value before it is raised.
            CHANGES.value[bit].with_mut(|value| unsafe { *value = 1 });
            CHANGES.written.fetch_or(1 << bit, Ordering::Relaxed);
            // SAFETY: the lazily made value lives as long as this execution of the model.
            let signal: &'static Signal = unsafe { NonNull::from(&CHANGES.signal).as_ref() };
            let _ = signal.raise(inbox, Urgency::Lazy);
        };
        let other = {
            let inbox = inbox.clone();
            thread::spawn(move || raise(&inbox, 0))
        };
        raise(&inbox, 1);
        IrqOff::with(|irq| inbox.serve(irq));
        other.join().expect("sender ends");
        IrqOff::with(|irq| inbox.serve(irq));
        assert_eq!(CHANGES.found.load(Ordering::Relaxed), 3, "every raise is answered");
    });
}
