//! All protocols of the system: shown one after the other ([`each`]), and what a label in a crash
//! record's history means ([`method_of`]).

use libipc::protocol::{Protocol, ProtocolId};

use crate::{block, console, control, file, hello, pci, supervisor};

/// Whoever is shown the protocols.
pub trait Visitor {
    /// Takes one.
    fn protocol<P: Protocol>(&mut self);
}

/// Shows all protocols of the system, each once and always in the same order.
pub fn each<V: Visitor>(visitor: &mut V) {
    visitor.protocol::<block::Block>();
    visitor.protocol::<console::Console>();
    visitor.protocol::<control::Control>();
    visitor.protocol::<file::FileSystem>();
    visitor.protocol::<hello::Hello>();
    visitor.protocol::<pci::Pci>();
    visitor.protocol::<pci::PciRegistry>();
    visitor.protocol::<supervisor::Supervisor>();
}

/// Names of the protocol and the method of a request's label; `None` if the system has no such
/// protocol in this version.
pub fn method_of(label: u64) -> Option<(&'static str, &'static str)> {
    struct Named {
        id: ProtocolId,
        method: u8,
        names: Option<(&'static str, &'static str)>,
    }
    impl Visitor for Named {
        fn protocol<P: Protocol>(&mut self) {
            if P::ID == self.id {
                let method = P::METHODS.get(usize::from(self.method));
                self.names = method.map(|method| (P::NAME, *method));
            }
        }
    }
    let (id, method) = ProtocolId::of_label(label);
    let mut named = Named { id, method, names: None };
    each(&mut named);
    named.names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_names_and_unknown_ones_have_none() {
        let label = control::Control::ID.label(1);
        assert_eq!(method_of(label), Some(("control", "kill")));
        assert_eq!(method_of(control::Control::ID.label(255)), None);
        assert_eq!(method_of(ProtocolId::new("control", 999).label(1)), None);
    }
}
