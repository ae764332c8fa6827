//! What a manifest must mean together: names are unique and known, the needs have no cycle and
//! go uphill, nothing is given twice, sizes are what the root server can hand out. The result is
//! in start order.

use super::schema::{self, Privilege};
use super::{Source, devices};
use anyhow::Result;
use skink_abi::PAGE_SIZE;
use skink_manifest::{
    Bytes, Experiment, Group, Line, MAX_EDGES, MAX_GRANTS, MAX_SERVERS, Manifest, Name, PortRange,
    Privileges, Server, VERSION, limits,
};
use toml::Spanned;

/// Highest priority of a server; the root server is above.
const MAX_PRIORITY: u8 = 250;

/// Checks `file`, which was read from `source`, and puts its servers in start order.
///
/// # Errors
/// What is wrong, with file and line.
pub fn checked(source: &Source, mut file: schema::File, target: &str) -> Result<Manifest> {
    let check = Check { source };
    check.merge_hardware(&mut file)?;
    check.add_slots(&mut file)?;
    let file = &file;
    if file.system.target.get_ref() != target {
        let said = file.system.target.get_ref();
        return Err(
            check.at(&file.system.target, format!("the target is `{said}`, not `{target}`"))
        );
    }
    check.names(file)?;
    check.one_build_each(file)?;
    check.given_once(file)?;
    let order = check.start_order(file)?;
    let mut manifest = Manifest {
        version: VERSION,
        target: check.text(&file.system.target)?,
        experiment: file.experiment.as_ref().map(|experiment| Experiment {
            unlimited_intensity: experiment.intensity.is_some(),
            backoff_ms: experiment.backoff_ms,
            recording: experiment.recording,
            heartbeats: experiment.heartbeats,
            broken: experiment.broken,
            devices: experiment.devices,
        }),
        groups: check.groups(file)?,
        servers: heapless::Vec::new(),
        edges: heapless::Vec::new(),
    };
    for index in &order {
        let server = &file.servers[*index];
        manifest
            .servers
            .push(check.server(server, &manifest.groups)?)
            .map_err(|_| check.at(&server.name, format!("more than {MAX_SERVERS} servers")))?;
    }
    for (client, index) in order.iter().enumerate() {
        for need in &file.servers[*index].needs {
            let edge = check.edge(file, &order, client, need.get_ref())?;
            manifest
                .edges
                .push(edge)
                .map_err(|_| check.at(need, format!("more than {MAX_EDGES} needs in all")))?;
        }
    }
    check.room(file, &manifest, &order)?;
    Ok(manifest)
}

/// Complains about one file.
pub struct Check<'a> {
    source: &'a Source,
}

