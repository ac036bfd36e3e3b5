//! What TensorFlow is told besides numbers: static shapes, and why a call was refused.

mod library;

use std::error::Error;

use sepconv::{Attributes, Padding};
use sepconv_conformance::cases::{Case, Space};
use sepconv_conformance::composite::{placeholders, separable, shapes};
use sepconv_conformance::op::OpLibrary;
use sepconv_conformance::session::{Mode, Nodes, tensor};
use sepconv_conformance::trials::Trials;

const NUMERICS: &str = "v1 depthwise(fused, inside) pointwise(fused, chain) subnormals(flushed)";
const PLAIN: Attributes = Attributes { strides: [1, 1], padding: Padding::Same, rate: [1, 1] };

#[test]
fn static_shapes_are_at_least_those_of_tensorflow() {
    let library = library::load();
    let space = Space { element: None, onednn: Mode::of_this_process().onednn };
    Trials::from_env(space).run(|case| check(case, &library).map_err(|error| error.to_string()));
}

/// Twice: with all shapes known, and with the extents hidden that the case's seed says.
fn check(case: &Case, library: &OpLibrary) -> Result<(), Box<dyn Error>> {
    let geometry = case.geometry()?;
    for hidden in [0, case.seed] {
        let mut bits = hidden;
        let known = shapes(&geometry).map(|shape| {
            shape.map(|extent| {
                bits >>= 1;
                (bits & 1 == 0).then_some(extent)
            })
        });
        let mut nodes = Nodes::new()?;
        let inputs = placeholders::<f32>(&mut nodes, known)?;
        let composite = separable(&mut nodes, &geometry, &case.attributes, inputs.clone())?;
        let op = library.separable(&mut nodes, &case.attributes, NUMERICS, inputs)?;
        let composite = nodes.shape(&composite)?.ok_or("the composite's rank is known")?;
        let op = nodes.shape(&op)?.ok_or("the op's rank is not known")?;
        let right = op.iter().zip(geometry.output_shape()).all(|(got, extent)| got.is_none_or(|got| got == extent));
        let kept = op.len() == 4 && op.iter().zip(&composite).all(|(got, extent)| extent.is_none() || got == extent);
        if !right || !kept {
            return Err(format!("from {known:?}: TensorFlow knows {composite:?}, the op {op:?}").into());
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_while_the_graph_is_built() {
    let library = library::load();
    let build = |input: [usize; 4], numerics: &str, attributes| -> Result<(), Box<dyn Error>> {
        let mut nodes = Nodes::new()?;
        let shapes = [input, [3, 3, 2, 1], [1, 1, 2, 5]];
        let inputs = placeholders::<f32>(&mut nodes, shapes.map(|shape| shape.map(Some)))?;
        library.separable(&mut nodes, &attributes, numerics, inputs)?;
        Ok(())
    };
    build([1, 8, 8, 2], NUMERICS, PLAIN).unwrap();
    let error = build([1, 8, 8, 3], NUMERICS, PLAIN).unwrap_err().to_string();
    assert!(error.contains("depthwise_filter must have in_channels = 3"), "{error}");
    let valid = Attributes { padding: Padding::Valid, ..PLAIN };
    let error = build([1, 1, 8, 2], NUMERICS, Attributes { rate: [3, 3], ..valid }).unwrap_err().to_string();
    assert!(error.contains("padding leaves no room in the height"), "{error}");
    let error = build([1, 8, 8, 2], NUMERICS, Attributes { strides: [1, 0], ..PLAIN }).unwrap_err().to_string();
    assert!(error.contains("strides must be 1 to 2147483647"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_by_the_kernel() {
    let library = library::load();
    let run = |input: [usize; 4], numerics: &str| -> Result<usize, Box<dyn Error>> {
        let mut nodes = Nodes::new()?;
        let inputs = placeholders::<f32>(&mut nodes, [[None; 4]; 3])?;
        let output = library.separable(&mut nodes, &PLAIN, numerics, inputs)?;
        let session = nodes.open(Mode::of_this_process(), vec![output])?;
        let ones = |shape: [usize; 4]| tensor(&shape, &vec![1f32; shape.iter().product()]);
        Ok(session.run::<f32>(&[ones(input)?, ones([3, 3, 2, 1])?, ones([1, 1, 2, 5])?])?[0].len())
    };
    assert_eq!(run([1, 8, 8, 2], NUMERICS).unwrap(), 8 * 8 * 5);
    let error = run([1, 8, 8, 3], NUMERICS).unwrap_err().to_string();
    assert!(error.contains("InvalidArgument") && error.contains("depthwise_filter must have"), "{error}");
    let error = run([1, 8, 8, 2], "v1 depthwise(fused, none)").unwrap_err().to_string();
    assert!(error.contains("InvalidArgument") && error.contains("expected `inside` or `all`"), "{error}");
    let error = run([1, 8, 8, 2], &NUMERICS.replace("chain", "3")).unwrap_err().to_string();
    assert!(error.contains("InvalidArgument") && error.contains("but there are 2"), "{error}");
}
