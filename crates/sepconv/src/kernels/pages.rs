//! Memory in huge pages, which many filters share.
//!
//! A processor finds an address by its page. A filter that has not been used for a while is then not only brought from
//! memory but looked for, page after page: in a network of such filters that takes up to a fifth of a layer's time.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use memmap2::{MmapMut, MmapRaw};
use range_alloc::RangeAllocator;

/// Bytes of a page, as x86-64 and AArch64 have it whose small ones are of 4 KiB.
const PAGE: usize = 2 << 20;

/// Bytes of address space that are reserved at a time, or more for a piece that is larger; pages are taken when they are first
/// written. Where nothing lies any more, so much stays, for whoever comes next: fresh memory takes longer to get than a
/// filter to pack.
const REGION: usize = 8 * PAGE;

/// What pieces' addresses and sizes are multiples of: a cache line, and the widest vector.
const ALIGN: usize = 64;

/// Less is not worth it: the first piece takes a whole page.
const LEAST: usize = 128 << 10;

/// Successive bytes in such pages, given back when dropped.
pub struct Piece {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: it owns its bytes.
unsafe impl Send for Piece {}
// SAFETY: shared, it only tells where they are.
unsafe impl Sync for Piece {}

impl Piece {
    /// So many bytes, from the start of a cache line on. None if they are few, or the system does not give them.
    pub fn new(bytes: usize) -> Option<Self> {
        if bytes < LEAST {
            return None;
        }
        let length = bytes.checked_next_multiple_of(ALIGN)?;
        let mut regions = regions()?;
        let found = regions.iter_mut().find_map(|region| region.take(length));
        let start = found.or_else(|| {
            regions.push(Region::new(length)?);
            regions.last_mut()?.take(length)
        })?;
        Some(Self { start, length })
    }

    pub fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Some(mut regions) = regions() else { return };
        let start = self.start.as_ptr().addr();
        let Some(at) = regions.iter().position(|region| region.addresses().contains(&start)) else { return };
        regions[at].free.free_range(start..start + self.length);
        let is_spare = |region: &Region| region.free.is_empty() && region.addresses().len() == REGION;
        let stays = !regions[at].free.is_empty()
            || is_spare(&regions[at]) && regions.iter().filter(|region| is_spare(region)).count() == 1;
        let emptied = (!stays).then(|| regions.swap_remove(at));
        drop(regions);
        drop(emptied); // while nobody waits
    }
}

/// Successive pages.
struct Region {
    memory: MmapRaw,
    free: RangeAllocator<usize>,
}

impl Region {
    /// With room for so many bytes.
    fn new(bytes: usize) -> Option<Self> {
        let length = bytes.checked_next_multiple_of(PAGE)?.max(REGION);
        let memory = MmapRaw::from(MmapMut::map_anon(length.checked_add(PAGE)?).ok()?);
        // Where there are none it is memory like any other.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let start = memory.as_ptr().addr().next_multiple_of(PAGE);
        Some(Self { memory, free: RangeAllocator::new(start..start + length) })
    }

    fn addresses(&self) -> &Range<usize> {
        self.free.initial_range()
    }

    fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        let range = self.free.allocate_range(bytes).ok()?;
        NonNull::new(self.memory.as_mut_ptr().with_addr(range.start))
    }
}

/// All of them. None in a process that was forked while another thread had them: there that thread is gone.
fn regions() -> Option<MutexGuard<'static, Vec<Region>>> {
    static REGIONS: Mutex<Vec<Region>> = Mutex::new(Vec::new());
    /// Whose threads have had them, and nobody else's since.
    static PROCESS: AtomicU32 = AtomicU32::new(0);
    let this = std::process::id();
    let known = PROCESS.compare_exchange(0, this, Ordering::Relaxed, Ordering::Relaxed);
    if [Ok(0), Err(this)].contains(&known) {
        return REGIONS.lock().ok();
    }
    let regions = REGIONS.try_lock().ok()?;
    PROCESS.store(this, Ordering::Relaxed);
    Some(regions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of several threads too: all keep what was written, however many have been given back meanwhile.
    #[test]
    fn pieces_are_apart() {
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                scope.spawn(move || {
                    let mut pieces = Vec::new();
                    for turn in 0..30u8 {
                        let large = if turn == 20 { REGION } else { 0 };
                        let piece = Piece::new(LEAST + usize::from(turn) * 1000 + large).unwrap();
                        let value = thread * 50 + turn;
                        // SAFETY: the piece has so many bytes.
                        unsafe { piece.start().write_bytes(value, piece.length) };
                        pieces.push((piece, value));
                        if turn % 3 == 0 {
                            check(pieces.swap_remove(usize::from(turn) / 2 % pieces.len()));
                        }
                    }
                    pieces.into_iter().for_each(check);
                });
            }
        });

        fn check((piece, value): (Piece, u8)) {
            assert_eq!([piece.start().addr().get(), piece.length].map(|n| n % ALIGN), [0, 0]);
            // SAFETY: all of its bytes have been written.
            let bytes = unsafe { std::slice::from_raw_parts(piece.start().as_ptr(), piece.length) };
            assert!(bytes.iter().all(|&byte| byte == value));
        }
    }

    #[test]
    fn what_is_given_back_is_taken_again() {
        let mut region = Region::new(LEAST).unwrap();
        let start = region.take(REGION).unwrap();
        assert_eq!((start.addr().get() % PAGE, region.take(ALIGN)), (0, None));
        region.free.free_range(region.addresses().clone());
        assert_eq!((region.free.is_empty(), region.take(ALIGN)), (true, Some(start)));
    }

    #[test]
    fn a_piece_leaves_no_trace() {
        let large = 3 * REGION + ALIGN;
        let is_there =
            |regions: &[Region]| regions.iter().any(|region| region.addresses().len() == large + PAGE - ALIGN);
        let piece = Piece::new(large).unwrap();
        assert!(is_there(&regions().unwrap()));
        drop(piece);
        assert!(!is_there(&regions().unwrap()));
    }

    #[test]
    fn few_bytes_and_too_many_are_refused() {
        assert!(Piece::new(LEAST - 1).is_none());
        assert!(Piece::new(usize::MAX).is_none());
        assert!(Piece::new(usize::MAX / 2).is_none());
    }
}
