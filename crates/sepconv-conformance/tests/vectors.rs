//! Golden vectors: every bit of the crate, and that faults which are easily made are caught. The faulty implementations go
//! through the function that `vectors check` calls.

mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use program::{EXECUTABLE, ended, python, script, sepconv_conformance};
use sepconv::Numerics;
use sepconv::numerics::{Products, Sum};
use sepconv_conformance::cases::{Case, Operands};
use sepconv_conformance::implementation::{Crate, Error, Implementation};
use sepconv_conformance::session::Element;
use sepconv_conformance::vectors::check::{Checked, check};
use serde_json::{Value, json};
use tempfile::tempdir;

/// Of all types, written once for all tests here.
fn vectors() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        // Tests of both modes may run at the same time.
        let mode = std::env::var(sepconv_conformance::session::ONEDNN).unwrap_or_default();
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("vectors{mode}"));
        // Those of an earlier run.
        let _ = fs::remove_dir_all(&path);
        let arguments = ["vectors", "export", path.to_str().unwrap(), "--cases", "60", "--seed", "1"];
        let exported = sepconv_conformance(&arguments);
        assert_eq!(exported.status, Some(0), "{}", exported.stderr);
        path
    })
}

/// The crate with something done wrong.
struct Faulty {
    numerics: fn(&mut Numerics),
    /// Height and width of the filter, taps of K weights.
    filter: fn([usize; 2], usize, &mut [u8]),
    /// Extents, bytes of an element, elements.
    output: fn([usize; 4], usize, &mut [u8]),
}

const RIGHT: Faulty = Faulty { numerics: |_| {}, filter: |_, _, _| {}, output: |_, _, _| {} };

impl Implementation for Faulty {
    fn follows_numerics(&self) -> bool {
        true
    }

    fn compute<T: Element>(
        &mut self,
        case: &Case,
        numerics: Option<&Numerics>,
        operands: &Operands<T>,
    ) -> Result<Vec<T>, Error> {
        let mut numerics = numerics.expect("the crate follows numerics").clone();
        let mut operands = operands.clone();
        (self.numerics)(&mut numerics);
        let tap = case.k() * size_of::<T>();
        (self.filter)(case.kernel, tap, bytemuck::cast_slice_mut(&mut operands.depthwise_filter));
        let mut output = Crate.compute(case, Some(&numerics), &operands)?;
        let shape = case.geometry()?.output_shape();
        (self.output)(shape, size_of::<T>(), bytemuck::cast_slice_mut(&mut output));
        Ok(output)
    }
}

