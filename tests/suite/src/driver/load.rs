//! A process's memory: frames and paging structures, and the suite's own image in it.

use libipc::cap::{self, Cap};
use skink_abi::bootimage::{Header, Segment as ImageSegment};
use skink_abi::invocation::{MemoryType, map_rights};
use skink_abi::{CapRights, Error, ObjectType};

use super::{Driver, Process, SCRATCH, own_cnode, own_path};
use crate::env::{Segment, slot};

impl Driver {
    /// Maps a frame into a process, with the paging structures that it takes.
    pub(super) fn map(
        &self,
        process: &mut Process,
        pool: Cap<cap::Untyped>,
        vspace: u64,
        frame: u64,
        vaddr: u64,
        rights: u64,
    ) {
        let (vspace, frame) = (Cap::from_slot(vspace), Cap::<cap::Frame>::from_slot(frame));
        while let Err(error) = frame.map(vspace, vaddr, rights, MemoryType::Normal) {
            assert_eq!(error.error, Error::MissingPageTable, "map {vaddr:#x}");
            let table = process.next;
            process.next += 1;
            pool.retype(ObjectType::PageTable, 0, own_cnode(), table, 1)
                .expect("a paging structure");
            Cap::<cap::PageTable>::from_slot(table).map(vspace, vaddr).expect("map a structure");
        }
    }

    /// Fills a frame through the scratch address.
    pub(super) fn fill(&self, frame: u64, write: impl FnOnce(&mut [u8])) {
        let frame: Cap<cap::Frame> = Cap::from_slot(frame);
        let rights = map_rights::READ | map_rights::WRITE;
        frame.map(self.vspace(), SCRATCH, rights, MemoryType::Normal).expect("map scratch");
        // SAFETY: the frame was just mapped there, writable, one page.
        write(unsafe { core::slice::from_raw_parts_mut(SCRATCH as *mut u8, 4096) });
        frame.unmap().expect("unmap scratch");
    }

    /// Loads the suite's image into a process: read-only pages shared, writable ones fresh from
    /// the boot image. The frames are also put into the test's CNode.
    pub(super) fn load(
        &self,
        process: &mut Process,
        pool: Cap<cap::Untyped>,
        vspace: u64,
        cnode: u64,
    ) -> ([Segment; 8], usize) {
        let image = self.image();
        let header = Header::parse(image).expect("a boot image");
        let empty = Segment { vaddr: 0, pages: 0, rights: 0, first_slot: 0 };
        let mut segments = [empty; 8];
        let (mut own_frame, mut test_slot) = (self.info.root_image.first_slot, slot::IMAGE);
        for index in 0..header.segment_count {
            let segment = header.segment(image, index).expect("a segment");
            let pages = segment.mem_size.div_ceil(4096);
            segments[index as usize] = Segment {
                vaddr: segment.vaddr,
                pages,
                rights: segment.rights,
                first_slot: test_slot,
            };
            for page in 0..pages {
                let frame = process.next;
                process.next += 1;
                if segment.rights & map_rights::WRITE == 0 {
                    own_path(frame)
                        .copy(own_path(own_frame), CapRights::all())
                        .expect("share a page");
                } else {
                    pool.retype(ObjectType::Frame, 12, own_cnode(), frame, 1).expect("a page");
                    self.fill(frame, |bytes| copy_page(image, &segment, page, bytes));
                }
                self.grant(cnode, &[(test_slot, frame)]);
                self.map(
                    process,
                    pool,
                    vspace,
                    frame,
                    segment.vaddr + (page << 12),
                    segment.rights,
                );
                own_frame += 1;
                test_slot += 1;
            }
        }
        (segments, header.segment_count as usize)
    }
}

/// The bytes of one page of a segment: from the image, then zeros.
fn copy_page(image: &[u8], segment: &ImageSegment, page: u64, into: &mut [u8]) {
    let done = page << 12;
    let left = segment.file_size.saturating_sub(done).min(4096) as usize;
    let from = (segment.offset + done) as usize;
    into[..left].copy_from_slice(&image[from..from + left]);
    into[left..].fill(0);
}
