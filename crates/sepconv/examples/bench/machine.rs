//! The machine's limits: fused multiply-adds of the widest kind that the processor has, and copying of memory that no
//! cache holds.

use std::hint::black_box;
use std::time::Instant;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use serde_json::{Value, json};

/// Of each array that is copied.
const COPIED: usize = 64 << 20;
/// Chains of the portable loop.
const CHAINS: usize = 12;

/// Threads, and what they copy, and where to; held for good, as the first touch of memory costs more than a copy.
pub struct Machine {
    pool: ThreadPool,
    source: Vec<u8>,
    target: Vec<u8>,
}

impl Machine {
    pub fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        Ok(Self { pool, source: vec![1; COPIED], target: vec![2; COPIED] }) // no zeros: pages that are really there
    }

    /// FMA rate in GFLOP/s (two operations each), f32 and f64, and copy bandwidth in GB/s (bytes read plus bytes written),
    /// each a list of readings on all threads at once.
    pub fn measure(&mut self, seconds: f64) -> Value {
        let (name, float32, float64) = widest();
        json!({
            "instructions": name,
            "float32": self.peak(seconds, float32),
            "float64": self.peak(seconds, float64),
            "copy": self.copy(seconds),
        })
    }

    fn peak(&self, seconds: f64, chains: Chains) -> Vec<f64> {
        const ROUNDS: usize = 1 << 18; // about a millisecond
        let reading = || {
            let start = Instant::now();
            let operations: usize = self.pool.broadcast(|_| ROUNDS * chains(ROUNDS)).into_iter().sum();
            operations as f64 / start.elapsed().as_secs_f64() / 1e9
        };
        repeat(seconds, reading)
    }

    fn copy(&mut self, seconds: f64) -> Vec<f64> {
        let Self { pool, source, target } = self;
        let part = COPIED.div_ceil(pool.current_num_threads());
        let reading = || {
            let start = Instant::now();
            pool.in_place_scope(|scope| {
                for (from, to) in source.chunks(part).zip(target.chunks_mut(part)) {
                    scope.spawn(|_| to.copy_from_slice(black_box(from)));
                }
            });
            black_box(&mut *target);
            2.0 * COPIED as f64 / start.elapsed().as_secs_f64() / 1e9
        };
        repeat(seconds, reading)
    }
}

/// Runs so many rounds of one step in every chain; gives the operations of one round.
type Chains = fn(usize) -> usize;

/// At least three readings.
fn repeat(seconds: f64, mut reading: impl FnMut() -> f64) -> Vec<f64> {
    let (begun, mut readings) = (Instant::now(), Vec::new());
    while readings.len() < 3 || begun.elapsed().as_secs_f64() < seconds {
        readings.push(reading());
    }
    readings
}

/// The widest that this processor has: their name, chains in f32 and in f64.
fn widest() -> (&'static str, Chains, Chains) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return ("AVX-512", x86_64::avx512_f32, x86_64::avx512_f64);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return ("AVX2 and FMA", x86_64::fma_f32, x86_64::fma_f64);
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if std::arch::is_aarch64_feature_detected!("neon") {
            return ("NEON", aarch64::neon_f32, aarch64::neon_f64);
        }
    }
    ("multiply, then add", portable::<f32>, portable::<f64>)
}

/// So many independent chains of `$call`: as many as registers hold, so that every unit always has one to go on with.
#[allow(unused_macros)] // on other processors
macro_rules! chains {
    ($name:ident, $features:literal, $chains:literal x $lanes:literal, $splat:path, |$x:ident, $y:ident, $chain:ident| $call:expr) => {
        pub fn $name(rounds: usize) -> usize {
            #[target_feature(enable = $features)]
            fn run(rounds: usize) {
                let ($x, $y) = black_box(($splat(0.999), $splat(0.001)));
                let mut chains = black_box([$splat(1.0); $chains]);
                for _ in 0..rounds {
                    for each in &mut chains {
                        let $chain = *each;
                        *each = $call;
                    }
                }
                black_box(chains);
            }
            // SAFETY: `widest` gives this function out where the processor has the features.
            unsafe { run(rounds) };
            2 * $chains * $lanes
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    chains!(avx512_f32, "avx512f", 24 x 16, _mm512_set1_ps, |x, y, c| _mm512_fmadd_ps(c, x, y));
    chains!(avx512_f64, "avx512f", 24 x 8, _mm512_set1_pd, |x, y, c| _mm512_fmadd_pd(c, x, y));
    chains!(fma_f32, "avx2,fma", 12 x 8, _mm256_set1_ps, |x, y, c| _mm256_fmadd_ps(c, x, y));
    chains!(fma_f64, "avx2,fma", 12 x 4, _mm256_set1_pd, |x, y, c| _mm256_fmadd_pd(c, x, y));
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;
    use std::hint::black_box;

    // The addend comes first: y + c * x.
    chains!(neon_f32, "neon", 24 x 4, vdupq_n_f32, |x, y, c| vfmaq_f32(y, c, x));
    chains!(neon_f64, "neon", 24 x 2, vdupq_n_f64, |x, y, c| vfmaq_f64(y, c, x));
}

/// Plain arithmetic in arrays of 16 bytes, which compilers make vectors of.
fn portable<T: Copy + From<f32> + std::ops::Mul<Output = T> + std::ops::Add<Output = T>>(rounds: usize) -> usize {
    let lanes = 16 / size_of::<T>();
    let (x, y) = black_box((T::from(0.999), T::from(0.001)));
    let mut chains = black_box([T::from(1.0); 4 * CHAINS]);
    let chains = &mut chains[..lanes * CHAINS];
    for _ in 0..rounds {
        for chain in &mut *chains {
            *chain = *chain * x + y;
        }
    }
    black_box(chains);
    2 * CHAINS * lanes
}
