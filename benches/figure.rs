//! What is told: a figure, its unit, the value it should reach, and whether it does.

use std::fmt;

use serde_json::json;

/// What a figure should reach.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "each bench that tells figures uses some")]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Told for comparison.
    None,
}

impl Target {
    /// Whether the value as it is told, with two digits, reaches it; `None` when there is nothing to reach.
    fn is_met(self, value: f64) -> Option<bool> {
        let told = (value * 100.0).round() / 100.0;
        match self {
            Target::AtLeast(least) => Some(told >= least),
            Target::AtMost(most) => Some(told <= most),
            Target::None => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::AtLeast(least) => f.pad(&format!(">= {least}")),
            Target::AtMost(most) => f.pad(&format!("<= {most}")),
            Target::None => f.pad(""),
        }
    }
}

/// Tells figures as they come: a table for people, or a line of JSON each.
pub(crate) struct Report {
    json: bool,
    row: &'static str,
    missed: usize,
}

impl Report {
    pub(crate) fn new(json: bool) -> Report {
        if !json {
            println!("{:62} {:>9} {:16} {:>9}", "figure", "value", "unit", "target");
        }
        Report { json, row: "", missed: 0 }
    }

    /// The figures from now on are of this row.
    pub(crate) fn begin_row(&mut self, row: &'static str) {
        self.row = row;
    }

    /// Says how it was on the whole.
    pub(crate) fn end(&self) {
        match self.missed {
            0 => eprintln!("every figure reaches its target"),
            1 => eprintln!("1 figure misses its target"),
            missed => eprintln!("{missed} figures miss their targets"),
        }
    }

    /// Tells one figure; `detail` says what it was made of.
    pub(crate) fn figure(&mut self, name: &str, value: f64, unit: &str, target: Target, detail: &str) {
        let name = format!("{}: {name}", self.row);
        let ok = target.is_met(value);
        self.missed += usize::from(ok == Some(false));
        if self.json {
            let goal = ok.map(|_| target.to_string());
            let line =
                json!({ "name": name, "value": value, "unit": unit, "target": goal, "ok": ok, "detail": detail });
            println!("{line}");
            return;
        }
        let verdict = match ok {
            Some(true) => "ok",
            Some(false) => "MISS",
            None => "",
        };
        println!("{name:62} {value:>9.2} {unit:16} {target:>9} {verdict:4}  {detail}");
    }
}

/// The middle one; of an even number, the higher of the two in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
