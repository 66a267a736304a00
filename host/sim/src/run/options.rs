//! How a run is done, and how to say so on the command line.
//!
//! Start at [`RunOptions`].

use crate::disk::{CutModel, Lie};

/// How a run is done. Whatever is left out changes nothing of the rest but what it finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOptions {
    /// Power cuts of the first journal.
    pub cuts: usize,
    /// What the disk lies about.
    pub lie: Lie,
    /// What is assumed of the machine; each cut takes one of these.
    pub models: Vec<CutModel>,
    /// Whether calls to the disk fail.
    pub faults: bool,
    /// Steps of the workload, at most.
    pub steps_max: Option<usize>,
    /// Steps that are left out.
    pub skip: Vec<usize>,
    /// The only cut, if it is to be one.
    pub cut: Option<usize>,
    /// Whether what goes on after a cut is cut again.
    pub again: bool,
}

impl Default for RunOptions {
    fn default() -> Self {
        RunOptions {
            cuts: 100,
            lie: Lie::None,
            models: CutModel::EVERY.to_vec(),
            faults: true,
            steps_max: None,
            skip: Vec::new(),
            cut: None,
            again: true,
        }
    }
}

impl RunOptions {
    /// What leads to this on the command line; the number of cuts and a lie are not for it.
    #[must_use]
    pub fn arguments(&self) -> String {
        let mut arguments = String::new();
        if self.models != CutModel::EVERY {
            let names: Vec<&str> = self.models.iter().map(|model| model.name()).collect();
            arguments += &format!(" --model {}", names.join(","));
        }
        if !self.faults {
            arguments += " --no-faults";
        }
        if let Some(steps_max) = self.steps_max {
            arguments += &format!(" --steps {steps_max}");
        }
        if !self.skip.is_empty() {
            let skip: Vec<String> = self.skip.iter().map(usize::to_string).collect();
            arguments += &format!(" --skip {}", skip.join(","));
        }
        if let Some(cut) = self.cut {
            arguments += &format!(" --cut {cut}");
        }
        if !self.again {
            arguments += " --once";
        }
        arguments
    }
}
