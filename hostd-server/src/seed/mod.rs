//! What cloud-init finds at a machine's first start (data source NoCloud): an image for the CD drive, labelled `cidata`, with three files.
//!
//! All three are JSON, which YAML 1.2 includes, so nothing that was typed can be anything but a text in them.

mod iso;

use crate::model::{Seed, SeedNetwork};
use alloc::{format, string::String, vec::Vec};
use iso::File;
use serde_json::{Value, json};

/// The label that cloud-init looks for.
const LABEL: &str = "cidata";

fn network(network: Option<&SeedNetwork>) -> Value {
    let card = match network {
        None => json!({ "match": { "name": "e*" }, "dhcp4": true }),
        Some(network) => {
            let mut card = json!({
                "match": { "name": "e*" },
                "addresses": [format!("{}/{}", &*network.address, network.prefix_length.get())],
                "nameservers": { "addresses": network.name_servers.0.iter().map(|server| &**server).collect::<Vec<&str>>() },
            });
            if let Some(gateway) = &network.gateway {
                card["routes"] = json!([{ "to": "0.0.0.0/0", "via": &**gateway }]);
            }
            card
        }
    };
    json!({ "version": 2, "ethernets": { "first": card } })
}

fn user(seed: &Seed) -> Value {
    let keys: Vec<&str> = seed.ssh_keys.0.iter().map(|key| &**key).collect();
    json!({
        "hostname": &*seed.host_name,
        "preserve_hostname": false,
        "ssh_pwauth": false,
        "users": [{
            "name": &*seed.user,
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": true,
            "ssh_authorized_keys": keys,
        }],
    })
}

/// The image. `instance`: what cloud-init tells this machine, and this form, from others by; a new one has it begin anew.
#[must_use]
pub fn image(seed: &Seed, instance: &str) -> Option<Vec<u8>> {
    let lines = |value: &Value| format!("{value:#}\n");
    let meta = lines(&json!({ "instance-id": instance, "local-hostname": &*seed.host_name }));
    let mut data = String::from("#cloud-config\n");
    data.push_str(&lines(&user(seed)));
    let network = lines(&network(seed.network.as_ref()));
    let file = |short, name, data| File { short, name, data };
    iso::image(
        LABEL,
        &[
            file("META_DAT.", "meta-data", meta.as_bytes()),
            file("NETWORK_.", "network-config", network.as_bytes()),
            file("USER_DAT.", "user-data", data.as_bytes()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(image: &[u8]) -> String {
        String::from_utf8_lossy(image).into_owned()
    }

    #[test]
    fn the_form_is_in_it() {
        let form = r#"{ "hostName": "web-1", "user": "admin", "sshKeys": ["ssh-ed25519 AAAAC3Nz admin@desk"],
            "network": { "address": "10.0.0.5", "prefixLength": 24, "gateway": "10.0.0.1", "nameServers": ["10.0.0.2"] } }"#;
        let seed: Seed = serde_json::from_str(form).unwrap();
        let image = text(&image(&seed, "vm-1-1").unwrap());
        for part in [
            "#cloud-config\n",
            "\"hostname\": \"web-1\"",
            "\"name\": \"admin\"",
            "ssh-ed25519 AAAAC3Nz admin@desk",
            "10.0.0.5/24",
            "\"via\": \"10.0.0.1\"",
            "\"instance-id\": \"vm-1-1\"",
        ] {
            assert!(image.contains(part), "{part} is missing");
        }
        let seed: Seed = serde_json::from_str(r#"{ "hostName": "a", "user": "b", "sshKeys": [] }"#).unwrap();
        assert!(text(&super::image(&seed, "i").unwrap()).contains("\"dhcp4\": true"));
    }

    #[test]
    fn what_is_no_name_key_or_address_is_refused() {
        let refused = |field: &str, value: &str| {
            let mut form = json!({ "hostName": "a", "user": "b", "sshKeys": ["ssh-rsa AAAA"] });
            form[field] = serde_json::from_str(value).unwrap();
            assert!(serde_json::from_value::<Seed>(form.clone()).is_err(), "{form}");
        };
        refused("hostName", "\"a b\"");
        refused("hostName", "\"-a\"");
        refused("user", "\"Root\"");
        refused("user", "\"a\\nb: c\"");
        refused("sshKeys", "[\"ssh-rsa AAAA\\n- evil\"]");
        refused("sshKeys", "[\"nothing\"]");
        refused("network", "{\"address\":\"1.2.3\",\"prefixLength\":24}");
        refused("network", "{\"address\":\"1.2.3.4\",\"prefixLength\":33}");
        refused("other", "1");
    }
}
