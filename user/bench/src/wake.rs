//! Waking a thread that waits on a word.

use abi::task::SchedSpec;
use perf::bench::{Bench, Case, Class, Direction, Lanes, Placement, Quantity, Scope, Value};
use perf::clock::Clock;
use perf::runner::Trouble;
use rt::time::Tsc;

use super::team::{Hogs, Listener};
use super::{Lab, failed, place};

const IDLE: &str = "idle";
const BUSY: &str = "busy";

/// Until the other thread runs.
pub(super) const LATENCY: Bench<Lab> = Bench {
    id: "wake.latency",
    version: 1,
    doc: "from the call that wakes a thread to the thread's first instructions, on a core that is asleep or runs a thread of lower class",
    quantity: Quantity::Time,
    direction: Direction::Smaller,
    scope: Scope::OneWay,
    lanes: Lanes::GUEST,
    classes: &[Class::SelfCore, Class::Smt, Class::Llc, Class::Node, Class::Remote],
    batch: 1,
    cases,
    run: |_, case, meter| {
        with_listener(case, place::FIRST, |listener| {
            while meter.more() {
                listener.await_asleep()?;
                listener.prepare();
                let from = Tsc.start();
                listener.wake();
                while !listener.heard() {
                    core::hint::spin_loop();
                }
                // One clock: the cores' counters agree, see `clock.skew`.
                meter.window(from, listener.at());
            }
            Ok(())
        })
    },
};

/// What it costs the one who wakes.
pub(super) const SEND: Bench<Lab> = Bench {
    id: "wake.send",
    doc: "the call that wakes a thread, for the one who calls: another core is told, or the thread is queued behind the caller",
    scope: Scope::Operation,
    run: |_, case, meter| {
        with_listener(case, place::PEERS, |listener| {
            while meter.more() {
                listener.await_asleep()?;
                listener.prepare();
                let from = Tsc.start();
                listener.wake();
                let to = Tsc.stop();
                meter.window(from, to);
            }
            Ok(())
        })
    },
    ..LATENCY
};

/// On the measuring core itself, the thread of lower class is the one that wakes.
fn cases(lab: &Lab, visit: &mut dyn FnMut(Case)) {
    let case = |placement, target, state| {
        Case::new(placement).with("target", Value::Word(target)).with("state", Value::Word(state))
    };
    visit(case(lab.alone(), Class::SelfCore.word(), BUSY));
    for (class, core) in lab.partners() {
        let placement = Placement::pair(class, lab.site(place::HERE), lab.site(core));
        visit(case(placement, class.word(), IDLE));
        visit(case(placement, class.word(), BUSY));
    }
}

/// Calls `measure` with a thread that waits on the case's core.
fn with_listener(
    case: &Case,
    schedule: SchedSpec,
    measure: impl FnOnce(&mut Listener) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let core = case.placement.target.map_or(place::HERE, |site| site.core as usize);
    let hogs = core != place::HERE && case.params.word("state") == Some(BUSY);
    let _hogs = hogs.then(|| Hogs::elsewhere(core)).transpose().map_err(failed)?;
    measure(&mut Listener::start(core, Some(schedule))?)
}
