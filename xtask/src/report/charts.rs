//! The data behind the charts, as JSON inside the page.
//!
//! Curves share one grid of x = 1 / (1 - percentile), so that the series of a chart line up. A curve ends where fewer than
//! ten samples lie beyond: further out it would show chance.

use crate::error::Result;
use crate::report::groups::{self, Group, float};
use crate::results::reader::Run;
use crate::results::schema::{CaseRow, MatrixRef};
use crate::results::units;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Steps of the grid for each doubling of x.
const STEPS: i32 = 4;
/// Doublings of the grid: 2^20, as far as ten million samples reach.
const DOUBLINGS: i32 = 20;
/// Samples that must lie beyond a point of a curve.
const BEYOND: f64 = 10.0;

/// The charts of every benchmark, by position.
pub(super) fn data(run: &Run) -> Result<Value> {
    let nodes: BTreeMap<u32, u32> = run
        .env
        .target
        .iter()
        .flat_map(|target| target.cores.iter().map(|core| (core.id, core.node)))
        .collect();
    let groups: Result<Vec<Value>> =
        groups::groups(&run.rows).iter().map(|group| self::group(run, group, &nodes)).collect();
    Ok(json!({ "groups": groups? }))
}

fn group(run: &Run, group: &Group<'_>, nodes: &BTreeMap<u32, u32>) -> Result<Value> {
    let unit = group.rows.iter().find_map(|row| row.unit.as_deref()).unwrap_or_default();
    let mut series = Vec::new();
    let mut matrices = Vec::new();
    for row in &group.rows {
        if let Some(reference) = &row.hist {
            let curve = curve(&run.histogram(reference)?, units::scale(unit));
            series.push(json!({ "name": label(row, run), "y": curve }));
        }
        for reference in &row.matrices {
            matrices.push(matrix(run, row, reference, nodes)?);
        }
    }
    let longest = series.iter().filter_map(|one| one["y"].as_array().map(Vec::len)).max().unwrap_or(0);
    let x: Vec<f64> = grid().take(longest).map(round).collect();
    let scaling: Vec<Value> = groups::scaling(group)
        .iter()
        .map(|curve| {
            let points: Vec<Value> =
                curve.points.iter().map(|point| json!([point.cores, round(point.speedup)])).collect();
            json!({ "name": curve.name, "points": points })
        })
        .collect();
    let unit = units::label(unit);
    Ok(
        json!({ "name": group.name, "unit": unit, "x": x, "series": series, "scaling": scaling, "matrices": matrices }),
    )
}

/// The parameters of a row, which are what tells it apart inside its benchmark.
pub(super) fn label(row: &CaseRow, run: &Run) -> String {
    let params = row.id.split_once('/').map_or(row.id.as_str(), |(_, params)| params);
    if run.run.repeats > 1 { format!("{params} (boot {})", row.repeat + 1) } else { params.to_owned() }
}

fn grid() -> impl Iterator<Item = f64> {
    (0..=STEPS * DOUBLINGS).map(|step| (f64::from(step) / f64::from(STEPS)).exp2())
}

fn curve(histogram: &Histogram<u64>, scale: u64) -> Vec<f64> {
    let supported = float(histogram.len()) / BEYOND;
    grid()
        .take_while(|&x| x <= supported)
        .map(|x| round(float(histogram.value_at_quantile(1.0 - 1.0 / x)) / float(scale)))
        .collect()
}

/// Five significant digits: the histogram has three.
fn round(value: f64) -> f64 {
    if value == 0.0 {
        return value;
    }
    let digits = 10_f64.powf((4.0 - value.abs().log10().floor()).clamp(-15.0, 15.0));
    (value * digits).round() / digits
}

