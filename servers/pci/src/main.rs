//! The `pci` server: the granted configuration space, the reports to the root server, the list.
//!
//! The grant (the first of the start info's devices): `address` is the first bus << 8, `bars[0]`
//! the configuration space of the buses; `paddr` and `size` of `bars[1]` and `bars[2]` the windows
//! below and above 4 GiB from which addresses may be assigned, or empty where firmware has done so.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::vec::Vec;
use libipc::mmio::Mmio;
use libipc::start::{DeviceGrant, Region, StartInfo, slot};
use libipc::{Caller, Error, Outcome, Request, Server, Shared, server};
use pci::{Ecam, Survivor, Windows, takeover};
use skink_protocols::pci::{Function, Page, Pci, PciRegistryClient, PciServer};

libipc::main!(serve);

fn serve(start: &'static StartInfo) -> i32 {
    let survivor = Survivor::open(Shared::granted(start.survivor));
    let functions = match start.devices.first() {
        Some(grant) => find(start, grant, survivor),
        None => {
            log::warn!("no configuration space is granted: there is no PCI here");
            Vec::new()
        }
    };
    if let Err(error) = report(&functions) {
        panic!("report the functions to the root server: {error}");
    }
    server::run(&mut Functions(functions))
}

/// The functions: those kept by an earlier instance, or found now.
fn find(start: &StartInfo, grant: &DeviceGrant, survivor: Survivor) -> Vec<Function> {
    let mut config = match Ecam::new(Mmio::granted(grant.bars[0]), (grant.address >> 8) as u8) {
        Ok(config) => config,
        Err(error) => {
            log::warn!("{error}");
            return Vec::new();
        }
    };
    let windows = Windows::new(range(&grant.bars[1]), range(&grant.bars[2]));
    takeover::functions(&mut config, survivor, start.incarnation, windows)
}

fn range(region: &Region) -> core::ops::Range<u64> {
    region.paddr..region.paddr.saturating_add(region.size)
}

fn report(functions: &[Function]) -> Result<(), Error> {
    let registry = PciRegistryClient::at(slot::SUPERVISOR);
    for function in functions {
        registry.report(*function)?;
    }
    registry.done()
}

struct Functions(Vec<Function>);

impl Server for Functions {
    fn on_message(&mut self, request: &Request<'_>) -> Outcome {
        Pci::dispatch(self, request)
    }
}

impl PciServer for Functions {
    fn list(&mut self, _caller: Caller, first: u16) -> Page {
        let functions = self.0.iter().skip(first.into()).copied();
        Page {
            total: self.0.len() as u16,
            functions: functions.take(skink_protocols::pci::PAGE).collect(),
        }
    }
}
