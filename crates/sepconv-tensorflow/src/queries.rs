//! What Python asks of the Rust crate, in JSON: geometry, numerics and revealing exist once, there.
//!
//! A question holds `input`, `depthwise_filter` and `pointwise_filter` (shapes, `null` where an extent is unknown),
//! `strides`, `rate` and `padding` (`"SAME"`, `"VALID"` or `[[top, bottom], [left, right]]`), or `carrier` in place of
//! these three.

use std::ffi::{c_int, c_void};
use std::str::FromStr;

use bytemuck::Pod;
use half::{bf16, f16};
use sepconv::numerics::Sum;
use sepconv::reveal::{PATIENCE, Probe, gradient, reveal, reveal_within};
use sepconv::{Attributes, Element, Geometry, Numerics, Orders, Padding};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::carrier;

#[derive(Deserialize)]
struct Question {
    input: Option<Vec<Option<usize>>>,
    depthwise_filter: Option<Vec<Option<usize>>>,
    pointwise_filter: Option<Vec<Option<usize>>>,
    strides: Option<[i64; 2]>,
    rate: Option<[i64; 2]>,
    padding: Option<PaddingText>,
    carrier: Option<Vec<i64>>,
    numerics: Option<String>,
    dtype: Option<String>,
    /// Asks about a gradient's order: with the convolution's own `numerics`, of what: `"pixels"` (the depthwise result), `"input"`, `"depthwise_filter"` or `"pointwise_filter"`.
    gradient: Option<String>,
    /// Whether a convolution's order may take some seconds to reveal.
    #[serde(default)]
    patient: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PaddingText {
    Name(String),
    Explicit([[i64; 2]; 2]),
}

impl Question {
    fn attributes(&self) -> Result<Attributes, String> {
        if let Some(carrier) = &self.carrier {
            return carrier::decode(carrier).map_err(|error| error.to_string());
        }
        let padding = match &self.padding {
            Some(PaddingText::Name(name)) if name == "SAME" => Padding::Same,
            Some(PaddingText::Name(name)) if name == "VALID" => Padding::Valid,
            Some(PaddingText::Explicit(pairs)) => Padding::Explicit(*pairs),
            _ => return Err("padding must be SAME, VALID or two pairs".into()),
        };
        let (Some(strides), Some(rate)) = (self.strides, self.rate) else {
            return Err("strides and rate must be given".into());
        };
        Ok(Attributes { strides, padding, rate })
    }

    /// `None` where an extent is unknown.
    fn geometry(&self, attributes: &Attributes) -> Result<Option<Geometry>, String> {
        let known = |shape: &Option<Vec<Option<usize>>>| shape.as_ref()?.iter().copied().collect::<Option<Vec<_>>>();
        let (Some(input), Some(depthwise_filter), Some(pointwise_filter)) =
            (known(&self.input), known(&self.depthwise_filter), known(&self.pointwise_filter))
        else {
            return Ok(None);
        };
        Geometry::new(&input, &depthwise_filter, &pointwise_filter, attributes).map(Some).map_err(|e| e.to_string())
    }
}

fn ask(question: &str, answer: impl FnOnce(Question) -> Result<Value, String>) -> String {
    let question = serde_json::from_str(question).map_err(|error| error.to_string());
    question.and_then(answer).unwrap_or_else(|error| json!({"error": error})).to_string()
}

/// The attributes, their carrier, and where all extents are known what follows from them; the numerics in their full form,
/// checked, if the question holds some. `{"error": ...}` if anything is refused.
pub fn geometry(question: &str) -> String {
    ask(question, |question| {
        let attributes = question.attributes()?;
        let carrier = carrier::encode(&attributes).map_err(|error| error.to_string())?;
        let mut answer = json!({
            "carrier": carrier,
            "strides": attributes.strides,
            "rate": attributes.rate,
            "padding": match attributes.padding {
                Padding::Same => json!("SAME"),
                Padding::Valid => json!("VALID"),
                Padding::Explicit(pairs) => json!(pairs),
            },
            "space_to_batch": attributes.space_to_batch(),
        });
        let geometry = question.geometry(&attributes)?;
        if let Some(geometry) = &geometry {
            let axes = [geometry.height, geometry.width];
            answer["output"] = json!(geometry.output_shape());
            answer["paddings"] = json!(axes.map(|axis| [axis.pad_before, axis.padded - axis.input - axis.pad_before]));
            answer["crops"] = json!(axes.map(|axis| [0, axis.crop]));
        }
        if let Some(text) = &question.numerics {
            let orders: Orders = text.parse().map_err(|error| sepconv::Error::Numerics(error).to_string())?;
            if let Some(geometry) = &geometry {
                orders.pick(geometry.batch, geometry.rows()).check(geometry.k()).map_err(|error| error.to_string())?;
            }
            answer["numerics"] = json!(orders.to_string());
        }
        Ok(answer)
    })
}

/// `int32_t probe(void *user, int32_t part, const void *input, const void *filter, void *output)`: part 0 is the
/// depthwise result of the shapes in the question, part 1 the pointwise product, part 2 the gradient that it asks about; 0 if
/// all of the output was written. Gradients take two arrays: of pixels the upstream gradient and the transposed pointwise
/// filter; of the input the depthwise result's gradient and the depthwise filter; of the depthwise filter the input and the
/// depthwise result's gradient; of the pointwise filter the transposed depthwise result and the upstream gradient.
pub type Callback = unsafe extern "C" fn(*mut c_void, c_int, *const c_void, *const c_void, *mut c_void) -> c_int;

struct Called {
    callback: Callback,
    user: *mut c_void,
    depthwise_length: usize,
    pointwise_length: usize,
    patient: bool,
}

impl Called {
    /// The order of a convolution or of one of its gradients, or why it is unclear.
    fn order<T: Element>(
        &mut self,
        gradient: Option<(&str, Option<Numerics>)>,
        g: &Geometry,
    ) -> Result<Result<String, String>, String> {
        match gradient {
            None if self.patient => Ok(text(reveal_within::<T, _>(PATIENCE, g, self))),
            None => Ok(text(reveal::<T, _>(g, self))),
            Some((of, forward)) => self.gradient::<T>(of, forward, g),
        }
    }

