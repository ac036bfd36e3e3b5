//! The register of deviations against TensorFlow: every answer that it says a graph gives is observed again, oneDNN off
//! and on, in child processes, as TensorFlow dies of some. Eager answers are `tests/test_deviations.py`'s.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use sepconv_conformance::deviations::register;
use sepconv_conformance::observe::observable;
use sepconv_conformance::semantics::{Answer, Row, rows};

/// What TensorFlow answers to all that is observable, in order.
fn answers(count: usize, onednn: bool) -> Vec<Answer> {
    let mut answers = Vec::new();
    while answers.len() < count {
        let child = Command::new(env!("CARGO_BIN_EXE_sepconv-conformance"))
            .args(["observe", "--skip", &answers.len().to_string()])
            .env("TF_ENABLE_ONEDNN_OPTS", if onednn { "1" } else { "0" })
            .output()
            .unwrap();
        let lines = str::from_utf8(&child.stdout).unwrap().lines();
        answers.extend(lines.map(|line| serde_json::from_str::<Answer>(line).unwrap()));
        match child.status.signal() {
            Some(signal) => answers.push(Answer::Dies { process_died: -signal }),
            None => assert_eq!(answers.len(), count, "{}", String::from_utf8_lossy(&child.stderr)),
        }
    }
    answers
}

#[test]
fn tensorflow_still_does_what_the_register_says() {
    let register = register().unwrap();
    let observable = observable(&register);
    let mut wrong = Vec::new();
    for onednn in [false, true] {
        let answers = answers(observable.len(), onednn);
        for ((deviation, context), observed) in observable.iter().zip(answers) {
            let mode = context.in_mode(onednn);
            match deviation.case.tensorflow.get(&mode) {
                Some(answer) if answer.is(&observed) => {}
                Some(answer) => wrong.push(format!("{}, {mode}: {answer}, but now {observed}", deviation.case.name)),
                None => wrong.push(format!("{}, {mode}: nothing, but {observed}", deviation.case.name)),
            }
        }
    }
    assert!(wrong.is_empty(), "the register says:\n{}", wrong.join("\n"));
}

/// Whether all modes give one shape or all refuse, and oneDNN changes nothing; a refusal's class differs by context.
fn agrees_with_itself(row: &Row) -> bool {
    let shape = |answer: &Answer| match answer {
        Answer::Computes { shape, .. } => Ok(Some(shape.clone())),
        Answer::Refuses { .. } => Ok(None),
        Answer::Dies { .. } => Err(()),
    };
    let Ok(shapes) = row.tensorflow.values().map(shape).collect::<Result<BTreeSet<_>, _>>() else { return false };
    let mut off = row.tensorflow.iter().filter(|(mode, _)| mode.ends_with("off"));
    shapes.len() == 1 && off.all(|(mode, answer)| answer.is(&row.tensorflow[&mode.replace("off", "on")]))
}

fn differs(ours: &Answer, tensorflows: &Answer) -> bool {
    match (ours, tensorflows) {
        // The class of every refusal while a graph is built.
        (Answer::Refuses { .. }, Answer::Refuses { error }) if error == "ValueError" => false,
        _ => !ours.is(tensorflows),
    }
}

#[test]
fn the_register_has_every_row_where_tensorflow_disagrees_with_itself_and_no_needless_one() {
    let register = register().unwrap();
    let names: BTreeSet<&str> = register.iter().map(|deviation| deviation.case.name.as_str()).collect();
    assert_eq!(names.len(), register.len(), "a case stands twice in the register");
    for row in rows().unwrap() {
        assert!(agrees_with_itself(&row) || names.contains(row.name.as_str()), "{} is not in the register", row.name);
    }
    for deviation in &register {
        let somewhere = deviation.case.tensorflow.values().any(|answer| differs(&deviation.answer, answer));
        assert!(somewhere, "{}: sepconv answers as all of TensorFlow's modes", deviation.case.name);
    }
}
