//! The user register file of x86_64.
//!
//! The trap entries (`trap.rs`) save into it by offset. Its end is laid out as the CPU itself
//! pushes an interrupt's frame: the TSS points its ring-0 stack at the end of the current
//! thread's context, so that nothing is saved twice (Intel SDM vol. 3 §7.14.2).
//!
//! Invariants: while `entry` is [`ENTRY_SYSCALL`] the instruction pointer came from the
//! `syscall` instruction, which ran below [`super::paging::USER_TOP`], so `sysret` can never
//! load a non-canonical one (it would fault in ring 0 on a user's stack). Whoever writes a
//! register that `sysret` cannot restore turns the context into one that `iret` restores. The
//! flags never hold a privileged bit.

use core::mem::offset_of;

use skink_abi::MessageInfo;
use skink_abi::invocation::registers;

use crate::addr::UserAddr;
use crate::machine::UserContext;

/// Selector of user code.
pub const USER_CODE: u64 = 0x28 | 3;
/// Selector of user data.
pub const USER_DATA: u64 = 0x20 | 3;
/// [`Context::entry`] of a thread that entered by `syscall` and leaves by `sysret`.
pub const ENTRY_SYSCALL: u64 = 0x100;
/// [`Context::entry`] of a thread that never ran, or whose registers were written.
pub const ENTRY_RESTORED: u64 = 0x101;
/// Flags that users may set: CF PF AF ZF SF TF DF OF RF AC ID (Intel SDM vol. 1 §3.4.3).
pub const USER_FLAGS: u64 = 0x25_0dd5;
/// Flags that are always set for users: the reserved bit 1 and IF.
pub const FIXED_FLAGS: u64 = 0x202;
/// Bytes of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;
/// Bits of a user-half TLS base; loading a non-canonical one would fault in the kernel.
const TLS_MASK: u64 = 0x7fff_ffff_ffff;

/// General registers by their number in the ABI, from [`registers::GENERAL`] on.
pub mod general {
    #![allow(missing_docs)] // The registers' own names.
    pub const RAX: usize = 0;
    pub const RCX: usize = 2;
    pub const RDX: usize = 3;
    pub const RSI: usize = 4;
    pub const RDI: usize = 5;
    pub const RBP: usize = 6;
    pub const R8: usize = 7;
    pub const R9: usize = 8;
    pub const R10: usize = 9;
    pub const R11: usize = 10;
    pub const R12: usize = 11;
    pub const R13: usize = 12;
    /// How many there are.
    pub const COUNT: usize = 15;
}
use general::{COUNT, R8, R9, R10, R11, R12, R13, RAX, RCX, RDI, RDX, RSI};

/// Message registers.
const MESSAGE: [usize; 4] = [RDX, R8, R9, R10];

/// The registers, as the trap entries push them.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct Context {
    /// FS base, changed by the kernel only (`CR4.FSGSBASE` is off).
    pub tls: u64,
    reserved: u64,
    /// General registers, from the last to the first.
    pushed: [u64; COUNT],
    /// The vector by which the thread entered, or `ENTRY_…`: says how to leave.
    pub entry: u64,
    /// Error code of the exception, 0 where it has none.
    pub error: u64,
    /// Instruction pointer.
    pub rip: u64,
    cs: u64,
    /// Flags.
    pub rflags: u64,
    /// Stack pointer.
    pub rsp: u64,
    ss: u64,
}

impl Default for Context {
    fn default() -> Self {
        Context {
            tls: 0,
            reserved: 0,
            pushed: [0; COUNT],
            entry: ENTRY_RESTORED,
            error: 0,
            rip: 0,
            cs: USER_CODE,
            rflags: FIXED_FLAGS,
            rsp: 0,
            ss: USER_DATA,
        }
    }
}

impl Context {
    /// Offset of the general registers, last one first.
    pub const PUSHED: usize = offset_of!(Context, pushed);

    /// How far below the end of a context a general register is.
    pub const fn from_end(register: usize) -> usize {
        size_of::<Context>() - Context::PUSHED - 8 * (COUNT - 1 - register)
    }

