//! The switch against a model that looks at every port for every frame.

use super::*;
use proptest::prelude::*;

/// Own addresses of ports by number, and foreign ones above.
fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number]
}

fn frame(source: [u8; 6], destination: [u8; 6], tag: Option<u16>) -> Head {
    Head {
        destination,
        source,
        tag,
        inside: false,
        ethertype: 0x0800,
        length: 100,
    }
}

/// Two uplinks, 0 and 1, both up, and ports behind them.
fn switch(groups: &[Group]) -> (Switch, Vec<Slot>) {
    let mut switch = Switch::new();
    for number in 0..2 {
        assert_eq!(switch.add_uplink(), Some(number));
        switch.set_link(number, true);
    }
    let add = |(number, group): (u8, &Group)| switch.add_port(group.clone(), mac(number), 0).unwrap();
    let ports = (0..).zip(groups).map(add).collect();
    (switch, ports)
}

fn group(vlan: u16, policy: Security) -> Group {
    Group {
        vlan,
        policy,
        team: Team {
            active: vec![0, 1],
            ..Team::default()
        },
        learn: 4,
        ..Group::default()
    }
}

fn send(switch: &mut Switch, now: u64, from: Slot, head: Head) -> (Verdict, Vec<(Slot, Option<u16>)>) {
    let mut outputs = Outputs::new();
    let verdict = switch.forward(now, from, &head, &mut outputs);
    let mut to: Vec<_> = outputs.iter().map(|output| (output.port, output.tag)).collect();
    to.sort_unstable();
    (verdict, to)
}

fn policy() -> impl Strategy<Value = Security> {
    (any::<bool>(), any::<bool>()).prop_map(|(promiscuous, forged_transmits)| Security {
        promiscuous,
        forged_transmits,
        mac_changes: false,
    })
}

proptest! {
    #[test]
    fn goes_where_the_model_says(
        groups in proptest::collection::vec((prop_oneof![Just(0u16), Just(5), Just(6), Just(TRUNK)], policy()), 1..6),
        frames in proptest::collection::vec((0u16..8, 0u8..8, prop_oneof![0u8..8, Just(255)], prop_oneof![Just(None), Just(Some(0u16)), Just(Some(5)), Just(Some(6))]), 1..60),
        down: bool,
    ) {
        let groups: Vec<Group> = groups.into_iter().map(|(vlan, policy)| Group { learn: 0, ..group(vlan, policy) }).collect();
        let (mut switch, ports) = switch(&groups);
        switch.set_link(0, !down);
        for (from, source, destination, tag) in frames {
            let destination = if destination == 255 { [255; 6] } else { mac(destination) };
            let (verdict, to) = send(&mut switch, 0, from, frame(mac(source), destination, tag));
            // The model.
            let uplink_of = |port: u16| if down || port % 2 == 1 { 1 } else { 0 };
            let number = tag.unwrap_or(0);
            let carries = |vlan: u16, network: u16| vlan == network || vlan == TRUNK;
            let mut expected = Vec::new();
            let sender = from.checked_sub(2).map(|place| groups.get(usize::from(place)));
            let vlan = match sender {
                None => Some(number).filter(|vlan| !(0..).zip(&groups).any(|(own, group)| mac(own) == mac(source) && carries(group.vlan, *vlan))),
                Some(None) => None,
                Some(Some(group)) if u16::from(source) + 2 != from && !group.policy.forged_transmits => None,
                Some(Some(group)) if group.vlan == TRUNK => Some(number),
                Some(Some(group)) => (number == 0).then_some(group.vlan),
            };
            if let Some(vlan) = vlan {
                let owner = (0..).zip(&groups).position(|(own, group)| mac(own) == destination && carries(group.vlan, vlan));
                for (place, group) in groups.iter().enumerate() {
                    let port = ports[place];
                    let for_it = owner == Some(place);
                    let listens = (destination[0] & 1 != 0 || group.policy.promiscuous) && carries(group.vlan, vlan) && (from >= 2 || uplink_of(port) == from);
                    if port != from && (for_it || listens) {
                        expected.push((port, (group.vlan == TRUNK && vlan != 0).then_some(vlan)));
                    }
                }
                if from >= 2 && owner.is_none() {
                    expected.push((uplink_of(from), (vlan != 0).then_some(vlan)));
                }
            }
            expected.sort_unstable();
            prop_assert_eq!(&to, &expected);
            prop_assert_eq!(verdict == Verdict::Forward, !expected.is_empty());
        }
    }

    #[test]
    fn flooding_blinds_nobody(limit in 1u32..64, sources in proptest::collection::vec(any::<[u8; 5]>(), 1..3000)) {
        let forging = Security { forged_transmits: true, ..Security::default() };
        let flooding = Group { learn: limit, ..group(0, forging) };
        let (mut switch, ports) = switch(&[flooding, group(0, Security::default()), group(0, forging)]);
        // A machine behind the third port's owner.
        send(&mut switch, 1, ports[2], frame(mac(200), [255; 6], None));
        for [a, b, c, d, e] in sources {
            send(&mut switch, 2, ports[0], frame([6, a, b, c, d, e], [255; 6], None));
        }
        prop_assert!(switch.learned.count(ports[0]) <= limit);
        for (to, port) in [(mac(1), ports[1]), (mac(200), ports[2])] {
            prop_assert_eq!(send(&mut switch, 3, 0, frame(mac(99), to, None)).1, vec![(port, None)]);
        }
    }
}

