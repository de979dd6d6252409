//! Memory of a plugin's instance: quick to take and to give back, since an instance lives for one batch only.
//!
//! Blocks are powers of two, cut off the end of the memory. One that is given back serves the next request of its size; it
//! is never joined with others or given to the system. That wastes up to half of a block, which an instance can spare.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr;

/// The smallest block, and the alignment of every block.
const BLOCK_BYTES_MIN: usize = 16;

/// Sizes of blocks: from 16 bytes to 2 GiB.
const SIZES: usize = 28;

/// Memory is asked for in steps of at least this, since each step is a call of the gateway.
const STEP_BYTES: usize = 256 << 10;

/// Where memory comes from.
pub(crate) trait Source {
    /// More memory: where it begins and how much it is, at least `bytes`.
    fn more(&self, bytes: usize) -> Option<(usize, usize)>;
}

/// The allocator. For one thread only.
pub(crate) struct Heap<S> {
    /// Blocks given back, by size; each holds the address of the next.
    free: [Cell<usize>; SIZES],
    /// The memory that was not used yet.
    next: Cell<usize>,
    end: Cell<usize>,
    source: S,
}

impl<S: Source> Heap<S> {
    pub(crate) const fn new(source: S) -> Self {
        Self { free: [const { Cell::new(0) }; SIZES], next: Cell::new(0), end: Cell::new(0), source }
    }

    /// Cuts a new block off.
    fn cut(&self, bytes: usize, align: usize) -> Option<usize> {
        let aligned = |address: usize| address.checked_next_multiple_of(align);
        let mut start = aligned(self.next.get())?;
        if self.next.get() == 0 || start.checked_add(bytes)? > self.end.get() {
            let (more, length) = self.source.more(bytes.checked_add(align)?.max(STEP_BYTES))?;
            if more != self.end.get() {
                start = aligned(more)?;
            }
            self.end.set(more.checked_add(length)?);
        }
        self.next.set(start + bytes);
        Some(start)
    }
}

/// The size of the block for a request, and its place among the sizes.
fn block(layout: Layout) -> Option<(usize, usize)> {
    let bytes = layout.size().max(BLOCK_BYTES_MIN).checked_next_power_of_two()?;
    let place = (bytes.trailing_zeros() - BLOCK_BYTES_MIN.trailing_zeros()) as usize;
    (place < SIZES).then_some((bytes, place))
}

#[expect(unsafe_code, reason = "an allocator")]
// SAFETY: a block is cut off memory that nobody else has, or was given back, which its user promises to be done with. It
// is at least as long as was asked for, and aligned: all blocks are to 16 bytes, others are never used again.
unsafe impl<S: Source> GlobalAlloc for Heap<S> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some((bytes, place)) = block(layout) else { return ptr::null_mut() };
        let first = self.free[place].get();
        if first != 0 && layout.align() <= BLOCK_BYTES_MIN {
            let block = ptr::with_exposed_provenance_mut::<u8>(first);
            // SAFETY: a block on the list begins with the address that was written when it was given back.
            self.free[place].set(unsafe { block.cast::<usize>().read() });
            return block;
        }
        self.cut(bytes, layout.align().max(BLOCK_BYTES_MIN)).map_or(ptr::null_mut(), ptr::with_exposed_provenance_mut)
    }

    unsafe fn dealloc(&self, block_start: *mut u8, layout: Layout) {
        let Some((_, place)) = block(layout) else { return };
        if layout.align() <= BLOCK_BYTES_MIN {
            // SAFETY: the block is ours again, long enough for an address and aligned for it.
            unsafe { block_start.cast::<usize>().write(self.free[place].get()) };
            self.free[place].set(block_start.expose_provenance());
        }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Ok(wanted) = Layout::from_size_align(new_size, layout.align()) else { return ptr::null_mut() };
        let (Some((before, _)), Some((after, _))) = (block(layout), block(wanted)) else { return ptr::null_mut() };
        // A smaller block must be as long as its size says once it is given back; it stays as it is only if that holds.
        if after == before {
            return old;
        }
        // SAFETY: what is asked for has a size and an alignment; both blocks hold what is copied.
        unsafe {
            let new = self.alloc(wanted);
            if !new.is_null() {
                ptr::copy_nonoverlapping(old, new, layout.size().min(new_size));
                self.dealloc(old, layout);
            }
            new
        }
    }
}

#[cfg(all(target_arch = "wasm32", feature = "allocator"))]
mod instance {
    //! The memory of the instance itself.

    use core::arch::wasm32::{memory_grow, memory_size};
    use core::cell::Cell;

    use super::{Heap, Source};

    const PAGE_BYTES: usize = 64 << 10;

    #[expect(unsafe_code, reason = "a symbol of the linker")]
    unsafe extern "C" {
        /// Where the memory begins that neither the stack nor data has.
        static __heap_base: u8;
    }

