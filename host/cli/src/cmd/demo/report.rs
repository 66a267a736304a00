//! What the demo tells after the last record: costs, one record followed, dead letters, the books, how to go on.
//!
//! Start at [`Report::tell`].

use client::{ConsumedRecord, Offset};
use protocol::TransformDescription;
use serde_json::{Map, json};
use transform::{TraceVerdict, TracedRecord};

use super::{diff, flow::Flowed, plan::Plan, screen::Screen, setup::Setup, source::Origin};
use crate::{
    builtin, clock, human,
    output::table,
    trial::{self, Trial},
    value,
    view::{BooksView, TransformView},
};

/// Lines among which one is looked for that gets through.
const LOOKED_AT: usize = 1_000;

/// Dead letters that are shown.
const DEAD_LETTERS_SHOWN: usize = 3;

/// Kinds of what was stored that are shown.
const KINDS_SHOWN: usize = 6;

/// Everything there is to tell.
pub(super) struct Report<'a> {
    pub(super) setup: &'a Setup,
    pub(super) plan: &'a Plan,
    pub(super) origin: &'a Origin,
    pub(super) flowed: &'a Flowed,
    pub(super) transforms: &'a [TransformDescription],
}

impl Report<'_> {
    /// Tells it, and says what is wrong with it: nothing, as a rule.
    pub(super) fn tell(&self, screen: &mut Screen<'_>) -> anyhow::Result<Vec<String>> {
        self.tell_costs(screen)?;
        let mut faults = self.tell_followed(screen)?;
        self.tell_dead_letters(screen)?;
        faults.extend(self.faults_in_books());
        self.tell_books(screen, faults.is_empty())?;
        self.tell_way_on(screen)?;
        self.tell_summary(screen, faults.is_empty())?;
        Ok(faults)
    }

    fn tell_costs(&self, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        screen.heading("What each transform did, and took")?;
        let columns = ["  transform", "records in", "kept", "dropped", "failed", "ns a record"];
        let views: Vec<TransformView> = self.transforms.iter().map(TransformView::from).collect();
        let rows: Vec<Vec<String>> = views
            .iter()
            .map(|view| {
                let stats = &view.stats;
                let numbers = [stats.records_in, stats.kept, stats.dropped, stats.failed, stats.ns_per_record];
                std::iter::once(format!("  {}", view.transform)).chain(numbers.map(human::count)).collect()
            })
            .collect();
        screen.line(table(&columns, &rows).trim_end())?;
        if screen.is_json() {
            for view in &views {
                let mut line = serde_json::to_value(view)?;
                line["step"] = "transform".into();
                screen.out().json_line(&line)?;
            }
        }
        Ok(())
    }

    /// Follows one record through the pipeline, and compares what came out with what was read back.
    fn tell_followed(&self, screen: &mut Screen<'_>) -> anyhow::Result<Vec<String>> {
        let Some(first_offset) = self.flowed.first_offset else { return Ok(Vec::new()) };
        let lines = self.origin.first(LOOKED_AT)?;
        let stages = self.plan.stages.iter().map(|stage| trial::Stage {
            name: stage.name.clone(),
            plugin: stage.plugin.clone(),
            wasm: builtin::find(stage.plugin.as_str()).map_or(&[], |builtin| builtin.wasm),
            config: stage.config.to_string(),
        });
        let cache = Some(self.setup.plugin_dir());
        let mut trial = Trial::new(cache, self.plan.topic.clone(), stages.collect())?;
        let trace = trial.trace(&lines, first_offset, clock::now_ms())?;
        let ways: Vec<Way<'_>> = (0..lines.len() as u32).map(|source| Way::of(source, &trace.stages)).collect();
        let whole = ways.iter().find(|way| way.arrives(self.plan.stages.len()));
        let Some(way) = whole.or_else(|| ways.first()) else { return Ok(Vec::new()) };
        screen.heading(&format!("One record on its way: line {} of what was sent", way.source + 1))?;
        let line = value::show(&lines[way.source as usize]);
        screen.row("sent", &line)?;
        way.tell(screen)?;
        let offset = first_offset.plus(way.source.into());
        if screen.is_json() {
            let line = json!({
                "step": "followed", "line": way.source + 1, "offset": offset.0, "value": line,
                "stages": way.to_json(), "stored": way.outcome().map(value::show),
            });
            screen.out().json_line(&line)?;
        }
        self.tell_arrival(way, offset, screen)
    }

    fn tell_arrival(&self, way: &Way<'_>, offset: Offset, screen: &mut Screen<'_>) -> anyhow::Result<Vec<String>> {
        let found = self.flowed.stored.first.iter().find(|record| record.offset == offset);
        let expected = way.outcome();
        let alike = found.and_then(|record| record.value.as_deref()) == expected;
        let topic = &self.plan.topic;
        match (expected, found) {
            (Some(_), Some(_)) if alike => {
                screen.row("stored", &format!("at offset {offset} of `{topic}`, and read back as it is here"))?;
            }
            (None, None) => screen.row("", "so it is not stored; its offset stays empty")?,
            _ => {
                let fault = format!("offset {offset} of `{topic}` is not what the pipeline made of the record");
                screen.row("stored", &screen.verdict(false, &fault))?;
                return Ok(vec![fault]);
            }
        }
        Ok(Vec::new())
    }

    fn tell_dead_letters(&self, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        let letters = &self.flowed.dead_letters;
        if letters.count == 0 {
            return Ok(());
        }
        let count = human::counted(letters.count, "dead letter");
        screen.heading(&format!("{count} in `{}`, each with its reason", self.plan.dead_letter_topic()))?;
        for letter in letters.first.iter().take(DEAD_LETTERS_SHOWN) {
            let reason = header(letter, "weir.dlq.text");
            let (transform, offset) = (header(letter, "weir.dlq.transform"), header(letter, "weir.dlq.offset"));
            let original = letter.value.as_deref().map(value::show).unwrap_or_default();
            screen.row(&format!("offset {offset}"), &original)?;
            screen.paragraph("", &format!("{transform}: {reason}"))?;
            if screen.is_json() {
                let line = json!({
                    "step": "dead_letter", "offset": offset.parse::<u64>().ok(), "transform": transform,
                    "reason": reason, "value": original,
                });
                screen.out().json_line(&line)?;
            }
        }
        let more = letters.count.saturating_sub(DEAD_LETTERS_SHOWN as u64);
        if more > 0 {
            screen.row("", &format!("and {} more", human::count(more)))?;
        }
        Ok(())
    }

    fn faults_in_books(&self) -> Vec<String> {
        let Flowed { books, stored, dead_letters, .. } = self.flowed;
        let mut faults = Vec::new();
        if !books.balance() {
            faults.push("in is not kept + dropped + dead-lettered + rejected".to_owned());
        }
        if stored.count != books.stored {
            faults.push(format!("{} records were stored, {} were read back", books.stored, stored.count));
        }
        if dead_letters.count != books.dead_lettered {
            faults
                .push(format!("{} records were dead-lettered, {} lie there", books.dead_lettered, dead_letters.count));
        }
        let Some(last) = self.transforms.last() else { return faults };
        if last.stats.records_out != books.stored {
            faults.push(format!(
                "the last transform put out {} records, {} are stored",
                last.stats.records_out, books.stored
            ));
        }
        faults
    }

    fn tell_books(&self, screen: &mut Screen<'_>, balanced: bool) -> anyhow::Result<()> {
        let Flowed { books, sending, stored, .. } = self.flowed;
        screen.heading("The books")?;
        let sum = format!(
            "{} in = {} kept + {} dropped + {} dead-lettered + {} rejected",
            human::count(books.records_in),
            human::count(books.kept),
            human::count(books.dropped),
            human::count(books.dead_lettered),
            human::count(books.rejected),
        );
        screen.line(&format!("  {sum}"))?;
        let kinds = self.kinds();
        if !kinds.is_empty() {
            let told: Vec<String> = kinds
                .iter()
                .take(KINDS_SHOWN)
                .map(|(value, count)| format!("{} of {value}", human::count(*count)))
                .collect();
            let more = if kinds.len() > KINDS_SHOWN { ", and others" } else { "" };
            let text = format!("{} by {}: {}{more}", human::count(stored.count), self.plan.tell_by, told.join(", "));
            screen.paragraph("stored", &text)?;
        }
        let rate = books.records_in as f64 / sending.as_secs_f64().max(1e-9);
        let took = format!("{} records/s, acknowledged when on disk", human::count(rate as u64));
        screen.row("took", &format!("{}: {took}", human::elapsed(*sending)))?;
        let verdict = if balanced { "They balance." } else { "They do NOT balance." };
        screen.line(&format!("  {}", screen.verdict(balanced, verdict)))
    }

    /// What was stored, by what tells it apart, the most frequent first.
    fn kinds(&self) -> Vec<(&String, u64)> {
        let mut kinds: Vec<(&String, u64)> =
            self.flowed.stored.by_value.iter().map(|(value, count)| (value, *count)).collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kinds
    }

    fn tell_way_on(&self, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        let weir = program();
        let topic = &self.plan.topic;
        screen.heading("Go on by hand")?;
        let dir = match self.setup.kept_in() {
            Some(dir) => shell_word(&dir.display().to_string()),
            None => {
                screen.line("  This run's data is deleted now. To keep it, run the demo again so:")?;
                let origin = match self.origin {
                    Origin::File(path) => format!("--file {}", shell_word(&path.display().to_string())),
                    Origin::Seed { seed, records } => format!("--records {records} --seed {seed}"),
                };
                screen.line(&format!("    {weir} demo --data-dir ./weir-data {origin}"))?;
                "./weir-data".to_owned()
            }
        };
        let dir = if dir == "./weir-data" { String::new() } else { format!(" --data-dir {dir}") };
        screen.line("  Then start the broker on that data, in this folder,")?;
        screen.line(&format!("    {weir} serve{dir}"))?;
        screen.line("  and in another terminal:")?;
        for command in [
            format!("consume {topic} --count 3"),
            format!("consume {}.dlq --until-end --format json", topic),
            "transform list".to_owned(),
            format!("consume {topic} --from end"),
        ] {
            screen.line(&format!("    {weir} {command}{dir}"))?;
        }
        Ok(())
    }

    fn tell_summary(&self, screen: &mut Screen<'_>, balanced: bool) -> anyhow::Result<()> {
        if !screen.is_json() {
            return Ok(());
        }
        let Flowed { books, sending, stored, dead_letters, .. } = self.flowed;
        let mut summary = serde_json::to_value(BooksView::from(*books))?;
        let by: Map<_, _> = stored.by_value.iter().map(|(value, count)| (value.clone(), (*count).into())).collect();
        let rate = books.records_in as f64 / sending.as_secs_f64().max(1e-9);
        summary["balanced"] = balanced.into();
        summary["read_back"] = stored.count.into();
        summary["dead_letters_read_back"] = dead_letters.count.into();
        summary[format!("stored_by_{}", self.plan.tell_by)] = by.into();
        summary["elapsed_ms"] = (sending.as_millis() as u64).into();
        summary["records_per_s"] = (rate as u64).into();
        screen.out().json_line(&summary)
    }
}

