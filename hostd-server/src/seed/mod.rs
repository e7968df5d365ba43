//! What cloud-init finds at a machine's first start (data source NoCloud): an image for the CD drive, labelled `cidata`, with three files.
//!
//! What is made here is JSON, which YAML 1.2 includes, so nothing that was typed can be anything but a text in it; user-data of one's own stays as it is.

mod iso;

use crate::model::{Seed, SeedNetwork};
use alloc::{format, string::String, vec::Vec};
use iso::File;
use serde_json::{Value, json};
use sha_crypt::{PasswordHasher, ShaCrypt};

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

/// A password as `/etc/shadow` has it: SHA-512 crypt, which every Linux knows. `salt`: random.
pub(crate) fn hash(password: &str, salt: [u8; 12]) -> Option<String> {
    let hash = ShaCrypt::SHA512.hash_password_with_salt(password.as_bytes(), &salt).ok()?;
    Some(hash.as_str().into())
}

fn account(seed: &Seed, name: &str, password: Option<&str>) -> Value {
    let keys: Vec<&str> = seed.ssh_keys.0.iter().map(|key| &**key).collect();
    let mut account = json!({
        "name": name,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "lock_passwd": password.is_none(),
        "ssh_authorized_keys": keys,
    });
    if let Some(password) = password {
        account["passwd"] = json!(password);
    }
    json!({
        "hostname": &*seed.host_name,
        "preserve_hostname": false,
        // A password can be guessed from afar; it is taken only where there is no other way in.
        "ssh_pwauth": password.is_some() && keys.is_empty(),
        "users": [account],
    })
}

/// The image. `instance`: what cloud-init tells this machine, and this form, from others by; a new one has it begin anew. `password`: the hash of
/// the account's.
#[must_use]
pub fn image(seed: &Seed, instance: &str, password: Option<&str>) -> Option<Vec<u8>> {
    let lines = |value: &Value| format!("{value:#}\n");
    let meta = lines(&json!({ "instance-id": instance, "local-hostname": &*seed.host_name }));
    let data = match (&seed.user_data, &seed.user) {
        (Some(own), _) => String::from(&**own),
        (None, Some(user)) => format!("#cloud-config\n{}", lines(&account(seed, user, password))),
        (None, None) => return None,
    };
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
        let image = text(&image(&seed, "vm-1-1", None).unwrap());
        for part in [
            "#cloud-config\n",
            "\"hostname\": \"web-1\"",
            "\"name\": \"admin\"",
            "ssh-ed25519 AAAAC3Nz admin@desk",
            "10.0.0.5/24",
            "\"via\": \"10.0.0.1\"",
            "\"instance-id\": \"vm-1-1\"",
            "\"lock_passwd\": true",
        ] {
            assert!(image.contains(part), "{part} is missing");
        }
    }

    #[test]
    fn a_password_is_in_it_as_a_hash_alone() {
        let form = r#"{ "hostName": "a", "user": "b", "password": "correct horse" }"#;
        let seed: Seed = serde_json::from_str(form).unwrap();
        let hash = hash("correct horse", [7; 12]).unwrap();
        let image = text(&image(&seed, "i", Some(&hash)).unwrap());
        for part in ["\"dhcp4\": true", "\"lock_passwd\": false", "\"ssh_pwauth\": true", &hash] {
            assert!(image.contains(part), "{part} is missing");
        }
        assert!(!image.contains("correct horse"));
    }

    #[test]
    fn a_hash_is_what_other_programs_make() {
        // `openssl passwd -6 -salt 'rounds=5000$5Qk/5Qk/5Qk/5Qk/' 'correct horse'`; the salt is 12 bytes of 7 as SHA-crypt writes them.
        assert_eq!(
            hash("correct horse", [7; 12]).unwrap(),
            "$6$rounds=5000$5Qk/5Qk/5Qk/5Qk/$uX8UnUcVDPxGRVf525MrilUhGA41bqcY6XoVReSBg8fFrjgHJgzQydcchyoF1jsPvJBXgVz6KXZt3HNv8NjRN1"
        );
    }

    #[test]
    fn own_user_data_stays_as_it_is() {
        let form = json!({ "hostName": "a", "userData": "#!/bin/sh\necho \"it's me\" > /etc/motd\n" });
        let seed: Seed = serde_json::from_value(form).unwrap();
        assert!(text(&image(&seed, "i", None).unwrap()).contains("#!/bin/sh\necho \"it's me\" > /etc/motd\n"));
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
        refused("password", "\"short\"");
        refused("userData", "\"nothing that cloud-init knows\"");
        refused("other", "1");
    }
}
