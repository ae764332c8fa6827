//! What a crash record must know of the machine: which registers hold what.

pub use libipc::arch::registers::{
    CALL_CAP, CALL_INFO, CALL_NUMBER, CALL_WORDS, FRAME_POINTER, REGISTER_WORDS,
};
