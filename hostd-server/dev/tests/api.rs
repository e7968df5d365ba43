//! The API over a simulated host, without a network: who may do what, and that what is promised happens.

use serde_json::{Value, json};
use smol::LocalExecutor;
use std::{rc::Rc, time::Duration};
use tessera_hostd::{
    api::{Api, Needs},
    host::{DiskController, Host as _, NicModel},
    http::{Body, Method, Request},
    state::MemoryStore,
};
use tessera_hostd_dev::{platform::Machine, simulated::Simulated};

struct Host {
    api: Rc<Api>,
    machines: Rc<Simulated>,
}

struct Answer {
    status: u16,
    etag: Option<String>,
    cookie: Option<String>,
    json: Value,
}

impl Host {
    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut headers: Vec<(String, String)> = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        if body.is_some() {
            headers.push(("content-type".into(), "application/json".into()));
        }
        let body = body.map_or(Body::Empty, |body| Body::Bytes(body.to_string().into_bytes()));
        let path = format!("/api/v1{path}");
        let request = Request {
            method,
            path,
            query: query.into(),
            headers,
            peer: "192.0.2.1".into(),
            secure: true,
            body,
        };
        let response = self.api.answer(request).await;
        let header = |name| response.header(name).map(String::from);
        let (etag, cookie) = (header("etag"), header("set-cookie"));
        let json = match response.body {
            Body::Bytes(bytes) => serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            _ => Value::Null,
        };
        Answer {
            status: response.status,
            etag,
            cookie,
            json,
        }
    }

    async fn as_user(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.send(method, path, &[("authorization", &format!("Bearer {token}"))], body)
            .await
    }

    async fn log_in(&self, user: &str, password: &str) -> String {
        let answer = self
            .send(
                Method::Post,
                "/session",
                &[],
                Some(json!({ "user": user, "password": password, "bearer": true })),
            )
            .await;
        answer.json["token"]
            .as_str()
            .unwrap_or_else(|| panic!("log-in of {user}: {} {}", answer.status, answer.json))
            .into()
    }

    /// Does long work and waits for its end.
    async fn done(&self, token: &str, method: Method, path: &str, body: Option<Value>) -> Value {
        let answer = self.as_user(token, method, path, body).await;
        assert_eq!(answer.status, 202, "{} {path}: {}", method.name(), answer.json);
        let task = format!("/tasks/{}", answer.json["id"].as_str().unwrap());
        for _ in 0..500 {
            let now = self.as_user(token, Method::Get, &task, None).await.json;
            if !now["completed"].is_null() {
                return now;
            }
            smol::Timer::after(Duration::from_millis(2)).await;
        }
        panic!("{path} did not end");
    }
}

fn with_host(test: impl AsyncFnOnce(Host)) {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let host = Rc::new(Simulated::new(Duration::from_millis(1)));
        let api = Api::start(
            host.clone(),
            Rc::new(Machine::new(executor.clone())),
            Rc::new(MemoryStore::default()),
            Some("correct horse"),
        )
        .await
        .unwrap();
        test(Host { api, machines: host }).await;
    }));
}

fn machine(name: &str) -> Value {
    json!({ "name": name, "vcpus": 1, "memory": 67_108_864, "boot": { "firmware": "direct", "kernel": "[datastore1] kernels/vmlinuz" } })
}

#[test]
fn description_in_the_tree_is_the_one_of_the_routes() {
    let stale = tessera_hostd::api::DESCRIPTION != tessera_hostd::api::describe();
    assert!(
        !stale,
        "write it anew: cargo run -p tessera-hostd-dev -- --describe > hostd-server/api/openapi.json"
    );
}

