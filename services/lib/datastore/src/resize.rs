//! Making a datastore larger or smaller.

use tessera_block::BlockDevice;

use crate::error::Error;
use crate::layout::{BLOCK, GROUP_BLOCKS, LOG, MAX_ZONES, MIN_DATA, ZONE_BLOCKS, ZONE_HEADER};
use crate::state::{Need, State, Stop, Try};
use crate::store::Store;
use crate::superblock::{Zone, zones};

impl State {
    /// Changes the size in memory; the bitmaps that this needs are named.
    fn resize(&mut self, total: u64) -> Try<()> {
        let old = self.space.total();
        if total < old {
            let last = self.space.last_used().map_err(|group| Stop::Need(Need::Group(group)))?;
            if last >= total {
                return Err(Error::InUse {
                    needed: (last + 1) * BLOCK as u64,
                }
                .into());
            }
            let lost = old - total;
            if self.available_to(0) < lost {
                return Err(Error::InUse {
                    needed: (old - self.available_to(0)) * BLOCK as u64,
                }
                .into());
            }
        }
        let edge = ((old.min(total) - 1) / GROUP_BLOCKS) as u32;
        if !self.space.is_loaded(edge) {
            return Err(Stop::Need(Need::Group(edge)));
        }
        self.space.resize(total);
        self.superblock.blocks = total;
        self.superblock.zones.resize(zones(total) as usize, Zone { crc: 0, slot: None });
        self.structural = true;
        Ok(())
    }
}

impl<D: BlockDevice> Store<D> {
    /// Makes the datastore larger, up to the device's size, or smaller, down to the last block in use; durably, while it is used.
    ///
    /// # Errors
    /// [`Error::TooSmall`] where the device is, [`Error::BadSize`], [`Error::InUse`], [`Error::Io`], [`Error::NoSpace`].
    pub async fn resize(&self, size: u64) -> Result<(), Error> {
        let bytes = self.device.geometry().bytes();
        if size > bytes {
            return Err(Error::TooSmall {
                needed: size,
                found: bytes,
            });
        }
        let mut total = size / BLOCK as u64;
        if total > ZONE_BLOCKS && total % ZONE_BLOCKS < 2 * ZONE_HEADER {
            // The last zone must have room for its header.
            total = total / ZONE_BLOCKS * ZONE_BLOCKS;
        }
        let least = LOG + u64::from(self.state.borrow().superblock.log_blocks) + MIN_DATA;
        if total < least || total > MAX_ZONES * ZONE_BLOCKS {
            return Err(Error::BadSize {
                size,
                why: "a datastore has about 5 MiB to 64 TiB",
            });
        }
        let held = self.lock.hold().await;
        self.state.borrow().check_writable()?;
        // Freed blocks must be so in the bitmaps, or the end seems to be in use.
        self.commit(&held, &[], |_| {}).await?;
        self.run(|state| state.resize(total)).await?;
        self.commit(&held, &[], |_| {}).await
    }
}
