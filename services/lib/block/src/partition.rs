//! A part of a device.

use crate::{BlockDevice, Geometry, IoError};

/// A window of a device: its sector 0 is the device's sector `first`. Nothing outside can be reached through it.
#[derive(Clone, Debug)]
pub struct Partition<D> {
    device: D,
    first: u64,
    sectors: u64,
}

impl<D: BlockDevice> Partition<D> {
    /// The `sectors` sectors from `first` on.
    ///
    /// # Errors
    /// [`IoError::OutOfRange`] where the device has not all of them.
    pub fn new(device: D, first: u64, sectors: u64) -> Result<Self, IoError> {
        device.geometry().check(first, sectors)?;
        Ok(Self { device, first, sectors })
    }

    /// The device it is a part of.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device's sector that is sector 0 here.
    pub fn first_sector(&self) -> u64 {
        self.first
    }

    /// Checks a request against the window; gives the device's sector.
    fn place(&self, sector: u64, count: u64) -> Result<u64, IoError> {
        self.geometry().check(sector, count)?;
        Ok(self.first + sector)
    }

    /// Errors name the window's sectors, as the requests do.
    fn local(&self, error: IoError) -> IoError {
        match error {
            IoError::Media { sector } => IoError::Media {
                sector: sector.saturating_sub(self.first),
            },
            other => other,
        }
    }
}

impl<D: BlockDevice> BlockDevice for Partition<D> {
    fn geometry(&self) -> Geometry {
        Geometry {
            sectors: self.sectors,
            ..self.device.geometry()
        }
    }

    async fn read(&self, sector: u64, buffer: &mut [u8]) -> Result<(), IoError> {
        let count = self.geometry().check_buffer(sector, buffer.len())?;
        self.device
            .read(self.place(sector, count)?, buffer)
            .await
            .map_err(|error| self.local(error))
    }

    async fn write(&self, sector: u64, data: &[u8]) -> Result<(), IoError> {
        let count = self.geometry().check_write(sector, data.len())?;
        self.device
            .write(self.place(sector, count)?, data)
            .await
            .map_err(|error| self.local(error))
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.device.flush().await.map_err(|error| self.local(error))
    }

    async fn discard(&self, sector: u64, count: u64) -> Result<(), IoError> {
        self.device
            .discard(self.place(sector, count)?, count)
            .await
            .map_err(|error| self.local(error))
    }

    async fn write_zeroes(&self, sector: u64, count: u64) -> Result<(), IoError> {
        self.device
            .write_zeroes(self.place(sector, count)?, count)
            .await
            .map_err(|error| self.local(error))
    }
}
