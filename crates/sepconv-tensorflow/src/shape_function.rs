//! The op's shape function: no static shape that TensorFlow knows is lost, and what is known is checked as the kernel
//! will check it.

use sepconv::Geometry;

use crate::carrier;
use crate::statistics;
use crate::tensorflow::inference::{Extent, Inference, Shape, ShapeFunction};
use crate::tensorflow::status::Failure;

pub struct OutputShape;

impl ShapeFunction for OutputShape {
    fn infer(inference: &Inference) -> Result<(), Failure> {
        statistics::SHAPE_FUNCTION_CALLS.add();
        let [input, depthwise_filter, pointwise_filter, geometry] = [0, 1, 2, 3].map(|i| inference.input(i));
        let output = output_shape([input?, depthwise_filter?, pointwise_filter?, geometry?])?;
        let known = |extent| Option::map_or(extent, Extent::Unknown, Extent::Known);
        let batch = Extent::Of { input: 0, rank: 4, axis: 0 };
        let out_channels = Extent::Of { input: 2, rank: 4, axis: 3 };
        inference.set_output(0, &[batch, known(output[1]), known(output[2]), out_channels])
    }
}

/// Of the depthwise part alone.
pub struct DepthwiseShape;

impl ShapeFunction for DepthwiseShape {
    fn infer(inference: &Inference) -> Result<(), Failure> {
        statistics::SHAPE_FUNCTION_CALLS.add();
        let [input, filter, geometry] = [0, 1, 2].map(|i| inference.input(i));
        let filter = rank_4("depthwise_filter", filter?)?;
        let k = filter[2].zip(filter[3]).map(|(channels, multiplier)| channels.saturating_mul(multiplier));
        let results = Some(vec![Some(1), Some(1), k, k]);
        let output = output_shape([input?, Some(filter.to_vec()), results, geometry?])?;
        let known = |extent| Option::map_or(extent, Extent::Unknown, Extent::Known);
        let batch = Extent::Of { input: 0, rank: 4, axis: 0 };
        inference.set_output(0, &[batch, known(output[1]), known(output[2]), known(output[3])])
    }
}

/// Of the pointwise part alone.
pub struct PointwiseShape;

impl ShapeFunction for PointwiseShape {
    fn infer(inference: &Inference) -> Result<(), Failure> {
        statistics::SHAPE_FUNCTION_CALLS.add();
        let [input, filter, geometry] = [0, 1, 2].map(|i| inference.input(i));
        let output = pointwise_shape([input?, filter?, geometry?])?;
        let known = |extent| Option::map_or(extent, Extent::Unknown, Extent::Known);
        let batch = Extent::Of { input: 0, rank: 4, axis: 0 };
        let out_channels = Extent::Of { input: 1, rank: 4, axis: 3 };
        inference.set_output(0, &[batch, known(output[1]), known(output[2]), out_channels])
    }
}

/// From the shapes of its three inputs: as behind a depthwise filter of one tap.
fn pointwise_shape([input, filter, geometry]: [Shape; 3]) -> Result<[Option<usize>; 4], Failure> {
    let input = rank_4("input", input)?;
    let depthwise_filter = vec![Some(1), Some(1), input[3], Some(1)];
    output_shape([Some(input.to_vec()), Some(depthwise_filter), filter, geometry])
}

/// From the shapes of the four inputs.
fn output_shape(shapes: [Shape; 4]) -> Result<[Option<usize>; 4], Failure> {
    let [input, depthwise_filter, pointwise_filter, geometry] = shapes;
    let input = rank_4("input", input)?;
    let depthwise_filter = rank_4("depthwise_filter", depthwise_filter)?;
    let pointwise_filter = rank_4("pointwise_filter", pointwise_filter)?;
    let dims = geometry.and_then(|shape| shape.into_iter().map(|extent| extent.map(|e| e as i64)).collect());
    let attributes = dims.map(|dims: Vec<i64>| carrier::decode(&dims)).transpose();
    let attributes = attributes.map_err(Failure::invalid_argument)?;
    Ok(Geometry::partial(input, depthwise_filter, pointwise_filter, attributes.as_ref())?)
}

