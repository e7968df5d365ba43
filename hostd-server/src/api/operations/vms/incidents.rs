//! What goes wrong in machines: kernels that panic, watchdogs that nobody came by at. It becomes an event and an alarm, and what was chosen for it is done.

use super::{Result, record};
use crate::{
    api::{Api, Call, operations::NoQuery},
    host::{VmFacts, VmPower, VmRun},
    model::{IncidentAction, Severity, VmAlarm, VmAlarmKind},
    time::rfc3339,
};
use alloc::{collections::BTreeMap, format, rc::Rc, string::String, vec::Vec};

/// What is known of one machine.
#[derive(Default)]
struct Known {
    /// The start of the machine that all of it is of.
    start: Option<u64>,
    /// Panics and watchdog timeouts that its monitor counted when it was last looked at.
    counted: [u32; 2],
    /// Those among them that somebody cleared.
    cleared: [u32; 2],
    /// When each kind was last seen, in milliseconds since 1970.
    seen_ms: [u64; 2],
    /// The guest's addresses.
    addresses: Vec<String>,
}

/// What went wrong in machines since they were started, by their identifiers.
#[derive(Default)]
pub(in crate::api) struct Incidents {
    machines: BTreeMap<String, Known>,
    /// It was looked at all machines once: what is counted for the first time then happened while hostd watched.
    watching: bool,
}

const KINDS: [VmAlarmKind; 2] = [VmAlarmKind::GuestPanicked, VmAlarmKind::WatchdogExpired];

impl Incidents {
    /// Alarms of a machine.
    pub(super) fn alarms(&self, id: &str) -> Vec<VmAlarm> {
        let Some(known) = self.machines.get(id) else { return Vec::new() };
        let counts = known
            .counted
            .iter()
            .zip(known.cleared)
            .map(|(counted, cleared)| counted.saturating_sub(cleared));
        KINDS
            .into_iter()
            .zip(counts)
            .zip(known.seen_ms)
            .filter(|((_, count), _)| *count > 0)
            .map(|((kind, count), ms)| VmAlarm {
                kind,
                count,
                time: rfc3339(ms),
            })
            .collect()
    }

    /// Takes what a machine's monitor counts now. What happened since it was last looked at. Without `start` the machine is off, and its alarms stay.
    fn take(&mut self, id: &str, start: Option<u64>, counted: [u32; 2], now_ms: u64) -> Vec<VmAlarmKind> {
        let known = self.machines.entry(id.into()).or_default();
        if start.is_some() && start != known.start {
            *known = Known { start, ..Known::default() };
        }
        let [panics, timeouts] = known.counted;
        let counted = [counted[0].max(panics), counted[1].max(timeouts)];
        let mut happened = Vec::new();
        for (place, kind) in KINDS.into_iter().enumerate() {
            if counted[place] > known.counted[place] {
                known.seen_ms[place] = now_ms;
                happened.push(kind);
            }
        }
        known.counted = counted;
        happened
    }

    /// Whether a guest has other addresses than before.
    fn moved(&mut self, id: &str, addresses: &[String]) -> bool {
        let known = self.machines.entry(id.into()).or_default();
        let moved = known.addresses != addresses;
        if moved {
            known.addresses = addresses.into();
        }
        moved
    }

    fn clear(&mut self, id: &str) -> bool {
        self.machines
            .get_mut(id)
            .is_some_and(|known| core::mem::replace(&mut known.cleared, known.counted) != known.counted)
    }
}

/// Looks at all machines once.
pub(in crate::api) async fn watch(api: &Rc<Api>) {
    // A server that does not answer is asked again.
    let Ok(facts) = api.host.vms().await else { return };
    let machines: Vec<(String, String, IncidentAction, IncidentAction)> = api
        .data
        .borrow()
        .vms
        .values()
        .map(|vm| (vm.id.clone(), vm.config.name.clone(), vm.config.on_panic, vm.config.watchdog))
        .collect();
    let told = api.incidents.borrow().watching;
    for (id, name, on_panic, watchdog) in &machines {
        let Some(fact) = facts.iter().find(|fact| fact.name == *name) else {
            continue;
        };
        let happened = api
            .incidents
            .borrow_mut()
            .take(id, fact.start, [fact.panics, fact.watchdog_timeouts], api.now());
        if api.incidents.borrow_mut().moved(id, &fact.addresses) {
            api.tell("vm", id, "updated");
        }
        // What there was before hostd was started again was told of then.
        for kind in happened.into_iter().filter(|_| told) {
            match kind {
                VmAlarmKind::GuestPanicked => panicked(api, id, fact, *on_panic).await,
                VmAlarmKind::WatchdogExpired => {
                    let outcome = match watchdog {
                        IncidentAction::None => "",
                        IncidentAction::Reset => ": it was reset",
                        IncidentAction::PowerOff => ": it was switched off",
                    };
                    let text = format!("{name} did not come by at its watchdog in time{outcome}");
                    api.event(Severity::Error, "vm.watchdogExpired", text, None, Some(id)).await;
                }
            }
            api.tell("vm", id, "updated");
        }
    }
    let mut incidents = api.incidents.borrow_mut();
    incidents.machines.retain(|id, _| machines.iter().any(|(known, ..)| known == id));
    incidents.watching = true;
}