fn matrix(run: &Run, row: &CaseRow, reference: &MatrixRef, nodes: &BTreeMap<u32, u32>) -> Result<Value> {
    let table = sorted(run.matrix(&reference.file)?, reference, nodes);
    let scale = float(units::scale(&reference.unit));
    let cells: Vec<Value> =
        table.iter().skip(1).flat_map(|line| line.iter().skip(1)).map(|cell| value(cell, scale)).collect();
    let cols: Vec<&String> = table[0].iter().skip(1).collect();
    let rows: Vec<&String> = table.iter().skip(1).map(|line| &line[0]).collect();
    let of = |axis: &str, labels: &[&String]| -> Vec<Value> {
        labels.iter().map(|label| node_of(axis, label, nodes).map_or(Value::Null, Value::from)).collect()
    };
    Ok(json!({
        "name": format!("{} — {}", label(row, run), reference.name),
        "unit": units::label(&reference.unit),
        "rowAxis": reference.row_axis,
        "colAxis": reference.col_axis,
        "rowNodes": of(&reference.row_axis, &rows),
        "colNodes": of(&reference.col_axis, &cols),
        "rows": rows,
        "cols": cols,
        "cells": cells,
    }))
}

fn value(cell: &str, scale: f64) -> Value {
    cell.parse::<f64>().map_or(Value::Null, |number| json!(round(number / scale)))
}

fn node_of(axis: &str, label: &str, nodes: &BTreeMap<u32, u32>) -> Option<u32> {
    let id: u32 = label.parse().ok()?;
    if axis.contains("node") { Some(id) } else { nodes.get(&id).copied() }
}

/// A matrix file with its rows and columns in the order of their nodes.
pub(super) fn sorted(
    table: Vec<Vec<String>>,
    reference: &MatrixRef,
    nodes: &BTreeMap<u32, u32>,
) -> Vec<Vec<String>> {
    let key = |axis: &str, label: &str| (node_of(axis, label, nodes), label.parse::<u64>().ok());
    let mut lines = table;
    let Some(head) = lines.first().cloned() else { return lines };
    let mut order: Vec<usize> = (1..head.len()).collect();
    order.sort_by_key(|&col| key(&reference.col_axis, &head[col]));
    lines[1..].sort_by_key(|line| key(&reference.row_axis, &line[0]));
    let pick = |line: &Vec<String>| {
        std::iter::once(line[0].clone()).chain(order.iter().map(|&col| line[col].clone())).collect()
    };
    lines.iter().map(pick).collect()
}

/// JSON that can stand inside a script element: nothing in it can end the element or begin a comment (H1).
pub(super) fn embed(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::{curve, embed, grid, round, sorted};
    use crate::results::hlog::Sparse;
    use crate::results::schema::MatrixRef;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn a_curve_ends_with_ten_samples_beyond() {
        let hist = Sparse { digits: 3, counts: (1..=1000).map(|value| (value, 1)).collect() };
        let curve = curve(&hist.histogram().unwrap(), 1);
        let last = grid().nth(curve.len() - 1).unwrap();
        assert!(last <= 100.0 && last * 2_f64.powf(0.25) > 100.0);
        assert_eq!(curve[4], 500.0);
        assert!(curve.is_sorted());
    }

    #[test]
    fn five_digits_remain() {
        assert_eq!((round(123_456.7), round(0.001_234_567), round(0.0)), (123_460.0, 0.001_234_6, 0.0));
    }

    #[test]
    fn embedded_text_cannot_leave_its_script() {
        let text = embed(&json!({ "a": "</script><!--&" }));
        assert!(!text.contains(['<', '>', '&']));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["a"], "</script><!--&");
    }

    #[test]
    fn matrices_are_sorted_by_node() {
        let reference = MatrixRef {
            name: "m".to_owned(),
            unit: "ps".to_owned(),
            row_axis: "source core".to_owned(),
            col_axis: "target core".to_owned(),
            file: String::new(),
        };
        let nodes = BTreeMap::from([(0, 0), (1, 1), (2, 0)]);
        let line = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
        let table =
            vec![line(&["", "0", "1", "2"]), line(&["1", "10", "11", "12"]), line(&["2", "20", "21", "22"])];
        let sorted = sorted(table, &reference, &nodes);
        assert_eq!(sorted[0], ["", "0", "2", "1"]);
        assert_eq!(sorted[1], ["2", "20", "22", "21"]);
        assert_eq!(sorted[2], ["1", "10", "12", "11"]);
    }
}
