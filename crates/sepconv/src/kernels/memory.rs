//! Memory in whole cache lines: for packed filters, and a scratch that each thread keeps.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use bytemuck::Pod;

use super::pages::Piece;
use crate::error::Error;

/// A cache line, and the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Bytes of the second-level cache, as the processor tells; 0 where it does not.
pub fn second_level_cache() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        use std::sync::LazyLock;
        const EXTENDED: u32 = 0x8000_0000;
        const CACHES: u32 = 0x8000_0006;
        // Asked once: in a virtual machine that takes many microseconds. What is shifted out is not its size, in KiB.
        static BYTES: LazyLock<usize> = LazyLock::new(|| match __cpuid(EXTENDED).eax {
            CACHES.. => (__cpuid(CACHES).ecx as usize >> 16) << 10,
            _ => 0,
        });
        *BYTES
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Elements not yet written, the first at the start of a cache line.
pub struct Buffer<T> {
    memory: Memory,
    elements: usize,
    _of: PhantomData<T>,
}

enum Memory {
    Pages(Piece),
    Heap(Vec<Line>),
}

impl<T: Pod> Buffer<T> {
    pub fn new(elements: usize) -> Result<Self, Error> {
        let error = Error::Memory { elements };
        let bytes = elements.checked_mul(size_of::<T>()).ok_or(error.clone())?;
        let memory = match Piece::new(bytes) {
            Some(piece) => Memory::Pages(piece),
            None => {
                let mut lines = Vec::new();
                lines.try_reserve_exact(bytes.div_ceil(size_of::<Line>())).map_err(|_| error)?;
                Memory::Heap(lines)
            }
        };
        Ok(Self { memory, elements, _of: PhantomData })
    }

    pub fn as_mut_slice(&mut self) -> &mut [MaybeUninit<T>] {
        let start = match &mut self.memory {
            Memory::Pages(piece) => piece.start().cast().as_ptr(),
            Memory::Heap(lines) => lines.as_mut_ptr().cast(),
        };
        // SAFETY: `new` got that many bytes, which nobody else has; a line's alignment is a multiple of T's.
        unsafe { std::slice::from_raw_parts_mut(start, self.elements) }
    }

    pub fn as_ptr(&self) -> *const T {
        match &self.memory {
            Memory::Pages(piece) => piece.start().cast().as_ptr(),
            Memory::Heap(lines) => lines.as_ptr().cast(),
        }
    }
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

/// Bytes that processors bring from the last cache by themselves, in time, where they are read one after the other. Of more,
/// that lie in memory, what is needed next has to be asked for.
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
    /// Of exactly as many elements.
    pub fn new(elements: &'a mut [MaybeUninit<T>], [rows, columns]: [usize; 2]) -> Self {
        assert!(rows.checked_mul(columns) == Some(elements.len()));
        Self { start: elements.as_mut_ptr().cast(), rows, columns, _elements: PhantomData }
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
