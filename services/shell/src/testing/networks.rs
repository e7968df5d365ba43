//! Virtual switches in memory.

use super::FakeHost;
use crate::host::{Answer, NetworkChange, Networks};
use tessera_proto::{
    capture::{CaptureChunk, CaptureInfo},
    hostd::Echo,
    switch::{
        AddressInfo, Balance, DropReason, Dropped, Group, GroupInfo, Limits, Mirror, PortInfo, PortKind, Security, Settings, Shaping,
        SwitchInfo, TRUNK, Teaming, Traffic,
    },
};

fn settings(name: &str) -> Settings {
    let limits = Some(Limits {
        average: u64::MAX,
        peak: u64::MAX,
        burst: u64::MAX,
    });
    Settings {
        name: name.into(),
        mtu: 9000,
        security: Security {
            promiscuous: true,
            forged_transmits: true,
            mac_changes: true,
        },
        shaping: Shaping {
            sent: limits,
            received: limits,
        },
        teaming: Teaming {
            balance: Balance::SourceMac,
            active: (0..8).map(|number| format!("nic{number}")).collect(),
            standby: (8..16).map(|number| format!("nic{number}")).collect(),
        },
    }
}

impl Networks for FakeHost {
    fn switches(&mut self) -> Answer<Vec<SwitchInfo>> {
        let switch = |name: &str| SwitchInfo {
            settings: settings(name),
            uplinks: (0..16).map(|number| format!("nic{number}")).collect(),
            mirrors: vec![Mirror {
                from: "debian.0".into(),
                to: "watcher.0".into(),
            }],
            groups: u32::MAX,
            ports: u32::MAX,
        };
        self.answer(vec![switch("vSwitch0"), switch(&"long".repeat(16))])
    }

    fn port_groups(&mut self) -> Answer<Vec<GroupInfo>> {
        let group = |name: &str, vlan, own: bool| {
            let settings = settings("vSwitch0");
            GroupInfo {
                switch: "vSwitch0".into(),
                group: Group {
                    name: name.into(),
                    vlan,
                    security: own.then_some(settings.security),
                    shaping: own.then_some(settings.shaping),
                    teaming: own.then(|| settings.teaming.clone()),
                },
                security: settings.security,
                shaping: settings.shaping,
                teaming: settings.teaming,
                ports: u32::MAX,
            }
        };
        self.answer(vec![
            group("VM Network", 0, false),
            group("Lab", 100, true),
            group(&"long ".repeat(12), TRUNK, true),
        ])
    }

    fn ports(&mut self) -> Answer<Vec<PortInfo>> {
        let most = Traffic {
            frames: u64::MAX,
            bytes: u64::MAX,
        };
        let port = |name: &str, kind, blocked, link| PortInfo {
            name: name.into(),
            kind,
            switch: "vSwitch0".into(),
            group: if kind == PortKind::Uplink {
                String::new()
            } else {
                "VM Network".into()
            },
            vlan: 4094,
            mac: [0xff; 6],
            link,
            blocked,
            uplink: "nic0".into(),
            received: most,
            sent: most,
            multicast: u64::MAX,
            dropped: vec![
                Dropped {
                    reason: DropReason::Forged,
                    frames: u64::MAX,
                },
                Dropped {
                    reason: DropReason::Tagged,
                    frames: 1,
                },
            ],
        };
        self.answer(vec![
            port("debian.0", PortKind::Guest, false, true),
            port("a-machine-of-a-long-name.7", PortKind::Guest, true, false),
            port("host-4", PortKind::Host, false, true),
            port("nic0", PortKind::Uplink, false, false),
        ])
    }

    fn addresses(&mut self, _switch: &str) -> Answer<Vec<AddressInfo>> {
        let address = |port: &str, age_ms| AddressInfo {
            mac: [0xfe; 6],
            vlan: 4094,
            port: port.into(),
            age_ms,
        };
        self.answer(vec![address("debian.0", None), address("debian.0", Some(299_999))])
    }

    fn network_change(&mut self, change: NetworkChange<'_>) -> Answer<()> {
        self.act(&format!("{change:?}"))
    }

    fn ping(&mut self, to: &str, sequence: u16, bytes: u16, wait_ms: u32) -> Answer<Echo> {
        self.act(&format!("ping {to} {sequence} {bytes} {wait_ms}"))?;
        // Every other one is lost.
        self.answer(Echo {
            address: to.into(),
            microseconds: sequence.is_multiple_of(2).then_some(1500 + 1000 * u32::from(sequence)),
        })
    }

    fn captures(&mut self) -> Answer<Vec<CaptureInfo>> {
        let capture = |id, running| CaptureInfo {
            id,
            port: "a-machine-of-a-long-name.7".into(),
            snap: 65_535,
            room: 256 << 10,
            waiting: 256 << 10,
            frames: u64::MAX,
            lost: u64::MAX,
            running,
        };
        self.answer(vec![capture(1, true), capture(2, false)])
    }

    fn capture_start(&mut self, port: &str, snap: u32) -> Answer<u32> {
        self.act(&format!("capture {port} {snap}"))?;
        Ok(7)
    }

    fn capture_read(&mut self, _id: u32, from: u64) -> Answer<CaptureChunk> {
        let bytes: Vec<u8> = (from..2500).take(1000).map(|at| at as u8).collect();
        self.answer(CaptureChunk {
            end: from + bytes.len() as u64 == 2500,
            bytes,
        })
    }

    fn capture_stop(&mut self, id: u32) -> Answer<()> {
        self.act(&format!("stop {id}"))
    }

    fn capture_remove(&mut self, id: u32) -> Answer<()> {
        self.act(&format!("remove {id}"))
    }
}
