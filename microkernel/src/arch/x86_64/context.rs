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
const USER_FLAGS: u64 = 0x25_0dd5;
/// Flags that are always set for users: the reserved bit 1 and IF.
const FIXED_FLAGS: u64 = 0x202;
/// Bytes of the `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;
/// Bits of a user-half TLS base; loading a non-canonical one would fault in the kernel.
const TLS_MASK: u64 = 0x7fff_ffff_ffff;

/// The registers, in the order in which the trap entries push them (last pushed first).
#[allow(missing_docs)] // The registers' own names.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct Context {
    /// FS base, changed by the kernel only (`CR4.FSGSBASE` is off).
    pub tls: u64,
    reserved: u64,
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rbp: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rbx: u64,
    pub rax: u64,
    /// The vector by which the thread entered, or `ENTRY_…`: says how to leave.
    pub entry: u64,
    /// Error code of the exception, 0 where it has none.
    pub error: u64,
    pub rip: u64,
    cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    ss: u64,
}

/// General registers in the order of [`registers::GENERAL`].
const GENERAL: usize = 15;
const RCX: usize = registers::GENERAL + 2;
const R11: usize = registers::GENERAL + 10;

impl Default for Context {
    fn default() -> Self {
        Context {
            tls: 0,
            reserved: 0,
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            r11: 0,
            r10: 0,
            r9: 0,
            r8: 0,
            rbp: 0,
            rdi: 0,
            rsi: 0,
            rdx: 0,
            rcx: 0,
            rbx: 0,
            rax: 0,
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
    /// From now on `iret` restores all registers; `syscall` had put two of them elsewhere.
    fn leave_by_iret(&mut self) {
        if self.entry == ENTRY_SYSCALL {
            self.rcx = self.rip;
            self.r11 = self.rflags;
        }
        self.entry = ENTRY_RESTORED;
    }

    fn general(&mut self, index: usize) -> Option<&mut u64> {
        let all: [&mut u64; GENERAL] = [
            &mut self.rax,
            &mut self.rbx,
            &mut self.rcx,
            &mut self.rdx,
            &mut self.rsi,
            &mut self.rdi,
            &mut self.rbp,
            &mut self.r8,
            &mut self.r9,
            &mut self.r10,
            &mut self.r11,
            &mut self.r12,
            &mut self.r13,
            &mut self.r14,
            &mut self.r15,
        ];
        all.into_iter().nth(index.wrapping_sub(registers::GENERAL))
    }
}

impl UserContext for Context {
    #[inline(always)]
    fn mr(&self, index: usize) -> u64 {
        match index {
            0 => self.rdx,
            1 => self.r8,
            2 => self.r9,
            _ => self.r10,
        }
    }

    #[inline(always)]
    fn set_mr(&mut self, index: usize, value: u64) {
        match index {
            0 => self.rdx = value,
            1 => self.r8 = value,
            2 => self.r9 = value,
            _ => self.r10 = value,
        }
    }

    #[inline(always)]
    fn syscall(&self) -> u64 {
        self.rax
    }

    #[inline(always)]
    fn cptr(&self) -> u64 {
        self.rdi
    }

    #[inline(always)]
    fn reply_cptr(&self) -> u64 {
        self.r12
    }

    #[inline(always)]
    fn receive_cptr(&self) -> u64 {
        self.r13
    }

    #[inline(always)]
    fn message_info(&self) -> MessageInfo {
        MessageInfo(self.rsi)
    }

    #[inline(always)]
    fn set_status(&mut self, status: u64) {
        self.rax = status;
    }

    #[inline(always)]
    fn set_badge(&mut self, badge: u64) {
        self.rdi = badge;
    }

    #[inline(always)]
    fn set_message_info(&mut self, info: MessageInfo) {
        self.rsi = info.0;
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

    fn skip_syscall(&mut self) {
        self.rip = self.rip.wrapping_add(SYSCALL_BYTES);
    }

    fn set_entry(&mut self, ip: UserAddr, sp: UserAddr, argument: u64) {
        self.leave_by_iret();
        self.rip = ip.0;
        self.rsp = sp.0;
        self.rdi = argument;
    }

    const WORDS: usize = registers::X86_64_WORDS;

    fn read_register(&self, index: usize) -> u64 {
        let after_syscall = self.entry == ENTRY_SYSCALL;
        match index {
            registers::IP => self.rip,
            registers::SP => self.rsp,
            registers::FLAGS => self.rflags,
            registers::TLS => self.tls,
            RCX if after_syscall => self.rip,
            R11 if after_syscall => self.rflags,
            _ => self.clone().general(index).map_or(0, |register| *register),
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
                if index == RCX || index == R11 {
                    self.leave_by_iret();
                }
                if let Some(register) = self.general(index) {
                    *register = value;
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
            rcx: 0xdead,
            r11: 0xbeef,
            ..Context::default()
        }
    }

    #[test]
    fn message_registers_are_those_of_the_abi() {
        let mut context = Context::default();
        for index in 0..4 {
            context.set_mr(index, 10 + index as u64);
        }
        assert_eq!([context.rdx, context.r8, context.r9, context.r10], [10, 11, 12, 13]);
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
        assert_eq!(context.rax & 0xff, registers::GENERAL as u64);
        assert_eq!(context.r15 & 0xff, Context::WORDS as u64 - 1);
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
        assert_eq!(context.read_register(RCX), 0x40_1002);
        assert_eq!(context.read_register(R11), 0x246);
    }

    #[test]
    fn whatever_sysret_cannot_restore_makes_iret_restore_all() {
        for index in [registers::IP, registers::FLAGS, RCX, R11] {
            let mut context = after_syscall();
            context.write_register(index, 0x1234_5678_9abc_def0);
            assert_ne!(context.entry, ENTRY_SYSCALL, "register {index}");
            if index != RCX {
                assert_eq!(context.rcx, 0x40_1002);
            }
            if index != R11 {
                assert_eq!(context.r11, 0x246);
            }
        }
        let mut context = after_syscall();
        context.set_entry(UserAddr(u64::MAX), UserAddr(0), 7);
        assert_eq!((context.entry, context.rdi), (ENTRY_RESTORED, 7));
    }

    #[test]
    fn other_registers_leave_the_fast_exit_alone() {
        let mut context = after_syscall();
        context.write_register(registers::GENERAL, 1);
        context.write_register(registers::SP, 0x7000);
        assert_eq!((context.entry, context.rax, context.rsp), (ENTRY_SYSCALL, 1, 0x7000));
    }

    #[test]
    fn a_rewound_call_is_at_its_instruction_and_skips_back() {
        let mut context = after_syscall();
        context.rewind_syscall();
        assert_eq!(context.ip(), 0x40_1000);
        context.skip_syscall();
        assert_eq!(context.ip(), 0x40_1002);
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
    }
}
