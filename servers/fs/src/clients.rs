//! What outlives the server of its clients: open files, and the last answers.
//!
//! A request that carries a number is executed once: the number is committed with the operation,
//! and the same number again gets the same answer. A session has one request at a time, so the
//! last one is enough. What is remembered is of one instance of the client: the next one, which may
//! be another program, begins with nothing.

use crate::device::CacheDevice;
use crate::error::FsError;
use crate::open::OpenFile;
use crate::survivor::PAYLOAD;
use crate::survivor::records::{CLIENT_FIRST, CLIENTS, ClientRecord, HANDLE_FIRST, HandleRecord};
use crate::volume::Volume;
use alloc::vec::Vec;
use libipc::sessions::{Handle, Owner};

impl<D: CacheDevice> Volume<D> {
    /// What is known of a client.
    pub(crate) fn client(&self, owner: Owner) -> ClientRecord {
        let known = self.clients.iter().find(|client| client.owner == owner);
        known.copied().unwrap_or(ClientRecord { owner, ..ClientRecord::default() })
    }

    /// Keeps it with the operation under way, in place of what is known of its session.
    pub(crate) fn set_client(&mut self, client: ClientRecord) {
        let is_session = |known: &ClientRecord| known.owner.badge == client.owner.badge;
        let place = self.clients.iter().position(is_session);
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
    pub(crate) fn stage_opened(&mut self, file: OpenFile) -> Result<(), FsError> {
        let open = self.files.get(file)?;
        let (at, access) = (open.node, open.access);
        let node = self.files.node(at);
        let record = HandleRecord {
            handle: file.handle(),
            access,
            owner: self.files.owner(file).ok_or(FsError::BadHandle)?,
            place: (node.dir, node.slot),
            identity: node.identity().file,
            address: (node.sector, node.offset as u32),
            path: node.path.clone(),
        };
        let item = HANDLE_FIRST + self.files.place(file.handle());
        if let Some(survivor) = &mut self.core.cache.survivor {
            survivor.stage(item, record.put());
        }
        Ok(())
    }

    /// Keeps that one was closed.
    pub(crate) fn stage_closed(&mut self, handle: Handle) {
        let item = HANDLE_FIRST + self.files.place(handle);
        if let Some(survivor) = &mut self.core.cache.survivor {
            survivor.stage(item, [0; PAYLOAD]);
        }
    }

    /// Closes the files of clients that are gone; returns how many. Where there is more to do than that,
    /// the next operation does it, and closes the file then.
    pub fn close_of(&mut self, is_gone: impl Fn(Owner) -> bool) -> usize {
        let of_dead = self.files.all().filter(|(_, owner)| is_gone(*owner));
        let files: Vec<(OpenFile, Owner)> = of_dead.collect();
        for (file, owner) in &files {
            if let Err(error) = self.close_dead(*file, *owner) {
                log::warn!("a file of a client that died is closed: {error}");
            }
        }
        files.len()
    }

    fn close_dead(&mut self, file: OpenFile, owner: Owner) -> Result<(), FsError> {
        if self.abandoned.contains(&file) {
            // Closed with what it has left, which may be half done.
            return Ok(());
        }
        let at = self.files.get(file)?.node;
        let node = self.files.node_mut(at);
        node.askers.retain(|asker| *asker != owner.badge);
        if node.users() > 1 || !node.has_surplus {
            return self.close(file);
        }
        self.is_untidy = true;
        self.abandoned.push(file);
        Ok(())
    }
}