    fn gradient<T: Element>(
        &self,
        of: &str,
        forward: Option<Numerics>,
        g: &Geometry,
    ) -> Result<Result<String, String>, String> {
        let (rows, width) = (g.rows(), g.width.output);
        let own = Geometry { out_channels: g.k(), ..*g };
        let length = match of {
            "pixels" => rows * g.k(),
            "input" => g.input_shape().iter().product(),
            "depthwise_filter" => g.depthwise_filter_shape().iter().product(),
            "pointwise_filter" => g.k() * g.out_channels,
            _ => return Err(format!("gradient must be pixels, input, depthwise_filter or pointwise_filter, got {of}")),
        };
        let mut call = |a: &[T], b: &[T]| self.call(2, a, b, length);
        Ok(match of {
            "pixels" => {
                let likely = [Sum::Chain(g.out_channels)];
                text(gradient::product([rows, g.out_channels, g.k()], &likely, &mut call))
            }
            "input" => text(gradient::input(&own, &mut call)),
            "depthwise_filter" => text(gradient::depthwise_filter(&own, &mut call)),
            _ => {
                // A row of an image at a time, an image at a time, all at once; shared between threads.
                let lengths = [width, width * g.height.output, rows].map(|length| length.max(1));
                let few = |length: &usize| rows / length < MOST_CHAINS;
                let of = |shares| lengths.into_iter().filter(few).map(move |length| shared(rows, length, shares));
                let likely: Vec<Sum> = [1, 2, 4, 8, 16].into_iter().flat_map(of).collect();
                let found = gradient::product([g.k(), rows, g.out_channels], &likely, &mut call);
                let depthwise = forward.unwrap_or(Numerics::REPRODUCIBLE).depthwise;
                text(found.map(|product| Numerics { depthwise, ..product }))
            }
        })
    }

