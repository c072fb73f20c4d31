//! What was found, as a table and as a picture of it.

use std::fmt::Write as _;

use super::{Kind, Workload, median};

/// What one workload cost each proxy: microseconds of a request, a value for each round.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was asked.
    pub workload: Workload,
    /// In the order of [`Kind::ALL`].
    pub micros: [Vec<f64>; Kind::ALL.len()],
}

impl Row {
    /// Returns the microseconds of nginx with stock buffers.
    #[must_use]
    pub fn nginx_micros(&self) -> f64 {
        median(&mut self.micros[0].clone())
    }

    /// Returns what a proxy takes beside nginx with stock buffers.
    #[must_use]
    pub fn to_nginx(&self, kind: Kind) -> f64 {
        self.to(kind, |round| self.micros[0][round])
    }

    /// Returns what a proxy takes beside the better nginx of the same round.
    #[must_use]
    pub fn to_better_nginx(&self, kind: Kind) -> f64 {
        self.to(kind, |round| self.micros[0][round].min(self.micros[1][round]))
    }

    /// Of each round its own ratio, so that a slow minute counts for neither side.
    fn to(&self, kind: Kind, other: impl Fn(usize) -> f64) -> f64 {
        let own = &self.micros[kind as usize];
        median(&mut own.iter().enumerate().map(|(round, own)| own / other(round)).collect::<Vec<_>>())
    }

    /// Returns a line of the table.
    #[must_use]
    pub fn line(&self) -> String {
        let [plus, haproxy, ours] = [Kind::NginxPlus, Kind::Haproxy, Kind::Bluegreen].map(|kind| self.to_nginx(kind));
        let share = self.to_better_nginx(Kind::Bluegreen);
        let goal = match self.workload.goal() {
            Some(goal) => {
                let verdict = if share <= goal.aim {
                    "aim met"
                } else if share <= goal.gate {
                    "gate met"
                } else {
                    "MISSED"
                };
                format!("{:>5.2} {:>5.2} {verdict}", goal.gate, goal.aim)
            }
            None => String::new(),
        };
        let (name, nginx) = (self.workload.name(), self.nginx_micros());
        let line = format!("{name:<31}{nginx:>9.1} |{plus:>7.2} {haproxy:>8.2} {ours:>8.2} |{share:>7.2} {goal}");
        format!("{}\n", line.trim_end())
    }
}

/// The head of the table.
pub const HEAD: &str = "                                nginx us |     ratio to nginx      | to the better nginx\n\
                        workload                                 | nginx+  haproxy  bgproxy |   ours  gate   aim\n";

/// Sizes of the picture, in pixels.
const WIDTH: f64 = 860.0;
const NAMES: f64 = 230.0;
const BAR: f64 = 11.0;
const GROUP: f64 = 3.0 * BAR + 13.0;
const TOP: f64 = 56.0;
/// What is drawn, and how.
const BARS: [(&str, &str); 3] = [("the better nginx", "#8a9099"), ("HAProxy", "#c9a227"), ("bgproxy", "#1f7a5c")];
/// Longer bars are cut, and say what they are.
const LONGEST: f64 = 1.6;

/// Returns a picture of what was found: each proxy's processor time for a request, beside that of the better nginx.
#[must_use]
pub fn picture(rows: &[Row]) -> String {
    let height = TOP + rows.len() as f64 * GROUP + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\" fill=\"#1b1f24\">Processor time of a request, the better nginx = 1 (shorter is better)</text>\n"
    );
    for (at, (name, colour)) in BARS.into_iter().enumerate() {
        let x = 10.0 + 150.0 * at as f64;
        // Writing to a string never fails.
        _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"32\" width=\"11\" height=\"11\" fill=\"{colour}\"/><text x=\"{}\" y=\"42\" fill=\"#1b1f24\">{name}</text>",
            x + 16.0
        );
    }
    let unit = (WIDTH - NAMES - 60.0) / LONGEST;
    for (at, row) in rows.iter().enumerate() {
        let y = TOP + at as f64 * GROUP;
        _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#1b1f24\">{}</text>",
            NAMES - 8.0,
            y + 1.5 * BAR + 4.0,
            row.workload.name()
        );
        let shares = [1.0, row.to_better_nginx(Kind::Haproxy), row.to_better_nginx(Kind::Bluegreen)];
        for (bar, (share, (_, colour))) in shares.into_iter().zip(BARS).enumerate() {
            let (y, width) = (y + bar as f64 * BAR, unit * share.min(LONGEST));
            _ = writeln!(
                svg,
                "<rect x=\"{NAMES}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\" fill=\"#444b54\">{share:.2}</text>",
                BAR - 1.5,
                NAMES + width + 4.0,
                y + BAR - 2.5
            );
        }
    }
    let one = NAMES + unit;
    _ = writeln!(
        svg,
        "<line x1=\"{one:.1}\" y1=\"{}\" x2=\"{one:.1}\" y2=\"{}\" stroke=\"#1b1f24\" stroke-dasharray=\"3 3\"/>\n</svg>",
        TOP - 4.0,
        height - 8.0
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ours: [f64; 3]) -> Row {
        let micros = [vec![10.0, 20.0, 10.0], vec![8.0, 16.0, 12.0], vec![11.0, 22.0, 11.0], ours.to_vec()];
        Row { workload: Workload::Small(64), micros }
    }

    #[test]
    fn a_ratio_is_that_of_its_own_round_and_of_the_better_nginx() {
        let row = row([8.0, 16.0, 8.0]);
        assert!((row.to_nginx(Kind::Bluegreen) - 0.8).abs() < 1e-9);
        assert!((row.to_better_nginx(Kind::Bluegreen) - 1.0).abs() < 1e-9);
        assert!((row.nginx_micros() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn a_line_says_whether_a_goal_is_met() {
        for (ours, verdict) in [(6.0, "aim met"), (7.3, "gate met"), (8.0, "MISSED")] {
            let line = row([ours, ours * 2.0, ours]).line();
            assert!(line.ends_with(&format!("{verdict}\n")), "{line}");
        }
    }

    #[test]
    fn the_picture_has_three_bars_for_each_workload() {
        let picture = picture(&[row([8.0, 16.0, 8.0]), row([80.0, 160.0, 80.0])]);
        // The background, three of the legend, and the bars.
        assert_eq!(picture.matches("<rect").count(), 1 + 3 + 6);
        assert!(picture.contains(">10.00<") && picture.ends_with("</svg>\n"), "{picture}");
    }
}
