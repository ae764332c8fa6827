//! Accesses of device memory where volatile ones of the language do: any form of load and store
//! can be emulated (x86_64), or nobody emulates (the host).

/// Declares a load and a store of one width.
macro_rules! access {
    ($load:ident, $store:ident, $type:ty) => {
        /// Loads once.
        ///
        /// # Safety
        /// As for `read_volatile`.
        #[inline(always)]
        pub unsafe fn $load(place: *const $type) -> $type {
            // SAFETY: the caller vouches for the place.
            unsafe { place.read_volatile() }
        }

        /// Stores once.
        ///
        /// # Safety
        /// As for `write_volatile`.
        #[inline(always)]
        pub unsafe fn $store(place: *mut $type, value: $type) {
            // SAFETY: the caller vouches for the place.
            unsafe { place.write_volatile(value) };
        }
    };
}

access!(load8, store8, u8);
access!(load16, store16, u16);
access!(load32, store32, u32);
access!(load64, store64, u64);
