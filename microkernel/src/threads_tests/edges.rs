//! Numbers at the edges of their types: whatever a user puts into a word, the kernel answers. The
//! tests run with overflow checks, so that an addition, a shift or a difference that a user can
//! drive out of its type fails here.

use super::*;

/// Where numbers of 5, 6, 8, 9, 12, 16, 32, 48 and 64 bits end, as sizes, depths and addresses do.
const EDGES: [u64; 24] = [
    0,
    1,
    2,
    12,
    31,
    63,
    64,
    65,
    255,
    256,
    0x1ff,
    0xfff,
    0x1000,
    0xffff,
    0x1_0000,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    (1 << 47) - 0x1000,
    1 << 47,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Some of them.
const COARSE: [u64; 6] = [0, 1, 64, 1 << 32, 1 << 63, u64::MAX];

/// A slot that is empty.
const FREE_SLOT: u64 = 500;

/// A world with an object of every kind.
struct Everything {
    w: World,
    thread: Thread,
    other: Thread,
    endpoint: u64,
    notification: u64,
    frame: u64,
    /// An address space without identifier, and an Untyped of one page.
    new: [u64; 2],
    /// Capabilities of every kind.
    kinds: Vec<u64>,
    /// What they were.
    before: Vec<Cap>,
}

impl Everything {
    fn new() -> Everything {
        let mut w = World::new();
        let asid_control = w.free();
        let slot = w.slot(asid_control);
        insert_root(&mut w.kernel, slot, Cap::AsidControl);
        let page = w.free();
        let words = [ObjectType::Untyped.raw(), 12, 0, 0, page, 1];
        w.invoke(UNTYPED, Invocation::UntypedRetype, &words, &[NODE]);
        let (thread, other) = (w.thread(10), w.thread(9));
        let [endpoint, notification, reply, timer, table, frame, space] = [
            ObjectType::Endpoint,
            ObjectType::Notification,
            ObjectType::Reply,
            ObjectType::Timer,
            ObjectType::PageTable,
            ObjectType::Frame,
            ObjectType::VSpace,
        ]
        .map(|kind| w.make(kind));
        let (line, ports) = (w.free(), w.free());
        w.invoke(IRQ_CONTROL, Invocation::IrqControlGet, &[3, 0, line, WHOLE], &[NODE]);
        let issue = [0xfff0, 0xffff, ports, WHOLE];
        w.invoke(PORT_CONTROL, Invocation::IoPortControlIssue, &issue, &[NODE]);
        let made = [endpoint, notification, reply, timer, table, frame, line, ports, asid_control];
        let given = [NODE, UNTYPED, ASID_POOL, IRQ_CONTROL, PORT_CONTROL, SCHED_CONTROL, LOG];
        let threads = [other.cap, thread.cap, other.sc, thread.sc, other.space, MACHINE_CONTROL];
        let kinds = [&made[..], &given, &threads].concat();
        let new = [space, page];
        let before = Vec::new();
        let mut all =
            Everything { w, thread, other, endpoint, notification, frame, new, kinds, before };
        all.before = all.held();
        all
    }

    /// What the slots hold.
    fn held(&self) -> Vec<Cap> {
        self.kinds.iter().chain(&[FREE_SLOT]).map(|index| self.w.cap(*index)).collect()
    }

    /// Itself if its capabilities are what they were, else a new one.
    fn renewed(self) -> Everything {
        if self.held() == self.before { self } else { Everything::new() }
    }

    /// The capabilities that an invocation takes.
    fn sent(&self, invocation: Invocation) -> Vec<u64> {
        use Invocation as I;
        let [new_space, page] = self.new;
        match invocation {
            I::TcbSetSpace => [NODE, self.thread.space].into(),
            I::TcbSetIpcBuffer => [self.frame].into(),
            I::TcbSetPriority | I::TcbSetMcPriority => [self.thread.cap].into(),
            I::TcbSetSchedParams => [self.thread.cap, self.endpoint].into(),
            I::TcbSetFaultEndpoint | I::TcbSetTimeoutEndpoint => [self.endpoint].into(),
            I::SchedControlConfigure => [self.other.sc].into(),
            I::SchedContextBind | I::SchedContextUnbindObject => [self.other.cap].into(),
            I::PageTableMap | I::FrameMap => [self.thread.space].into(),
            I::AsidControlMakePool => [page, NODE].into(),
            I::AsidPoolAssign => [new_space].into(),
            I::TcbBindNotification | I::IrqHandlerSetNotification | I::TimerSetNotification => {
                [self.notification].into()
            }
            _ => [NODE, NODE].into(),
        }
    }
}

/// Words with which an invocation gets far, to put edges among.
fn usual_words(invocation: Invocation) -> Vec<[u64; 8]> {
    match invocation {
        Invocation::UntypedRetype => {
            let sized = |kind: &ObjectType| [kind.raw(), 12, 0, 0, FREE_SLOT, 2, 0, 0];
            ObjectType::ALL.iter().map(sized).collect()
        }
        Invocation::IrqControlGet => [[4, 0, FREE_SLOT, WHOLE, 0, 0, 0, 0]].into(),
        Invocation::IoPortControlIssue => [[1, 9, FREE_SLOT, WHOLE, 0, 0, 0, 0]].into(),
        Invocation::IoPortIn | Invocation::IoPortOut => [[0xfff8, 4, 7, 0, 0, 0, 0, 0]].into(),
        Invocation::FrameMap => [[0x4000_0000, 3, 0, 0, 0, 0, 0, 0]].into(),
        Invocation::SchedControlConfigure => [[1 << 20, 1 << 30, 0, 0, 0, 0, 0, 0]].into(),
        _ => [[FREE_SLOT, WHOLE, NODE, WHOLE, ALL, 1, 0, 0], [0; 8], [1; 8]].into(),
    }
}

/// `base` with each edge in each place, and with each two coarse edges in places that follow each
/// other, as a first number and a count do.
fn variants<const N: usize>(base: [u64; N], places: usize) -> impl Iterator<Item = [u64; N]> {
    let with = move |changes: &[(usize, u64)]| {
        let mut words = base;
        changes.iter().for_each(|(place, value)| words[*place] = *value);
        words
    };
    let single = (0..places).flat_map(move |at| EDGES.map(|value| with(&[(at, value)])));
    let double = (1..places).flat_map(move |at| {
        COARSE.iter().flat_map(move |one| COARSE.map(|two| with(&[(at - 1, *one), (at, two)])))
    });
    single.chain(double)
}

#[test]
fn every_invocation_answers_whatever_its_words_say() {
    let mut everything = Everything::new();
    let (kinds, mut done) = (everything.kinds.clone(), 0);
    for (kind, &what) in kinds.iter().flat_map(|k| Invocation::ALL.iter().map(move |i| (*k, i))) {
        let is_end = |words: &[u64]| what == Invocation::MachineControlExit && words[0] < 128;
        for base in usual_words(what) {
            let words = core::iter::once(base).chain(variants(base, 6));
            for (index, words) in words.enumerate().filter(|(_, words)| !is_end(words)) {
                let caps = everything.sent(what);
                let outcome = everything.w.try_invoke(kind, what, &words, &caps);
                done += 1;
                match outcome {
                    // What was set has its effect; then the next begins as this one did.
                    Ok(_) => {
                        everything.w.pass(3 * SLICE_NS);
                        everything = everything.renewed();
                    }
                    // Another kind's: so it says whatever the words are.
                    Err(Failure::Error(Error::IllegalOperation, _)) if index == 0 => break,
                    Err(_) => {}
                }
            }
        }
    }
    assert!(done > 10_000, "{done}");
}

#[test]
fn every_system_call_answers_whatever_its_registers_say() {
    for &number in Syscall::ALL {
        let mut everything = Everything::new();
        for words in variants([everything.endpoint, 1 << 12 | 3 << 9 | 8, 0, 9, 0], 5) {
            let Everything { w, thread, .. } = &mut everything;
            w.focus(*thread);
            thread.tcb.regs(|regs| {
                regs.syscall = number.raw();
                [regs.cptr, regs.reply, regs.receive] = [words[0], words[2], words[3]];
                regs.info = MessageInfo(words[1]);
                regs.mr = [words[4]; 4];
            });
            w.trap_syscall();
            if !w.is_current(*thread) {
                w.suspend(*thread);
                w.resume(*thread);
            }
            everything = everything.renewed();
        }
    }
}
