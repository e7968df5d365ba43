use super::*;
use crate::{
    terminal::COLUMNS,
    testing::{FakeHost, Screen, vm},
};
use proptest::prelude::*;
use tessera_abi::Error;
use tessera_proto::supervisor::WriteExecute;
use tessera_proto::vm_manager::VmState;

/// Runs a line; returns what it printed and how it ended.
fn run_on(host: &mut FakeHost, screen: &mut Screen, memory: &mut Memory, line: &str) -> Result<(), Failure> {
    let mut context = Context {
        host,
        out: Output::new(screen, false),
        memory,
    };
    run(&mut context, line)
}

fn ok(host: &mut FakeHost, line: &str) -> String {
    let mut screen = Screen::default();
    run_on(host, &mut screen, &mut Memory::default(), line).unwrap_or_else(|failure| panic!("{line}: {failure:?}"));
    screen.text()
}

fn fails(host: &mut FakeHost, line: &str) -> Failure {
    run_on(host, &mut Screen::default(), &mut Memory::default(), line).expect_err(line)
}

/// Every form that only shows something.
const SHOWING: &[&str] = &[
    "help",
    "help ps",
    "ps --help",
    "ps",
    "ps -t",
    "ps shell",
    "caps",
    "caps shell",
    "mem",
    "mem check",
    "cpu",
    "irq",
    "disk list",
    "disk show nvme0",
    "disk show sata0",
    "disk read nvme0 0",
    "disk read nvme0 0x5 2",
    "nic",
    "nic show nic0",
    "nic show nic1",
    "switch",
    "switch show vSwitch0",
    "switch groups",
    "switch addresses vSwitch0",
    "port",
    "port show debian.0",
    "port show nic0",
    "port show a-machine-of-a-long-name.7",
    "capture",
    "capture read 1",
    "ping ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3",
    "datastore",
    "datastore list",
    "datastore ls main",
    "datastore ls main empty",
    "datastore show main debian",
    "datastore show main iso",
    "datastore changed main debian",
    "datastore changed main debian 7",
    "pci",
    "pci show 0000:00:04.0",
    "pci show 00:1f.2",
    "iommu",
    "iommu faults",
    "ipc",
    "vm list",
    "vm info debian",
    "vm show debian",
    "vm info broken",
    "vm exits debian",
    "vm exits debian 1",
    "vm memory debian",
    "vm memory debian 64",
    "vm regs debian",
    "vm regs debian 1",
    "vm screen debian",
    "log",
    "log -n 5",
    "log kernel",
    "log panic",
    "trace",
    "trace show",
    "trace show 2",
    "trace chrome",
    "uptime",
    "version",
    "help trace",
    "help vm",
];

#[test]
fn everything_shown_fits_the_terminal_and_says_something() {
    for line in SHOWING {
        let text = ok(&mut FakeHost::default(), line);
        assert!(!text.trim().is_empty(), "{line}");
        for row in text.lines() {
            assert!(row.chars().count() <= COLUMNS, "{line}: {} columns: {row}", row.chars().count());
            assert!(!row.chars().any(char::is_control), "{line}: {row:?}");
        }
    }
}

#[test]
fn every_command_explains_itself() {
    let list = ok(&mut FakeHost::default(), "help");
    let mut names = Vec::new();
    for command in COMMANDS {
        assert!(list.contains(&format!("  {} ", command.name())), "{}", command.name());
        assert!(!command.usage().is_empty() && command.help().len() > 40);
        assert!(command.usage().iter().all(|form| form.starts_with(command.name())));
        let text = ok(&mut FakeHost::default(), &format!("help {}", command.name()));
        assert!(text.contains(command.summary()));
        names.push(command.name());
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), COMMANDS.len(), "two commands of one name");
}

#[test]
fn whatever_cannot_be_reached_is_an_error_with_a_reason_and_no_panic() {
    for error in [Error::ServerDied, Error::NoRight, Error::TimedOut] {
        for line in [
            "ps",
            "ps -t",
            "caps",
            "caps shell",
            "mem",
            "mem check",
            "cpu",
            "irq",
            "ipc",
            "vm list",
            "log",
            "log -f",
            "trace on",
            "kill shell",
        ] {
            let failure = fails(
                &mut FakeHost {
                    broken: Some(error),
                    ..FakeHost::default()
                },
                line,
            );
            assert!(failure.what.starts_with("cannot "), "{line}: {failure:?}");
            assert!(!failure.hint.is_empty(), "{line}: {failure:?}");
        }
    }
}

