//! The series with their changes as one SVG, which needs no script and no font of its own.

use super::SeriesFile;
use crate::compare::stats::float;
use crate::results::units;

const WIDTH: f64 = 800.0;
const PANEL: f64 = 150.0;
const MARGIN: f64 = 30.0;

/// The drawing: a panel for each series, dots for boots, a line for each level, a dashed one for each change.
pub(super) fn svg(series: &[&SeriesFile]) -> String {
    let height = PANEL * float(series.len().max(1));
    let panels: String = series.iter().enumerate().map(|(row, one)| panel(one, PANEL * float(row))).collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{panels}</svg>\n"
    )
}

fn panel(series: &SeriesFile, top: f64) -> String {
    let figures: Vec<u64> = series.points.iter().map(|point| point.p50).collect();
    let (low, high) =
        (figures.iter().min().copied().unwrap_or(0), figures.iter().max().copied().unwrap_or(0));
    let span = float(usize::try_from(high - low).unwrap_or(usize::MAX)).max(1.0);
    let last = float(figures.len().saturating_sub(1).max(1));
    let x = |index: f64| MARGIN + (WIDTH - 2.0 * MARGIN) * index / last;
    let y = |figure: u64| {
        let share = float(usize::try_from(figure.saturating_sub(low)).unwrap_or(usize::MAX)) / span;
        top + PANEL - MARGIN - (PANEL - 2.0 * MARGIN) * share
    };
    let title = format!(
        "{} · {} {} {} · {} to {} {}",
        series.id,
        series.lane,
        series.machine,
        series.profile,
        units::show(low, &series.unit),
        units::show(high, &series.unit),
        units::label(&series.unit)
    );
    let mut text = format!("<text x=\"{MARGIN}\" y=\"{:.1}\">{}</text>\n", top + 18.0, escape(&title));
    for (index, point) in series.points.iter().enumerate() {
        text.push_str(&format!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"#888\"><title>{}</title></circle>\n",
            x(float(index)),
            y(point.p50),
            escape(&point.run)
        ));
    }
    for level in series.levels() {
        text.push_str(&format!(
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{2:.1}\" y2=\"{2:.1}\" stroke=\"#06c\" stroke-width=\"2\"/>\n",
            x(float(level.from)),
            x(float(level.to - 1)),
            y(level.p50)
        ));
    }
    for change in &series.changes {
        let at = x(float(usize::try_from(change.at).unwrap_or(0)) - 0.5);
        text.push_str(&format!(
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"#c00\" stroke-dasharray=\"4 3\"/>\n",
            top + 24.0,
            top + PANEL - 8.0
        ));
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
