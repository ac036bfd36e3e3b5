//! Tasks shared between the calling thread and those of a pool. The caller begins at once, while others are still waking
//! up, and never waits for one that has not begun; so a pool that is busy, or whose threads are gone after a fork, costs
//! no more than its help.

use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rayon::{ThreadPool, Yield};

use crate::error::Error;

type Task<'a> = dyn Fn(usize) -> Result<(), Error> + Sync + 'a;

/// Calls `task` with every number below `tasks`, on at most so many threads, the calling one included: within the pool (or
/// rayon's current one) on its threads, from elsewhere with their help. Some numbers are left out if one fails.
pub fn for_each(pool: Option<&ThreadPool>, threads: usize, tasks: usize, task: &Task) -> Result<(), Error> {
    if threads == 1 || tasks == 1 {
        return (0..tasks).try_for_each(task);
    }
    let inside = match pool {
        Some(pool) => pool.current_thread_index(),
        None => rayon::current_thread_index(),
    };
    if inside.is_some() {
        let part = if threads < rayon::current_num_threads() { tasks.div_ceil(threads) } else { 1 };
        return (0..tasks).into_par_iter().with_min_len(part).with_max_len(part).try_for_each(task);
    }
    // SAFETY: only the lifetime changes: `Closing` sees to it that nobody calls the task when it has ended.
    let task = unsafe { std::mem::transmute::<*const Task, *const Task<'static>>(task) };
    let own = tasks.div_ceil(threads);
    let call = Arc::new(Call {
        task,
        tasks,
        taken: AtomicUsize::new(0),
        shares: [0..own, own..tasks].map(|tasks| Share { tasks, taken: AtomicUsize::new(0) }),
        helpers: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        failure: Mutex::new(None),
        panicked: AtomicBool::new(false),
        caller: thread::current(),
    });
    let closing = Closing(&call);
    let ask = || {
        let call = call.clone();
        let help = move || call.help(threads);
        match pool {
            Some(pool) => pool.spawn(help),
            None => rayon::spawn(help),
        }
    };
    CALLS.fetch_add(1, Ordering::Relaxed);
    (1..threads.min(tasks)).for_each(|_| ask());
    let at_work = AtWork::below(usize::MAX);
    let [own, of_helpers] = &call.shares;
    call.work([own, of_helpers], || {
        // Other calls may have ended since.
        if call.refused.load(Ordering::Relaxed) > 0 && AtWork::count() < threads {
            call.refused.fetch_sub(1, Ordering::Relaxed);
            ask();
        }
    });
    drop(at_work);
    drop(closing);
    assert!(!call.panicked.load(Ordering::Relaxed), "a task panicked on another thread");
    let failure = call.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
    failure.map_or(Ok(()), Err)
}

/// What the caller and its helpers share.
struct Call {
    task: *const Task<'static>,
    tasks: usize,
    taken: AtomicUsize,
    /// The caller's, and that of all helpers.
    shares: [Share; 2],
    /// Twice the number of helpers at work, and 1 if no more may come.
    helpers: AtomicUsize,
    /// Those who came when enough were at work.
    refused: AtomicUsize,
    failure: Mutex<Option<Error>>,
    panicked: AtomicBool,
    caller: Thread,
}

/// Successive tasks, so that in calls one after the other each thread finds what it left in its caches, and a task can ask for
/// what the next one needs.
struct Share {
    tasks: Range<usize>,
    /// By those whose share it is, whether from it or from another one.
    taken: AtomicUsize,
}

impl Share {
    /// The next of these tasks, and when all are taken the last one that is left of the others.
    fn next(&self, others: &Self) -> usize {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let left = taken.saturating_sub(self.tasks.len());
        self.tasks.clone().nth(taken).unwrap_or_else(|| others.tasks.end - 1 - left)
    }
}

// SAFETY: the task is `Sync`, and so is the rest.
unsafe impl Send for Call {}
// SAFETY: as above.
unsafe impl Sync for Call {}

impl Call {
    /// One task after the other, until all are taken; `before` each.
    fn work(&self, [own, others]: [&Share; 2], before: impl Fn()) {
        loop {
            before();
            if self.taken.fetch_add(1, Ordering::Relaxed) >= self.tasks {
                return;
            }
            let number = own.next(others);
            // SAFETY: the caller, or a helper that it waits for.
            if let Err(error) = unsafe { (*self.task)(number) } {
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                self.taken.store(self.tasks, Ordering::Relaxed);
            }
        }
    }

    /// On another thread, if the call has not ended yet and fewer than `most` threads are at work on calls.
    fn help(&self, most: usize) {
        let come = |helpers: usize| helpers.is_multiple_of(2).then_some(helpers + 2);
        if self.helpers.fetch_update(Ordering::Acquire, Ordering::Relaxed, come).is_err() {
            return;
        }
        if let Some(_at_work) = AtWork::below(most) {
            let [of_caller, own] = &self.shares;
            if catch_unwind(AssertUnwindSafe(|| self.work([own, of_caller], || ()))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
            }
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        let calls = CALLS.load(Ordering::Relaxed);
        if self.helpers.fetch_sub(2, Ordering::Release) == 2 + 1 {
            self.caller.unpark();
        }
        // Of a pool with a thread to spare, rayon would wake that one instead, and it is in the way.
        if rayon::current_num_threads() < most {
            stay_awake(calls);
        }
    }
}

/// Calls so far.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// Some four times as long as being woken up takes.
const AWAKE: Duration = Duration::from_micros(200);

/// Until there is a further call, or other work of the pool has been done, or for a while: layers follow each other. Whoever
/// wants the processor has it.
fn stay_awake(calls: usize) {
    thread_local! {
        static STAYING: Cell<bool> = const { Cell::new(false) };
    }
    // What it runs meanwhile lies on the same stack, and may be help as well.
    if STAYING.replace(true) {
        return;
    }
    let begun = Instant::now();
    while CALLS.load(Ordering::Relaxed) == calls
        && begun.elapsed() < AWAKE
        && rayon::yield_now() != Some(Yield::Executed)
    {
        thread::yield_now();
    }
    STAYING.set(false);
}

/// Lets no more helpers come when dropped, and waits for those at work.
struct Closing<'a>(&'a Call);

/// Looks for the end of the last helper before sleeping, for about as long as being woken up takes.
const LOOKS: usize = 2000;

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let helpers = &self.0.helpers;
        helpers.fetch_or(1, Ordering::Relaxed);
        let left = || helpers.load(Ordering::Acquire) == 1;
        for _ in 0..LOOKS {
            if left() {
                return;
            }
            std::hint::spin_loop();
        }
        while !left() {
            thread::park();
        }
    }
}

