//! Tests that run in the kernel: one table, run by name.
//!
//! Every test leaves the machine as it found it: after each one the frame counts must be back at their baseline. The exit code of the run
//! says whether all passed; the records say which did not and why.
//!
//! Every test has been seen to fail: its comment names a bug that was planted for that. `plant=frame-leak` on the command line makes each
//! test lose a frame, which the check of the baseline must notice.

#![expect(
    clippy::result_large_err,
    clippy::large_enum_variant,
    reason = "a message travels by value: there is nothing to box it in, and a test is no fast path"
)]

use abi::boot::{Lane, Params};
use abi::exit::Exit;
use mm::Order;
use mm::frames::Request;
use perf::bench::Text;
use perf::record::{Done, Outcome, Record, TestEnd, TestStart};

use crate::bank::Bank;
use crate::cores::Crew;
use crate::{log, memory, report, trace};

mod apic;
mod bed;
mod border;
mod calls;
mod caps;
mod clock;
mod convert;
mod cores;
mod epoch;
mod footprint;
mod fpu;
mod frames;
mod heap;
mod interrupt;
mod metrics;
mod nodes;
mod passing;
mod peers;
mod pressure;
mod protection;
mod quota;
mod record;
mod rings;
mod sched;
mod slabs;
mod spaces;
mod speculation;
mod timer;
mod tlb;
mod user;
mod usercopy;

/// Bytes of a message: two sets of figures to compare.
const MESSAGE: usize = 400;

/// Why a test did not pass.
pub(crate) enum Verdict {
    /// A check failed.
    Failed(Text<MESSAGE>),
    /// The test makes no sense on this machine.
    Skipped(&'static str),
}

/// What a test returns.
pub(crate) type Result = core::result::Result<(), Verdict>;

/// The planted bug that loses a frame in every test: `plant=` on the command line.
pub(crate) const PLANT_LEAK: &str = "frame-leak";

/// One test.
pub(crate) struct Test {
    name: &'static str,
    run: fn(&mut Bed) -> Result,
}

/// What a test gets to work with.
pub(crate) struct Bed {
    /// Runs functions on other cores.
    pub(crate) crew: Crew,
    /// Seed of every pseudo-random sequence.
    pub(crate) seed: u64,
    /// The lane the host declared: tests of wall time make no sense in every one.
    pub(crate) lane: Lane,
    /// Seconds for tests that can go on for long; 0 for their usual time.
    pub(crate) soak: u32,
}

/// Fails the test with a message unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($arg:tt)*) => {
        if !$condition {
            return Err($crate::tests::failed(format_args!($($arg)*)));
        }
    };
}
pub(crate) use ensure;

/// A failure with a message, cut to what a record holds.
pub(crate) fn failed(message: core::fmt::Arguments<'_>) -> Verdict {
    let mut text = Text::new();
    if core::fmt::Write::write_fmt(&mut text, message).is_err() {
        log!("a test's message was too long: {message}");
    }
    Verdict::Failed(text)
}

const fn test(name: &'static str, run: fn(&mut Bed) -> Result) -> Test {
    Test { name, run }
}

