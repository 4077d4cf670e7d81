//! The data behind the charts, as JSON inside the page.
//!
//! Curves share one grid of x = 1 / (1 - percentile), so that the series of a chart line up. A curve ends where fewer than
//! ten samples lie beyond: further out it would show chance.

use crate::error::Result;
use crate::history::SeriesFile;
use crate::report::groups::{self, Bench, Boot, Case, float};
use crate::report::html::escape;
use crate::report::matrices::Grid;
use crate::report::page::{Detail, Page};
use crate::results::units;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Steps of the grid for each doubling of x.
const STEPS: i32 = 4;
/// Doublings of the grid: 2^20, as far as ten million samples reach.
const DOUBLINGS: i32 = 20;
/// Samples that must lie beyond a point of a curve.
const BEYOND: f64 = 10.0;

/// The charts of a page, in the order in which they are drawn.
#[derive(Debug, Default)]
pub(super) struct Charts(Vec<Value>);

impl Charts {
    /// Adds one, and gives its number.
    fn add(&mut self, chart: Value) -> usize {
        self.0.push(chart);
        self.0.len() - 1
    }

    /// All of them.
    pub(super) fn json(&self) -> Value {
        json!({ "charts": self.0 })
    }

    /// The percentile curves of a benchmark: all cases in one chart where one side is shown, otherwise a chart for each case.
    pub(super) fn curves(&mut self, page: &Page, bench: &Bench<'_>, detail: Detail) -> Result<Vec<String>> {
        if detail == Detail::Tables {
            return Ok(Vec::new());
        }
        if !page.alone() {
            return bench
                .cases
                .iter()
                .filter_map(|case| self.panel(page, case, detail).transpose())
                .collect();
        }
        let mut series = Vec::new();
        for (place, case) in bench.cases.iter().enumerate() {
            let strands = strands(case, 0, detail)?;
            if !strands.is_empty() {
                series.push(json!({ "name": case.label(), "colour": place, "strands": strands }));
            }
        }
        let unit = bench.cases.first().map_or("", Case::unit);
        let title = if page.boots() && detail == Detail::Boots {
            "Percentiles, a line for each boot"
        } else {
            "Percentiles"
        };
        let chart = self.chart(title, unit, "curves", series);
        Ok(chart.into_iter().collect())
    }

    /// The curves of all sides of one case.
    fn panel(&mut self, page: &Page, case: &Case<'_>, detail: Detail) -> Result<Option<String>> {
        let mut series = Vec::new();
        for (place, side) in page.sides.iter().enumerate() {
            let strands = strands(case, place, detail)?;
            if !strands.is_empty() {
                series.push(json!({ "name": side.label, "colour": place, "strands": strands }));
            }
        }
        Ok(self.chart(case.label(), case.unit(), "panel", series))
    }

    fn chart(&mut self, title: &str, unit: &str, kind: &str, series: Vec<Value>) -> Option<String> {
        let length = |one: &Value| {
            let strands = one["strands"].as_array().map(Vec::as_slice).unwrap_or_default();
            strands.iter().filter_map(|strand| strand.as_array().map(Vec::len)).max().unwrap_or(0)
        };
        let longest = series.iter().map(length).max().filter(|&longest| longest > 0)?;
        let x: Vec<f64> = grid().take(longest).map(round).collect();
        let unit = units::label(unit);
        let id = self.add(json!({ "kind": kind, "title": title, "unit": unit, "x": x, "series": series }));
        Some(holder(id, kind))
    }

    /// The scaling curves of a benchmark.
    pub(super) fn scaling(&mut self, page: &Page, curves: &[(usize, groups::Scaling)]) -> String {
        let point = |point: &groups::Point| json!([point.cores, round(point.speedup)]);
        let series: Vec<Value> = curves
            .iter()
            .enumerate()
            .map(|(place, (side, curve))| {
                let points: Vec<Value> = curve.points.iter().map(point).collect();
                let name = named(page, *side, &curve.name);
                let colour = if page.alone() { place } else { *side };
                json!({ "name": name, "colour": colour, "points": points })
            })
            .collect();
        let id = self.add(json!({ "kind": "scaling", "series": series, "sides": !page.alone() }));
        holder(id, "scaling")
    }

