//! Mistakes in descriptions: each is found, at its place, with what to do.

use crate::common::SYSTEM;
use image_builder::{
    check::check,
    source::{Invalid, Severity},
    system::{Description, Need, System},
};
use std::path::Path;

fn read(text: &str, sets: &[&str]) -> Result<(System, Invalid), Invalid> {
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let mut description = Description::parse("system.toml", text, Path::new(""), &sets);
    if !description.diagnostics.has_errors() {
        check(&description.system, &mut description.diagnostics);
    }
    description.finish()
}

/// The only mistake of `SYSTEM` with `from` replaced by `to`: its message, position and help.
fn mistake(from: &str, to: &str) -> (String, String, String) {
    assert!(SYSTEM.contains(from), "{from}");
    let invalid = read(&SYSTEM.replacen(from, to, 1), &[]).expect_err(to);
    let errors: Vec<_> = invalid
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Error)
        .collect();
    let [only] = errors.as_slice() else {
        panic!("{} errors for {to}:\n{invalid}", errors.len())
    };
    (only.message.clone(), invalid.sources.position(only.span), only.help.clone())
}

#[test]
fn the_example_is_read_as_it_is_meant() {
    let (system, warnings) = read(SYSTEM, &[]).expect("no mistake");
    assert!(warnings.diagnostics.is_empty(), "{warnings}");
    assert_eq!(system.servers.len(), 3);
    assert_eq!(system.servers[0].grants[1].need, Need::IoPorts(0x3f8, 8));
    assert!(!system.servers[2].fpu && system.servers[2].per_vm);
    assert_eq!((system.vms[0].memory.value, system.vms[0].vcpus), (256 << 20, 2));
}

#[test]
fn switches_are_read_as_they_are_meant() {
    let text = r#"
[[switch]]
name = "outside"
uplinks = ["nic0", "nic1"]
mtu = 1500
promiscuous = true
teaming = { balance = "order", active = ["nic1"], standby = ["nic0"] }
mirrors = [{ from = "debian.0", to = "watcher.0" }]
[[switch.port-group]]
name = "Lab"
vlan = 100
mac-changes = true
shaping = { sent = { average = "8 Mbit", burst = "16 KiB" } }
[[switch.port-group]]
name = "Trunk"
vlan = "trunk"
[[switch]]
name = "inside"
uplinks = []
"#;
    let (system, _) = read(&format!("{SYSTEM}{text}"), &[]).expect("no mistake");
    let [outside, inside] = system.switches.as_slice() else {
        panic!("two switches")
    };
    let (outside, inside) = (&outside.switch, &inside.switch);
    assert_eq!(outside.uplinks, Some(vec!["nic0".into(), "nic1".into()]));
    assert_eq!((inside.uplinks.clone(), inside.settings.mtu), (Some(vec![]), 9000));
    assert_eq!(outside.settings.teaming.standby, vec!["nic0".to_string()]);
    assert_eq!(
        (outside.mirrors[0].from.as_str(), outside.mirrors[0].to.as_str()),
        ("debian.0", "watcher.0")
    );
    let [lab, trunk] = outside.groups.as_slice() else {
        panic!("two groups")
    };
    // What a group does not say is as the switch has it.
    let security = outside.security(lab);
    assert!(security.promiscuous && security.mac_changes && !security.forged_transmits);
    let sent = outside.shaping(lab).sent.expect("limits");
    assert_eq!((sent.average, sent.peak, sent.burst), (8_000_000, 8_000_000, 16_384));
    assert_eq!((lab.vlan, trunk.vlan), (100, tessera_vswitch::TRUNK));
}

#[test]
fn a_port_group_that_is_not_there_is_a_warning() {
    let text = "[[switch]]\nname = \"s\"\n[[switch.port-group]]\nname = \"Lab\"\n";
    let nic = "nics = [{ port-group = \"Lap\" }]\n";
    let vm = SYSTEM.find("[[vm]]").expect("a machine") + "[[vm]]\n".len();
    let both = format!("{}{nic}{}{text}", &SYSTEM[..vm], &SYSTEM[vm..]);
    let found = match read(&both, &[]) {
        Ok((_, found)) | Err(found) => found,
    };
    let warning = found
        .diagnostics
        .iter()
        .find(|it| it.severity == Severity::Warning)
        .expect("a warning");
    assert_eq!(warning.message, "there is no port group `Lap`");
    assert_eq!(warning.help, "did you mean `Lab`?");
}