const TESTS: &[Test] = &[
    test("cores.identity", cores::identity),
    test("cores.own_node", cores::own_node),
    test("cores.lock", cores::lock),
    test("cores.call_each", calls::each),
    test("cores.call_storm", calls::storm),
    test("cores.wake_from_sleep", calls::wake_from_sleep),
    test("cores.no_wake_lost", calls::no_wake_lost),
    test("cores.epoch", epoch::reclaims_late_and_all),
    test("apic.setup", apic::setup),
    test("apic.multicast", apic::multicast),
    test("clock.frequency", clock::frequency),
    test("clock.monotonic", clock::monotonic),
    test("timer.fires", timer::fires),
    test("fpu.switch", fpu::switch),
    test("fpu.migrate", fpu::migrate),
    test("border.tables", border::tables),
    test("border.identifiers", border::identifiers),
    test("speculation.decides", speculation::decides),
    test("speculation.measures", speculation::measures),
    test("protection.switches", protection::switches),
    test("protection.image", protection::image),
    test("protection.guard_pages", protection::guard_pages),
    test("frames.each_core", frames::each_core),
    test("frames.cross_core", frames::cross_core),
    test("frames.errors", frames::errors),
    test("frames.split_merge", convert::split_merge),
    test("frames.nodes", nodes::policies),
    test("frames.fallback", nodes::fallback),
    test("frames.zones", nodes::zones),
    test("frames.exhaust", pressure::exhaust),
    test("frames.storm", pressure::storm),
    test("usercopy.copies", usercopy::copies),
    test("usercopy.values", usercopy::values),
    test("usercopy.boundaries", usercopy::boundaries),
    test("usercopy.claims", usercopy::claims),
    test("usercopy.resolved", usercopy::resolved),
    test("usercopy.unmapped", usercopy::unmapped),
    test("memory.footprint", footprint::footprint),
    test("perf.record", record::record),
    test("metrics.counts", metrics::counts),
    test("metrics.dumps", metrics::dumps),
    test("trace.ring", rings::ring),
    test("heap.vectors", heap::vectors),
    test("tlb.targeted", tlb::targeted),
    test("tlb.switched_away", tlb::switched_away),
    test("tlb.busy", tlb::busy),
    test("tlb.storm", tlb::storm),
    test("tlb.overflow", tlb::overflow),
    test("tlb.freed_tables", tlb::freed_tables),
    test("slabs.each_core", slabs::each_core),
    test("slabs.cross_core", slabs::cross_core),
    test("slabs.exhaust", slabs::exhaust),
    test("slabs.banks", slabs::banks),
    test("user.hello", user::hello),
    test("user.hostile", user::hostile),
    test("user.sync", user::sync),
    test("user.talk", user::talk),
    test("user.matrix", peers::matrix),
    test("user.walk", peers::walk),
    test("user.bound", peers::bound),
    test("user.kills", peers::kills),
    test("user.storm", peers::storm),
    test("user.signals", user::signals),
    test("user.arbiter", user::arbiter),
    test("user.churn", user::churn),
    test("user.fuzz", user::fuzz),
    test("interrupt.words", interrupt::words),
    test("interrupt.entries", interrupt::entries),
    test("interrupt.windows", interrupt::windows),
    test("interrupt.ports", interrupt::ports),
    test("interrupt.registers", interrupt::registers),
    test("cap.calls", caps::calls),
    test("cap.race", caps::race),
    test("user.pages", passing::pages),
    test("user.many", passing::many),
    test("user.faults", passing::faults),
    test("interrupt.drivers", interrupt::drivers),
    test("quota.banks", quota::banks),
    test("quota.filters", quota::filters),
    test("quota.rates", quota::rates),
    test("sched.fair", sched::fair),
    test("sched.deadlines", sched::deadlines),
    test("sched.real_time", sched::real_time),
    test("sched.interactive", sched::interactive),
    test("sched.cores", sched::cores),
    test("sched.timers", sched::timers),
    test("spaces.faults", spaces::faults::all),
    test("spaces.oom", spaces::oom::changes_nothing),
    test("spaces.model", spaces::model::agrees),
    test("spaces.destroy", spaces::destroy::large),
    test("image.load", spaces::image::load),
    test("image.bundled", spaces::image::bundled),
    test("image.malformed", spaces::image::malformed),
    test("image.out_of_memory", spaces::image::out_of_memory),
    test("spaces.stale_hunt", spaces::hunt::finds_nothing),
];

/// Runs the selected tests and returns how the run ends.
#[inline(never)] // its code belongs to the laboratory's pages, whoever calls it
pub(crate) fn run(params: &Params<'_>, crew: Crew) -> Exit {
    let mut done = Done::default();
    let mut bed = Bed { crew, seed: params.seed, lane: params.lane, soak: params.soak };
    for test in TESTS.iter().filter(|test| params.selects(test.name)) {
        report::send(&Record::TestStart(TestStart { name: test.name }));
        let outcome = run_one(test, &mut bed, params.plant);
        let (outcome, message) = match &outcome {
            Ok(()) => (Outcome::Passed, ""),
            Err(Verdict::Failed(message)) => (Outcome::Failed, message.as_str()),
            Err(Verdict::Skipped(why)) => (Outcome::Skipped, *why),
        };
        match outcome {
            Outcome::Passed | Outcome::Failed => done.run += 1,
            Outcome::Skipped => done.skipped += 1,
        }
        done.failed += u32::from(outcome == Outcome::Failed);
        log!("test {}: {} {message}", test.name, outcome.word());
        report::send(&Record::TestEnd(TestEnd { name: test.name, outcome, message }));
    }
    trace::send();
    report::send(&Record::Done(done));
    match done {
        Done { run: 0, skipped: 0, .. } => Exit::NothingMatched,
        Done { failed: 0, .. } => Exit::Success,
        Done { .. } => Exit::TestsFailed,
    }
}

fn run_one(test: &Test, bed: &mut Bed, plant: &str) -> Result {
    calm(bed)?;
    let before = memory::free_frames();
    let spent = Bank::root().info().spent;
    (test.run)(bed)?;
    if plant == PLANT_LEAK {
        let lost = bed::get(Order::FRAME, Request::LOCAL);
        ensure!(lost.is_ok(), "no frame to lose: {lost:?}");
    }
    calm(bed)?;
    let after = memory::free_frames();
    ensure!(after == before, "{} frames free before the test, {} after it", before, after);
    let now = Bank::root().info().spent;
    ensure!(now == spent, "the root bank had spent {spent:?} before the test, and {now:?} after it");
    Ok(())
}

/// Looks at all cores that follow each other: more than messages that one message can set off on its way to the last reference of an object.
const HOPS: usize = 4;

/// Nothing is retired or reserved any more: frames that are not free are in use.
fn calm(bed: &mut Bed) -> Result {
    loop {
        bed::finish_jobs(&mut bed.crew)?;
        bed::settle(&mut bed.crew)?;
        // What was given back may have been the last reference to a process that never started, which may have had that of another. And
        // what one core gives back may have to be disarmed on another, which tells a third: a look reaches a core after what was sent to it.
        if !(0..HOPS).any(|_| bed::is_unsettled(&mut bed.crew)) {
            break;
        }
    }
    crate::slabs::drain_all(&mut bed.crew);
    memory::drain_all(&mut bed.crew);
    Ok(())
}
