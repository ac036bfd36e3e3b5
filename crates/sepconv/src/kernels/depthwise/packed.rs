//! The depthwise filter as the loops read it, and where their vectors have their channels.

use std::mem::MaybeUninit;

use ndarray::ArrayView4;

use crate::element::Element;
use crate::error::Error;
use crate::geometry::Geometry;
use crate::kernels::Rows;
use crate::kernels::kernel::WidenFn;
use crate::kernels::memory::Buffer;
use crate::kernels::run::Spread;

/// [taps down][taps across][`stride`], made sums, zero beyond k; and one more tap, all zeros.
pub(super) fn pack<T: Element>(
    filter: ArrayView4<T>,
    g: &Geometry,
    stride: usize,
    widen: WidenFn<T>,
) -> Result<Buffer<T::Sum>, Error> {
    let taps = g.height.kernel * g.width.kernel;
    let mut packed = Buffer::new((taps + 1).saturating_mul(stride))?;
    let (weights, zeros) = packed.as_mut_slice().split_at_mut(taps * stride);
    zeros.fill(MaybeUninit::new(T::Sum::ZERO));
    if taps == 0 {
        return Ok(packed); // however many rows there are
    }
    let k = g.k();
    for (tap, to) in
        filter.outer_iter().flat_map(|row| row.into_outer_iter()).zip(weights.chunks_exact_mut(stride.max(1)))
    {
        let tap = tap.as_standard_layout();
        let (from, to) = (tap.as_ptr(), to.as_mut_ptr().cast());
        let weights = Rows { from, from_stride: k, to, to_stride: stride as isize, rows: 1, columns: k };
        // SAFETY: a tap has k weights, the buffer whole vectors for them; the function is for this processor.
        unsafe { widen(&weights) };
    }
    Ok(packed)
}

/// For each vector of results, where its pixel values are.
pub(super) fn spreads(g: &Geometry, lanes: usize) -> Vec<Spread> {
    let channel = |k: usize| (k / g.channel_multiplier).min(g.in_channels - 1);
    // Where there are so many, a whole vector of channels is there.
    let last = g.in_channels.saturating_sub(lanes);
    let spread = |k: usize| {
        let mut spread = Spread { channel: channel(k).min(last), lanes: [0; 16] };
        for (l, lane) in spread.lanes.iter_mut().enumerate().take(lanes) {
            *lane = (channel(k + l) - spread.channel) as i32;
        }
        spread
    };
    (0..g.k()).step_by(lanes).map(spread).collect()
}
