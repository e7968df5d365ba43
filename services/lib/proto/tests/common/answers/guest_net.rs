//! Answers of `guest_net`.

use super::super::*;

impl guest_net::Server for Example {
    fn describe(&mut self, _: &mut Call, nic: u32) -> Result<GuestNicInfo, Failure> {
        self.note(format!("describe {nic}"))?;
        Ok(GuestNicInfo {
            mac: [2, 0x54, 1, 2, 3, 4],
            mtu: 9000,
            link: true,
            speed: 10_000,
            pairs: 4,
        })
    }
    fn interrupt(&mut self, call: &mut Call, nic: u32, queue: u16) -> Result<(), Failure> {
        self.note(format!("interrupt {nic} {queue} {:?}", call.cap(0)))
    }
    fn attach(&mut self, call: &mut Call, nic: u32, features: u64, pairs: u16, queues: GuestQueues, resume: bool) -> Result<(), Failure> {
        self.note(format!("attach {nic} {features} {pairs} {} {resume}", queues.queues.len()))?;
        call.give(63);
        Ok(())
    }
    fn reset(&mut self, _: &mut Call, nic: u32) -> Result<(), Failure> {
        self.note(format!("reset nic {nic}"))
    }
    fn watch(&mut self, _: &mut Call) -> Result<GuestNetEvent, Failure> {
        self.note("watch")?;
        Ok(GuestNetEvent::Status {
            nic: 1,
            link: true,
            announce: false,
        })
    }
}