#[test]
fn every_operation_for_every_role_and_nobody() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        host.done(&root, Method::Post, "/vms", Some(machine("one"))).await;
        let vm = host.as_user(&root, Method::Get, "/vms", None).await.json["items"][0]["id"]
            .as_str()
            .unwrap()
            .to_string();
        let store = host.as_user(&root, Method::Get, "/datastores", None).await.json["items"][0]["id"]
            .as_str()
            .unwrap()
            .to_string();
        let made = host
            .as_user(
                &root,
                Method::Post,
                "/roles",
                Some(json!({ "name": "Operator", "privileges": ["System.Read", "VirtualMachine.Power"] })),
            )
            .await;
        let operator = made.json["id"].as_str().unwrap().to_string();
        let mut roles: Vec<(String, Vec<String>)> = Vec::new();
        for role in ["readOnly", "noAccess", &operator] {
            let user = format!("u{}", roles.len());
            let made = host
                .as_user(
                    &root,
                    Method::Post,
                    "/users",
                    Some(json!({ "name": user, "password": "long enough", "role": role })),
                )
                .await;
            assert_eq!(made.status, 201, "{}", made.json);
            let all = host.as_user(&root, Method::Get, "/roles", None).await.json;
            let own = all["items"].as_array().unwrap().iter().find(|one| one["id"] == role).unwrap();
            let privileges = own["privileges"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap().into())
                .collect();
            roles.push((host.log_in(&user, "long enough").await, privileges));
        }
        let fill = |path: &str| {
            path.replace("{vm}", &vm)
                .replace("{datastore}", &store)
                .replace("{path*}", "kernels/vmlinuz")
                .replace(['{', '}'], "")
        };
        let mut walked = 0;
        for route in host.api.routes() {
            let (path, what) = (fill(route.path), format!("{} {}", route.method.name(), route.path));
            let nobody = host.send(route.method, &path, &[], None).await.status;
            assert_eq!(nobody == 401, route.needs != Needs::Nothing, "{what} for nobody: {nobody}");
            let forged = host.as_user("0123", route.method, &path, None).await.status;
            assert_eq!(
                forged == 401,
                route.needs != Needs::Nothing,
                "{what} with a token of nobody's: {forged}"
            );
            let Needs::Privilege(privilege) = route.needs else { continue };
            for (token, privileges) in &roles {
                let status = host.as_user(token, route.method, &path, None).await.status;
                let allowed = privileges.iter().any(|own| own == privilege);
                assert_eq!(status == 403, !allowed, "{what} with {privileges:?}: {status}");
            }
            walked += 1;
        }
        assert!(walked > 80, "{walked} operations");
    });
}

#[test]
fn read_only_accounts_change_nothing() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        host.as_user(
            &root,
            Method::Post,
            "/users",
            Some(json!({ "name": "reader", "password": "long enough" })),
        )
        .await;
        let reader = host.log_in("reader", "long enough").await;
        let backup = host.as_user(&root, Method::Get, "/host/backup", None).await.json.to_string();
        for route in host.api.routes() {
            let own = ["/session", "/session/password"].contains(&route.path);
            if route.method.is_safe() || own {
                continue;
            }
            let path = route.path.replace("{path*}", "x").replace(['{', '}'], "");
            let status = host.as_user(&reader, route.method, &path, None).await.status;
            assert!(
                [400, 403, 404, 415].contains(&status),
                "{} {}: {status}",
                route.method.name(),
                route.path
            );
        }
        assert_eq!(
            host.as_user(&root, Method::Get, "/host/backup", None).await.json.to_string(),
            backup
        );
    });
}

#[test]
fn permission_on_one_machine_holds_for_it_alone() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        for name in ["one", "two"] {
            host.done(&root, Method::Post, "/vms", Some(machine(name))).await;
        }
        let vms = host.as_user(&root, Method::Get, "/vms", None).await.json;
        let id = |index: usize| vms["items"][index]["id"].as_str().unwrap().to_string();
        host.as_user(
            &root,
            Method::Post,
            "/users",
            Some(json!({ "name": "guest", "password": "long enough", "role": "noAccess" })),
        )
        .await;
        let made = host
            .as_user(
                &root,
                Method::Post,
                "/permissions",
                Some(json!({ "user": "guest", "entity": id(0), "role": "admin" })),
            )
            .await;
        assert_eq!(made.status, 201, "{}", made.json);
        let guest = host.log_in("guest", "long enough").await;
        let seen = host.as_user(&guest, Method::Get, "/vms", None).await.json;
        assert_eq!(seen["items"].as_array().unwrap().len(), 1);
        assert_eq!(
            host.as_user(&guest, Method::Post, &format!("/vms/{}/start", id(0)), None)
                .await
                .status,
            202
        );
        assert_eq!(
            host.as_user(&guest, Method::Post, &format!("/vms/{}/start", id(1)), None)
                .await
                .status,
            403
        );
        assert_eq!(host.as_user(&guest, Method::Get, "/host", None).await.status, 403);
    });
}

