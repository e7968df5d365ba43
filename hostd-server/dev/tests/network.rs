//! Switches' policies over a restart of the host, their ports, and recordings, over a simulated host.

mod common;

use common::{ask, ask_raw, log_in};
use serde_json::{Value, json};
use smol::LocalExecutor;
use std::{rc::Rc, time::Duration};
use tessera_hostd::{api::Api, http::Method, state::MemoryStore};
use tessera_hostd_dev::{platform::Machine, simulated::Simulated};

struct Host {
    api: Rc<Api>,
    token: String,
}

impl Host {
    /// Another host each time, whose network is as the image has it, with what `store` kept.
    async fn start(executor: &Rc<LocalExecutor<'static>>, store: &Rc<MemoryStore>) -> Self {
        let host = Rc::new(Simulated::new(Duration::from_millis(1)));
        let machine = Rc::new(Machine::new(executor.clone()));
        let api = Api::start(host, machine, store.clone(), Some("correct horse")).await.unwrap();
        let token = log_in(&api, "root", "correct horse").await;
        Self { api, token }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        ask(&self.api, &self.token, method, path, body).await
    }

    async fn first(&self, list: &str, name: &str) -> Value {
        let all = self.ask(Method::Get, list, None).await.1;
        let items = all["items"].as_array().unwrap();
        items.iter().find(|one| one["name"] == name).unwrap().clone()
    }

    async fn path(&self, list: &str, name: &str) -> String {
        format!("{list}/{}", self.first(list, name).await["id"].as_str().unwrap())
    }
}

