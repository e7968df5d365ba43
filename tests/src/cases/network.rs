//! The network server on network cards, as the emulators have them: each model, loss of the link, removal, and the server's own end. The network is the emulator's own, with a DHCP server in it.

use super::Case;
use crate::{
    Context, Outcome, Result, ensure, fail,
    machine::{Emulator, Model, Nic},
    shell::Host,
    systems::System,
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "net/cards",
        about: "each model of a network card comes up, and what it sends is answered",
        minutes: 1,
        bochs: Some(2),
        run: cards,
    },
    Case {
        name: "net/igb",
        about: "an 82576 comes up with its queues, answers, and can be pulled out; QEMU has one from 8.0 on",
        minutes: 1,
        bochs: None,
        run: igb,
    },
    Case {
        name: "net/link",
        about: "a link that goes down and up again is an event, and the card works afterwards",
        minutes: 1,
        bochs: None,
        run: link,
    },
    Case {
        name: "net/removal",
        about: "a card that is pulled out while it works is an event; the others go on",
        minutes: 1,
        bochs: None,
        run: removal,
    },
    Case {
        name: "net/kill",
        about: "a network server that is killed at work comes back with its cards",
        minutes: 1,
        bochs: Some(2),
        run: kill,
    },
    Case {
        name: "net/must-never",
        about: "the network server holds no disk",
        minutes: 1,
        bochs: None,
        run: must_never,
    },
];

/// Models that the emulator has.
fn models(context: &Context) -> Vec<(Model, &'static str)> {
    match context.emulator {
        Emulator::Qemu => vec![(Model::Virtio, "virtio-net"), (Model::E1000, "e1000"), (Model::E1000e, "e1000e")],
        Emulator::Bochs => vec![(Model::E1000, "e1000")],
    }
}

/// The delivered system without guests, whose network server may speak for itself.
fn system(context: &Context) -> Result<System> {
    Ok(context.product()?.without_guests().exercises_nics())
}

fn nics(models: &[(Model, &'static str)]) -> Vec<Nic> {
    models.iter().map(|(model, _)| Nic::new(*model)).collect()
}

/// Requests addresses over a card until `count` more were answered.
fn exercise(host: &mut Host, nic: &str, count: u32) -> Result<String> {
    let answered = |text: &str| -> Option<u32> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let place = words.iter().position(|word| word.starts_with("answered"))?;
        words.get(place.checked_sub(1)?)?.parse().ok()
    };
    let before = host.neat_command(&format!("nic exercise {nic} {count}"))?;
    let Some(before) = answered(&before) else {
        fail!("{nic} cannot be exercised: {before}")
    };
    let mut asked = 0;
    let text = host.poll_command(&format!("nic exercise {nic}"), |text| {
        asked += 1;
        // A lost request is sent again after a second.
        asked > 100 || answered(text).is_none_or(|now| now >= before + count)
    })?;
    if answered(&text).is_none_or(|now| now < before + count) {
        let show = host.command(&format!("nic show {nic}"))?;
        fail!("requests over {nic} are lost: {text}\n{show}");
    }
    ensure!(text.contains("10.0.2."), "no address was offered over {nic}: {text}");
    Ok(text)
}

/// The line of a card in the list.
fn line<'a>(list: &'a str, nic: &str) -> &'a str {
    list.lines().find(|line| line.starts_with(nic)).unwrap_or_default()
}

fn cards(context: &Context) -> Result<Outcome> {
    let models = models(context);
    let mut host = context.boot(&system(context)?.into(), |config| config.nics = nics(&models))?;
    let list = host.neat_command("nic list")?;
    if !list.contains("nic0") {
        let pci = host.command("pci")?;
        fail!(
            "there is no network card:\n{pci}\n{}{}",
            host.command("pci show 0000:00:02.0")?,
            host.command("log")?
        );
    }
    for (number, (_, driver)) in models.iter().enumerate() {
        let name = format!("nic{number}");
        let line = line(&list, &name);
        for word in ["ready", driver, &Nic::mac(number)] {
            ensure!(line.contains(word), "{name} shows no '{word}':\n{list}");
        }
        ensure!(!line.contains("down"), "{name} has no link:\n{list}");
        exercise(&mut host, &name, 20)?;
        let show = host.neat_command(&format!("nic show {name}"))?;
        ensure!(!show.contains("lost"), "{name} lost something:\n{show}");
    }
    Ok(Outcome::Passed)
}

