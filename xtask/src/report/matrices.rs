//! Matrices of a case: in the order of nodes and last-level caches, and by how much they differ between two sides.

use crate::compare;
use crate::error::Result;
use crate::report::charts::Charts;
use crate::report::groups::{Case, float};
use crate::report::html::{Align, escape, table};
use crate::report::page::{Detail, Page};
use crate::report::strips::percent;
use crate::results::reader::Run;
use crate::results::schema::MatrixRef;
use crate::results::units;
use std::collections::{BTreeMap, BTreeSet};

/// Matrices with more labels than this are shown as node medians in the table; the chart shows every cell.
const WIDEST: usize = 64;
/// What stands where there is no figure.
const NONE: &str = "–";

/// A row or a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// What it is called: a number.
    pub(super) label: String,
    /// Its node, where it has one.
    pub(super) node: Option<u32>,
    /// Its last-level cache, where it has one.
    pub(super) cache: Option<u32>,
}

impl Line {
    fn key(&self) -> (Option<u32>, Option<u32>, Option<u64>) {
        (self.node, self.cache, self.label.parse().ok())
    }
}

/// A matrix whose rows and columns are in the order of their nodes and caches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// What it shows.
    pub(super) name: String,
    /// Unit of the cells, as recorded.
    pub(super) unit: String,
    /// What the rows are.
    pub(super) row_axis: String,
    /// What the columns are.
    pub(super) col_axis: String,
    /// The rows.
    pub(super) rows: Vec<Line>,
    /// The columns.
    pub(super) cols: Vec<Line>,
    /// The cells, row by row.
    pub(super) cells: Vec<Option<u64>>,
}

/// Node and last-level cache of each core.
type Places = BTreeMap<u32, (u32, u32)>;

fn places(run: &Run) -> Places {
    let cores = run.env.target.iter().flat_map(|target| &target.cores);
    cores.map(|core| (core.id, (core.node, core.llc))).collect()
}

impl Grid {
    fn read(run: &Run, reference: &MatrixRef) -> Result<Self> {
        Ok(Self::of(&run.matrix(&reference.file)?, reference, &places(run)))
    }

    fn of(table: &[Vec<String>], reference: &MatrixRef, places: &Places) -> Self {
        let line = |axis: &str, label: &String| {
            let id: Option<u32> = label.parse().ok();
            let place = id.and_then(|id| places.get(&id)).copied();
            let (node, cache) =
                if axis.contains("node") { (id, None) } else { (place.map(|at| at.0), place.map(|at| at.1)) };
            Line { label: label.clone(), node, cache }
        };
        let cols = table.first().map(Vec::as_slice).unwrap_or_default();
        let mut cols: Vec<(usize, Line)> = cols
            .iter()
            .enumerate()
            .skip(1)
            .map(|(at, label)| (at, line(&reference.col_axis, label)))
            .collect();
        let mut rows: Vec<(&Vec<String>, Line)> =
            table.iter().skip(1).map(|cells| (cells, line(&reference.row_axis, &cells[0]))).collect();
        cols.sort_by_key(|(_, line)| line.key());
        rows.sort_by_key(|(_, line)| line.key());
        let cells =
            rows.iter().flat_map(|(cells, _)| cols.iter().map(|&(at, _)| cells[at].parse().ok())).collect();
        Self {
            name: reference.name.clone(),
            unit: reference.unit.clone(),
            row_axis: reference.row_axis.clone(),
            col_axis: reference.col_axis.clone(),
            rows: rows.into_iter().map(|(_, line)| line).collect(),
            cols: cols.into_iter().map(|(_, line)| line).collect(),
            cells,
        }
    }

    /// Whether cells of the two mean the same.
    fn fits(&self, other: &Self) -> bool {
        (&self.unit, &self.rows, &self.cols) == (&other.unit, &other.rows, &other.cols)
    }

    /// The medians of the cells of several boots.
    fn middle(mut grids: Vec<Self>) -> Option<Self> {
        let mut first = grids.pop()?;
        grids.retain(|other| first.fits(other));
        for at in 0..first.cells.len() {
            let all: Vec<u64> =
                grids.iter().map(|grid| grid.cells[at]).chain([first.cells[at]]).flatten().collect();
            first.cells[at] = (!all.is_empty()).then(|| compare::middle(&all));
        }
        Some(first)
    }

    fn cell(&self, row: usize, col: usize) -> Option<u64> {
        self.cells[row * self.cols.len() + col]
    }

