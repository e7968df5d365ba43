//! Whatever is asked for, what is kept makes sense and is read back as it was.

use proptest::prelude::*;
use tessera_vswitch::{Balance, Group, Limits, Network, Refused, Security, Settings, Shaping, State, TRUNK, Teaming};

#[derive(Clone, Debug)]
enum Change {
    CreateSwitch(Settings),
    Switch(Settings),
    RemoveSwitch(String),
    CreateGroup(String, Group),
    Group(Group),
    RemoveGroup(String),
    Link(String, String),
    Unlink(String, String),
    Mirror(String, String, Option<String>),
}

fn name(stem: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0..3u8).prop_map(move |number| format!("{stem}{number}")),
        1 => "[ a-c\u{0}-\u{1f}]{0,3}",
        1 => Just("x".repeat(65)),
    ]
}

fn teaming() -> impl Strategy<Value = Teaming> {
    let names = || proptest::collection::vec(name("nic"), 0..3);
    (0..3usize, names(), names()).prop_map(|(balance, active, standby)| Teaming {
        balance: Balance::ALL[balance],
        active,
        standby,
    })
}

fn shaping() -> impl Strategy<Value = Shaping> {
    let limits = || {
        proptest::option::of(
            (0..2_000_000u64, 0..4_000_000u64, 0..100_000u64).prop_map(|(average, peak, burst)| Limits { average, peak, burst }),
        )
    };
    (limits(), limits()).prop_map(|(sent, received)| Shaping { sent, received })
}

fn settings() -> impl Strategy<Value = Settings> {
    (name("s"), 1000..9100u16, shaping(), teaming(), any::<bool>()).prop_map(|(name, mtu, shaping, teaming, promiscuous)| Settings {
        name,
        mtu,
        security: Security {
            promiscuous,
            ..Security::default()
        },
        shaping,
        teaming,
    })
}

fn group() -> impl Strategy<Value = Group> {
    (
        name("g"),
        0..TRUNK + 3,
        proptest::option::of(shaping()),
        proptest::option::of(teaming()),
    )
        .prop_map(|(name, vlan, shaping, teaming)| Group {
            name,
            vlan,
            security: None,
            shaping,
            teaming,
        })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        settings().prop_map(Change::CreateSwitch),
        settings().prop_map(Change::Switch),
        name("s").prop_map(Change::RemoveSwitch),
        (name("s"), group()).prop_map(|(switch, group)| Change::CreateGroup(switch, group)),
        group().prop_map(Change::Group),
        name("g").prop_map(Change::RemoveGroup),
        (name("s"), name("nic")).prop_map(|(switch, card)| Change::Link(switch, card)),
        (name("s"), name("nic")).prop_map(|(switch, card)| Change::Unlink(switch, card)),
        (name("s"), name("p"), proptest::option::of(name("p"))).prop_map(|(switch, from, to)| Change::Mirror(switch, from, to)),
    ]
}

fn apply(network: &mut Network, change: Change) -> Result<(), Refused> {
    match change {
        Change::CreateSwitch(settings) => network.create_switch(settings),
        Change::Switch(settings) => network.change_switch(settings),
        Change::RemoveSwitch(name) => network.remove_switch(&name),
        Change::CreateGroup(switch, group) => network.create_group(&switch, group),
        Change::Group(group) => network.change_group(group),
        Change::RemoveGroup(name) => network.remove_group(&name),
        Change::Link(switch, card) => network.link(&switch, &card),
        Change::Unlink(switch, card) => network.unlink(&switch, &card),
        Change::Mirror(switch, from, to) => network.mirror(&switch, &from, to.as_deref()),
    }
}

proptest! {
    #[test]
    fn no_change_makes_nonsense(changes in proptest::collection::vec(change(), 0..40)) {
        let mut network = Network::default();
        network.resolve(&["nic0".into(), "nic1".into()]);
        for change in changes {
            let before = network.clone();
            match apply(&mut network, change.clone()) {
                Ok(()) => {}
                Err(refused) => {
                    prop_assert_eq!(&network, &before, "{:?} was refused and changed something", change);
                    let (Refused::NotFound(text) | Refused::Invalid(text) | Refused::Conflict(text)) = refused;
                    prop_assert!(!text.is_empty());
                }
            }
            prop_assert_eq!(network.check(), Ok(()), "after {:?}", change);
            let state = State { network: network.clone(), down: vec![(7, 1)] };
            let bytes = state.encode().unwrap();
            prop_assert_eq!(State::decode(&bytes[..bytes.len() - 1]), None);
            prop_assert_eq!(State::decode(&bytes), Some(state));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(state) = State::decode(&bytes) {
            prop_assert_eq!(state.network.check(), Ok(()));
        }
    }
}

#[test]
fn a_switch_that_names_no_uplinks_has_the_rest() {
    let mut network = Network::default();
    network.create_switch(Settings::new("inside")).unwrap();
    network.link("inside", "nic1").unwrap();
    network.resolve(&["nic0".into(), "nic1".into(), "nic2".into()]);
    assert_eq!(network.switches[0].uplinks, Some(vec!["nic0".into(), "nic2".into()]));
    assert!(matches!(network.link("inside", "nic0"), Err(Refused::Conflict(_))));
    network.unlink("vSwitch0", "nic0").unwrap();
    network.link("inside", "nic0").unwrap();
    assert_eq!(network.switches[1].uplinks, Some(vec!["nic1".into(), "nic0".into()]));
}
