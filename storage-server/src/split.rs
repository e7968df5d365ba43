//! Cuts a request that no command can carry into several that can.

use crate::controller::{Controller, Operation, Request, Segment};
use alloc::vec::Vec;
use tessera_block::IoError;

/// A piece of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First sector.
    pub sector: u64,
    /// Sectors.
    pub sectors: u64,
    /// Memory.
    pub segments: Vec<Segment>,
}

/// Cuts it.
///
/// # Errors
/// `Misaligned`: the memory lies so that no whole sectors lie in what a command can take; the caller has to copy it.
pub fn split(controller: &dyn Controller, unit: u32, request: &Request<'_>, sector_size: u32) -> Result<Vec<Piece>, IoError> {
    if request.segments.is_empty() {
        return Ok(halves(controller, unit, request));
    }
    let size = u64::from(sector_size.max(1));
    let misaligned = || IoError::Misaligned {
        length: request.bytes() as usize,
        sector_size,
    };
    let mut pieces = Vec::new();
    let (mut sector, end) = (request.sector, request.sector + request.sectors);
    let mut rest: Vec<Segment> = request.segments.iter().rev().copied().collect();
    while sector < end {
        let (segments, bytes) = longest(controller, unit, request.operation, sector, size, &mut rest).ok_or_else(misaligned)?;
        pieces.push(Piece {
            sector,
            sectors: bytes / size,
            segments,
        });
        sector += bytes / size;
    }
    Ok(pieces)
}

/// Takes from the end of `rest` as much as one command can carry.
fn longest(
    controller: &dyn Controller,
    unit: u32,
    operation: Operation,
    sector: u64,
    size: u64,
    rest: &mut Vec<Segment>,
) -> Option<(Vec<Segment>, u64)> {
    let (mut taken, mut bytes): (Vec<Segment>, u64) = (Vec::new(), 0);
    let mut best: Option<(Vec<Segment>, u64)> = None;
    let fits = |segments: &[Segment], bytes: u64| {
        let request = Request {
            operation,
            sector,
            sectors: bytes / size,
            segments,
        };
        bytes.is_multiple_of(size) && controller.fits(unit, &request)
    };
    for segment in rest.iter().rev() {
        taken.push(*segment);
        bytes += u64::from(segment.length);
        if bytes.is_multiple_of(size) {
            if !fits(&taken, bytes) {
                break;
            }
            best = Some((taken.clone(), bytes));
        }
    }
    if let Some((segments, bytes)) = best {
        rest.truncate(rest.len() - segments.len());
        return Some((segments, bytes));
    }
    // The first segment alone is too much: as many of its sectors as fit, halving.
    let first = *rest.last()?;
    let mut sectors = u64::from(first.length) / size;
    while sectors > 0 {
        let length = (sectors * size) as u32;
        let part = Segment {
            physical: first.physical,
            length,
        };
        if fits(&[part], length.into()) {
            rest.pop();
            if first.length > length {
                rest.push(Segment {
                    physical: first.physical + u64::from(length),
                    length: first.length - length,
                });
            }
            return Some((alloc::vec![part], length.into()));
        }
        sectors /= 2;
    }
    None
}

/// Without memory: halves until they fit.
fn halves(controller: &dyn Controller, unit: u32, request: &Request<'_>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut sector, mut left, mut step) = (request.sector, request.sectors, request.sectors);
    while left > 0 {
        let sectors = step.min(left);
        let one = Request {
            sector,
            sectors,
            ..*request
        };
        // A single sector always fits; should it not, the driver refuses it.
        if sectors > 1 && !controller.fits(unit, &one) {
            step = sectors / 2;
            continue;
        }
        pieces.push(Piece {
            sector,
            sectors,
            segments: Vec::new(),
        });
        sector += sectors;
        left -= sectors;
    }
    pieces
}
