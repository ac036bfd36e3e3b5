//! What the library crate asks of other crates.

use std::env;
use std::process::Command;

use serde_json::Value;

#[test]
fn the_library_fits_beside_other_versions_of_what_it_needs() {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"]);
    let told = command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../sepconv/Cargo.toml")).output().unwrap();
    let metadata: Value = serde_json::from_slice(&told.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let library = packages.iter().find(|package| package["name"] == "sepconv").unwrap();
    let needed = library["dependencies"].as_array().unwrap().iter().filter(|needed| needed["kind"].is_null());
    let requirements: Vec<_> = needed.map(|needed| needed["req"].as_str().unwrap()).collect();
    assert!(!requirements.is_empty() && requirements.iter().all(|text| text.starts_with('^')), "{requirements:?}");
}
