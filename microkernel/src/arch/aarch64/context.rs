//! The user register file of aarch64.
//!
//! The trap entries (`trap.rs`) save into it by offset: `SP_EL1` is its address while a thread
//! runs. System calls, faults and interrupts save and restore the same registers.
//!
//! Invariant: the saved program status names EL0 with interrupts on, whatever was written.

use skink_abi::MessageInfo;
use skink_abi::invocation::registers;

use crate::addr::UserAddr;
use crate::machine::UserContext;

/// Condition flags of the program status (Arm ARM DDI 0487 §C5.2.18): all that users set.
const USER_FLAGS: u64 = 0xf000_0000;
/// Bytes of the `svc` instruction.
const SYSCALL_BYTES: u64 = 4;
/// `x0` to `x30`.
const GENERAL: usize = 31;

/// The registers.
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub struct Context {
    /// `x0` to `x30`.
    pub x: [u64; GENERAL],
    /// Stack pointer (`SP_EL0`).
    pub sp: u64,
    /// Instruction pointer (`ELR_EL1`).
    pub ip: u64,
    /// Program status (`SPSR_EL1`).
    pub status: u64,
    /// Thread pointer (`TPIDR_EL0`).
    pub tls: u64,
    reserved: u64,
}

impl Context {
    /// All registers 0.
    pub const EMPTY: Context =
        Context { x: [0; GENERAL], sp: 0, ip: 0, status: 0, tls: 0, reserved: 0 };
}

impl UserContext for Context {
    #[inline(always)]
    fn mr(&self, index: usize) -> u64 {
        self.x[2 + (index & 3)]
    }

    #[inline(always)]
    fn set_mr(&mut self, index: usize, value: u64) {
        self.x[2 + (index & 3)] = value;
    }

    #[inline(always)]
    fn syscall(&self) -> u64 {
        self.x[7]
    }

    #[inline(always)]
    fn cptr(&self) -> u64 {
        self.x[0]
    }

    #[inline(always)]
    fn reply_cptr(&self) -> u64 {
        self.x[6]
    }

    #[inline(always)]
    fn receive_cptr(&self) -> u64 {
        self.x[8]
    }

    #[inline(always)]
    fn message_info(&self) -> MessageInfo {
        MessageInfo(self.x[1])
    }

    #[inline(always)]
    fn set_status(&mut self, status: u64) {
        self.x[7] = status;
    }

    #[inline(always)]
    fn set_badge(&mut self, badge: u64) {
        self.x[0] = badge;
    }

    #[inline(always)]
    fn set_message_info(&mut self, info: MessageInfo) {
        self.x[1] = info.0;
    }

    #[inline(always)]
    fn ip(&self) -> u64 {
        self.ip
    }

    #[inline(always)]
    fn sp(&self) -> u64 {
        self.sp
    }

    fn rewind_syscall(&mut self) {
        self.ip = self.ip.wrapping_sub(SYSCALL_BYTES);
    }

    fn set_entry(&mut self, ip: UserAddr, sp: UserAddr, argument: u64) {
        self.ip = ip.0;
        self.sp = sp.0;
        self.x[0] = argument;
    }

    const WORDS: usize = registers::AARCH64_WORDS;

    fn read_register(&self, index: usize) -> u64 {
        match index {
            registers::IP => self.ip,
            registers::SP => self.sp,
            registers::FLAGS => self.status,
            registers::TLS => self.tls,
            _ => self.x.get(index - registers::GENERAL).copied().unwrap_or(0),
        }
    }

    fn write_register(&mut self, index: usize, value: u64) {
        match index {
            registers::IP => self.ip = value,
            registers::SP => self.sp = value,
            registers::FLAGS => self.status = value & USER_FLAGS,
            registers::TLS => self.tls = value,
            _ => {
                if let Some(register) = self.x.get_mut(index - registers::GENERAL) {
                    *register = value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_registers_are_those_of_the_abi() {
        let mut context = Context::default();
        for index in 0..4 {
            context.set_mr(index, 10 + index as u64);
        }
        assert_eq!(context.x[2..6], [10, 11, 12, 13]);
        assert_eq!((context.mr(0), context.mr(3)), (10, 13));
        context.set_status(7);
        context.set_badge(8);
        context.set_message_info(MessageInfo(9));
        assert_eq!((context.x[7], context.x[0], context.x[1]), (7, 8, 9));
    }

    #[test]
    fn every_register_reads_back_what_was_written() {
        let mut context = Context::default();
        for index in registers::GENERAL..Context::WORDS {
            context.write_register(index, 0xffff_0000_0000_0000 | index as u64);
        }
        for index in registers::GENERAL..Context::WORDS {
            let value = 0xffff_0000_0000_0000 | index as u64;
            assert_eq!(context.read_register(index), value);
        }
        assert_eq!(context.x[30] & 0xff, Context::WORDS as u64 - 1);
        assert_eq!(context.read_register(Context::WORDS), 0);
        context.write_register(Context::WORDS, 1); // Ignored.
    }

    #[test]
    fn the_status_never_takes_a_privileged_bit() {
        let mut context = Context::default();
        context.write_register(registers::FLAGS, u64::MAX);
        assert_eq!(context.status, USER_FLAGS, "EL0, interrupts on");
    }

    #[test]
    fn a_rewound_call_is_at_its_instruction() {
        let mut context = Context { ip: 0x40_1004, ..Context::default() };
        context.rewind_syscall();
        assert_eq!(context.ip(), 0x40_1000);
    }

    #[test]
    fn the_size_keeps_the_stack_pointer_aligned() {
        assert_eq!(core::mem::size_of::<Context>(), 288);
        assert_eq!(core::mem::offset_of!(Context, sp), 248);
    }
}
