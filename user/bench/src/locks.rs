//! The runtime's synchronisation, alone and against others.

use abi::task::CoreMask;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Run, Scope, Value};
use perf::runner::Trouble;
use rt::handle::Result;
use rt::sync::{Condvar, Kernel, Mutex, Semaphore};
use rt::thread::Builder;

use super::crowd::Crowd;
use super::{Lab, Meter, failed};

const fn row(id: &'static str, doc: &'static str, run: Run<Lab>) -> Bench<Lab> {
    Bench {
        id,
        version: 1,
        doc,
        quantity: Quantity::Time,
        direction: Direction::Smaller,
        scope: Scope::Operation,
        lanes: Lanes::TIMED,
        classes: &[Class::SelfCore, Class::Scaling],
        batch: 16,
        cases: |lab, visit| {
            for cores in lab.scales() {
                let placement = if cores == 1 { lab.alone() } else { Placement::scaling(cores as u32) };
                visit(Case::new(placement).with("cores", Value::Num(cores as u64)));
            }
        },
        run,
    }
}

/// A mutex.
pub(super) const MUTEX: Bench<Lab> =
    row("sync.mutex", "locking and unlocking a mutex for which so many cores contend", |_, case, meter| {
        let mutex = Mutex::new(0_u64);
        let cycle = || *mutex.lock() += 1;
        contend(case.placement.cores as usize, meter, &cycle)
    });

/// A semaphore.
pub(super) const SEMAPHORE: Bench<Lab> = row(
    "sync.sem",
    "taking and giving back the one permit of a semaphore for which so many cores contend",
    |_, case, meter| {
        let semaphore = Semaphore::new(1);
        let cycle = || {
            semaphore.acquire();
            semaphore.release();
        };
        contend(case.placement.cores as usize, meter, &cycle)
    },
);

/// A condition variable.
pub(super) const CONDITION: Bench<Lab> = Bench {
    scope: Scope::RoundTrip,
    cases: |lab, visit| {
        visit(Case::new(lab.alone()).with("cores", Value::Num(1)));
        if lab.cores() > 1 {
            visit(Case::new(Placement::scaling(2)).with("cores", Value::Num(2)));
        }
    },
    ..row(
        "sync.cond",
        "on one core, notifying nobody; on two, a change told to a waiting thread and its answer",
        |_, case, meter| {
            if case.placement.cores == 1 {
                let condition = Condvar::new();
                meter.ops(&mut (), |()| condition.notify_one());
                return Ok(());
            }
            turns(meter).map_err(failed)
        },
    )
};

/// Measures a cycle on the first of so many cores, while the others do the same.
fn contend(
    cores: usize,
    meter: &mut Meter<'_>,
    cycle: &(dyn Fn() + Sync),
) -> core::result::Result<(), Trouble> {
    let crowd = Crowd::default();
    let others = cores.saturating_sub(1);
    let measure = &mut || {
        crowd.await_all(others as u32);
        meter.ops(&mut (), |()| cycle());
    };
    beside(others, &crowd, cycle, measure).map_err(failed)
}

/// Starts a thread on each of the cores up to `core`, the last one first, and then calls `measure`.
fn beside(core: usize, crowd: &Crowd, cycle: &(dyn Fn() + Sync), measure: &mut dyn FnMut()) -> Result<()> {
    if core == 0 {
        measure();
        return Ok(());
    }
    let rest = |_| {
        let result = beside(core - 1, crowd, cycle, measure);
        crowd.stop();
        result
    };
    Builder::default().cores(CoreMask::one(core)).both(|| crowd.work(cycle), rest)?.1
}

/// Whose turn it is: an even number is the measuring thread's. The other one ends at [`OVER`].
struct Turns {
    turn: Mutex<u64, Kernel>,
    changed: Condvar<Kernel>,
}

const OVER: u64 = u64::MAX - 1;

impl Turns {
    /// Waits for a turn of this parity; gives it.
    fn next(&self, parity: u64) -> u64 {
        let mut turn = self.turn.lock();
        while *turn % 2 != parity && *turn != OVER {
            turn = self.changed.wait(turn);
        }
        *turn
    }

    fn set(&self, turn: u64) {
        *self.turn.lock() = turn;
        self.changed.notify_one();
    }
}

fn turns(meter: &mut Meter<'_>) -> Result<()> {
    let turns = Turns { turn: Mutex::new(0), changed: Condvar::new() };
    let answer = || {
        loop {
            match turns.next(1) {
                OVER => return,
                turn => turns.set(turn + 1),
            }
        }
    };
    let ask = |_| {
        meter.ops(&mut (), |()| {
            let turn = turns.next(0);
            turns.set(turn + 1);
            turns.next(0);
        });
        turns.set(OVER);
    };
    Builder::default().cores(CoreMask::one(1)).both(answer, ask).map(drop)
}
