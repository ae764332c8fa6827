//! `[[group]]`: names, parents, and which group a server is in.

use super::check::Check;
use super::schema;
use anyhow::Result;
use skink_manifest::{Group, MAX_GROUPS, Strategy, limits};
use toml::Spanned;

impl Check<'_> {
    /// The groups, each behind its parent, otherwise as in the file.
    ///
    /// # Errors
    /// If there are too many, two have the same name, a parent is unknown, or parents have a cycle.
    pub fn groups(&self, file: &schema::File) -> Result<heapless::Vec<Group, MAX_GROUPS>> {
        for (index, group) in file.groups.iter().enumerate() {
            let name = group.name.get_ref();
            if file.groups[..index].iter().any(|other| other.name.get_ref() == name) {
                return Err(self.at(&group.name, format!("a second group called `{name}`")));
            }
            if index == MAX_GROUPS {
                return Err(self.at(&group.name, format!("more than {MAX_GROUPS} groups")));
            }
        }
        let mut ordered = heapless::Vec::new();
        for group in &file.groups {
            self.visit_group(file, group, &mut ordered, &mut Vec::new())?;
        }
        Ok(ordered)
    }

    fn visit_group<'a>(
        &self,
        file: &'a schema::File,
        group: &'a schema::Group,
        ordered: &mut heapless::Vec<Group, MAX_GROUPS>,
        path: &mut Vec<&'a str>,
    ) -> Result<()> {
        let name = group.name.get_ref().as_str();
        if ordered.iter().any(|other| other.name == name) {
            return Ok(());
        }
        path.push(name);
        if let Some(parent) = &group.parent {
            if let Some(from) = path.iter().position(|below| *below == parent.get_ref()) {
                let circle = [&path[from..], &[parent.get_ref().as_str()]].concat().join(" -> ");
                return Err(self.at(parent, format!("a cycle of parents: {circle}")));
            }
            let found = file.groups.iter().find(|other| other.name.get_ref() == parent.get_ref());
            let found = found.ok_or_else(|| self.no_group(parent))?;
            self.visit_group(file, found, ordered, path)?;
        }
        let group = self.group(group, ordered)?;
        ordered.push(group).map_err(|_| anyhow::anyhow!("the number of groups was checked"))
    }

    fn group(&self, group: &schema::Group, before: &[Group]) -> Result<Group> {
        Ok(Group {
            name: self.name(&group.name)?,
            strategy: match group.strategy {
                schema::Strategy::OneForOne => Strategy::OneForOne,
                schema::Strategy::RestForOne => Strategy::RestForOne,
                schema::Strategy::OneForAll => Strategy::OneForAll,
            },
            parent: self.group_index(group.parent.as_ref(), before)?,
            intensity: group.intensity.map_or(limits::DEFAULT_INTENSITY, u16::from),
            intensity_period_ms: self.intensity_period(group.intensity_period_ms.as_ref())?,
            backoff_ms: group.backoff_ms.unwrap_or(0),
            backoff_max_ms: group.backoff_max_ms.unwrap_or(limits::DEFAULT_BACKOFF_MAX_MS),
        })
    }

    /// Where in `groups` the one with this name is.
    ///
    /// # Errors
    /// If there is none.
    pub fn group_index(
        &self,
        name: Option<&Spanned<String>>,
        groups: &[Group],
    ) -> Result<Option<u8>> {
        let Some(name) = name else {
            return Ok(None);
        };
        let found = groups.iter().position(|group| group.name == name.get_ref().as_str());
        found.map(|index| Some(index as u8)).ok_or_else(|| self.no_group(name))
    }

    fn no_group(&self, name: &Spanned<String>) -> anyhow::Error {
        self.at(name, format!("there is no group `{}`", name.get_ref()))
    }
}
