//! The runner on a clock that the test turns.

use std::cell::Cell;

use abi::boot::{Lane, Params};
use perf::bench::{
    Bench, Case, Class, Context, Direction, Lanes, Placement, Quantity, Scope, Site, Unit, Value, check,
};
use perf::clock::{Clock, Frequency, Ticks, Timebase};
use perf::hist::DEFAULT_COUNTS;
use perf::record::{Chunking, Encoder, HistAssembly, Matrix, MatrixAssembly, Owned, Record, Status};
use perf::runner::{self, MatrixHead, Meter, Plan, Settings, Trouble};

const HOME: Site = Site { core: 0, node: 0 };
/// What a reading of the fake clock costs: an empty window is as long.
const READ: u64 = 20;

#[derive(Clone, Copy)]
struct Fake {
    now: &'static Cell<u64>,
    /// Added to every other reading, to make the clock unsteady.
    jitter: u64,
    step: u64,
}

impl Fake {
    fn new() -> Self {
        Self { now: Box::leak(Box::new(Cell::new(1_000))), jitter: 0, step: READ }
    }

    fn pass(self, ticks: u64) {
        self.now.set(self.now.get() + ticks);
    }
}

impl Clock for Fake {
    fn start(&self) -> Ticks {
        Ticks::new(self.now.get())
    }

    fn stop(&self) -> Ticks {
        let odd = self.now.get() / self.step.max(1) % 2;
        self.pass(self.step + odd * self.jitter);
        Ticks::new(self.now.get())
    }
}

struct Lab {
    clock: Fake,
    ran: Vec<String>,
}

impl Lab {
    fn new() -> Self {
        Self { clock: Fake::new(), ran: Vec::new() }
    }
}

impl Context for Lab {
    type Clock = Fake;

    fn clock(&self) -> Fake {
        self.clock
    }
}

const fn row(
    id: &'static str,
    cases: fn(&Lab, &mut dyn FnMut(Case)),
    run: perf::bench::Run<Lab>,
) -> Bench<Lab> {
    Bench {
        id,
        version: 2,
        doc: "a row",
        quantity: Quantity::Time,
        direction: Direction::Smaller,
        scope: Scope::Operation,
        lanes: Lanes::GUEST,
        classes: &[Class::SelfCore, Class::Matrix],
        batch: 4,
        cases,
        run,
    }
}

fn one_case(_: &Lab, out: &mut dyn FnMut(Case)) {
    out(Case::new(Placement::alone(HOME)));
}

fn by_order(_: &Lab, out: &mut dyn FnMut(Case)) {
    for order in [0, 3, 9] {
        out(Case::new(Placement::alone(HOME))
            .with("order", Value::Num(order))
            .with("mem", Value::Word("local")));
    }
}

fn seven_ticks(lab: &mut Lab, case: &Case, meter: &mut Meter<'_, Fake>) -> Result<(), Trouble> {
    lab.ran.push(case.params.to_string());
    let clock = lab.clock;
    meter.ops(&mut (), |()| clock.pass(7));
    Ok(())
}

fn breaks(_: &mut Lab, _: &Case, meter: &mut Meter<'_, Fake>) -> Result<(), Trouble> {
    meter.value(1);
    Err(Trouble::Failed("out of frames"))
}

fn skips(_: &mut Lab, _: &Case, _: &mut Meter<'_, Fake>) -> Result<(), Trouble> {
    Err(Trouble::Skipped("one node only"))
}

fn turns_back(lab: &mut Lab, _: &Case, meter: &mut Meter<'_, Fake>) -> Result<(), Trouble> {
    let clock = lab.clock;
    meter.ops(&mut (), |()| clock.now.set(clock.now.get().saturating_sub(30)));
    Ok(())
}

fn shorter_than_empty(lab: &mut Lab, _: &Case, meter: &mut Meter<'_, Fake>) -> Result<(), Trouble> {
    while meter.more() {
        let start = lab.clock.start();
        meter.window(start, start.saturating_add(Ticks::new(READ - 1)));
    }
    Ok(())
}

fn matrix(lab: &mut Lab, _: &Case, meter: &mut Meter<'_, Fake>) -> Result<(), Trouble> {
    let mut probe = meter.probe::<32>(3);
    while probe.more() {
        let start = lab.clock.start();
        lab.clock.pass(40);
        probe.window(start, lab.clock.stop());
    }
    meter.absorb(&probe);
    let median = probe.median();
    // Wide enough to need several chunks.
    let ids: Vec<u32> = (0..100).map(|id| id * 300).collect();
    let head = MatrixHead {
        name: "median",
        unit: Unit::MilliTicks,
        row_axis: "source core",
        col_axis: "target core",
        rows: &ids,
        cols: &ids,
    };
    meter.matrix(&head, &mut |row, col| {
        if row == col { None } else { median.map(|m| m + (row * 1_000 + col) as u64) }
    });
    meter.metric("share", 812_345, Unit::Millionths);
    Ok(())
}