#[test]
fn actions_reach_the_system() {
    for (line, done) in [
        ("kill vmx.debian", "kill vmx.debian"),
        ("restart shell", "restart shell"),
        ("vm start idle", "start idle"),
        ("vm stop debian", "stop debian"),
        ("vm reset debian", "reset debian"),
        ("vm power debian", "power debian"),
        ("vm nmi debian 1", "nmi debian 1"),
        ("trace on", "mask 0xff"),
        ("trace on switch vm-exit", "mask 0x21"),
        ("trace off", "mask 0x0"),
        ("reboot -f", "Reboot"),
        ("reboot panic", "Panic"),
        ("poweroff -f", "PowerOff"),
    ] {
        let mut host = FakeHost::default();
        assert!(!ok(&mut host, line).is_empty());
        assert_eq!(host.done, [done], "{line}");
    }
}

#[test]
fn only_who_sleeps_is_woken() {
    let mut host = FakeHost::default();
    let awake = fails(&mut host, "vm wake debian");
    assert!(awake.what.contains("does not sleep"), "{}", awake.what);
    assert!(host.done.is_empty(), "the button would mean something else");
    host.asleep = true;
    assert!(ok(&mut host, "vm info debian").contains("sleeps"));
    ok(&mut host, "vm wake debian");
    assert_eq!(host.done, ["power debian"]);
}

#[test]
fn a_machine_s_functions_of_the_host_are_shown() {
    let shown = ok(&mut FakeHost::default(), "vm show debian");
    assert!(shown.contains("0000:00:05.0 of the host, Ethernet controller 8086:10d3"), "{shown}");
    assert!(
        shown.contains("PCI function 0000:00:09.0, which this host does not have"),
        "{shown}"
    );
}

#[test]
fn changes_of_switches_reach_the_network_server() {
    for (line, done) in [
        ("switch create inside", &["CreateSwitch", "\"inside\""][..]),
        ("switch set vSwitch0 mtu 1500", &["ChangeSwitch", "mtu: 1500"]),
        ("switch set vSwitch0 promiscuous no", &["ChangeSwitch", "promiscuous: false"]),
        (
            "switch set vSwitch0 sent 8000/16000/32",
            &["average: 8000000", "peak: 16000000", "burst: 32768"],
        ),
        ("switch set vSwitch0 standby nic3,nic4", &["standby: [\"nic3\", \"nic4\"]"]),
        ("switch set vSwitch0 active none", &["active: []"]),
        ("switch remove inside", &["RemoveSwitch(\"inside\")"]),
        ("switch link inside nic1", &["Link", "nic: \"nic1\""]),
        ("switch unlink inside nic1", &["Unlink"]),
        ("switch mirror vSwitch0 debian.0 watcher.0", &["to: Some(\"watcher.0\")"]),
        ("switch mirror vSwitch0 debian.0 off", &["to: None"]),
        ("switch group add vSwitch0 \"Lab Two\" 100", &["name: \"Lab Two\"", "vlan: 100"]),
        ("switch group set \"VM Network\" vlan trunk", &["ChangeGroup", "vlan: 4095"]),
        // What it does not say is still as the switch has it.
        (
            "switch group set \"VM Network\" mac-changes no",
            &["promiscuous: true, forged_transmits: true, mac_changes: false", "shaping: None"],
        ),
        ("switch group set Lab sent inherit", &["shaping: None", "security: Some"]),
        ("switch group remove Lab", &["RemoveGroup(\"Lab\")"]),
        ("port link debian.0 down", &["PortLink", "up: false"]),
        (
            "vm create web 1G image:k nic \"VM Network\" e1000e nic Lab -- a=\"b c\"",
            &["create web [(\"VM Network\", E1000e), (\"Lab\", Virtio)] a=\"b c\""],
        ),
        ("capture start debian.0 128", &["capture debian.0 128"]),
        ("capture stop 7", &["stop 7"]),
        ("capture remove 7", &["remove 7"]),
    ] {
        let mut host = FakeHost::default();
        ok(&mut host, line);
        assert_eq!(host.done.len(), 1, "{line}");
        for word in done {
            assert!(host.done[0].contains(word), "{line}: {}", host.done[0]);
        }
    }
}

#[test]
fn a_capture_is_printed_once() {
    let mut host = FakeHost::default();
    let (mut screen, mut memory) = (Screen::default(), Memory::default());
    run_on(&mut host, &mut screen, &mut memory, "capture read 1").unwrap();
    let text = screen.text();
    assert!(text.starts_with("-----BEGIN PCAPNG-----\nAAECAwQF"), "{text}");
    assert_eq!(memory.captures, [(1, 2500)]);
    // 2500 bytes, 57 a line.
    assert_eq!(text.lines().count(), 2 + 44);
    let mut screen = Screen::default();
    run_on(&mut host, &mut screen, &mut memory, "capture read 1").unwrap();
    assert_eq!(screen.text().lines().count(), 2);
}

