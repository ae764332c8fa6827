//! The register file of an emulated thread: fields by meaning.

use skink_abi::MessageInfo;
use skink_abi::syscall::REGISTER_WORDS;

use crate::addr::UserAddr;
use crate::machine::UserContext;

/// Bytes of the emulated system call instruction.
pub const SYSCALL_BYTES: u64 = 2;

/// Registers of an emulated thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct HostContext {
    /// Instruction pointer; behind the system call instruction while the kernel handles one.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Flags.
    pub flags: u64,
    /// TLS base.
    pub tls: u64,
    /// In: system call number. Out: status.
    pub status: u64,
    /// The system call number as it was given (a repeated call finds it again).
    pub syscall: u64,
    /// In: capability invoked.
    pub cptr: u64,
    /// Out: badge delivered.
    pub badge: u64,
    /// In: `Reply` capability of receiving calls.
    pub reply: u64,
    /// In: capability received from, `NbSendRecv` only.
    pub receive: u64,
    /// Message info, in and out.
    pub info: MessageInfo,
    /// Message registers.
    pub mr: [u64; REGISTER_WORDS],
    /// First argument of the entry point.
    pub argument: u64,
}

impl UserContext for HostContext {
    const WORDS: usize = 5;

    fn mr(&self, index: usize) -> u64 {
        self.mr[index]
    }
    fn set_mr(&mut self, index: usize, value: u64) {
        self.mr[index] = value;
    }
    fn syscall(&self) -> u64 {
        self.syscall
    }
    fn cptr(&self) -> u64 {
        self.cptr
    }
    fn reply_cptr(&self) -> u64 {
        self.reply
    }
    fn receive_cptr(&self) -> u64 {
        self.receive
    }
    fn message_info(&self) -> MessageInfo {
        self.info
    }
    fn set_status(&mut self, status: u64) {
        self.status = status;
    }
    fn set_badge(&mut self, badge: u64) {
        self.badge = badge;
    }
    fn set_message_info(&mut self, info: MessageInfo) {
        self.info = info;
    }
    fn ip(&self) -> u64 {
        self.ip
    }
    fn sp(&self) -> u64 {
        self.sp
    }
    fn rewind_syscall(&mut self) {
        self.ip = self.ip.wrapping_sub(SYSCALL_BYTES);
    }
    fn set_entry(&mut self, ip: UserAddr, sp: UserAddr, argument: u64) {
        self.ip = ip.0;
        self.sp = sp.0;
        self.argument = argument;
    }
    fn read_register(&self, index: usize) -> u64 {
        [self.ip, self.sp, self.flags, self.tls, self.argument][index]
    }
    fn write_register(&mut self, index: usize, value: u64) {
        let place = match index {
            0 => &mut self.ip,
            1 => &mut self.sp,
            2 => &mut self.flags,
            3 => &mut self.tls,
            _ => &mut self.argument,
        };
        *place = if index == 2 { value & 0xff } else { value };
    }
}