/// The cases that failed, each with why.
fn caught(mut faulty: Faulty) -> Vec<(Case, String)> {
    let mut failed = Vec::new();
    let checked = check(vectors(), &mut faulty, |_, case, checked| {
        if let Checked::Failed(told) = checked {
            failed.push((case.clone(), told.why));
        }
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
    println!("{} caught", failed.len());
    failed
}

#[test]
fn the_crate_gives_every_bit_without_tensorflow() {
    assert_eq!(caught(RIGHT), []);
    let arguments = ["vectors", "check", vectors().to_str().unwrap(), "--implementation", "crate"];
    let checked = ended(Command::new(EXECUTABLE).args(arguments).env_remove("TENSORFLOW_DIR"));
    assert_eq!(checked.status, Some(0), "{}{}", checked.stdout, checked.stderr);
    let skipped = checked.stdout.lines().filter(|line| line.starts_with("skipped ")).count();
    assert_eq!(checked.last(), format!("{} passed, 0 failed", 120 - skipped));
    assert!(skipped < 20, "{}", checked.stdout);
}

#[test]
fn one_tap_shifted_is_caught() {
    let filter = |_, tap, filter: &mut [u8]| filter.rotate_left(tap);
    assert!(caught(Faulty { filter, ..RIGHT }).len() >= 90);
}

#[test]
fn a_wrong_last_row_is_caught() {
    let output = |[_, height, width, channels]: [usize; 4], size, output: &mut [u8]| {
        let row = width * channels * size;
        if height > 1 {
            let last = output.len() - row;
            output.copy_within(last - row..last, last);
        }
    };
    let caught = caught(Faulty { output, ..RIGHT });
    assert!(caught.len() >= 80);
    let last = |(case, why): &(Case, String)| {
        let [batch, height, ..] = case.geometry().unwrap().output_shape();
        why.contains(&format!("(batch {}, row {}, ", batch - 1, height - 1))
    };
    assert!(caught.iter().all(last));
}

#[test]
fn one_unit_in_one_lane_of_sixteen_is_caught() {
    let output = |_, size, output: &mut [u8]| {
        // The lowest bit, wherever the machine keeps it.
        let lowest = if cfg!(target_endian = "little") { 0 } else { size - 1 };
        output.chunks_exact_mut(size).skip(5).step_by(16).for_each(|element| element[lowest] ^= 1);
    };
    let caught = caught(Faulty { output, ..RIGHT });
    assert!(caught.len() >= 90);
    assert!(caught.iter().any(|(_, why)| why.contains("first is element 5 ") && why.contains(" 1 units")));
}

fn turned(products: &mut Products) {
    *products = if *products == Products::Separate { Products::Fused } else { Products::Separate };
}

#[test]
fn fused_for_separate_products_and_the_reverse_are_caught_in_pointwise_sums() {
    let caught = caught(Faulty { numerics: |numerics| turned(&mut numerics.pointwise.products), ..RIGHT });
    assert!(caught.len() >= 60);
    for element in ["f32", "f64"] {
        assert!(caught.iter().any(|(case, _)| case.element.to_string() == element), "{element}");
    }
}

#[test]
fn fused_for_separate_products_and_the_reverse_are_caught_in_depthwise_sums() {
    let caught = caught(Faulty { numerics: |numerics| turned(&mut numerics.depthwise.products), ..RIGHT });
    assert!(caught.len() >= 40);
}

#[test]
fn a_block_end_moved_by_16_is_caught() {
    let numerics = |numerics: &mut Numerics| {
        if let Sum::Blocks(sums) = &mut numerics.pointwise.sum
            && let [Sum::Chain(first), Sum::Chain(second), ..] = &mut sums[..]
            && *first > 16
        {
            (*first, *second) = (*first - 16, *second + 16);
        }
    };
    let caught = caught(Faulty { numerics, ..RIGHT });
    assert!(caught.len() >= 8);
    // The deep layers of the corpus among them: what TensorFlow cuts on this machine.
    assert!(caught.iter().all(|(case, _)| case.k() > 16) && caught.iter().any(|(case, _)| case.k() >= 512));
}

/// The page's example, as a file that is given a case.
fn example(directory: &Path) -> String {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("PROTOCOL.md")).unwrap();
    let code = page.split_once("```python\n").unwrap().1.split_once("```").unwrap().0;
    fs::write(directory.join("example.py"), code).unwrap();
    script(directory, &format!("exec '{}' '{}' \"$1\"", python().display(), directory.join("example.py").display()))
}

#[test]
fn the_example_of_the_protocol_gives_tensorflows_bits() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("vectors");
    let exported = sepconv_conformance(&[
        "vectors",
        "export",
        path.to_str().unwrap(),
        "--cases",
        "20",
        "--seed",
        "1",
        "--dtype",
        "f64",
    ]);
    assert_eq!(exported.status, Some(0), "{}", exported.stderr);
    let before = contents(&path);
    let arguments = ["vectors", "check", path.to_str().unwrap(), "--implementation", &example(directory.path())];
    let checked = sepconv_conformance(&arguments);
    assert_eq!(checked.status, Some(0), "{}{}", checked.stdout, checked.stderr);
    let passed: usize = checked.last().strip_suffix(" passed, 0 failed").unwrap().parse().unwrap();
    assert!(
        passed >= 15 && checked.stdout.contains("not supported by the program: only sums of"),
        "{}",
        checked.stdout
    );
    assert_eq!(contents(&path), before, "the vectors stay as they are");
}

#[test]
fn the_order_of_the_protocols_example_is_revealed() {
    let directory = tempdir().unwrap();
    let shape = "f64 input 2,5,4,6 kernel 3,2 multiplier 2 columns 5 strides 1,1 padding same rate 1,1";
    let revealed = sepconv_conformance(&["reveal", shape, "--implementation", &example(directory.path())]);
    let expected = "\nv1 depthwise(separate, all) pointwise(separate, 12) subnormals(kept)\n";
    assert!(revealed.stdout.contains(expected), "{}{}", revealed.stdout, revealed.stderr);
}

