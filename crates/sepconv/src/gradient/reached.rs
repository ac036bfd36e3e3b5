//! A geometry without phases that take no part, so that what a gradient costs does not depend on the rate.
//!
//! Where a rate is beyond what an axis has, each phase has a single result, and most phases have none that is not taken
//! off and do not meet the image either: all that they give to a sum are products of +0 with +0, or a chain of none. Of
//! several of these in succession the first says it all, as adding +0 again changes nothing.

use crate::geometry::{Axis, Geometry};

/// A geometry's phases that take part.
pub struct Reached {
    /// As if there were no others.
    pub geometry: Geometry,
    height: Option<Vec<usize>>,
    width: Option<Vec<usize>>,
}

impl Reached {
    pub fn of(g: &Geometry) -> Self {
        let [(height, of_height), (width, of_width)] = [&g.height, &g.width].map(reached);
        Self { geometry: Geometry { height, width, ..*g }, height: of_height, width: of_width }
    }

    /// How many of the small images that take part come before that one of all, of `g` that this is made of.
    pub fn images_before(&self, g: &Geometry, image: usize) -> usize {
        let (phase, n) = (image / g.batch, image % g.batch);
        let (height, at_row) = place(&self.height, phase / g.width.rate);
        let (width, at_column) = place(&self.width, phase % g.width.rate);
        let [width, n] = [if at_row { width } else { 0 }, if at_row && at_column { n } else { 0 }];
        (height * self.geometry.width.rate + width) * g.batch + n
    }
}

/// How many of these phases, or of all, come before that one, and whether it is among them.
fn place(phases: &Option<Vec<usize>>, phase: usize) -> (usize, bool) {
    let Some(phases) = phases else { return (phase, true) };
    phases.binary_search(&phase).map_or_else(|before| (before, false), |before| (before, true))
}

/// The axis with only the phases that take part, and which these are, if there are others.
fn reached(axis: &Axis) -> (Axis, Option<Vec<usize>>) {
    let Axis { input, rate, pad_before, padded, output, crop, .. } = *axis;
    if output + crop != rate || input.saturating_add(output) >= rate {
        return (*axis, None);
    }
    let of_image = (pad_before..pad_before + input).map(|row| row % rate);
    let mut phases: Vec<usize> = (0..output).chain(of_image).collect();
    // Those of the image follow each other, so there are others behind the results and behind these.
    let next: Vec<usize> = phases.iter().map(|phase| phase + 1).filter(|&phase| phase < rate).collect();
    phases.extend(next);
    phases.sort_unstable();
    phases.dedup();
    let rate = phases.len();
    let first = phases.partition_point(|&phase| phase < pad_before % axis.rate);
    let pad_before = pad_before / axis.rate * rate + first;
    let padded = padded / axis.rate * rate;
    (Axis { rate, pad_before, padded, crop: rate - output, ..*axis }, Some(phases))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attributes, Padding};

    /// What each result reads is what it read, and what is left out reads nothing.
    #[test]
    fn what_takes_part_reads_the_same() {
        for (input, kernel, rate, stride, padding) in [
            (4, 3, 50, 1, Padding::Same),
            (4, 2, 51, 1, Padding::Same),
            (5, 4, 23, 3, Padding::Same),
            (4, 1, 1000, 7, Padding::Valid),
            (6, 1, 60, 1, Padding::Explicit([[17, 3]; 2])),
            (6, 3, 20, 2, Padding::Explicit([[38, 0]; 2])),
            (3, 1, i32::MAX as i64, 1, Padding::Explicit([[7, 0]; 2])),
        ] {
            let attributes = Attributes { strides: [stride; 2], padding, rate: [rate; 2] };
            let g = Geometry::depthwise(&[3, input, input, 1], &[kernel, kernel, 1, 1], &attributes).unwrap();
            let reached = Reached::of(&g);
            let phases = reached.height.as_ref().unwrap();
            let (old, new) = (&g.height, &reached.geometry.height);
            assert_eq!((new.output, new.output + new.crop), (old.output, phases.len()));
            assert!(phases.len() <= 2 * (input + old.output) && phases.len() < old.rate);
            let reads = |axis: &Axis, phase: usize| {
                let taps = axis.inside(phase);
                taps.map(|tap| (tap, axis.origin(phase) + (tap * axis.rate) as isize)).collect::<Vec<_>>()
            };
            for (number, &phase) in phases.iter().enumerate() {
                assert_eq!(reads(new, number), reads(old, phase));
            }
            for phase in (0..old.rate.min(1000)).filter(|phase| !phases.contains(phase)) {
                assert!(reads(old, phase).is_empty() && phase >= old.output && phase > 0);
                let nearest = phases[place(&reached.height, phase).0 - 1];
                assert!(reads(old, nearest).is_empty() && nearest >= old.output, "{phase} {nearest}");
            }
            let image = |[row, column, n]: [usize; 3]| (phases[row] * old.rate + phases[column]) * g.batch + n;
            let last = phases.len() - 1;
            for place in [[0, 0, 0], [0, last, 2], [last, 1, 1], [1, last, 0]] {
                let [row, column, n] = place;
                let number = (row * phases.len() + column) * g.batch + n;
                assert_eq!(reached.images_before(&g, image(place)), number);
            }
            let all = old.rate * old.rate * g.batch;
            assert_eq!(reached.images_before(&g, all), phases.len() * phases.len() * g.batch);
        }
    }
}