#[test]
fn the_delivered_system_has_no_mistake() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut description = Description::read(&root.join("system.toml"), &[]).expect("readable");
    check(&description.system, &mut description.diagnostics);
    let (_, warnings) = description.finish().expect("no mistake");
    assert!(warnings.diagnostics.is_empty(), "{warnings}");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    let (message, position, help) = mistake("priority = 48", "priority = 48\npriorty = 3");
    assert_eq!(message, "server `shell` has no key `priorty`");
    assert_eq!(position, "system.toml:7:1");
    assert_eq!(help, "did you mean `priority`?");
}

#[test]
fn every_mistake_is_found_at_its_place() {
    for (from, to, message, position, help) in [
        (
            "priority = 48",
            "priority = 64",
            "`priority` cannot be 64",
            "system.toml:6:12",
            "from 0 to 63",
        ),
        ("priority = 48\n", "", "has no `priority`", "system.toml:4:1", "add `priority = 40`"),
        (
            "name = \"shell\"",
            "name = \"Shell\"",
            "characters other than",
            "system.toml:5:8",
            "a-z",
        ),
        ("name = \"shell\"", "name = \"init\"", "cannot be a [[server]] too", "", "remove"),
        (
            "\"init\" }",
            "\"inti\" }",
            "no server provides `inti`",
            "system.toml:8:8",
            "did you mean `init`?",
        ),
        (
            "\"0x3f8-0x3ff\"",
            "\"0x3ff-0x3f8\"",
            "`io-ports` cannot be",
            "system.toml:9:21",
            "0x3f8-0x3ff",
        ),
        (
            "{ io-ports =",
            "{ ioports =",
            "no kind of grant `ioports`",
            "system.toml:9:10",
            "did you mean `io-ports`?",
        ),
        (
            "\"kernel-log\"",
            "\"kernel-lok\"",
            "no kind of grant",
            "system.toml:11:7",
            "did you mean `kernel-log`?",
        ),
        ("\"kernel-log\"", "{ kernel-log = 1 }", "has no value", "system.toml:11:9", "alone"),
        ("{ irq = 4 }", "\"irq\"", "needs a value", "system.toml:10:12", "{ irq"),
        (
            "{ irq = 4 }",
            "{ irq = 4, use = \"init\" }",
            "gives one thing",
            "system.toml:10:12",
            "one line",
        ),
        ("{ irq = 4 }", "{ irq = \"4\" }", "must be a number", "system.toml:10:20", "from 0"),
        (
            "priority = 48",
            "priority = 48\nvcpu-memory = \"64 KiB\"",
            "has virtual processors",
            "system.toml:7:15",
            "`memory` alone",
        ),
        ("vcpus = 2", "vcpus = 9", "`vcpus` cannot be 9", "system.toml:24:9", "1 to 8"),
        ("256 MiB", "255 MiB", "cannot have 255 MiB", "system.toml:23:10", "256 MiB"),
        ("256 MiB", "256", "`memory` cannot be", "system.toml:23:10", "256 MiB"),
        (
            "kernel = \"linux\"",
            "kernel = \"linus\"",
            "no file `linus`",
            "system.toml:25:10",
            "did you mean `linux`?",
        ),
        (
            "priority = 44",
            "priority = 44\nslots = 100",
            "must be a power of two",
            "system.toml:15:9",
            "128",
        ),
        (
            "priority = 44",
            "priority = 44\nrestart = \"maybe\"",
            "`restart` cannot be",
            "system.toml:15:11",
            "always",
        ),
        (
            "priority = 44",
            "priority = 44\nbudget = \"20 ms\"",
            "budget of 20000 us",
            "system.toml:15:10",
            "shorten",
        ),
        (
            "priority = 44",
            "priority = 44\nheap = \"5 B\"",
            "`heap` cannot be",
            "system.toml:15:8",
            "KiB",
        ),
        (
            "priority = 44",
            "priority = 44\nstack = \"16 MiB\"",
            "`stack` of `vmx` cannot be",
            "system.toml:15:9",
            "8 MiB",
        ),
        ("name = \"vmx\"", "name = \"vmy\"", "no server `vmx`", "", "per-vm"),
        (
            "log = \"kernel-log\"",
            "buffer = { share = \"vmx + 64 KiB\" }",
            "`shell` cannot share memory with `vmx`",
            "system.toml:11:10",
            "start at boot",
        ),
        (
            "log = \"kernel-log\"",
            "buffer = { share = \"shall + 64 KiB\" }",
            "which is no server",
            "system.toml:11:10",
            "did you mean `shell`?",
        ),
        (
            "[[vm]]",
            "[[switch]]\nname = \"s\"\nmtu = 900\n[[vm]]",
            "`mtu` cannot be 900",
            "system.toml:23:7",
            "from 1280 to 9000",
        ),
        (
            "[[vm]]",
            "[[switch]]\nname = \"s\"\nuplink = []\n[[vm]]",
            "switch `s` has no key `uplink`",
            "system.toml:23:1",
            "did you mean `uplinks`?",
        ),
        (
            "[[vm]]",
            "[[switch]]\nname = \"s\"\nteaming = { balance = \"hash\" }\n[[vm]]",
            "`balance` cannot be \"hash\"",
            "system.toml:23:23",
            "port",
        ),
        (
            "[[vm]]",
            "[[switch]]\nname = \"s\"\n[[switch.port-group]]\nname = \"g\"\nvlan = 4095\n[[vm]]",
            "`vlan` cannot be 4095",
            "system.toml:25:8",
            "from 0 to 4094",
        ),
        (
            "[[vm]]",
            "[[switch]]\nname = \"s\"\nuplinks = [\"nic0\"]\nteaming = { standby = [\"nic1\"] }\n[[vm]]",
            "no uplink of `s`",
            "system.toml:21:1",
            "port-group",
        ),
        (
            "[[vm]]",
            "[[switch]]\nname = \"s\"\nuplinks = [\"nic0\"]\n[[switch]]\nname = \"t\"\nuplinks = [\"nic0\"]\n[[vm]]",
            "`nic0` is an uplink of two switches",
            "system.toml:24:1",
            "uplinks",
        ),
        (
            "[[vm]]",
            "[[switch]]\nname = \"s\"\nshaping = { sent = { average = \"8 Mbit\", peak = \"1 Mbit\" } }\n[[vm]]",
            "the peak of `sent` is below its average",
            "system.toml:21:1",
            "shaping",
        ),
        (
            "log = \"kernel-log\"",
            "buffer = { share = \"shell + 64 MiB\" }",
            "`share` cannot be",
            "system.toml:11:20",
            "storage + 256 KiB",
        ),
        ("[[vm]]", "[vm]", "`vm` must be a list of tables", "system.toml:21:1", "[[vm]]"),
        (
            "[files]\nlinux",
            "[files]\n\"a b\" = \"x\"\nlinux",
            "characters other than",
            "system.toml:3:1",
            "a-z",
        ),
    ] {
        let found = mistake(from, to);
        assert!(found.0.contains(message), "{to}: {}", found.0);
        assert!(found.1.starts_with(position), "{to}: {}", found.1);
        assert!(found.2.contains(help), "{to}: {}", found.2);
    }
}

