//! What TensorFlow answers, odd and bad input included: the rows that the crate's types can say, for the crate. The
//! expected answer is that of the register of deviations; where it has none, TensorFlow's modes agree and so do we.

use ndarray::{Array, ArrayD, Ix4};
use sepconv::{Error, Padding, separable_conv2d};
use serde_json::{Value, json};

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect()
}

fn expected<'a>(case: &'a Value, register: &'a [Value]) -> &'a Value {
    let deviation = register.iter().find(|deviation| deviation["case"] == case["name"]);
    deviation.map_or(&case["tensorflow"]["eager, oneDNN off"], |deviation| &deviation["answer"])
}

/// Height's and width's part; `None` where the crate's arguments cannot say it.
fn padding(value: &Value) -> Option<Padding> {
    match value.as_str() {
        Some("SAME") => return Some(Padding::Same),
        Some("VALID") => return Some(Padding::Valid),
        Some(_) => return None,
        None => {}
    }
    let pairs: Vec<Vec<i64>> = value.as_array().unwrap().iter().map(integers).collect();
    (pairs[0] == [0, 0] && pairs[3] == [0, 0])
        .then(|| Padding::Explicit([[pairs[1][0], pairs[1][1]], [pairs[2][0], pairs[2][1]]]))
}

fn ones(shape: &Value) -> ArrayD<f32> {
    let shape: Vec<usize> = integers(shape).into_iter().map(|n| n as usize).collect();
    Array::ones(shape)
}

#[test]
fn every_row_that_the_types_can_say() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../../../tests/semantics.json")).unwrap();
    let register: Vec<Value> = serde_json::from_str(include_str!("../../../tests/deviations.json")).unwrap();
    let mut said = 0;
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let strides = integers(&case["strides"]);
        let rate = if case["rate"].is_null() { vec![1, 1] } else { integers(&case["rate"]) };
        let arrays = ["input", "depthwise_filter", "pointwise_filter"].map(|name| ones(&case[name]));
        let arrays = arrays.map(|array| array.into_dimensionality::<Ix4>());
        let (Some(padding), &[1, height, width, 1], &[rate_h, rate_w], [Ok(input), Ok(depthwise), Ok(pointwise)]) =
            (padding(&case["padding"]), &strides[..], &rate[..], arrays)
        else {
            continue;
        };
        if !case["data_format"].is_null() || !case["dtype"].as_str().unwrap().starts_with("float") {
            continue;
        }
        said += 1;
        let result = separable_conv2d(
            input.view(),
            depthwise.view(),
            pointwise.view(),
            [height, width],
            padding,
            [rate_h, rate_w],
        );
        let answer = expected(case, &register);
        match (result, answer.get("shape")) {
            (Ok(output), Some(shape)) => {
                assert_eq!(output.shape().iter().map(|&n| n as i64).collect::<Vec<_>>(), integers(shape), "{name}");
                if let Some(values) = answer.get("values") {
                    let mut got = output.into_raw_vec_and_offset().0;
                    got.sort_by(f32::total_cmp);
                    got.dedup();
                    assert_eq!(json!(got), *values, "{name}: all values of a sum over ones");
                }
            }
            (Err(error), None) => {
                let named = ["input", "filter", "strides", "padding", "rate", "channels"];
                assert!(named.iter().any(|word| error.to_string().contains(word)), "{name}: {error}");
            }
            (Ok(output), None) => panic!("{name}: computed {:?}, should have refused", output.shape()),
            (Err(error), Some(shape)) => panic!("{name}: should be {shape:?}, got {error}"),
        }
    }
    assert_eq!((said, cases.len()), (46, 64), "rows that can be said, and all");
}

#[test]
fn numbers_near_the_limits_are_refused_or_computed_at_once() {
    let input = Array::<f32, _>::ones((1, 5, 5, 2));
    let (depthwise, pointwise) = (Array::ones((3, 3, 2, 1)), Array::ones((1, 1, 2, 3)));
    let run = |strides, padding, rate| {
        separable_conv2d(input.view(), depthwise.view(), pointwise.view(), strides, padding, rate).map(|o| o.dim())
    };
    for value in [1 << 31, 1 << 32, 1 << 62, i64::MAX, -1, i64::MIN] {
        let out_of_range = |result| assert!(matches!(result, Err(Error::OutOfRange { .. })), "{value}: {result:?}");
        out_of_range(run([value, 1], Padding::Same, [1, 1]));
        out_of_range(run([1, 1], Padding::Same, [1, value]));
        out_of_range(run([1, 1], Padding::Explicit([[0, 0], [value, 0]]), [1, 1]));
    }
    let most = i64::from(i32::MAX);
    assert_eq!(run([most, most], Padding::Same, [1, 1]), Ok((1, 1, 1, 3)));
    assert_eq!(run([1, 1], Padding::Same, [most, most]), Ok((1, 5, 5, 3)));
    assert_eq!(
        run([most, most], Padding::Valid, [most, most]),
        Err(Error::Extent { axis: sepconv::AxisName::Height, input: 5, kernel: 3, rate: most as usize })
    );
    let memory = run([1, 1], Padding::Explicit([[most, most], [most, most]]), [1, 1]);
    assert!(matches!(memory, Err(Error::Memory { .. } | Error::TooLarge)), "{memory:?}");
}
