//! The host: summary, settings, services, servers.

use super::{ListQuery, NoQuery, page, route};
use crate::{
    api::{
        Api, ApiError, Call, Needs,
        route::{Accepted, Json, Route, Tagged},
        work,
    },
    host::{DnsSpec, HostPower},
    http::Method,
    model::{
        About, Backup, BackupEntry, Capability, Certificate, CertificateRequest, DnsConfig, Hardware, Health, Host, HostUsage, Licence,
        Lockdown, Page, Product, ResolveRequest, Resolved, Sensor, ServerEdge, ServerGraph, ServerNode, Service, ServicePatch,
        ServicePolicy, Severity, Switched, TimeConfig, TimeSettings,
        text::{Few, HostName, Notes, Ranged},
    },
    time::rfc3339,
};
use alloc::{format, rc::Rc, string::String, vec::Vec};

type Result<T> = core::result::Result<T, ApiError>;
const READ: Needs = Needs::Privilege("System.Read");
const CONFIG: Needs = Needs::Privilege("Host.Config");

pub(super) fn routes(all: &mut Vec<Route>) {
    all.extend([
        route(Method::Get, "/about", Needs::Nothing, "about", "Product and version", about),
        route(Method::Get, "/host", READ, "getHost", "The host in short", get_host),
        route(Method::Get, "/host/sensors", READ, "listSensors", "Health of the hardware", sensors),
        route(
            Method::Post,
            "/host/reboot",
            Needs::Privilege("Host.Power"),
            "rebootHost",
            "Start the host again",
            |call, _: NoQuery, (): ()| power(call, "host.reboot", HostPower::Reboot),
        ),
        route(
            Method::Post,
            "/host/shutdown",
            Needs::Privilege("Host.Power"),
            "shutdownHost",
            "Switch the host off",
            |call, _: NoQuery, (): ()| power(call, "host.shutdown", HostPower::Shutdown),
        ),
        route(
            Method::Put,
            "/host/maintenance-mode",
            Needs::Privilege("Host.Maintenance"),
            "setMaintenanceMode",
            "Take no new work, or take it again",
            maintenance,
        ),
        route(
            Method::Get,
            "/host/lockdown-mode",
            READ,
            "getLockdownMode",
            "Lockdown",
            get_lockdown,
        ),
        route(
            Method::Put,
            "/host/lockdown-mode",
            Needs::Privilege("Authorization.Manage"),
            "setLockdownMode",
            "Let in nobody but accounts that are excepted, or all again",
            lockdown,
        ),
        route(Method::Get, "/host/time", READ, "getTime", "Clock and time servers", get_time),
        route(Method::Put, "/host/time", CONFIG, "setTime", "Set time servers", set_time),
        route(Method::Get, "/host/dns", READ, "getDns", "Host name and name servers", get_dns),
        route(
            Method::Put,
            "/host/dns",
            CONFIG,
            "setDns",
            "Set host name and name servers",
            set_dns,
        ),
        route(Method::Post, "/host/dns/resolve", READ, "resolve", "Look a name up", resolve),
        route(
            Method::Get,
            "/host/certificate",
            READ,
            "getCertificate",
            "The certificate",
            certificate,
        ),
        route(
            Method::Put,
            "/host/certificate",
            CONFIG,
            "setCertificate",
            "Replace the certificate",
            set_certificate,
        ),
        route(
            Method::Post,
            "/host/certificate/renew",
            CONFIG,
            "renewCertificate",
            "Make a new certificate of the host's own, for its present name and addresses",
            renew_certificate,
        ),
        route(
            Method::Get,
            "/host/backup",
            Needs::Privilege("Authorization.Manage"),
            "backup",
            "Everything that is set, to keep elsewhere; holds hashes of passwords",
            backup,
        ),
        route(
            Method::Put,
            "/host/backup",
            Needs::Privilege("Authorization.Manage"),
            "restore",
            "Set everything as a backup says",
            restore,
        ),
        route(
            Method::Get,
            "/licences",
            READ,
            "listLicences",
            "Licences of what the image holds",
            licences,
        ),
        route(Method::Get, "/services", READ, "listServices", "Services", services),
        route(
            Method::Post,
            "/services/{service}/restart",
            CONFIG,
            "restartService",
            "Start a service again",
            restart_service,
        ),
        route(
            Method::Post,
            "/services/{service}/start",
            CONFIG,
            "startService",
            "Start a service",
            start_service,
        ),
        route(
            Method::Post,
            "/services/{service}/stop",
            CONFIG,
            "stopService",
            "Stop a service",
            stop_service,
        ),
        route(
            Method::Patch,
            "/services/{service}",
            CONFIG,
            "editService",
            "Set when a service runs",
            edit_service,
        ),
        route(
            Method::Get,
            "/servers",
            READ,
            "getServers",
            "Servers and the messages between them",
            servers,
        ),
        route(
            Method::Get,
            "/servers/{server}/capabilities",
            READ,
            "listCapabilities",
            "What a server can reach",
            capabilities,
        ),
        route(
            Method::Post,
            "/servers/{server}/restart",
            CONFIG,
            "restartServer",
            "Start a server again",
            restart_server,
        ),
    ]);
}

