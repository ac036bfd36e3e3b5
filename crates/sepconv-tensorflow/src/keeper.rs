//! What a node keeps of its last calls: the pointwise filter, packed for all calls that bring the same one, and the plan of the
//! last call. Constants stay for ever, and what is read from a variable does as long as nobody trains it.

use std::sync::Arc;

use bytemuck::cast_slice;
use sepconv::{Element, Geometry, PackedFilter, Plan, SeparableConv2d};

use crate::statistics;
use crate::tensorflow::status::Failure;
use crate::tensorflow::tensor::{Tensor, TensorElement};
use crate::threads::Team;

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
    last: Option<Last<T>>,
}

struct Last<T: Element> {
    call: Call,
    /// Copies of the depthwise filter and of the steps' numbers, which may be anybody's.
    small: Vec<Vec<T>>,
    plan: Arc<Plan<T>>,
}

/// What a plan is for, besides its operands.
#[derive(Clone)]
pub struct Call {
    pub geometry: Geometry,
    pub team: Arc<Team>,
}

/// Calls for which it was worth while to copy a filter and pack it.
const WORTH: u32 = 8;

/// Once in so many calls, it matters to nobody.
const MOST: u32 = 1000;

impl<T: Element + TensorElement> Keeper<T> {
    pub fn new() -> Self {
        Self { kept: None, waiting: 0, patience: 0 }
    }

    /// The plan of the last call, if this one is like it. `small` are the depthwise filter and the numbers.
    pub fn last(&mut self, call: &Call, filter: &Tensor, small: &[&[T]]) -> Result<Option<Arc<Plan<T>>>, Failure> {
        let Some(kept) = &mut self.kept else { return Ok(None) };
        let Some(last) = &kept.last else { return Ok(None) };
        let alike = last.call.geometry == call.geometry && Arc::ptr_eq(&last.call.team, &call.team);
        if !(alike && kept.filter.is_same::<T>(filter)? && same_bits(&last.small, small)) {
            return Ok(None);
        }
        kept.served = kept.served.saturating_add(1);
        Ok(Some(last.plan.clone()))
    }

    /// The filter of this call, packed for that convolution; none if it is not kept now. `hold` gives one more handle of it.
    pub fn packed(
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
        Ok(Some(self.kept.insert(Kept { filter, packed, served: 0, last: None }).packed.clone()))
    }

    /// Keeps the plan of this call, made with what [`packed`](Self::packed) gave.
    pub fn keep(&mut self, call: Call, small: &[&[T]], plan: Plan<T>) -> Arc<Plan<T>> {
        let plan = Arc::new(plan);
        if let Some(kept) = &mut self.kept {
            kept.last =
                Some(Last { call, small: small.iter().map(|operand| operand.to_vec()).collect(), plan: plan.clone() });
        }
        plan
    }
}

fn same_bits<T: TensorElement>(copies: &[Vec<T>], operands: &[&[T]]) -> bool {
    let same = |(a, b): (&Vec<T>, &&[T])| cast_slice::<T, u8>(a) == cast_slice::<T, u8>(b);
    copies.len() == operands.len() && copies.iter().zip(operands).all(same)
}