const TABLE: &[Bench<Lab>] = &[
    row("frame.alloc", by_order, seven_ticks),
    row("frame.break", one_case, breaks),
    row("frame.skip", one_case, skips),
    row("clock.back", one_case, turns_back),
    row("clock.clamp", one_case, shorter_than_empty),
    row("c2c.matrix", one_case, matrix),
    Bench { lanes: Lanes::NONE.with(Lane::Native), ..row("host.only", one_case, seven_ticks) },
];

fn run(lab: &mut Lab, line: &str) -> (Vec<Owned>, perf::record::Done) {
    let params = Params::parse(line).expect("a valid command line");
    let settings = Settings::new(&params, Timebase::new(Frequency::GIGAHERTZ));
    let mut records = Vec::new();
    let mut counts = vec![0; DEFAULT_COUNTS];
    let mut encoder = Encoder::new();
    let mut sink = |record: &Record<'_>| {
        encoder.encode(record).expect("every record of a run fits a frame");
        records.push(Owned::new(record));
    };
    let done = runner::run(TABLE, lab, &settings, &mut counts, &mut sink);
    (records, done)
}

fn the_case<'r>(records: &'r [Owned], id: &str) -> perf::record::CaseRow<'r> {
    let rows = records.iter().filter_map(|record| match record.get() {
        Record::Case(row) if row.id == id => Some(row),
        _ => None,
    });
    rows.reduce(|_, last| last).expect("the row was reported")
}

#[test]
fn the_table_is_sound() {
    check(TABLE, &Lab::new()).unwrap();
    let twice = [row("a.b", one_case, skips), row("a.b", one_case, skips)];
    assert_eq!(check(&twice, &Lab::new()).unwrap_err().to_string(), "a.b: two rows have this id");
    let same_key = [row("a.b", |_, out| (0..2).for_each(|_| out(Case::new(Placement::alone(HOME)))), skips)];
    assert_eq!(
        check(&same_key, &Lab::new()).unwrap_err().to_string(),
        "a.b: case 1 has the key of an earlier one"
    );
    for bad in ["A.b", "a..b", "", "a b"] {
        assert!(check(&[row(bad, one_case, skips)], &Lab::new()).is_err(), "{bad}");
    }
}

#[test]
fn overhead_is_subtracted_and_batches_divided() {
    let (records, done) = run(&mut Lab::new(), "mode=bench lane=tcg filter=alloc/order=3");
    assert_eq!((done.run, done.failed, done.skipped), (1, 0, 0));
    let row = the_case(&records, "frame.alloc");
    assert_eq!((row.status, row.reason, row.n, row.batch, row.warm_up), (Status::Ok, "", 1_500, 4, 150));
    assert_eq!((row.min, row.p50, row.max, row.mean), (Some(7_000), Some(7_000), Some(7_000), Some(7_000)));
    assert_eq!((row.p99.is_some(), row.p999), (true, None), "1,500 samples support no p99.9");
    assert_eq!(row.overhead.map(|overhead| overhead.min), Some(READ * 1_000));
    assert_eq!(
        (row.params, row.unit, row.version, row.lane),
        ("order=3,mem=local", Unit::MilliTicks, 2, Lane::Tcg)
    );
}

#[test]
fn the_unit_follows_the_lane() {
    let (records, _) = run(&mut Lab::new(), "mode=bench lane=native filter=host");
    let row = the_case(&records, "host.only");
    assert_eq!((row.unit, row.p50), (Unit::Picoseconds, Some(7_000)), "7 ticks at 1 GHz");
    let (records, _) = run(&mut Lab::new(), "mode=bench lane=icount filter=frame.alloc/order=0");
    assert_eq!(the_case(&records, "frame.alloc").unit, Unit::MilliInstructions);
}