#[test]
fn mistakes_are_named_and_change_nothing() {
    for (line, what, hint) in [
        ("pss", "unknown command `pss`", "Did you mean `ps`?"),
        ("frobnicate", "unknown command `frobnicate`", "Type `help` for a list of commands."),
        ("kill", "`kill` takes one server", "help kill"),
        ("kill shel", "there is no server `shel`", "Did you mean `shell`?"),
        (
            "kill init",
            "init cannot be ended: every server depends on it",
            "`reboot` restarts the machine.",
        ),
        ("caps nobody-at-all", "there is no server `nobody-at-all`", "`ps` lists them."),
        ("vm strat debian", "`vm` knows no `strat`", "Did you mean `vm start`?"),
        ("vm start debain", "there is no virtual machine `debain`", "Did you mean `debian`?"),
        ("vm start debian", "debian runs already", "`vm console debian` opens its console."),
        ("vm stop idle", "idle does not run", "`vm start idle` starts it."),
        ("vm start", "`vm start` needs the name of a machine", "help vm"),
        ("vm regs debian 2", "debian has no virtual processor 2", "It has 2, counted from 0."),
        ("vm regs debian x", "the virtual processor must be a number, not `x`", "help vm"),
        ("trace frobnicate", "`trace` knows no `frobnicate`", "help trace"),
        ("trace on swtich", "there is no event `swtich`", "Did you mean `switch`?"),
        ("trace live", "tracing is off", "`trace on` starts it."),
        ("log -n many", "the number of lines must be a number, not `many`", "help log"),
        ("switch show vSwitch1", "there is no switch `vSwitch1`", "Did you mean `vSwitch0`?"),
        (
            "switch set vSwitch0 mtu big",
            "an MTU is a number of bytes, not `big`",
            "help switch",
        ),
        ("switch set vSwitch0 speed 3", "a switch has no `speed`", "help switch"),
        (
            "switch group set \"VM Network",
            "a name in double quotes does not end",
            "help switch",
        ),
        (
            "switch group add vSwitch0 Lab 4095",
            "a VLAN is 0 to 4094, or `trunk`, not `4095`",
            "help switch",
        ),
        (
            "vm create web 1G image:k nic \"VM",
            "a name in double quotes does not end",
            "help vm",
        ),
        ("port show debian.1", "there is no port `debian.1`", "Did you mean `debian.0`?"),
        ("port link debian.0 left", "`port link` is no form of `port`", "help port"),
        ("ping", "`ping` needs an address", "help ping"),
        ("ping 10.0.2.2 0", "the number of requests is 1 to 1000, not 0", "help ping"),
        ("ping 10.0.2.2 x", "the number of requests must be a number, not `x`", "help ping"),
        ("capture stop x", "a capture must be a number, not `x`", "help capture"),
        ("uptime now", "`uptime` takes no argument `now`", "help uptime"),
        (
            "reboot",
            "1 virtual machine still runs: debian",
            "`vm stop` them, or `reboot -f` ends them as if their power failed.",
        ),
    ] {
        let mut host = FakeHost::default();
        assert_eq!(fails(&mut host, line), Failure::new(what, hint), "{line}");
        assert!(host.done.is_empty(), "{line}: {:?}", host.done);
    }
}

#[test]
fn shares_are_those_since_the_last_look() {
    let (mut host, mut screen, mut memory) = (FakeHost::default(), Screen::default(), Memory::default());
    run_on(&mut host, &mut screen, &mut memory, "ps").unwrap();
    // 0.75 s of 5.001 s since boot.
    assert!(screen.text().contains("14.9%"), "{}", screen.text());
    screen.clear();
    host.now += 1_000_000 - 1000;
    host.servers[3].cpu_ticks += 500_000;
    // Started anew since: all its time is new.
    host.servers[2].cpu_ticks = 600_000;
    host.servers[2].started_tsc = host.now;
    run_on(&mut host, &mut screen, &mut memory, "ps").unwrap();
    let text = screen.text();
    let shares: Vec<&str> = text.split_whitespace().filter(|word| word.ends_with('%')).collect();
    assert_eq!(shares, ["0.0%", "0.0%", "60.0%", "50.0%"]);
}

#[test]
fn a_writable_and_executable_page_is_reported() {
    let mut host = FakeHost {
        wx: WriteExecute {
            pages: 9,
            violations: 2,
            first: 0x1000,
        },
        ..FakeHost::default()
    };
    assert!(fails(&mut host, "mem check").what.contains("10 pages are writable and executable"));
}

