//! `tessera`: manages a host from the command line.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not logged in or not allowed, 4 there is no such thing, 5 something stands in the way.
#![forbid(unsafe_code)]

mod http;
mod show;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand};
use http::{Place, Refusal};
use serde_json::{Value, json};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// What the host can do: its operations come from here.
const DESCRIPTION: &str = include_str!("../../api/openapi.json");

#[derive(Parser)]
#[command(name = "tessera", version, about = "Manages Tessera hosts")]
struct Options {
    /// Show the host's JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Log in; the host's certificate is remembered, and no other is accepted afterwards.
    Login {
        /// `https://HOST:PORT`.
        url: String,
        /// Account.
        #[arg(long, short, default_value = "root")]
        user: String,
        /// File with the password; left out: it is read from the standard input.
        #[arg(long)]
        password_file: Option<PathBuf>,
        /// SHA-256 of the certificate that is to be trusted from now on.
        #[arg(long)]
        trust: Option<String>,
    },
    /// Log out.
    Logout,
    /// The host in short.
    Host,
    /// Machines.
    #[command(subcommand)]
    Vm(Vm),
    /// Files of datastores.
    #[command(subcommand)]
    File(Files),
    /// Datastores.
    Datastores,
    /// Tasks, newest first.
    Tasks,
    /// Events, newest first.
    Events,
    /// Any operation of the API by its name, such as `setDns`; without a name: all of them.
    Call {
        /// Name (`operationId`).
        operation: Option<String>,
        /// `NAME=VALUE` for the path and the query.
        #[arg(long, short)]
        set: Vec<String>,
        /// Body, JSON; `-`: from the standard input.
        #[arg(long, short)]
        body: Option<String>,
    },
    /// Write the completions of a shell.
    Completion {
        /// Shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum Vm {
    /// All machines.
    List,
    /// One machine.
    Show { name: String },
    /// Start.
    Start { name: String },
    /// Stop as if its power failed.
    Stop { name: String },
    /// Ask the guest to shut down.
    Shutdown { name: String },
    /// Reset.
    Reset { name: String },
    /// Stop and keep the memory.
    Suspend { name: String },
    /// Go on.
    Resume { name: String },
    /// Make a machine.
    Create {
        name: String,
        /// Virtual processors.
        #[arg(long, default_value_t = 1)]
        vcpus: u32,
        /// Memory in MiB.
        #[arg(long, default_value_t = 256)]
        memory: u64,
        /// `[datastore] path` of a kernel.
        #[arg(long)]
        kernel: Option<String>,
        /// `[datastore] path` of an initial RAM disk.
        #[arg(long)]
        initramfs: Option<String>,
        /// The kernel's command line.
        #[arg(long)]
        command_line: Option<String>,
        /// `DATASTORE:GIB` for each disk.
        #[arg(long)]
        disk: Vec<String>,
        /// Port group for each network card.
        #[arg(long)]
        network: Vec<String>,
    },
    /// Remove a machine with its disks.
    Delete { name: String },
    /// Clone a machine.
    Clone { name: String, to: String },
    /// Set memory (MiB) or processors of a machine that is off.
    Set {
        name: String,
        #[arg(long)]
        memory: Option<u64>,
        #[arg(long)]
        vcpus: Option<u32>,
    },
    /// Take a snapshot.
    Snapshot { name: String, snapshot: String },
    /// Snapshots.
    Snapshots { name: String },
    /// Make a machine what it was at a snapshot.
    Revert { name: String, snapshot: String },
}

#[derive(Subcommand)]
enum Files {
    /// What is in a folder.
    List { datastore: String, path: Option<String> },
    /// Send a file; one that broke off goes on where it did.
    Upload { file: PathBuf, datastore: String, path: String },
    /// Fetch a file; one that broke off goes on where it did.
    Download { datastore: String, path: String, file: PathBuf },
    /// Remove a file.
    Delete { datastore: String, path: String },
}

fn settings() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("TESSERA_CONFIG") {
        return Ok(path.into());
    }
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    Ok(base.context("neither TESSERA_CONFIG nor HOME is set")?.join("tessera/login.json"))
}