/// One record's stations.
struct Way<'a> {
    source: u32,
    stations: Vec<(&'a str, &'a TracedRecord)>,
}

impl<'a> Way<'a> {
    fn of(source: u32, stages: &'a [transform::StageTrace]) -> Way<'a> {
        let stations = stages.iter().filter_map(|stage| {
            let record = stage.records.iter().find(|record| record.source == source)?;
            Some((stage.transform.as_str(), record))
        });
        Way { source, stations: stations.collect() }
    }

    /// Whether it passed all stages.
    fn arrives(&self, stages: usize) -> bool {
        self.stations.len() == stages && self.outcome().is_some()
    }

    /// What each stage said.
    fn to_json(&self) -> Vec<serde_json::Value> {
        let station = |(name, station): &(&str, &TracedRecord)| match &station.verdict {
            TraceVerdict::Keep => json!({ "transform": name, "verdict": "keep" }),
            TraceVerdict::Drop => json!({ "transform": name, "verdict": "drop" }),
            TraceVerdict::Fail { code, text } => {
                json!({ "transform": name, "verdict": "fail", "code": code, "text": text })
            }
            TraceVerdict::Replace(record) => {
                let value = record.value.as_deref().map(value::show);
                json!({ "transform": name, "verdict": "replace", "value": value })
            }
            TraceVerdict::Multiply(_) | TraceVerdict::Route { .. } => json!({ "transform": name, "verdict": "pass" }),
        };
        self.stations.iter().map(station).collect()
    }

    /// The value at the end, if it got there.
    fn outcome(&self) -> Option<&'a [u8]> {
        let (_, last) = self.stations.last()?;
        match &last.verdict {
            TraceVerdict::Keep => last.record.value.as_deref(),
            TraceVerdict::Replace(record) => record.value.as_deref(),
            _ => None,
        }
    }

