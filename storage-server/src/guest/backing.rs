//! Where a guest's disk has its bytes.

use crate::controller::{Operation, Request};
use crate::disk::{Disk, Sink};
use alloc::rc::Rc;
use tessera_block::{BlockDevice, Geometry, IoError};

/// Something that takes requests of sectors in host memory.
pub trait Backing {
    /// Sizes and abilities.
    fn geometry(&self) -> Geometry;
    /// Bytes of a sector. Asked at each request.
    fn sector_size(&self) -> u32;
    /// Starts a request; `sink` is told how it ended, once, perhaps before this returns.
    fn submit(&self, request: &Request<'_>, sink: &Rc<dyn Sink>, cookie: u64);
    /// Requests that wait for something that may never come fail now.
    fn cancel(&self) {}
}

impl Backing for Disk {
    fn geometry(&self) -> Geometry {
        BlockDevice::geometry(self)
    }

    fn sector_size(&self) -> u32 {
        Disk::sector_size(self)
    }

    fn submit(&self, request: &Request<'_>, sink: &Rc<dyn Sink>, cookie: u64) {
        Disk::submit(self, request, sink, cookie);
    }
}

/// A part of something: a partition.
pub struct Part<B: ?Sized> {
    whole: Rc<B>,
    first: u64,
    sectors: u64,
}

impl<B: Backing + ?Sized> Part<B> {
    /// `sectors` sectors from `first` on, cut at the end.
    #[must_use]
    pub fn new(whole: Rc<B>, first: u64, sectors: u64) -> Self {
        let all = whole.geometry().sectors;
        let first = first.min(all);
        Self {
            whole,
            first,
            sectors: sectors.min(all - first),
        }
    }
}

impl<B: Backing + ?Sized> Backing for Part<B> {
    fn geometry(&self) -> Geometry {
        Geometry {
            sectors: self.sectors,
            ..self.whole.geometry()
        }
    }

    fn sector_size(&self) -> u32 {
        self.whole.sector_size()
    }

    fn cancel(&self) {
        self.whole.cancel();
    }

    fn submit(&self, request: &Request<'_>, sink: &Rc<dyn Sink>, cookie: u64) {
        if request.operation == Operation::Flush {
            return self.whole.submit(request, sink, cookie);
        }
        let inside = request.sector.checked_add(request.sectors).is_some_and(|end| end <= self.sectors);
        if !inside {
            let error = IoError::OutOfRange {
                sector: request.sector,
                count: request.sectors,
                sectors: self.sectors,
            };
            return sink.completed(cookie, Err(error));
        }
        let moved = Request {
            sector: self.first + request.sector,
            ..*request
        };
        self.whole.submit(&moved, sink, cookie);
    }
}
