//! Strides, padding and rate, turned into output extents and the places that each tap reads: TensorFlow's rules.
//!
//! Plain values with no behaviour hidden in them. Every other part (reference, plan, shape function, Python) asks here
//! and never recomputes what is said here. Nothing in this module allocates in proportion to what the numbers say.
//!
//! With every rate 1 the depthwise operation pads by itself. With any rate above 1 TensorFlow pads the image with real
//! zeros, deals it out to `rate * rate` smaller images (SpaceToBatchND), convolves these *with the strides*, and puts
//! the results together again (BatchToSpaceND), cropping as if the strides were 1. So output row `y` reads row
//! `((y / rate) * stride + tap) * rate + y % rate` of the padded image, which is an ordinary dilated convolution only
//! where the stride is 1.

use std::ops::Range;

use crate::error::{AxisName, Error};

/// The largest stride, rate or explicit padding: TensorFlow keeps them in 32 bits.
pub const LIMIT: i64 = i32::MAX as i64;

/// How the image is padded; the words and the meaning are TensorFlow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// As many zeros as make the output `ceil(input / stride)` high and wide, the odd one at the end.
    Same,
    /// None.
    Valid,
    /// `[[top, bottom], [left, right]]`.
    Explicit([[i64; 2]; 2]),
}

/// The attributes of one separable convolution, as a caller gives them: not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Height, width.
    pub strides: [i64; 2],
    pub padding: Padding,
    /// Height, width.
    pub rate: [i64; 2],
}

impl Attributes {
    /// Refuses strides, rates and explicit paddings out of range, whatever the shapes.
    pub fn check(&self) -> Result<(), Error> {
        for axis in AxisName::BOTH {
            let i = axis as usize;
            let in_range = |argument, value, least| match value {
                value if (least..=LIMIT).contains(&value) => Ok(()),
                value => Err(Error::OutOfRange { argument, axis, value, least }),
            };
            in_range("strides", self.strides[i], 1)?;
            in_range("rate", self.rate[i], 1)?;
            if let Padding::Explicit(paddings) = self.padding {
                in_range("padding", paddings[i][0], 0)?;
                in_range("padding", paddings[i][1], 0)?;
            }
        }
        Ok(())
    }

    /// True where TensorFlow goes through SpaceToBatchND.
    pub fn space_to_batch(&self) -> bool {
        self.rate != [1, 1]
    }

    /// The output's height or width where it follows from what is known; `None` where it does not. The attributes are
    /// [checked](Self::check).
    pub fn output_extent(
        &self,
        axis: AxisName,
        input: Option<usize>,
        kernel: Option<usize>,
    ) -> Result<Option<usize>, Error> {
        match (input, kernel) {
            (Some(input), Some(kernel)) => Ok(Some(Axis::new(self, axis, input, kernel)?.output)),
            (Some(input), None) if self.padding == Padding::Same && !self.space_to_batch() => {
                Ok(Some(input.div_ceil(self.strides[axis as usize] as usize)))
            }
            _ => Ok(None),
        }
    }
}

/// One of the two image axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    pub input: usize,
    pub kernel: usize,
    pub stride: usize,
    pub rate: usize,
    /// Zeros before the image.
    pub pad_before: usize,
    /// Extent of the image with all its zeros: a multiple of `rate` where TensorFlow goes through SpaceToBatchND.
    pub padded: usize,
    /// Rows that BatchToSpaceND takes off at the end.
    pub crop: usize,
    pub output: usize,
}

