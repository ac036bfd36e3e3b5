//! MobileNet v1's weights: from a file that `python -m sepconv.examples.mobilenet_export` wrote, or random. Whatever is
//! wrong with a file is said here, by the tensor's name.

use std::path::Path;

use ndarray::Array4;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sepconv::Numerics;
use sepconv::epilogue::Step;

use crate::Outcome;
use crate::file::File;

/// The channels behind each separable layer, to be multiplied by alpha, and its stride.
pub const BLOCKS: [(usize, i64); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// Of the first layer, and pixels of all images at a time: 2 GiB of arrays.
const WIDEST: usize = 128;
const MOST_PIXELS: usize = 1 << 23;

/// A filter in TensorFlow's layout, and the batch normalisation behind it: x * scale + offset.
pub struct Normalised {
    pub filter: Array4<f32>,
    pub scale: Vec<f32>,
    pub offset: Vec<f32>,
}

impl Normalised {
    /// The normalisation, and ReLU6 behind it.
    pub fn steps(&self) -> Vec<Step<'_, f32>> {
        vec![Step::Multiply(&self.scale), Step::Add(&self.offset), Step::Relu6]
    }
}

/// A separable layer.
pub struct Block {
    pub depthwise: Normalised,
    pub pointwise: Normalised,
    pub stride: i64,
    pub numerics: Numerics,
}

pub struct Weights {
    pub alpha: f64,
    pub resolution: usize,
    /// Images at a time: TensorFlow's orders of sums depend on it.
    pub batch: usize,
    /// 3x3, with a stride of 2.
    pub first: Normalised,
    pub first_numerics: Numerics,
    pub blocks: Vec<Block>,
    /// 1x1, and its bias.
    pub classifier: Array4<f32>,
    pub bias: Vec<f32>,
    pub classifier_numerics: Numerics,
}

/// Where weights come from.
trait Source {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Outcome<Vec<f32>>;
    fn numerics(&self, layer: &str) -> Outcome<Numerics>;

    fn filter(&mut self, name: &str, shape: [usize; 4]) -> Outcome<Array4<f32>> {
        Ok(Array4::from_shape_vec(shape, self.tensor(&format!("{name}.filter"), &shape)?)?)
    }

    fn normalised(&mut self, name: &str, shape: [usize; 4], channels: usize) -> Outcome<Normalised> {
        Ok(Normalised {
            filter: self.filter(name, shape)?,
            scale: self.tensor(&format!("{name}.scale"), &[channels])?,
            offset: self.tensor(&format!("{name}.offset"), &[channels])?,
        })
    }
}

impl Weights {
    pub fn read(path: &Path) -> Outcome<Self> {
        let bytes = std::fs::read(path)?;
        let mut file = File::new(&bytes)?;
        let format = file.metadata("format")?;
        if format != "sepconv mobilenet 1" {
            return Err(format!("its format must be `sepconv mobilenet 1`, got `{format}`").into());
        }
        let (alpha, resolution, batch) =
            (file.number::<f64>("alpha")?, file.number("resolution")?, file.number("batch")?);
        let classes = file.extent("conv_preds.offset", 0)?;
        Self::from(&mut file, alpha, resolution, batch, classes)
    }

    /// With sums in the order of [`Numerics::REPRODUCIBLE`].
    pub fn random(alpha: f64, resolution: usize, batch: usize, seed: u64) -> Outcome<Self> {
        Self::from(&mut Random(StdRng::seed_from_u64(!seed)), alpha, resolution, batch, 1000)
    }

    fn from(source: &mut dyn Source, alpha: f64, resolution: usize, batch: usize, classes: usize) -> Outcome<Self> {
        let channels = |of_one: usize| (of_one as f64 * alpha) as usize;
        if !(1..=WIDEST).contains(&channels(32)) {
            return Err(
                format!("alpha must leave the first layer 1 to {WIDEST} of its 32 channels, got {alpha}").into()
            );
        }
        let pixels = resolution.checked_mul(resolution).and_then(|pixels| pixels.checked_mul(batch));
        if resolution < 32 || !pixels.is_some_and(|pixels| (1..=MOST_PIXELS).contains(&pixels)) {
            let message = "images must be 32 or more pixels high and wide, one or more of them, and at most";
            return Err(
                format!("{message} {MOST_PIXELS} pixels in all, got {batch} of {resolution}x{resolution}").into()
            );
        }
        let mut k = channels(32);
        let first = source.normalised("conv1", [3, 3, 3, k], k)?;
        let mut blocks = Vec::with_capacity(BLOCKS.len());
        for (number, (of_one, stride)) in (1..).zip(BLOCKS) {
            let (in_channels, out_channels) = (k, channels(of_one));
            blocks.push(Block {
                depthwise: source.normalised(&format!("conv_dw_{number}"), [3, 3, in_channels, 1], in_channels)?,
                pointwise: source.normalised(
                    &format!("conv_pw_{number}"),
                    [1, 1, in_channels, out_channels],
                    out_channels,
                )?,
                stride,
                numerics: source.numerics(&format!("block_{number}"))?,
            });
            k = out_channels;
        }
        let classifier = source.filter("conv_preds", [1, 1, k, classes])?;
        let bias = source.tensor("conv_preds.offset", &[classes])?;
        let (first_numerics, classifier_numerics) = (source.numerics("conv1")?, source.numerics("conv_preds")?);
        Ok(Self { alpha, resolution, batch, first, first_numerics, blocks, classifier, bias, classifier_numerics })
    }

    /// Batch, height, width, channels.
    pub fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.resolution, self.resolution, 3]
    }
}

impl Source for File<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Outcome<Vec<f32>> {
        self.values(name, shape)
    }

    fn numerics(&self, layer: &str) -> Outcome<Numerics> {
        let text = self.metadata(&format!("numerics.{layer}"))?;
        text.parse().map_err(|error| format!("numerics of {layer}: {error}").into())
    }
}

struct Random(StdRng);

impl Source for Random {
    /// Such that images pass through every layer.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Outcome<Vec<f32>> {
        let (length, products) = (shape.iter().product(), shape.iter().rev().skip(1).product::<usize>());
        // A depthwise filter's last extent but one does not enter its sums.
        let products = if name.contains("_dw_") { 9 } else { products };
        let largest = (6.0 / products as f32).sqrt();
        let range = match name {
            _ if name.ends_with(".filter") => -largest..largest,
            _ if name.ends_with(".scale") => 0.5..1.5,
            _ => -0.2..0.8,
        };
        Ok((0..length).map(|_| self.0.random_range(range.clone())).collect())
    }

    fn numerics(&self, _: &str) -> Outcome<Numerics> {
        Ok(Numerics::REPRODUCIBLE)
    }
}