async fn about(call: Call, _: NoQuery, (): ()) -> Result<Json<About>> {
    let facts = call.api.host.facts().await?;
    Ok(Json(About {
        product: "Tessera".into(),
        version: facts.version,
        api: "v1".into(),
    }))
}

async fn get_host(call: Call, _: NoQuery, (): ()) -> Result<Json<Host>> {
    let api = &call.api;
    let (facts, usage) = (api.host.facts().await?, api.host.usage().await?);
    let stores = super::storage::stores(&call).await?;
    let interfaces = api.host.interfaces().await?;
    let capacity: u64 = stores.iter().map(|store| store.capacity).sum();
    let free: u64 = stores.iter().map(|store| store.free).sum();
    let settings = api.data.borrow().settings.clone();
    let worst = facts
        .sensors
        .iter()
        .map(|(_, _, health)| super::storage::health(health))
        .max_by_key(|health| match health {
            Health::Gray => 0,
            Health::Green => 1,
            Health::Yellow => 2,
            Health::Red => 3,
        });
    Ok(Json(Host {
        id: "host-1".into(),
        name: settings.host_name,
        product: Product {
            name: "Tessera".into(),
            version: facts.version,
            build: facts.build,
        },
        usage: HostUsage {
            cpu_mhz: api.counters.borrow().now("host-1", "cpu.usage") * f64::from(facts.cpu_mhz) / 100.0,
            cpu_capacity_mhz: u64::from(facts.threads) * u64::from(facts.cpu_mhz),
            memory: usage.memory,
            memory_capacity: facts.memory,
            storage: capacity.saturating_sub(free),
            storage_capacity: capacity,
        },
        hardware: Hardware {
            vendor: facts.vendor,
            model: facts.model,
            serial: facts.serial,
            cpu_model: facts.cpu_model,
            sockets: facts.sockets,
            cores: facts.cores,
            threads: facts.threads,
            cpu_mhz: facts.cpu_mhz,
            virtualization: facts.virtualization,
            memory: facts.memory,
        },
        uptime_seconds: usage.uptime_ms / 1000,
        time: rfc3339(api.now()),
        health: worst.unwrap_or(Health::Gray),
        maintenance_mode: settings.maintenance,
        lockdown_mode: settings.lockdown,
        state_persistent: api.store.persistent(),
        management_addresses: interfaces
            .into_iter()
            .flat_map(|one| one.ipv4.into_iter().chain(one.ipv6))
            .collect(),
    }))
}