impl Axis {
    fn new(attributes: &Attributes, axis: AxisName, input: usize, kernel: usize) -> Result<Self, Error> {
        let i = axis as usize;
        // 128 bits hold every product of values below 2^64 and 2^31 that occurs here.
        let (n, k) = (input as i128, kernel as i128);
        let (stride, rate) = (attributes.strides[i] as i128, attributes.rate[i] as i128);
        let too_small = Err(Error::Extent { axis, input, kernel, rate: rate as usize });
        let (before, padded, crop, output) = if attributes.space_to_batch() {
            let (before, after) = match attributes.padding {
                Padding::Same if kernel == 0 => return too_small,
                Padding::Same => ((k - 1) * rate / 2, (k - 1) * rate - (k - 1) * rate / 2),
                Padding::Valid => (0, 0),
                Padding::Explicit(p) => (p[i][0] as i128, p[i][1] as i128),
            };
            let base = before + n + after;
            let padded = (base + rate - 1) / rate * rate;
            let crop = padded - base;
            // The division truncates towards zero, as TensorFlow's does.
            let extent = (padded / rate - k + stride) / stride;
            (before, padded, crop, if extent < 0 { -1 } else { extent * rate - crop })
        } else {
            let (before, padded, output) = match attributes.padding {
                Padding::Same => {
                    let output = (n + stride - 1) / stride;
                    let zeros = ((output - 1) * stride + k - n).max(0);
                    (zeros / 2, n + zeros, output)
                }
                Padding::Valid => (0, n, (n - k + stride) / stride),
                Padding::Explicit(p) => {
                    let padded = n + p[i][0] as i128 + p[i][1] as i128;
                    (p[i][0] as i128, padded, (padded - k + stride) / stride)
                }
            };
            (before, padded, 0, output)
        };
        if output < 0 {
            return too_small;
        }
        let fits = |value: i128| isize::try_from(value).map(|v| v as usize).map_err(|_| Error::TooLarge);
        // The last tap's place must fit as well.
        fits(output * stride + k * rate + padded)?;
        Ok(Self {
            input,
            kernel,
            stride: stride as usize,
            rate: rate as usize,
            pad_before: fits(before)?,
            padded: fits(padded)?,
            crop: fits(crop)?,
            output: fits(output)?,
        })
    }

    /// Where output `output`'s tap 0 reads, counted from the image's first row; negative before the image.
    /// Tap `i` reads `i * rate` further on.
    pub fn origin(&self, output: usize) -> isize {
        // Dividing takes long.
        let (each, phase) = if self.rate == 1 { (output, 0) } else { (output / self.rate, output % self.rate) };
        (each * self.stride * self.rate + phase) as isize - self.pad_before as isize
    }

    /// The outputs whose tap 0 lies inside the image.
    pub fn outputs_inside(&self) -> Range<usize> {
        let apart = self.stride.saturating_mul(self.rate);
        let from = |place: usize| self.output.min(place / apart * self.rate + self.rate.min(place % apart));
        from(self.pad_before)..from(self.pad_before + self.input)
    }

    /// The taps of output `output` that lie inside the image.
    pub fn inside(&self, output: usize) -> Range<usize> {
        self.taps_within(&self.within(output))
    }

    /// The same, were there any number of taps to both sides.
    pub fn within(&self, output: usize) -> Range<isize> {
        let origin = self.origin(output);
        let rate = self.rate as isize;
        let taps = |before: isize| if rate == 1 { before } else { (before + rate - 1).div_euclid(rate) };
        taps(-origin)..taps(self.input as isize - origin)
    }

    /// Those of them that there are.
    pub fn taps_within(&self, within: &Range<isize>) -> Range<usize> {
        let tap = |tap: isize| self.kernel.min(tap.max(0) as usize);
        tap(within.start)..tap(within.end).max(tap(within.start))
    }
}

/// All extents of one separable convolution, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub batch: usize,
    pub in_channels: usize,
    pub channel_multiplier: usize,
    pub out_channels: usize,
    pub height: Axis,
    pub width: Axis,
}

