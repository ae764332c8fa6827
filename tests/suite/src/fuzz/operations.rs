//! The invocations as a table: on what, with which words and capabilities.

use skink_abi::Invocation;

/// What a capability stands for, as a thread believes: 0 for an empty slot; the object types of
/// Untyped follow in their order.
pub mod kind {
    pub const EMPTY: u8 = 0;
    pub const UNTYPED: u8 = 1;
    pub const CNODE: u8 = 2;
    pub const TCB: u8 = 3;
    pub const ENDPOINT: u8 = 4;
    pub const NOTIFICATION: u8 = 5;
    pub const REPLY: u8 = 6;
    pub const SCHED_CONTEXT: u8 = 7;
    pub const TIMER: u8 = 8;
    pub const VSPACE: u8 = 9;
    pub const PAGE_TABLE: u8 = 10;
    pub const FRAME: u8 = 11;
    pub const SCHED_CONTROL: u8 = 12;
    pub const IRQ_CONTROL: u8 = 13;
    pub const IRQ_HANDLER: u8 = 14;
    pub const PORT_CONTROL: u8 = 15;
    pub const PORT: u8 = 16;
    pub const ASID_CONTROL: u8 = 17;
    pub const ASID_POOL: u8 = 18;
    pub const LOG: u8 = 19;
    /// Something; nobody remembers what.
    pub const ANY: u8 = 20;
}

/// How a word of an invocation is made up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// This number.
    Is(u64),
    /// An object type.
    Type,
    /// A size that fits the object type before it.
    Size,
    /// How many objects.
    Count,
    /// A slot believed to be empty.
    Free,
    /// A slot believed to be full.
    Full,
    /// How many bits of an index count.
    Depth,
    Rights,
    /// A badge, or the guard of a CNode.
    Badge,
    /// The guard of a CSpace.
    Guard,
    Priority,
    /// A maximum controlled priority.
    Maximum,
    Address,
    MapRights,
    Memory,
    Budget,
    /// A period that fits the budget before it.
    Period,
    Deadline,
    Line,
    Trigger,
    Port,
    PortWidth,
    /// 0 or 1.
    Flag,
    /// Where a thread's code is to go on.
    Code,
}

/// One invocation.
pub struct Operation {
    pub call: Invocation,
    /// The kind of the capability that is invoked.
    pub on: u8,
    pub words: &'static [Word],
    /// The kinds of the capabilities that are sent along.
    pub caps: &'static [u8],
    /// How often, among all.
    pub weight: u16,
    /// Which result of [`Operation::makes`] kind lands where: nothing, or a slot (word number).
    pub makes: Option<(u8, usize)>,
}

const fn op(
    call: Invocation,
    on: u8,
    words: &'static [Word],
    caps: &'static [u8],
    weight: u16,
) -> Operation {
    Operation { call, on, words, caps, weight, makes: None }
}

const fn maker(
    call: Invocation,
    on: u8,
    words: &'static [Word],
    caps: &'static [u8],
    makes: (u8, usize),
) -> Operation {
    Operation { call, on, words, caps, weight: 4, makes: Some(makes) }
}

use Invocation as I;
use Word as W;
use kind as k;

