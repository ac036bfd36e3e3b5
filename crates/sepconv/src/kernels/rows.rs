//! Rows that are copied or converted, vector by vector: packed, widened, transposed, rounded.

#![expect(unsafe_op_in_unsafe_fn, reason = "each function is unsafe for the reason that its caller states")]
#![expect(clippy::needless_range_loop, reason = "indices into arrays of registers are unrolled; iterators hide that")]

use super::vector::Widen;
use crate::element::Element;

/// Rows of a full column panel of a pointwise filter whose columns are adjacent, to be copied.
pub struct Pack<T: Element> {
    pub from: *const T,
    pub row_stride: isize,
    pub k: usize,
    /// [k][columns].
    pub to: *mut T::Sum,
}

/// Rows to be converted.
pub struct Rows<From, To> {
    pub from: *const From,
    pub from_stride: usize,
    pub to: *mut To,
    pub to_stride: isize,
    pub rows: usize,
    pub columns: usize,
}

/// Copies a full column panel of the filter, `VECTORS` vectors wide.
///
/// # Safety
/// What [`Pack`] says of its pointers holds, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn pack<S: Element<Sum = V::Element>, V: Widen<S>, const VECTORS: usize>(pack: &Pack<S>) {
    for k in 0..pack.k {
        let from = pack.from.wrapping_offset(k as isize * pack.row_stride);
        let to = pack.to.add(k * VECTORS * V::LANES);
        for v in 0..VECTORS {
            V::widen(from.add(v * V::LANES)).store(to.add(v * V::LANES));
        }
    }
}

/// Makes sums of numbers as they are stored, behind the last ones zeros to the end of a vector.
///
/// # Safety
/// The rows are there, those of the results in whole vectors, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn widen_rows<S: Element<Sum = V::Element>, V: Widen<S>>(stored: &Rows<S, V::Element>) {
    for row in 0..stored.rows {
        let (from, to) = (stored.from.add(row * stored.from_stride), stored.to.offset(row as isize * stored.to_stride));
        let mut i = 0;
        while i + V::LANES <= stored.columns {
            V::widen(from.add(i)).store(to.add(i));
            i += V::LANES;
        }
        if i < stored.columns {
            V::widen_first(from.add(i), stored.columns - i).store(to.add(i));
        }
    }
}

/// Makes columns of sums of rows of numbers as they are stored, behind the last ones zeros to the end of a vector.
///
/// # Safety
/// The rows are there, those of the results in whole vectors, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn transpose<S: Element<Sum = V::Element>, V: Widen<S>>(stored: &Rows<S, V::Element>) {
    match V::LANES {
        16 => transpose_squares::<S, V, 16>(stored),
        8 => transpose_squares::<S, V, 8>(stored),
        4 => transpose_squares::<S, V, 4>(stored),
        2 => transpose_squares::<S, V, 2>(stored),
        _ => unreachable!("no vector has other numbers of lanes"),
    }
}

#[inline(always)]
unsafe fn transpose_squares<S: Element<Sum = V::Element>, V: Widen<S>, const LANES: usize>(
    stored: &Rows<S, V::Element>,
) {
    for row in (0..stored.rows).step_by(LANES) {
        for column in (0..stored.columns).step_by(LANES) {
            let there = [stored.rows - row, stored.columns - column].map(|count| count.min(LANES));
            let from = stored.from.wrapping_add(row.wrapping_mul(stored.from_stride)).wrapping_add(column);
            let to = stored.to.wrapping_offset(column as isize * stored.to_stride).wrapping_add(row);
            if there == [LANES; 2] {
                // Of lengths that the compiler knows.
                transpose_square::<S, V, LANES>((from, stored.from_stride), (to, stored.to_stride), [LANES; 2]);
            } else {
                transpose_square::<S, V, LANES>((from, stored.from_stride), (to, stored.to_stride), there);
            }
        }
    }
}

/// Of a square of which so many rows and columns are there: by perfect shuffles of its rows.
#[inline(always)]
unsafe fn transpose_square<S: Element<Sum = V::Element>, V: Widen<S>, const LANES: usize>(
    (from, from_stride): (*const S, usize),
    (to, to_stride): (*mut V::Element, isize),
    [rows, columns]: [usize; 2],
) {
    let mut square = [V::splat(V::Element::ZERO); LANES];
    for r in 0..LANES {
        if r < rows {
            let from = from.wrapping_add(r.wrapping_mul(from_stride));
            square[r] = if columns == LANES { V::widen(from) } else { V::widen_first(from, columns) };
        }
    }
    let mut turns = 1;
    while turns < LANES {
        let before = square;
        for r in 0..LANES / 2 {
            [square[2 * r], square[2 * r + 1]] = before[r].interleave(before[r + LANES / 2]);
        }
        turns *= 2;
    }
    for c in 0..LANES {
        if c < columns {
            square[c].store(to.wrapping_offset(c as isize * to_stride));
        }
    }
}

/// Rounds sums to the storage type.
///
/// # Safety
/// The rows are there, and the processor has `V`'s instruction set.
#[inline(always)]
pub unsafe fn narrow_rows<S: Element<Sum = V::Element>, V: Widen<S>>(sums: &Rows<V::Element, S>) {
    for row in 0..sums.rows {
        let (from, to) = (sums.from.add(row * sums.from_stride), sums.to.offset(row as isize * sums.to_stride));
        let mut i = 0;
        while i + V::LANES <= sums.columns {
            V::load(from.add(i)).narrow(to.add(i));
            i += V::LANES;
        }
        while i < sums.columns {
            to.add(i).write(S::narrow(*from.add(i)));
            i += 1;
        }
    }
}
