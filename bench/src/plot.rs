//! Plots as SVG: lines with markers over logarithmic axes, for pages in light and in dark. Pure.

use std::fmt::Write as _;

/// A line, from left to right.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A plot. Both axes are logarithmic: what is not above 0 is left out.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) lines: Vec<Line>,
    /// A value that is not to be exceeded, and what it is.
    pub(crate) goal: Option<(f64, String)>,
}

const WIDTH: f64 = 760.0;
const TOP: f64 = 44.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const HEIGHT: f64 = 320.0;
/// Below the area: the axis, and a row for each two lines.
const AXIS: f64 = 52.0;
const ROW: f64 = 20.0;
const COLUMNS: usize = 2;

/// Distinct to people who see colours differently, and on light and dark ground.
const COLOURS: [&str; 10] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f",
    "#b15928", "#66a61e",
];

const STYLE: &str = "text{font-family:system-ui,sans-serif;font-size:12px;fill:#1f2328}\
    .title{font-size:15px;font-weight:600}.grid{stroke:#8c959f;stroke-opacity:.3}\
    .goal{stroke:#cf222e;stroke-dasharray:6 4}.goaltext{fill:#cf222e}.ground{fill:#fff}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}\
    .goal{stroke:#ff7b72}.goaltext{fill:#ff7b72}}";

/// Powers of ten around values.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Decades {
    first: i32,
    last: i32,
}

impl Decades {
    fn around(values: impl Iterator<Item = f64>) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| *value > 0.0 && value.is_finite()) {
            (least, most) = (least.min(value), most.max(value));
        }
        if least > most {
            return Self { first: 0, last: 1 };
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "exponents of finite numbers are small"
        )]
        let first = (least.log10() + 1e-9).floor() as i32;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "exponents of finite numbers are small"
        )]
        let last = (most.log10() - 1e-9).ceil() as i32;
        Self { first, last: last.max(first + 1) }
    }

    /// Where a value is, from 0 to 1.
    fn place(self, value: f64) -> f64 {
        (value.log10() - f64::from(self.first)) / f64::from(self.last - self.first)
    }

    fn ticks(self) -> impl Iterator<Item = i32> {
        self.first..=self.last
    }
}

impl Plot {
    /// The plot as a document.
    pub(crate) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let xs = Decades::around(points().map(|(x, _)| *x));
        let goal = self.goal.iter().map(|(value, _)| *value);
        let ys = Decades::around(points().map(|(_, y)| *y).chain(goal));
        let x_at = |x| LEFT + xs.place(x) * (WIDTH - LEFT - RIGHT);
        let y_at = |y| TOP + (1.0 - ys.place(y)) * HEIGHT;
        let rows = self.lines.len().div_ceil(COLUMNS);
        let height = TOP + HEIGHT + AXIS + ROW * rows as f64 + 8.0;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\"><title>{0}</title><style>{STYLE}</style>\n\
             <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"24\">{0}</text>\n",
            escaped(&self.title)
        );
        let mut add = |line: std::fmt::Arguments<'_>| {
            // Writing to a text cannot fail.
            let _written = out.write_fmt(line);
            out.push('\n');
        };
        let (right, bottom) = (WIDTH - RIGHT, TOP + HEIGHT);
        for tick in xs.ticks() {
            let x = x_at(10f64.powi(tick));
            add(format_args!(
                "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{}</text>",
                bottom + 18.0,
                power(tick)
            ));
        }
        for tick in ys.ticks() {
            let y = y_at(10f64.powi(tick));
            add(format_args!(
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                y + 4.0,
                power(tick)
            ));
        }
        add(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            bottom + 38.0,
            escaped(&self.x)
        ));
        let middle = f64::midpoint(TOP, bottom);
        add(format_args!(
            "<text transform=\"translate(20 {middle:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            escaped(&self.y)
        ));
        if let Some((value, name)) = &self.goal {
            let y = y_at(*value);
            add(format_args!(
                "<path class=\"goal\" d=\"M{LEFT} {y:.1}H{right}\"/><text class=\"goaltext\" \
                 x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                right - 4.0,
                y - 5.0,
                escaped(name)
            ));
        }
        for (number, line) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let drawn: Vec<String> = (line.points.iter())
                .filter(|(x, y)| *x > 0.0 && *y > 0.0)
                .map(|(x, y)| format!("{:.1},{:.1}", x_at(*x), y_at(*y)))
                .collect();
            add(format_args!(
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
                drawn.join(" ")
            ));
            for point in &drawn {
                let (x, y) = point.split_once(',').unwrap_or_default();
                add(format_args!("{}", marker(number, x, y, colour)));
            }
            let x = LEFT + (number % COLUMNS) as f64 * (WIDTH - LEFT) / COLUMNS as f64;
            let y = bottom + AXIS + ROW * (number / COLUMNS) as f64;
            let (at, level) = (format!("{:.1}", x + 6.0), format!("{y:.1}"));
            add(format_args!(
                "{}<text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                marker(number, &at, &level, colour),
                x + 18.0,
                y + 4.0,
                escaped(&line.name)
            ));
        }
        out.push_str("</svg>\n");
        out
    }
}

