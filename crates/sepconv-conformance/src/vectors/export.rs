//! Writes golden vectors; in the process in which TensorFlow runs.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{FILE, FORMAT, Index, VERSION};
use crate::case_directory;
use crate::cases::with_element;
use crate::reference::Reference;
use crate::trials::Trials;
use crate::worker::{Message, Sender, Stopped};

#[derive(Serialize, Deserialize)]
pub struct Task {
    pub trials: Trials,
    pub reference: Reference,
    /// Exists, and is moved to its place when all is written.
    pub directory: PathBuf,
}

/// In the child process.
pub fn work(task: &Task, send: &mut Sender) -> Result<(), Stopped> {
    let Task { trials, reference, directory } = task;
    let mut index = Index {
        format: FORMAT.into(),
        version: VERSION,
        tensorflow: tensorflow::version().unwrap_or_default(),
        reference: *reference,
        seed: trials.seed,
        cases: Vec::new(),
    };
    for number in 0..trials.len() {
        let case = trials.case(number);
        send.send(&Message::Trying(case.clone()));
        let name = format!("{number:04}");
        let write = || -> Result<(), Box<dyn std::error::Error>> {
            let directory = directory.join(&name);
            fs::create_dir(&directory)?;
            with_element!(case.element, T => {
                let (geometry, operands) = (case.geometry()?, case.operands::<T>());
                let output = reference.output(&case, &operands, &geometry)?;
                let order = reference.order::<T>(&case, &geometry)?.map_err(|reason| reason.why);
                case_directory::write(&directory, &case, &order, &operands)?;
                case_directory::write_output(&directory, &case, &output)?;
            });
            Ok(())
        };
        write().map_err(|error| Stopped(format!("{case}: {error}")))?;
        index.cases.push(name);
        send.send(&Message::Exported(case));
    }
    let text = serde_json::to_string_pretty(&index).expect("an index is made of texts and numbers");
    fs::write(directory.join(FILE), text + "\n").map_err(|error| Stopped(format!("{}: {error}", FILE)))
}
