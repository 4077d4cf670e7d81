//! Loom models of charging beside resizing and destroying. Preemption bound: 3.
//!
//! Planted bugs that made them fail once: `Word::destroy` that does not look at what is charged (a charge survives its bank), and
//! `Bank::put` without its second look (a refund is refused).

use super::{Bank, BankError};
use loom::model::Builder;
use loom::thread;
use std::boxed::Box;

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn leak(bank: Bank<'static>) -> &'static Bank<'static> {
    Box::leak(Box::new(bank))
}

/// Q3: either the charge was first, and the bank lives, or the bank is gone, and the charge is refused.
#[test]
fn loom_bank_charge_against_destroy() {
    check(|| {
        let root = leak(Bank::root(100));
        let bank = leak(root.child(10).expect("room"));
        let charging = thread::spawn(move || {
            let charged = bank.charge(4);
            let destroyed = bank.destroy();
            if charged.is_ok() {
                assert!(matches!(destroyed, Err(BankError::Charged | BankError::Busy)), "{destroyed:?}");
                assert_eq!(bank.refund(4), Ok(()), "Q2");
            } else {
                assert_eq!((charged, destroyed), (Err(BankError::Destroyed), Err(BankError::Destroyed)));
            }
        });
        let first = bank.destroy();
        charging.join().expect("ends");
        let last = bank.destroy();
        assert_eq!(last, if first.is_ok() { Err(BankError::Destroyed) } else { Ok(()) });
        assert_eq!((root.stats().used, root.stats().children), (0, 0), "every byte is back, once");
    });
}

/// Q2: a refund goes through whatever the limit does meanwhile.
#[test]
fn loom_bank_refund_against_resize() {
    check(|| {
        let root = leak(Bank::root(100));
        let bank = leak(root.child(10).expect("room"));
        bank.charge(4).expect("room");
        let resizing = thread::spawn(move || {
            bank.resize(5).expect("five are free");
            bank.resize(12).expect("the root has them");
        });
        assert_eq!(bank.refund(4), Ok(()), "Q2");
        resizing.join().expect("ends");
        assert_eq!((bank.stats().used, bank.stats().limit, root.stats().used), (0, 12, 12));
    });
}

/// Two cores want to end or resize one bank: its limit goes back once, all of it.
#[test]
fn loom_bank_destroy_against_resize() {
    check(|| {
        let root = leak(Bank::root(100));
        let bank = leak(root.child(10).expect("room"));
        let other = thread::spawn(move || bank.resize(20));
        let destroyed = bank.destroy();
        let resized = other.join().expect("ends");
        let limit = match (destroyed, resized) {
            (Ok(()), _) => 0,
            (Err(_), Ok(())) => 20,
            (Err(_), Err(_)) => panic!("one of the two went through"),
        };
        assert_eq!(root.stats().used, limit);
    });
}