fn run(test: impl AsyncFnOnce(Rc<LocalExecutor<'static>>)) {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(test(executor.clone())));
}

const SWITCHES: &str = "/networks/switches";
const GROUPS: &str = "/networks/port-groups";

#[test]
fn policies_hold_after_a_restart_of_the_host() {
    run(async |executor| {
        let store = Rc::new(MemoryStore::default());
        let host = Host::start(&executor, &store).await;
        let limit = json!({ "average": 1_000_000, "peak": 2_000_000, "burst": 65_536 });
        let shaping = json!({ "sent": limit, "received": null });
        let teaming = json!({ "balance": "sourceMac", "active": ["eth1"], "standby": ["eth0"] });
        let security = json!({ "promiscuous": true, "macChanges": false, "forgedTransmits": false });
        let mirrors = json!([{ "from": "eth0", "to": "host-4" }]);
        let change =
            json!({ "uplinks": ["eth0", "eth1"], "shaping": shaping, "teaming": teaming, "security": security, "mirrors": mirrors });
        let path = host.path(SWITCHES, "vSwitch0").await;
        assert_eq!(host.ask(Method::Patch, &path, Some(change.clone())).await.0, 200);
        let own = json!({ "balance": "order", "active": ["eth0"], "standby": [] });
        let lab = host.path(GROUPS, "VM Network").await;
        let change_group = json!({ "teaming": own, "shaping": shaping });
        assert_eq!(host.ask(Method::Patch, &lab, Some(change_group)).await.0, 200);
        drop(host);
        // What is left out of a change stays as well.
        for round in 0..2 {
            let host = Host::start(&executor, &store).await;
            let switch = host.first(SWITCHES, "vSwitch0").await;
            for field in ["uplinks", "shaping", "teaming", "security", "mirrors"] {
                assert_eq!(switch[field], change[field], "{field} in round {round}");
            }
            let group = host.first(GROUPS, "VM Network").await;
            assert_eq!((&group["teaming"], &group["shaping"]), (&own, &shaping), "round {round}");
            assert_eq!(host.first(GROUPS, "Management Network").await["teaming"], Value::Null);
            assert_eq!(host.ask(Method::Patch, &path, Some(json!({ "mtu": 9000 }))).await.0, 200);
            assert_eq!(host.ask(Method::Patch, &lab, Some(json!({ "vlan": 7 }))).await.0, 200);
        }
        let host = Host::start(&executor, &store).await;
        assert_eq!(host.ask(Method::Patch, &lab, Some(json!({ "teaming": null }))).await.0, 200);
        // An uplink that goes is forgotten by the order of uplinks.
        assert_eq!(host.ask(Method::Patch, &path, Some(json!({ "uplinks": ["eth0"] }))).await.0, 200);
        let host = Host::start(&executor, &store).await;
        assert_eq!(host.first(GROUPS, "VM Network").await["teaming"], Value::Null);
        let teaming = &host.first(SWITCHES, "vSwitch0").await["teaming"];
        assert_eq!(*teaming, json!({ "balance": "sourceMac", "active": [], "standby": ["eth0"] }));
    });
}

#[test]
fn policies_that_make_no_sense_are_refused() {
    run(async |executor| {
        let host = Host::start(&executor, &Rc::default()).await;
        let path = host.path(SWITCHES, "vSwitch0").await;
        let limit = |average: u64, peak: u64, burst: u64| json!({ "shaping": { "sent": { "average": average, "peak": peak, "burst": burst }, "received": null } });
        let teaming = |active: &[&str]| json!({ "teaming": { "balance": "port", "active": active, "standby": [] } });
        for (change, status) in [
            (limit(1_000_000, 999_999, 4096), 400),
            (limit(1, 1_000_000, 4096), 400),
            (limit(1_000_000, 1_000_000, 1), 400),
            (teaming(&["eth0", "eth0"]), 400),
            (teaming(&["eth7"]), 409),
            (json!({ "teaming": { "balance": "dice", "active": [], "standby": [] } }), 400),
            (json!({ "mirrors": [{ "from": "eth0", "to": "eth0" }] }), 400),
            (
                json!({ "mirrors": [{ "from": "eth0", "to": "a" }, { "from": "eth0", "to": "b" }] }),
                400,
            ),
        ] {
            assert_eq!(host.ask(Method::Patch, &path, Some(change.clone())).await.0, status, "{change}");
        }
        assert_eq!(host.first(SWITCHES, "vSwitch0").await["teaming"]["active"], json!([]));
    });
}

#[test]
fn ports_are_seen_with_what_was_dropped() {
    run(async |executor| {
        let host = Host::start(&executor, &Rc::default()).await;
        let port = host.ask(Method::Get, "/networks/ports/host-4", None).await.1;
        assert_eq!(port["portGroup"], host.first(GROUPS, "Management Network").await["id"]);
        assert_eq!(port["received"], json!({ "frames": 12, "bytes": 3400 }));
        assert_eq!(
            (&port["dropped"][0]["reason"], &port["dropped"][0]["frames"]),
            (&json!("forged"), &json!(3))
        );
        let uplink = host.first("/networks/ports", "eth0").await;
        assert_eq!((&uplink["kind"], &uplink["portGroup"]), (&json!("uplink"), &Value::Null));
        assert_eq!(host.ask(Method::Get, "/networks/ports/nobody.0", None).await.0, 404);
    });
}

#[test]
fn a_port_is_recorded_by_who_may() {
    run(async |executor| {
        let host = Host::start(&executor, &Rc::default()).await;
        let all = "/networks/captures";
        let begin = |port: &str| Some(json!({ "port": port }));
        assert_eq!(host.ask(Method::Post, all, begin("nobody.0")).await.0, 404);
        let (status, made) = host.ask(Method::Post, all, begin("eth0")).await;
        assert_eq!((status, &made["snapLength"], &made["running"]), (201, &json!(256), &json!(true)));
        let one = format!("{all}/{}", made["id"].as_str().unwrap());
        let (status, whole) = ask_raw(&host.api, &host.token, Method::Get, &format!("{one}/file"), None).await;
        assert_eq!((status, &whole[..4]), (200, &[0x0a, 0x0d, 0x0d, 0x0a][..]));
        let rest = ask_raw(&host.api, &host.token, Method::Get, &format!("{one}/file?from=4"), None)
            .await
            .1;
        assert_eq!(rest, whole[4..]);
        let beyond = ask_raw(&host.api, &host.token, Method::Get, &format!("{one}/file?from=99"), None)
            .await
            .0;
        assert_eq!(beyond, 400);
        assert_eq!(host.ask(Method::Post, &format!("{one}/stop"), None).await.1["running"], false);
        // Whoever may read everything may not read what others send.
        let reader = json!({ "name": "reader", "password": "long enough" });
        assert_eq!(host.ask(Method::Post, "/users", Some(reader)).await.0, 201);
        let token = log_in(&host.api, "reader", "long enough").await;
        assert_eq!(ask_raw(&host.api, &token, Method::Get, "/networks/ports", None).await.0, 200);
        for path in [all, &one, &format!("{one}/file")] {
            assert_eq!(ask_raw(&host.api, &token, Method::Get, path, None).await.0, 403, "{path}");
        }
        let events = host.ask(Method::Get, "/events", None).await.1.to_string();
        assert!(events.contains("A recording of port eth0"), "{events}");
        assert_eq!(host.ask(Method::Delete, &one, None).await.0, 204);
        assert_eq!(host.ask(Method::Get, &one, None).await.0, 404);
        assert_eq!(host.ask(Method::Get, &format!("{all}/x"), None).await.0, 404);
    });
}
