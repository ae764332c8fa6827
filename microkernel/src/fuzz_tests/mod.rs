//! Fuzzers of the whole kernel on the emulated machine: see CONTRIBUTING.md for how to run them.
//!
//! A run has one seed. It boots a machine with a root thread, which builds *realms*: threads with
//! CSpaces of their own, of random shapes, and capabilities to each other and to themselves. Then
//! all threads make random system calls on whatever they can name, time passes also within calls,
//! interrupts come, long operations stop at any preemption point, and after each trap the state
//! is checked: the kernel's invariants, and what [`oracles`] says.
//!
//! * [`rng`], [`swarm`]: random numbers; how much of what a run does.
//! * [`world`], [`build`]: the machine with its root thread; how it builds realms.
//! * [`names`], [`calls`], [`driver`]: what threads can name; what they call; one step.
//! * [`facts`]: the state in numbers. [`oracles`], [`state`]: what must be true after a trap, and
//!   at any time. [`avoid`]: what is known not to be.
//! * [`run`]: whole runs, two in lockstep, and reports. [`guided`]: runs that coverage leads.

mod avoid;
mod build;
mod calls;
mod driver;
mod facts;
mod guided;
mod names;
mod oracles;
mod rng;
mod run;
mod state;
mod swarm;
mod world;
