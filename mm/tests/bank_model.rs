//! Random operations on a tree of banks beside a model that sums up; charges of many threads beside a destruction.
//!
//! Planted bugs that this caught: `Bank::destroy` that gives back half of the limit, `Bank::shrink` without the parent's part,
//! `Word::destroy` that does not look at the children.
#![cfg(not(loom))]

use mm::bank::{Bank, BankError, BankStats};
use percpu::sync::atomic::{AtomicUsize, Ordering};
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};

#[derive(Clone, Debug)]
enum Step {
    Child { parent: usize, limit: usize },
    Charge { bank: usize, bytes: usize },
    Refund { bank: usize, bytes: usize },
    Resize { bank: usize, limit: usize },
    Destroy { bank: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (bank, bytes) = (any::<usize>(), 0..300_usize);
    prop_oneof![
        2 => (bank, bytes.clone()).prop_map(|(parent, limit)| Step::Child { parent, limit }),
        4 => (bank, bytes.clone()).prop_map(|(bank, bytes)| Step::Charge { bank, bytes }),
        3 => (bank, bytes.clone()).prop_map(|(bank, bytes)| Step::Refund { bank, bytes }),
        2 => (bank, bytes).prop_map(|(bank, limit)| Step::Resize { bank, limit }),
        2 => bank.prop_map(|bank| Step::Destroy { bank }),
    ]
}

/// A bank as the model sees it: nothing but what was asked for.
#[derive(Clone, Debug)]
struct Node {
    parent: Option<usize>,
    limit: usize,
    charged: usize,
    alive: bool,
}

struct Model(Vec<Node>);

impl Model {
    fn children(&self, bank: usize) -> impl Iterator<Item = &Node> {
        self.0.iter().filter(move |node| node.alive && node.parent == Some(bank))
    }

    fn used(&self, bank: usize) -> usize {
        self.0[bank].charged + self.children(bank).map(|child| child.limit).sum::<usize>()
    }

    fn free(&self, bank: usize) -> usize {
        self.0[bank].limit - self.used(bank)
    }

    fn judge(&self, bank: usize, bytes: usize) -> Result<(), BankError> {
        match &self.0[bank] {
            node if !node.alive => Err(BankError::Destroyed),
            _ if bytes > self.free(bank) => Err(BankError::Exhausted),
            _ => Ok(()),
        }
    }

    fn resize(&mut self, bank: usize, limit: usize) -> Result<(), BankError> {
        let node = self.0[bank].clone();
        if !node.alive {
            return Err(BankError::Destroyed);
        }
        if limit < node.limit {
            self.judge(bank, node.limit - limit)?;
        } else if let Some(parent) = node.parent {
            self.judge(parent, limit - node.limit)?;
        }
        self.0[bank].limit = limit;
        Ok(())
    }

