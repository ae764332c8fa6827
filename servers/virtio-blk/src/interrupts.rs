//! What the bits of the driver's notification mean: which interrupt signals which, what it
//! announces, and when it is acknowledged.
//!
//! A device has a vector for its configuration and one for its queue (MSI-X), or one interrupt for
//! both (one vector, INTx, virtio-mmio), whose causes only the device knows.
//!
//! An interrupt is acknowledged *before* the device is looked at if it is edge-triggered: one that
//! comes meanwhile is not lost then. It is acknowledged *after* the device was served, which has
//! lowered its line, if it is level-triggered: before, it would come again at once.
//!
//! Not here: the registers that hold the causes (`transport`), the kernel's side.

use crate::transport::Causes;
use libipc::start::{Trigger, Vector};

/// A kernel's interrupt handler.
pub trait Handler {
    /// Lets the interrupt come again.
    fn acknowledge(&self);
}

/// What interrupts say about their causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// This, and nothing else.
    Known(Causes),
    /// Something: the device knows what.
    AskDevice,
}

struct Source<H> {
    handler: H,
    /// Its bit in the notification, as a mask.
    bit: u64,
    trigger: Trigger,
}

impl<H: Handler> Source<H> {
    fn new(vector: &Vector, handler: &impl Fn(u64) -> H) -> Self {
        Source { handler: handler(vector.handler), bit: 1 << vector.bit, trigger: vector.trigger }
    }
}

/// A device's interrupts.
pub struct Interrupts<H> {
    /// For the queue; and for the configuration where there is no other.
    queue: Source<H>,
    config: Option<Source<H>>,
}

impl<H: Handler> Interrupts<H> {
    /// The interrupts of a grant: a line, which comes first, announces everything; of vectors the
    /// first announces the configuration, the last the queue. `handler` makes the handler of a
    /// slot. `None` if none is granted.
    pub fn granted(vectors: &[Vector], handler: impl Fn(u64) -> H) -> Option<Self> {
        let (config, queue) = match vectors {
            [] => return None,
            [line, ..] if line.index == Vector::WIRED => (None, line),
            [one] => (None, one),
            [config, .., queue] => (Some(config), queue),
        };
        let config = config.map(|vector| Source::new(vector, &handler));
        Some(Interrupts { queue: Source::new(queue, &handler), config })
    }

    /// What the notification `bits` announce.
    pub fn announced(&self, bits: u64) -> Announced {
        let queue = bits & self.queue.bit != 0;
        match &self.config {
            None if queue => Announced::AskDevice,
            None => Announced::Known(Causes::default()),
            Some(config) => Announced::Known(Causes {
                used_buffer: queue,
                configuration: bits & config.bit != 0,
            }),
        }
    }

    /// Acknowledges those of `bits` that are triggered like this.
    pub fn acknowledge(&self, bits: u64, trigger: Trigger) {
        for source in self.config.iter().chain([&self.queue]) {
            if bits & source.bit != 0 && source.trigger == trigger {
                source.handler.acknowledge();
            }
        }
    }

    /// The bits of all of them: for whoever looks after interrupts that may have been lost.
    pub fn all(&self) -> u64 {
        self.config.as_ref().map_or(0, |config| config.bit) | self.queue.bit
    }

    /// Acknowledges all, whatever a predecessor left.
    pub fn acknowledge_all(&self) {
        self.acknowledge(self.all(), Trigger::Edge);
        self.acknowledge(self.all(), Trigger::Level);
    }
}
