//! The capability graph: what it says, and that it can be read.

use crate::common::SYSTEM;
use image_builder::{
    graph::{Graph, Hold, Layout, Section},
    system::{Description, System},
};
use std::path::Path;

fn system(text: &str) -> System {
    Description::parse("system.toml", text, Path::new(""), &[])
        .finish()
        .expect("no mistake")
        .0
}

fn delivered() -> System {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Description::read(&root.join("system.toml"), &[])
        .expect("readable")
        .finish()
        .expect("no mistake")
        .0
}

/// What a holder has lines to, of a section.
fn held(graph: &Graph, holder: &str, section: Section) -> Vec<String> {
    let index = graph.holders.iter().position(|found| found.name == holder).expect(holder);
    let edges = graph.edges.iter().filter(|edge| edge.holder == index);
    edges
        .map(|edge| &graph.resources[edge.resource])
        .filter(|resource| resource.section == section)
        .map(|resource| resource.title.clone())
        .collect()
}

/// The "must never" rules, on the graph of the system as it is delivered.
#[test]
fn the_delivered_system_keeps_hardware_from_machines() {
    let graph = Graph::new(&delivered());
    for holder in ["vmm", "vmx"] {
        assert_eq!(held(&graph, holder, Section::Device), [""; 0], "{holder}");
        assert_eq!(held(&graph, holder, Section::Kernel), [""; 0], "{holder}");
    }
    assert!(!held(&graph, "vmx", Section::Machine).contains(&"guest memory".to_string()));
    assert!(held(&graph, "vmm", Section::Machine).contains(&"guest memory".to_string()));
    assert_eq!(
        held(&graph, "shell", Section::Device),
        ["I/O ports 0x3f8 to 0x3ff", "interrupt line 4"]
    );
    assert!(!held(&graph, "shell", Section::Machine).contains(&"guest memory".to_string()));
}

/// The storage server reaches disks and nothing else of the machine: no network card, no ports or registers of its own choice, no part of the kernel; and disks are nobody else's.
#[test]
fn the_delivered_storage_server_holds_disks_alone() {
    let graph = Graph::new(&delivered());
    assert_eq!(held(&graph, "storage", Section::Device), ["PCI storage controllers"]);
    for section in [Section::Kernel, Section::Machine, Section::File] {
        assert_eq!(held(&graph, "storage", section), [""; 0]);
    }
    for holder in graph.holders.iter().filter(|holder| holder.name != "storage") {
        let devices = held(&graph, &holder.name, Section::Device);
        assert!(
            !devices.iter().any(|device| device.contains("storage")),
            "{}: {devices:?}",
            holder.name
        );
    }
}

/// The network server likewise: network cards, and no disk.
#[test]
fn the_delivered_network_server_holds_network_cards_alone() {
    let graph = Graph::new(&delivered());
    assert_eq!(held(&graph, "net", Section::Device), ["PCI network controllers"]);
    for section in [Section::Kernel, Section::Machine, Section::File] {
        assert_eq!(held(&graph, "net", section), [""; 0]);
    }
    for holder in graph.holders.iter().filter(|holder| holder.name != "net") {
        let devices = held(&graph, &holder.name, Section::Device);
        assert!(
            !devices.iter().any(|device| device.contains("network")),
            "{}: {devices:?}",
            holder.name
        );
    }
}

#[test]
fn each_grant_is_a_line() {
    let graph = Graph::new(&system(SYSTEM));
    assert_eq!(
        graph.holders.iter().map(|holder| holder.name.as_str()).collect::<Vec<_>>(),
        ["init", "shell", "vmx", "vmm"]
    );
    let shell: Vec<_> = graph
        .edges
        .iter()
        .filter(|edge| edge.holder == 1)
        .map(|edge| (edge.name.as_str(), edge.hold))
        .collect();
    assert_eq!(
        shell,
        [
            ("init", Hold::Uses),
            ("com1", Hold::Uses),
            ("com1-irq", Hold::Uses),
            ("log", Hold::Uses)
        ]
    );
    assert_eq!(graph.edges.iter().filter(|edge| edge.hold == Hold::Always).count(), 2);
    assert_eq!(graph.machines[0].details[0], "256 MiB, 2 vCPUs");
}

#[test]
fn who_manages_machines_is_shown_to_reach_their_control() {
    let text = SYSTEM.replacen("init = { use", "vm_manager = { use", 1);
    let graph = Graph::new(&system(&text));
    let asked: Vec<_> = graph
        .edges
        .iter()
        .filter(|edge| edge.hold == Hold::OnRequest)
        .map(|edge| graph.resources[edge.resource].title.clone())
        .collect();
    assert_eq!(asked, ["control endpoint of its VMX", "control endpoint of its VMM"]);
}

/// A larger system: boxes must not cover each other, and lines must end at their boxes.
#[test]
fn nothing_covers_anything() {
    let mut text = SYSTEM.to_string();
    for number in 0..12 {
        text += &format!(
            "[[server]]\nname = \"server-{number}\"\npriority = 5\n[server.grants]\nown = {{ provide = \"service-{number}\" }}\nport = {{ io-ports = \"{}\" }}\n\
             next = {{ use = \"service-{}\" }}\n",
            0x1000 + number,
            (number + 5) % 12
        );
        text += &format!("[[vm]]\nname = \"guest-{number}\"\nmemory = \"64 MiB\"\nkernel = \"linux\"\n");
    }
    let graph = Graph::new(&system(&text));
    let layout = Layout::new(&graph);
    let boxes: Vec<_> = layout.machines.iter().chain(&layout.holders).chain(&layout.resources).collect();
    for (index, one) in boxes.iter().enumerate() {
        assert!(one.x >= 0.0 && one.y >= 0.0 && one.x + one.width <= layout.width && one.bottom() <= layout.height);
        for other in &boxes[..index] {
            assert!(!one.overlaps(other), "{one:?} {other:?}");
        }
    }
    for (edge, (from, to)) in graph.edges.iter().zip(&layout.edges) {
        let (holder, resource) = (&layout.holders[edge.holder], &layout.resources[edge.resource]);
        assert!(*from > holder.y && *from < holder.bottom() && *to > resource.y && *to < resource.bottom());
    }
}

#[test]
fn the_drawing_is_well_formed_and_repeats() {
    let mut described = system(SYSTEM);
    described.product = "<A & \"B\">".into();
    let drawing = Graph::new(&described).to_svg();
    assert_eq!(drawing, Graph::new(&described).to_svg());
    let document = roxmltree::Document::parse(&drawing).expect("well-formed XML");
    let texts: Vec<_> = document
        .descendants()
        .filter(|node| node.has_tag_name("text"))
        .filter_map(|node| node.text())
        .collect();
    for expected in ["<A & \"B\">: who holds what", "shell", "com1-irq", "interrupt line 4", "debian"] {
        assert!(texts.contains(&expected), "{expected}");
    }
}

#[test]
fn the_drawing_in_the_documentation_is_of_the_delivered_system() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/capabilities.svg");
    let kept = std::fs::read_to_string(path).expect("docs/capabilities.svg; `make graph` draws it");
    assert!(
        kept == Graph::new(&delivered()).to_svg(),
        "docs/capabilities.svg is not of this system.toml: run `make graph`"
    );
}
