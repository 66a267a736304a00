//! Web events out of a seed: clicks, requests, impressions and searches of a small shop, some by crawlers, and now
//! and then a line that was cut off on its way.
//!
//! Invariant: the same seed and number give the same bytes, on every machine and in every run.
//!
//! Start at [`Events`].

use std::fmt::Write;

/// One line in this many is cut off.
const CUT_ONE_IN: u64 = 997;

/// Four events in ten are a crawler's, about as on a real site.
const CRAWLER_PERCENT: u64 = 40;

/// When the first event happened: 2026-03-01T08:00:00Z, so that nothing depends on today.
const FIRST_AT_MS: i64 = 1_772_352_000_000;

const NAMES: [&str; 8] = ["ada", "grace", "alan", "edsger", "barbara", "tony", "radia", "leslie"];
const PAGES: [&str; 8] =
    ["/", "/tea/assam", "/tea/sencha", "/tea/rooibos", "/pots", "/cups", "/cart", "/help/shipping"];
const QUERIES: [&str; 6] = ["green tea", "iron pot", "decaf", "gift card", "oolong 100g", "where is my order"];
const BROWSERS: [&str; 3] = ["Firefox/137.0", "Chrome/135.0", "Safari/18.3"];
const CRAWLERS: [&str; 3] = ["Googlebot/2.1", "bingbot/2.0", "AhrefsBot/7.0"];

/// The events of one seed, as lines of JSON.
#[derive(Debug)]
pub(crate) struct Events {
    dice: Dice,
    at_ms: i64,
}

impl Events {
    /// From the first event on.
    pub(crate) fn new(seed: u64) -> Events {
        Events { dice: Dice(seed), at_ms: FIRST_AT_MS }
    }

    /// Writes the next event into `line`, which is emptied first.
    pub(crate) fn write_next(&mut self, line: &mut String) {
        line.clear();
        self.at_ms += self.dice.below(40) as i64;
        let crawler = self.dice.below(100) < CRAWLER_PERCENT;
        let dice = &mut self.dice;
        let kind = ["click", "request", "impression", "search"][dice.below(4) as usize];
        let agent = if crawler { dice.pick(&CRAWLERS) } else { dice.pick(&BROWSERS) };
        let time = crate::human::time(self.at_ms);
        let (ip, page) = (dice.below(1 << 16), dice.pick(&PAGES));
        let (low, high) = (ip & 0xff, ip >> 8);
        let _ = write!(line, r#"{{"kind":"{kind}","time":"{time}","page":"{page}","ip":"198.51.{high}.{low}""#);
        if !crawler {
            let (name, number) = (dice.pick(&NAMES), dice.below(5_000));
            let _ = write!(line, r#","user":{{"id":{number},"email":"{name}.{number}@example.org"}}"#);
        }
        self.write_particulars(kind, line);
        let trace = self.dice.next();
        let _ = write!(line, r#","trace":"{trace:016x}","agent":"{agent}","crawler":{crawler}}}"#);
        if self.dice.below(CUT_ONE_IN) == 0 {
            // In the middle of the time, which is always there and always ASCII.
            line.truncate(r#"{"kind":"click","time":"2026-03-"#.len());
        }
    }

    /// What only events of this kind have.
    fn write_particulars(&mut self, kind: &str, line: &mut String) {
        let dice = &mut self.dice;
        let _ = match kind {
            "click" => write!(line, r#","x":{},"y":{}"#, dice.below(1_280), dice.below(720)),
            "request" => write!(line, r#","status":{},"ms":{}"#, dice.pick(&[200, 200, 200, 304, 404]), dice.below(90)),
            "impression" => write!(line, r#","banner":"spring-{}""#, dice.below(9)),
            _ => write!(line, r#","query":"{}","hits":{}"#, dice.pick(&QUERIES), dice.below(40)),
        };
    }
}

/// SplitMix64: eight lines, the same everywhere, good enough to roll dice.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `[0, bound)`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(seed: u64, count: usize) -> Vec<String> {
        let mut events = Events::new(seed);
        let mut line = String::new();
        let mut next = || {
            events.write_next(&mut line);
            line.clone()
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_events_and_another_does_not() {
        assert_eq!(lines(7, 500), lines(7, 500));
        assert_ne!(lines(7, 500), lines(8, 500));
    }

    #[test]
    fn events_are_json_but_for_a_few_that_were_cut_off() {
        let lines = lines(7, 20_000);
        let (good, cut): (Vec<&String>, Vec<&String>) =
            lines.iter().partition(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
        assert!((5..60).contains(&cut.len()), "{} of 20,000 are cut off", cut.len());
        for kind in ["click", "request", "impression", "search"] {
            assert!(good.iter().any(|line| line.contains(&format!(r#""kind":"{kind}""#))), "no {kind}");
        }
    }
}
