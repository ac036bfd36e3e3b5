//! What the commands print, write and exit with.

#[path = "../../sepconv-tensorflow/tests/library/mod.rs"]
mod library;
mod program;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use program::{EXECUTABLE, ended, script, sepconv_conformance};
use sepconv_conformance::cases::Case;
use serde_json::Value;
use tempfile::tempdir;

#[test]
fn a_run_counts_and_reports() {
    let directory = tempdir().unwrap();
    let report = directory.path().join("report.json");
    let arguments = ["run", "--cases", "30", "--seed", "1", "--dtype", "f32", "--report", report.to_str().unwrap()];
    let ran = sepconv_conformance(&arguments);
    assert_eq!((ran.status, ran.last()), (Some(0), "45 passed, 0 failed"), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stderr, "", "progress is for terminals only");

    let json: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    let records = json["records"].as_array().unwrap();
    assert_eq!((records.len(), json["seed"].as_u64()), (45, Some(1)));
    let decided = |record: &Value| record["numerics"].is_string() != record["reason"].is_object();
    assert!(records.iter().all(decided), "every case has an order or a reason");
    let page = fs::read_to_string(directory.path().join("report.html")).unwrap();
    assert!(page.contains("45 passed, 0 failed") && page.contains("K of 512 or more"), "{page}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else stays");
}

#[test]
fn constant_filters_have_orders_of_their_own() {
    let arguments = ["run", "--cases", "20", "--seed", "1", "--dtype", "f32", "--filters", "constant"];
    let ran = sepconv_conformance(&arguments);
    assert_eq!((ran.status, ran.last()), (Some(0), "35 passed, 0 failed"), "{}", ran.stdout);
}

#[test]
fn that_the_op_did_it_is_counted_by_its_kernels() {
    let library = library::path().to_str().unwrap();
    let arguments = ["run", "--cases", "30", "--seed", "1", "--implementation", "op", "--library", library];
    let ran = sepconv_conformance(&arguments);
    assert_eq!((ran.status, ran.last()), (Some(0), "90 passed, 0 failed"), "{}", ran.stdout);
    let number = |ending: &str| -> usize {
        let words = ran.stdout.lines().rev().find_map(|line| line.split_once(ending)).unwrap().0;
        words.split_whitespace().last().unwrap().parse().unwrap()
    };
    assert!(number(" calls") > 60 && number(" calls") == number(" through the implementation"), "{}", ran.stdout);
}

/// Where input and output have one shape, a copy is a result: all wrong, and easily made.
const SQUARE: &str = "f32 input 2,4,5,3 kernel 3,3 multiplier 1 columns 3 strides 1,1 padding same rate 1,1";
const COPY: &str = r#"cp "$1/input.npy" "$1/output.npy""#;

