//! Dots and intervals inside the cells of tables: small drawings whose figures stand beside them.
//!
//! Places are ratios on a logarithmic axis around 1, which all lines of a table share. Sides differ in colour and in shape.

use std::fmt::Write;

/// Width of a strip, in its own units.
const WIDTH: f64 = 220.0;
/// What stays free at both ends.
const MARGIN: f64 = 10.0;
/// Height of a strip.
const HEIGHT: f64 = 16.0;
/// Ends of axes, in percent: the first that holds everything.
const ENDS: [f64; 12] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 400.0, 900.0, 1900.0, 9900.0];

/// A logarithmic axis of ratios, from `1 / (1 + end)` to `1 + end`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    percent: f64,
}

/// A dot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dot {
    /// Logarithm of its ratio.
    pub(super) at: f64,
    /// Its side, which gives colour and shape.
    pub(super) side: usize,
}

impl Axis {
    /// The smallest axis that holds these logarithms.
    pub(super) fn of(logarithms: impl Iterator<Item = f64>) -> Self {
        let most = logarithms.fold(0.0_f64, |most, at| most.max(at.abs()));
        let holds = |percent: &&f64| most <= (*percent / 100.0).ln_1p();
        let last = ENDS[ENDS.len() - 1];
        Self { percent: ENDS.iter().find(holds).copied().unwrap_or(last) }
    }

    fn place(self, logarithm: f64) -> f64 {
        let end = (self.percent / 100.0).ln_1p();
        WIDTH / 2.0 + (WIDTH / 2.0 - MARGIN) * (logarithm / end).clamp(-1.0, 1.0)
    }

    /// The head of a column of strips.
    pub(super) fn head(self, what: &str) -> String {
        let low = percent(-(self.percent / 100.0).ln_1p());
        let (left, middle, right, end) = (MARGIN, WIDTH / 2.0, WIDTH - MARGIN, self.percent);
        format!(
            "<span class=\"axis\">{what}<svg class=\"strip\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"axis from {low} to \
             +{end} %\"><text x=\"{left}\" y=\"12\" text-anchor=\"start\">{low}</text><text x=\"{middle}\" y=\"12\" \
             text-anchor=\"middle\">0</text><text x=\"{right}\" y=\"12\" text-anchor=\"end\">+{end} %</text></svg></span>"
        )
    }

    /// A strip: what is of no interest as a band, an interval as a bar, dots above.
    pub(super) fn strip(self, band: Option<f64>, interval: Option<(f64, f64)>, dots: &[Dot]) -> String {
        let middle = HEIGHT / 2.0;
        let mut text = format!("<svg class=\"strip\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" aria-hidden=\"true\">");
        if let Some(band) = band {
            let (low, high) = (self.place(-band), self.place(band));
            let wide = high - low;
            // Writing into a string cannot fail.
            let _ = write!(
                text,
                "<rect class=\"band\" x=\"{low:.1}\" y=\"1\" width=\"{wide:.1}\" height=\"14\"/>"
            );
        }
        let centre = WIDTH / 2.0;
        let _ = write!(text, "<path class=\"zero\" d=\"M{centre} 0V{HEIGHT}\"/>");
        if let Some((low, high)) = interval {
            let (low, high) = (self.place(low), self.place(high));
            let _ = write!(text, "<path class=\"bar\" d=\"M{low:.1} {middle}H{high:.1}\"/>");
        }
        for dot in dots {
            text.push_str(&mark(self.place(dot.at), middle, dot.side));
        }
        text.push_str("</svg>");
        text
    }
}

/// The mark of a side.
fn mark(x: f64, y: f64, side: usize) -> String {
    let class = side % 8;
    match side % 4 {
        0 => format!("<circle class=\"m{class}\" cx=\"{x:.1}\" cy=\"{y}\" r=\"3.5\"/>"),
        1 => format!("<path class=\"m{class}\" d=\"M{:.1} {}h6v6h-6z\"/>", x - 3.0, y - 3.0),
        2 => format!("<path class=\"m{class}\" d=\"M{x:.1} {}l4 7h-8z\"/>", y - 4.0),
        _ => format!("<path class=\"m{class}\" d=\"M{x:.1} {}l4 4l-4 4l-4-4z\"/>", y - 4.0),
    }
}

/// The marks of the sides with their names.
pub(super) fn legend(labels: &[&str]) -> String {
    let item = |(side, label): (usize, &&str)| {
        let dash = if side == 0 { " stroke-dasharray=\"6 3\"" } else { "" };
        format!(
            "<li><svg width=\"34\" height=\"12\" viewBox=\"0 0 34 12\" aria-hidden=\"true\"><path class=\"l{}\" d=\"M0 6H34\"{dash}/>{}</svg>{}</li>",
            side % 8,
            mark(17.0, 6.0, side),
            super::html::escape(label)
        )
    };
    let items: String = labels.iter().enumerate().map(item).collect();
    format!("<ul class=\"legend\">{items}</ul>\n")
}

/// The change a logarithm of a ratio stands for, with its sign.
pub(super) fn percent(logarithm: f64) -> String {
    let change = 100.0 * logarithm.exp_m1();
    match change.abs() {
        size if size < 0.05 => "0.0 %".to_owned(),
        size if size < 100.0 => format!("{change:+.1} %").replace('-', "−"),
        _ => format!("{change:+.0} %").replace('-', "−"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Axis, Dot, legend, percent};

    #[test]
    fn an_axis_holds_what_it_shows() {
        let axis = Axis::of([0.02, -0.15].into_iter());
        assert_eq!(axis, Axis { percent: 20.0 });
        assert_eq!(Axis::of(std::iter::empty()), Axis { percent: 1.0 });
        assert_eq!(
            (axis.place(0.0), axis.place(1.2_f64.ln()).round(), axis.place(-9.0)),
            (110.0, 210.0, 10.0)
        );
        let drawn =
            axis.strip(Some(0.03), Some((0.01, 0.02)), &[Dot { at: 0.0, side: 0 }, Dot { at: 0.1, side: 1 }]);
        for part in ["class=\"band\"", "class=\"bar\"", "class=\"m0\"", "class=\"m1\""] {
            assert_eq!(drawn.matches(part).count(), 1, "{part}");
        }
    }

    #[test]
    fn changes_have_a_sign() {
        let shown = [0.0, 1.1_f64.ln(), 0.5_f64.ln(), 3.0_f64.ln()].map(percent);
        assert_eq!(shown, ["0.0 %", "+10.0 %", "−50.0 %", "+200 %"]);
        assert!(legend(&["<a>"]).contains("&lt;a&gt;"));
    }
}
