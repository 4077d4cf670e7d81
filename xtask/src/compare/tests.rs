//! The subcommand from directory to exit code.

use super::schema::{BaselineFile, Finding, Measure, Noise, NoiseFile, Verdict};
use super::side::Side;
use super::testing::{row, run, side};
use super::{Base, compare, gate, pretty, render};
use crate::calibrate::Known;
use crate::error::Class;
use crate::results::schema::{CaseRow, CaseStatus, RunStatus};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn medians(id: &str, p50: u64) -> Vec<CaseRow> {
    (0..8).map(|boot| row(id, boot, p50 + u64::from(boot))).collect()
}

fn of(p50: u64) -> Side {
    side(vec![run("r", "tcg", 8, medians("a", p50))])
}

fn class(base: Side, new: &Side) -> Option<Class> {
    super::runs(base, new).and_then(|found| gate(&found)).err().map(|error| error.class())
}

#[test]
fn the_gate_passes_the_good_and_refuses_the_bad() {
    assert_eq!(class(of(100_000), &of(100_000)), None);
    assert_eq!(class(of(100_000), &of(90_000)), None);
    assert_eq!(class(of(100_000), &of(110_000)), Some(Class::Regressed));
    let mut rows = medians("a", 100_000);
    rows[3].status = CaseStatus::Failed;
    assert_eq!(class(of(100_000), &side(vec![run("r", "tcg", 8, rows)])), Some(Class::Regressed));
    assert_eq!(class(of(100_000), &side(vec![run("r", "tcg", 8, medians("b", 1))])), Some(Class::Regressed));
    let two = |p50| side(vec![run("r", "tcg", 2, medians("a", p50).into_iter().take(2).collect())]);
    assert_eq!(class(two(100_000), &two(300_000)), Some(Class::Unusable));
}

/// Planted: the machine left out of what is compared.
#[test]
fn different_surroundings_are_refused_with_the_way_out() {
    let refused = |change: &dyn Fn(&mut crate::results::reader::Run)| {
        let mut other = run("r", "tcg", 8, medians("a", 1));
        change(&mut other);
        let error = super::runs(of(1), &side(vec![other])).unwrap_err();
        assert_eq!(error.class(), Class::Unusable);
        error.to_string()
    };
    assert!(refused(&|other| other.run.lane = "kvm".to_owned()).contains("--lane tcg"));
    assert!(refused(&|other| other.run.machine = "qemu-q35-1c1n".to_owned()).contains("--smp"));
    assert!(refused(&|other| other.run.profile = "full".to_owned()).contains("--profile quick"));
    assert!(refused(&|other| other.run.samples = Some(7)).contains("--samples"));
    assert!(refused(&|other| other.env.host.cpu = "Z80".to_owned()).contains("xtask ab"));
    let mixed = vec![run("r", "tcg", 1, Vec::new()), run("s", "icount", 1, Vec::new())];
    assert!(Side::of(mixed).unwrap_err().to_string().contains("lanes"));
    let twice = vec![run("r", "tcg", 1, Vec::new()), run("r", "tcg", 1, Vec::new())];
    assert!(Side::of(twice).unwrap_err().to_string().contains("twice"));
    let mut partial = run("r", "tcg", 1, Vec::new());
    partial.run.status = RunStatus::Partial;
    assert!(Side::of(vec![partial]).unwrap_err().to_string().contains("partial"));
}

#[test]
fn boots_of_several_runs_are_put_together() {
    let runs = |p50: u64| {
        let one = |boot: u32| run(&format!("r{boot}"), "tcg", 1, vec![row("a", 0, p50 + u64::from(boot))]);
        side((0..8).map(one).collect())
    };
    let found = super::runs(runs(100_000), &runs(110_000)).unwrap();
    assert_eq!((found.base.boots, found.base.runs.len()), (8, 8));
    assert_eq!(found.cases[0].verdict, Verdict::Regressed);
}

fn counted(boots: u32, p50: u64) -> Side {
    let rows = (0..boots)
        .map(|boot| CaseRow { unit: Some("milliinstructions".to_owned()), ..row("ipc.rt", boot, p50) });
    side(vec![run("r", "icount", boots, rows.collect())])
}

fn committed(p50: u64) -> BaselineFile {
    super::exact::bless(&counted(2, p50)).unwrap()
}