#[test]
fn every_case_is_reported_with_its_status() {
    let mut lab = Lab::new();
    let (records, done) = run(&mut lab, "mode=bench lane=tcg samples=40");
    assert_eq!((done.run, done.failed, done.skipped), (6, 1, 2));
    assert_eq!(lab.ran, ["order=0,mem=local", "order=3,mem=local", "order=9,mem=local"]);
    assert!(matches!(records[0].get(), Record::SuiteStart(start) if start.cases == 8 && start.first == 0));
    let failed = the_case(&records, "frame.break");
    assert_eq!(
        (failed.status, failed.reason, failed.n, failed.max),
        (Status::Failed, "out of frames", 0, None)
    );
    let skipped = the_case(&records, "frame.skip");
    assert_eq!((skipped.status, skipped.reason), (Status::Skipped, "one node only"));
    let refused = the_case(&records, "clock.back");
    assert_eq!((refused.status, refused.reason), (Status::Refused, "the clock went backwards"));
    let clamped = the_case(&records, "clock.clamp");
    assert_eq!((clamped.status, clamped.clamped, clamped.max), (Status::Ok, 40, Some(0)));
}

#[test]
fn a_run_can_be_taken_up_again() {
    let mut lab = Lab::new();
    let (records, done) = run(&mut lab, "mode=bench lane=tcg samples=9 filter=alloc,break after=2");
    assert_eq!((lab.ran, done.run), (vec!["order=9,mem=local".to_owned()], 2));
    assert_eq!((the_case(&records, "frame.alloc").index, the_case(&records, "frame.break").index), (2, 3));
    let (records, done) = run(&mut Lab::new(), "mode=bench lane=tcg after=99");
    assert_eq!((records.len(), done.run + done.skipped), (1, 0));
}

#[test]
fn bad_clocks_are_refused() {
    let reason = |clock: Fake, line: &str| {
        let (records, done) = run(&mut Lab { clock, ran: Vec::new() }, line);
        assert_eq!((done.run, done.skipped), (0, 1));
        let row = the_case(&records, "frame.alloc");
        assert_eq!((row.status, row.n, row.p50), (Status::Refused, 0, None));
        row.reason.to_owned()
    };
    let line = "mode=bench lane=tcg filter=frame.alloc/order=0";
    assert_eq!(reason(Fake { step: 0, ..Fake::new() }, line), "the clock stands still");
    assert_eq!(reason(Fake { jitter: 200, ..Fake::new() }, line), "empty windows differ too much in length");
    let exact = "mode=bench lane=icount filter=frame.alloc/order=0";
    assert_eq!(reason(Fake { jitter: 1, ..Fake::new() }, exact), "empty windows differ too much in length");
}

#[test]
fn a_budget_ends_a_slow_case() {
    // 1,500 windows of 4 operations of 1 ms do not fit a quarter of a second.
    fn slow(lab: &mut Lab, _: &Case, meter: &mut Meter<'_, Fake>) -> Result<(), Trouble> {
        let clock = lab.clock;
        meter.ops(&mut (), |()| clock.pass(1_000_000));
        Ok(())
    }
    let params = Params::parse("mode=bench lane=tcg").unwrap();
    let settings = Settings::new(&params, Timebase::new(Frequency::GIGAHERTZ));
    let mut rows = Vec::new();
    let mut sink = |record: &Record<'_>| rows.push(Owned::new(record));
    let mut counts = vec![0; DEFAULT_COUNTS];
    runner::run(&[row("slow.one", one_case, slow)], &mut Lab::new(), &settings, &mut counts, &mut sink);
    let row = the_case(&rows, "slow.one");
    assert_eq!((row.status, row.reason), (Status::Ok, "the time budget ended the sampling"));
    assert!((16..=63).contains(&row.warm_up), "a quarter of the budget: {}", row.warm_up);
    assert!((40..=50).contains(&row.n), "the rest of the budget: {}", row.n);
}

#[test]
fn a_core_absorbs_what_others_measured() {
    let clock = Fake::new();
    let params = Params::parse("mode=bench lane=tcg samples=10").unwrap();
    let plan = Plan::new(&Settings::new(&params, Timebase::new(Frequency::GIGAHERTZ)), 1);
    let (mut here, mut there) = (vec![0; DEFAULT_COUNTS], vec![0; DEFAULT_COUNTS]);
    let mut first = Meter::new(clock, plan, &mut here).unwrap();
    let mut second = Meter::new(clock, first.plan(), &mut there).unwrap();
    first.ops(&mut (), |()| clock.pass(5));
    second.ops(&mut (), |()| clock.pass(50));
    first.tally().absorb(&second.close().0);
    let (tally, _) = first.close();
    assert_eq!((tally.hist().len(), tally.hist().min(), tally.hist().max()), (20, Some(5_000), Some(50_000)));
}

