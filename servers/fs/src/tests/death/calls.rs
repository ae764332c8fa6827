//! The calls of a sequence, by the protocol, and what there is to see afterwards.

use super::super::helpers::pattern;
use super::super::model::{Model, key};
use super::world::{Answer, Around, CALLER, Opened, PATHS, SHARED_BYTES, Step};
use crate::service::Service;
use skink_protocols::Span;
use skink_protocols::file::{
    Access, EntryReader, FileError, FileSystemServer, Handle, Kind, RequestId,
};

/// Makes a call as the server loop does: in as many steps as it takes.
pub fn in_steps<R>(
    service: &mut Service<Around>,
    mut call: impl FnMut(&mut Service<Around>) -> R,
) -> R {
    for _ in 0..20_000 {
        service.begin_step(CALLER);
        let answer = call(service);
        if !service.is_unfinished() {
            return answer;
        }
    }
    panic!("a call never ends");
}

pub fn carry_out(
    service: &mut Service<Around>,
    files: &[Opened],
    step: &Step,
    number: RequestId,
) -> Answer {
    in_steps(service, |service| carry_out_step(service, files, step, number))
}

fn carry_out_step(
    service: &mut Service<Around>,
    files: &[Opened],
    step: &Step,
    number: RequestId,
) -> Answer {
    let handle = |file: usize| match files.len() {
        0 => Handle(u64::MAX),
        n => files[file % n].handle,
    };
    let result = match *step {
        Step::Open { path, create } => {
            match service.open(CALLER, PATHS[path], Access::Write, create, number) {
                Ok(opened) => return Answer::Handle(opened.handle),
                Err(error) => Err(error),
            }
        }
        Step::Close { file } => service.close(CALLER, handle(file)),
        Step::Write { file, position, len, seed } => {
            let shared = service.host_mut().shared;
            shared.write(0, &pattern(len as usize, seed));
            let span = Span { offset: 0, length: len };
            let written = service.write(CALLER, handle(file), position.into(), span);
            match written {
                Ok(written) if written < len && !service.is_unfinished() => {
                    return Answer::Short(written);
                }
                written => written.map(|_| ()),
            }
        }
        Step::Truncate { file, size } => service.truncate(CALLER, handle(file), size.into()),
        Step::MakeDirectory { path } => service.make_directory(CALLER, PATHS[path], number),
        Step::Remove { path } => service.remove(CALLER, PATHS[path], number),
        Step::Rename { from, to } => service.rename(CALLER, PATHS[from], PATHS[to], number),
        Step::Sync => service.sync(CALLER),
    };
    match result {
        Ok(()) => Answer::Done,
        Err(error) => Answer::Failed(error),
    }
}

/// All that there is, by the protocol.
pub fn tree(service: &mut Service<Around>) -> Model {
    let mut model = Model::new();
    let mut left = vec![String::new()];
    while let Some(dir) = left.pop() {
        let mut cursor = Some(0);
        while let Some(at) = cursor {
            let span = Span { offset: 0, length: SHARED_BYTES as u32 };
            let path = if dir.is_empty() { "/" } else { &dir };
            let listing = in_steps(service, |service| service.list(CALLER, path, at, span));
            let listing = listing.expect("a directory");
            let shared = service.host_mut().shared;
            let mut reader = EntryReader::new(shared, listing.length);
            while let Some(entry) = reader.next_entry() {
                let path = format!("{dir}/{}", entry.name);
                if entry.metadata.kind == Kind::Directory {
                    model.insert(key(&path), None);
                    left.push(path);
                } else {
                    model.insert(key(&path), Some(Vec::new()));
                }
            }
            cursor = listing.next;
        }
    }
    for (path, bytes) in &mut model {
        if let Some(bytes) = bytes {
            *bytes = in_steps(service, |service| service.read_whole(path)).expect("a file");
        }
    }
    model
}

pub fn differ(found: &Model, before: &Model, after: &Model) -> String {
    let sum = |model: &Model, path: &str| match model.get(path) {
        None => "missing".to_string(),
        Some(None) => "directory".into(),
        Some(Some(bytes)) => format!(
            "{} bytes, {:x}",
            bytes.len(),
            bytes.iter().fold(0u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01B3))
        ),
    };
    let mut text = String::new();
    for path in found.keys().chain(before.keys()).chain(after.keys()) {
        let (is, was, will) = (sum(found, path), sum(before, path), sum(after, path));
        if is != was || is != will {
            text += &format!("{path}: {is}; before: {was}; after: {will}\n");
        }
    }
    text
}

/// What a file of the client holds.
pub fn contents<'a>(
    model: &'a mut Model,
    files: &[Opened],
    file: usize,
) -> Result<&'a mut Vec<u8>, FileError> {
    match files.len() {
        0 => Err(FileError::BadHandle),
        n => Ok(model.get_mut(&files[file % n].path).unwrap().as_mut().unwrap()),
    }
}
