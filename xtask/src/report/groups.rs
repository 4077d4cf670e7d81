//! Sorts the rows of a run: into benchmarks, scaling curves, and comparisons with peers.

use crate::compare;
use crate::report::page::Shown;
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, CaseStatus, Direction};
use std::collections::BTreeMap;

/// Parameters that say how many cores are at work.
const WIDTHS: [&str; 2] = ["cores", "threads"];
/// The parameter that names somebody else's implementation; our own rows do not have it.
const PEER: &str = "peer";
/// The metric of a peer's row that is our median of the windows in between its own: closer in time than our own row.
const BESIDE: &str = "nearfield.p50";

/// One benchmark over the sides of a page.
#[derive(Debug)]
pub(super) struct Bench<'r> {
    /// Name of the benchmark.
    pub(super) name: &'r str,
    /// Its cases, in the order they were measured.
    pub(super) cases: Vec<Case<'r>>,
}

/// One case over the sides of a page.
#[derive(Debug)]
pub(super) struct Case<'r> {
    /// Key of the case.
    pub(super) id: &'r str,
    /// Its boots by side; none where a side lacks the case.
    pub(super) boots: Vec<Vec<Boot<'r>>>,
}

/// A row, and the run that has its files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Boot<'r> {
    /// The run.
    pub(super) run: &'r Run,
    /// The row.
    pub(super) row: &'r CaseRow,
}

impl<'r> Case<'r> {
    /// What tells it apart inside its benchmark.
    pub(super) fn label(&self) -> &'r str {
        self.id.split_once('/').map_or(self.id, |(_, params)| params)
    }

    /// Unit of its percentiles.
    pub(super) fn unit(&self) -> &'r str {
        self.boots.iter().flatten().find_map(|boot| boot.row.unit.as_deref()).unwrap_or_default()
    }

    /// The medians of the boots of a side, in their order.
    pub(super) fn medians(&self, side: usize) -> Vec<u64> {
        self.boots[side].iter().filter_map(|boot| good(boot.row)).collect()
    }

    /// The median of the medians of a side.
    pub(super) fn figure(&self, side: usize) -> Option<u64> {
        let medians = self.medians(side);
        (!medians.is_empty()).then(|| compare::middle(&medians))
    }

    /// The logarithm of the ratio of one side to another, where both have a figure.
    pub(super) fn change(&self, from: usize, to: usize) -> Option<f64> {
        let (from, to) = (self.figure(from)?, self.figure(to)?);
        (from > 0 && to > 0).then(|| (float(to) / float(from)).ln())
    }

    /// The boot of a side whose median is in the middle; the first one, if none has a median.
    pub(super) fn typical(&self, side: usize) -> Option<Boot<'r>> {
        let middle = self.figure(side);
        let boots = &self.boots[side];
        boots.iter().find(|boot| middle.is_some() && good(boot.row) == middle).or(boots.first()).copied()
    }
}

/// The figure of a row that is good.
fn good(row: &CaseRow) -> Option<u64> {
    row.typical().filter(|_| row.status == CaseStatus::Ok)
}

/// The benchmarks of the sides of a page, in the order of first appearance.
pub(super) fn benches(sides: &[Shown]) -> Vec<Bench<'_>> {
    let mut benches: Vec<Bench<'_>> = Vec::new();
    for (place, side) in sides.iter().enumerate() {
        let rows = side.runs.iter().flat_map(|run| run.rows.iter().map(move |row| Boot { run, row }));
        for boot in rows {
            let bench = position(
                &mut benches,
                |bench| bench.name == boot.row.name,
                || Bench { name: &boot.row.name, cases: Vec::new() },
            );
            let case = position(
                &mut bench.cases,
                |case| case.id == boot.row.id,
                || Case { id: &boot.row.id, boots: vec![Vec::new(); sides.len()] },
            );
            case.boots[place].push(boot);
        }
    }
    benches
}