impl Geometry {
    /// From the shapes of `input` (batch, height, width, in_channels), `depthwise_filter` (height, width, in_channels,
    /// channel_multiplier) and `pointwise_filter` (1, 1, in_channels * channel_multiplier, out_channels).
    ///
    /// # Errors
    /// What TensorFlow refuses as well, with the argument's name, its value and the limit.
    pub fn new(
        input: &[usize],
        depthwise_filter: &[usize],
        pointwise_filter: &[usize],
        attributes: &Attributes,
    ) -> Result<Self, Error> {
        attributes.check()?;
        let [batch, in_height, in_width, in_channels] = rank_4("input", input)?;
        let [kernel_height, kernel_width, filter_channels, channel_multiplier] =
            rank_4("depthwise_filter", depthwise_filter)?;
        let [one_high, one_wide, k, out_channels] = rank_4("pointwise_filter", pointwise_filter)?;
        check_channels(in_channels, filter_channels)?;
        check_any_channels(in_channels, channel_multiplier)?;
        check_pointwise([one_high, one_wide, k], product(in_channels, channel_multiplier)?)?;
        let geometry = Self {
            batch,
            in_channels,
            channel_multiplier,
            out_channels,
            height: Axis::new(attributes, AxisName::Height, in_height, kernel_height)?,
            width: Axis::new(attributes, AxisName::Width, in_width, kernel_width)?,
        };
        // Eight bytes is the widest element, and no array of ours may exceed isize::MAX bytes; nor, if it is empty, may the
        // product of its other extents.
        let depthwise = [geometry.batch, geometry.height.output, geometry.width.output, geometry.k()];
        for shape in [geometry.output_shape(), depthwise] {
            let element = if shape.contains(&0) { 1 } else { 8 };
            let size = shape.iter().try_fold(element, |size, &extent| product(size, extent.max(1)))?;
            isize::try_from(size).map_err(|_| Error::TooLarge)?;
        }
        Ok(geometry)
    }

    /// Of the depthwise part alone, whose results take the place of the outputs. Arguments and errors as for
    /// [`new`](Self::new).
    pub fn depthwise(input: &[usize], depthwise_filter: &[usize], attributes: &Attributes) -> Result<Self, Error> {
        let k = match depthwise_filter {
            [.., channels, multiplier] => channels.saturating_mul(*multiplier),
            _ => 0,
        };
        Self::new(input, depthwise_filter, &[1, 1, k, k], attributes)
    }

    /// Of the pointwise part alone, which takes up the image's own pixels, as many apart as the strides say, and zeros where
    /// it is padded: as behind a depthwise part of one tap. Arguments and errors as for [`new`](Self::new).
    pub fn pointwise(input: &[usize], pointwise_filter: &[usize], attributes: &Attributes) -> Result<Self, Error> {
        let channels = input.last().copied().unwrap_or_default();
        Self::new(input, &[1, 1, channels, 1], pointwise_filter, attributes)
    }

    /// The output's shape as far as it follows from what is known; `None` is what is not known. Whatever is known is
    /// checked as [`new`](Self::new) does, where all values that the message would name are known.
    pub fn partial(
        input: [Option<usize>; 4],
        depthwise_filter: [Option<usize>; 4],
        pointwise_filter: [Option<usize>; 4],
        attributes: Option<&Attributes>,
    ) -> Result<[Option<usize>; 4], Error> {
        let whole = |shape: [Option<usize>; 4]| shape.into_iter().collect::<Option<Vec<_>>>();
        if let (Some(input), Some(depthwise_filter), Some(pointwise_filter), Some(attributes)) =
            (whole(input), whole(depthwise_filter), whole(pointwise_filter), attributes)
        {
            return Ok(Self::new(&input, &depthwise_filter, &pointwise_filter, attributes)?.output_shape().map(Some));
        }
        let [batch, in_height, in_width, in_channels] = input;
        let [kernel_height, kernel_width, filter_channels, channel_multiplier] = depthwise_filter;
        let [one_high, one_wide, filter_k, out_channels] = pointwise_filter;
        if let (Some(in_channels), Some(filter_channels)) = (in_channels, filter_channels) {
            check_channels(in_channels, filter_channels)?;
        }
        let mut k = filter_k;
        if let (Some(in_channels), Some(channel_multiplier)) = (in_channels.or(filter_channels), channel_multiplier) {
            check_any_channels(in_channels, channel_multiplier)?;
            k = Some(product(in_channels, channel_multiplier)?);
        }
        if let (Some(one_high), Some(one_wide), Some(filter_k), Some(k)) = (one_high, one_wide, filter_k, k) {
            check_pointwise([one_high, one_wide, filter_k], k)?;
        }
        let Some(attributes) = attributes else { return Ok([batch, None, None, out_channels]) };
        attributes.check()?;
        Ok([
            batch,
            attributes.output_extent(AxisName::Height, in_height, kernel_height)?,
            attributes.output_extent(AxisName::Width, in_width, kernel_width)?,
            out_channels,
        ])
    }

