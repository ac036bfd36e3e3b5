//! Images whose memory begins with a cache line, as the other contenders lay theirs out: a vector never lies in two lines then.

use aligned_vec::{AVec, ConstAlign};
use ndarray::{ArrayView4, ArrayViewMut4};

pub struct Image<T> {
    shape: [usize; 4],
    values: AVec<T, ConstAlign<64>>,
}

impl<T> Image<T> {
    /// With as many values as it has elements.
    pub fn new(shape: [usize; 4], values: impl IntoIterator<Item = T>) -> Self {
        let values = AVec::from_iter(64, values);
        assert_eq!(values.len(), shape.iter().product::<usize>());
        Self { shape, values }
    }

    pub fn view(&self) -> ArrayView4<'_, T> {
        ArrayView4::from_shape(self.shape, &self.values).expect("as many values as elements")
    }

    pub fn view_mut(&mut self) -> ArrayViewMut4<'_, T> {
        ArrayViewMut4::from_shape(self.shape, &mut self.values).expect("as many values as elements")
    }
}
