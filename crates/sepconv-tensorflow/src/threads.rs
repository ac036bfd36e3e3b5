//! The kernels' threads: TensorFlow's own that calls a kernel, and a pool of others that help it, together as many as the user
//! asked for; made when first needed. (The C ABI gives no access to TensorFlow's pool.) Kernels that run at the same time share
//! the pool; none of them waits inside it for another, so that they cannot deadlock.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};
use sepconv::SeparableConv2d;

use crate::tensorflow::status::{Code, Failure};

/// More than any machine has; keeps a slip from exhausting it.
pub const MOST: usize = 1024;

/// 0: as many as the process may run at once.
static WANTED: AtomicUsize = AtomicUsize::new(0);
static CURRENT: Mutex<Option<Arc<Team>>> = Mutex::new(None);

pub struct Team {
    /// The calling one included.
    threads: usize,
    /// A forked child has the pool's memory but not its threads: its [`forks`] are others.
    forks: u32,
    helpers: Option<Arc<ThreadPool>>,
}

impl Team {
    /// The same on these threads.
    pub fn on(&self, convolution: SeparableConv2d) -> SeparableConv2d {
        let convolution = convolution.threads(self.threads);
        match &self.helpers {
            Some(pool) => convolution.pool(pool.clone()),
            None => convolution,
        }
    }
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

/// Those of the next kernel.
pub fn team() -> Result<Arc<Team>, Failure> {
    let threads = count();
    let forks = forks();
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(team) = current.as_ref().filter(|team| team.threads == threads && team.forks == forks) {
        return Ok(team.clone());
    }
    let pool = |helpers| ThreadPoolBuilder::new().num_threads(helpers).thread_name(|i| format!("sepconv-{i}")).build();
    let helpers = (threads > 1).then(|| pool(threads - 1)).transpose().map_err(|error| Failure {
        code: Code::RESOURCE_EXHAUSTED,
        message: format!("threads must be a number that can be started, got {threads}: {error}"),
    })?;
    let team = Arc::new(Team { threads, forks, helpers: helpers.map(Arc::new) });
    let before = current.replace(team.clone());
    // Dropping a pool wakes its threads, which a forked child does not have.
    if let Some(before) = before.filter(|before| before.forks != forks) {
        std::mem::forget(before);
    }
    Ok(team)
}

/// Another number in each of several processes that were forked off one another. Counted, as it takes a system call to ask for a
/// process's number.
fn forks() -> u32 {
    static FORKS: AtomicU32 = AtomicU32::new(0);
    static COUNTED: OnceLock<bool> = OnceLock::new();
    extern "C" fn count() {
        FORKS.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: the function may be called in a forked child, whatever other threads did meanwhile.
    let counted = COUNTED.get_or_init(|| unsafe { libc::pthread_atfork(None, None, Some(count)) } == 0);
    if *counted { FORKS.load(Ordering::Relaxed) } else { std::process::id() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_threads_as_were_asked_for() {
        for threads in [3, 1, 2] {
            set(threads);
            let helpers = team().unwrap().helpers.as_ref().map_or(0, |pool| pool.current_num_threads());
            assert_eq!(helpers + 1, threads as usize);
        }
        set(i32::MAX);
        assert_eq!(count(), MOST);
        set(-1);
        assert!(count() >= 1);

        set(3);
        let pool = || team().unwrap().helpers.clone().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let sum = pool().install(|| rayon::join(|| rayon::join(|| 1, || 2), || 3));
                        assert_eq!(sum, ((1, 2), 3));
                    }
                });
            }
        });

        // A forked process has threads of its own.
        let before = pool();
        // SAFETY: the child calls what may be called after TensorFlow's processes are forked, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let own = !Arc::ptr_eq(&pool(), &before) && pool().install(|| rayon::join(|| 1, || 2)) == (1, 2);
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(if own { 0 } else { 1 }) };
        }
        let mut status = -1;
        // SAFETY: our child, and a place for its status.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
        assert!(Arc::ptr_eq(&pool(), &before));
    }
}