fn igb(context: &Context) -> Result<Outcome> {
    if !Model::Igb.is_known() {
        return Ok(Outcome::Skipped("this QEMU has no igb: it came with 8.0".into()));
    }
    let mut host = context.boot(&system(context)?.into(), |config| {
        let mut nic = Nic::new(Model::Igb);
        nic.removable = true;
        config.nics = vec![nic];
        config.monitor = true;
    })?;
    let list = host.neat_command("nic list")?;
    ensure!(line(&list, "nic0").contains("igb"), "the card is not there:\n{list}");
    exercise(&mut host, "nic0", 20)?;
    let show = host.neat_command("nic show nic0")?;
    ensure!(show.contains("queues: 4") && !show.contains("lost"), "{show}");
    host.command("kill net")?;
    exercise(&mut host, "nic0", 20)?;
    let Some(monitor) = &host.machine.monitor else {
        fail!("the machine has no monitor")
    };
    monitor.command("device_del nic0")?;
    host.poll_command("nic list", |text| line(text, "nic0").contains("gone"))?;
    Ok(Outcome::Passed)
}

fn link(context: &Context) -> Result<Outcome> {
    let models = models(context);
    let mut host = context.boot(&system(context)?.into(), |config| {
        config.nics = nics(&models);
        config.monitor = true;
    })?;
    for number in 0..models.len() {
        let name = format!("nic{number}");
        for (word, there) in [("off", true), ("on", false)] {
            let Some(monitor) = &host.machine.monitor else {
                fail!("the machine has no monitor")
            };
            monitor.command(&format!("set_link {name} {word}"))?;
            host.poll_command("nic list", |text| line(text, &name).contains("down") == there)?;
        }
        exercise(&mut host, &name, 5)?;
        let log = host.command("log")?;
        for word in ["down", "up"] {
            let expected = format!("{name}: link {word}");
            ensure!(log.contains(&expected), "the log says nothing of '{expected}':\n{log}");
        }
    }
    Ok(Outcome::Passed)
}

fn removal(context: &Context) -> Result<Outcome> {
    let models = [
        (Model::Virtio, "virtio-net"),
        (Model::E1000e, "e1000e"),
        (Model::Virtio, "virtio-net"),
    ];
    let mut host = context.boot(&system(context)?.into(), |config| {
        config.nics = nics(&models);
        for nic in &mut config.nics[..2] {
            nic.removable = true;
        }
        config.monitor = true;
    })?;
    // Those behind bridges are found last, so names do not tell which is which: the addresses do.
    let list = host.neat_command("nic list")?;
    let name = |number: usize| -> Result<String> {
        let found = list.lines().find(|line| line.contains(&Nic::mac(number)));
        match found.and_then(|line| line.split_ascii_whitespace().next()) {
            Some(name) => Ok(name.to_owned()),
            None => fail!("card {number} is not there:\n{list}"),
        }
    };
    let stays = name(2)?;
    for number in 0..2 {
        let goes = name(number)?;
        exercise(&mut host, &goes, 5)?;
        host.command(&format!("nic exercise {goes} 1000"))?;
        let Some(monitor) = &host.machine.monitor else {
            fail!("the machine has no monitor")
        };
        monitor.command(&format!("device_del nic{number}"))?;
        host.poll_command("nic list", |text| line(text, &goes).contains("gone"))?;
        let log = host.command("log")?;
        ensure!(
            log.contains(&format!("{goes} is gone")),
            "the log says nothing of the removal:\n{log}"
        );
        exercise(&mut host, &stays, 5)?;
    }
    Ok(Outcome::Passed)
}

fn kill(context: &Context) -> Result<Outcome> {
    let models = models(context);
    let mut host = context.boot(&system(context)?.into(), |config| config.nics = nics(&models))?;
    for _ in 0..3 {
        for number in 0..models.len() {
            let name = format!("nic{number}");
            exercise(&mut host, &name, 3)?;
            host.command(&format!("nic exercise {name} 1000"))?;
        }
        host.command("kill net")?;
    }
    for number in 0..models.len() {
        exercise(&mut host, &format!("nic{number}"), 3)?;
    }
    let ps = host.neat_command("ps net")?;
    ensure!(ps.contains('3'), "the network server was not started three times again:\n{ps}");
    Ok(Outcome::Passed)
}

fn must_never(context: &Context) -> Result<Outcome> {
    // This one is as it is delivered.
    let system = context.product()?.without_guests();
    let mut host = context.boot(&system.into(), |config| config.nics = vec![Nic::new(Model::E1000e)])?;
    let pci = host.neat_command("pci")?;
    for line in pci.lines() {
        let (disk, card) = (
            line.contains("storage") || line.contains("SATA"),
            line.contains("Ethernet controller"),
        );
        let holder = line.split_ascii_whitespace().any(|word| word == "net");
        ensure!(!disk || !holder, "the network server holds a disk:\n{pci}");
        ensure!(!card || holder, "the network card is not the network server's:\n{pci}");
    }
    ensure!(pci.contains("Ethernet controller"), "there is no network card:\n{pci}");
    let refused = host.command("nic exercise nic0 1")?;
    ensure!(
        refused.contains("speaks for others only"),
        "a system that is no test's speaks for itself: {refused}"
    );
    Ok(Outcome::Passed)
}