fn place() -> Result<Place> {
    let path = settings()?;
    let text = std::fs::read_to_string(&path).map_err(|_| Refusal {
        status: 401,
        message: "Nobody is logged in: tessera login https://HOST".into(),
    })?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{} is damaged: log in again", path.display()))?;
    let text = |name: &str| value[name].as_str().map(String::from);
    Ok(Place {
        url: text("url").unwrap_or_default(),
        pin: text("pin"),
        token: text("token"),
    })
}

fn login(url: &str, user: &str, password_file: Option<PathBuf>, trust: Option<String>) -> Result<()> {
    let path = settings()?;
    let url = url.trim_end_matches('/');
    let known = place().ok().filter(|known| known.url == url).and_then(|known| known.pin);
    let mut place = Place {
        url: url.into(),
        pin: trust.or(known),
        token: None,
    };
    // Who the host is is known before the password is sent.
    let about = place.send("GET", "/api/v1/about", &[], 0, &mut std::io::empty(), |_| ())?;
    if place.pin.is_none() {
        if let Some(found) = &about.fingerprint {
            eprintln!("The host's certificate is {found}: compare it with what the host's console shows. It is remembered.");
        }
        place.pin.clone_from(&about.fingerprint);
    }
    about.json()?;
    let mut password = String::new();
    match password_file {
        Some(file) => password = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?,
        None => {
            eprint!("Password of {user}: ");
            let quiet = std::process::Command::new("stty").arg("-echo").status();
            std::io::stdin().read_line(&mut password)?;
            if quiet.is_ok_and(|status| status.success()) {
                let _ = std::process::Command::new("stty").arg("echo").status();
            }
            eprintln!();
        }
    }
    let session = place.json(
        "POST",
        "/api/v1/session",
        Some(&json!({ "user": user, "password": password.trim_end_matches(['\r', '\n']), "bearer": true })),
    )?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    // The token is as good as the password.
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options
        .open(&path)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    file.write_all(
        json!({ "url": place.url, "pin": place.pin, "token": session["token"] })
            .to_string()
            .as_bytes(),
    )?;
    println!("Logged in to {url} as {user}");
    if session["mustChangePassword"] == true {
        println!("Change the password: tessera call changePassword --body '{{\"current\":\"…\",\"password\":\"…\"}}'");
    }
    Ok(())
}

/// Every item of a list.
fn list(place: &Place, path: &str) -> Result<Vec<Value>> {
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let joint = if path.contains('?') { '&' } else { '?' };
        let from = cursor.map_or_else(String::new, |cursor: String| format!("&cursor={cursor}"));
        let page = place.json("GET", &format!("/api/v1{path}{joint}limit=1000{from}"), None)?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_string()),
            None => return Ok(items),
        }
    }
}

/// The identifier of what has that name, or is it.
fn find(place: &Place, path: &str, name: &str) -> Result<String> {
    let all = list(place, path)?;
    let own = |one: &&Value| one["id"] == name || one["name"] == name || one["config"]["name"] == name;
    let found = all.iter().find(own).and_then(|one| one["id"].as_str());
    Ok(found.map(String::from).ok_or_else(|| Refusal {
        status: 404,
        message: format!("There is nothing called {name} in {path}"),
    })?)
}