#[test]
fn without_machines_reboot_needs_no_force_and_a_dead_init_does_not_stop_it() {
    let mut host = FakeHost {
        vms: vec![vm("idle", VmState::Stopped)],
        ..FakeHost::default()
    };
    ok(&mut host, "reboot");
    assert_eq!(host.done, ["Reboot"]);
}

#[test]
fn live_output_ends_at_a_key() {
    let mut screen = Screen::default();
    screen.later = [b"xyz".to_vec(), b"\x03".to_vec()].into();
    run_on(&mut FakeHost::default(), &mut screen, &mut Memory::default(), "log -f").unwrap();
    assert!(screen.text().contains("line 29"));
    let mut screen = Screen::default();
    screen.later = [b"q".to_vec()].into();
    let mut memory = Memory {
        trace_mask: 1,
        ..Memory::default()
    };
    run_on(&mut FakeHost::default(), &mut screen, &mut memory, "trace live").unwrap();
}

#[test]
fn chrome_trace_between_the_markers_is_json() {
    let text = ok(&mut FakeHost::default(), "trace chrome");
    let body = text
        .strip_prefix("-----BEGIN CHROME TRACE-----\n")
        .unwrap()
        .strip_suffix("-----END CHROME TRACE-----\n")
        .unwrap();
    let json: serde_json::Value = serde_json::from_str(body).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    assert!(events.iter().any(|event| event["name"] == "shell"), "{text}");
}

#[test]
fn completion_knows_commands_servers_machines_and_words() {
    let mut host = FakeHost::default();
    for (line, candidate) in [
        ("", "restart"),
        ("ki", "kill"),
        ("kill ", "vmm.debian"),
        ("vm ", "console"),
        ("vm console ", "debian"),
        ("help ", "trace"),
        ("trace ", "chrome"),
        ("trace on switch ", "vm-exit"),
        ("log ", "kernel"),
    ] {
        assert!(candidates(&mut host, line).iter().any(|known| known == candidate), "{line}");
    }
    assert!(candidates(&mut host, "vm list ").is_empty());
    assert!(candidates(&mut host, "nonsense ").is_empty());
}

proptest! {
    #[test]
    fn no_line_makes_a_command_panic(line in "[ -~]{0,80}", start in 0usize..COMMANDS.len(), broken in any::<bool>()) {
        let mut host = FakeHost { broken: broken.then_some(Error::ServerDied), ..FakeHost::default() };
        let (mut screen, mut memory) = (Screen::typed(&[3; 100]), Memory::default());
        let _ = run_on(&mut host, &mut screen, &mut memory, &line);
        let _ = candidates(&mut host, &line);
        // Arguments of any kind for a command that exists; those that wait end at the Ctrl-C typed.
        let line = format!("{} {line}", COMMANDS[start].name());
        let _ = run_on(&mut host, &mut screen, &mut memory, &line);
        let _ = candidates(&mut host, &line);
    }
}

#[test]
fn looking_at_a_trace_pauses_it() {
    for line in ["trace show", "trace show 3", "trace chrome"] {
        let mut host = FakeHost::default();
        let mut memory = Memory {
            trace_mask: 5,
            ..Memory::default()
        };
        run_on(&mut host, &mut Screen::default(), &mut memory, line).unwrap();
        assert_eq!(host.done, ["mask 0x0", "mask 0x5"], "{line}");
    }
}

#[test]
fn changes_of_datastores_reach_the_server() {
    let mut host = FakeHost::default();
    for line in [
        "datastore mkdir main iso",
        "datastore disk main debian 10G thick checksums",
        "datastore grow main debian 20G",
        "datastore move main a b",
        "datastore remove main b",
        "datastore snapshot main debian now",
        "datastore unsnapshot main debian now",
        "datastore revert main debian now",
        "datastore clone main debian now other",
        "datastore format nvme0n1 3 main",
    ] {
        ok(&mut host, line);
    }
    assert_eq!(host.done.len(), 10);
    assert!(
        host.done[1].contains("size: 10737418240, thick: true, checksums: true"),
        "{}",
        host.done[1]
    );
    assert!(host.done[9].contains("partition: 3"), "{}", host.done[9]);
    for line in [
        "datastore disk main debian",
        "datastore disk main debian 10X",
        "datastore disk main debian 10G thin",
        "datastore format nvme0n1 main main",
        "datastore lst",
    ] {
        fails(&mut host, line);
    }
    assert_eq!(host.done.len(), 10);
}