    /// Length of the pointwise sum: `in_channels * channel_multiplier`.
    pub fn k(&self) -> usize {
        self.in_channels * self.channel_multiplier
    }

    /// Rows of the pointwise product: output pixels of the whole batch.
    pub fn rows(&self) -> usize {
        self.batch * self.height.output * self.width.output
    }

    pub fn input_shape(&self) -> [usize; 4] {
        [self.batch, self.height.input, self.width.input, self.in_channels]
    }

    pub fn depthwise_filter_shape(&self) -> [usize; 4] {
        [self.height.kernel, self.width.kernel, self.in_channels, self.channel_multiplier]
    }

    pub fn pointwise_filter_shape(&self) -> [usize; 4] {
        [1, 1, self.k(), self.out_channels]
    }

    pub fn output_shape(&self) -> [usize; 4] {
        [self.batch, self.height.output, self.width.output, self.out_channels]
    }
}

fn rank_4(argument: &'static str, shape: &[usize]) -> Result<[usize; 4], Error> {
    shape.try_into().map_err(|_| Error::Rank { argument, shape: shape.to_vec() })
}

fn product(a: usize, b: usize) -> Result<usize, Error> {
    a.checked_mul(b).ok_or(Error::TooLarge)
}

fn check_channels(in_channels: usize, filter_channels: usize) -> Result<(), Error> {
    if filter_channels == in_channels { Ok(()) } else { Err(Error::Channels { in_channels, filter_channels }) }
}

fn check_any_channels(in_channels: usize, channel_multiplier: usize) -> Result<(), Error> {
    if in_channels == 0 || channel_multiplier == 0 {
        return Err(Error::NoChannels { in_channels, channel_multiplier });
    }
    Ok(())
}