/// Four extents; all unknown where the rank is.
fn rank_4(argument: &'static str, shape: Shape) -> Result<[Option<usize>; 4], Failure> {
    let Some(shape) = shape else { return Ok([None; 4]) };
    shape.try_into().map_err(|shape: Vec<Option<usize>>| match shape.iter().copied().collect() {
        Some(shape) => sepconv::Error::Rank { argument, shape }.into(),
        None => {
            let extents: Vec<_> = shape.iter().map(|e| e.map_or("?".into(), |e| e.to_string())).collect();
            let (rank, extents) = (extents.len(), extents.join(", "));
            Failure::invalid_argument(format!("{argument} must have 4 dimensions, got {rank} (shape [{extents}])"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(shape: &[usize]) -> Shape {
        Some(shape.iter().copied().map(Some).collect())
    }

    fn message(result: Result<[Option<usize>; 4], Failure>) -> String {
        result.unwrap_err().message
    }

    #[test]
    fn shapes_are_kept() {
        let filters = || [known(&[3, 3, 2, 1]), known(&[1, 1, 2, 5])];
        let of = |input, geometry| {
            let [depthwise, pointwise] = filters();
            output_shape([input, depthwise, pointwise, geometry])
        };
        let valid = || known(&[0, 1, 2, 1, 1, 1]);
        assert_eq!(of(known(&[2, 8, 9, 2]), valid()), Ok([Some(2), Some(6), Some(4), Some(5)]));
        assert_eq!(of(Some(vec![None, None, Some(9), None]), valid()), Ok([None, None, Some(4), Some(5)]));
        assert_eq!(of(None, valid()), Ok([None, None, None, Some(5)]));
        let unknown = [None, Some(vec![Some(0), None, Some(2)])];
        for geometry in unknown {
            assert_eq!(of(known(&[2, 8, 9, 2]), geometry), Ok([Some(2), None, None, Some(5)]));
        }
        assert_eq!(output_shape([None, None, None, None]), Ok([None; 4]));
    }

    #[test]
    fn shapes_of_the_pointwise_part_are_kept_and_checked() {
        let strided = || known(&[0, 2, 3, 1, 1, 0]);
        let of = |input, filter| pointwise_shape([input, filter, strided()]);
        let filter = || known(&[1, 1, 2, 5]);
        assert_eq!(of(known(&[2, 8, 9, 2]), filter()), Ok([Some(2), Some(4), Some(3), Some(5)]));
        assert_eq!(of(Some(vec![None, Some(8), None, None]), filter()), Ok([None, Some(4), None, Some(5)]));
        assert_eq!(of(known(&[2, 8, 9, 2]), None), Ok([Some(2), Some(4), Some(3), None]));
        assert_eq!(pointwise_shape([None, filter(), None]), Ok([None, None, None, Some(5)]));
        assert_eq!(pointwise_shape([None, None, None]), Ok([None; 4]));
        assert!(message(of(known(&[2, 8, 9, 3]), filter())).starts_with("pointwise_filter must have shape [1, 1, 3,"));
        assert!(message(of(Some(vec![None, None, None, Some(3)]), filter())).contains("got [1, 1, 2, out_channels]"));
        assert!(message(of(None, known(&[3, 3, 2, 5]))).contains("got [3, 3, 2, out_channels]"));
        assert!(message(of(known(&[7]), filter())).starts_with("input must have 4 dimensions"));
        assert!(message(of(None, known(&[1, 2]))).starts_with("pointwise_filter must have 4 dimensions"));
        assert!(message(pointwise_shape([None, None, known(&[0, 1])])).starts_with("geometry must have shape"));
    }

    #[test]
    fn what_is_known_is_checked() {
        let of = |input, geometry| output_shape([input, known(&[3, 3, 2, 1]), known(&[1, 1, 2, 5]), geometry]);
        let same = || known(&[0, 1, 1, 1, 1, 0]);
        assert_eq!(
            message(of(Some(vec![None, Some(2), None]), same())),
            "input must have 4 dimensions, got 3 (shape [?, 2, ?])"
        );
        assert_eq!(message(of(known(&[7]), same())), "input must have 4 dimensions, got 1 (shape [7])");
        assert!(message(of(Some(vec![None, None, None, Some(3)]), None)).contains("in_channels = 3"));
        assert!(message(of(None, known(&[0, 1]))).starts_with("geometry must have shape"));
        assert!(message(of(None, known(&[0, 1, 1, i64::MAX as usize, 1, 0]))).starts_with("rate must be 1 to"));
    }
}
