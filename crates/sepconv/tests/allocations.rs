//! What a plan's runs allocate: the first one on a thread at most 1 MiB, whatever the image, later ones nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::Array4;
use sepconv::epilogue::Epilogues;
use sepconv::{Padding, Plan, SeparableConv2d};

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_plan_keeps_little_memory_and_asks_for_none() {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
    let orders = ["reproducible", "v1 depthwise(separate, all) pointwise(separate, 300+212) subnormals(flushed)"];
    for numerics in orders {
        for (input_shape, rate) in [([1, 7, 7, 512], 1), ([1, 300, 200, 512], 1), ([2, 33, 33, 512], 3)] {
            let convolution = SeparableConv2d::new([1, 1], Padding::Same, [rate, rate])
                .numerics(numerics.parse().unwrap())
                .pool(pool.clone());
            let input = Array4::from_elem(input_shape, 0.5f32);
            let (depthwise_filter, pointwise_filter) = (Array4::ones((3, 3, 512, 1)), Array4::ones((1, 1, 512, 24)));
            let plan = convolution.plan(input_shape, depthwise_filter.view(), pointwise_filter.view()).unwrap();
            let allocated = |plan: &Plan<f32>| {
                let mut output = Array4::zeros(plan.output_shape());
                let before = BYTES.load(Ordering::Relaxed);
                plan.run_into(input.view(), output.view_mut()).unwrap();
                BYTES.load(Ordering::Relaxed) - before
            };
            let first = allocated(&plan);
            assert!(first <= 1 << 20, "{first} bytes for {input_shape:?} in the first run");
            assert_eq!(allocated(&plan), 0, "{input_shape:?}, {numerics}");
            let packed = convolution.pack(pointwise_filter.view()).unwrap();
            let pointwise = convolution.with_steps(&Epilogues::NONE).plan_pointwise(input_shape, &packed).unwrap();
            let first = allocated(&pointwise);
            assert!(first <= 1 << 20, "{first} bytes for {input_shape:?} in the first run of the pointwise part");
            assert_eq!(allocated(&pointwise), 0, "{input_shape:?}, the pointwise part, {numerics}");
        }
    }
}
