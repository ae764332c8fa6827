//! What each row of `bench` has in it, in a sentence.

/// What is counted or timed in the row with this ID and unit.
pub fn of(id: &str, unit: &str) -> &'static str {
    let is_counted = unit == "instructions";
    match id {
        "boot.prompt" if is_counted => {
            "kernel, root server and servers from the first instruction until the shell listens; no \
             idle time"
        }
        "boot.prompt" => "from QEMU's start until the shell listens, QEMU's own start included",
        "hello.add" => "a typed call in registers and its answer, from stub to stub",
        "fs.read.4k" => {
            "a read of 4 KiB that no cache has, in shell, fs, driver and kernel: the least of a \
             hundred; not the device's work, nor the wait for it"
        }
        "fs.read.seq" => "64 MiB of a file in reads of 64 KiB, cold, the device's work included",
        "fs.read.rand4k" => "reads of 4 KiB at random places of a file, one after the other",
        "fs.write.seq" => "16 MiB written to a new file in pieces of 64 KiB, and `sync`",
        "restart.virtio-blk" if is_counted => {
            "from the order to kill to the answer of the next read of 4 KiB; not the device's work, \
             nor the wait for it"
        }
        "restart.virtio-blk" => "from the order to kill to the answer of the next read of 4 KiB",
        "death.wake" => {
            "from the fault of a server with a call in flight until its caller is woken"
        }
        "restart.virtio-blk.reconnect-and-device" => {
            "from the new driver's readiness to its first answer, the device's work and the wait for \
             it included"
        }
        _ if id.starts_with("restart.virtio-blk.") => {
            "a part of the restart, in which the root server or the new driver alone runs"
        }
        _ if id.starts_with("ipc.") => "one exchange of messages between two threads, both ways",
        _ if id.starts_with("ntfn.") => "one operation of a notification",
        _ if id.starts_with("sched.") => "one operation of the scheduler",
        _ => "as the test says that prints it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_what_it_contains() {
        let nothing = of("unknown", "");
        for (id, _) in super::super::SHELL_ROWS {
            for unit in ["instructions", "ms"] {
                assert_ne!(of(id, unit), nothing, "{id}");
            }
        }
        assert_ne!(of("boot.prompt", "ms"), of("boot.prompt", "instructions"));
        assert_ne!(of("ipc.call.w0.cross", "instructions"), nothing);
        assert_ne!(of("restart.virtio-blk.build", "instructions"), nothing);
    }
}