/// Begins long work, shows how far it is, and says how it ended.
fn work(place: &Place, method: &str, path: &str, body: Option<&Value>, quiet: bool) -> Result<Value> {
    let mut task = place.json(method, &format!("/api/v1{path}"), body)?;
    let bar = if quiet {
        indicatif::ProgressBar::hidden()
    } else {
        indicatif::ProgressBar::new(100)
    };
    let mut pause = 20;
    while task["completed"].is_null() {
        bar.set_position(task["progress"].as_u64().unwrap_or(0));
        std::thread::sleep(Duration::from_millis(pause));
        pause = (pause * 2).min(1000);
        let id = task["id"].as_str().context("the host began no task")?.to_string();
        task = place.json("GET", &format!("/api/v1/tasks/{id}"), None)?;
    }
    bar.finish_and_clear();
    match task["state"].as_str() {
        Some("success") => Ok(task),
        _ => bail!("{}", task["error"]["message"].as_str().unwrap_or("the task was cancelled")),
    }
}

fn encode(text: &str, keep: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || keep.as_bytes().contains(&byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

fn vm(place: &Place, command: Vm, json_wanted: bool) -> Result<()> {
    let id = |name: &str| find(place, "/vms", name);
    let begin = |name: &str, method: &str, rest: &str, body: Option<Value>| -> Result<()> {
        let task = work(place, method, &format!("/vms/{}{rest}", id(name)?), body.as_ref(), json_wanted)?;
        if json_wanted {
            println!("{task}");
        }
        Ok(())
    };
    match command {
        Vm::List => show::list(
            &list(place, "/vms")?,
            &[
                "id",
                "config.name",
                "powerState",
                "config.vcpus",
                "config.memory",
                "usage.cpuMhz",
                "addresses",
            ],
            json_wanted,
        ),
        Vm::Show { name } => show::one(&place.json("GET", &format!("/api/v1/vms/{}", id(&name)?), None)?, json_wanted),
        Vm::Start { name } => begin(&name, "POST", "/start", None)?,
        Vm::Stop { name } => begin(&name, "POST", "/stop", None)?,
        Vm::Shutdown { name } => begin(&name, "POST", "/shutdown", None)?,
        Vm::Reset { name } => begin(&name, "POST", "/reset", None)?,
        Vm::Suspend { name } => begin(&name, "POST", "/suspend", None)?,
        Vm::Resume { name } => begin(&name, "POST", "/resume", None)?,
        Vm::Delete { name } => begin(&name, "DELETE", "", None)?,
        Vm::Clone { name, to } => begin(&name, "POST", "/clone", Some(json!({ "name": to })))?,
        Vm::Set { name, memory, vcpus } => begin(
            &name,
            "PATCH",
            "",
            Some(json!({ "memory": memory.map(|mib| mib << 20), "vcpus": vcpus })),
        )?,
        Vm::Snapshot { name, snapshot } => begin(&name, "POST", "/snapshots", Some(json!({ "name": snapshot })))?,
        Vm::Snapshots { name } => show::list(
            &flat(&list(place, &format!("/vms/{}/snapshots", id(&name)?))?),
            &["id", "name", "created", "current"],
            json_wanted,
        ),
        Vm::Revert { name, snapshot } => {
            let all = flat(&list(place, &format!("/vms/{}/snapshots", id(&name)?))?);
            let found = all
                .iter()
                .find(|one| one["id"] == *snapshot || one["name"] == *snapshot)
                .and_then(|one| one["id"].as_str());
            let found = found.ok_or_else(|| Refusal {
                status: 404,
                message: format!("{name} has no snapshot {snapshot}"),
            })?;
            begin(&name, "POST", &format!("/snapshots/{found}/revert"), None)?;
        }
        Vm::Create {
            name,
            vcpus,
            memory,
            kernel,
            initramfs,
            command_line,
            disk,
            network,
        } => {
            let mut disks = Vec::new();
            for one in disk {
                let (store, gib) = one.rsplit_once(':').context("a disk is DATASTORE:GIB")?;
                disks.push(json!({ "datastore": find(place, "/datastores", store)?, "size": gib.parse::<u64>().context("a disk is DATASTORE:GIB")? << 30 }));
            }
            let mut nics = Vec::new();
            for one in network {
                nics.push(json!({ "network": find(place, "/networks/port-groups", &one)? }));
            }
            let firmware = if kernel.is_some() { "direct" } else { "bios" };
            let boot = json!({ "firmware": firmware, "kernel": kernel, "initramfs": initramfs, "commandLine": command_line });
            let body = json!({ "name": name, "vcpus": vcpus, "memory": memory << 20, "disks": disks, "nics": nics, "boot": boot });
            let task = work(place, "POST", "/vms", Some(&body), json_wanted)?;
            println!(
                "{}",
                if json_wanted {
                    task.to_string()
                } else {
                    task["result"].as_str().unwrap_or("").to_string()
                }
            );
        }
    }
    Ok(())
}

/// A tree of snapshots as a list.
fn flat(tree: &[Value]) -> Vec<Value> {
    tree.iter()
        .flat_map(|one| std::iter::once(one.clone()).chain(flat(one["children"].as_array().map_or(&[], Vec::as_slice))))
        .collect()
}

fn files(place: &Place, command: Files, json_wanted: bool) -> Result<()> {
    let url = |datastore: &str, path: &str| -> Result<String> {
        Ok(format!(
            "/api/v1/datastores/{}/files/{}",
            find(place, "/datastores", datastore)?,
            encode(path, "/._-")
        ))
    };
    match command {
        Files::List { datastore, path } => {
            let query = format!(
                "/datastores/{}/files?path={}",
                find(place, "/datastores", &datastore)?,
                encode(&path.unwrap_or_default(), "._-")
            );
            show::list(&list(place, &query)?, &["name", "kind", "size", "modified"], json_wanted);
        }
        Files::Delete { datastore, path } => {
            place.json(
                "DELETE",
                &format!(
                    "/api/v1/datastores/{}/files?path={}",
                    find(place, "/datastores", &datastore)?,
                    encode(&path, "._-")
                ),
                None,
            )?;
        }
        Files::Upload { file, datastore, path } => {
            let mut source = File::open(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            let (size, url) = (source.metadata()?.len(), url(&datastore, &path)?);
            let bar = indicatif::ProgressBar::new(size);
            let mut from = 0;
            for attempt in 0.. {
                source.seek(SeekFrom::Start(from))?;
                let mut headers = vec![("Content-Type", "application/octet-stream".to_string())];
                if from > 0 {
                    headers.push(("Content-Range", format!("bytes {from}-{}/{size}", size - 1)));
                }
                let sent = place
                    .send("PUT", &url, &headers, size - from, &mut source, |sent| {
                        bar.set_position(from + sent)
                    })
                    .and_then(http::Answer::json);
                match sent {
                    Ok(_) => break,
                    Err(error) if error.is::<Refusal>() || attempt == 5 => return Err(error),
                    Err(_) => std::thread::sleep(Duration::from_secs(1 << attempt)),
                }
                let have = place
                    .send("HEAD", &url, &[], 0, &mut std::io::empty(), |_| ())
                    .ok()
                    .and_then(|answer| answer.header("upload-offset")?.parse().ok());
                from = have.filter(|have| *have < size).unwrap_or(0);
            }
            bar.finish_and_clear();
        }
        Files::Download { datastore, path, file } => {
            let mut target = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&file)
                .with_context(|| format!("{} cannot be written", file.display()))?;
            let have = target.metadata()?.len();
            let headers = if have > 0 {
                vec![("Range", format!("bytes={have}-"))]
            } else {
                Vec::new()
            };
            let mut answer = place.send("GET", &url(&datastore, &path)?, &headers, 0, &mut std::io::empty(), |_| ())?;
            match answer.status {
                200 if have == 0 => {}
                206 => {}
                416 => return Ok(()),
                _ => return answer.json().map(|_| ()),
            }
            let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let bar = indicatif::ProgressBar::new(length);
            let count = std::io::copy(&mut bar.wrap_read(answer.stream.by_ref().take(length)), &mut target)?;
            bar.finish_and_clear();
            if count != length {
                bail!("the connection broke after {count} of {length} bytes: the same command goes on from there");
            }
        }
    }
    Ok(())
}

fn call(operation: Option<&str>, set: &[String], body: Option<String>) -> Result<()> {
    let description: Value = serde_json::from_str(DESCRIPTION)?;
    let paths = description["paths"].as_object().context("the description has no paths")?;
    let all = paths.iter().flat_map(|(path, methods)| {
        methods
            .as_object()
            .into_iter()
            .flatten()
            .map(move |(method, what)| (path, method, what))
    });
    let Some(operation) = operation else {
        for (_, _, what) in all {
            println!(
                "{:<24} {}",
                what["operationId"].as_str().unwrap_or(""),
                what["summary"].as_str().unwrap_or("")
            );
        }
        return Ok(());
    };
    let (path, method, what) = all
        .into_iter()
        .find(|(_, _, what)| what["operationId"] == operation)
        .with_context(|| format!("there is no operation {operation}: tessera call lists them"))?;
    let (mut path, mut query) = (path.clone(), Vec::new());
    for one in set {
        let (name, value) = one.split_once('=').context("--set takes NAME=VALUE")?;
        let place = format!("{{{name}}}");
        if path.contains(&place) {
            path = path.replace(&place, &encode(value, "/._-"));
        } else {
            query.push(format!("{name}={}", encode(value, "._-")));
        }
    }
    if path.contains('{') {
        bail!("{path} still has names in braces: --set NAME=VALUE for each");
    }
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let body = match body.as_deref() {
        Some("-") => Some(std::io::read_to_string(std::io::stdin())?),
        _ => body,
    };
    let body = body
        .map(|text| serde_json::from_str(&text).context("the body is not JSON"))
        .transpose()?;
    if body.is_none() && what["requestBody"]["required"] == true {
        bail!("{operation} needs --body");
    }
    let answer = place()?.json(&method.to_uppercase(), &path, body.as_ref())?;
    if !answer.is_null() {
        println!("{}", serde_json::to_string_pretty(&answer)?);
    }
    Ok(())
}

fn run(options: Options) -> Result<()> {
    let wanted = options.json;
    match options.command {
        Command::Login {
            url,
            user,
            password_file,
            trust,
        } => login(&url, &user, password_file, trust)?,
        Command::Logout => {
            place()?.json("DELETE", "/api/v1/session", None)?;
            std::fs::remove_file(settings()?)?;
        }
        Command::Host => show::one(&place()?.json("GET", "/api/v1/host", None)?, wanted),
        Command::Vm(command) => vm(&place()?, command, wanted)?,
        Command::File(command) => files(&place()?, command, wanted)?,
        Command::Datastores => show::list(
            &list(&place()?, "/datastores")?,
            &["id", "name", "capacity", "free", "device", "accessible"],
            wanted,
        ),
        Command::Tasks => show::list(
            &list(&place()?, "/tasks")?,
            &["id", "name", "targetName", "user", "state", "progress", "queued"],
            wanted,
        ),
        Command::Events => show::list(
            &list(&place()?, "/events")?,
            &["time", "severity", "kind", "message", "user"],
            wanted,
        ),
        Command::Call { operation, set, body } => call(operation.as_deref(), &set, body)?,
        Command::Completion { shell } => clap_complete::generate(shell, &mut Options::command(), "tessera", &mut std::io::stdout()),
    }
    Ok(())
}

fn main() -> ExitCode {
    let Err(error) = run(Options::parse()) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("tessera: {error:#}");
    ExitCode::from(match error.downcast_ref::<Refusal>().map(|refusal| refusal.status) {
        Some(401 | 403) => 3,
        Some(404) => 4,
        Some(409 | 412) => 5,
        _ => 1,
    })
}