    /// The same between nodes, if there are more labels than a table can show.
    fn compact(&self) -> Self {
        if self.rows.len() <= WIDEST && self.cols.len() <= WIDEST {
            return self.clone();
        }
        let mut values: BTreeMap<(Option<u32>, Option<u32>), Vec<u64>> = BTreeMap::new();
        for (at, row) in self.rows.iter().enumerate() {
            for (to, col) in self.cols.iter().enumerate() {
                values.entry((row.node, col.node)).or_default().extend(self.cell(at, to));
            }
        }
        let lines = |nodes: BTreeSet<Option<u32>>| -> Vec<Line> {
            let name = |node: Option<u32>| node.map_or("no node".to_owned(), |node| format!("node {node}"));
            nodes.into_iter().map(|node| Line { label: name(node), node, cache: None }).collect()
        };
        let rows = lines(values.keys().map(|&(row, _)| row).collect());
        let cols = lines(values.keys().map(|&(_, col)| col).collect());
        let median = |(row, col): (&Line, &Line)| {
            let all = values.get(&(row.node, col.node)).filter(|all| !all.is_empty())?;
            Some(compare::middle(all))
        };
        let cells = rows.iter().flat_map(|row| cols.iter().map(move |col| (row, col))).map(median).collect();
        Self { name: format!("{}, medians by node", self.name), rows, cols, cells, ..self.clone() }
    }

    fn table(&self, caption: &str, show: impl Fn(usize, usize) -> String) -> String {
        let corner = format!("{} ↓ {} →", self.row_axis, self.col_axis);
        let mut head = vec![(corner.as_str(), Align::Left)];
        head.extend(self.cols.iter().map(|line| (line.label.as_str(), Align::Right)));
        let line = |(row, line): (usize, &Line)| {
            let cells = (0..self.cols.len()).map(|col| show(row, col));
            std::iter::once(line.label.clone()).chain(cells).collect()
        };
        let lines: Vec<Vec<String>> = self.rows.iter().enumerate().map(line).collect();
        let caption = format!("{caption}: {} [{}]", self.name, units::label(&self.unit));
        table(&caption, &head, &lines)
    }
}

/// The matrices of a case: each side's, then what changed from the first side to each other.
pub(super) fn section(page: &Page, case: &Case<'_>, detail: Detail, charts: &mut Charts) -> Result<String> {
    let names: BTreeSet<&str> = case
        .boots
        .iter()
        .flatten()
        .flat_map(|boot| boot.row.matrices.iter().map(|matrix| matrix.name.as_str()))
        .collect();
    let mut text = String::new();
    for name in names {
        let mut sides = Vec::new();
        for side in 0..page.sides.len() {
            sides.push(read(case, side, name)?);
        }
        text.push_str(&matrix(page, case, &sides, detail, charts));
    }
    Ok(text)
}

/// The matrix of a side: medians of its boots, cell by cell.
fn read(case: &Case<'_>, side: usize, name: &str) -> Result<Option<Grid>> {
    let mut grids = Vec::new();
    for boot in &case.boots[side] {
        for reference in boot.row.matrices.iter().filter(|matrix| matrix.name == name) {
            grids.push(Grid::read(boot.run, reference)?);
        }
    }
    Ok(Grid::middle(grids))
}

fn matrix(
    page: &Page,
    case: &Case<'_>,
    sides: &[Option<Grid>],
    detail: Detail,
    charts: &mut Charts,
) -> String {
    let (mut drawn, mut tables) = (String::new(), String::new());
    let mut first: Option<(usize, Option<usize>, &Grid)> = None;
    let span = span(sides);
    for (side, grid) in sides.iter().enumerate() {
        let Some(grid) = grid else { continue };
        let label = &page.sides[side].label;
        let of = if page.alone() { String::new() } else { format!(", {label}") };
        let title = format!("{} — {}{of}", case.label(), grid.name);
        let chart = (detail != Detail::Tables).then(|| charts.matrix(&title, grid, span));
        let number = chart.as_ref().map(|&(number, _)| number);
        drawn.push_str(&chart.map(|(_, holder)| holder).unwrap_or_default());
        let compact = grid.compact();
        let show =
            |row, col| compact.cell(row, col).map_or(NONE.to_owned(), |cell| units::show(cell, &grid.unit));
        tables.push_str(&compact.table(&format!("{}{of}", case.id), show));
        let Some((base, base_number, before)) = first else {
            first = Some((side, number, grid));
            continue;
        };
        if !before.fits(grid) {
            let base = &page.sides[base].label;
            drawn.push_str(&format!(
                "<p class=\"note\">{} and {} have other rows or columns.</p>\n",
                escape(base),
                escape(label)
            ));
            continue;
        }
        let change = format!("{}, {} to {label}", grid.name, page.sides[base].label);
        if let (Some(base), Some(new)) = (base_number, number) {
            drawn.push_str(&charts.difference(&format!("{} — {change}", case.label()), base, new));
        }
        tables.push_str(&changes(
            &format!("{}, change from {}", case.id, page.sides[base].label),
            before,
            grid,
        ));
    }
    let boots = if page.boots() { ", medians of the boots" } else { "" };
    let files: BTreeSet<String> = case
        .boots
        .iter()
        .flatten()
        .flat_map(|boot| {
            boot.row.matrices.iter().map(|matrix| format!("<code>{}</code>", escape(&matrix.file)))
        })
        .collect();
    let files = files.into_iter().collect::<Vec<_>>().join(" ");
    format!(
        "<div class=\"matrices\">{drawn}</div><details><summary>Tables of these matrices{boots}</summary>{tables}<p class=\"soft\">Files: \
         {files}</p></details>\n"
    )
}

