//! Who needs whom: start order, edges, and whether there is room for all sessions.

use super::check::Check;
use super::schema;
use anyhow::Result;
use skink_manifest::{Edge, Manifest, SessionGrant};
use toml::Spanned;

/// What the start info has room for.
const MAX_DEVICES: usize = 4;
const MAX_SESSIONS: usize = 32;
/// Bits of a server's notification: interrupts, and doorbells of sessions.
const INTERRUPT_BITS: usize = 16;
const DOORBELL_BITS: usize = 40;

impl Check<'_> {
    fn index_of(&self, file: &schema::File, name: &Spanned<String>) -> Result<usize> {
        let found = file.servers.iter().position(|other| other.name.get_ref() == name.get_ref());
        found.ok_or_else(|| self.at(name, format!("there is no server `{}`", name.get_ref())))
    }

    /// Indices of the servers, each behind all that it needs, otherwise as in the file.
    ///
    /// # Errors
    /// If a server is unknown, or the needs have a cycle.
    pub fn start_order(&self, file: &schema::File) -> Result<Vec<usize>> {
        let mut order = Vec::new();
        let mut path = Vec::new();
        for index in 0..file.servers.len() {
            self.visit(file, index, &mut order, &mut path)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        file: &schema::File,
        index: usize,
        order: &mut Vec<usize>,
        path: &mut Vec<usize>,
    ) -> Result<()> {
        if order.contains(&index) {
            return Ok(());
        }
        path.push(index);
        for need in &file.servers[index].needs {
            let needed = self.index_of(file, &need.get_ref().server)?;
            if let Some(from) = path.iter().position(|other| *other == needed) {
                let names = path[from..].iter().chain([&needed]);
                let names: Vec<&str> =
                    names.map(|index| file.servers[*index].name.get_ref().as_str()).collect();
                let message = format!("a cycle of needs: {}", names.join(" -> "));
                return Err(self.at(&need.get_ref().server, message));
            }
            self.visit(file, needed, order, path)?;
        }
        path.pop();
        order.push(index);
        Ok(())
    }

    /// The edge of a need of the server at `client_at` of the start order.
    ///
    /// # Errors
    /// If it cannot be met, or goes downhill.
    pub fn edge(
        &self,
        file: &schema::File,
        order: &[usize],
        client_at: usize,
        need: &schema::Need,
    ) -> Result<Edge> {
        let client = &file.servers[order[client_at]];
        let index = self.index_of(file, &need.server)?;
        let server = &file.servers[index];
        let (client_name, server_name) = (client.name.get_ref(), server.name.get_ref());
        if !server.provides.iter().any(|p| p.get_ref() == need.protocol.get_ref()) {
            let provides: Vec<&str> =
                server.provides.iter().map(|p| p.get_ref().as_str()).collect();
            let message = format!(
                "`{server_name}` does not provide the protocol `{}`; it provides: {}",
                need.protocol.get_ref(),
                if provides.is_empty() { "nothing".into() } else { provides.join(", ") }
            );
            return Err(self.at(&need.protocol, message));
        }
        let (low, high) = (*client.priority.get_ref(), *server.priority.get_ref());
        if high <= low {
            let message = format!(
                "calls go uphill: `{server_name}` (priority {high}) must be above `{client_name}` ({low})"
            );
            return Err(self.at(&need.server, message));
        }
        let same =
            |other: &&Spanned<schema::Need>| other.get_ref().name.get_ref() == need.name.get_ref();
        if client.needs.iter().filter(same).count() > 1 {
            let message = format!("`{client_name}` has two needs called `{}`", need.name.get_ref());
            return Err(self.at(&need.name, message));
        }
        let shared_bytes = self.pages(need.shared.as_ref(), 0)?;
        if need.dma && shared_bytes == 0 {
            return Err(self.at(&need.name, "`dma` without `shared` memory"));
        }
        if let Some(sessions) = need.sessions.as_ref().filter(|s| *s.get_ref() == 0) {
            return Err(self.at(sessions, "a need has at least one session"));
        }
        let server = order.iter().position(|other| *other == index).unwrap_or_default();
        Ok(Edge {
            name: self.name(&need.name)?,
            client: client_at as u8,
            server: server as u8,
            protocol: self.name(&need.protocol)?,
            sessions: need.sessions.as_ref().map_or(1, |sessions| *sessions.get_ref()),
            shared_bytes,
            dma: need.dma,
            grant: self.grant(need)?,
            may_complain: need.may_complain,
        })
    }

    /// How much of its protocol a need's sessions are good for.
    fn grant(&self, need: &schema::Need) -> Result<SessionGrant> {
        let protocol = &need.protocol;
        let access = need.access.as_ref().map(|access| *access.get_ref());
        let folder = need.folder.as_ref().map(|folder| folder.get_ref().as_str());
        let channel = need.channel.as_ref().map(|channel| *channel.get_ref());
        let grant = SessionGrant::of_words(protocol.get_ref(), access, folder, channel);
        let complete = grant.and_then(|grant| grant.check(protocol.get_ref()).map(|()| grant));
        complete.map_err(|error| {
            let message = format!("protocol `{}`: {error}", protocol.get_ref());
            match (error.option(), &need.access, &need.folder, &need.channel) {
                ("access", Some(access), ..) => self.at(access, message),
                ("folder", _, Some(folder), _) => self.at(folder, message),
                ("channel", .., Some(channel)) => self.at(channel, message),
                _ => self.at(protocol, message),
            }
        })
    }

    /// What the start info and the notification's bits have room for.
    ///
    /// # Errors
    /// If a server wants more.
    pub fn room(&self, file: &schema::File, manifest: &Manifest, order: &[usize]) -> Result<()> {
        for (at, index) in order.iter().enumerate() {
            let server = &file.servers[*index];
            let sessions = |edges: &dyn Fn(&Edge) -> bool| -> usize {
                manifest.edges.iter().filter(|e| edges(e)).map(|e| usize::from(e.sessions)).sum()
            };
            let outgoing = sessions(&|edge| usize::from(edge.client) == at);
            let incoming = sessions(&|edge| usize::from(edge.server) == at);
            let vectors: usize =
                server.devices.iter().map(|device| usize::from(device.get_ref().vectors)).sum();
            let counts = [
                (outgoing, MAX_SESSIONS, "sessions as a client"),
                (incoming, MAX_SESSIONS, "sessions as a server"),
                (outgoing + incoming, DOORBELL_BITS, "sessions in all"),
                (server.lines.len() + vectors, INTERRUPT_BITS, "interrupts"),
                (server.devices.len(), MAX_DEVICES, "devices"),
            ];
            for (count, most, what) in counts {
                if count > most {
                    let message = format!(
                        "`{}` has {count} {what}; there is room for {most}",
                        server.name.get_ref()
                    );
                    return Err(self.at(&server.name, message));
                }
            }
        }
        Ok(())
    }
}