#[test]
fn a_mismatch_is_shown_and_repeated_by_its_command() {
    let directory = tempdir().unwrap();
    let report = directory.path().join("report.json");
    let copy = script(directory.path(), COPY);
    let arguments = ["run", "--case", SQUARE, "--implementation", &copy, "--report", report.to_str().unwrap()];
    let ran = sepconv_conformance(&arguments);
    assert_eq!((ran.status, ran.last()), (Some(1), "0 passed, 1 failed"), "{}", ran.stderr);
    for part in
        ["120 of 120 elements differ", "(batch 0, row 0, column 0, channel 0)", "(0x", "units in the last place"]
    {
        assert!(ran.stdout.contains(part), "no {part} in {}", ran.stdout);
    }
    let page = fs::read_to_string(report.with_extension("html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 2);
    // Image 4 by 5, product 40 by 3, each cell of them.
    assert_eq!(page.matches("<rect").count(), 20 + 120);

    let repeat =
        ran.stdout.lines().find_map(|line| line.trim().strip_prefix("repeat it: sepconv-conformance ")).unwrap();
    let again = ended(Command::new("sh").arg("-c").arg(format!("{EXECUTABLE} {repeat}")));
    assert_eq!((again.status, again.last()), (Some(1), "0 passed, 1 failed"), "{}", again.stderr);
}

#[test]
fn a_random_case_that_fails_is_shrunk() {
    let directory = tempdir().unwrap();
    // Says of all others that it does not do them.
    let only_bf16 = r#"grep -q '"dtype": "bf16"' "$1/case.json" && grep -q 'seed 0"' "$1/case.json" || exit 3"#;
    let ran = sepconv_conformance(&["run", "--cases", "0", "--implementation", &script(directory.path(), only_bf16)]);
    assert_eq!((ran.status, ran.last()), (Some(1), "0 passed, 15 failed, 45 skipped"), "{}", ran.stdout);
    assert!(ran.stdout.contains("45 to TensorFlow (45 not supported by the program)"), "{}", ran.stdout);

    let three = r#"grep -q 'seed 0"' "$1/case.json" && exit 3; exit 1"#;
    let arguments = ["run", "--cases", "1", "--seed", "3", "--dtype", "f64", "--implementation"];
    let ran = sepconv_conformance(&[&arguments[..], &[&script(directory.path(), three)]].concat());
    assert_eq!((ran.status, ran.last()), (Some(1), "0 passed, 1 failed, 15 skipped"), "{}", ran.stdout);
    let smallest =
        "FAILED f64 input 1,1,1,2 kernel 1,1 multiplier 1 columns 2 strides 1,1 padding same rate 1,1 values uniform";
    assert!(ran.stdout.contains(smallest) && ran.stdout.contains("found as f64 "), "{}", ran.stdout);
}

#[test]
fn a_program_that_skips_every_case_is_no_success() {
    let directory = tempdir().unwrap();
    let program = script(directory.path(), "exit 3");
    let ran = sepconv_conformance(&["run", "--case", SQUARE, "--implementation", &program]);
    assert_eq!((ran.status, ran.last()), (Some(1), "0 passed, 0 failed, 1 skipped"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn a_case_that_ends_the_process_is_named_and_the_rest_goes_on() {
    let directory = tempdir().unwrap();
    // The last but one of the corpus.
    let abort =
        r#"grep -q 'input 1,28,28,120 ' "$1/case.json" || exit 3; echo "check failed" >&2; kill -ABRT $PPID; sleep 1"#;
    let temporary = tempdir().unwrap();
    let arguments = ["run", "--cases", "0", "--dtype", "f32", "--implementation", &script(directory.path(), abort)];
    let ran = ended(Command::new(EXECUTABLE).args(arguments).env("TMPDIR", temporary.path()));
    assert_eq!((ran.status, ran.last()), (Some(1), "0 passed, 1 failed, 14 skipped"), "{}{}", ran.stdout, ran.stderr);
    let failed: Vec<_> = ran.stdout.lines().skip_while(|line| !line.starts_with("FAILED")).take(2).collect();
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing half-written stays");
    assert!(failed[0].starts_with("FAILED f32 input 1,28,28,120 ") && failed[1].contains("SIGABRT"), "{failed:?}");
}

#[test]
fn programs_that_do_not_answer_are_told_apart() {
    let directory = tempdir().unwrap();
    let told = |text: &str| {
        let arguments =
            ["run", "--case", SQUARE, "--timeout", "1", "--implementation", &script(directory.path(), text)];
        let ran = sepconv_conformance(&arguments);
        assert_eq!((ran.status, ran.last()), (Some(1), "0 passed, 1 failed"), "{}", ran.stderr);
        ran.stdout.lines().skip_while(|line| !line.starts_with("FAILED")).nth(1).unwrap().to_owned()
    };
    assert!(told("true").ends_with("wrote no output.npy"));
    assert!(told("echo one >&2; echo two >&2; exit 7").ends_with("failed (exit status: 7): two"));
    assert!(told("exec sleep 30").contains("was ended after 1s"));
    assert!(told(r#"mkfifo "$1/output.npy""#).ends_with("output.npy: not a regular file"));
    assert!(told("mkfifo pipe; mv pipe stderr; echo said >&2; exit 7").ends_with(": said"));
    assert!(told("echo nothing > $1/output.npy").contains("is not a file that numpy.save writes"));
    let error = told(r#"cp "$1/pointwise_filter.npy" "$1/output.npy""#);
    assert!(error.contains("must hold <f4 of shape (2, 4, 5, 3), got <f4 of shape (1, 1, 3, 3)"), "{error}");
}

/// Starts another process, whose number it writes beside itself, and waits for it.
const WRAPPER: &str = r#"sleep 60 & echo $! > "$0.new"; mv "$0.new" "$0.started"; wait"#;

/// Waits until `done` gives something.
fn awaited<T>(done: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        match done() {
            Some(value) => return value,
            None => assert!(begun.elapsed() < Duration::from_secs(20), "nothing within 20 seconds"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_program_starts_is_ended_with_it() {
    let (directory, temporary) = (tempdir().unwrap(), tempdir().unwrap());
    let started = directory.path().join("program.started");
    for timeout in ["2", "60"] {
        let arguments =
            ["reveal", SQUARE, "--timeout", timeout, "--implementation", &script(directory.path(), WRAPPER)];
        let mut command = Command::new(EXECUTABLE);
        command.args(arguments).env("TMPDIR", temporary.path()).stdout(Stdio::null());
        let mut revealing = command.spawn().unwrap();
        let sleeper = awaited(|| fs::read_to_string(&started).ok());
        if timeout == "60" {
            // As INT, which a terminal sends for Ctrl-C; that may be ignored here.
            assert!(Command::new("kill").args(["-TERM", &revealing.id().to_string()]).status().unwrap().success());
        }
        let status = revealing.wait().unwrap();
        assert_eq!((status.code(), status.signal()), if timeout == "2" { (Some(1), None) } else { (None, Some(15)) });
        assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0, "nothing half-written stays");
        // Gone, or dead and not yet waited for by whoever inherited it.
        awaited(|| match fs::read_to_string(format!("/proc/{}/stat", sleeper.trim())) {
            Ok(stat) => stat.contains(") Z ").then_some(()),
            Err(_) => Some(()),
        });
        fs::remove_file(&started).unwrap();
    }
}

#[test]
fn output_that_nobody_can_read_is_an_error() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("vectors");
    let vectors = path.to_str().unwrap();
    for arguments in [
        &["run", "--case", "tiny"][..],
        &["reveal", "tiny"],
        &["reveal", "tiny", "--implementation", "crate"],
        &["vectors", "export", vectors, "--cases", "0", "--dtype", "f32"],
        &["vectors", "check", vectors, "--implementation", "crate"],
        &["deviations"],
        &["deviations", "--json"],
        &["observe"],
    ] {
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        let told = ended(Command::new(EXECUTABLE).args(arguments).stdout(full()));
        assert_eq!(told.status, Some(2), "{arguments:?}: {}", told.stderr);
        let last = told.stderr.lines().last().unwrap();
        assert_eq!(last, "error: standard output: No space left on device (os error 28)", "{arguments:?}");
        // What is said of it may be as unreadable.
        assert_eq!(ended(Command::new(EXECUTABLE).args(arguments).stdout(full()).stderr(full())).status, Some(2));
    }
}

#[test]
fn whoever_reads_no_further_is_told_nothing() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("vectors");
    let vectors = path.to_str().unwrap();
    let exported = sepconv_conformance(&["vectors", "export", vectors, "--cases", "0", "--dtype", "f32"]);
    assert_eq!(exported.status, Some(0), "{}", exported.stderr);
    let slow = script(directory.path(), "sleep 0.5; exit 1");
    for arguments in [
        &["run", "--case", SQUARE, "--implementation", &slow][..],
        &["vectors", "check", vectors, "--implementation", &slow],
    ] {
        let mut running =
            Command::new(EXECUTABLE).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Closed between two lines: the second is that of the first failure.
        BufReader::new(running.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let ended = running.wait_with_output().unwrap();
        let told = String::from_utf8(ended.stderr).unwrap();
        assert_eq!((ended.status.code(), &*told), (Some(2), ""), "{arguments:?}");
    }
}

#[test]
fn the_cases_that_help_shows_are_taken() {
    for command in ["run", "reveal"] {
        let help = sepconv_conformance(&[command, "--help"]).stdout;
        let shown: Vec<_> = help.split('"').skip(1).step_by(2).collect();
        assert_eq!(shown.len(), 3, "{help}");
        assert!(shown.iter().all(|case| Case::given(case).is_ok()), "{shown:?}");
    }
}

#[test]
fn an_export_says_how_much_it_takes() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("vectors");
    let arguments = ["vectors", "export", path.to_str().unwrap(), "--cases", "0", "--dtype", "f32"];
    let exported = sepconv_conformance(&arguments);
    assert!(exported.last().ends_with("/vectors, 73 MB"), "{}{}", exported.stdout, exported.stderr);
    let help = sepconv_conformance(&["vectors", "export", "--help"]).stdout;
    assert!(help.contains("those of f32 alone 73 MB"), "{help}");
}

#[test]
fn an_export_that_a_signal_ends_leaves_nothing() {
    let (directory, temporary) = (tempdir().unwrap(), tempdir().unwrap());
    let mut command = Command::new(EXECUTABLE);
    command.args(["vectors", "export", "vectors", "--dtype", "f32"]).current_dir(directory.path());
    let mut exporting = command.env("TMPDIR", temporary.path()).stdout(Stdio::null()).spawn().unwrap();
    awaited(|| {
        let unfinished = fs::read_dir(directory.path()).unwrap().next()?.unwrap().path();
        unfinished.join("0001").exists().then_some(())
    });
    assert!(Command::new("kill").args(["-TERM", &exporting.id().to_string()]).status().unwrap().success());
    assert_eq!(exporting.wait().unwrap().signal(), Some(15));
    for place in [directory, temporary] {
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing half-written stays");
    }
}

#[test]
fn a_program_is_found_beside_where_the_command_runs() {
    let directory = tempdir().unwrap();
    script(directory.path(), "exit 7");
    let paths = format!(".:{}", std::env::var("PATH").unwrap());
    let mut command = Command::new(EXECUTABLE);
    command.args(["reveal", SQUARE, "--implementation", "command:program"]);
    let revealed = ended(command.current_dir(directory.path()).env("PATH", paths));
    assert!(revealed.stdout.contains("failed (exit status: 7)"), "{}{}", revealed.stdout, revealed.stderr);
}

#[test]
fn bad_usage_is_refused_with_one_line_and_status_2() {
    let told = |arguments: &[&str]| sepconv_conformance(arguments).error().to_owned();
    let refused = |arguments: &[&str], part: &str| {
        let error = told(arguments);
        assert!(error.contains(part), "no {part} in {error}");
    };
    refused(&["run", "--dtype", "f8"], "expected f32, f64, f16, bf16 or all");
    for (option, value, range) in [
        ("--threads", "0", "1 to 127"),
        ("--threads", "many", "1 to 127"),
        ("--cases", "-1", "0 to 4294967295"),
        ("--seed", "-1", "0 to 18446744073709551615"),
        ("--timeout", "-1", "1 to 18446744073709551615"),
        ("--timeout", "0", "1 to 18446744073709551615"),
    ] {
        let name = if option == "--timeout" { "SECONDS" } else { "NUMBER" };
        let why = format!("invalid value '{value}' for '{option} <{name}>': expected a whole number from {range}");
        refused(&["run", option, value], &why);
    }
    refused(&["vectors", "export", "vectors", "--cases", "-1"], "invalid value '-1' for '--cases <NUMBER>'");
    refused(&["reveal", "tiny", "--threads", "-1"], "invalid value '-1' for '--threads <NUMBER>'");
    refused(&["run", "--case", "nonsense"], "`nonsense` is none of the named cases");
    refused(&["run", "--implementation", "gpu"], "expected crate, op or command:PROGRAM, got `gpu`");
    refused(&["run", "--implementation", "command:/no/such"], "the program /no/such cannot be started");
    refused(
        &["run", "--implementation", "op", "--library", "/no/such.so"],
        "build it with `cargo build -p sepconv-tensorflow`",
    );
    refused(&["run", "--report", "/no/such/report.json"], "/no/such/report.json: No such file");
    refused(&["run", "--report", "/dev/null"], "/dev/null is not a regular file");
    let directory = tempdir().unwrap();
    fs::create_dir(directory.path().join("report.html")).unwrap();
    let report = directory.path().join("report.json");
    refused(&["run", "--report", report.to_str().unwrap()], "report.html is not a regular file");
    fs::write(&report, "").unwrap();
    refused(&["run", "--implementation", &format!("command:{}", report.display())], "report.json is not executable");
    refused(&["run", "--report", "page.html"], "--report must name a JSON file");
    refused(&["reveal", "tiny", "--implementation", "op"], "expected tensorflow, crate or command:PROGRAM, got `op`");
    let sum = "v1 depthwise(fused, inside) pointwise(fused, 8) subnormals(kept)";
    refused(&["reveal", "tiny", "--implementation", "crate", "--numerics", sum], "adds 8 products, but");
    let without = ended(Command::new(EXECUTABLE).args(["run", "--case", "tiny"]).env_remove("TENSORFLOW_DIR"));
    assert_eq!(without.status, Some(2));
    assert!(without.stderr.contains("TENSORFLOW_DIR must name a directory"), "{}", without.stderr);
}

#[test]
fn orders_are_revealed_and_drawn() {
    let revealed = sepconv_conformance(&["reveal", "tiny", "f64 tiny", "--onednn", "on"]);
    assert_eq!(revealed.status, Some(0), "{}", revealed.stderr);
    assert!(revealed.stdout.contains("\nv1 depthwise(separate, all) pointwise(separate, "), "{}", revealed.stdout);
    assert_eq!(revealed.stdout.matches("\nsum over K = 16\n└─ ").count(), 2, "{}", revealed.stdout);
    assert_eq!(revealed.stdout.matches("█████ 16").count(), 2, "{}", revealed.stdout);
}

/// Through whole convolutions: depthwise results by a diagonal, pointwise ones by a filter of ones.
#[test]
fn the_crate_is_found_to_do_as_it_was_asked() {
    for numerics in [
        "v1 depthwise(fused, inside) pointwise(fused, 16) subnormals(kept)",
        "v1 depthwise(separate, all) pointwise(separate, 8x2) subnormals(flushed)",
        "v1 depthwise(fused, all) pointwise(fused, 4x4) subnormals(flushed)",
        "v1 depthwise(separate, inside) pointwise(fused, 12+4) subnormals(kept)",
    ] {
        for shape in ["tiny", "f64 tiny"] {
            let revealed = sepconv_conformance(&["reveal", shape, "--implementation", "crate", "--numerics", numerics]);
            assert!(revealed.stdout.contains(&format!("\n{numerics}\n")), "{numerics}: {}", revealed.stdout);
        }
    }
    let large = "f32 input 1,1,1,8193 kernel 1,1 multiplier 1 columns 1 strides 1,1 padding same rate 1,1";
    let revealed = sepconv_conformance(&["reveal", large, "--implementation", "crate"]);
    assert_eq!(revealed.status, Some(1));
    assert!(revealed.stdout.contains("K by K = 8193 by 8193 elements"), "{}", revealed.stdout);
}
