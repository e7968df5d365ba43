//! Answers of `switch`.

use super::super::*;

pub fn settings() -> Settings {
    Settings {
        name: "vSwitch0".into(),
        mtu: 1500,
        security: Security {
            promiscuous: true,
            forged_transmits: false,
            mac_changes: true,
        },
        shaping: Shaping {
            sent: Some(Limits {
                average: 8_000_000,
                peak: 16_000_000,
                burst: 65_536,
            }),
            received: None,
        },
        teaming: teaming(),
    }
}

fn teaming() -> Teaming {
    Teaming {
        balance: Balance::Order,
        active: vec!["nic0".into()],
        standby: vec!["nic1".into(), "nic2".into()],
    }
}

pub fn group() -> Group {
    Group {
        name: "VM Network".into(),
        vlan: 100,
        security: Some(Security::default()),
        shaping: None,
        teaming: Some(teaming()),
    }
}

impl switch::Server for Example {
    fn switches(&mut self, _: &mut Call, first: u32) -> Result<Page<SwitchInfo>, Failure> {
        self.note(format!("switches {first}"))?;
        let info = SwitchInfo {
            settings: settings(),
            uplinks: vec!["nic0".into(), "nic1".into()],
            mirrors: vec![Mirror {
                from: "debian.0".into(),
                to: "watcher.0".into(),
            }],
            groups: 3,
            ports: 4,
        };
        Ok(Page {
            items: vec![info],
            next: Some(1),
        })
    }
    fn groups(&mut self, _: &mut Call, first: u32) -> Result<Page<GroupInfo>, Failure> {
        self.note(format!("groups {first}"))?;
        let Settings { security, shaping, .. } = settings();
        let info = GroupInfo {
            switch: "vSwitch0".into(),
            group: group(),
            security,
            shaping,
            teaming: teaming(),
            ports: 2,
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn ports(&mut self, _: &mut Call, first: u32) -> Result<Page<PortInfo>, Failure> {
        self.note(format!("ports {first}"))?;
        let info = PortInfo {
            name: "debian.0".into(),
            kind: PortKind::Guest,
            switch: "vSwitch0".into(),
            group: "VM Network".into(),
            vlan: 100,
            mac: [2, 3, 4, 5, 6, 7],
            link: true,
            blocked: false,
            uplink: "nic1".into(),
            received: Traffic { frames: 1, bytes: 2 },
            sent: Traffic { frames: 3, bytes: 4 },
            multicast: 5,
            dropped: vec![Dropped {
                reason: DropReason::Forged,
                frames: 6,
            }],
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn addresses(&mut self, _: &mut Call, switch: &str, first: u32) -> Result<Page<AddressInfo>, Failure> {
        self.note(format!("addresses {switch} {first}"))?;
        let info = AddressInfo {
            mac: [2, 3, 4, 5, 6, 7],
            vlan: 100,
            port: "debian.0".into(),
            age_ms: Some(1500),
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn create_switch(&mut self, _: &mut Call, settings: Settings) -> Result<(), Failure> {
        self.note(format!("create_switch {settings:?}"))
    }
    fn change_switch(&mut self, _: &mut Call, settings: Settings) -> Result<(), Failure> {
        self.note(format!("change_switch {settings:?}"))
    }
    fn remove_switch(&mut self, _: &mut Call, switch: &str) -> Result<(), Failure> {
        self.note(format!("remove_switch {switch}"))
    }
    fn create_group(&mut self, _: &mut Call, switch: &str, group: Group) -> Result<(), Failure> {
        self.note(format!("create_group {switch} {group:?}"))
    }
    fn change_group(&mut self, _: &mut Call, group: Group) -> Result<(), Failure> {
        self.note(format!("change_group {group:?}"))
    }
    fn remove_group(&mut self, _: &mut Call, group: &str) -> Result<(), Failure> {
        self.note(format!("remove_group {group}"))
    }
    fn link(&mut self, _: &mut Call, switch: &str, nic: &str) -> Result<(), Failure> {
        self.note(format!("link {switch} {nic}"))
    }
    fn unlink(&mut self, _: &mut Call, switch: &str, nic: &str) -> Result<(), Failure> {
        self.note(format!("unlink {switch} {nic}"))
    }
    fn mirror(&mut self, _: &mut Call, switch: &str, from: &str, to: Option<&str>) -> Result<(), Failure> {
        self.note(format!("mirror {switch} {from} {to:?}"))
    }
    fn set_link(&mut self, _: &mut Call, port: &str, up: bool) -> Result<(), Failure> {
        self.note(format!("set_link {port} {up}"))
    }
}