#[test]
fn a_panic_is_an_event_and_an_alarm_and_what_was_chosen_is_done() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        let mut wanted = machine("one");
        wanted["onPanic"] = json!("powerOff");
        let made = host.done(&root, Method::Post, "/vms", Some(wanted)).await;
        let path = format!("/vms/{}", made["result"].as_str().unwrap());
        let look = async || host.as_user(&root, Method::Get, &path, None).await.json;
        host.done(&root, Method::Post, &format!("{path}/start"), None).await;
        assert_eq!((&look().await["alarms"], &look().await["health"]), (&json!([]), &json!("green")));
        for word in ["panic\n", "hang\n"] {
            let typed = host
                .as_user(&root, Method::Post, &format!("{path}/type"), Some(json!({ "text": word })))
                .await;
            assert_eq!(typed.status, 204, "{}", typed.json);
        }
        // It is looked every 5 s.
        for _ in 0..100 {
            if look().await["powerState"] == "poweredOff" {
                break;
            }
            smol::Timer::after(Duration::from_millis(100)).await;
        }
        let now = look().await;
        assert_eq!((&now["powerState"], &now["health"]), (&json!("poweredOff"), &json!("yellow")));
        let kinds: Vec<&Value> = now["alarms"].as_array().unwrap().iter().map(|alarm| &alarm["kind"]).collect();
        assert_eq!(kinds, ["guestPanicked", "watchdogExpired"]);
        let events = host.as_user(&root, Method::Get, "/events?limit=100", None).await.json;
        for kind in ["vm.guestPanicked", "vm.watchdogExpired"] {
            let all = events["items"].as_array().unwrap().iter();
            assert_eq!(all.filter(|event| event["kind"] == kind).count(), 1, "{kind}: {events}");
        }
        let cleared = host.as_user(&root, Method::Delete, &format!("{path}/alarms"), None).await;
        assert_eq!(cleared.status, 204);
        assert_eq!((&look().await["alarms"], &look().await["health"]), (&json!([]), &json!("green")));
    });
}

#[test]
fn who_sleeps_is_woken_by_a_start() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        let made = host.done(&root, Method::Post, "/vms", Some(machine("one"))).await;
        let path = format!("/vms/{}", made["result"].as_str().unwrap());
        let state = async || {
            let vm = host.as_user(&root, Method::Get, &path, None).await.json;
            (vm["powerState"].clone(), vm["guestState"].clone())
        };
        assert_eq!(state().await, (json!("poweredOff"), json!("notRunning")));
        host.done(&root, Method::Post, &format!("{path}/start"), None).await;
        assert_eq!(state().await, (json!("poweredOn"), json!("running")));
        let again = host.as_user(&root, Method::Post, &format!("{path}/start"), None).await;
        assert_eq!(again.status, 409, "it runs: {}", again.json);
        let typed = json!({ "text": "sleep\n" });
        assert_eq!(
            host.as_user(&root, Method::Post, &format!("{path}/type"), Some(typed)).await.status,
            204
        );
        assert_eq!(state().await, (json!("poweredOn"), json!("standby")));
        // Its power button would wake it.
        for operation in ["shutdown", "resume"] {
            let refused = host.as_user(&root, Method::Post, &format!("{path}/{operation}"), None).await;
            assert_eq!(refused.status, 409, "{operation}: {}", refused.json);
            assert!(refused.json.to_string().contains("asleep"), "{}", refused.json);
        }
        host.done(&root, Method::Post, &format!("{path}/start"), None).await;
        assert_eq!(state().await, (json!("poweredOn"), json!("running")));
    });
}

#[test]
fn boot_order_and_watchdog_are_kept_and_words_that_mean_nothing_refused() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        let mut wanted = machine("one");
        wanted["boot"] = json!({ "firmware": "uefi", "order": ["cdrom", "disk.1", "nic"], "menuSeconds": 5 });
        wanted["watchdog"] = json!("reset");
        let made = host.done(&root, Method::Post, "/vms", Some(wanted)).await;
        let path = format!("/vms/{}", made["result"].as_str().unwrap());
        let config = host.as_user(&root, Method::Get, &path, None).await.json["config"].clone();
        assert_eq!(config["boot"]["order"], json!(["cdrom", "disk.1", "nic"]));
        assert_eq!((&config["watchdog"], &config["onPanic"]), (&json!("reset"), &json!("none")));
        for order in [json!(["floppy"]), json!(["disk.8"]), json!(["disk."]), json!(vec!["nic"; 17])] {
            let patch = json!({ "boot": { "firmware": "uefi", "order": order } });
            let refused = host.as_user(&root, Method::Patch, &path, Some(patch)).await;
            assert_eq!(refused.status, 400, "{order}: {}", refused.json);
        }
    });
}