/// Changes after which more than one thing is wrong: one of them is `message`.
#[test]
fn mistakes_that_draw_others_are_found_too() {
    for (from, to, message) in [
        ("name = \"vmx\"", "name = \"shell\"", "two servers are called `shell`"),
        (
            "name = \"vmx\"",
            "name = \"vmx\"\nprogram = \"init\"",
            "runs the root server's program",
        ),
        (
            "per-vm = true",
            "per-vm = true\ngrants = { a = { irq = 9 } }",
            "cannot own a device",
        ),
        (
            "per-vm = true",
            "per-vm = true\ngrants = { a = { provide = \"b\" } }",
            "cannot provide an endpoint",
        ),
        ("[files]", "[files]\nlinux = \"a\"", "duplicate key"),
        ("product = ", "product : ", ""),
    ] {
        let invalid = read(&SYSTEM.replacen(from, to, 1), &[]).expect_err(to);
        assert!(
            invalid.diagnostics.iter().any(|found| found.message.contains(message)),
            "{to}: {invalid}"
        );
    }
}

#[test]
fn devices_have_one_owner() {
    for (grant, what) in [("{ io-ports = \"0x3ff-0x400\" }", "I/O ports"), ("{ irq = 4 }", "interrupt line 4")] {
        let text = format!("{SYSTEM}[[server]]\nname = \"thief\"\npriority = 1\n[server.grants]\nloot = {grant}\n");
        let invalid = read(&text, &[]).expect_err("two owners");
        assert!(invalid.diagnostics[0].message.contains(what), "{invalid}");
        assert_eq!(invalid.diagnostics[0].others.len(), 1);
    }
    let text = format!("{SYSTEM}[[server]]\nname = \"other\"\npriority = 1\n[server.grants]\nmine = {{ io-ports = \"0x400\" }}\n");
    assert!(read(&text, &[]).is_ok());
}

