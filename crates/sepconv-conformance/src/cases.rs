//! The space of random cases: which separable convolutions are compared, and why these.
//!
//! A case is a plain value with a text form, so whatever fails is repeated from one line. Case number `index` of a seed
//! is always the same. The space is stratified: whatever makes TensorFlow take another path has a fixed share of the
//! cases, reached in every run of more than a few dozen (`Strata` in `space.rs`).

mod corpus;
mod given;
mod kinds;
mod space;
mod text;
mod values;

use proptest::strategy::ValueTree;
use sepconv::{Attributes, Geometry};
use serde::{Deserialize, Serialize};

pub use corpus::corpus;
pub use given::BadCase;
pub use kinds::KINDS;
pub use space::{Space, tree};
pub use text::NotACase;
pub use values::{Operands, Values};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ElementType {
    F32,
    F64,
    F16,
    Bf16,
}

/// Evaluates an expression with `$type` the Rust type of an element type: the one place that knows which is which.
macro_rules! with_element {
    ($element:expr, $type:ident => $body:expr) => {
        match $element {
            $crate::cases::ElementType::F32 => {
                type $type = f32;
                $body
            }
            $crate::cases::ElementType::F64 => {
                type $type = f64;
                $body
            }
            $crate::cases::ElementType::F16 => {
                type $type = half::f16;
                $body
            }
            $crate::cases::ElementType::Bf16 => {
                type $type = half::bf16;
                $body
            }
        }
    };
}
pub(crate) use with_element;

impl ElementType {
    pub const ALL: [Self; 4] = [Self::F32, Self::F64, Self::F16, Self::Bf16];

    /// Whether TensorFlow hands it to oneDNN on this processor.
    pub fn of_onednn(self) -> bool {
        match self {
            Self::F32 => true,
            #[cfg(target_arch = "x86_64")]
            Self::Bf16 => is_x86_feature_detected!("avx512f"),
            _ => false,
        }
    }
}

/// One separable convolution with its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Case {
    pub element: ElementType,
    pub input: [usize; 4],
    pub kernel: [usize; 2],
    pub channel_multiplier: usize,
    pub out_channels: usize,
    pub attributes: Attributes,
    pub values: Values,
    /// Of the data.
    pub seed: u64,
}

impl Case {
    /// Case number `index` of a seed.
    pub fn random(space: Space, seed: u64, index: u32) -> Self {
        tree(space, seed, index).current()
    }

    /// The length of the pointwise sums.
    pub fn k(&self) -> usize {
        self.input[3].saturating_mul(self.channel_multiplier)
    }

    pub fn geometry(&self) -> Result<Geometry, sepconv::Error> {
        let [height, width] = self.kernel;
        let k = self.k();
        let depthwise_filter = [height, width, self.input[3], self.channel_multiplier];
        Geometry::new(&self.input, &depthwise_filter, &[1, 1, k, self.out_channels], &self.attributes)
    }
}
