//! What only one machine has: the `[[hardware]]` tables, merged into the servers that they name, so
//! that targets can share everything else.

use super::check::Check;
use super::schema;
use anyhow::Result;

impl Check<'_> {
    /// Gives each server its ports, lines and devices of `[[hardware]]`, behind its own.
    ///
    /// # Errors
    /// If a table names no server, or one that another names already.
    pub fn merge_hardware(&self, file: &mut schema::File) -> Result<()> {
        let mut done: Vec<String> = Vec::new();
        for hardware in std::mem::take(&mut file.hardware) {
            let schema::Hardware { server: name, devices, ports, lines } = hardware;
            if done.contains(name.get_ref()) {
                let message = format!("a second [[hardware]] of `{}`", name.get_ref());
                return Err(self.at(&name, message));
            }
            let of_name = |server: &&mut schema::Server| server.name.get_ref() == name.get_ref();
            let Some(server) = file.servers.iter_mut().find(of_name) else {
                return Err(self.at(&name, format!("there is no server `{}`", name.get_ref())));
            };
            server.devices.extend(devices);
            server.ports.extend(ports);
            server.lines.extend(lines);
            done.push(name.into_inner());
        }
        Ok(())
    }
}