#[test]
fn a_port_cannot_take_another_ports_address() {
    let forging = Security {
        forged_transmits: true,
        ..Security::default()
    };
    let (mut switch, ports) = switch(&[group(0, forging), group(0, Security::default())]);
    send(&mut switch, 0, ports[0], frame(mac(1), [255; 6], None));
    assert_eq!(send(&mut switch, 0, 0, frame(mac(99), mac(1), None)).1, [(ports[1], None)]);
}

#[test]
fn a_changed_address_blocks_unless_allowed() {
    let (mut switch, ports) = switch(&[group(0, Security::default())]);
    switch.set_mac(ports[0], mac(50));
    assert_eq!(
        send(&mut switch, 0, ports[0], frame(mac(50), [255; 6], None)).0,
        Verdict::Dropped(Drop::Blocked)
    );
    assert!(send(&mut switch, 0, 0, frame(mac(99), mac(50), None)).1.is_empty());
    let allowed = Security {
        mac_changes: true,
        ..Security::default()
    };
    switch.set_group(ports[0], group(0, allowed), 0);
    assert_eq!(send(&mut switch, 0, 0, frame(mac(99), mac(50), None)).1, [(ports[0], None)]);
    assert_eq!(switch.counters(ports[0]).unwrap().drops[Drop::Blocked as usize], 1);
    switch.set_group(ports[0], group(0, Security::default()), 0);
    assert!(send(&mut switch, 0, 0, frame(mac(99), mac(50), None)).1.is_empty());
    assert!(send(&mut switch, 0, 0, frame(mac(99), [255; 6], None)).1.is_empty());
}

#[test]
fn what_was_learned_ages() {
    let forging = Security {
        forged_transmits: true,
        ..Security::default()
    };
    let (mut switch, ports) = switch(&[group(5, forging)]);
    send(&mut switch, 0, ports[0], frame(mac(77), [255; 6], None));
    let to_it = frame(mac(99), mac(77), Some(5));
    assert_eq!(send(&mut switch, table::AGE, 0, to_it).1, [(ports[0], None)]);
    assert_eq!(send(&mut switch, table::AGE + 1, 0, to_it).0, Verdict::Dropped(Drop::NoDestination));
}

#[test]
fn uplinks_fail_over_and_back() {
    let team = Team {
        active: vec![0],
        standby: vec![1],
        ..Team::default()
    };
    let (mut switch, ports) = switch(&[Group {
        team,
        ..group(0, Security::default())
    }]);
    let out = frame(mac(0), mac(99), None);
    assert_eq!(send(&mut switch, 0, ports[0], out).1, [(0, None)]);
    switch.set_link(0, false);
    assert_eq!(send(&mut switch, 0, ports[0], out).1, [(1, None)]);
    switch.set_link(1, false);
    assert_eq!(send(&mut switch, 0, ports[0], out).0, Verdict::Dropped(Drop::NoUplink));
    switch.set_link(0, true);
    assert_eq!(send(&mut switch, 0, ports[0], out).1, [(0, None)]);
}

#[test]
fn a_mirror_sees_both_directions_once() {
    let (mut switch, ports) = switch(&[group(5, Security::default()), group(0, Security::default())]);
    switch.set_mirror(ports[0], Some(ports[1]));
    let sent = send(&mut switch, 0, ports[0], frame(mac(0), mac(99), None)).1;
    assert_eq!(sent, [(0, Some(5)), (ports[1], None)]);
    let received = send(&mut switch, 0, 0, frame(mac(99), mac(0), Some(5))).1;
    assert_eq!(received, [(ports[0], None), (ports[1], Some(5))]);
}

#[test]
fn beyond_its_rate_a_port_waits_and_is_not_given_more() {
    let limits = Some(Limits {
        average: 8_000,
        peak: 8_000,
        burst: 100,
    });
    let shaped = Group {
        shape: (limits, limits),
        ..group(0, Security::default())
    };
    let (mut switch, ports) = switch(&[shaped]);
    assert_eq!(send(&mut switch, 0, ports[0], frame(mac(0), mac(99), None)).0, Verdict::Forward);
    assert!(matches!(
        send(&mut switch, 0, ports[0], frame(mac(0), mac(99), None)).0,
        Verdict::Wait(_)
    ));
    assert_eq!(send(&mut switch, 0, 0, frame(mac(99), mac(0), None)).1.len(), 1);
    assert_eq!(send(&mut switch, 0, 0, frame(mac(99), mac(0), None)).1.len(), 0);
    assert_eq!(switch.counters(ports[0]).unwrap().drops[Drop::Shaped as usize], 1);
    assert_eq!(switch.counters(ports[0]).unwrap().received, (1, 100));
}

#[test]
fn what_is_taken_back_was_never_offered() {
    let limits = Limits {
        average: 8_000,
        peak: 8_000_000,
        burst: 150,
    };
    let mut shaped = group(0, Security::default());
    shaped.shape = (Some(limits), Some(limits));
    let (mut switch, ports) = switch(&[shaped.clone(), shaped]);
    let head = frame(mac(0), mac(1), None);
    let mut outputs = Outputs::new();
    for _ in 0..1000 {
        assert_eq!(switch.forward(0, ports[0], &head, &mut outputs), Verdict::Forward);
        assert_eq!(outputs.len(), 1);
        switch.take_back(ports[0], &head, &outputs);
    }
    for port in &ports {
        assert_eq!(switch.counters(*port), Some(&Counters::default()));
    }
    // Then the rate holds.
    let passed = (0..1000)
        .filter(|_| switch.forward(0, ports[0], &head, &mut outputs) == Verdict::Forward)
        .count();
    assert!((1..20).contains(&passed), "{passed} passed");
}
