//! Charts as SVG, drawn by hand: bars in groups, and lines over minutes. Dark ink on a white ground,
//! in colours that colour-blind readers can tell apart.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 48.0;
const COLOURS: [&str; 4] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"];

/// A value with the least and the most that was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    pub value: f64,
    pub min: f64,
    pub max: f64,
}

/// Bars side by side, in groups; each series has a bar, or a gap, in each group.
#[derive(Debug)]
pub(crate) struct Bars {
    pub title: String,
    pub unit: String,
    pub groups: Vec<String>,
    pub series: Vec<(String, Vec<Option<Bar>>)>,
}

/// Lines over minutes 1, 2, 3 and so on.
#[derive(Debug)]
pub(crate) struct Lines {
    pub title: String,
    pub unit: String,
    pub series: Vec<(String, Vec<f64>)>,
}

impl Bars {
    pub(crate) fn draw(&self) -> String {
        let bars = self
            .series
            .iter()
            .flat_map(|(_, bars)| bars.iter().flatten());
        let mut canvas = Canvas::new(&self.title, &self.unit, bars.map(|bar| bar.max));
        canvas.legend(self.series.iter().map(|(name, _)| name.as_str()));
        let group_width = (WIDTH - LEFT - RIGHT) / self.groups.len().max(1) as f64;
        let bar_width = (group_width * 0.8 / self.series.len().max(1) as f64).min(60.0);
        for (nth, group) in self.groups.iter().enumerate() {
            let middle = LEFT + group_width * (nth as f64 + 0.5);
            canvas.text(middle, HEIGHT - BOTTOM + 18.0, "middle", group);
            let from = middle - bar_width * self.series.len() as f64 / 2.0;
            for (which, (_, bars)) in self.series.iter().enumerate() {
                if let Some(Some(bar)) = bars.get(nth) {
                    canvas.bar(from + bar_width * which as f64, bar_width, which, *bar);
                }
            }
        }
        canvas.end()
    }
}

impl Lines {
    pub(crate) fn draw(&self) -> String {
        let values = self.series.iter().flat_map(|(_, values)| values.iter());
        let mut canvas = Canvas::new(&self.title, &self.unit, values.copied());
        canvas.legend(self.series.iter().map(|(name, _)| name.as_str()));
        let count = self.series.iter().map(|(_, values)| values.len()).max();
        let step = (WIDTH - LEFT - RIGHT) / count.unwrap_or(1).max(1) as f64;
        let x = |nth: usize| LEFT + step * (nth as f64 + 0.5);
        for nth in 0..count.unwrap_or(0) {
            canvas.text(
                x(nth),
                HEIGHT - BOTTOM + 18.0,
                "middle",
                &(nth + 1).to_string(),
            );
        }
        canvas.text(
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - BOTTOM + 36.0,
            "middle",
            "minute",
        );
        for (which, (_, values)) in self.series.iter().enumerate() {
            let points: Vec<String> = values
                .iter()
                .enumerate()
                .map(|(nth, value)| format!("{:.1},{:.1}", x(nth), canvas.y(*value)))
                .collect();
            let _ = writeln!(
                canvas.svg,
                r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>"#,
                points.join(" "),
                colour(which)
            );
        }
        canvas.end()
    }
}

/// A sheet with a title, an axis and its grid.
struct Canvas {
    svg: String,
    /// The value at the upper edge.
    top: f64,
}

impl Canvas {
    fn new(title: &str, unit: &str, values: impl Iterator<Item = f64>) -> Self {
        let largest = values.filter(|it| it.is_finite()).fold(0.0, f64::max);
        let step = step_for(largest);
        let steps = (largest / step).ceil().max(1.0);
        let mut canvas = Self {
            svg: String::new(),
            top: step * steps,
        };
        let _ = writeln!(
            canvas.svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{0}" font-family="sans-serif" font-size="12" fill="#222"><title>{0}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>"##,
            escaped(title)
        );
        let _ = writeln!(
            canvas.svg,
            r#"<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{}</text>"#,
            escaped(title)
        );
        canvas.text(LEFT - 8.0, TOP - 12.0, "end", unit);
        for nth in 0..=steps as u32 {
            let value = step * f64::from(nth);
            let y = canvas.y(value);
            let _ = writeln!(
                canvas.svg,
                r##"<line x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="{}"/>"##,
                WIDTH - RIGHT,
                if nth == 0 { "#222" } else { "#ddd" }
            );
            canvas.text(LEFT - 8.0, y + 4.0, "end", &short(value));
        }
        canvas
    }