/// The element that fits, added at the end if there is none.
fn position<T>(list: &mut Vec<T>, fits: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> &mut T {
    let found = list.iter().position(fits).unwrap_or(list.len());
    if found == list.len() {
        list.push(make());
    }
    &mut list[found]
}

/// Cases that differ only in the number of cores.
#[derive(Debug, PartialEq)]
pub(super) struct Scaling {
    /// Their common parameters.
    pub(super) name: String,
    /// Cores, median, and speed-up against the fewest cores, ascending by cores.
    pub(super) points: Vec<Point>,
}

/// One point of a scaling curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    /// Cores at work.
    pub(super) cores: u32,
    /// Median of an operation on one of them.
    pub(super) p50: u64,
    /// Operations per time of all cores together, against the fewest cores; ideal is the number of cores.
    pub(super) speedup: f64,
}

/// The scaling curves of one side of a benchmark: where less time is better and at least two core counts were measured.
pub(super) fn scaling(bench: &Bench<'_>, side: usize) -> Vec<Scaling> {
    let mut curves: BTreeMap<String, BTreeMap<u32, u64>> = BTreeMap::new();
    for case in &bench.cases {
        let Some(Boot { row, .. }) = case.typical(side).filter(|boot| is_time(boot.row)) else { continue };
        let Some((width, cores)) = WIDTHS.iter().find_map(|&width| {
            Some((width, row.params.get(width)?.parse().ok().filter(|&cores: &u32| cores > 0)?))
        }) else {
            continue;
        };
        let Some(p50) = row.p50.and(case.figure(side)).filter(|&p50| p50 > 0) else { continue };
        curves.entry(without(row, width)).or_default().insert(cores, p50);
    }
    let many = curves.into_iter().filter(|(_, points)| points.len() > 1);
    many.map(|(name, points)| Scaling { name, points: relative(&points) }).collect()
}

fn relative(points: &BTreeMap<u32, u64>) -> Vec<Point> {
    let Some((&fewest, &base)) = points.first_key_value() else { return Vec::new() };
    let speedup = |cores: u32, p50| float(base) / float(p50) * f64::from(cores) / f64::from(fewest);
    points.iter().map(|(&cores, &p50)| Point { cores, p50, speedup: speedup(cores, p50) }).collect()
}

fn is_time(row: &CaseRow) -> bool {
    let time = matches!(row.unit.as_deref(), Some("milliticks" | "milliinstructions" | "ps"));
    row.status == CaseStatus::Ok && time && row.direction == Some(Direction::Smaller)
}

/// The parameters of a row but for one; the name of the benchmark if there is no other.
fn without(row: &CaseRow, name: &str) -> String {
    let rest: Vec<String> = row
        .params
        .iter()
        .filter(|(key, _)| key.as_str() != name)
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if rest.is_empty() { row.name.clone() } else { rest.join(",") }
}

/// One case measured with several implementations.
#[derive(Debug, PartialEq)]
pub(super) struct Comparison<'r> {
    /// Key of our case.
    pub(super) name: String,
    /// Our row.
    pub(super) ours: &'r CaseRow,
    /// The others by implementation.
    pub(super) peers: BTreeMap<&'r str, Ratio<'r>>,
}

/// A peer's row.
#[derive(Debug, PartialEq)]
pub(super) struct Ratio<'r> {
    /// The row.
    pub(super) row: &'r CaseRow,
    /// How many times better ours is, whichever way is better; absent where a figure is missing or zero.
    pub(super) times: Option<f64>,
}

/// Every case that was also measured with a peer.
pub(super) fn comparisons(rows: &[CaseRow]) -> Vec<Comparison<'_>> {
    let mut found = Vec::new();
    for ours in rows.iter().filter(|row| !row.params.contains_key(PEER)) {
        let peers: BTreeMap<&str, Ratio<'_>> = rows
            .iter()
            .filter(|row| row.name == ours.name && row.repeat == ours.repeat)
            .filter_map(|row| Some((row.params.get(PEER)?.as_str(), row)))
            .filter(|(_, row)| without(row, PEER) == without(ours, PEER))
            .map(|(name, row)| (name, Ratio { row, times: times(row, ours) }))
            .collect();
        if !peers.is_empty() {
            found.push(Comparison { name: ours.id.clone(), ours, peers });
        }
    }
    found
}

fn times(peer: &CaseRow, ours: &CaseRow) -> Option<f64> {
    let beside =
        peer.metrics.iter().find(|metric| metric.name == BESIDE && Some(&metric.unit) == peer.unit.as_ref());
    let ours_here = beside.map(|metric| metric.value).or(ours.typical()).filter(|&figure| figure > 0)?;
    let (theirs, ours_here) = (float(peer.typical().filter(|&figure| figure > 0)?), float(ours_here));
    match ours.direction? {
        Direction::Smaller => Some(theirs / ours_here),
        Direction::Greater => Some(ours_here / theirs),
        Direction::Neutral => None,
    }
}