    fn tell(&self, screen: &mut Screen<'_>) -> anyhow::Result<()> {
        for (name, station) in &self.stations {
            let before = station.record.value.as_deref().unwrap_or_default();
            match &station.verdict {
                TraceVerdict::Keep => screen.row(name, "keep")?,
                TraceVerdict::Drop => screen.row(name, "drop")?,
                TraceVerdict::Fail { text, .. } => screen.paragraph(name, &format!("fail: {text}"))?,
                TraceVerdict::Replace(record) => {
                    let after = record.value.as_deref().unwrap_or_default();
                    let fields = diff::lines(before, after);
                    screen.row(name, &format!("replace, {}", human::counted(fields.len() as u64, "field")))?;
                    fields.iter().try_for_each(|field| screen.row("", field))?;
                }
                TraceVerdict::Multiply(_) | TraceVerdict::Route { .. } => screen.row(name, "pass on")?,
            }
        }
        Ok(())
    }
}

fn header(record: &ConsumedRecord, name: &str) -> String {
    let header = record.headers.iter().find(|header| header.name_text() == name);
    header.and_then(|header| header.value.as_deref()).map(value::show).unwrap_or_default()
}

/// How this program was called, so that the commands shown work as they stand.
fn program() -> String {
    let called = std::env::args_os().next().map(|called| called.to_string_lossy().into_owned());
    shell_word(&called.unwrap_or_else(|| "weir".to_owned()))
}

/// Text as one word of a shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::shell_word;

    #[test]
    fn words_are_quoted_where_a_shell_would_split_them() {
        assert_eq!(shell_word("./weir-data"), "./weir-data");
        assert_eq!(shell_word("/tmp/my logs/a.log"), "'/tmp/my logs/a.log'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
    }
}