#[test]
fn a_disks_controller_and_a_cards_model_stay_unless_others_are_asked_for() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        let first = async |list: &str| host.as_user(&root, Method::Get, list, None).await.json["items"][0]["id"].clone();
        let (store, group) = (first("/datastores").await, first("/networks/port-groups").await);
        let mut wanted = machine("pc");
        wanted["disks"] = json!([{ "datastore": store, "size": 1 << 30, "controller": "ahci" }, { "datastore": store, "size": 1 << 30 }]);
        wanted["nics"] = json!([{ "network": group, "model": "e1000e" }, { "network": group }]);
        let made = host.done(&root, Method::Post, "/vms", Some(wanted)).await;
        let path = format!("/vms/{}", made["result"].as_str().unwrap());
        let kinds = async |path: &str| {
            let config = host.as_user(&root, Method::Get, path, None).await.json["config"].clone();
            let of = |list: &str, key: &str| {
                let items = config[list].as_array().unwrap().iter();
                items.map(|one| one[key].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
            };
            // What the host was told is what is shown.
            let spec = host.machines.vm_spec(config["name"].as_str().unwrap()).await.unwrap();
            let shown = (of("disks", "controller"), of("nics", "model"));
            assert_eq!(
                spec.disks.iter().filter(|disk| disk.controller == DiskController::Ahci).count(),
                shown.0.matches("ahci").count()
            );
            assert_eq!(
                spec.nics.iter().filter(|nic| nic.model == NicModel::E1000e).count(),
                shown.1.matches("e1000e").count()
            );
            format!("{}, {}", shown.0, shown.1)
        };
        let change = async |body: Value| {
            let task = host.done(&root, Method::Patch, &path, Some(body)).await;
            assert_eq!(task["state"], "success", "{task}");
        };
        assert_eq!(kinds(&path).await, "ahci virtio, e1000e virtio");
        change(json!({ "memory": 134_217_728 })).await;
        change(json!({ "disks": [{ "id": "disk-1", "datastore": store }, { "id": "disk-2", "datastore": store }] })).await;
        change(json!({ "nics": [{ "id": "nic-1", "network": group }, { "id": "nic-2", "network": group }] })).await;
        assert_eq!(kinds(&path).await, "ahci virtio, e1000e virtio");
        let clone = host
            .done(&root, Method::Post, &format!("{path}/clone"), Some(json!({ "name": "copy" })))
            .await;
        assert_eq!(
            kinds(&format!("/vms/{}", clone["result"].as_str().unwrap())).await,
            "ahci virtio, e1000e virtio"
        );
        change(json!({ "disks": [{ "id": "disk-1", "datastore": store, "controller": "virtio" }, { "id": "disk-2", "datastore": store, "controller": "ahci" }] })).await;
        change(json!({ "nics": [{ "id": "nic-1", "network": group, "model": "virtio" }, { "id": "nic-2", "network": group, "model": "e1000e" }] })).await;
        assert_eq!(kinds(&path).await, "virtio ahci, virtio e1000e");
        for wrong in [
            json!({ "disks": [{ "id": "disk-1", "datastore": store, "controller": "ide" }] }),
            json!({ "nics": [{ "id": "nic-1", "network": group, "model": "ne2000" }] }),
        ] {
            let refused = host.as_user(&root, Method::Patch, &path, Some(wrong.clone())).await;
            assert_eq!(refused.status, 400, "{wrong}: {}", refused.json);
        }
    });
}

#[test]
fn file_systems_rest_for_a_snapshot_of_a_machine_that_runs() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        let made = host.done(&root, Method::Post, "/vms", Some(machine("one"))).await;
        let path = format!("/vms/{}", made["result"].as_str().unwrap());
        let wanted = |memory: bool| Some(json!({ "name": "quiet", "quiesce": true, "withMemory": memory }));
        let snapshots = format!("{path}/snapshots");
        let refused = host.as_user(&root, Method::Post, &snapshots, wanted(false)).await;
        assert_eq!(refused.status, 409, "{}", refused.json);
        assert_eq!(
            host.done(&root, Method::Post, &format!("{path}/start"), None).await["state"],
            "success"
        );
        assert_eq!(host.as_user(&root, Method::Post, &snapshots, wanted(true)).await.status, 400);
        assert_eq!(host.done(&root, Method::Post, &snapshots, wanted(false)).await["state"], "success");
    });
}