/// Planted: the gate lets exact boots that differ pass; it takes one boot.
#[test]
fn the_instruction_gate_names_case_and_difference() {
    let judged = |new: &Side| {
        let base = Base::Committed(PathBuf::from("b.json"), Box::new(committed(210_000)));
        compare(&base, new).and_then(|found| gate(&found))
    };
    assert!(judged(&counted(2, 214_000)).is_ok());
    let refused = judged(&counted(2, 218_000)).unwrap_err();
    assert_eq!(refused.class(), Class::Regressed);
    let text = refused.to_string();
    assert!(
        text.contains("ipc.rt") && text.contains("+8.00 instructions") && text.contains("--bless"),
        "{text}"
    );
    assert_eq!(judged(&counted(1, 210_000)).unwrap_err().class(), Class::Unusable);
    let mut differing = counted(2, 210_000);
    differing.series.get_mut("ipc.rt").unwrap().rows[1].max = Some(1);
    assert_eq!(judged(&differing).unwrap_err().class(), Class::Regressed);
}

#[test]
fn what_is_shown_says_what_was_found() {
    let mut rows = medians("a", 110_000);
    rows.extend(medians("b|c", 50_000));
    let mut base = medians("a", 100_000);
    base.extend(medians("b|c", 70_000));
    let (base, new) = (side(vec![run("r", "tcg", 8, base)]), side(vec![run("s", "tcg", 8, rows)]));
    let found = super::runs(base, &new).unwrap();
    let text = render::text(&found, false);
    let line = text.lines().find(|line| line.starts_with("REGRESSED")).unwrap();
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(&cells[1..8], ["a", "p50", "ticks", "100.0", "110.0", "1.100", "1.100–1.100"]);
    assert!(text.ends_with("1 regressed, 1 improved\n"), "{text}");
    let markdown = render::markdown(&found);
    assert!(markdown.contains("| `b\\|c` |") && markdown.starts_with("**1 regressed, 1 improved**"));
    let json = pretty(&found).unwrap();
    assert_eq!(serde_json::from_str::<super::CompareFile>(&json).unwrap().cases.len(), 2);
}

/// Planted: nothing is said where noise is known.
#[test]
fn what_the_machine_s_own_noise_did_is_said() {
    let new = of(100_000);
    let mut cases = super::runs(of(100_000), &new).unwrap().cases;
    let says = |known: &Known, cases: &[Finding]| super::noise_remark(known, &new.identity, cases);
    assert!(
        says(&Known::Nowhere, &cases).contains("not known; measure it: `cargo xtask calibrate --lane tcg`")
    );
    assert!(says(&Known::Elsewhere("x.json".into()), &cases).contains("x.json is that of another host"));
    let file = NoiseFile {
        schema: super::VERSION,
        lane: "tcg".to_owned(),
        machine: String::new(),
        profile: String::new(),
        host: String::new(),
        runs: Vec::new(),
        commits: Vec::new(),
        cases: BTreeMap::from([(
            "a".to_owned(),
            BTreeMap::from([(Measure::P50, Noise { boots: 8, sigma: 0.1, drift: 0.0 })]),
        )]),
    };
    let here = Known::Here("x.json".into(), Box::new(file));
    assert!(
        says(&here, &cases).ends_with("(x.json) raises the bound of 0 of 1 figures"),
        "{}",
        says(&here, &cases)
    );
    cases[0].test.as_mut().unwrap().threshold = 1.09;
    let other = Finding { id: "b".to_owned(), ..cases[0].clone() };
    cases.push(other);
    let text = says(&here, &cases);
    assert!(text.ends_with("raises the bound of 1 of 1 figures; of 1 figures it is not known"), "{text}");
}

#[test]
fn sides_that_were_not_measured_in_turn_are_told() {
    let at = |starts: &[&str]| {
        let runs = starts.iter().map(|start| {
            let mut run = run(start, "tcg", 1, Vec::new());
            run.run.started = (*start).to_owned();
            run
        });
        side(runs.collect())
    };
    let told = |base: &[&str], new: &[&str]| super::turns_remark(&at(base), &at(new)).is_some();
    assert!(told(&["1", "2"], &["3", "4"]) && told(&["3", "4"], &["1", "2"]));
    assert!(!told(&["1", "4"], &["2", "3"]) && !told(&["1", "3"], &["2", "4"]));
}
