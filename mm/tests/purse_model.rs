//! Purses over a tree of banks, beside a model that counts what everybody has.
#![cfg(not(loom))]

use mm::bank::{BATCH, Bank, Payer, Purse, Source};
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};

/// Banks by the numbers of their payers.
#[derive(Clone, Copy)]
struct Banks<'b>(&'b [Bank<'b>]);

impl Banks<'_> {
    fn of(&self, payer: Payer) -> &Bank<'_> {
        &self.0[payer.word() as usize]
    }
}

impl Source for Banks<'_> {
    fn draw(&mut self, payer: Payer, least: usize, most: usize) -> Option<usize> {
        let got = self.of(payer).draw(least, most).ok()?;
        assert!(least <= got && got <= most.max(least));
        Some(got)
    }

    fn pay_back(&mut self, payer: Payer, amount: usize) {
        self.of(payer).refund(amount).expect("Q2: what was drawn can be paid back");
    }

    fn spare(&self, payer: Payer) -> usize {
        self.of(payer).free()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Take { purse: usize, amount: usize },
    TakeSpare { purse: usize, amount: usize },
    Put { purse: usize, part: usize },
    Trim { purse: usize },
    Move { purse: usize, bank: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (purse, amount) = (any::<usize>(), prop_oneof![3 => 1..3_usize, 1 => 1..400_usize]);
    prop_oneof![
        6 => (purse, amount.clone()).prop_map(|(purse, amount)| Step::Take { purse, amount }),
        1 => (purse, amount.clone()).prop_map(|(purse, amount)| Step::TakeSpare { purse, amount }),
        4 => (purse, amount).prop_map(|(purse, part)| Step::Put { purse, part }),
        1 => purse.prop_map(|purse| Step::Trim { purse }),
        1 => (purse, any::<usize>()).prop_map(|(purse, bank)| Step::Move { purse, bank }),
    ]
}

/// What a purse has taken, and from which bank.
#[derive(Clone, Copy)]
struct Owner {
    bank: usize,
    taken: usize,
}

const BANKS: usize = 3;

/// Q4: what a bank has given is what its purses have in use, and at most two batches beside for each; a purse that is alone with its bank has all
/// of it. Planted: `take_drawing` that does not note what it has drawn; `pay_back_holding` that keeps what it pays back; `Moving::settle` that
/// leaves the payer.
fn run(limits: [usize; BANKS], steps: &[Step]) {
    let root = Bank::root(limits.iter().sum());
    let banks: Vec<Bank<'_>> = limits.iter().map(|&limit| root.child(limit).expect("room")).collect();
    let mut source = Banks(&banks);
    let purses: Vec<Purse> = (0..4).map(|number| Purse::new(Payer::new(number % BANKS as u64))).collect();
    let mut owners: Vec<Owner> = (0..4).map(|number| Owner { bank: number % BANKS, taken: 0 }).collect();
    let used = |owners: &[Owner], bank: usize| -> usize {
        owners.iter().filter(|owner| owner.bank == bank).map(|owner| owner.taken).sum()
    };
    for step in steps {
        match *step {
            Step::Take { purse, amount } => {
                let purse = purse % purses.len();
                let bank = owners[purse].bank;
                let taken = purses[purse].take(amount, &mut source).is_ok();
                let free = limits[bank] - used(&owners, bank);
                assert!(!taken || amount <= free, "more than the bank has");
                let alone = owners.iter().filter(|owner| owner.bank == bank).count() == 1;
                assert!(taken || !alone || amount > free, "{amount} of {free} are refused");
                owners[purse].taken += if taken { amount } else { 0 };
            }
            Step::TakeSpare { purse, amount } => {
                let purse = purse % purses.len();
                let free = limits[owners[purse].bank] - used(&owners, owners[purse].bank);
                if purses[purse].take_spare(amount, &mut source).is_ok() {
                    assert!(8 * amount <= free, "{amount} are no spare part of {free}");
                    owners[purse].taken += amount;
                }
            }
            Step::Put { purse, part } => {
                let purse = purse % purses.len();
                let amount = part.min(owners[purse].taken);
                purses[purse].put(amount, &mut source);
                owners[purse].taken -= amount;
            }
            Step::Trim { purse } => purses[purse % purses.len()].trim(&mut source),
            Step::Move { purse, bank } => {
                let (purse, to) = (purse % purses.len(), bank % BANKS);
                let moving = purses[purse].move_to_another(&mut source);
                assert_eq!(moving.amount(), owners[purse].taken);
                if banks[to].charge(moving.amount()).is_ok() {
                    banks[owners[purse].bank].refund(moving.amount()).expect("it was charged");
                    moving.settle(Payer::new(to as u64));
                    owners[purse].bank = to;
                }
            }
        }
        for (bank, limit) in limits.iter().enumerate() {
            let (spent, own) = (banks[bank].stats().used, used(&owners, bank));
            let payers = owners.iter().filter(|owner| owner.bank == bank).count();
            assert!(own <= spent && spent <= own + payers * 2 * BATCH && spent <= *limit, "{own}, {spent}");
        }
        purses.iter().zip(&owners).for_each(|(purse, owner)| assert_eq!(purse.in_use(), owner.taken));
    }
    for (purse, owner) in purses.iter().zip(&owners) {
        purse.put(owner.taken, &mut source);
        purse.close(&mut source);
    }
    banks.iter().for_each(|bank| assert_eq!(bank.destroy(), Ok(()), "every unit is back"));
    assert_eq!(root.stats().used, 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn purses_agree_with_the_model(
        limits in proptest::array::uniform3(0..3000_usize),
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 30 } else { 300 }),
    ) {
        run(limits, &steps);
    }
}

/// Threads take and give back from one purse; the bank has just enough for all, so nobody is ever refused.
///
/// Planted: `take_drawing` that does not look at the credit it has seized.
#[test]
fn purse_is_exact_under_contention() {
    const STEPS: usize = if cfg!(miri) { 100 } else { 50_000 };
    const PARTS: [usize; 3] = [1, 5, 90];
    let banks = [Bank::root(PARTS.iter().sum())];
    let purse = Purse::new(Payer::new(0));
    std::thread::scope(|scope| {
        for part in PARTS {
            let (purse, banks) = (&purse, &banks);
            scope.spawn(move || {
                let mut source = Banks(banks);
                for _ in 0..STEPS {
                    purse.take(part, &mut source).expect("there is enough for everybody");
                    purse.put(part, &mut source);
                }
            });
        }
    });
    purse.close(&mut Banks(&banks));
    assert_eq!(banks[0].stats().used, 0);
}