#[test]
fn chunks_come_together_again() {
    let (records, _) = run(&mut Lab::new(), "mode=bench lane=tcg samples=50 filter=matrix");
    let (mut hists, mut matrices) = (HistAssembly::default(), MatrixAssembly::default());
    let (mut hist, mut matrix, mut chunks, mut metric): (_, Option<Matrix>, _, _) = (None, None, 0, None);
    for record in &records {
        match record.get() {
            Record::Hist(chunk) => hist = Some(hists.add(&chunk)),
            Record::Matrix(chunk) => {
                chunks += 1;
                if let Chunking::Complete(whole) = matrices.add(&chunk) {
                    matrix = Some(whole);
                }
            }
            Record::Metric(figure) => metric = Some((figure.name.to_owned(), figure.value)),
            _ => {}
        }
    }
    let Some(Chunking::Complete(hist)) = hist else { panic!("the histogram is incomplete") };
    // 40 ticks in a window of 4 operations.
    let ranges: Vec<_> = hist.ranges().collect();
    assert!(matches!(ranges[..], [(low, high, 32)] if (low..=high).contains(&10_000)), "{ranges:?}");
    let matrix = matrix.expect("the matrix is complete");
    assert!(chunks > 3, "{chunks}");
    assert_eq!((matrix.rows[99], matrix.cols.len(), matrix.cells.len()), (29_700, 100, 10_000));
    assert_eq!((matrix.cell(5, 5), matrix.cell(7, 9), matrix.cell(7, 100)), (None, Some(17_009), None));
    assert_eq!(metric, Some(("share".to_owned(), 812_345)));
}

/// Whether any order or selection of chunks makes a complete thing, tried without each chunk and with each two swapped.
fn damage_goes_unnoticed(chunks: &[Owned], complete: &mut dyn FnMut(&[Owned]) -> bool) -> bool {
    assert!(chunks.len() > 2 && complete(chunks));
    let without = (0..chunks.len()).any(|place| {
        let mut fewer = chunks.to_vec();
        fewer.remove(place);
        complete(&fewer)
    });
    let swapped = (1..chunks.len()).any(|place| {
        let mut other = chunks.to_vec();
        other.swap(place - 1, place);
        complete(&other)
    });
    without || swapped
}

#[test]
fn missing_chunks_of_a_matrix_are_noticed() {
    let (mut records, _) = run(&mut Lab::new(), "mode=bench lane=tcg samples=50 filter=matrix");
    records.retain(|record| matches!(record.get(), Record::Matrix(_)));
    let mut complete = |chunks: &[Owned]| {
        let mut assembly = MatrixAssembly::default();
        chunks.iter().any(|record| {
            let Record::Matrix(chunk) = record.get() else { return false };
            matches!(assembly.add(&chunk), Chunking::Complete(_))
        })
    };
    assert!(!damage_goes_unnoticed(&records, &mut complete));
}

#[test]
fn missing_chunks_of_a_histogram_are_noticed() {
    fn spread(_: &mut Lab, _: &Case, meter: &mut Meter<'_, Fake>) -> Result<(), Trouble> {
        (0..5_000).for_each(|value| meter.value(value * 1_000));
        Ok(())
    }
    let params = Params::parse("mode=bench lane=tcg").expect("a valid command line");
    let settings = Settings::new(&params, Timebase::new(Frequency::GIGAHERTZ));
    let (mut records, mut counts) = (Vec::new(), vec![0; DEFAULT_COUNTS]);
    let mut sink = |record: &Record<'_>| {
        if let Record::Hist(_) = record {
            records.push(Owned::new(record));
        }
    };
    runner::run(&[row("wide.one", one_case, spread)], &mut Lab::new(), &settings, &mut counts, &mut sink);
    let mut complete = |chunks: &[Owned]| {
        let mut assembly = HistAssembly::default();
        chunks.iter().any(|record| {
            let Record::Hist(chunk) = record.get() else { return false };
            matches!(assembly.add(&chunk), Chunking::Complete(_))
        })
    };
    assert!(!damage_goes_unnoticed(&records, &mut complete));
    // A count that was changed on the way, under a check sum that was changed to fit.
    let Record::Hist(first) = records[0].get() else { panic!("a histogram chunk") };
    let mut pairs = first.pairs.to_vec();
    pairs[1] += 1;
    let mut forged = records.clone();
    forged[0] = Owned::new(&Record::Hist(perf::record::HistChunk { pairs: &pairs, ..first }));
    assert!(!complete(&forged));
}
