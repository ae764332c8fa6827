//! References to kernel objects, which live in memory that was retyped from Untyped.

use core::ops::Deref;
use core::ptr::NonNull;

use crate::addr::KernelAddr;

/// A reference to a live kernel object.
///
/// Holding one proves nothing by itself: the kernel upholds that an object is finalised only
/// when no capability, queue or other object refers to it any more (*finalise before reuse*, see
/// [`crate::finalise`]). Objects keep their fields in `Cell`s and are only ever borrowed shared,
/// so two `Obj`s of one object are no aliasing problem; the big kernel lock excludes races.
#[repr(transparent)]
pub struct Obj<T>(NonNull<T>);

impl<T> Obj<T> {
    /// Makes a reference from an address.
    ///
    /// # Safety
    /// `addr` is the address of an initialised `T` that stays one as long as the result is used.
    pub const unsafe fn from_addr(addr: KernelAddr) -> Obj<T> {
        // SAFETY: by the caller's promise the address is that of an object, so it is not null.
        Obj(unsafe { NonNull::new_unchecked(addr.0 as *mut T) })
    }

    /// Its address.
    pub fn addr(self) -> KernelAddr {
        KernelAddr(self.0.as_ptr() as u64)
    }

    /// As a raw pointer, for objects with fields that are no `Cell`s (user contexts).
    pub fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Deref for Obj<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: see the type's documentation: the object is initialised and live, and all
        // borrows of objects are shared.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Clone for Obj<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Obj<T> {}
impl<T> PartialEq for Obj<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Obj<T> {}
impl<T> core::fmt::Debug for Obj<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.addr().0)
    }
}

// SAFETY: objects are only touched by the CPU that holds the kernel lock.
unsafe impl<T> Send for Obj<T> {}
