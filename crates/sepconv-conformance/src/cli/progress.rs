//! A bar on the standard error, if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

pub fn bar(length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len}, {eta} left {msg}");
    ProgressBar::new(length as u64).with_style(style.expect("the template is a constant"))
}
