//! How far a run is, on stderr: a bar for people, a line now and then for logs.

use std::{io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a log is told.
const INTERVAL: Duration = Duration::from_secs(10);

/// Tells how far a run is.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    told: Duration,
    seeds: u64,
    cuts: Option<u64>,
    seconds: Option<u64>,
}

impl Progress {
    /// Of a run that ends with so many seeds, or cuts, or seconds.
    pub(crate) fn new(seeds: u64, cuts: Option<u64>, seconds: Option<u64>) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:30} {msg}").expect("the template is one");
            ProgressBar::new(1_000).with_style(style)
        });
        Progress { bar, told: Duration::ZERO, seeds, cuts, seconds }
    }

    /// Tells it, if it is time to.
    pub(crate) fn tell(&mut self, seeds: u64, cuts: u64, elapsed: Duration) {
        let elapsed_seconds = elapsed.as_secs_f64().max(0.001);
        let share = self.share(seeds, cuts, elapsed_seconds);
        let left = (elapsed_seconds / share - elapsed_seconds).max(0.0);
        let text = || {
            let per_second = cuts as f64 / elapsed_seconds;
            format!("{seeds} seeds, {cuts} cuts, {per_second:.0} a second, {left:.0} s left")
        };
        match &self.bar {
            Some(bar) => {
                bar.set_position((share * 1_000.0) as u64);
                bar.set_message(text());
            }
            None if elapsed >= self.told + INTERVAL => {
                self.told = elapsed;
                eprintln!("{}", text());
            }
            None => {}
        }
    }

    /// How much of it is done, by whatever ends it first.
    fn share(&self, seeds: u64, cuts: u64, seconds: f64) -> f64 {
        let of = |done: f64, all: Option<u64>| all.map_or(0.0, |all| done / all.max(1) as f64);
        let share = of(seeds as f64, Some(self.seeds)).max(of(cuts as f64, self.cuts)).max(of(seconds, self.seconds));
        share.clamp(1e-9, 1.0)
    }

    /// Makes way for something else on the screen.
    pub(crate) fn pause(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}
