//! What a fault of the kind `Exception` was, in words: its `detail` is the CPU's own number
//! (`skink_abi::fault`).
//!
//! Pure tables of both architectures, tested on every host; [`exception_name`] is this machine's.

/// By vector (Intel SDM vol. 3, table 6-1).
pub const fn x86_64_name(vector: u64) -> Option<&'static str> {
    Some(match vector {
        0 => "division error",
        1 => "debug exception",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "undefined instruction",
        7 => "FPU instruction without FPU state",
        11 => "segment not present",
        12 => "stack-segment fault",
        13 => "general protection fault (privileged instruction or non-canonical address)",
        16 | 19 => "floating-point error",
        17 => "misaligned access",
        _ => return None,
    })
}

/// By exception class (Arm ARM DDI 0487 §D19.2.40, `ESR_EL1.EC`).
pub const fn aarch64_name(class: u64) -> Option<&'static str> {
    Some(match class {
        0x00 => "undefined instruction",
        0x01 => "trapped wait instruction",
        0x07 => "FPU instruction without FPU state",
        0x0e => "illegal execution state",
        0x16 | 0x17 => "call to a hypervisor or monitor",
        0x18 => "privileged instruction or system register",
        0x19 => "SVE instruction",
        0x1d => "SME instruction",
        0x20 | 0x24 => "external abort or misaligned access",
        0x22 => "misaligned instruction pointer",
        0x26 => "misaligned stack pointer",
        0x2c => "floating-point error",
        0x2f => "system error",
        0x30 => "breakpoint",
        0x32 => "single step",
        0x34 => "watchpoint",
        0x3c => "breakpoint instruction",
        _ => return None,
    })
}

/// The name of an exception of this machine (a host is taken for x86_64); `None` if it has none.
pub const fn exception_name(detail: u64) -> Option<&'static str> {
    if cfg!(target_arch = "aarch64") { aarch64_name(detail) } else { x86_64_name(detail) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_machines_call_the_same_thing_the_same() {
        for (vector, class) in [(6, 0x00), (7, 0x07), (16, 0x2c)] {
            assert_eq!(x86_64_name(vector), aarch64_name(class));
            assert!(x86_64_name(vector).is_some());
        }
        assert_eq!((x86_64_name(32), aarch64_name(0x3f)), (None, None));
    }
}