/// The least and the greatest cell of all sides: a colour means the same in all of them.
fn span(sides: &[Option<Grid>]) -> Option<(u64, u64)> {
    let cells = || sides.iter().flatten().flat_map(|grid| &grid.cells).flatten().copied();
    cells().min().zip(cells().max())
}

/// The relative change of every cell.
fn changes(caption: &str, before: &Grid, after: &Grid) -> String {
    let (before, after) = (before.compact(), after.compact());
    let show = |row, col| match (before.cell(row, col), after.cell(row, col)) {
        (Some(before @ 1..), Some(after @ 1..)) => percent((float(after) / float(before)).ln()),
        (Some(before), Some(after)) if before == after => percent(0.0),
        _ => NONE.to_owned(),
    };
    after.table(caption, show)
}

#[cfg(test)]
mod tests {
    use super::{Grid, Places, changes, span};
    use crate::results::schema::MatrixRef;

    fn reference() -> MatrixRef {
        MatrixRef {
            name: "m".to_owned(),
            unit: "count".to_owned(),
            row_axis: "source core".to_owned(),
            col_axis: "target core".to_owned(),
            file: String::new(),
        }
    }

    fn grid(lines: &[&[&str]]) -> Grid {
        let places = Places::from([(0, (0, 7)), (1, (1, 2)), (2, (0, 3)), (3, (0, 7))]);
        let table: Vec<Vec<String>> =
            lines.iter().map(|line| line.iter().map(|&cell| cell.to_owned()).collect()).collect();
        Grid::of(&table, &reference(), &places)
    }

    fn labels(grid: &Grid) -> Vec<&str> {
        grid.cols.iter().map(|line| line.label.as_str()).collect()
    }

    #[test]
    fn matrices_are_sorted_by_node_and_cache() {
        let grid =
            grid(&[&["", "0", "1", "2", "3"], &["1", "10", "11", "12", "13"], &["2", "20", "21", "", "23"]]);
        assert_eq!(labels(&grid), ["2", "0", "3", "1"]);
        assert_eq!(grid.cells, [None, Some(20), Some(23), Some(21), Some(12), Some(10), Some(13), Some(11)]);
    }

    #[test]
    fn a_side_shows_the_medians_of_its_boots() {
        let one = |cell: &str| grid(&[&["", "0"], &["1", cell]]);
        let middle = Grid::middle(vec![one("30"), one("10"), one("20"), one("")]).unwrap();
        assert_eq!(middle.cells, [Some(20)]);
        let other = grid(&[&["", "2"], &["1", "99"]]);
        assert_eq!(Grid::middle(vec![other, one("5")]).unwrap().cells, [Some(5)]);
    }

    #[test]
    fn changes_are_relative_to_the_first_side() {
        let before = grid(&[&["", "0", "2"], &["1", "100", ""]]);
        let after = grid(&[&["", "0", "2"], &["1", "150", "7"]]);
        let text = changes("c", &before, &after);
        assert!(text.contains("+50.0 %") && text.contains("<td class=\"num\">–</td>"), "{text}");
    }

    #[test]
    fn sides_share_their_colours() {
        let sides = [
            Some(grid(&[&["", "0", "2"], &["1", "100", ""]])),
            None,
            Some(grid(&[&["", "0"], &["1", "70"]])),
        ];
        assert_eq!(span(&sides), Some((70, 100)));
        assert_eq!(span(&[None]), None);
    }

    #[test]
    fn wide_matrices_are_shown_by_node() {
        let cores = 65_u32;
        let places: Places = (0..cores).map(|core| (core, (core % 2, 0))).collect();
        let head = std::iter::once(String::new()).chain((0..cores).map(|core| core.to_string())).collect();
        let line = |row: u32| {
            let cell = |col: u32| if row % 2 == col % 2 { "10" } else { "30" }.to_owned();
            std::iter::once(row.to_string()).chain((0..cores).map(cell)).collect()
        };
        let table: Vec<Vec<String>> = std::iter::once(head).chain((0..cores).map(line)).collect();
        let compact = Grid::of(&table, &reference(), &places).compact();
        assert_eq!(labels(&compact), ["node 0", "node 1"]);
        assert_eq!(compact.cells, [10, 30, 30, 10].map(Some));
    }
}
