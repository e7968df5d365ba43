//! Answers of `vm_screen`.

use super::super::*;

impl vm_screen::Server for Example {
    fn info(&mut self, _: &mut Call) -> Result<ScreenInfo, Failure> {
        self.note("info")?;
        Ok(ScreenInfo {
            mode: "text".into(),
            width: 720,
            height: 400,
            columns: 80,
            rows: 25,
            hash: 1 << 40,
            viewers: 1,
        })
    }
    fn text(&mut self, _: &mut Call, first: u32) -> Result<String, Failure> {
        self.note(format!("text {first}"))?;
        Ok("SeaBIOS\n".into())
    }
    fn open(&mut self, _: &mut Call, view: View) -> Result<u64, Failure> {
        self.note(format!("open {view:?}"))?;
        Ok(300)
    }
    fn read(&mut self, _: &mut Call, view: u64, from: u64) -> Result<ViewChunk, Failure> {
        self.note(format!("read {view} {from}"))?;
        Ok(ViewChunk {
            data: b"RFB 003.008\n".to_vec(),
            last: false,
        })
    }
    fn write(&mut self, _: &mut Call, view: u64, data: &[u8]) -> Result<u32, Failure> {
        self.note(format!("write {view} {data:?}"))?;
        Ok(data.len() as u32)
    }
    fn close(&mut self, _: &mut Call, view: u64) -> Result<(), Failure> {
        self.note(format!("close {view}"))
    }
    fn press(&mut self, _: &mut Call, keys: Keys) -> Result<(), Failure> {
        self.note(format!("press {:?}", keys.codes))
    }
    fn type_text(&mut self, _: &mut Call, text: &str) -> Result<u32, Failure> {
        self.note(format!("type {text}"))?;
        Ok(text.len() as u32)
    }
}
