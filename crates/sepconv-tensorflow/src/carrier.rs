//! Attributes as the shape of a zero-element tensor, and back: the op's input `geometry`. Shape functions of the C ABI
//! cannot read integer attributes, but the shapes of inputs they can.
//!
//! `[0, strides_h, strides_w, rate_h, rate_w, 0]` for SAME, the same with `1` at the end for VALID, and
//! `[0, strides_h, strides_w, rate_h, rate_w, 2, top, bottom, left, right]` for EXPLICIT. Saved graphs hold such
//! tensors: a form that was ever released stays readable.

use sepconv::{Attributes, Padding};

/// Why the shape of `geometry` says nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "geometry must have shape [0, strides_h, strides_w, rate_h, rate_w, padding], padding being 0 (SAME) or 1 \
         (VALID), or 2 (EXPLICIT) followed by top, bottom, left, right; got {0:?}"
    )]
    Malformed(Vec<i64>),
    #[error(transparent)]
    Attributes(#[from] sepconv::Error),
}

const SAME: i64 = 0;
const VALID: i64 = 1;
const EXPLICIT: i64 = 2;

/// The shape that carries `attributes`.
///
/// # Errors
/// Attributes out of range: a shape cannot hold negative ones.
pub fn encode(attributes: &Attributes) -> Result<Vec<i64>, sepconv::Error> {
    attributes.check()?;
    let Attributes { strides, padding, rate } = attributes;
    let mut dims = vec![0, strides[0], strides[1], rate[0], rate[1]];
    match padding {
        Padding::Same => dims.push(SAME),
        Padding::Valid => dims.push(VALID),
        Padding::Explicit([[top, bottom], [left, right]]) => dims.extend([EXPLICIT, *top, *bottom, *left, *right]),
    }
    Ok(dims)
}

/// The attributes, in range, that a shape carries.
pub fn decode(dims: &[i64]) -> Result<Attributes, Error> {
    let (strides, rate, padding) = match *dims {
        [0, h, w, rate_h, rate_w, SAME] => ([h, w], [rate_h, rate_w], Padding::Same),
        [0, h, w, rate_h, rate_w, VALID] => ([h, w], [rate_h, rate_w], Padding::Valid),
        [0, h, w, rate_h, rate_w, EXPLICIT, top, bottom, left, right] => {
            ([h, w], [rate_h, rate_w], Padding::Explicit([[top, bottom], [left, right]]))
        }
        _ => return Err(Error::Malformed(dims.to_vec())),
    };
    let attributes = Attributes { strides, padding, rate };
    attributes.check()?;
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back() {
        let most = sepconv::geometry::LIMIT;
        for padding in [Padding::Same, Padding::Valid, Padding::Explicit([[0, 1], [2, most]])] {
            for (strides, rate) in [([1, 1], [1, 1]), ([2, 3], [4, 5]), ([most, 1], [1, most])] {
                let attributes = Attributes { strides, padding, rate };
                let dims = encode(&attributes).unwrap();
                assert_eq!(dims[0], 0);
                assert_eq!(decode(&dims), Ok(attributes));
            }
        }
    }

    #[test]
    fn what_cannot_be_carried_is_refused() {
        for (strides, rate) in [([0, 1], [1, 1]), ([1, -1], [1, 1]), ([1, 1], [i64::MAX, 1]), ([1, 1], [1, i64::MIN])] {
            encode(&Attributes { strides, padding: Padding::Same, rate }).unwrap_err();
        }
        let padding = Padding::Explicit([[-1, 0], [0, 0]]);
        encode(&Attributes { strides: [1, 1], padding, rate: [1, 1] }).unwrap_err();
    }

    #[test]
    fn garbage_is_refused() {
        let malformed: [&[i64]; 9] = [
            &[],
            &[0],
            &[0, 1, 1, 1, 1],
            &[1, 1, 1, 1, 1, 0],
            &[0, 1, 1, 1, 1, 3],
            &[0, 1, 1, 1, 1, 0, 0, 0, 0, 0],
            &[0, 1, 1, 1, 1, 2],
            &[0, 1, 1, 1, 1, 2, 0, 0, 0, 0, 0],
            &[i64::MAX; 300],
        ];
        for dims in malformed {
            assert_eq!(decode(dims), Err(Error::Malformed(dims.to_vec())));
        }
        let (huge, explicit) = ([0, 1, i64::MAX, 1, 1, 0], [0, 1, 1, 1, 1, 2, 0, i64::MAX, 0, 0]);
        assert_eq!(
            decode(&huge).unwrap_err().to_string(),
            "strides must be 1 to 2147483647 in each dimension, got 9223372036854775807 for the width"
        );
        assert!(matches!(decode(&explicit), Err(Error::Attributes(_))));
        assert!(matches!(decode(&[0, 0, 1, 1, 1, 1]), Err(Error::Attributes(_))));
    }
}