/// All invocations but the end of the machine.
pub static OPERATIONS: &[Operation] = &[
    op(
        I::UntypedRetype,
        k::UNTYPED,
        &[W::Type, W::Size, W::Is(0), W::Is(0), W::Free, W::Count],
        &[k::CNODE],
        40,
    ),
    op(I::CNodeRevoke, k::CNODE, &[W::Full, W::Depth], &[], 12),
    op(I::CNodeDelete, k::CNODE, &[W::Full, W::Depth], &[], 16),
    op(I::CNodeCopy, k::CNODE, &[W::Free, W::Depth, W::Full, W::Depth, W::Rights], &[k::CNODE], 24),
    op(
        I::CNodeMint,
        k::CNODE,
        &[W::Free, W::Depth, W::Full, W::Depth, W::Rights, W::Badge],
        &[k::CNODE],
        16,
    ),
    op(I::CNodeMove, k::CNODE, &[W::Free, W::Depth, W::Full, W::Depth], &[k::CNODE], 12),
    op(I::CNodeMutate, k::CNODE, &[W::Free, W::Depth, W::Full, W::Depth, W::Badge], &[k::CNODE], 4),
    op(
        I::CNodeRotate,
        k::CNODE,
        &[W::Free, W::Depth, W::Full, W::Depth, W::Full, W::Depth],
        &[k::CNODE, k::CNODE],
        8,
    ),
    op(I::CNodeCancelBadgedSends, k::CNODE, &[W::Full, W::Depth], &[], 8),
    op(I::TcbReadRegisters, k::TCB, &[W::Flag, W::Count], &[], 4),
    op(I::TcbWriteRegisters, k::TCB, &[W::Flag, W::Flag, W::Code], &[], 12),
    op(I::TcbSetSpace, k::TCB, &[W::Guard], &[k::CNODE, k::VSPACE], 4),
    op(I::TcbSetIpcBuffer, k::TCB, &[W::Address], &[k::FRAME], 4),
    op(I::TcbSetPriority, k::TCB, &[W::Priority], &[k::TCB], 12),
    op(I::TcbSetMcPriority, k::TCB, &[W::Maximum], &[k::TCB], 4),
    op(
        I::TcbSetSchedParams,
        k::TCB,
        &[W::Maximum, W::Priority],
        &[k::TCB, k::ENDPOINT, k::SCHED_CONTEXT],
        8,
    ),
    op(I::TcbSetFaultEndpoint, k::TCB, &[], &[k::ENDPOINT], 8),
    op(I::TcbSetTimeoutEndpoint, k::TCB, &[], &[k::ENDPOINT], 8),
    op(I::TcbSuspend, k::TCB, &[], &[], 3),
    op(I::TcbResume, k::TCB, &[], &[], 24),
    op(I::TcbBindNotification, k::TCB, &[], &[k::NOTIFICATION], 8),
    op(I::TcbUnbindNotification, k::TCB, &[], &[], 6),
    op(I::TcbSetFlags, k::TCB, &[W::Flag, W::Flag], &[], 4),
    op(I::TcbSetTlsBase, k::TCB, &[W::Address], &[], 4),
    op(
        I::SchedControlConfigure,
        k::SCHED_CONTROL,
        &[W::Budget, W::Period, W::Badge],
        &[k::SCHED_CONTEXT],
        16,
    ),
    op(I::SchedContextBind, k::SCHED_CONTEXT, &[], &[k::TCB], 10),
    op(I::SchedContextBind, k::SCHED_CONTEXT, &[], &[k::NOTIFICATION], 8),
    op(I::SchedContextUnbindObject, k::SCHED_CONTEXT, &[], &[k::TCB], 4),
    op(I::SchedContextUnbindObject, k::SCHED_CONTEXT, &[], &[k::NOTIFICATION], 4),
    op(I::SchedContextUnbind, k::SCHED_CONTEXT, &[], &[], 3),
    op(I::SchedContextConsumed, k::SCHED_CONTEXT, &[], &[], 12),
    op(I::PageTableMap, k::PAGE_TABLE, &[W::Address], &[k::VSPACE], 12),
    op(I::PageTableUnmap, k::PAGE_TABLE, &[], &[], 4),
    op(I::FrameMap, k::FRAME, &[W::Address, W::MapRights, W::Memory], &[k::VSPACE], 24),
    op(I::FrameUnmap, k::FRAME, &[], &[], 8),
    op(I::FrameGetAddress, k::FRAME, &[], &[], 2),
    maker(
        I::AsidControlMakePool,
        k::ASID_CONTROL,
        &[W::Free, W::Depth],
        &[k::UNTYPED, k::CNODE],
        (k::ASID_POOL, 0),
    ),
    op(I::AsidPoolAssign, k::ASID_POOL, &[], &[k::VSPACE], 10),
    maker(
        I::IrqControlGet,
        k::IRQ_CONTROL,
        &[W::Line, W::Trigger, W::Free, W::Depth],
        &[k::CNODE],
        (k::IRQ_HANDLER, 2),
    ),
    maker(
        I::IrqControlGetMsi,
        k::IRQ_CONTROL,
        &[W::Free, W::Depth],
        &[k::CNODE],
        (k::IRQ_HANDLER, 0),
    ),
    op(I::IrqHandlerAck, k::IRQ_HANDLER, &[], &[], 4),
    op(I::IrqHandlerSetNotification, k::IRQ_HANDLER, &[], &[k::NOTIFICATION], 4),
    op(I::IrqHandlerClear, k::IRQ_HANDLER, &[], &[], 3),
    op(I::IrqHandlerCount, k::IRQ_HANDLER, &[], &[], 2),
    maker(
        I::IoPortControlIssue,
        k::PORT_CONTROL,
        &[W::Port, W::Port, W::Free, W::Depth],
        &[k::CNODE],
        (k::PORT, 2),
    ),
    op(I::IoPortIn, k::PORT, &[W::Port, W::PortWidth], &[], 4),
    op(I::IoPortOut, k::PORT, &[W::Port, W::PortWidth, W::Flag], &[], 4),
    op(I::TimerArm, k::TIMER, &[W::Deadline], &[], 24),
    op(I::TimerCancel, k::TIMER, &[], &[], 3),
    op(I::TimerSetNotification, k::TIMER, &[], &[k::NOTIFICATION], 10),
    op(I::LogStatistics, k::LOG, &[], &[], 2),
];

/// The sum of all weights.
pub const fn total_weight() -> u64 {
    let (mut sum, mut index) = (0, 0);
    while index < OPERATIONS.len() {
        sum += OPERATIONS[index].weight as u64;
        index += 1;
    }
    sum
}
