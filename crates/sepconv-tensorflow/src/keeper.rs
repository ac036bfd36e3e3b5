//! A node's pointwise filter, packed for all calls that bring the same one. Constants do for ever; what is read from a
//! variable does as long as nobody trains it.

use sepconv::{Element, PackedFilter, SeparableConv2d};

use crate::statistics;
use crate::tensorflow::status::Failure;
use crate::tensorflow::tensor::{Tensor, TensorElement};

/// Where another filter comes, TensorFlow has copied the one that is held here rather than change it in its place, and packing
/// it again takes time. So after each one that hardly anybody wanted, more calls go by before the next is kept.
pub struct Keeper<T: Element> {
    kept: Option<Kept<T>>,
    /// Calls that still go by, and how many will when another filter comes.
    waiting: u32,
    patience: u32,
}

struct Kept<T: Element> {
    /// Nobody can put another in its place while this is held.
    filter: Tensor,
    packed: PackedFilter<T>,
    /// Calls that found it.
    served: u32,
}

/// Calls for which it was worth while to copy a filter and pack it.
const WORTH: u32 = 8;

/// Once in so many calls, it matters to nobody.
const MOST: u32 = 1000;

impl<T: Element + TensorElement> Keeper<T> {
    pub fn new() -> Self {
        Self { kept: None, waiting: 0, patience: 0 }
    }

    /// The filter of this call, packed for that convolution; none if it is not kept now. `hold` gives one more handle of it.
    pub fn get(
        &mut self,
        convolution: &SeparableConv2d,
        filter: &Tensor,
        hold: impl FnOnce() -> Result<Tensor, Failure>,
        pack: impl FnOnce() -> Result<PackedFilter<T>, Failure>,
    ) -> Result<Option<PackedFilter<T>>, Failure> {
        if let Some(mut kept) = self.kept.take() {
            if kept.packed.is_for(convolution) && kept.filter.is_same::<T>(filter)? {
                kept.served = kept.served.saturating_add(1);
                return Ok(Some(self.kept.insert(kept).packed.clone()));
            }
            self.patience = if kept.served < WORTH { MOST.min(2 * self.patience + 1) } else { self.patience / 2 };
            self.waiting = self.patience;
        }
        if self.waiting > 0 {
            self.waiting -= 1;
            return Ok(None);
        }
        let (filter, packed) = (hold()?, pack()?);
        statistics::PACKINGS.add();
        Ok(Some(self.kept.insert(Kept { filter, packed, served: 0 }).packed.clone()))
    }
}