async fn sensors(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Sensor>>> {
    let all = call.api.host.facts().await?.sensors;
    Ok(page(
        all.into_iter()
            .map(|(name, reading, health)| Sensor {
                name,
                reading,
                health: super::storage::health(&health),
            })
            .collect(),
        &query,
    ))
}

async fn power(call: Call, name: &'static str, action: HostPower) -> Result<Accepted> {
    let api = &call.api;
    let running = api.host.vms().await?.iter().filter(|vm| vm.run == crate::host::VmRun::On).count();
    if running > 0 && !api.data.borrow().settings.maintenance {
        return Err(ApiError::conflict(format!(
            "{running} machines run; stop them, or enter maintenance mode to end them with the host"
        )));
    }
    work::begin(&call, name, Some(("host-1", "host")), false, move |progress| async move {
        progress.api.host.host_power(action).await?;
        Ok(None)
    })
    .await
}

async fn settings(call: &Call, kind: &str, message: String, change: impl FnOnce(&mut crate::api::data::Settings)) -> Result<()> {
    let changes = {
        let mut data = call.api.data.borrow_mut();
        call.check_version(data.settings.version)?;
        change(&mut data.settings);
        data.keep_settings()
    };
    call.api.commit(changes).await?;
    call.api.tell("host", "host-1", "updated");
    call.api
        .event(Severity::Info, kind, message, Some(&call.user()), Some("host-1"))
        .await;
    Ok(())
}

async fn maintenance(call: Call, _: NoQuery, Json(wanted): Json<Switched>) -> Result<Json<Switched>> {
    let enabled = wanted.enabled;
    let message = format!("Maintenance mode {}", if enabled { "entered" } else { "left" });
    settings(&call, "host.maintenance", message, |settings| settings.maintenance = enabled).await?;
    Ok(Json(wanted))
}

fn lockdown_shown(call: &Call) -> Lockdown {
    let settings = &call.api.data.borrow().settings;
    let exceptions = settings
        .lockdown_exceptions
        .iter()
        .filter_map(|name| crate::model::text::UserName::parse(name).ok())
        .collect();
    Lockdown {
        enabled: settings.lockdown,
        exceptions: Some(Few(exceptions)),
    }
}

async fn get_lockdown(call: Call, _: NoQuery, (): ()) -> Result<Json<Lockdown>> {
    Ok(Json(lockdown_shown(&call)))
}

async fn lockdown(call: Call, _: NoQuery, Json(wanted): Json<Lockdown>) -> Result<Json<Lockdown>> {
    let user = call.user();
    let mut exceptions: Vec<String> = match wanted.exceptions {
        Some(names) => names.0.into_iter().map(|name| name.into_string()).collect(),
        None => call.api.data.borrow().settings.lockdown_exceptions.clone(),
    };
    // Whoever locks the host down must be able to open it.
    if wanted.enabled && !exceptions.contains(&user) {
        exceptions.push(user);
    }
    let message = format!("Lockdown mode {}", if wanted.enabled { "on" } else { "off" });
    settings(&call, "host.lockdown", message, |settings| {
        (settings.lockdown, settings.lockdown_exceptions) = (wanted.enabled, exceptions)
    })
    .await?;
    Ok(Json(lockdown_shown(&call)))
}

async fn time_shown(call: &Call) -> Result<Tagged<TimeConfig>> {
    let facts = call.api.host.time().await?;
    let settings = call.api.data.borrow().settings.clone();
    let shown = TimeConfig {
        servers: settings.time_servers,
        enabled: settings.time_enabled,
        now: rfc3339(call.api.now()),
        synchronized: facts.synchronized,
        offset_seconds: facts.offset_us.map(|offset| offset as f64 / 1e6),
        server: facts.server,
        drift_ppm: facts.drift_ppb.map(|drift| drift as f64 / 1e3),
        timezone: "UTC".into(),
    };
    Ok(Tagged(shown, settings.version))
}

async fn get_time(call: Call, _: NoQuery, (): ()) -> Result<Tagged<TimeConfig>> {
    time_shown(&call).await
}

async fn set_time(call: Call, _: NoQuery, Json(wanted): Json<TimeSettings>) -> Result<Tagged<TimeConfig>> {
    let servers: Vec<String> = wanted.servers.0.into_iter().map(|name| name.into_string()).collect();
    settings(&call, "host.time", "Time servers were set".into(), |settings| {
        (settings.time_servers, settings.time_enabled) = (servers.clone(), wanted.enabled)
    })
    .await?;
    call.api.host.set_time_servers(if wanted.enabled { &servers } else { &[] }).await?;
    time_shown(&call).await
}

fn hosts(list: &[String]) -> Few<HostName, 8> {
    Few(list.iter().filter_map(|name| HostName::parse(name).ok()).collect())
}

fn dns_shown(call: &Call) -> Result<Tagged<DnsConfig>> {
    let settings = &call.api.data.borrow().settings;
    let shown = DnsConfig {
        host_name: HostName::parse(&settings.host_name).map_err(ApiError::invalid)?,
        domain: Notes::parse(&settings.domain).map_err(ApiError::invalid)?,
        servers: hosts(&settings.dns_servers),
        search_domains: hosts(&settings.search),
        dhcp: settings.dns_dhcp,
    };
    Ok(Tagged(shown, settings.version))
}

async fn get_dns(call: Call, _: NoQuery, (): ()) -> Result<Tagged<DnsConfig>> {
    dns_shown(&call)
}

fn dns_spec(settings: &crate::api::data::Settings) -> DnsSpec {
    DnsSpec {
        host_name: settings.host_name.clone(),
        domain: settings.domain.clone(),
        servers: settings.dns_servers.clone(),
        search: settings.search.clone(),
        dhcp: settings.dns_dhcp,
    }
}

async fn set_dns(call: Call, _: NoQuery, Json(wanted): Json<DnsConfig>) -> Result<Tagged<DnsConfig>> {
    if let Some(bad) = wanted.servers.0.iter().find(|server| server.parse::<core::net::IpAddr>().is_err()) {
        return Err(ApiError::conflict(format!("The name server {} is not an address", &**bad)));
    }
    let strings = |list: Few<HostName, 8>| list.0.into_iter().map(|name| name.into_string()).collect::<Vec<_>>();
    settings(&call, "host.dns", "Name resolution was set".into(), |settings| {
        settings.host_name = wanted.host_name.into_string();
        settings.domain = wanted.domain.into_string();
        settings.dns_servers = strings(wanted.servers);
        settings.search = strings(wanted.search_domains);
        settings.dns_dhcp = wanted.dhcp;
    })
    .await?;
    let spec = dns_spec(&call.api.data.borrow().settings);
    call.api.host.set_dns(&spec).await?;
    dns_shown(&call)
}

/// At the start: tells the host what was set.
pub(in crate::api) async fn apply_settings(api: &Rc<Api>) {
    let settings = api.data.borrow().settings.clone();
    if settings.version > 1 {
        // What a server does not take now it takes when it is set again; the log of the host says why.
        let _ = api.host.set_dns(&dns_spec(&settings)).await;
        let _ = api
            .host
            .set_time_servers(if settings.time_enabled { &settings.time_servers } else { &[] })
            .await;
    }
}

async fn resolve(call: Call, _: NoQuery, Json(request): Json<ResolveRequest>) -> Result<Json<Resolved>> {
    Ok(Json(Resolved {
        addresses: call.api.host.resolve(&request.name).await?,
    }))
}

async fn certificate(call: Call, _: NoQuery, (): ()) -> Result<Json<Certificate>> {
    let facts = call.api.host.certificate().await?;
    Ok(Json(Certificate {
        subject: facts.subject,
        issuer: facts.issuer,
        not_before: rfc3339(facts.not_before_ms),
        not_after: rfc3339(facts.not_after_ms),
        fingerprint: facts.fingerprint,
        self_signed: facts.self_signed,
    }))
}

async fn set_certificate(call: Call, query: NoQuery, Json(request): Json<CertificateRequest>) -> Result<Json<Certificate>> {
    if !request.certificate.contains("-----BEGIN CERTIFICATE-----") || !request.key.contains("PRIVATE KEY-----") {
        return Err(ApiError::conflict("Certificate and key are not PEM text"));
    }
    call.api.host.set_certificate(&request.certificate, &request.key).await?;
    replaced(call, query).await
}

async fn renew_certificate(call: Call, query: NoQuery, (): ()) -> Result<Json<Certificate>> {
    let name = call.api.data.borrow().settings.full_name();
    call.api.host.renew_certificate(&name).await?;
    replaced(call, query).await
}

async fn replaced(call: Call, query: NoQuery) -> Result<Json<Certificate>> {
    let (user, text) = (call.user(), "The certificate was replaced".into());
    call.api
        .event(Severity::Warning, "host.certificate", text, Some(&user), Some("host-1"))
        .await;
    certificate(call, query, ()).await
}

/// What a backup holds: not what comes and goes.
const KEPT: [&str; 7] = ["user/", "role/", "permission/", "key/", "vm/", "id/", "settings"];

async fn backup(call: Call, _: NoQuery, (): ()) -> Result<Json<Backup>> {
    let state = call.api.data.borrow().export();
    Ok(Json(Backup {
        format: Ranged::clamped(1),
        state: state.into_iter().map(|(key, value)| BackupEntry { key, value }).collect(),
    }))
}

async fn restore(call: Call, _: NoQuery, Json(backup): Json<Backup>) -> Result<()> {
    let mut state = alloc::collections::BTreeMap::new();
    for entry in backup.state {
        if !KEPT.iter().any(|prefix| entry.key.starts_with(prefix)) || serde_json::from_str::<serde_json::Value>(&entry.value).is_err() {
            return Err(ApiError::invalid(format!(
                "The backup's entry {} is none of this host's",
                entry.key.escape_default()
            )));
        }
        state.insert(entry.key, entry.value.into_bytes());
    }
    let changes = call.api.data.borrow_mut().import(state).map_err(ApiError::conflict)?;
    call.api.commit(changes).await?;
    call.api.sessions.borrow_mut().clear();
    take_settings(&call.api).await;
    call.api
        .event(
            Severity::Warning,
            "host.restored",
            "The host's configuration was restored from a backup".into(),
            Some(&call.user()),
            Some("host-1"),
        )
        .await;
    call.api.tell("host", "host-1", "updated");
    Ok(())
}

async fn take_settings(api: &Rc<Api>) {
    super::vms::take_in(api).await;
    apply_settings(api).await;
    super::network::apply_networks(api).await;
}

async fn licences(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Licence>>> {
    let all = call.api.host.licences().await?;
    Ok(page(
        all.into_iter()
            .map(|(component, version, licence)| Licence {
                component,
                version,
                licence,
            })
            .collect(),
        &query,
    ))
}

/// Services: identifier, server, name, what it does, whether the host needs it.
const SERVICES: [(&str, &str, &str, &str, bool); 5] = [
    ("hostd", "hostd", "Management", "API and Host Client", true),
    ("storage", "storage", "Storage", "Disks and datastores", true),
    ("net", "net", "Network", "Network cards and virtual switches", true),
    ("ntp", "", "Time", "Keeps the clock by time servers", false),
    ("shell", "shell", "Debug shell", "Shell on the serial port", false),
];

async fn services_shown(call: &Call) -> Result<Vec<Service>> {
    let servers = call.api.host.servers().await?;
    let settings = call.api.data.borrow().settings.clone();
    Ok(SERVICES
        .iter()
        .map(|(id, server, name, description, required)| Service {
            id: (*id).into(),
            name: (*name).into(),
            description: (*description).into(),
            running: if server.is_empty() {
                settings.time_enabled
            } else {
                servers.iter().any(|one| one.name == *server && one.state == "running")
            },
            policy: settings.policies.get(*id).copied().unwrap_or(ServicePolicy::On),
            required: *required,
        })
        .collect())
}

async fn services(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Service>>> {
    Ok(page(services_shown(&call).await?, &query))
}

async fn service(call: &Call) -> Result<Service> {
    let id = call.parameter("service");
    services_shown(call)
        .await?
        .into_iter()
        .find(|one| one.id == id)
        .ok_or_else(|| ApiError::not_found("There is no such service"))
}

async fn set_ntp(call: &Call, enabled: bool) -> Result<()> {
    settings(
        call,
        "host.time",
        format!("The time service was {}", if enabled { "started" } else { "stopped" }),
        |settings| settings.time_enabled = enabled,
    )
    .await?;
    let servers = call.api.data.borrow().settings.time_servers.clone();
    Ok(call.api.host.set_time_servers(if enabled { &servers } else { &[] }).await?)
}

async fn restart_service(call: Call, _: NoQuery, (): ()) -> Result<Json<Service>> {
    let one = service(&call).await?;
    if one.id == "ntp" {
        set_ntp(&call, true).await?;
    } else {
        call.api.host.restart_server(&one.id).await?;
    }
    Ok(Json(service(&call).await?))
}

async fn start_service(call: Call, _: NoQuery, (): ()) -> Result<Json<Service>> {
    let one = service(&call).await?;
    match &*one.id {
        "ntp" => set_ntp(&call, true).await?,
        _ if one.running => {}
        id => call.api.host.restart_server(id).await?,
    }
    Ok(Json(service(&call).await?))
}

async fn stop_service(call: Call, _: NoQuery, (): ()) -> Result<Json<Service>> {
    let one = service(&call).await?;
    if one.id != "ntp" {
        return Err(ApiError::conflict(format!("{} cannot be stopped while the host runs", one.name)));
    }
    set_ntp(&call, false).await?;
    Ok(Json(service(&call).await?))
}

async fn edit_service(call: Call, _: NoQuery, Json(change): Json<ServicePatch>) -> Result<Json<Service>> {
    let one = service(&call).await?;
    if one.required && change.policy != ServicePolicy::On {
        return Err(ApiError::conflict(format!("The host needs {}", one.name)));
    }
    settings(&call, "service.policy", format!("{}: when it runs was set", one.name), |settings| {
        settings.policies.insert(one.id, change.policy);
    })
    .await?;
    Ok(Json(service(&call).await?))
}

async fn servers(call: Call, _: NoQuery, (): ()) -> Result<Json<ServerGraph>> {
    let api = &call.api;
    let (all, endpoints) = (api.host.servers().await?, api.host.endpoints().await?);
    let counters = api.counters.borrow();
    let nodes = all.into_iter().map(|one| ServerNode {
        cpu_percent: counters.now(&format!("server-{}", one.name), "cpu.usage"),
        kind: if one.vm.is_some() { "vm".into() } else { "server".into() },
        name: one.name,
        state: one.state,
        memory: one.memory,
        threads: one.threads,
        restarts: one.restarts,
        last_end: one.last_end,
    });
    let now = api.platform.monotonic_ms();
    let mut previous = api.previous_calls.borrow_mut();
    let seconds = now.saturating_sub(previous.0).max(1) as f64 / 1000.0;
    let mut edges = Vec::new();
    let mut current = alloc::collections::BTreeMap::new();
    for one in endpoints {
        let key = (one.from, one.to, one.interface);
        let rate = previous
            .1
            .get(&key)
            .map_or(0.0, |before| one.calls.saturating_sub(*before) as f64 / seconds);
        current.insert(key.clone(), one.calls);
        edges.push(ServerEdge {
            from: key.0,
            to: key.1,
            interface: key.2,
            messages_per_second: rate,
        });
    }
    *previous = (now, current);
    Ok(Json(ServerGraph {
        servers: nodes.collect(),
        edges,
    }))
}

async fn capabilities(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<Capability>>> {
    let all = call.api.host.capabilities(call.parameter("server")).await?;
    let shown = all.into_iter().map(|one| Capability {
        name: one.name,
        kind: one.kind,
        rights: one.rights,
        object: call.api.object_number(one.object),
        size: one.size,
    });
    Ok(page(shown.collect(), &query))
}

async fn restart_server(call: Call, _: NoQuery, (): ()) -> Result<()> {
    let name = call.parameter("server");
    call.api.host.restart_server(name).await?;
    call.api
        .event(
            Severity::Warning,
            "server.restarted",
            format!("{name} was started again"),
            Some(&call.user()),
            None,
        )
        .await;
    Ok(())
}