#[test]
fn a_machine_lives() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        let store = host.as_user(&root, Method::Get, "/datastores", None).await.json["items"][0]["id"].clone();
        let mut wanted = machine("one");
        wanted["disks"] = json!([{ "size": 1_073_741_824_u64, "datastore": store }]);
        let made = host.done(&root, Method::Post, "/vms", Some(wanted)).await;
        let path = format!("/vms/{}", made["result"].as_str().unwrap());
        let step = async |method, rest: &str, body| {
            let task = host.done(&root, method, &format!("{path}{rest}"), body).await;
            assert_eq!(task["state"], "success", "{rest}: {task}");
            task
        };
        step(Method::Post, "/start", None).await;
        assert_eq!(host.as_user(&root, Method::Get, &path, None).await.json["powerState"], "poweredOn");
        assert_eq!(host.as_user(&root, Method::Post, &format!("{path}/start"), None).await.status, 409);
        let snapshot = step(Method::Post, "/snapshots", Some(json!({ "name": "before" }))).await["result"]
            .as_str()
            .unwrap()
            .to_string();
        step(Method::Post, "/stop", None).await;
        let etag = host.as_user(&root, Method::Get, &path, None).await.etag.unwrap();
        step(Method::Patch, "", Some(json!({ "memory": 134_217_728 }))).await;
        let bearer = format!("Bearer {root}");
        let late = host
            .send(
                Method::Patch,
                &path,
                &[("authorization", &bearer), ("if-match", &etag)],
                Some(json!({ "vcpus": 2 })),
            )
            .await;
        assert_eq!(late.status, 412, "a change made from an old version");
        step(Method::Post, &format!("/snapshots/{snapshot}/revert"), None).await;
        assert_eq!(
            host.as_user(&root, Method::Get, &path, None).await.json["config"]["memory"],
            67_108_864
        );
        step(Method::Post, "/clone", Some(json!({ "name": "two" }))).await;
        step(Method::Delete, "", None).await;
        assert_eq!(host.as_user(&root, Method::Get, &path, None).await.status, 404);
    });
}

#[test]
fn browsers_sessions_are_bound_to_their_pages() {
    with_host(async |host| {
        let login = json!({ "user": "root", "password": "correct horse" });
        let answer = host.send(Method::Post, "/session", &[], Some(login.clone())).await;
        let cookie = answer.cookie.unwrap();
        for part in ["HttpOnly", "Secure", "SameSite=Strict"] {
            assert!(cookie.contains(part), "{cookie}");
        }
        assert!(answer.json["token"].is_null(), "a page could read it");
        let cookie = cookie.split(';').next().unwrap().to_string();
        let csrf = answer.json["csrfToken"].as_str().unwrap().to_string();
        let make = json!({ "name": "a", "password": "long enough" });
        let send = async |headers: &[(&str, &str)]| host.send(Method::Post, "/users", headers, Some(make.clone())).await.status;
        assert_eq!(send(&[("cookie", &cookie)]).await, 403, "no token");
        assert_eq!(send(&[("cookie", &cookie), ("x-csrf-token", "00")]).await, 403, "another token");
        let foreign = [
            ("cookie", &*cookie),
            ("x-csrf-token", &csrf),
            ("host", "esx"),
            ("origin", "https://evil"),
        ];
        assert_eq!(send(&foreign).await, 403, "another page");
        let own = [
            ("cookie", &*cookie),
            ("x-csrf-token", &csrf),
            ("host", "esx"),
            ("origin", "https://esx"),
        ];
        assert_eq!(send(&own).await, 201);
        let away = host
            .send(
                Method::Post,
                "/session",
                &[("host", "esx"), ("origin", "https://evil")],
                Some(login),
            )
            .await;
        assert_eq!(away.status, 403, "log-in from another page");
    });
}

#[test]
fn guessing_is_delayed_and_noted() {
    with_host(async |host| {
        let guess = async || {
            host.send(Method::Post, "/session", &[], Some(json!({ "user": "root", "password": "wrong" })))
                .await
                .status
        };
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(guess().await);
        }
        assert_eq!(seen, [401, 401, 401, 429, 429]);
        let events = host.log_in_elsewhere().await;
        assert_eq!(events.matches("session.failed").count(), 3);
    });
}

