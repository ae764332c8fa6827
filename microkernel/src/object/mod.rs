//! Kernel objects, one file each: the structure, and what can be done with it.
//!
//! All fields are `Cell`s (see [`crate::obj::Obj`]). An object made by `Untyped` retype starts
//! as zeroed memory, initialised by its `new`.

pub mod asid_pool;
pub mod cnode;
pub mod endpoint;
pub mod frame;
pub mod ioport;
pub mod irq;
pub mod log;
pub mod machine_control;
pub mod notification;
pub mod page_table;
pub mod reply;
pub mod sched_context;
pub mod tcb;
pub mod tcb_invoke;
pub mod timer;
pub mod untyped;
pub mod vspace;