    /// A matrix, in colours from the first to the second of `span`. Its number is for [`Charts::difference`].
    pub(super) fn matrix(&mut self, title: &str, grid: &Grid, span: Option<(u64, u64)>) -> (usize, String) {
        let scale = float(units::scale(&grid.unit));
        let cell = |cell: &Option<u64>| cell.map_or(Value::Null, |cell| json!(round(float(cell) / scale)));
        let id = self.add(json!({
            "kind": "matrix",
            "title": title,
            "unit": units::label(&grid.unit),
            "rowAxis": grid.row_axis,
            "colAxis": grid.col_axis,
            "rows": grid.rows.iter().map(|line| &line.label).collect::<Vec<_>>(),
            "cols": grid.cols.iter().map(|line| &line.label).collect::<Vec<_>>(),
            "rowNodes": grid.rows.iter().map(|line| line.node).collect::<Vec<_>>(),
            "colNodes": grid.cols.iter().map(|line| line.node).collect::<Vec<_>>(),
            "rowCaches": grid.rows.iter().map(|line| line.cache).collect::<Vec<_>>(),
            "colCaches": grid.cols.iter().map(|line| line.cache).collect::<Vec<_>>(),
            "cells": grid.cells.iter().map(cell).collect::<Vec<_>>(),
            "span": span.map(|(low, high)| [low, high].map(|end| round(float(end) / scale))),
        }));
        (id, holder(id, "matrix"))
    }

    /// The change from one matrix to another of the same labels; the page computes it.
    pub(super) fn difference(&mut self, title: &str, base: usize, new: usize) -> String {
        let id = self.add(json!({ "kind": "difference", "title": title, "base": base, "new": new }));
        holder(id, "matrix")
    }

    /// The medians of a case over the boots of many runs.
    pub(super) fn history(&mut self, series: &SeriesFile) -> String {
        let scale = float(units::scale(&series.unit));
        let figure = |figure: u64| json!(round(float(figure) / scale));
        let mut runs: Vec<Value> = Vec::new();
        let mut last = None;
        let points: Vec<Value> = series
            .points
            .iter()
            .map(|point| {
                if last != Some(&point.run) {
                    last = Some(&point.run);
                    runs.push(json!(point.run));
                }
                json!([runs.len() - 1, figure(point.p50)])
            })
            .collect();
        let levels: Vec<Value> =
            series.levels().iter().map(|level| json!([level.from, level.to, figure(level.p50)])).collect();
        let id = self.add(json!({
            "kind": "history",
            "title": series.id,
            "unit": units::label(&series.unit),
            "runs": runs,
            "points": points,
            "levels": levels,
        }));
        holder(id, "history")
    }
}

/// Where the script draws a chart.
fn holder(id: usize, kind: &str) -> String {
    format!("<div class=\"chart {}\" data-chart=\"{id}\"></div>\n", escape(kind))
}

/// A name, and its side where there are several.
pub(super) fn named(page: &Page, side: usize, name: &str) -> String {
    if page.alone() { name.to_owned() } else { format!("{}: {name}", page.sides[side].label) }
}

/// A curve for each boot of a side, or for the typical one.
fn strands(case: &Case<'_>, side: usize, detail: Detail) -> Result<Vec<Vec<f64>>> {
    let boots: Vec<Boot<'_>> = match detail {
        Detail::Boots => case.boots[side].clone(),
        Detail::Typical | Detail::Tables => case.typical(side).into_iter().collect(),
    };
    let mut strands = Vec::new();
    let mut seen = BTreeSet::new();
    for boot in boots {
        let Some(reference) = &boot.row.hist else { continue };
        let strand = curve(&boot.run.histogram(reference)?, units::scale(case.unit()));
        // Where boots agree, one line says it.
        let bits: Vec<u64> = strand.iter().map(|value| value.to_bits()).collect();
        if !strand.is_empty() && seen.insert(bits) {
            strands.push(strand);
        }
    }
    Ok(strands)
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

/// JSON that can stand inside a script element: nothing in it can end the element or begin a comment (H1).
pub(super) fn embed(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::{curve, embed, grid, round};
    use crate::results::hlog::Sparse;
    use serde_json::json;

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
}
