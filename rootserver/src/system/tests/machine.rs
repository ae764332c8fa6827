//! A kernel that agrees to everything and remembers what it was asked. Frames that the root server
//! maps for itself are memory of the host; a frame keeps what it held while it was mapped nowhere.

use crate::arch::REGISTER_WORDS;
use libipc::arch::{Registers, Request};
use libipc::buffer;
use skink_abi::bootinfo::slot as boot;
use skink_abi::message::buffer::SEND_CAPS;
use skink_abi::{Error, Invocation, MessageInfo, PAGE_SIZE, Syscall};
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::vec::Vec;

/// An invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub what: Invocation,
    /// Of which capability.
    pub cap: u64,
    pub words: Vec<u64>,
    pub caps: Vec<u64>,
}

#[derive(Default)]
pub struct Machine {
    /// Invocations, but for the log's.
    pub asked: Vec<Asked>,
    /// What the root server said.
    pub log: String,
    /// Capabilities that were signalled, or got an empty message.
    pub signalled: Vec<u64>,
    /// Frames that are mapped nowhere, by capability.
    pub frames: BTreeMap<u64, Vec<u8>>,
    /// Where frames are shown to the root server.
    shown: BTreeMap<u64, u64>,
    /// Copies, and what each is of.
    copies: BTreeMap<u64, u64>,
    /// Regions of 2 MiB that have paging structures.
    tables: BTreeSet<u64>,
    /// CPU time by scheduling context, nanoseconds.
    pub consumed_ns: BTreeMap<u64, u64>,
    /// Registers by thread. Of others there are none.
    pub registers: BTreeMap<u64, [u64; REGISTER_WORDS]>,
    /// What `LogStatistics` answers.
    pub statistics: [u64; 4],
    /// Refuses this.
    pub refuses: Option<(Invocation, Error)>,
}

impl Machine {
    pub fn answer(&mut self, trap: Request) -> Registers {
        let mut answer = Registers::default();
        match trap.number {
            Syscall::Call => match self.invoke(&trap) {
                Ok((info, words)) => (answer.info, answer.words) = (info, words),
                Err(error) => answer.status = error.raw(),
            },
            Syscall::Signal | Syscall::NbSend => self.signalled.push(trap.cap),
            other => panic!("{other:?}"),
        }
        answer
    }

    fn invoke(&mut self, trap: &Request) -> Result<(MessageInfo, [u64; 4]), Error> {
        let word = |index| trap.words.get(index).copied().unwrap_or_else(|| buffer::word(index));
        let words: Vec<u64> = (0..trap.info.length()).map(word).collect();
        let caps: Vec<u64> = (0..trap.info.caps()).map(|i| buffer::word(SEND_CAPS + i)).collect();
        let what = Invocation::from_raw(trap.info.label()).unwrap();
        if let Some((refused, error)) = self.refuses
            && refused == what
        {
            return Err(error);
        }
        let mut result = [0; 4];
        match what {
            Invocation::LogWrite => {
                self.write_log(&words);
                result[0] = words[0];
                return Ok((MessageInfo::new(0, 1, 0), result));
            }
            Invocation::LogStatistics => result = self.statistics,
            Invocation::SchedContextConsumed => {
                result[0] = self.consumed_ns.get(&trap.cap).copied().unwrap_or(0);
            }
            Invocation::TcbReadRegisters => return self.read_registers(trap.cap),
            Invocation::CNodeCopy => {
                self.copies.insert(words[0], words[2]);
            }
            Invocation::CNodeDelete => {
                self.copies.remove(&words[0]);
            }
            Invocation::FrameMap if caps == [boot::VSPACE] => self.show(trap.cap, words[0])?,
            Invocation::FrameUnmap => self.hide(trap.cap),
            Invocation::PageTableMap if caps == [boot::VSPACE] => {
                assert!(self.tables.insert(words[0] >> 21), "there are tables for {words:x?}");
            }
            _ => {}
        }
        self.asked.push(Asked { what, cap: trap.cap, words, caps });
        Ok((MessageInfo::new(0, 4, 0), result))
    }

    fn write_log(&mut self, words: &[u64]) {
        let bytes: Vec<u8> = words[1..].iter().flat_map(|word| word.to_le_bytes()).collect();
        self.log += core::str::from_utf8(&bytes[..words[0] as usize]).unwrap();
    }

    fn read_registers(&self, tcb: u64) -> Result<(MessageInfo, [u64; 4]), Error> {
        let words = self.registers.get(&tcb).ok_or(Error::InvalidCapability)?;
        let mut result = [0; 4];
        for (index, word) in words.iter().enumerate() {
            match result.get_mut(index) {
                Some(register) => *register = *word,
                None => buffer::set_word(index, *word),
            }
        }
        Ok((MessageInfo::new(0, words.len(), 0), result))
    }

    fn original(&self, cap: u64) -> u64 {
        self.copies.get(&cap).copied().unwrap_or(cap)
    }

    fn show(&mut self, cap: u64, vaddr: u64) -> Result<(), Error> {
        if !self.tables.contains(&(vaddr >> 21)) {
            return Err(Error::MissingPageTable);
        }
        let frame = self.original(cap);
        if self.shown.insert(frame, vaddr) == Some(vaddr) {
            return Ok(());
        }
        let bytes = self.frames.remove(&frame).unwrap_or_else(|| std::vec![0; PAGE_SIZE]);
        // SAFETY: the window lies in memory of the host, which nobody else uses (see `World`).
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), vaddr as *mut u8, PAGE_SIZE) };
        Ok(())
    }

    fn hide(&mut self, cap: u64) {
        let frame = self.original(cap);
        if let Some(vaddr) = self.shown.remove(&frame) {
            let mut bytes = std::vec![0; PAGE_SIZE];
            // SAFETY: as in `show`.
            unsafe {
                core::ptr::copy_nonoverlapping(vaddr as *const u8, bytes.as_mut_ptr(), PAGE_SIZE);
            }
            self.frames.insert(frame, bytes);
        }
    }

    /// Invocations of this kind since the last look.
    pub fn all(&self, what: Invocation) -> Vec<&Asked> {
        self.asked.iter().filter(|asked| asked.what == what).collect()
    }
}