    /// A general register as it was saved.
    #[inline(always)]
    pub fn general(&self, register: usize) -> u64 {
        self.pushed[COUNT - 1 - register]
    }

    #[inline(always)]
    fn set(&mut self, register: usize, value: u64) {
        self.pushed[COUNT - 1 - register] = value;
    }

    /// From now on `iret` restores all registers; `syscall` had put two of them elsewhere.
    fn leave_by_iret(&mut self) {
        if self.entry == ENTRY_SYSCALL {
            self.set(RCX, self.rip);
            self.set(R11, self.rflags);
        }
        self.entry = ENTRY_RESTORED;
    }
}

impl UserContext for Context {
    #[inline(always)]
    fn mr(&self, index: usize) -> u64 {
        self.general(MESSAGE[index & 3])
    }

    #[inline(always)]
    fn set_mr(&mut self, index: usize, value: u64) {
        self.set(MESSAGE[index & 3], value);
    }

    #[inline(always)]
    fn syscall(&self) -> u64 {
        self.general(RAX)
    }

    #[inline(always)]
    fn cptr(&self) -> u64 {
        self.general(RDI)
    }

    #[inline(always)]
    fn reply_cptr(&self) -> u64 {
        self.general(R12)
    }

    #[inline(always)]
    fn receive_cptr(&self) -> u64 {
        self.general(R13)
    }

    #[inline(always)]
    fn message_info(&self) -> MessageInfo {
        MessageInfo(self.general(RSI))
    }

    #[inline(always)]
    fn set_status(&mut self, status: u64) {
        self.set(RAX, status);
    }

    #[inline(always)]
    fn set_badge(&mut self, badge: u64) {
        self.set(RDI, badge);
    }

    #[inline(always)]
    fn set_message_info(&mut self, info: MessageInfo) {
        self.set(RSI, info.0);
    }

    #[inline(always)]
    fn ip(&self) -> u64 {
        self.rip
    }

    #[inline(always)]
    fn sp(&self) -> u64 {
        self.rsp
    }

    fn rewind_syscall(&mut self) {
        self.rip = self.rip.wrapping_sub(SYSCALL_BYTES);
    }

    fn set_entry(&mut self, ip: UserAddr, sp: UserAddr, argument: u64) {
        self.leave_by_iret();
        self.rip = ip.0;
        self.rsp = sp.0;
        self.set(RDI, argument);
    }

    const WORDS: usize = registers::X86_64_WORDS;

    fn read_register(&self, index: usize) -> u64 {
        let after_syscall = self.entry == ENTRY_SYSCALL;
        match index {
            registers::IP => self.rip,
            registers::SP => self.rsp,
            registers::FLAGS => self.rflags & USER_FLAGS | FIXED_FLAGS,
            registers::TLS => self.tls,
            _ => match index - registers::GENERAL {
                RCX if after_syscall => self.rip,
                R11 if after_syscall => self.rflags,
                register if register < COUNT => self.general(register),
                _ => 0,
            },
        }
    }

