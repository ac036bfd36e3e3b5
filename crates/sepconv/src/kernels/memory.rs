//! Memory in whole cache lines: for packed filters, and a scratch that each thread keeps.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard};

use bytemuck::Pod;

use crate::error::Error;

/// A cache line, and the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Elements not yet written, the first at the start of a cache line. The largest one of late, up to [`MOST_SPARE`], stays
/// for the next that needs about as much: fresh memory costs a page fault per 4 KiB, more than packing a filter into it.
pub struct Buffer<T> {
    lines: Vec<Line>,
    elements: usize,
    _of: PhantomData<T>,
}

impl<T: Pod> Buffer<T> {
    pub fn new(elements: usize) -> Result<Self, Error> {
        let error = Error::Memory { elements };
        let bytes = elements.checked_mul(size_of::<T>()).ok_or(error.clone())?;
        let wanted = bytes.div_ceil(size_of::<Line>());
        let fits = |spare: &mut Vec<Line>| (wanted..=2 * wanted).contains(&spare.capacity());
        let mut lines = spare().and_then(|mut spare| spare.take_if(fits)).unwrap_or_default();
        lines.try_reserve_exact(wanted).map_err(|_| error)?;
        Ok(Self { lines, elements, _of: PhantomData })
    }

    pub fn as_mut_slice(&mut self) -> &mut [MaybeUninit<T>] {
        // SAFETY: `new` reserved that many bytes; a line's alignment is a multiple of T's.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.elements) }
    }

    pub fn as_ptr(&self) -> *const T {
        self.lines.as_ptr().cast()
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        let Some(mut spare) = spare() else { return };
        let larger = lines.capacity() > spare.as_ref().map_or(0, Vec::capacity);
        if larger && lines.capacity() * size_of::<Line>() <= MOST_SPARE {
            *spare = Some(lines);
        }
    }
}

/// Bytes: a filter of 2048 by 2048 in f32.
const MOST_SPARE: usize = 16 << 20;

/// `None` while another thread is at it: in a forked process that one may be gone.
fn spare() -> Option<MutexGuard<'static, Option<Vec<Line>>>> {
    static SPARE: Mutex<Option<Vec<Line>>> = Mutex::new(None);
    SPARE.try_lock().ok()
}

/// Calls `work` with that many elements of the calling thread's scratch, whose content is whatever was left there. The
/// thread keeps it: fresh memory for every tile would cost a page fault per 4 KiB, more than filling it.
pub fn with_scratch<T: Pod, R>(elements: usize, work: impl FnOnce(&mut [MaybeUninit<T>]) -> R) -> Result<R, Error> {
    thread_local! {
        static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let lines = (elements * size_of::<T>()).div_ceil(size_of::<Line>());
        scratch.try_reserve_exact(lines).map_err(|_| Error::Memory { elements })?;
        // SAFETY: so many bytes are reserved; a line's alignment is a multiple of T's.
        Ok(work(unsafe { std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast(), elements) }))
    })
}

/// Bytes that processors bring from the last cache by themselves, in time. Of more, that lie in memory, what is needed next
/// has to be asked for.
pub const CACHED: usize = 8 << 20;

/// Asks for so many bytes, which need not exist, long before they are read or written: where a processor does not see by
/// itself what comes next.
pub fn ask_for(start: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(size_of::<Line>()) {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        super::vector::prefetch::<u8, false>(start.wrapping_add(offset));
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let _ = start.wrapping_add(offset);
    }
}

/// The rows of a result, shared between threads that write different parts of it.
pub struct Output<'a, T> {
    start: *mut T,
    rows: usize,
    columns: usize,
    _elements: PhantomData<&'a mut [MaybeUninit<T>]>,
}

// SAFETY: it only hands out addresses, and who writes there promises that nobody else does.
unsafe impl<T: Send> Sync for Output<'_, T> {}

impl<'a, T> Output<'a, T> {
    pub fn new(elements: &'a mut [MaybeUninit<T>], columns: usize) -> Self {
        Self { start: elements.as_mut_ptr().cast(), rows: elements.len() / columns, columns, _elements: PhantomData }
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Where an element is. Rows are `columns` apart.
    pub fn at(&self, row: usize, column: usize) -> *mut T {
        assert!(row < self.rows && column < self.columns);
        // SAFETY: inside the slice.
        unsafe { self.start.add(row * self.columns + column) }
    }
}
