//! Answers of `vm_media`.

use super::super::*;

impl vm_media::Server for Example {
    fn medium(&mut self, _: &mut Call) -> Result<Medium, Failure> {
        self.note("medium")?;
        Ok(Medium {
            bytes: Some(300),
            locked: true,
        })
    }
    fn change(&mut self, _: &mut Call, place: Option<FilePlace>) -> Result<(), Failure> {
        self.note(format!("change {place:?}"))
    }
}