impl Host {
    /// Events, as somebody sees them who logs in from another address.
    async fn log_in_elsewhere(&self) -> String {
        let body = json!({ "user": "root", "password": "correct horse", "bearer": true })
            .to_string()
            .into_bytes();
        let request = Request {
            method: Method::Post,
            path: "/api/v1/session".into(),
            query: String::new(),
            headers: vec![("content-type".into(), "application/json".into())],
            peer: "192.0.2.2".into(),
            secure: true,
            body: Body::Bytes(body),
        };
        let Body::Bytes(bytes) = self.api.answer(request).await.body else {
            panic!("no answer")
        };
        let session: Value = serde_json::from_slice(&bytes).unwrap();
        self.as_user(
            session["token"].as_str().expect("a guesser elsewhere keeps nobody out"),
            Method::Get,
            "/events",
            None,
        )
        .await
        .json
        .to_string()
    }
}

#[test]
fn uploads_go_on_where_they_broke_off() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        let store = host.as_user(&root, Method::Get, "/datastores", None).await.json["items"][0]["id"]
            .as_str()
            .unwrap()
            .to_string();
        let put = async |range: Option<&str>, bytes: &[u8]| {
            let mut headers = vec![("authorization".to_string(), format!("Bearer {root}"))];
            headers.extend(range.map(|range| ("content-range".to_string(), range.to_string())));
            let path = format!("/api/v1/datastores/{store}/files/iso/new.iso");
            let request = Request {
                method: Method::Put,
                path,
                query: String::new(),
                headers,
                peer: String::new(),
                secure: true,
                body: Body::Bytes(bytes.to_vec()),
            };
            host.api.answer(request).await.status
        };
        assert_eq!(put(None, b"first").await, 200);
        assert_eq!(put(Some("bytes 9-10/11"), b"xy").await, 409, "a hole");
        assert_eq!(put(Some("bytes 5-10/11"), b"second").await, 200);
        let listed = host
            .as_user(&root, Method::Get, &format!("/datastores/{store}/files?path=iso"), None)
            .await
            .json;
        assert!(
            listed["items"]
                .as_array()
                .unwrap()
                .iter()
                .any(|one| one["name"] == "new.iso" && one["size"] == 11),
            "{listed}"
        );
    });
}

#[test]
fn a_seed_needs_a_way_in_a_drive_and_a_disk() {
    with_host(async |host| {
        let root = host.log_in("root", "correct horse").await;
        let direct = host.done(&root, Method::Post, "/vms", Some(machine("direct"))).await;
        let mut wanted = machine("one");
        wanted["boot"] = json!({ "firmware": "bios" });
        let without = host.done(&root, Method::Post, "/vms", Some(wanted.clone())).await;
        let stores = host.as_user(&root, Method::Get, "/datastores", None).await.json;
        wanted["name"] = json!("two");
        wanted["disks"] = json!([{ "datastore": stores["items"][0]["id"], "size": 1 << 30 }]);
        let made = host.done(&root, Method::Post, "/vms", Some(wanted)).await;
        let path = |task: &Value| format!("/vms/{}", task["result"].as_str().unwrap());
        let good = json!({ "hostName": "two", "user": "admin", "password": "correct horse" });
        for wrong in [
            json!({ "hostName": "two" }),
            json!({ "hostName": "two", "user": "admin" }),
            json!({ "hostName": "two", "sshKeys": ["ssh-ed25519 AAAA"] }),
            json!({ "hostName": "two", "user": "admin", "password": "correct horse", "userData": "#cloud-config" }),
        ] {
            let refused = host
                .as_user(&root, Method::Post, &format!("{}/seed", path(&made)), Some(wrong.clone()))
                .await;
            assert_eq!(refused.status, 400, "{wrong}: {}", refused.json);
        }
        let refused = host
            .as_user(&root, Method::Post, &format!("{}/seed", path(&direct)), Some(good.clone()))
            .await;
        assert_eq!(refused.status, 409, "{}", refused.json);
        let failed = host
            .done(&root, Method::Post, &format!("{}/seed", path(&without)), Some(good.clone()))
            .await;
        assert_eq!(failed["state"], "error");
        for form in [good, json!({ "hostName": "two", "userData": "#cloud-config\n" })] {
            let task = host.done(&root, Method::Post, &format!("{}/seed", path(&made)), Some(form)).await;
            assert_eq!(task["state"], "success", "{task}");
            let config = host.as_user(&root, Method::Get, &path(&made), None).await.json["config"].clone();
            assert_eq!(config["cdrom"], "[datastore1] two/seed.iso");
        }
    });
}
