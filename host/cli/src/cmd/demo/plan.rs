//! What the demo deploys: a topic, and the stages of its pipeline.

use protocol::{PluginName, TopicName, TransformName};
use serde_json::{Value, json};

/// A topic and its pipeline.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) topic: TopicName,
    pub(super) stages: Vec<Stage>,
    /// The JSON field by which what was stored is told apart.
    pub(super) tell_by: &'static str,
}

/// One transform.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) name: TransformName,
    pub(super) plugin: PluginName,
    pub(super) config: Value,
    /// What it does, in a few plain words.
    pub(super) purpose: &'static str,
}

impl Stage {
    fn new(name: &str, plugin: &str, config: Value, purpose: &'static str) -> Stage {
        let valid = "the names are constants";
        Stage { name: name.parse().expect(valid), plugin: plugin.parse().expect(valid), config, purpose }
    }

    /// Its name, and its plugin's where that is another.
    pub(super) fn title(&self) -> String {
        let Stage { name, plugin, .. } = self;
        if name.as_str() == plugin.as_str() { name.to_string() } else { format!("{name} ({plugin})") }
    }

    /// Whether it hides something of the records it lets through.
    pub(super) fn masks(&self) -> bool {
        self.plugin.as_str() == "mask"
    }
}

impl Plan {
    /// For the generated events.
    pub(super) fn events() -> Plan {
        let not_crawlers = json!({ "pointer": "/crawler", "op": "eq", "value": false });
        let masked = json!({ "network": ["/ip"], "redact": ["/user/email"] });
        Plan {
            topic: topic("events"),
            stages: vec![
                Stage::new("people-only", "json-filter", not_crawlers, "drops what crawlers did"),
                Stage::new("privacy", "mask", masked, "hides IPs and e-mails"),
                Stage::new("slim", "json-project", json!({ "drop": ["trace"] }), "removes what nobody reads"),
            ],
            tell_by: "kind",
        }
    }

    /// For an access log.
    pub(super) fn access_log() -> Plan {
        let errors = json!({ "pointer": "/status", "op": ">=", "value": 400 });
        Plan {
            topic: topic("requests"),
            stages: vec![
                Stage::new("access-log-json", "access-log-json", json!({}), "turns lines into JSON"),
                Stage::new("json-filter", "json-filter", errors, "keeps status 400 and up"),
            ],
            tell_by: "status",
        }
    }

    /// Where records go that a stage fails on.
    pub(super) fn dead_letter_topic(&self) -> TopicName {
        self.topic.dead_letter().expect("the name is short")
    }
}

fn topic(name: &str) -> TopicName {
    name.parse().expect("the names are constants")
}