#[test]
fn what_a_program_must_never_hold_cannot_be_granted() {
    for grant in [
        "{ io-ports = \"0x80\" }",
        "{ irq = 9 }",
        "{ pci = \"storage\" }",
        "{ mmio = \"0xfed00000 + 4 KiB\" }",
        "\"trace\"",
        "\"kernel-log\"",
    ] {
        for program in ["vmm", "vmx"] {
            // The rule follows the program, whatever the server is called.
            let text =
                format!("{SYSTEM}[[server]]\nname = \"guise\"\nprogram = \"{program}\"\npriority = 1\n[server.grants]\nx = {grant}\n");
            let invalid = read(&text, &[]).expect_err("must never");
            assert!(
                invalid.diagnostics.iter().any(|found| found.message.contains("must never hold")),
                "{invalid}"
            );
        }
    }
}

#[test]
fn classes_of_pci_functions_have_one_owner_who_may_have_them() {
    let server =
        |name: &str, class: &str| format!("[[server]]\nname = \"{name}\"\npriority = 1\n[server.grants]\nx = {{ pci = \"{class}\" }}\n");
    let message = |servers: &str| {
        let text = format!("{SYSTEM}{servers}");
        read(&text, &[]).map_or_else(|invalid| invalid.to_string(), |_| String::new())
    };
    assert_eq!(message(&(server("storage", "storage") + &server("net", "network"))), "");
    assert!(message(&server("storage", "network")).contains("`storage` must never hold network controllers"));
    assert!(message(&server("net", "storage")).contains("`net` must never hold storage controllers"));
    assert!(message(&(server("storage", "storage") + &server("other", "storage"))).contains("both own the PCI functions of a class"));
    let unknown = message(&server("storage", "storrage"));
    assert!(
        unknown.contains("no class of PCI functions `storrage`") && unknown.contains("did you mean `storage`?"),
        "{unknown}"
    );
    assert!(unknown.contains("system.toml:"), "{unknown}");
}

#[test]
fn several_mistakes_are_answered_at_once_in_order() {
    let invalid = read(&SYSTEM.replace("priority", "piority"), &[]).expect_err("mistakes");
    assert_eq!(invalid.diagnostics.len(), 6);
    assert!(invalid.diagnostics.is_sorted_by_key(|found| found.span.start));
    let text = invalid.to_string();
    assert!(
        text.contains("system.toml:6:1") && text.contains("did you mean `priority`?"),
        "{text}"
    );
}

#[test]
fn overrides_replace_values_and_are_named_in_messages() {
    let sets = [
        "vm.debian.vcpus=4",
        "vm.debian.memory=1 GiB",
        "vm.debian.autostart=true",
        "kernel.command-line=\"debug\"",
    ];
    let (system, _) = read(SYSTEM, &sets).expect("good");
    assert_eq!(system.command_line.value, "debug");
    assert_eq!(
        (system.vms[0].vcpus, system.vms[0].memory.value, system.vms[0].autostart),
        (4, 1 << 30, true)
    );
    let invalid = read(SYSTEM, &["vm.debian.vcpus=9"]).expect_err("range");
    assert_eq!(
        invalid.sources.position(invalid.diagnostics[0].span),
        "--set vm.debian.vcpus=9:1:17"
    );
}

proptest::proptest! {
    #[test]
    fn any_description_is_answered(lines in proptest::collection::vec("(\\[\\[?(server|vm|files|kernel)\\]?\\]|(name|priority|memory|kernel|vcpus|grants|slots) = (1|-5|\"x\"|\"1 MiB\"|\\[\\]|\\{ a = \"trace\" \\}))", 0..12)) {
        if let Err(invalid) = read(&lines.join("\n"), &[]) {
            proptest::prop_assert!(!invalid.diagnostics.is_empty());
            let _ = invalid.to_string();
        }
    }
}

