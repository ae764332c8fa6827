//! What a label in a crash record's history means: protocol and method by name.

use libipc::protocol::{Protocol, ProtocolId};

use crate::{block, console, control, file, hello, pci, supervisor};

/// Names of the protocol and the method of a request's label; `None` if the system has no such
/// protocol in this version.
pub fn method_of(label: u64) -> Option<(&'static str, &'static str)> {
    let (id, method) = ProtocolId::of_label(label);
    const fn entry<P: Protocol>() -> (ProtocolId, &'static str, &'static [&'static str]) {
        (P::ID, P::NAME, P::METHODS)
    }
    let known = [
        entry::<block::Block>(),
        entry::<console::Console>(),
        entry::<control::Control>(),
        entry::<file::FileSystem>(),
        entry::<hello::Hello>(),
        entry::<pci::Pci>(),
        entry::<pci::PciRegistry>(),
        entry::<supervisor::Supervisor>(),
    ];
    let (_, protocol, methods) = known.into_iter().find(|known| known.0 == id)?;
    Some((protocol, methods.get(usize::from(method))?))
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
