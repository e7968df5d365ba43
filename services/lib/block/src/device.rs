//! What holds bytes.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use core::future::Future;

use crate::{Geometry, IoError};

/// Bytes written at once by the default `write_zeroes`.
const ZEROES: usize = 64 << 10;

/// Sectors that can be read and written.
///
/// Requests may be in flight side by side and finish in any order; who needs an order waits. What a completed write brought is read back from
/// then on; it survives the power going when a `flush` that was *started after the write completed* has completed. Two requests in flight that
/// name the same sector leave it in either state.
///
/// A future that is dropped before it completes leaves its request in an unknown state, like a failed one, and the implementation must see to it that the
/// device no longer touches the buffer.
pub trait BlockDevice {
    /// Sizes and abilities.
    fn geometry(&self) -> Geometry;

    /// Reads whole sectors from `sector` on.
    ///
    /// # Errors
    /// See [`IoError`]; the buffer's content is then unspecified.
    fn read(&self, sector: u64, buffer: &mut [u8]) -> impl Future<Output = Result<(), IoError>>;

    /// Writes whole sectors from `sector` on.
    ///
    /// # Errors
    /// See [`IoError`]; each of the sectors has then its old or its new content, or is lost.
    fn write(&self, sector: u64, data: &[u8]) -> impl Future<Output = Result<(), IoError>>;

    /// Makes every write that completed before survive a power cut.
    ///
    /// # Errors
    /// See [`IoError`]. After an error nothing is known about writes since the last successful flush.
    fn flush(&self) -> impl Future<Output = Result<(), IoError>>;

    /// Tells that the content of these sectors is no longer needed. They read as anything afterwards.
    ///
    /// # Errors
    /// [`IoError::Unsupported`] where [`Geometry::discard`] is false; see [`IoError`] for others.
    fn discard(&self, sector: u64, count: u64) -> impl Future<Output = Result<(), IoError>> {
        let _ = (sector, count);
        async { Err(IoError::Unsupported) }
    }

    /// Makes these sectors read as zeroes, by a command of the device's where there is one.
    ///
    /// # Errors
    /// As [`BlockDevice::write`].
    fn write_zeroes(&self, sector: u64, count: u64) -> impl Future<Output = Result<(), IoError>> {
        async move {
            let geometry = self.geometry();
            geometry.check(sector, count)?;
            let size = geometry.sector_size as usize;
            let per_write = (ZEROES / size).max(1) as u64;
            let zeroes = vec![0; per_write.min(count) as usize * size];
            let mut done = 0;
            while done < count {
                let now = per_write.min(count - done);
                self.write(sector + done, &zeroes[..now as usize * size]).await?;
                done += now;
            }
            Ok(())
        }
    }
}

macro_rules! delegate {
    ($($pointer:ty),*) => {$(
        impl<D: BlockDevice + ?Sized> BlockDevice for $pointer {
            fn geometry(&self) -> Geometry {
                (**self).geometry()
            }
            fn read(&self, sector: u64, buffer: &mut [u8]) -> impl Future<Output = Result<(), IoError>> {
                (**self).read(sector, buffer)
            }
            fn write(&self, sector: u64, data: &[u8]) -> impl Future<Output = Result<(), IoError>> {
                (**self).write(sector, data)
            }
            fn flush(&self) -> impl Future<Output = Result<(), IoError>> {
                (**self).flush()
            }
            fn discard(&self, sector: u64, count: u64) -> impl Future<Output = Result<(), IoError>> {
                (**self).discard(sector, count)
            }
            fn write_zeroes(&self, sector: u64, count: u64) -> impl Future<Output = Result<(), IoError>> {
                (**self).write_zeroes(sector, count)
            }
        }
    )*};
}

delegate!(&D, Rc<D>, Box<D>);
