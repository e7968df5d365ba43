//! `[[switch]]`: a virtual switch, and its `[[switch.port-group]]`. Without any there is one with all cards, and port groups for guests and for the host.

use super::server::narrow;
use crate::{
    document::{Node, Value},
    reader::{Reader, number, text},
    source::{Diagnostics, Located, Span},
    units,
};
use tessera_vswitch::{Balance, Group, Limits, MTU, Mirror, Security, Settings, Shaping, TRUNK, Teaming};

/// A virtual switch.
#[derive(Clone, Debug)]
pub struct Switch {
    /// Where its table stands.
    pub span: Span,
    /// `name`, `mtu` (default 9000), `promiscuous`, `forged-transmits`, `mac-changes` (default no), `shaping`, `teaming`, `uplinks` (default: all cards that no other switch names), `mirrors`
    /// (`{ from = "PORT", to = "PORT" }`), `[[switch.port-group]]`. It may still make no sense, see [`tessera_vswitch::Switch::check`].
    pub switch: tessera_vswitch::Switch,
    /// Where its port groups stand.
    pub groups: Vec<Span>,
}

/// `promiscuous`, `forged-transmits` and `mac-changes`; `None` if there is none of them.
fn security(reader: &mut Reader<'_>, default: Security, diagnostics: &mut Diagnostics) -> Option<Security> {
    let promiscuous = reader.boolean("promiscuous", diagnostics);
    let forged = reader.boolean("forged-transmits", diagnostics);
    let changes = reader.boolean("mac-changes", diagnostics);
    promiscuous.or(forged).or(changes).map(|_| Security {
        promiscuous: promiscuous.unwrap_or(default.promiscuous),
        forged_transmits: forged.unwrap_or(default.forged_transmits),
        mac_changes: changes.unwrap_or(default.mac_changes),
    })
}

/// `{ average = "100 Mbit", peak = "200 Mbit", burst = "64 KiB" }`; the peak is the average unless it is said.
fn limits(shaping: &mut Reader<'_>, key: &'static str, diagnostics: &mut Diagnostics) -> Option<Limits> {
    let node = shaping.get(key)?;
    let mut reader = Reader::from_node(node, format!("{} `{key}`", shaping.what()), diagnostics)?;
    let average = reader
        .require("average", "\"100 Mbit\"", diagnostics)
        .and_then(|node| crate::reader::parsed(node, "average", units::rate, "100 Mbit", diagnostics));
    let peak = reader.parsed("peak", units::rate, "200 Mbit", diagnostics);
    let burst = reader.parsed("burst", units::size, "64 KiB", diagnostics);
    reader.finish(diagnostics);
    let average = average?.value;
    Some(Limits {
        average,
        peak: peak.map_or(average, |peak| peak.value),
        burst: burst.map_or(64 << 10, |burst| burst.value),
    })
}

/// `{ sent = LIMITS, received = LIMITS }`.
fn shaping(owner: &mut Reader<'_>, diagnostics: &mut Diagnostics) -> Option<Shaping> {
    let node = owner.get("shaping")?;
    let mut reader = Reader::from_node(node, format!("`shaping` of {}", owner.what()), diagnostics)?;
    let shaping = Shaping {
        sent: limits(&mut reader, "sent", diagnostics),
        received: limits(&mut reader, "received", diagnostics),
    };
    reader.finish(diagnostics);
    Some(shaping)
}

fn names(reader: &mut Reader<'_>, key: &'static str, diagnostics: &mut Diagnostics) -> Vec<String> {
    reader.texts(key, diagnostics).into_iter().map(|name| name.value).collect()
}

/// `{ balance = "port", active = [...], standby = [...] }`.
fn teaming(owner: &mut Reader<'_>, diagnostics: &mut Diagnostics) -> Option<Teaming> {
    let node = owner.get("teaming")?;
    let mut reader = Reader::from_node(node, format!("`teaming` of {}", owner.what()), diagnostics)?;
    let parse = |text: &str| {
        let found = Balance::ALL.into_iter().find(|balance| balance.name() == text);
        found.ok_or_else(|| "must be \"port\", \"source-mac\" or \"order\"".to_string())
    };
    let teaming = Teaming {
        balance: reader
            .parsed("balance", parse, "port", diagnostics)
            .map_or(Balance::default(), |found| found.value),
        active: names(&mut reader, "active", diagnostics),
        standby: names(&mut reader, "standby", diagnostics),
    };
    reader.finish(diagnostics);
    Some(teaming)
}

