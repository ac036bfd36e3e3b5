//! An implementation that computes whole convolutions only, as a black box with two halves.
//!
//! A depthwise result is had through a pointwise filter of ones on the diagonal, a pointwise one through a 1x1 depthwise
//! filter of ones. Both pass every number on as it is, except that a zero arrives as +0 (sums start from it), and that
//! what is not finite makes the other channels of its pixel NaN on the way through the diagonal. So what shows in signs of
//! zero only, such as a sum that is added to +0 at the end, may be found to be the simpler of two.

use sepconv::reveal::Probe;
use sepconv::{Attributes, Geometry, Numerics, Padding};

use crate::cases::{Case, Operands};
use crate::implementation::{self, Implementation};
use crate::session::Element;

/// Most elements of the diagonal filter, K by K.
const LARGEST: usize = 1 << 26;

pub struct Whole<'a, I> {
    pub case: &'a Case,
    pub geometry: Geometry,
    /// What the implementation is asked for.
    pub numerics: Option<&'a Numerics>,
    pub implementation: &'a mut I,
}

/// Why a probe gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "depthwise results show only through a pointwise filter of K by K = {k} by {k} elements, which may have at most \
         {LARGEST}"
    )]
    Diagonal { k: usize },
    #[error(transparent)]
    Implementation(#[from] implementation::Error),
    #[error("the result of a probe must have {expected} elements, got {got}")]
    Length { expected: usize, got: usize },
}

impl<I: Implementation> Whole<'_, I> {
    fn compute<T: Element>(&mut self, case: &Case, operands: &Operands<T>) -> Result<Vec<T>, Error> {
        let expected = self.geometry.rows() * case.out_channels;
        let result = self.implementation.compute(case, self.numerics, operands)?;
        if result.len() == expected { Ok(result) } else { Err(Error::Length { expected, got: result.len() }) }
    }
}

impl<T: Element, I: Implementation> Probe<T> for Whole<'_, I> {
    type Error = Error;

    fn depthwise(&mut self, input: &[T], filter: &[T]) -> Result<Vec<T>, Error> {
        let k = self.geometry.k();
        if k * k > LARGEST {
            return Err(Error::Diagonal { k });
        }
        let mut diagonal = vec![T::ZERO; k * k];
        diagonal.iter_mut().step_by(k + 1).for_each(|weight| *weight = T::from_f64(1.0));
        let case = Case { out_channels: k, ..self.case.clone() };
        let (input, depthwise_filter) = (input.to_vec(), filter.to_vec());
        self.compute(&case, &Operands { input, depthwise_filter, pointwise_filter: diagonal })
    }

    fn pointwise(&mut self, pixels: &[T], filter: &[T]) -> Result<Vec<T>, Error> {
        let (g, k) = (self.geometry, self.geometry.k());
        let case = Case {
            input: [g.batch, g.height.output, g.width.output, k],
            kernel: [1, 1],
            channel_multiplier: 1,
            attributes: Attributes { strides: [1, 1], padding: Padding::Same, rate: [1, 1] },
            ..self.case.clone()
        };
        let depthwise_filter = vec![T::from_f64(1.0); k];
        self.compute(&case, &Operands { input: pixels.to_vec(), depthwise_filter, pointwise_filter: filter.to_vec() })
    }

    fn seen(&self, pixels: &mut [T]) {
        for pixel in pixels.chunks_exact_mut(self.geometry.k()) {
            let others = pixel.iter().filter(|value| !value.to_f64().is_finite()).count();
            for value in pixel {
                if *value == T::ZERO {
                    *value = T::ZERO;
                }
                if others > usize::from(!value.to_f64().is_finite()) {
                    *value = T::from_f64(f64::NAN);
                }
            }
        }
    }
}
