//! Keeping writes away from an object for a moment.

use tessera_block::BlockDevice;

use crate::error::Error;
use crate::store::Store;

/// No write to an object is under way, and none begins, until this is dropped.
pub struct Quiet<'a, D: BlockDevice> {
    store: &'a Store<D>,
    object: u32,
}

impl<D: BlockDevice> Store<D> {
    /// Waits until no write to the object is under way, and holds new ones up.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub(crate) async fn quiesce(&self, object: u32) -> Result<Quiet<'_, D>, Error> {
        self.event
            .until(|| {
                self.state
                    .borrow()
                    .living(object)
                    .map_or(Some(()), |object| (!object.frozen).then_some(()))
            })
            .await;
        self.state.borrow_mut().living(object)?;
        self.state.borrow_mut().object_mut(object)?.frozen = true;
        let quiet = Quiet { store: self, object };
        self.event
            .until(|| {
                self.state
                    .borrow()
                    .object(object)
                    .map_or(Some(()), |object| (object.writing == 0).then_some(()))
            })
            .await;
        Ok(quiet)
    }
}

impl<D: BlockDevice> Drop for Quiet<'_, D> {
    fn drop(&mut self) {
        if let Ok(object) = self.store.state.borrow_mut().object_mut(self.object) {
            object.frozen = false;
        }
        self.store.event.notify();
    }
}