/// Every file with its bytes.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(contents(&path)),
            false => files.push((path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
    files.sort();
    files
}

#[test]
fn directories_that_are_no_vectors_are_refused() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("vectors");
    let told = || {
        let arguments = ["vectors", "check", path.to_str().unwrap(), "--implementation", "crate"];
        sepconv_conformance(&arguments).error().to_owned()
    };
    assert!(told().contains("No such file or directory"));
    fs::create_dir(&path).unwrap();
    assert!(told().contains("is not a directory of vectors: vectors.json"));
    fs::write(path.join("vectors.json"), r#"{"format": "others", "version": 1}"#).unwrap();
    assert!(told().contains(r#"the format in vectors.json must be "sepconv vectors", got "others""#));
    let nothing = r#"{"format": "sepconv vectors", "version": 1, "tensorflow": "", "seed": 1, "cases": [],
        "reference": {"onednn": true, "threads": 1, "filters": "fed"}}"#;
    fs::write(path.join("vectors.json"), nothing).unwrap();
    assert!(told().contains("vectors.json must name at least 1 case, got 0"), "{}", told());
    fs::write(path.join("vectors.json"), r#"{"format": "sepconv vectors", "version": 9}"#).unwrap();
    assert!(told().contains("has version 9 of the format, this program reads versions 1 to 1"));

    let export = ["vectors", "export", path.to_str().unwrap()];
    assert!(sepconv_conformance(&export).error().contains("exists already: name a directory that does not"));
    let export = ["vectors", "export", "/no/such/vectors"];
    let error = "error: /no/such/vectors: No such file or directory (os error 2)";
    assert_eq!(sepconv_conformance(&export).error(), error);
    let other = directory.path().join("other");
    let export = ["vectors", "export", other.to_str().unwrap()];
    let failed = ended(Command::new(EXECUTABLE).args(export).env_remove("TENSORFLOW_DIR"));
    assert!(failed.error().contains("TENSORFLOW_DIR must name a directory"));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing half-written stays");
}

#[test]
fn a_damaged_case_is_named() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("vectors");
    let export = ["vectors", "export", path.to_str().unwrap(), "--cases", "0", "--dtype", "f32"];
    assert_eq!(sepconv_conformance(&export).status, Some(0));
    let output = path.join("0014/output.npy");
    let bytes = fs::read(&output).unwrap();
    let told = || {
        let arguments = ["vectors", "check", path.to_str().unwrap(), "--implementation", "crate"];
        let checked = sepconv_conformance(&arguments);
        assert_eq!(checked.status, Some(2), "{}", checked.stdout);
        checked.stderr
    };
    fs::write(&output, &bytes[..bytes.len() - 1]).unwrap();
    assert!(told().contains("0014/output.npy must have"));
    let case = fs::read_to_string(path.join("0014/case.json")).unwrap();
    for (field, other, expected) in [
        ("dtype", json!("f64"), r#""f32""#),
        ("strides", json!([2, 2]), "[1,1]"),
        ("padding", json!("VALID"), r#""SAME""#),
        ("rate", json!([1, 2]), "[1,1]"),
        ("output_shape", json!([1, 1, 1, 1]), "[1,8,8,16]"),
        ("reason", json!("none"), "null"),
    ] {
        let mut contradicting: Value = serde_json::from_str(&case).unwrap();
        contradicting[field] = other;
        fs::write(path.join("0014/case.json"), contradicting.to_string()).unwrap();
        assert!(told().contains(&format!("0014/case.json: {field} must be {expected}")), "{}", told());
    }
    fs::write(path.join("0014/case.json"), "{}").unwrap();
    assert!(told().contains("0014/case.json: missing field `case`"));
    for (file, expected) in [("0014/case.json", "/0014/case.json: not a"), ("vectors.json", ": vectors.json: not a")] {
        fs::remove_file(path.join(file)).unwrap();
        std::os::unix::fs::symlink("/dev/null", path.join(file)).unwrap();
        assert!(told().ends_with(&format!("{expected} regular file\n")), "{}", told());
    }
}
