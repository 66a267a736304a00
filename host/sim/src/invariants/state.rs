//! The state is as of exactly the last commit that is there.

use crate::{invariants::Violation, model::Model, observed::Observed};

pub(super) fn check(model: &Model, observed: &Observed) -> Result<(), Violation> {
    for (key, value) in &model.state {
        if observed.state.get(key) != Some(value) {
            let found = observed.state.get(key);
            return Err(Violation::new("state", format!("{key:?} is {found:?}, not {value:?}")));
        }
    }
    match observed.state.keys().find(|key| !model.state.contains_key(key)) {
        Some(key) => Err(Violation::new("state", format!("{key:?} is there"))),
        None => Ok(()),
    }
}
