//! The steps behind one part of the operation, with their numbers packed.

use super::memory::Buffer;
use super::{Finish, Kernel};
use crate::element::Element;
use crate::epilogue;
use crate::error::Error;

/// As [`epilogue::Step`].
#[derive(Clone, Copy)]
pub enum Step<T> {
    /// The place of the first number.
    Add(usize),
    Multiply(usize),
    MultiplyAdd(usize, usize),
    Relu,
    Relu6,
    ReluOneDnn,
    Relu6OneDnn,
    /// The factor.
    LeakyRelu(T),
    /// A sixth, rounded to the storage type.
    HardSwish(T),
    HardSwishSixthFirst(T),
    Swish,
    SwishOneDnn,
}

/// Steps for rows of so many channels.
pub struct Epilogue<T: Element> {
    kernel: &'static Kernel<T>,
    steps: Vec<Step<T::Sum>>,
    /// Of each step that has them, zeros behind the last to whole vectors, and widened.
    numbers: Option<Buffer<T::Sum>>,
}

impl<T: Element> Epilogue<T> {
    pub fn new(kernel: &'static Kernel<T>, steps: &[epilogue::Step<T>], channels: usize) -> Result<Self, Error> {
        let stride = channels.next_multiple_of(kernel.lanes);
        let all: Vec<_> = steps.iter().flat_map(epilogue::Step::numbers).collect();
        let mut numbers = if all.is_empty() { None } else { Some(Buffer::new(all.len().saturating_mul(stride))?) };
        for (to, from) in
            numbers.iter_mut().flat_map(|buffer| buffer.as_mut_slice().chunks_exact_mut(stride.max(1))).zip(all)
        {
            assert_eq!(from.len(), channels);
            let from = from.iter().map(|number| number.widen()).chain(std::iter::repeat(T::Sum::ZERO));
            to.iter_mut().zip(from).for_each(|(to, from)| _ = to.write(from));
        }
        let mut places = (0..).step_by(stride.max(1));
        let mut next = || places.next().unwrap_or_default();
        let sixth = T::from_f64(1.0 / 6.0).widen();
        let step = |step: &epilogue::Step<'_, T>| match step {
            epilogue::Step::Add(_) => Step::Add(next()),
            epilogue::Step::Multiply(_) => Step::Multiply(next()),
            epilogue::Step::MultiplyAdd(..) => Step::MultiplyAdd(next(), next()),
            epilogue::Step::Relu => Step::Relu,
            epilogue::Step::Relu6 => Step::Relu6,
            epilogue::Step::ReluOneDnn => Step::ReluOneDnn,
            epilogue::Step::Relu6OneDnn => Step::Relu6OneDnn,
            epilogue::Step::LeakyRelu(alpha) => Step::LeakyRelu(alpha.widen()),
            epilogue::Step::HardSwish => Step::HardSwish(sixth),
            epilogue::Step::HardSwishSixthFirst => Step::HardSwishSixthFirst(sixth),
            epilogue::Step::Swish => Step::Swish,
            epilogue::Step::SwishOneDnn => Step::SwishOneDnn,
        };
        Ok(Self { kernel, steps: steps.iter().map(step).collect(), numbers })
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps, and the numbers from that channel on.
    pub fn steps(&self, channel: usize) -> (&[Step<T::Sum>], *const T::Sum) {
        let numbers = self.numbers.as_ref().map_or(std::ptr::null(), |numbers| numbers.as_ptr().wrapping_add(channel));
        (&self.steps, numbers)
    }

    /// Takes the steps with so many rows and columns of sums (a place, and the bytes from one row to the next), of which
    /// the first is that channel, divisible by the lanes of a vector.
    ///
    /// # Safety
    /// The sums are there, in whole vectors.
    pub unsafe fn finish(&self, (start, stride): (*mut T::Sum, isize), [rows, columns]: [usize; 2], first: usize) {
        let (steps, numbers) = self.steps(first);
        let finish = Finish { start, stride, rows, columns, steps, numbers };
        // SAFETY: the caller's promise; the kernel's existence proves its instruction set.
        unsafe { (self.kernel.finish)(&finish) }
    }
}
