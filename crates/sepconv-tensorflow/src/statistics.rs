//! What this library really did in this process, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::threads;

pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Results computed; refused calls do not count.
pub static KERNEL_CALLS: Counter = Counter::new();
pub static FLOAT16_CALLS: Counter = Counter::new();
pub static BFLOAT16_CALLS: Counter = Counter::new();
pub static FLOAT32_CALLS: Counter = Counter::new();
pub static FLOAT64_CALLS: Counter = Counter::new();
/// Of the depthwise part's op.
pub static DEPTHWISE_CALLS: Counter = Counter::new();
/// Of the pointwise part's.
pub static POINTWISE_CALLS: Counter = Counter::new();
/// Those with steps behind their parts.
pub static FUSED_CALLS: Counter = Counter::new();
/// Pointwise filters packed for more calls than one.
pub static PACKINGS: Counter = Counter::new();
/// Of the gradients' ops.
pub static GRADIENT_CALLS: Counter = Counter::new();
pub static SHAPE_FUNCTION_CALLS: Counter = Counter::new();

/// All of it, and the number of threads, as a JSON object.
pub fn json() -> String {
    format!(
        "{{\"kernel_calls\": {}, \"kernel_calls_by_dtype\": {{\"float16\": {}, \"bfloat16\": {}, \"float32\": {}, \
         \"float64\": {}}}, \"fused_calls\": {}, \"depthwise_calls\": {}, \"pointwise_calls\": {}, \
         \"packings\": {}, \"gradient_calls\": {}, \"shape_function_calls\": {}, \"threads\": {}}}",
        KERNEL_CALLS.value(),
        FLOAT16_CALLS.value(),
        BFLOAT16_CALLS.value(),
        FLOAT32_CALLS.value(),
        FLOAT64_CALLS.value(),
        FUSED_CALLS.value(),
        DEPTHWISE_CALLS.value(),
        POINTWISE_CALLS.value(),
        PACKINGS.value(),
        GRADIENT_CALLS.value(),
        SHAPE_FUNCTION_CALLS.value(),
        threads::count()
    )
}
