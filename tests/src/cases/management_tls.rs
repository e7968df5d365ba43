//! What testssl.sh says of the port that hostd serves.

use super::{
    Case,
    management::{Client, PASSWORD},
    management_settings::{openssl, program, put},
    management_state::boot_with,
};
use crate::{Context, Failure, Outcome, Result, disks::Scratch, ensure};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/tls",
    about: "testssl.sh finds nothing at or above medium once a certificate is brought; before, only that nobody signed the host's own",
    minutes: 3,
    bochs: None,
    run: tls,
}];

/// That nobody else signed a certificate, and that nobody can revoke it therefore.
const OF_ITS_OWN: [&str; 3] = ["cert_chain_of_trust", "cert_trust", "cert_revocation"];

/// What testssl.sh finds at or above medium: names, and what it says.
fn findings(tool: &Path, folder: &Path, client: &Client, arguments: &[&str]) -> Result<Vec<(String, String)>> {
    let report = folder.join("testssl.json");
    // A report that is there already it would leave.
    let _ = fs::remove_file(&report);
    let mut command = Command::new(tool);
    command
        .args([
            "--quiet",
            "--warnings",
            "batch",
            "--ip",
            "one",
            "--severity",
            "MEDIUM",
            "--jsonfile",
        ])
        .arg(&report);
    let output = command.args(arguments).arg(client.address()).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let text = fs::read_to_string(&report).map_err(|error| Failure::new(format!("testssl.sh left no report ({error}):\n{said}")))?;
    // It ends a run by itself when nobody answers, and then finds nothing.
    ensure!(said.contains("Done "), "testssl.sh did not come to its end:\n{said}");
    let found: Value = serde_json::from_str(&text).map_err(|error| Failure::new(format!("{error}: {text}")))?;
    let field = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    Ok(found
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| (field(one, "id"), field(one, "finding")))
        .collect())
}

/// A certificate for this address by an authority of the test, which can revoke it: the authority's file.
fn bring(folder: &Path, client: &Client) -> Result<PathBuf> {
    let file = |name: &str| folder.join(name).display().to_string();
    let (authority, authority_key) = (file("authority.pem"), file("authority-key.pem"));
    let (key, request, certificate, extensions) = (file("key.pem"), file("request.pem"), file("certificate.pem"), file("extensions"));
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let make = |rest: &[&str]| openssl(&[&["req"], &new_key[..], rest].concat());
    make(&[
        "-x509",
        "-days",
        "90",
        "-subj",
        "/CN=Authority of a test",
        "-keyout",
        &authority_key,
        "-out",
        &authority,
    ])?;
    make(&["-subj", "/CN=localhost", "-keyout", &key, "-out", &request])?;
    fs::write(
        &extensions,
        "subjectAltName = DNS:localhost, IP:127.0.0.1\nkeyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth\n\
         basicConstraints = critical, CA:FALSE\ncrlDistributionPoints = URI:http://127.0.0.1/test.crl\n",
    )?;
    let sign = [
        "x509",
        "-req",
        "-days",
        "90",
        "-in",
        &request,
        "-CA",
        &authority,
        "-CAkey",
        &authority_key,
        "-CAcreateserial",
    ];
    openssl(&[&sign[..], &["-extfile", &extensions, "-out", &certificate]].concat())?;
    let chain = fs::read_to_string(&certificate)? + &fs::read_to_string(&authority)?;
    put(
        client,
        "/api/v1/host/certificate",
        &json!({ "certificate": chain, "key": fs::read_to_string(&key)? }),
    )?;
    Ok(authority.into())
}

fn tls(context: &Context) -> Result<Outcome> {
    let Some(tool) = program("testssl") else {
        return Outcome::skip("testssl.sh is missing: run `make setup`");
    };
    let folder = context.environment.logs.join("management-tls");
    fs::create_dir_all(&folder)?;
    let disk = Scratch::empty(&context.environment.logs, context.name, 256 << 20)?;
    let path = disk.path().display().to_string();
    context.environment.images.datastore(&["create", &path, "--label", "main"])?;
    let (host, mut client) = boot_with(context, disk.path(), None)?;
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    let own = findings(&tool, &folder, &client, &["--server-defaults"])?;
    ensure!(
        own.iter().all(|(id, _)| OF_ITS_OWN.contains(&id.as_str())) && own.iter().any(|(id, _)| id == OF_ITS_OWN[0]),
        "of the host's own certificate testssl.sh finds {own:?}"
    );
    let authority = bring(&folder, &client)?;
    let found = findings(&tool, &folder, &client, &["--add-ca", &authority.display().to_string()])?;
    ensure!(found.is_empty(), "testssl.sh finds {found:?}");
    drop(host);
    Ok(Outcome::Passed)
}