    fn destroy(&mut self, bank: usize) -> Result<(), BankError> {
        if !self.0[bank].alive {
            return Err(BankError::Destroyed);
        }
        if self.children(bank).next().is_some() {
            return Err(BankError::Children);
        }
        if self.0[bank].charged > 0 {
            return Err(BankError::Charged);
        }
        self.0[bank].alive = false;
        Ok(())
    }
}

fn run(steps: &[Step]) {
    // Banks refer to their parents and live to the end of the process: a few thousand small ones.
    let root: &'static Bank<'static> = Box::leak(Box::new(Bank::root(1000)));
    let mut banks = vec![root];
    let mut model = Model(vec![Node { parent: None, limit: 1000, charged: 0, alive: true }]);
    for step in steps {
        let place = |pick: usize| pick % banks.len();
        match *step {
            Step::Child { parent, limit } => {
                let parent = place(parent);
                let expected = model.judge(parent, limit);
                match banks[parent].child(limit) {
                    Ok(bank) => {
                        assert_eq!(expected, Ok(()));
                        banks.push(Box::leak(Box::new(bank)));
                        model.0.push(Node { parent: Some(parent), limit, charged: 0, alive: true });
                    }
                    Err(error) => assert_eq!(expected, Err(error)),
                }
            }
            Step::Charge { bank, bytes } => {
                let bank = place(bank);
                let expected = model.judge(bank, bytes);
                assert_eq!(banks[bank].charge(bytes), expected, "{step:?}");
                model.0[bank].charged += if expected.is_ok() { bytes } else { 0 };
            }
            Step::Refund { bank, bytes } => {
                let bank = place(bank);
                // What children have is not to be told from charges by the bank; the model does not ask for it.
                let excess = bytes > model.used(bank) || !model.0[bank].alive;
                if bytes <= model.0[bank].charged || excess {
                    let expected = if excess { Err(BankError::NotCharged) } else { Ok(()) };
                    assert_eq!(banks[bank].refund(bytes), expected, "{step:?}");
                    model.0[bank].charged -= if excess { 0 } else { bytes };
                }
            }
            Step::Resize { bank, limit } => {
                let bank = place(bank);
                assert_eq!(banks[bank].resize(limit), model.resize(bank, limit), "{step:?}");
            }
            Step::Destroy { bank } => {
                let bank = place(bank);
                assert_eq!(banks[bank].destroy(), model.destroy(bank), "{step:?}");
            }
        }
        check(&banks, &model);
    }
    end(&banks, &mut model);
}

fn check(banks: &[&Bank<'_>], model: &Model) {
    for (place, (bank, node)) in banks.iter().zip(&model.0).enumerate() {
        let BankStats { limit, used, peak, children, .. } = bank.stats();
        let expected = if node.alive { (node.limit, model.used(place)) } else { (0, 0) };
        assert_eq!((limit, used), expected, "bank {place}");
        assert_eq!(children, model.children(place).count());
        assert!(peak >= used);
    }
}

/// Everything is refunded, every bank destroyed, youngest first: the root is as new.
fn end(banks: &[&Bank<'_>], model: &mut Model) {
    for place in (0..banks.len()).rev().filter(|&place| model.0[place].alive) {
        assert_eq!(banks[place].refund(model.0[place].charged), Ok(()));
        if place > 0 {
            assert_eq!(banks[place].destroy(), Ok(()));
        }
    }
    assert_eq!((banks[0].stats().used, banks[0].stats().children), (0, 0), "every byte is back");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn bank_tree_agrees_with_the_model(
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 30 } else { 200 })
    ) {
        run(&steps);
    }
}

fn charge_and_refund(bank: &Bank<'_>, bytes: usize) {
    if bank.charge(bytes).is_ok() {
        assert_ne!(bank.stats().used, 0);
        assert_eq!(bank.refund(bytes), Ok(()));
    }
}

/// One thread less works.
struct Done<'w>(&'w AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        // ORDER: Release pairs with Acquire in the test.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Threads charge and refund, another resizes: no refund is ever refused.
#[test]
fn bank_refunds_are_never_refused() {
    const STEPS: usize = if cfg!(miri) { 60 } else { 200_000 };
    let root = Bank::root(100_000);
    let bank = root.child(10_000).expect("room");
    let working = AtomicUsize::new(3);
    std::thread::scope(|scope| {
        for bytes in [1, 4_000, 4_096] {
            let (bank, working) = (&bank, &working);
            scope.spawn(move || {
                // Also when the thread fails: the other one must not wait for ever.
                let _done = Done(working);
                (0..STEPS).for_each(|_| charge_and_refund(bank, bytes));
            });
        }
        let mut limit = 10_000;
        // ORDER: Acquire pairs with Release above.
        while working.load(Ordering::Acquire) > 0 {
            limit = if limit == 10_000 { 14_100 } else { 10_000 };
            let _ = bank.resize(limit);
        }
    });
    assert_eq!(bank.stats().used, 0);
    assert_eq!(root.stats().used, bank.stats().limit);
    assert_eq!((bank.destroy(), root.stats().used), (Ok(()), 0));
    assert_eq!(bank.charge(0), Err(BankError::Destroyed));
}
