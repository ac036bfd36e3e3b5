//! MobileNet v1 on `ndarray`, with TensorFlow's bits and no TensorFlow: classifies images and says how many in a second.
//!
//! `python -m sepconv.examples.mobilenet_export mobilenet.safetensors` writes a file of weights; then
//! `cargo run --release -p sepconv --example mobilenet -- --weights mobilenet.safetensors`. Without a file the weights are
//! random, for the width and resolution multipliers alpha and rho of one's choice. Exit status: 0, or 1 if something given
//! cannot be used, which one line on the standard error says.

mod file;
mod first;
mod network;
mod pooling;
mod weights;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use clap::error::ErrorKind;
use ndarray::{Array2, Array4, ArrayView2};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use network::Network;
use weights::Weights;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// MobileNet v1 with the bits that TensorFlow gives; images per second.
#[derive(Parser)]
#[command(name = "mobilenet")]
struct Options {
    /// What `python -m sepconv.examples.mobilenet_export` wrote [default: random weights, sums in an order of our own]
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// The width multiplier; that of the file, if there is one [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    alpha: Option<f64>,
    /// The resolution multiplier: images are 224 times as high and wide; that of the file, if there is one [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    rho: Option<f64>,
    /// Images at a time; as many as the file is for, if there is one [default: 1]
    #[arg(long)]
    batch: Option<usize>,
    /// A safetensors file whose `input` is [batch, height, width, 3] of f32, -1 to 1 [default: random pixels]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where `features` (behind the last separable layer), `pooled`, `logits` and `probabilities` are written
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Threads that are measured besides one [default: as many as the machine has]
    #[arg(long)]
    threads: Option<usize>,
    /// Runs of each number of threads whose median time counts
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// Of random pixels and weights
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let outcome = match Options::try_parse() {
        Ok(options) => run(&options).map_err(|error| error.to_string()),
        Err(help) if matches!(help.kind(), ErrorKind::DisplayHelp) => {
            print!("{help}");
            Ok(())
        }
        Err(error) => Err(error.to_string().lines().next().unwrap_or_default().replacen("error: ", "", 1)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mobilenet: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Outcome<()> {
    let most = match options.threads {
        Some(threads) => in_range("--threads", threads)?,
        None => std::thread::available_parallelism()?.get(),
    };
    let runs = in_range("--runs", options.runs)?;
    positive("--alpha", options.alpha)?;
    positive("--rho", options.rho)?;
    if let Some(path) = &options.output {
        in_a_folder(path).map_err(|error| of_output(path, error))?;
    }
    let weights = match &options.weights {
        Some(path) => Weights::read(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => {
            let (alpha, rho, batch) =
                (options.alpha.unwrap_or(1.0), options.rho.unwrap_or(1.0), options.batch.unwrap_or(1));
            Weights::random(alpha, resolution(rho), batch, options.seed)
                .map_err(|error| format!("--alpha {alpha}, --rho {rho}, --batch {batch}: {error}"))?
        }
    };
    check(options, &weights)?;
    let shape = weights.input_shape();
    let input = match &options.input {
        Some(path) => file::input(path, shape).map_err(|error| format!("{}: {error}", path.display()))?,
        None => {
            let mut random = StdRng::seed_from_u64(options.seed);
            Array4::from_shape_simple_fn(shape, || random.random_range(-1.0..1.0))
        }
    };

    let mut threads = vec![1, most];
    threads.dedup();
    let mut logits = Vec::new();
    for &threads in &threads {
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build()?);
        let mut network = Network::new(&weights, &pool)?;
        let seconds = measure(&mut network, &input, runs)?;
        println!(
            "{:.1} images per second with {threads} thread{} ({:.2} ms for {}, median of {runs} runs)",
            shape[0] as f64 / seconds,
            if threads == 1 { "" } else { "s" },
            1e3 * seconds,
            shape[0],
        );
        logits.push(network.logits().to_owned());
        if logits.len() == 1 {
            let probabilities = softmax(network.logits());
            print_classes(&probabilities);
            if let Some(path) = &options.output {
                file::write(path, &network, &probabilities).map_err(|error| of_output(path, error))?;
            }
        }
    }
    let bits = |logits: &Array2<f32>| logits.mapv(f32::to_bits);
    if logits.iter().any(|other| bits(other) != bits(&logits[0])) {
        return Err("the number of threads changed a bit of the logits".into());
    }
    Ok(())
}

fn in_range(name: &str, number: usize) -> Outcome<usize> {
    if !(1..=1024).contains(&number) {
        return Err(format!("{name} must be 1 to 1024, got {number}").into());
    }
    Ok(number)
}

fn positive(name: &str, multiplier: Option<f64>) -> Outcome<()> {
    match multiplier.filter(|multiplier| !(multiplier.is_finite() && *multiplier > 0.0)) {
        Some(multiplier) => Err(format!("{name} must be a finite number above 0, got {multiplier}").into()),
        None => Ok(()),
    }
}

/// That a file can be there: writing comes after all the work.
fn in_a_folder(file: &Path) -> Outcome<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.is_dir(), file.is_dir()) {
        (false, _) => Err(format!("there is no folder {}", folder.display()).into()),
        (_, true) => Err("it must be a file, and is a folder".into()),
        (true, false) => Ok(()),
    }
}

fn of_output(path: &Path, error: Box<dyn std::error::Error>) -> String {
    format!("--output {}: {error}", path.display())
}

/// Height and width of images, by the multiplier.
fn resolution(rho: f64) -> usize {
    (rho * 224.0).round() as usize
}

/// That what was asked for is what the weights are for.
fn check(options: &Options, weights: &Weights) -> Outcome<()> {
    let Weights { alpha, resolution: size, batch, .. } = weights;
    if let Some(asked) = options.alpha.filter(|asked| asked != alpha) {
        return Err(format!("--alpha {asked}: the weights are for {alpha}").into());
    }
    if let Some(asked) = options.rho.filter(|asked| resolution(*asked) != *size) {
        let rho = *size as f64 / 224.0;
        return Err(format!("--rho {asked}: the weights are for {rho:.4}, images of {size}x{size}").into());
    }
    if let Some(asked) = options.batch.filter(|asked| asked != batch) {
        return Err(format!("--batch {asked}: the weights' orders of sums are for {batch}").into());
    }
    Ok(())
}

/// The median of the times in seconds, after a run that is not timed.
fn measure(network: &mut Network, input: &Array4<f32>, runs: usize) -> Result<f64, sepconv::Error> {
    network.run(input.view())?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        network.run(input.view())?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[runs / 2])
}

/// Not to the last bit what TensorFlow gives, whose exponential function is its own.
fn softmax(logits: ArrayView2<f32>) -> Array2<f32> {
    let mut probabilities = logits.to_owned();
    for mut image in probabilities.rows_mut() {
        let largest = image.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        image.mapv_inplace(|logit| (logit - largest).exp());
        let sum = image.sum();
        image.mapv_inplace(|power| power / sum);
    }
    probabilities
}

/// The likeliest five of each of the first images.
fn print_classes(probabilities: &Array2<f32>) {
    for (number, image) in probabilities.rows().into_iter().enumerate().take(4) {
        let mut classes: Vec<_> = image.iter().copied().enumerate().collect();
        classes.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let shown: Vec<_> = classes.iter().take(5).map(|(class, p)| format!("{class} ({:.2} %)", 100.0 * p)).collect();
        println!("image {number}: classes {}", shown.join(", "));
    }
}