    fn call<T: Pod>(&self, part: c_int, input: &[T], filter: &[T], length: usize) -> Result<Vec<T>, String> {
        let mut output = Vec::<T>::new();
        output.try_reserve_exact(length).map_err(|_| format!("no memory for {length} elements of a probe's answer"))?;
        // SAFETY: the caller of `reveal` vouches for the callback, which reads and, if it gives 0, writes all of arrays of
        // the shapes that its question gave; these have just these lengths.
        unsafe {
            let to = output.as_mut_ptr().cast();
            if (self.callback)(self.user, part, input.as_ptr().cast(), filter.as_ptr().cast(), to) != 0 {
                return Err("the caller's probe failed".into());
            }
            output.set_len(length);
        }
        Ok(output)
    }
}

/// Orders of more chains are not guessed: a text could not hold them.
const MOST_CHAINS: usize = 1 << 15;

/// Rows in so many shares that are equal but for one row, each cut where a length is full, counted from the first row on.
fn shared(rows: usize, length: usize, shares: usize) -> Sum {
    let bound = |share: usize| share * (rows / shares) + share.min(rows % shares);
    let mut sums = Vec::new();
    for share in 0..shares {
        let (start, end) = (bound(share), bound(share + 1));
        let cuts = (start / length + 1..end.div_ceil(length)).map(|n| n * length);
        let ends: Vec<usize> = cuts.chain([end]).collect();
        let starts = std::iter::once(start).chain(ends.iter().copied());
        let blocks: Vec<usize> = starts.zip(&ends).map(|(start, end)| end - start).collect();
        match share {
            0 => sums.extend(blocks.into_iter().map(Sum::Chain)),
            _ => sums.push(Sum::blocks(&blocks)),
        }
    }
    if sums.len() == 1 { sums.remove(0) } else { Sum::Blocks(sums) }
}

/// The text of an order, which the op will be able to read.
fn text<O: ToString + FromStr, E: ToString>(found: Result<O, E>) -> Result<String, String> {
    let text = found.map(|order| order.to_string()).map_err(|unclear| unclear.to_string())?;
    text.parse::<O>().map(|_| text).map_err(|_| "the order has more chains than a text may hold".into())
}

impl<T: Element> Probe<T> for Called {
    type Error = String;

    fn depthwise(&mut self, input: &[T], filter: &[T]) -> Result<Vec<T>, String> {
        self.call(0, input, filter, self.depthwise_length)
    }

    fn pointwise(&mut self, pixels: &[T], filter: &[T]) -> Result<Vec<T>, String> {
        self.call(1, pixels, filter, self.pointwise_length)
    }
}

/// The numerics of a black box of the question's shapes and `dtype`, or why they are unclear.
///
/// # Safety
/// `callback` can be called with `user` and arrays of the question's shapes.
pub unsafe fn reveal_numerics(question: &str, callback: Callback, user: *mut c_void) -> String {
    ask(question, |question| {
        let geometry = question.geometry(&question.attributes()?)?.ok_or("every extent must be known")?;
        let mut called = Called {
            callback,
            user,
            depthwise_length: geometry.rows() * geometry.k(),
            pointwise_length: geometry.rows() * geometry.out_channels,
            patient: question.patient,
        };
        let forward = question.numerics.as_ref().map(|text| text.parse::<Numerics>()).transpose();
        let forward = forward.map_err(|error| sepconv::Error::Numerics(error).to_string())?;
        let of = question.gradient.as_deref().map(|name| (name, forward));
        let found = match question.dtype.as_deref() {
            Some("float16") => called.order::<f16>(of, &geometry),
            Some("bfloat16") => called.order::<bf16>(of, &geometry),
            Some("float32") => called.order::<f32>(of, &geometry),
            Some("float64") => called.order::<f64>(of, &geometry),
            other => return Err(format!("dtype must be float16, bfloat16, float32 or float64, got {other:?}")),
        };
        Ok(match found? {
            Ok(numerics) => json!({"numerics": numerics}),
            Err(unclear) => json!({"unclear": unclear}),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(question: Value) -> Value {
        serde_json::from_str(&geometry(&question.to_string())).unwrap()
    }

    #[test]
    fn geometry_answers() {
        let mut question = json!({
            "input": [1, 10, 10, 2], "depthwise_filter": [3, 3, 2, 1], "pointwise_filter": [1, 1, 2, 3],
            "strides": [2, 2], "rate": [2, 2], "padding": "SAME", "numerics": "reproducible",
        });
        let full = answer(question.clone());
        assert_eq!(full["output"], json!([1, 6, 6, 3]));
        assert_eq!(full["paddings"], json!([[2, 2], [2, 2]]));
        assert_eq!(full["numerics"], json!(sepconv::Numerics::REPRODUCIBLE.to_string()));
        let again = answer(json!({"carrier": full["carrier"]}));
        assert_eq!(again["strides"], json!([2, 2]));
        question["input"][0] = Value::Null;
        assert_eq!(answer(question.clone())["output"], Value::Null);
        question["strides"] = json!([0, 1]);
        assert!(answer(question)["error"].as_str().unwrap().starts_with("strides must be 1 to"));
        assert!(answer(json!({"carrier": [1]}))["error"].is_string());
        assert!(answer(json!("?"))["error"].is_string());
    }
}
