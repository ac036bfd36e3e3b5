//! The two ways in which a Rust program calls the convolution: with the pointwise filter packed once, or in every call.

use ndarray::{Array4, ArrayView4, ArrayViewMut4};
use sepconv::{Element, Error, SeparableConv2d};

/// One call.
pub type Run<T> = Box<dyn Fn(ArrayView4<T>, ArrayViewMut4<T>) -> Result<(), Error> + Send + Sync>;

/// Attributes, the input's shape, the two filters.
pub type Prepare<T> = fn(SeparableConv2d, [usize; 4], Array4<T>, Array4<T>) -> Result<Run<T>, Error>;

pub fn once<T: Element>(
    convolution: SeparableConv2d,
    input_shape: [usize; 4],
    depthwise_filter: Array4<T>,
    pointwise_filter: Array4<T>,
) -> Result<Run<T>, Error> {
    let plan = convolution.plan(input_shape, depthwise_filter.view(), pointwise_filter.view())?;
    Ok(Box::new(move |input, output| plan.run_into(input, output)))
}

pub fn every_call<T: Element>(
    convolution: SeparableConv2d,
    _: [usize; 4],
    depthwise_filter: Array4<T>,
    pointwise_filter: Array4<T>,
) -> Result<Run<T>, Error> {
    Ok(Box::new(move |input, output| {
        convolution.run_into(input, depthwise_filter.view(), pointwise_filter.view(), output)
    }))
}