/// A count as a floating-point number; what is lost beyond 2^53 does not show in a chart.
#[expect(clippy::cast_precision_loss, reason = "charts and ratios need no more than 53 bits")]
#[must_use]
pub fn float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::{benches, comparisons, scaling};
    use crate::compare::testing::run;
    use crate::report::page::Shown;
    use crate::results::schema::{CaseRow, Direction, Metric};
    use crate::results::testing;

    fn row(id: &str, p50: u64) -> CaseRow {
        CaseRow { p50: Some(p50), n: 100, ..testing::row(id) }
    }

    fn side(label: &str, boots: u32, rows: Vec<CaseRow>) -> Shown {
        Shown { label: label.to_owned(), runs: vec![run(label, "tcg", boots, rows)] }
    }

    #[test]
    fn rows_group_in_order() {
        let base = side("base", 1, vec![row("b/x=1", 1), row("a/x=1", 1)]);
        let new = side("new", 1, vec![row("a/x=1", 1), row("c", 1), row("b/x=2", 1)]);
        let sides = [base, new];
        let found = benches(&sides);
        let names: Vec<(&str, usize)> = found.iter().map(|bench| (bench.name, bench.cases.len())).collect();
        assert_eq!(names, [("b", 2), ("a", 1), ("c", 1)]);
        let has = |bench: usize, case: usize| {
            found[bench].cases[case].boots.iter().map(Vec::len).collect::<Vec<_>>()
        };
        assert_eq!((has(0, 0), has(0, 1), has(1, 0)), (vec![1, 0], vec![0, 1], vec![1, 1]));
    }

    #[test]
    fn the_typical_boot_is_the_one_in_the_middle() {
        let rows = [300, 100, 200].map(|p50| row("a/x=1", p50)).to_vec();
        let mut failed = row("a/x=1", 1);
        failed.status = crate::results::schema::CaseStatus::Failed;
        let sides = [side("r", 4, rows.into_iter().chain([failed]).collect())];
        let found = benches(&sides);
        let case = &found[0].cases[0];
        assert_eq!((case.medians(0), case.figure(0)), (vec![300, 100, 200], Some(200)));
        assert_eq!(case.typical(0).unwrap().row.p50, Some(200));
    }

    #[test]
    fn speedup_is_relative_to_the_fewest_cores() {
        let rows = vec![
            row("a/cores=4,order=0", 200),
            row("a/cores=1,order=0", 100),
            row("a/cores=2,order=0", 100),
            row("a/cores=1,order=3", 7),
        ];
        let sides = [side("r", 1, rows)];
        let curves = scaling(&benches(&sides)[0], 0);
        assert_eq!((curves.len(), curves[0].name.as_str()), (1, "order=0"));
        let points: Vec<(u32, f64)> =
            curves[0].points.iter().map(|point| (point.cores, point.speedup)).collect();
        assert_eq!(points, [(1, 1.0), (2, 2.0), (4, 2.0)]);
    }

    #[test]
    fn peers_are_matched_by_their_other_parameters() {
        let rows = [
            row("a/order=0", 10),
            row("a/order=0,peer=other", 25),
            row("a/order=3,peer=other", 99),
            row("b/order=0,peer=other", 99),
        ];
        let found = comparisons(&rows);
        assert_eq!((found.len(), found[0].peers.len(), found[0].name.as_str()), (1, 1, "a/order=0"));
        assert_eq!(found[0].peers["other"].times, Some(2.5));
    }

    #[test]
    fn a_ratio_prefers_the_same_windows_and_knows_the_direction() {
        let mut rows = [row("a/order=0", 10), row("a/order=0,peer=other", 25)];
        let beside = Metric { name: "nearfield.p50".to_owned(), value: 5, unit: "milliticks".to_owned() };
        rows[1].metrics.push(beside);
        assert_eq!(comparisons(&rows)[0].peers["other"].times, Some(5.0));
        rows[0].direction = Some(Direction::Greater);
        assert_eq!(comparisons(&rows)[0].peers["other"].times, Some(0.2));
    }
}