/// `SYSTEM` with a storage server and these disks: the messages of its mistakes, and help.
fn with_disks(disks: &str, vmm: &str, storage: &str) -> Vec<(String, String)> {
    let server = format!(
        "[[server]]\nname = \"storage\"\npriority = 42\n[server.grants]\ndoor = {{ provide = \"storage\" }}\n{storage}\n\n[[vm]]\ndisks = {disks}\n"
    );
    let text = SYSTEM.replacen("[[vm]]\n", &server, 1).replacen(
        "per-vm = true\nfpu = false\n",
        &format!("per-vm = true\nfpu = false\n{vmm}\n"),
        1,
    );
    assert!(text.contains("disks") && (vmm.is_empty() || text.contains(vmm)), "{text}");
    match read(&text, &[]) {
        Ok(_) => vec![],
        Err(invalid) => {
            let errors = invalid.diagnostics.iter().filter(|found| found.severity == Severity::Error);
            errors.map(|found| (found.message.clone(), found.help.clone())).collect()
        }
    }
}

#[test]
fn disks_are_read_and_checked() {
    const WAY: &str = "[server.grants]\nstorage = { use = \"storage\" }";
    const LENT: &str = "guests = { use = \"init\" }";
    let good = |disks: &str| with_disks(disks, WAY, LENT);
    assert_eq!(
        good("[{ device = \"nvme0\" }, { store = \"main\", disk = \"a.tvd\", serial = \"S1\" }]"),
        []
    );
    assert_eq!(
        good("[{ device = \"sata1\", partition = 1 }, { device = \"sata1\", partition = 2 }]"),
        []
    );
    let shared = "[{ device = \"cd0\", read-only = true }, { device = \"cd0\", read-only = true }]";
    assert_eq!(good(shared), []);
    let only = |disks: &str| {
        let found = good(disks);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    assert!(only("[{ read-only = true }]").0.ends_with("is nowhere"));
    assert!(only("[{ store = \"main\" }]").0.contains("needs both"));
    assert!(only("[{ device = \"a\", store = \"b\", disk = \"c\" }]").0.contains("at once"));
    assert!(
        only("[{ store = \"a\", disk = \"b\", partition = 1 }]")
            .0
            .contains("no `partition`")
    );
    assert!(only("[{ device = \"a\", partition = 0 }]").0.contains("partition"));
    assert!(only("[{ device = \"a\", serial = \"one two\" }]").0.contains("serial"));
    assert!(
        only("[{ device = \"a\" }, { device = \"a\", partition = 3, read-only = true }]")
            .0
            .contains("the same bytes")
    );
    assert_eq!(only("[{ device = \"a\", serail = \"b\" }]").1, "did you mean `serial`?");
    let many = ["{ device = \"a\", read-only = true }"; 9].join(", ");
    assert!(only(&format!("[{many}]")).0.contains("9 disks"));
    let one = "[{ device = \"nvme0\" }]";
    let missing = with_disks(one, "", LENT);
    assert!(missing.iter().any(|(message, _)| message.contains("no way to them")), "{missing:?}");
    let blind = with_disks(one, WAY, "");
    assert!(blind[0].0.contains("not lent the memory"), "{blind:?}");
}

#[test]
fn functions_of_the_host_are_read_and_checked() {
    let with = |list: &str| SYSTEM.replacen("[[vm]]\n", &format!("[[vm]]\npassthrough = {list}\n"), 1);
    let text =
        with("[{ pci = \"0000:03:00.1\" }, { pci = \"8086:10d3\", index = 1 }, { pci = \"network\" }, { pci = \"network\", index = 2 }]");
    let (system, _) = read(&text, &[]).unwrap();
    let read: Vec<String> = system.vms[0].passthrough.iter().map(|passed| passed.value.to_string()).collect();
    let wanted = [
        "PCI function 0000:03:00.1",
        "PCI function 1 of `8086:10d3`",
        "PCI function 0 of `network`",
        "PCI function 2 of `network`",
    ];
    assert_eq!(read, wanted);
    let only = |list: &str| {
        let (message, _, help) = mistake("[[vm]]\n", &format!("[[vm]]\npassthrough = {list}\n"));
        (message, help)
    };
    assert!(only("[{ index = 1 }]").0.contains("has no `pci`"));
    assert!(only("[{ pci = \"disk\" }]").0.contains("`pci`"));
    assert!(only("[{ pci = \"storage\", index = -1 }]").0.contains("`index` cannot be -1"));
    assert_eq!(only("[{ pci = \"storage\", inedx = 1 }]").1, "did you mean `index`?");
    assert!(
        only("[{ pci = \"storage\" }, { pci = \"storage\", index = 0 }]")
            .0
            .contains("twice")
    );
    let many: Vec<String> = (0..5).map(|index| format!("{{ pci = \"storage\", index = {index} }}")).collect();
    assert!(only(&format!("[{}]", many.join(", "))).0.contains("than 4"));
}
