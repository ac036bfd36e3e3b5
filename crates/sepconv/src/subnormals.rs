//! Flushing of subnormal numbers, on request, for the calling thread, and the caller's state put back.
//!
//! A result is flushed if it is subnormal after rounding, as x86-64 does it. AArch64 decides before rounding; where that
//! matters, the elements' own operations ([`crate::element`]) and the NEON kernels put it right.

use crate::numerics::Subnormals;

/// While this value lives, the calling thread flushes or keeps subnormal numbers as was asked; dropping it puts back
/// the state that was found. Not `Send`: the state is the thread's (but a new thread starts with its maker's).
pub(crate) struct Flushing {
    found: State,
    _of_this_thread: std::marker::PhantomData<*const ()>,
}

impl Flushing {
    pub fn set(subnormals: Subnormals) -> Self {
        let found = read();
        let flush = subnormals == Subnormals::Flushed;
        let wanted = if flush { FLUSH } else { 0 };
        if found & FLUSH != wanted {
            write(found & !FLUSH | wanted);
        }
        Self { found, _of_this_thread: std::marker::PhantomData }
    }
}

impl Drop for Flushing {
    fn drop(&mut self) {
        let state = read();
        if (state ^ self.found) & FLUSH != 0 {
            write(self.found & FLUSH | state & !FLUSH);
        }
    }
}

#[cfg(target_arch = "x86_64")]
use x86_64::{FLUSH, State, read, write};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;

    pub type State = u32;
    /// Flush-to-zero (results) and denormals-are-zero (operands) in MXCSR.
    pub const FLUSH: State = 1 << 15 | 1 << 6;

    pub fn read() -> State {
        let mut state = 0;
        // SAFETY: stores MXCSR to a local variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &mut state, options(nostack, preserves_flags)) };
        state
    }

    pub fn write(state: State) {
        // SAFETY: only the two flush bits ever differ from what `read` returned; no code relies on them.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &state, options(nostack, preserves_flags)) };
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::results_flushed;
#[cfg(target_arch = "aarch64")]
use aarch64::{FLUSH, State, read, write};

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::asm;

    pub type State = u64;
    /// FZ in FPCR: flushes operands and results.
    pub const FLUSH: State = 1 << 24;

    pub fn read() -> State {
        let state;
        // SAFETY: reads FPCR.
        unsafe { asm!("mrs {}, fpcr", out(reg) state, options(nostack, nomem, preserves_flags)) };
        state
    }

    pub fn write(state: State) {
        // SAFETY: only the flush bit ever differs from what `read` returned; no code relies on it.
        unsafe { asm!("msr fpcr, {}", in(reg) state, options(nostack, preserves_flags)) };
    }

    /// Runs that; true if subnormal results are flushed and one of its results was (or was rounded to a subnormal number
    /// by a conversion that keeps these). What it stores must depend on those results.
    #[inline(always)]
    pub fn results_flushed(work: impl FnOnce()) -> bool {
        if read() & FLUSH == 0 {
            work();
            return false;
        }
        let status = read_status();
        if status & UNDERFLOW != 0 {
            // SAFETY: clears a bit that only ever tells what happened; no code relies on it.
            unsafe { asm!("msr fpsr, {}", in(reg) status & !UNDERFLOW, options(nostack, preserves_flags)) };
        }
        work();
        read_status() & UNDERFLOW != 0
    }

    /// UFC in FPSR: set by the processor, never cleared by it.
    const UNDERFLOW: u64 = 1 << 3;

    #[inline(always)]
    fn read_status() -> u64 {
        let status;
        // SAFETY: reads FPSR. It may not be said to leave memory alone: what is stored before depends on the arithmetic
        // that is asked about.
        unsafe { asm!("mrs {}, fpsr", out(reg) status, options(nostack, preserves_flags)) };
        status
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("sepconv knows how to flush subnormal numbers on x86-64 and aarch64 only");

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    fn flushes() -> bool {
        black_box(black_box(f32::MIN_POSITIVE) * black_box(0.5)) == 0.0
    }

    #[test]
    fn the_state_found_is_put_back() {
        assert!(!flushes());
        {
            let _on = Flushing::set(Subnormals::Flushed);
            assert!(flushes());
            {
                let _off = Flushing::set(Subnormals::Kept);
                assert!(!flushes());
            }
            assert!(flushes());
        }
        assert!(!flushes());
    }
}