impl Check<'_> {
    /// The complaint about what stands at `place`.
    pub fn at<T>(&self, place: &Spanned<T>, message: impl std::fmt::Display) -> anyhow::Error {
        self.source.error(place.span().start, message)
    }

    fn text<const N: usize>(&self, text: &Spanned<String>) -> Result<heapless::String<N>> {
        heapless::String::try_from(text.get_ref().as_str())
            .map_err(|_| self.at(text, format!("longer than {N} bytes")))
    }

    /// A name of the manifest, which has only some letters.
    ///
    /// # Errors
    /// If it has others or is too long.
    pub fn name(&self, name: &Spanned<String>) -> Result<Name> {
        let text = name.get_ref();
        if !limits::is_name(text) {
            return Err(self.at(name, format!("`{text}`: {}", limits::NAME_RULE)));
        }
        self.text(name)
    }

    fn names(&self, file: &schema::File) -> Result<()> {
        // Before anything walks along the needs, which goes as deep as there are servers.
        if let Some(server) = file.servers.get(MAX_SERVERS) {
            return Err(self.at(&server.name, format!("more than {MAX_SERVERS} servers")));
        }
        for (index, server) in file.servers.iter().enumerate() {
            let same = |other: &schema::Server| other.name.get_ref() == server.name.get_ref();
            if file.servers[..index].iter().any(same) {
                let name = server.name.get_ref();
                return Err(self.at(&server.name, format!("a second server called `{name}`")));
            }
        }
        Ok(())
    }

    /// A program is built with or without floating point, not both.
    fn one_build_each(&self, file: &schema::File) -> Result<()> {
        for (index, server) in file.servers.iter().enumerate() {
            let binary = program(server).get_ref();
            let other_build = |other: &&schema::Server| {
                program(other).get_ref() == binary && other.fpu != server.fpu
            };
            if let Some(other) = file.servers[..index].iter().find(other_build) {
                let message = format!(
                    "`{binary}` runs as `{}` too, and only one of them has `fpu = true`",
                    other.name.get_ref()
                );
                return Err(self.at(&server.name, message));
            }
        }
        Ok(())
    }

    /// No device, port or line for two.
    fn given_once(&self, file: &schema::File) -> Result<()> {
        let mut taken: Vec<(String, &str)> = Vec::new();
        let mut ports: Vec<(&schema::Ports, &str)> = Vec::new();
        let mut lines: Vec<(u32, &str)> = Vec::new();
        for server in &file.servers {
            let owner = server.name.get_ref().as_str();
            for device in &server.devices {
                let keys = devices::keys(device.get_ref());
                if let Some((key, first)) = taken.iter().find(|(key, _)| keys.contains(key)) {
                    let message = format!("the device {key} is given to `{first}` already");
                    return Err(self.at(device, message));
                }
                taken.extend(keys.into_iter().map(|key| (key, owner)));
            }
            for range in &server.ports {
                let schema::Ports { first, last } = *range.get_ref();
                if last < first {
                    return Err(self.at(range, format!("ports {first:#x} to {last:#x}: none")));
                }
                let overlaps =
                    |(other, _): &&(&schema::Ports, _)| first <= other.last && other.first <= last;
                if let Some((_, taken)) = ports.iter().find(overlaps) {
                    let message = format!(
                        "of the ports {first:#x} to {last:#x} some are given to `{taken}` already"
                    );
                    return Err(self.at(range, message));
                }
                ports.push((range.get_ref(), owner));
            }
            for line in &server.lines {
                let number = self.line(line)?.number;
                if let Some((_, taken)) = lines.iter().find(|(other, _)| *other == number) {
                    let message = format!("the line {number} is given to `{taken}` already");
                    return Err(self.at(line, message));
                }
                lines.push((number, owner));
            }
        }
        Ok(())
    }

    fn line(&self, line: &Spanned<schema::Line>) -> Result<Line> {
        let schema::Line { gsi, intid, level } = line.get_ref();
        match (gsi, intid) {
            (Some(number), None) | (None, Some(number)) => {
                Ok(Line { number: *number, level: *level })
            }
            _ => Err(self.at(line, "a line has either `gsi` (PC) or `intid` (Arm)")),
        }
    }

    /// A size in whole pages.
    ///
    /// # Errors
    /// If it is not.
    pub fn pages(&self, size: Option<&Spanned<Bytes>>, default: u64) -> Result<u32> {
        let Some(size) = size else {
            return Ok(default as u32);
        };
        let Bytes(bytes) = *size.get_ref();
        if !bytes.is_multiple_of(PAGE_SIZE as u64) {
            return Err(self.at(size, format!("{bytes} bytes are not whole pages of {PAGE_SIZE}")));
        }
        u32::try_from(bytes).map_err(|_| self.at(size, "4 GiB or more"))
    }

    fn within<T: Copy + PartialOrd + std::fmt::Display>(
        &self,
        value: Option<&Spanned<T>>,
        default: T,
        least: T,
        most: T,
    ) -> Result<T> {
        let Some(value) = value else {
            return Ok(default);
        };
        let number = *value.get_ref();
        if number < least || number > most {
            return Err(self.at(value, format!("{number}: must be {least} to {most}")));
        }
        Ok(number)
    }

    /// Milliseconds in which an intensity counts deaths.
    ///
    /// # Errors
    /// If they are too few.
    pub fn intensity_period(&self, period: Option<&Spanned<u32>>) -> Result<u32> {
        let (default, least) =
            (limits::DEFAULT_INTENSITY_PERIOD_MS, limits::MIN_INTENSITY_PERIOD_MS);
        self.within(period, default, least, u32::MAX)
    }

    fn list<T, U>(
        &self,
        from: &[Spanned<T>],
        each: impl Fn(&Spanned<T>) -> Result<U>,
    ) -> Result<heapless::Vec<U, MAX_GRANTS>> {
        let mut all = heapless::Vec::new();
        for item in from {
            let too_many = |_| self.at(item, format!("more than {MAX_GRANTS} of them"));
            all.push(each(item)?).map_err(too_many)?;
        }
        Ok(all)
    }

    fn server(&self, server: &schema::Server, groups: &[Group]) -> Result<Server> {
        let budget_us = self.within(
            server.budget_us.as_ref(),
            limits::DEFAULT_BUDGET_US,
            limits::MIN_BUDGET_US,
            limits::MAX_PERIOD_US,
        )?;
        let period_us =
            self.within(server.period_us.as_ref(), budget_us, budget_us, limits::MAX_PERIOD_US)?;
        let Bytes(quota_bytes) = *server.memory.get_ref();
        if !quota_bytes.is_power_of_two() || quota_bytes < limits::MIN_QUOTA {
            let message =
                format!("{quota_bytes} bytes: a quota is a power of two of 64 KiB or more");
            return Err(self.at(&server.memory, message));
        }
        let stack_bytes = self.pages(server.stack.as_ref(), limits::DEFAULT_STACK.into())?;
        let heap_bytes = self.pages(server.heap.as_ref(), 0)?;
        let extra_threads =
            self.within(server.extra_threads.as_ref(), 0, 0, limits::MAX_EXTRA_THREADS)?;
        let stacks = u64::from(stack_bytes) * (1 + u64::from(extra_threads));
        if stacks + u64::from(heap_bytes) >= quota_bytes {
            let message = format!(
                "stacks ({stacks} bytes) and heap ({heap_bytes}) do not fit into the quota"
            );
            return Err(self.at(&server.memory, message));
        }
        if stack_bytes == 0 {
            return Err(self.at(&server.name, "a thread needs a stack"));
        }
        Ok(Server {
            name: self.name(&server.name)?,
            binary: match server.is_slot {
                true => Name::new(),
                false => self.name(program(server))?,
            },
            is_slot: server.is_slot,
            args: match &server.args {
                Some(args) => self.text(args)?,
                None => heapless::String::new(),
            },
            priority: self.within(Some(&server.priority), 1, 1, MAX_PRIORITY)?,
            budget_us,
            period_us,
            quota_bytes,
            stack_bytes,
            heap_bytes,
            extra_threads,
            replies: self.within(server.replies.as_ref(), 1, 1, limits::MAX_REPLIES)?,
            fpu: server.fpu,
            devices: self.list(&server.devices, |device| self.device(device))?,
            ports: self.list(&server.ports, |range| Ok(port_range(range.get_ref())))?,
            lines: self.list(&server.lines, |line| self.line(line))?,
            provides: self.list(&server.provides, |name| self.name(name))?,
            dma_bytes: self.pages(server.dma.as_ref(), 0)?,
            survivor_bytes: self.pages(server.survivor.as_ref(), 0)?,
            privileges: privileges(&server.privileges),
            restart: server.restart,
            group: self.group_index(server.group.as_ref(), groups)?,
            intensity: server.intensity.map_or(limits::DEFAULT_INTENSITY, u16::from),
            intensity_period_ms: self.intensity_period(server.intensity_period_ms.as_ref())?,
            backoff_ms: server.backoff_ms.as_ref().map_or(0, |ms| *ms.get_ref()),
            backoff_max_ms: server.backoff_max_ms.unwrap_or(limits::DEFAULT_BACKOFF_MAX_MS),
            heartbeat_ms: match &server.heartbeat_ms {
                Some(none) if *none.get_ref() == 0 => 0,
                some => self.within(some.as_ref(), 0, limits::MIN_HEARTBEAT_MS, u32::MAX)?,
            },
        })
    }
}

/// The name of the program that a server runs.
fn program(server: &schema::Server) -> &Spanned<String> {
    server.binary.as_ref().unwrap_or(&server.name)
}

fn port_range(ports: &schema::Ports) -> PortRange {
    PortRange { first: ports.first, last: ports.last }
}

fn privileges(list: &[Spanned<Privilege>]) -> Privileges {
    let has = |privilege| list.iter().any(|item| *item.get_ref() == privilege);
    Privileges {
        log: has(Privilege::Log),
        boot_image: has(Privilege::BootImage),
        control: has(Privilege::Control),
        pci_config: has(Privilege::PciConfig),
    }
}
