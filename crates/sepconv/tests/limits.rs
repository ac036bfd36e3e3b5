//! What is more than anybody has or asks for: an answer or an error, soon, and no end of the process.

use std::sync::Arc;

use half::bf16;
use ndarray::Array4;
use sepconv::gradient::DepthwiseFilterOrder;
use sepconv::{Error, Padding, SeparableConv2d};

/// Jobs that wait for a pool's thread do not pile up on its stack.
#[test]
fn more_threads_than_anybody_has() {
    let input = Array4::<f32>::ones((1, 200, 200, 16));
    let (filter, pointwise) = (Array4::ones((3, 3, 16, 1)), Array4::ones((1, 1, 16, 16)));
    let convolution = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]);
    let expected = convolution.run(input.view(), filter.view(), pointwise.view()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).stack_size(64 << 10).build().unwrap();
    let many = convolution.pool(Arc::new(pool)).threads(usize::MAX);
    for _ in 0..3 {
        assert_eq!(many.run(input.view(), filter.view(), pointwise.view()).unwrap(), expected);
    }
}

#[test]
fn rows_of_taps_without_any() {
    let (input, pointwise) = (Array4::<f32>::ones((1, 3, 3, 1)), Array4::ones((1, 1, 1, 1)));
    let filter = Array4::zeros((1 << 40, 0, 1, 1));
    let convolution = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]);
    let result = convolution.run(input.view(), filter.view(), pointwise.view());
    assert!(result.is_err() || result.unwrap().iter().all(|&sum| sum == 0.0));
}

#[test]
fn a_packed_filter_is_for_no_sum_of_another_length() {
    let convolution = SeparableConv2d::new([1, 1], Padding::Same, [1, 1]);
    let packed = convolution.pack(Array4::from_elem((1, 1, 8, 4), bf16::ONE).view()).unwrap();
    let longer = "v1 depthwise(fused, inside) pointwise(paired, 16) subnormals(flushed)".parse().unwrap();
    assert!(packed.is_for(&convolution) && !packed.is_for(&convolution.numerics(longer)));
}

/// Of small images, most of which have no pixels.
#[test]
fn more_batches_than_memory_holds() {
    let order: DepthwiseFilterOrder =
        "v1 depthwise_filter(fused, inside, batches 2147483647) subnormals(kept)".parse().unwrap();
    let convolution = SeparableConv2d::new([1, 1], Padding::Valid, [i32::MAX.into(); 2]);
    let one = Array4::<f32>::ones((1, 1, 1, 1));
    let result = convolution.backprop_depthwise_filter(one.view(), [1, 1, 1, 1], one.view(), &order);
    assert!(matches!(result, Err(Error::Memory { .. })), "{result:?}");
}
