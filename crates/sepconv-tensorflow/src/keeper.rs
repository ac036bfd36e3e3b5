//! A node's pointwise filter, packed for all calls that bring the same one. Constants do for ever; what is read from a
//! variable does as long as nobody trains it.

use sepconv::{Element, PackedFilter, SeparableConv2d};

use crate::statistics;
use crate::tensorflow::status::Failure;
use crate::tensorflow::tensor::{Tensor, TensorElement};

/// Where the filter changed, TensorFlow copied it, because it was held here, rather than changing it in its place. So the next
/// one is held only after some calls, more of them each time, unless a filter stays for long.
pub struct Keeper<T: Element> {
    kept: Option<Kept<T>>,
    /// Calls that keep nothing before one does again: still, and after the next change.
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

/// Calls for which it was worth while to pack a filter of few rows, and to have it copied.
const LONG: u32 = 32;

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
        if let Some(kept) = &mut self.kept {
            let same = kept.filter.is_same::<T>(filter)?;
            if same && kept.packed.is_for(convolution) {
                kept.served = kept.served.saturating_add(1);
                return Ok(Some(kept.packed.clone()));
            }
            if !same {
                let grown = self.patience.saturating_mul(2).saturating_add(1);
                self.patience = if kept.served >= LONG { self.patience / 2 } else { grown };
                self.waiting = self.patience;
            }
            self.kept = None;
        }
        if self.waiting > 0 {
            self.waiting -= 1;
            return Ok(None);
        }
        let (filter, packed) = (hold()?, pack()?);
        statistics::PACKINGS.add();
        self.kept = Some(Kept { filter, packed: packed.clone(), served: 0 });
        Ok(Some(packed))
    }
}