/// Lines differ by form, too, for who does not see colours.
fn marker(number: usize, x: &str, y: &str, colour: &str) -> String {
    let form = match number % 3 {
        0 => "<circle r=\"4\"",
        1 => "<rect x=\"-3.5\" y=\"-3.5\" width=\"7\" height=\"7\"",
        _ => "<path d=\"M0-5 4.5 4h-9z\"",
    };
    format!("{form} transform=\"translate({x} {y})\" fill=\"{colour}\"/>")
}

/// A power of ten as people write it.
fn power(exponent: i32) -> String {
    match exponent {
        ..0 => format!("{:.*}", exponent.unsigned_abs() as usize, 10f64.powi(exponent)),
        0..6 => {
            let digits = 10u64.pow(exponent.unsigned_abs()).to_string();
            match digits.len() {
                4.. => format!("{},{}", &digits[..digits.len() - 3], "000"),
                _ => digits,
            }
        }
        _ => format!("10^{exponent}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(lines: Vec<Line>) -> Plot {
        Plot {
            title: "a < b".into(),
            x: "pods".into(),
            y: "ms".into(),
            lines,
            goal: Some((1_000.0, "goal".into())),
        }
    }

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line { name: name.into(), points: points.to_vec() }
    }

    #[test]
    fn axes_hold_all_points_between_whole_powers() {
        let of = |values: &[f64]| Decades::around(values.iter().copied());
        assert_eq!(of(&[100.0, 100_000.0]), Decades { first: 2, last: 5 });
        assert_eq!(of(&[0.02, 3.0, 0.0, f64::NAN]), Decades { first: -2, last: 1 });
        assert_eq!(of(&[10.0]), Decades { first: 1, last: 2 });
        assert_eq!(of(&[]), Decades { first: 0, last: 1 });
        assert!((of(&[1.0, 100.0]).place(10.0) - 0.5).abs() < 1e-9);
        let labels: Vec<_> = [-2, 0, 2, 3, 5, 6].map(power).into();
        assert_eq!(labels, ["0.01", "1", "100", "1,000", "100,000", "10^6"]);
    }

    #[test]
    fn every_point_is_drawn_inside_and_what_cannot_be_is_left_out() {
        let points = [(100.0, 1.0), (1_000.0, 0.0), (10_000.0, 50.0)];
        let svg = plot(vec![line("one & all", &points), line("two", &points)]).svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        // Two points and the one in the legend, of each line.
        assert_eq!(svg.matches("<circle").count(), 3);
        assert_eq!(svg.matches("<rect x=").count(), 3);
        assert!(
            svg.contains("one &amp; all") && svg.contains("a &lt; b") && svg.contains(">goal<")
        );
        let drawn = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        for point in drawn.split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=TOP + HEIGHT).contains(&y));
        }
        assert!(svg.contains("prefers-color-scheme:dark") && !svg.contains("NaN"));
    }
}
