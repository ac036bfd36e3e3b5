//! The report of a run: all results as JSON, and a page of tables and pictures that needs nothing but itself.

mod page;

use std::path::Path;

use serde::Serialize;

use crate::files;
use crate::run::{Record, Task, Verdict};

/// What is written as JSON, and shown.
#[derive(Serialize)]
pub struct Report<'a> {
    tensorflow: String,
    onednn: bool,
    threads: u8,
    /// The mode in words.
    mode: String,
    implementation: String,
    seed: u64,
    records: &'a [Record],
    /// What repeats the failing cases, in order.
    #[serde(skip)]
    repeats: Vec<String>,
}

impl<'a> Report<'a> {
    pub fn new(task: &Task, tensorflow: &str, records: &'a [Record]) -> Self {
        let repeats = records.iter().filter_map(|record| match &record.outcome {
            Verdict::Failed { case, .. } => Some(task.repeat(case)),
            _ => None,
        });
        Self {
            tensorflow: tensorflow.into(),
            onednn: task.reference.mode.onednn,
            threads: task.reference.mode.threads,
            mode: task.reference.to_string(),
            implementation: task.implementation.to_string(),
            seed: task.trials.seed,
            records,
            repeats: repeats.collect(),
        }
    }

    /// `path` and the page beside it.
    pub fn write(&self, path: &Path) -> Result<(), files::Error> {
        let json = serde_json::to_string_pretty(self).expect("a report is made of texts and numbers");
        files::write(path, &(json + "\n"))?;
        files::write(&path.with_extension("html"), &page::page(self))
    }
}
