//! The kernels' threads: a pool of our own, as many as the caller asked for, made when first needed. (The C ABI gives
//! no access to TensorFlow's.) Kernels that run at the same time share the pool; none of them waits inside it for
//! another, so that they cannot deadlock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::tensorflow::status::{Code, Failure};

/// More than any machine has; keeps a slip from exhausting it.
pub const MOST: usize = 1024;

/// 0: as many as the process may run at once.
static WANTED: AtomicUsize = AtomicUsize::new(0);
static POOL: Mutex<Option<Pool>> = Mutex::new(None);

struct Pool {
    threads: usize,
    /// A forked child has the pool's memory but not its threads.
    process: u32,
    pool: Arc<ThreadPool>,
}

/// From the next kernel on use so many threads, at most [`MOST`]; fewer than 1: as many as the process may run at once.
pub fn set(threads: i32) {
    WANTED.store(usize::try_from(threads).unwrap_or(0).min(MOST), Ordering::Relaxed);
}

pub fn count() -> usize {
    // Asked once: the answer stands in files.
    static AT_ONCE: OnceLock<usize> = OnceLock::new();
    match WANTED.load(Ordering::Relaxed) {
        0 => *AT_ONCE.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get().min(MOST))),
        threads => threads,
    }
}

/// The pool of so many threads.
pub fn pool() -> Result<Arc<ThreadPool>, Failure> {
    let threads = count();
    let process = std::process::id();
    let mut current = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = current.as_ref().filter(|pool| pool.threads == threads && pool.process == process) {
        return Ok(pool.pool.clone());
    }
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("sepconv-{i}")).build().map_err(
        |error| Failure {
            code: Code::RESOURCE_EXHAUSTED,
            message: format!("threads must be a number that can be started, got {threads}: {error}"),
        },
    )?;
    let pool = Arc::new(pool);
    let before = current.replace(Pool { threads, process, pool: pool.clone() });
    // Dropping a pool wakes its threads, which a forked child does not have.
    if let Some(before) = before.filter(|before| before.process != process) {
        std::mem::forget(before);
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_threads_as_were_asked_for() {
        for threads in [3, 1, 2] {
            set(threads);
            assert_eq!(pool().unwrap().current_num_threads(), threads as usize);
        }
        set(i32::MAX);
        assert_eq!(count(), MOST);
        set(-1);
        assert!(count() >= 1);

        set(2);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sum = pool().unwrap().install(|| rayon::join(|| rayon::join(|| 1, || 2), || 3));
                        assert_eq!(sum, ((1, 2), 3));
                    }
                });
            }
        });
    }
}
