//! The first layer, an ordinary 3x3 convolution: as TensorFlow does it, a product of patches with the filter. To the crate
//! that is a separable convolution of images of patches, whose depthwise part multiplies by one.

use std::sync::Arc;

use ndarray::{Array4, ArrayView4, ArrayViewMut4, s};
use rayon::ThreadPool;
use sepconv::epilogue::Epilogues;
use sepconv::{Attributes, Error, Geometry, Padding, Plan, SeparableConv2d};

use crate::weights::Weights;

const COLOURS: usize = 3;
/// 3x3 pixels.
const PATCH: usize = 9 * COLOURS;

pub struct First {
    geometry: Geometry,
    /// Those that the output's pixels read, zero outside the image.
    patches: Array4<f32>,
    plan: Plan<f32>,
}

impl First {
    pub fn new(weights: &Weights, pool: &Arc<ThreadPool>) -> Result<Self, Error> {
        let layer = &weights.first;
        let attributes = Attributes { strides: [2, 2], padding: Padding::Same, rate: [1, 1] };
        let geometry = Geometry::depthwise(&weights.input_shape(), &[3, 3, COLOURS, 1], &attributes)?;
        let shape = [geometry.batch, geometry.height.output, geometry.width.output, PATCH];
        let filter = layer.filter.view().into_shape_with_order([1, 1, PATCH, layer.scale.len()]);
        let plan = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1])
            .numerics(weights.first_numerics.clone())
            .pool(pool.clone())
            .with_steps(&Epilogues { depthwise: Vec::new(), pointwise: layer.steps() })
            .plan(shape, Array4::ones([1, 1, PATCH, 1]).view(), filter.expect("a filter in standard layout"))?;
        Ok(Self { geometry, patches: Array4::zeros(shape), plan })
    }

    pub fn output_shape(&self) -> [usize; 4] {
        self.plan.output_shape()
    }

    pub fn run(&mut self, input: ArrayView4<f32>, output: ArrayViewMut4<f32>) -> Result<(), Error> {
        let Geometry { batch, height, width, .. } = self.geometry;
        let places = ndarray::indices([batch, height.output, width.output]).into_iter();
        let patches = self.patches.as_slice_mut().expect("in standard layout").as_chunks_mut::<PATCH>().0;
        for ((number, y, x), patch) in places.zip(patches) {
            // What is outside the image was zero from the start.
            let columns = width.inside(x);
            let left = (width.origin(x) + columns.start as isize) as usize;
            for i in height.inside(y) {
                let row = (height.origin(y) + i as isize) as usize;
                let pixels = input.slice(s![number, row, left..left + columns.len(), ..]);
                let place = &mut patch[(3 * i + columns.start) * COLOURS..][..columns.len() * COLOURS];
                place.iter_mut().zip(pixels).for_each(|(to, from)| *to = *from);
            }
        }
        self.plan.run_into(self.patches.view(), output)
    }
}
