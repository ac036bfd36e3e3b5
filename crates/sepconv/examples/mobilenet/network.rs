//! MobileNet v1 as `keras.applications.MobileNet` builds it: every layer planned once, and an array for what each gives.

use std::sync::Arc;

use ndarray::{Array4, ArrayView2, ArrayView4};
use rayon::ThreadPool;
use sepconv::epilogue::{Epilogues, Step};
use sepconv::numerics::{TapOrder, Taps};
use sepconv::{Error, Padding, Plan, SeparableConv2d};

use crate::Outcome;
use crate::first::First;
use crate::pooling;
use crate::weights::{Block, Weights};

pub struct Network {
    first: First,
    blocks: Vec<Plan<f32>>,
    classifier: Plan<f32>,
    /// What the first layer gives, and each block.
    images: Vec<Array4<f32>>,
    pooled: Array4<f32>,
    logits: Array4<f32>,
}

impl Network {
    pub fn new(weights: &Weights, pool: &Arc<ThreadPool>) -> Outcome<Self> {
        let first = First::new(weights, pool).map_err(|error| format!("conv1: {error}"))?;
        let mut images = vec![Array4::zeros(first.output_shape())];
        let mut blocks = Vec::with_capacity(weights.blocks.len());
        let mut shape = first.output_shape();
        for (block, number) in weights.blocks.iter().zip(1..) {
            let plan = plan(block, shape, pool).map_err(|error| format!("block_{number}: {error}"))?;
            shape = plan.output_shape();
            images.push(Array4::zeros(shape));
            blocks.push(plan);
        }
        let [batch, _, _, k] = shape;
        let pooled = Array4::zeros([batch, 1, 1, k]);
        let pointwise = vec![Step::Add(&weights.bias)];
        let classifier = SeparableConv2d::new([1, 1], Padding::Valid, [1, 1])
            .numerics(weights.classifier_numerics.clone())
            .pool(pool.clone())
            .with_steps(&Epilogues { depthwise: Vec::new(), pointwise })
            .plan([batch, 1, 1, k], Array4::ones([1, 1, k, 1]).view(), weights.classifier.view())
            .map_err(|error| format!("conv_preds: {error}"))?;
        let logits = Array4::zeros(classifier.output_shape());
        Ok(Self { first, blocks, classifier, images, pooled, logits })
    }

    /// Classifies images; what it gives can be read until the next run.
    pub fn run(&mut self, input: ArrayView4<f32>) -> Result<(), Error> {
        self.first.run(input, self.images[0].view_mut())?;
        for (number, block) in self.blocks.iter().enumerate() {
            let (before, behind) = self.images.split_at_mut(number + 1);
            block.run_into(before[number].view(), behind[0].view_mut())?;
        }
        pooling::mean(self.images[self.blocks.len()].view(), &mut self.pooled);
        self.classifier.run_into(self.pooled.view(), self.logits.view_mut())
    }

    /// Behind the last block.
    pub fn features(&self) -> ArrayView4<'_, f32> {
        self.images[self.blocks.len()].view()
    }

    /// Their means: image, channel.
    pub fn pooled(&self) -> ArrayView2<'_, f32> {
        rows(&self.pooled)
    }

    /// Image, class.
    pub fn logits(&self) -> ArrayView2<'_, f32> {
        rows(&self.logits)
    }
}

/// Of images that are a pixel each.
fn rows(images: &Array4<f32>) -> ArrayView2<'_, f32> {
    let (batch, _, _, channels) = images.dim();
    images.view().into_shape_with_order((batch, channels)).expect("one pixel each")
}

/// A depthwise and a pointwise convolution, each with its normalisation and ReLU6, as one.
fn plan(block: &Block, input_shape: [usize; 4], pool: &Arc<ThreadPool>) -> Outcome<Plan<f32>> {
    let mut numerics = block.numerics.clone();
    let padding = if block.stride == 1 {
        Padding::Same
    } else {
        // Keras puts zeros below and right of the image by a layer of its own: to TensorFlow's convolution, whose order this
        // is, they are pixels like others.
        if numerics.depthwise.order == TapOrder::Borders {
            return Err(format!("numerics {numerics}: an order by borders, and the image has none").into());
        }
        numerics.depthwise.taps = Taps::All;
        Padding::Explicit([[0, 1], [0, 1]])
    };
    let epilogues = Epilogues { depthwise: block.depthwise.steps(), pointwise: block.pointwise.steps() };
    let convolution = SeparableConv2d::new([block.stride; 2], padding, [1, 1]).numerics(numerics).pool(pool.clone());
    let filters = (block.depthwise.filter.view(), block.pointwise.filter.view());
    Ok(convolution.with_steps(&epilogues).plan(input_shape, filters.0, filters.1)?)
}
