//! How much heap the shell's commands take of what a disk holds. Its heap is 2 MiB (`system.toml`), which
//! six threads share, so each may take a sixth of it, whatever is on the disk.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write;

use shell::entry::{self, MAX_ENTRY};
use shell::format;
use shell::listing::Entries;
use skink_protocols::file::{Kind, Metadata};

/// Bytes that one command may take.
const SHARE: usize = (2 << 20) / 6;

thread_local! {
    /// Bytes that this thread has, and the most that it had since the last [`peak`] began.
    static NOW: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

/// The system's allocator, with a count.
struct Counting;

impl Counting {
    fn grow(bytes: usize) {
        // At its end a thread has no counts any more.
        let _ = NOW.try_with(|now| now.set(now.get() + bytes));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(NOW.get())));
    }

    fn shrink(bytes: usize) {
        let _ = NOW.try_with(|now| now.set(now.get().saturating_sub(bytes)));
    }
}

// SAFETY: every call is handed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Counting::grow(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        Counting::shrink(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As where it has to move: for a moment both are there.
        Counting::grow(size);
        // SAFETY: as the caller promises.
        let moved = unsafe { System.realloc(place, layout, size) };
        Counting::shrink(layout.size());
        moved
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Takes text, and keeps nothing but its length.
#[derive(Default)]
struct Length(usize);

impl Write for Length {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}

/// The most heap that `work` had at once, bytes.
fn peak(work: impl FnOnce()) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    work();
    PEAK.get() - before
}

#[test]
fn an_entry_takes_no_more_than_a_threads_share_of_the_heap() {
    let fill = |head: &str, piece: &str, tail: &str| {
        let count = (MAX_ENTRY as usize - head.len() - tail.len()) / piece.len();
        format!("{head}{}{tail}", piece.repeat(count))
    };
    let lines = |line: &dyn Fn(usize) -> String| {
        let all: String = (0..2000).map(line).collect();
        let end = all[..MAX_ENTRY as usize].rfind('\n').unwrap();
        all[..end].to_string()
    };
    let texts = [
        fill("a=[", "1,", "]"),
        fill("a=[", "[],", "]"),
        fill("a=[", "{},", "]"),
        fill("a=[", "[{a.a.a.a=1}],", "]"),
        fill("a=[", "{a.a.a.a=1},", "]"),
        fill("a=[", "{a={a=1}},", "]"),
        fill("a=[", "{a.b.c.d=1,b.b.c.d=1},", "]"),
        fill("a=[", "'',", "]"),
        fill("a=\"", "x", "\""),
        fill("a=\"", "\\u00e4", "\""),
        fill("needs=[", "{name='a',server='b',protocol='c'},", "]"),
        fill("", "]", ""),
        fill("", "=\n", ""),
        fill("", "\\", ""),
        fill("", "\"\n", ""),
        fill("", "#\n", ""),
        fill("", "[[a]]\n", ""),
        fill("", "[[a]]\nb.a.a=1\n", ""),
        lines(&|i| format!("{i:x}=1\n")),
        lines(&|i| format!("[{i:x}.a]\n")),
        lines(&|i| format!("{i:x}={{a=1}}\n")),
        lines(&|i| format!("{i:x}.a.a.a=1\n")),
    ];
    for text in texts {
        let taken = peak(|| drop(entry::parse("/disk/x", &text)));
        assert!(taken < SHARE, "{} KiB for {}", taken >> 10, &text[..text.len().min(40)]);
    }
}

#[test]
fn a_listing_takes_no_more_than_a_threads_share_of_the_heap() {
    let metadata = Metadata { kind: Kind::File, size: 7, is_read_only: false, modified: None };
    for name in ["\u{200b}".repeat(255), "a".into(), "\u{1}".repeat(8)] {
        for is_long in [false, true] {
            let mut shown = Length::default();
            let taken = peak(|| {
                let mut entries = Entries::new();
                while !entries.is_full() {
                    entries.push(&name, metadata);
                }
                entries.show(is_long, &mut shown).unwrap();
            });
            assert!(taken < SHARE, "{} KiB, {} shown of {name:?}", taken >> 10, shown.0);
        }
    }
}

#[test]
fn a_hex_dump_takes_no_more_than_a_threads_share_of_the_heap() {
    let bytes = vec![b'x'; 256 << 10];
    let mut shown = Length::default();
    let taken = peak(|| format::hexdump(0, &bytes, &mut shown).unwrap());
    assert_eq!(shown.0, bytes.len() / 16 * 79);
    assert!(taken + bytes.len() < SHARE, "{} KiB", taken >> 10);
}