/// A thread at work on a call: so that calls at the same time have no more helpers together than threads are free.
struct AtWork;

/// How many there are, and above that the process: a forked one has none.
static AT_WORK: AtomicU64 = AtomicU64::new(0);

impl AtWork {
    fn count() -> usize {
        Self::of(std::process::id(), AT_WORK.load(Ordering::Relaxed)) as usize
    }

    fn of(process: u32, state: u64) -> u32 {
        if state >> 32 == u64::from(process) { state as u32 } else { 0 }
    }

    /// If there are fewer.
    fn below(most: usize) -> Option<Self> {
        Self::update(|count| ((count as usize) < most).then_some(count + 1)).then_some(Self)
    }

    fn update(change: impl Fn(u32) -> Option<u32>) -> bool {
        let process = std::process::id();
        let change = |state| change(Self::of(process, state)).map(|count| u64::from(process) << 32 | u64::from(count));
        AT_WORK.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        Self::update(|count| count.checked_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc;

    use super::*;

    fn pool(threads: usize) -> ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    /// That many tasks, each done once.
    fn all_are_done(pool: &ThreadPool, tasks: usize) {
        let done: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        let task = |number: usize| {
            done[number].fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        for_each(Some(pool), pool.current_num_threads(), tasks, &task).unwrap();
        assert!(done.iter().all(|times| times.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn every_task_is_done_once() {
        let pool = pool(3);
        for tasks in (0..200).cycle().take(2000) {
            all_are_done(&pool, tasks);
        }
        pool.install(|| all_are_done(&pool, 100));
    }

    #[test]
    fn no_more_threads_than_wanted() {
        let pool = pool(4);
        let [at_once, most] = [0; 2].map(AtomicUsize::new);
        let task = |_| {
            most.fetch_max(at_once.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(1));
            at_once.fetch_sub(1, Ordering::Relaxed);
            Ok(())
        };
        for threads in [2, 3] {
            pool.install(|| for_each(Some(&pool), threads, 40, &task)).unwrap();
            for_each(Some(&pool), threads, 40, &task).unwrap();
            assert!(most.load(Ordering::Relaxed) <= threads, "{most:?} of {threads}");
        }
    }

    #[test]
    fn calls_do_not_wait_for_a_busy_pool() {
        let pool = pool(2);
        let (sender, receiver) = mpsc::channel::<()>();
        let receiver = Mutex::new(receiver);
        pool.scope(|scope| {
            scope.spawn(|_| receiver.lock().unwrap().recv().unwrap());
            scope.spawn(|_| {
                thread::scope(|threads| threads.spawn(|| all_are_done(&pool, 50)).join().unwrap());
                sender.send(()).unwrap();
            });
        });
    }

    #[test]
    fn several_calls_at_once() {
        let pool = pool(2);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|tasks| all_are_done(&pool, tasks % 7)));
            }
        });
    }

    #[test]
    fn helpers_that_were_refused_are_asked_again() {
        let pool = pool(2);
        let others: Vec<_> = (0..8).map(|_| AtWork::below(usize::MAX)).collect();
        let others = Mutex::new(Some(others));
        let threads = Mutex::new(HashSet::new());
        // Until a helper has come: other tests are at work on calls meanwhile.
        let task = |number: usize| {
            if number == 5 {
                others.lock().unwrap().take();
            }
            threads.lock().unwrap().insert(thread::current().id());
            if threads.lock().unwrap().len() < 2 {
                thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        };
        for_each(Some(&pool), 2, 10_000, &task).unwrap();
        assert_eq!(threads.lock().unwrap().len(), 2);
    }

    #[test]
    fn failures_are_handed_on() {
        let pool = pool(2);
        let fail = |number: usize| if number == 5 { Err(Error::TooLarge) } else { Ok(()) };
        assert_eq!(for_each(Some(&pool), 2, 100, &fail), Err(Error::TooLarge));
        let panics = |number: usize| if number == 5 { panic!("on purpose") } else { Ok(()) };
        let panicked = catch_unwind(AssertUnwindSafe(|| for_each(Some(&pool), 2, 100, &panics)));
        assert!(panicked.is_err());
        all_are_done(&pool, 100);
    }
}
