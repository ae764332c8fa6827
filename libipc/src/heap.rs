//! The heap of a program: `talc` over the region that the start info names.
//!
//! It never grows. Exhaustion returns null; what that becomes (an end with the reason
//! `OutOfMemory`) is decided in [`crate::startup`].

use crate::start::Region;
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicBool, Ordering};
use talc::TalcLock;
use talc::lock_api::{GuardSend, RawMutex};
use talc::source::Manual;

/// A lock that gives way to its holder. All threads of one program have one priority, so the
/// holder runs whenever the waiter yields.
pub struct YieldLock(AtomicBool);

// SAFETY: `lock` returns only after it has changed the flag from false to true, which `unlock`
// alone undoes; acquire and release order what happens in between.
unsafe impl RawMutex for YieldLock {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = YieldLock(AtomicBool::new(false));
    type GuardMarker = GuardSend;

    fn lock(&self) {
        while !self.try_lock() {
            crate::raw::yield_now();
        }
    }

    fn try_lock(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// The allocator, which remembers that it was exhausted.
struct Heap(TalcLock<YieldLock, Manual>);

#[cfg_attr(target_os = "none", global_allocator)]
static HEAP: Heap = Heap(TalcLock::new(Manual));

static EXHAUSTED: AtomicBool = AtomicBool::new(false);

// SAFETY: hands every request on to talc.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is the callee's.
        let memory = unsafe { self.0.alloc(layout) };
        if memory.is_null() {
            EXHAUSTED.store(true, Ordering::Relaxed);
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the callee's.
        unsafe { self.0.dealloc(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's contract is the callee's.
        let memory = unsafe { self.0.realloc(memory, layout, size) };
        if memory.is_null() {
            EXHAUSTED.store(true, Ordering::Relaxed);
        }
        memory
    }
}

/// Gives the allocator its memory; says whether it could use it. Size 0 gives none.
///
/// # Safety
/// The region is mapped writable, and nothing else uses it, ever.
pub unsafe fn init(region: Region) -> bool {
    if region.size == 0 {
        return true;
    }
    let (base, size) = (region.vaddr as usize as *mut u8, region.size as usize);
    // SAFETY: the caller vouches for the region.
    unsafe { HEAP.0.lock().claim(base, size).is_some() }
}

/// Whether an allocation has ever failed.
pub fn is_exhausted() -> bool {
    EXHAUSTED.load(Ordering::Relaxed)
}