    /// First what the memory had from the start, then more pages.
    struct Pages {
        has_begun: Cell<bool>,
    }

    impl Source for Pages {
        fn more(&self, bytes: usize) -> Option<(usize, usize)> {
            if !self.has_begun.replace(true) {
                let (base, end) = ((&raw const __heap_base).addr(), memory_size(0) * PAGE_BYTES);
                if end.saturating_sub(base) >= bytes {
                    return Some((base, end - base));
                }
            }
            let pages = bytes.div_ceil(PAGE_BYTES);
            let before = memory_grow(0, pages);
            (before != usize::MAX).then_some((before * PAGE_BYTES, pages * PAGE_BYTES))
        }
    }

    #[expect(unsafe_code, reason = "a static that is not for several threads")]
    // SAFETY: an instance has one thread.
    unsafe impl Sync for Heap<Pages> {}

    #[global_allocator]
    static HEAP: Heap<Pages> = Heap::new(Pages { has_begun: Cell::new(false) });
}

#[cfg(test)]
#[expect(unsafe_code, reason = "tests of an allocator")]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Gives an arena out, step by step, with a gap after the second step.
    struct Arena {
        start: usize,
        given: Cell<usize>,
        steps: Cell<usize>,
    }

    const ARENA_BYTES: usize = 64 << 20;

    impl Arena {
        fn new() -> Self {
            let memory = vec![0_u128; ARENA_BYTES / 16].leak();
            let start = memory.as_mut_ptr().expose_provenance();
            Self { start, given: Cell::new(0), steps: Cell::new(0) }
        }
    }

    impl Source for Arena {
        fn more(&self, bytes: usize) -> Option<(usize, usize)> {
            let gap = if self.steps.get() == 2 { 4096 } else { 0 };
            let from = self.given.get() + gap;
            self.steps.set(self.steps.get() + 1);
            self.given.set(from + bytes);
            (from + bytes <= ARENA_BYTES).then_some((self.start + from, bytes))
        }
    }

    #[test]
    fn blocks_are_aligned_and_never_overlap() {
        let heap = Heap::new(Arena::new());
        let mut held: HashMap<usize, (Layout, u8)> = HashMap::new();
        let mut state = 7_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % below
        };
        let check = |address: usize, layout: Layout, mark: u8| {
            let block = ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: the block is held and was filled over its whole length.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            assert!(bytes.iter().all(|byte| *byte == mark), "{layout:?}");
        };
        for round in 0..20_000 {
            let mark = u8::try_from(round % 251).unwrap();
            let layout = Layout::from_size_align(1 + random(3000), 1 << random(8)).unwrap();
            let known = held.keys().next().copied().filter(|_| held.len() > 300);
            // SAFETY: sizes are above zero; blocks are given back and grown as what they were taken as.
            let (address, layout) = match known {
                Some(address) => {
                    let (old, old_mark) = held.remove(&address).unwrap();
                    check(address, old, old_mark);
                    let block = ptr::with_exposed_provenance_mut::<u8>(address);
                    if round % 2 == 0 {
                        unsafe { heap.dealloc(block, old) };
                        continue;
                    }
                    let new = unsafe { heap.realloc(block, old, layout.size()) };
                    let grown = Layout::from_size_align(layout.size(), old.align()).unwrap();
                    let kept = Layout::from_size_align(old.size().min(layout.size()), old.align()).unwrap();
                    check(new.expose_provenance(), kept, old_mark);
                    (new, grown)
                }
                None => (unsafe { heap.alloc(layout) }, layout),
            };
            assert!(!address.is_null() && address.expose_provenance().is_multiple_of(layout.align()));
            // SAFETY: the block is at least as long as its layout.
            unsafe { address.write_bytes(mark, layout.size()) };
            held.insert(address.expose_provenance(), (layout, mark));
        }
        for (address, (layout, mark)) in held {
            check(address, layout, mark);
        }
    }

    #[test]
    fn what_is_given_back_is_used_again() {
        let heap = Heap::new(Arena::new());
        let layout = Layout::from_size_align(1000, 8).unwrap();
        for _ in 0..1_000_000 {
            // SAFETY: the size is above zero, and the block is given back as it was taken.
            unsafe {
                let block = heap.alloc(layout);
                assert!(!block.is_null());
                heap.dealloc(block, layout);
            }
        }
        assert_eq!(heap.source.given.get(), STEP_BYTES);
    }

    #[test]
    fn more_than_there_is_is_refused() {
        let heap = Heap::new(Arena::new());
        for size in [ARENA_BYTES, isize::MAX as usize - 64] {
            // SAFETY: the size is above zero.
            let block = unsafe { heap.alloc(Layout::from_size_align(size, 8).unwrap()) };
            assert!(block.is_null());
        }
    }
}