    fn write_register(&mut self, index: usize, value: u64) {
        match index {
            registers::SP => self.rsp = value,
            registers::TLS => self.tls = value & TLS_MASK,
            registers::IP => {
                self.leave_by_iret();
                self.rip = value;
            }
            registers::FLAGS => {
                self.leave_by_iret();
                self.rflags = value & USER_FLAGS | FIXED_FLAGS;
            }
            _ => {
                let register = index - registers::GENERAL;
                if matches!(register, RCX | R11) {
                    self.leave_by_iret();
                }
                if register < COUNT {
                    self.set(register, value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_syscall() -> Context {
        Context {
            entry: ENTRY_SYSCALL,
            rip: 0x40_1002,
            rflags: 0x246,
            pushed: [0xdead; COUNT],
            ..Context::default()
        }
    }

    #[test]
    fn message_registers_are_those_of_the_abi() {
        let mut context = Context::default();
        for index in 0..4 {
            context.set_mr(index, 10 + index as u64);
        }
        assert_eq!([RDX, R8, R9, R10].map(|r| context.general(r)), [10, 11, 12, 13]);
        assert_eq!([context.mr(0), context.mr(1), context.mr(2), context.mr(3)], [10, 11, 12, 13]);
    }

    #[test]
    fn every_register_reads_back_what_was_written() {
        let mut context = Context::default();
        for index in registers::GENERAL..Context::WORDS {
            context.write_register(index, 0xffff_0000_0000_0000 | index as u64);
        }
        for index in registers::GENERAL..Context::WORDS {
            assert_eq!(context.read_register(index), 0xffff_0000_0000_0000 | index as u64);
        }
        assert_eq!(context.general(RAX) & 0xff, registers::GENERAL as u64);
        assert_eq!(context.general(COUNT - 1) & 0xff, Context::WORDS as u64 - 1);
        assert_eq!(context.read_register(Context::WORDS), 0);
        context.write_register(Context::WORDS, 1); // Ignored.
    }

    #[test]
    fn flags_never_take_a_privileged_bit() {
        let mut context = Context::default();
        context.write_register(registers::FLAGS, u64::MAX);
        let privileged = 3 << 12 | 1 << 14 | 1 << 17 | 1 << 19 | 1 << 20; // IOPL NT VM VIF VIP
        assert_eq!(context.rflags & privileged, 0);
        context.write_register(registers::FLAGS, 0);
        assert_eq!(context.rflags, 0x202, "interrupts stay enabled");
    }

    #[test]
    fn after_a_system_call_rcx_and_r11_are_what_the_user_will_see() {
        let context = after_syscall();
        assert_eq!(context.read_register(registers::GENERAL + RCX), 0x40_1002);
        assert_eq!(context.read_register(registers::GENERAL + R11), 0x246);
    }

    #[test]
    fn whatever_sysret_cannot_restore_makes_iret_restore_all() {
        let [rcx, r11] = [RCX, R11].map(|register| registers::GENERAL + register);
        for index in [registers::IP, registers::FLAGS, rcx, r11] {
            let mut context = after_syscall();
            context.write_register(index, 0x1234_5678_9abc_def0);
            assert_ne!(context.entry, ENTRY_SYSCALL, "register {index}");
            if index != rcx {
                assert_eq!(context.general(RCX), 0x40_1002);
            }
            if index != r11 {
                assert_eq!(context.general(R11), 0x246);
            }
        }
        let mut context = after_syscall();
        context.set_entry(UserAddr(u64::MAX), UserAddr(0), 7);
        assert_eq!((context.entry, context.general(RDI)), (ENTRY_RESTORED, 7));
    }

    #[test]
    fn other_registers_leave_the_fast_exit_alone() {
        let mut context = after_syscall();
        context.write_register(registers::GENERAL, 1);
        context.write_register(registers::SP, 0x7000);
        assert_eq!((context.entry, context.general(RAX), context.rsp), (ENTRY_SYSCALL, 1, 0x7000));
    }

    #[test]
    fn a_rewound_call_is_at_its_instruction() {
        let mut context = after_syscall();
        context.rewind_syscall();
        assert_eq!(context.ip(), 0x40_1000);
    }

    #[test]
    fn a_tls_base_is_always_in_the_user_half() {
        let mut context = Context::default();
        context.write_register(registers::TLS, 0xffff_9000_0000_1000);
        assert_eq!(context.read_register(registers::TLS), 0x1000_0000_1000);
    }

    #[test]
    fn the_layout_is_what_the_cpu_pushes() {
        assert_eq!(core::mem::size_of::<Context>(), 192);
        assert_eq!(core::mem::offset_of!(Context, ss), 184);
        assert_eq!(core::mem::offset_of!(Context, rip), 192 - 40);
        assert_eq!(Context::from_end(RAX), 192 - core::mem::offset_of!(Context, entry) + 8);
        assert_eq!(Context::from_end(COUNT - 1), 192 - Context::PUSHED);
    }
}
