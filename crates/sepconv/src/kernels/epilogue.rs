//! The steps behind one part of the operation, with their numbers packed.

use super::memory::Buffer;
use super::tile::Tile;
use super::{Finish, Kernel};
use crate::element::Element;
use crate::epilogue;
use crate::error::Error;

/// As [`epilogue::Step`]; where there are numbers, the place of the first.
#[derive(Clone, Copy)]
pub enum Step {
    Add(usize),
    Multiply(usize),
    Relu,
    Relu6,
    LeakyRelu(f32),
    HardSwish,
}

/// Steps for rows of so many channels.
pub struct Epilogue<T: Element> {
    kernel: Kernel<T>,
    steps: Vec<Step>,
    /// Of each step that has them, zeros behind the last to whole vectors, and widened.
    numbers: Option<Buffer<T::Sum>>,
}

impl<T: Element> Epilogue<T> {
    pub fn new(kernel: Kernel<T>, steps: &[epilogue::Step<T>], channels: usize) -> Result<Self, Error> {
        let stride = channels.next_multiple_of(kernel.lanes);
        let all: Vec<_> = steps.iter().filter_map(epilogue::Step::numbers).collect();
        let mut numbers = if all.is_empty() { None } else { Some(Buffer::new(all.len().saturating_mul(stride))?) };
        for (to, from) in numbers.iter_mut().flat_map(|buffer| buffer.as_mut_slice().chunks_exact_mut(stride)).zip(all)
        {
            assert_eq!(from.len(), channels);
            let from = from.iter().map(|number| number.widen()).chain(std::iter::repeat(T::Sum::ZERO));
            to.iter_mut().zip(from).for_each(|(to, from)| _ = to.write(from));
        }
        let mut places = (0..).step_by(stride.max(1));
        let mut next = || places.next().unwrap_or_default();
        let step = |step: &epilogue::Step<'_, T>| match step {
            epilogue::Step::Add(_) => Step::Add(next()),
            epilogue::Step::Multiply(_) => Step::Multiply(next()),
            epilogue::Step::Relu => Step::Relu,
            epilogue::Step::Relu6 => Step::Relu6,
            epilogue::Step::LeakyRelu(alpha) => Step::LeakyRelu(*alpha),
            epilogue::Step::HardSwish => Step::HardSwish,
        };
        Ok(Self { kernel, steps: steps.iter().map(step).collect(), numbers })
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Takes the steps with all of a tile's rows, which have been filled and are not pairs yet.
    pub fn finish_tile(&self, tile: &mut Tile<T::Sum>) {
        if self.is_empty() {
            return;
        }
        let target = tile.target();
        for (first, place, columns) in tile.pieces(0) {
            let stride = target.next * size_of::<T::Sum>() as isize;
            // SAFETY: the tile has the rows, of whole vectors.
            unsafe { self.finish((place.cast_mut(), stride), [tile.all_rows(), columns], first) };
        }
    }

    /// Takes the steps with so many rows and columns of sums (a place, and the bytes from one row to the next), of which
    /// the first is that channel, divisible by the lanes of a vector.
    ///
    /// # Safety
    /// The sums are there, in whole vectors.
    pub unsafe fn finish(&self, (start, stride): (*mut T::Sum, isize), [rows, columns]: [usize; 2], first: usize) {
        if self.is_empty() {
            return;
        }
        let numbers = self.numbers.as_ref().map_or(std::ptr::null(), |numbers| numbers.as_ptr().wrapping_add(first));
        let finish = Finish { start, stride, rows, columns, steps: &self.steps, numbers };
        // SAFETY: the caller's promise; the kernel's existence proves its instruction set.
        unsafe { (self.kernel.finish)(&finish) }
    }
}
