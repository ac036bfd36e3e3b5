//! The crate as a contender of `ci/bench`, and the machine's limits: JSON lines on standard input and output.
//!
//! `bench THREADS once|every-call`: so many threads; the pointwise filter packed once, or in every call. Requests:
//! `{"do": "prepare", "shape": {...}, "dtype": "float32", "data": FOLDER}`, where the folder holds `input`,
//! `depthwise_filter` and `pointwise_filter` as raw f32; `{"do": "measure", "seconds": 0.04, "calls": 3}`, at least so
//! long and so many; `{"do": "result", "path": FILE}`, the last output as raw f32; `{"do": "machine", "seconds": 0.02}`.
//! Each is answered by one line; one with the key `error` says what failed. Numerics are the reproducible ones.

mod image;
mod machine;
mod packing;

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use half::{bf16, f16};
use image::Image;
use machine::Machine;
use ndarray::Array4;
use rayon::ThreadPool;
use sepconv::{Element, InstructionSet, Padding, SeparableConv2d};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

#[derive(Clone, Copy)]
enum Packing {
    Once,
    EveryCall,
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [threads, packing] = &arguments[..] else {
        return Err(format!("needs 2 arguments, THREADS and once|every-call, got {}", arguments.len()).into());
    };
    let threads = threads.parse::<usize>().ok().filter(|threads| (1..=1024).contains(threads));
    let threads = threads.ok_or("THREADS must be a whole number from 1 to 1024")?;
    let packing = match packing.as_str() {
        "once" => Packing::Once,
        "every-call" => Packing::EveryCall,
        other => return Err(format!("packing must be once or every-call, got {other}").into()),
    };
    // The calling thread is one of them.
    let helpers = Arc::new(rayon::ThreadPoolBuilder::new().num_threads((threads - 1).max(1)).build()?);
    serve(Worker { threads, helpers, packing, layer: None, machine: None })
}

/// What lasts from one request to the next.
struct Worker {
    threads: usize,
    helpers: Arc<ThreadPool>,
    packing: Packing,
    layer: Option<Box<dyn Layer>>,
    machine: Option<Machine>,
}

fn serve(mut worker: Worker) -> Outcome<()> {
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&mut worker, &line?).unwrap_or_else(|error| json!({"error": error.to_string()}));
        let mut output = std::io::stdout().lock();
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

fn answer(worker: &mut Worker, line: &str) -> Outcome<Value> {
    let request: Value = serde_json::from_str(line)?;
    let seconds = request["seconds"].as_f64().unwrap_or_default();
    let prepared = || "nothing is prepared".to_owned();
    match request["do"].as_str() {
        Some("prepare") => {
            worker.layer = None; // its memory first
            let data = Path::new(request["data"].as_str().ok_or("data must be a folder")?);
            let (shape, dtype) = (&request["shape"], request["dtype"].as_str());
            let mut new = match dtype {
                Some("float32") => prepare::<f32>(shape, data, worker)?,
                Some("float64") => prepare::<f64>(shape, data, worker)?,
                Some("float16") => prepare::<f16>(shape, data, worker)?,
                Some("bfloat16") => prepare::<bf16>(shape, data, worker)?,
                _ => return Err(format!("dtype must be float16, bfloat16, float32 or float64, got {dtype:?}").into()),
            };
            new.run()?;
            worker.layer = Some(new);
            Ok(json!({"instruction_set": InstructionSet::preferred().name()}))
        }
        Some("measure") => {
            let layer = worker.layer.as_mut().ok_or_else(prepared)?;
            let calls = request["calls"].as_u64().unwrap_or(1) as usize;
            let times = measure(layer.as_mut(), seconds, calls)?;
            Ok(json!({"seconds": times}))
        }
        Some("result") => {
            let path = request["path"].as_str().ok_or("path must be a file's")?;
            std::fs::write(path, worker.layer.as_ref().ok_or_else(prepared)?.output())?;
            Ok(json!({}))
        }
        Some("machine") => {
            if worker.machine.is_none() {
                worker.machine = Some(Machine::new(worker.threads)?);
            }
            Ok(worker.machine.as_mut().expect("just made").measure(seconds))
        }
        other => Err(format!("do must be prepare, measure, result or machine, got {other:?}").into()),
    }
}

fn measure(layer: &mut dyn Layer, seconds: f64, calls: usize) -> Result<Vec<f64>, sepconv::Error> {
    layer.run()?; // others ran since the last call
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < calls || begun.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        layer.run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    Ok(times)
}

/// A layer of any element type, with its input and output in place.
trait Layer {
    fn run(&mut self) -> Result<(), sepconv::Error>;
    /// As raw f32.
    fn output(&self) -> Vec<u8>;
}

struct Prepared<T> {
    run: packing::Run<T>,
    input: Image<T>,
    output: Image<T>,
}

impl<T: Element> Layer for Prepared<T> {
    fn run(&mut self) -> Result<(), sepconv::Error> {
        (self.run)(self.input.view(), self.output.view_mut())
    }

    fn output(&self) -> Vec<u8> {
        self.output.view().iter().flat_map(|value| (value.to_f64() as f32).to_le_bytes()).collect()
    }
}

fn prepare<T: Element>(shape: &Value, data: &Path, worker: &Worker) -> Outcome<Box<dyn Layer>> {
    let number = |value: &Value| value.as_u64().ok_or_else(|| format!("shape {shape} lacks a whole number"));
    let mut extents = [0; 4];
    for (axis, extent) in extents.iter_mut().enumerate() {
        *extent = number(&shape["input"][axis])? as usize;
    }
    let [batch, height, width, in_channels] = extents;
    let [multiplier, kernel, stride, rate, out_channels] =
        ["channel_multiplier", "kernel", "stride", "rate", "out_channels"].map(|key| number(&shape[key]));
    let (multiplier, kernel, out_channels) = (multiplier? as usize, kernel? as usize, out_channels? as usize);
    let (stride, rate) = (stride?, rate?);

    let input = Image::new(extents, read(&data.join("input"), extents)?);
    let depthwise_filter = read(&data.join("depthwise_filter"), [kernel, kernel, in_channels, multiplier])?;
    let pointwise_filter = read(&data.join("pointwise_filter"), [1, 1, in_channels * multiplier, out_channels])?;
    let [out_height, out_width] = [height, width].map(|extent| extent.div_ceil(stride as usize));
    let out_shape = [batch, out_height, out_width, out_channels];
    let output = Image::new(out_shape, vec![T::ZERO; out_shape.iter().product()]);
    let convolution = SeparableConv2d::new([stride as i64; 2], Padding::Same, [rate as i64; 2]);
    let convolution = convolution.pool(worker.helpers.clone()).threads(worker.threads);
    let prepare: packing::Prepare<T> = match worker.packing {
        Packing::Once => packing::once,
        Packing::EveryCall => packing::every_call,
    };
    let run = prepare(convolution, extents, depthwise_filter, pointwise_filter)?;
    Ok(Box::new(Prepared { run, input, output }))
}

fn read<T: Element>(path: &Path, shape: [usize; 4]) -> Outcome<Array4<T>> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let values = bytes.as_chunks().0.iter().map(|&value| T::from_f64(f32::from_le_bytes(value).into())).collect();
    Array4::from_shape_vec(shape, values).map_err(|error| format!("{}: {error}", path.display()).into())
}