    fn y(&self, value: f64) -> f64 {
        let height = HEIGHT - TOP - BOTTOM;
        HEIGHT - BOTTOM - height * (value / self.top).clamp(0.0, 1.0)
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let _ = writeln!(
            self.svg,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{}</text>"#,
            escaped(text)
        );
    }

    fn bar(&mut self, x: f64, width: f64, which: usize, bar: Bar) {
        let (y, middle) = (self.y(bar.value), x + width / 2.0);
        let _ = writeln!(
            self.svg,
            r#"<rect x="{:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" fill="{}"/>"#,
            x + 1.0,
            width - 2.0,
            HEIGHT - BOTTOM - y,
            colour(which)
        );
        if bar.max > bar.min {
            let _ = writeln!(
                self.svg,
                r##"<line x1="{middle:.1}" x2="{middle:.1}" y1="{:.1}" y2="{:.1}" stroke="#222"/>"##,
                self.y(bar.min),
                self.y(bar.max)
            );
        }
        let above = self.y(bar.max) - 4.0;
        self.text(middle, above, "middle", &short(bar.value));
    }

    fn legend<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let mut x = LEFT;
        for (which, name) in names.enumerate().filter(|(_, name)| !name.is_empty()) {
            let _ = writeln!(
                self.svg,
                r#"<rect x="{x:.1}" y="32" width="11" height="11" fill="{}"/>"#,
                colour(which)
            );
            self.text(x + 16.0, 42.0, "start", name);
            x += 34.0 + 6.6 * name.chars().count() as f64;
        }
    }

    fn end(mut self) -> String {
        self.svg.push_str("</svg>\n");
        self.svg
    }
}

fn colour(which: usize) -> &'static str {
    COLOURS[which % COLOURS.len()]
}

/// 1, 2 or 5 times a power of ten, so that about five of them reach `largest`.
fn step_for(largest: f64) -> f64 {
    if largest <= 0.0 {
        return 1.0;
    }
    let rough = largest / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|it| it * power >= rough);
    factor.unwrap_or(10.0) * power
}

fn short(value: f64) -> String {
    match value {
        big if big >= 100_000.0 => format!("{:.0}k", big / 1_000.0),
        big if big >= 10_000.0 => format!("{:.1}k", big / 1_000.0),
        medium if medium >= 100.0 => format!("{medium:.0}"),
        small if small >= 10.0 => trimmed(format!("{small:.1}")),
        tiny => trimmed(format!("{tiny:.2}")),
    }
}

fn trimmed(number: String) -> String {
    number
        .trim_end_matches('0')
        .trim_end_matches('.')
        .to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(value: f64) -> Option<Bar> {
        Some(Bar {
            value,
            min: value * 0.9,
            max: value * 1.1,
        })
    }

    #[test]
    fn bars_are_as_high_as_their_values_and_gaps_draw_nothing() {
        let chart = Bars {
            title: "a < b".into(),
            unit: "/s".into(),
            groups: vec!["one".into(), "two".into()],
            series: vec![
                ("x".into(), vec![bar(50.0), bar(100.0)]),
                ("y".into(), vec![None, bar(1.0)]),
            ],
        };

        let svg = chart.draw();

        // The ground, two squares of the legend, three bars.
        assert_eq!(svg.matches("<rect").count(), 6);
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn a_line_has_a_point_for_each_minute() {
        let chart = Lines {
            title: "t".into(),
            unit: "ms".into(),
            series: vec![("p50".into(), vec![1.0, 2.0, 3.0])],
        };
        let svg = chart.draw();
        let points = svg
            .split("points=\"")
            .nth(1)
            .and_then(|it| it.split('"').next());
        assert_eq!(points.map(|it| it.split(' ').count()), Some(3));
    }

    #[test]
    fn axes_go_in_round_steps() {
        assert_eq!(step_for(100.0), 20.0);
        assert_eq!(step_for(4_314.0), 1_000.0);
        assert_eq!(step_for(0.03), 0.01);
        assert_eq!(step_for(0.0), 1.0);
    }
}