/// A number, or `"trunk"`.
fn vlan(node: &Node, diagnostics: &mut Diagnostics) -> Option<u16> {
    match &node.value {
        Value::String(text) if text == "trunk" => Some(TRUNK),
        Value::String(_) => {
            let help = "write a number from 0 to 4094, or \"trunk\"";
            diagnostics.error(node.span, "`vlan` cannot be this text", "neither a number nor \"trunk\"", help);
            None
        }
        _ => number(node, "vlan", 0..=i64::from(TRUNK) - 1, diagnostics).map(|found| narrow(found.value) as u16),
    }
}

fn group(mut reader: Reader<'_>, switch: &Settings, diagnostics: &mut Diagnostics) -> Option<Group> {
    let name = reader.require_text("name", "\"VM Network\"", diagnostics);
    if let Some(name) = &name {
        reader.rename(format!("port group `{}`", name.value));
    }
    let group = Group {
        name: name.clone().unwrap_or_default().value,
        vlan: reader.get("vlan").and_then(|node| vlan(node, diagnostics)).unwrap_or(0),
        security: security(&mut reader, switch.security, diagnostics),
        shaping: shaping(&mut reader, diagnostics),
        teaming: teaming(&mut reader, diagnostics),
    };
    reader.finish(diagnostics);
    name.map(|_| group)
}

fn mirror(mut reader: Reader<'_>, diagnostics: &mut Diagnostics) -> Option<Mirror> {
    let from = reader.require_text("from", "\"debian.0\"", diagnostics);
    let to = reader.require_text("to", "\"watcher.0\"", diagnostics);
    reader.finish(diagnostics);
    Some(Mirror {
        from: from?.value,
        to: to?.value,
    })
}

impl Switch {
    pub(super) fn from_reader(mut reader: Reader<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let span = reader.span();
        let name = reader.require_text("name", "\"vSwitch0\"", diagnostics);
        if let Some(name) = &name {
            reader.rename(format!("switch `{}`", name.value));
        }
        let mtu = reader.number("mtu", i64::from(*MTU.start())..=i64::from(*MTU.end()), diagnostics);
        let settings = Settings {
            name: name.clone().unwrap_or_default().value,
            mtu: mtu.map_or(*MTU.end(), |mtu| narrow(mtu.value) as u16),
            security: security(&mut reader, Security::default(), diagnostics).unwrap_or_default(),
            shaping: shaping(&mut reader, diagnostics).unwrap_or_default(),
            teaming: teaming(&mut reader, diagnostics).unwrap_or_default(),
        };
        let uplinks = match reader.get("uplinks") {
            None => None,
            Some(node) => match &node.value {
                Value::Array(elements) => {
                    let texts = elements.iter().filter_map(|element| text(element, "uplinks", diagnostics));
                    Some(texts.map(|name: Located<String>| name.value).collect())
                }
                other => {
                    let label = format!("this is {}", other.kind());
                    diagnostics.error(node.span, "`uplinks` must be a list", label, "write `uplinks = [\"nic0\"]`");
                    None
                }
            },
        };
        let (mut groups, mut spans) = (Vec::new(), Vec::new());
        for found in reader.tables("port-group", diagnostics) {
            let span = found.span();
            if let Some(group) = group(found, &settings, diagnostics) {
                groups.push(group);
                spans.push(span);
            }
        }
        let mirrors = reader.tables("mirrors", diagnostics);
        let mirrors = mirrors.into_iter().filter_map(|found| mirror(found, diagnostics)).collect();
        reader.finish(diagnostics);
        name.map(|_| Self {
            span,
            switch: tessera_vswitch::Switch {
                settings,
                uplinks,
                groups,
                mirrors,
            },
            groups: spans,
        })
    }
}