async fn panicked(api: &Rc<Api>, id: &str, fact: &VmFacts, action: IncidentAction) {
    let action = match action {
        IncidentAction::Reset => Some((VmPower::Reset, "it is reset")),
        IncidentAction::PowerOff => Some((VmPower::Stop, "it is switched off")),
        IncidentAction::None => None,
    };
    let name = &fact.name;
    let action = action.filter(|_| fact.run == VmRun::On);
    let text = match action {
        Some((_, what)) => format!("The kernel of {name}'s guest panicked: {what}"),
        None => format!("The kernel of {name}'s guest panicked"),
    };
    api.event(Severity::Error, "vm.guestPanicked", text, None, Some(id)).await;
    if let Some((power, _)) = action {
        if let Err(error) = api.host.vm_power(name, power).await {
            let text = format!("Nothing was done about the panic of {name}: {}", error.message);
            api.event(Severity::Error, "vm.guestPanicked", text, None, Some(id)).await;
        }
    }
}

pub(super) async fn clear_alarms(call: Call, _: NoQuery, (): ()) -> Result<()> {
    let record = record(&call)?;
    if call.api.incidents.borrow_mut().clear(&record.id) {
        let text = format!("The alarms of {} were cleared", record.config.name);
        call.api
            .event(Severity::Info, "vm.alarmsCleared", text, Some(&call.user()), Some(&record.id))
            .await;
        call.api.tell("vm", &record.id, "updated");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Incidents, VmAlarmKind};
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn counts(incidents: &Incidents) -> Vec<(VmAlarmKind, u32)> {
        incidents
            .alarms("vm-1")
            .into_iter()
            .map(|alarm| (alarm.kind, alarm.count))
            .collect()
    }

    #[test]
    fn alarms_last_until_they_are_cleared_or_the_machine_starts_anew() {
        let mut incidents = Incidents::default();
        let first = Some(100);
        assert!(incidents.take("vm-1", first, [0, 0], 1).is_empty());
        assert_eq!(incidents.take("vm-1", first, [2, 0], 2), [VmAlarmKind::GuestPanicked]);
        assert!(incidents.take("vm-1", first, [2, 0], 3).is_empty());
        assert_eq!(counts(&incidents), [(VmAlarmKind::GuestPanicked, 2)]);
        assert!(incidents.clear("vm-1"));
        assert!(!incidents.clear("vm-1"));
        assert_eq!(counts(&incidents), []);
        assert_eq!(
            incidents.take("vm-1", first, [3, 1], 4),
            [VmAlarmKind::GuestPanicked, VmAlarmKind::WatchdogExpired]
        );
        let both = [(VmAlarmKind::GuestPanicked, 1), (VmAlarmKind::WatchdogExpired, 1)];
        assert_eq!(counts(&incidents), both);
        // It is off.
        assert!(incidents.take("vm-1", None, [0, 0], 5).is_empty());
        assert_eq!(counts(&incidents), both);
        // As much in another run is something new.
        assert_eq!(incidents.take("vm-1", Some(200), [3, 0], 6), [VmAlarmKind::GuestPanicked]);
        assert_eq!(counts(&incidents), [(VmAlarmKind::GuestPanicked, 3)]);
        assert!(incidents.take("vm-1", Some(300), [0, 0], 7).is_empty());
        assert_eq!(counts(&incidents), []);
        // What its watchdog switched off was seen running before.
        assert_eq!(incidents.take("vm-1", None, [0, 1], 8), [VmAlarmKind::WatchdogExpired]);
        assert!(incidents.take("vm-1", None, [0, 1], 9).is_empty());
        assert!(incidents.alarms("vm-2").is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_counted_is_told_once(counted in prop::collection::vec((0u32..4, 0u32..4), 0..20)) {
            let mut incidents = Incidents::default();
            for (start, (panics, timeouts)) in counted.into_iter().enumerate() {
                let start = Some(start as u64);
                incidents.take("vm-1", start, [panics, timeouts], 1);
                prop_assert!(incidents.take("vm-1", start, [panics, timeouts], 2).is_empty());
                let shown: u32 = counts(&incidents).into_iter().map(|(_, count)| count).sum();
                prop_assert_eq!(shown, panics + timeouts);
            }
        }
    }
}