fn check_pointwise(got: [usize; 3], k: usize) -> Result<(), Error> {
    if got == [1, 1, k] { Ok(()) } else { Err(Error::Pointwise { got, k }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAME: Attributes = Attributes { strides: [2, 1], padding: Padding::Same, rate: [1, 1] };

    #[test]
    fn partial_shapes_keep_what_is_known() {
        let (input, filters) = (
            [Some(2), Some(9), Some(8), Some(3)],
            ([Some(3), Some(3), Some(3), Some(2)], [Some(1), Some(1), Some(6), Some(5)]),
        );
        let partial = |input, attributes| Geometry::partial(input, filters.0, filters.1, attributes);
        assert_eq!(partial(input, Some(&SAME)), Ok([Some(2), Some(5), Some(8), Some(5)]));
        assert_eq!(partial(input, None), Ok([Some(2), None, None, Some(5)]));
        assert_eq!(partial([None, None, Some(8), None], Some(&SAME)), Ok([None, None, Some(8), Some(5)]));
        assert_eq!(partial([None; 4], Some(&SAME)), Ok([None, None, None, Some(5)]));
        assert_eq!(Geometry::partial([None; 4], [None; 4], [None; 4], None), Ok([None; 4]));
    }

    #[test]
    fn outputs_are_inside_where_their_tap_is() {
        let axes =
            (0..30).flat_map(|input| (1..5).flat_map(move |stride| (1..5).map(move |rate| (input, stride, rate))));
        for (input, stride, rate) in axes {
            for padding in [Padding::Valid, Padding::Explicit([[5, 0], [0, 7]]), Padding::Explicit([[29, 40], [2, 1]])]
            {
                let attributes = Attributes { strides: [stride, stride], padding, rate: [rate, 1] };
                for axis in AxisName::BOTH {
                    let axis = Axis::new(&attributes, axis, input, 1).unwrap();
                    let inside = axis.outputs_inside();
                    assert!(inside.start <= inside.end && inside.end <= axis.output, "{axis:?}: {inside:?}");
                    let right = |output| inside.contains(&output) != axis.inside(output).is_empty();
                    assert!((0..axis.output).all(right), "{axis:?}: {inside:?}");
                }
            }
        }
    }

    #[test]
    fn a_pointwise_part_is_refused_for_its_own_arguments() {
        let refused = |input: &[usize], filter: &[usize]| Geometry::pointwise(input, filter, &SAME).unwrap_err();
        let rank = |argument, shape: &[usize]| Error::Rank { argument, shape: shape.to_vec() };
        assert_eq!(refused(&[2, 9, 3], &[1, 1, 3, 5]), rank("input", &[2, 9, 3]));
        assert_eq!(refused(&[], &[1, 1, 3, 5]), rank("input", &[]));
        assert_eq!(refused(&[2, 9, 8, 3], &[3, 5]), rank("pointwise_filter", &[3, 5]));
        assert_eq!(refused(&[2, 9, 8, 3], &[1, 1, 4, 5]), Error::Pointwise { got: [1, 1, 4], k: 3 });
        assert_eq!(refused(&[2, 9, 8, 3], &[3, 1, 3, 5]), Error::Pointwise { got: [3, 1, 3], k: 3 });
        assert_eq!(refused(&[2, 9, 8, 1], &[1, 1, 1, usize::MAX]), Error::TooLarge);
        let geometry = Geometry::pointwise(&[2, 9, 8, 3], &[1, 1, 3, 5], &SAME).unwrap();
        assert_eq!((geometry.k(), geometry.output_shape()), (3, [2, 5, 8, 5]));
    }

    #[test]
    fn what_no_array_can_hold_is_refused() {
        let most = usize::MAX;
        for [input, filter, pointwise] in [
            [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, most]],
            [[most, 4, 4, 2], [3, 3, 2, 1], [1, 1, 2, 3]],
            [[1 << 62, 4, 4, 2], [3, 3, 2, 1], [1, 1, 2, 3]],
            [[0, 1, 1, 1 << 40], [1, 1, 1 << 40, 1 << 40], [1, 1, most, 0]],
            [[0, 1 << 40, 1 << 40, 1], [1, 1, 1, 1], [1, 1, 1, 1]],
        ] {
            assert_eq!(Geometry::new(&input, &filter, &pointwise, &SAME), Err(Error::TooLarge), "{input:?}");
            let [input, filter, pointwise] = [input, filter, pointwise].map(|shape| shape.map(Some));
            assert_eq!(Geometry::partial(input, filter, pointwise, Some(&SAME)), Err(Error::TooLarge), "{input:?}");
        }
        let multiplied = [None, None, Some(1 << 40), Some(1 << 40)];
        assert_eq!(Geometry::partial([None; 4], multiplied, [None; 4], None), Err(Error::TooLarge));
    }

    #[test]
    fn partial_shapes_are_checked_where_known() {
        let (depthwise, pointwise) = ([Some(3), Some(3), Some(3), Some(2)], [Some(1), Some(1), Some(6), None]);
        let refused = |input, depthwise, pointwise| Geometry::partial(input, depthwise, pointwise, None).unwrap_err();
        let error = refused([None, None, None, Some(4)], depthwise, pointwise);
        assert_eq!(error, Error::Channels { in_channels: 4, filter_channels: 3 });
        let error = refused([None; 4], depthwise, [Some(1), Some(1), Some(7), None]);
        assert_eq!(error, Error::Pointwise { got: [1, 1, 7], k: 6 });
        let error = refused([None; 4], [None; 4], [Some(2), Some(1), Some(7), None]);
        assert_eq!(error, Error::Pointwise { got: [2, 1, 7], k: 7 });
        let attributes = Attributes { strides: [0, 1], ..SAME };
        assert!(Geometry::partial([None; 4], depthwise, pointwise, Some(&attributes)).is_err());
    }
}
