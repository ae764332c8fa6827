//! What outlives the server of its clients: open files, and the last answers.
//!
//! A request that carries a number is executed once: the number is committed with the operation,
//! and the same number again gets the same answer. A session has one request at a time, so the
//! last one is enough.

use crate::device::CacheDevice;
use crate::error::FsError;
use crate::open::{Handle, Owner};
use crate::survivor::PAYLOAD;
use crate::survivor::records::{CLIENT_FIRST, CLIENTS, ClientRecord, HANDLE_FIRST, HandleRecord};
use crate::volume::Volume;
use alloc::vec::Vec;

impl<D: CacheDevice> Volume<D> {
    /// What is known of a session.
    pub(crate) fn client(&self, badge: u64) -> ClientRecord {
        let known = self.clients.iter().find(|client| client.badge == badge);
        known.copied().unwrap_or(ClientRecord { badge, ..ClientRecord::default() })
    }

    /// Keeps it with the operation under way.
    pub(crate) fn set_client(&mut self, client: ClientRecord) {
        let place = self.clients.iter().position(|known| known.badge == client.badge);
        let place = place.unwrap_or_else(|| {
            // A server has no more sessions than that; if it had, the oldest would lose.
            if self.clients.len() == CLIENTS {
                self.clients.rotate_left(1);
                self.clients.truncate(CLIENTS - 1);
            }
            self.clients.push(client);
            self.clients.len() - 1
        });
        self.clients[place] = client;
        if let Some(survivor) = &mut self.core.cache.survivor {
            for (index, client) in self.clients.iter().enumerate() {
                survivor.stage(CLIENT_FIRST + index, client.put());
            }
        }
    }

    /// Keeps that a file was opened.
    pub(crate) fn stage_opened(&mut self, handle: Handle) -> Result<(), FsError> {
        let open = self.files.get(handle)?;
        let (at, access, owner) = (open.node, open.access, open.owner);
        let node = self.files.node(at);
        let record = HandleRecord {
            raw: handle.to_raw(),
            access,
            owner,
            place: (node.dir, node.slot),
            identity: node.entry.identity(),
            address: (node.sector, node.offset as u32),
            path: node.path.clone(),
        };
        if let Some(survivor) = &mut self.core.cache.survivor {
            survivor.stage(HANDLE_FIRST + handle.index(), record.put());
        }
        Ok(())
    }

    /// Keeps that one was closed.
    pub(crate) fn stage_closed(&mut self, handle: Handle) {
        if let Some(survivor) = &mut self.core.cache.survivor {
            survivor.stage(HANDLE_FIRST + handle.index(), [0; PAYLOAD]);
        }
    }

    /// Closes the handles of clients that are gone; returns how many.
    pub fn close_of(&mut self, is_gone: impl Fn(Owner) -> bool) -> usize {
        let handles: Vec<Handle> = self
            .files
            .handles()
            .filter(|(_, owner)| is_gone(*owner))
            .map(|(handle, _)| handle)
            .collect();
        handles.into_iter().filter(|handle| self.close(*handle).is_ok()).count()
    }
}
