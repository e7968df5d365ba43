//! Answers of `network`.

use super::super::*;

impl network::Server for Example {
    fn nics(&mut self, _: &mut Call, first: u32) -> Result<Page<NicInfo>, Failure> {
        self.note(format!("nics {first}"))?;
        let info = NicInfo {
            name: "nic0".into(),
            driver: "e1000e".into(),
            model: "Intel 82574L".into(),
            address: "0000:00:05.0".into(),
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            state: NicState::Gone,
            link: Link {
                up: true,
                speed: 1000,
                full_duplex: true,
            },
            mtu: 9000,
            queues: 2,
            offloads: NicOffloads {
                checksum: true,
                tcp4: true,
                tcp6: false,
                udp: false,
                verifies: true,
                joins: false,
                vlan: true,
            },
            promiscuous: true,
            statistics: NicStatistics {
                received: 1,
                received_bytes: 2,
                received_missed: 3,
                received_errors: 4,
                sent: 5,
                sent_bytes: 6,
                sent_full: 7,
                sent_errors: 8,
                interrupts: 9,
                resets: 10,
                link_changes: 11,
            },
            last_error: "it hung".into(),
        };
        Ok(Page {
            items: vec![info],
            next: Some(19),
        })
    }
    fn exercise(&mut self, _: &mut Call, nic: &str, rounds: u32) -> Result<Exercise, Failure> {
        self.note(format!("exercise {nic} {rounds}"))?;
        Ok(Exercise {
            sent: 3,
            answered: 2,
            offered: [10, 0, 2, 15],
        })
    }
}
