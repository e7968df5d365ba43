//! Performance counters: rings of samples, each coarser and longer than the one before.

use crate::{
    host::Usage,
    model::{CounterSeries, Sample},
};
use alloc::{
    collections::{BTreeMap, VecDeque},
    format,
    string::String,
    vec::Vec,
};

/// Seconds between samples, and how many are kept: an hour, a day, a week, a month.
const RINGS: [(&str, u64, usize); 4] = [("realtime", 20, 180), ("day", 300, 288), ("week", 1800, 336), ("month", 7200, 360)];
/// Series that are followed: those of 120 machines. What is not sampled any more goes first.
const MOST_SERIES: usize = 1536;
/// Samples by which a ring grows: together they are most of what hostd holds.
const GROWTH: usize = 16;

#[derive(Default)]
struct Series {
    unit: &'static str,
    rings: [VecDeque<(u32, f32)>; 4],
    sums: [(f64, u32, u64); 4],
    last: u64,
    /// Only the first ring is kept.
    short: bool,
}

impl Series {
    fn add(&mut self, seconds: u64, value: f64) {
        self.last = seconds;
        for (index, (_, interval, most)) in RINGS.iter().enumerate() {
            let slot = seconds / interval;
            let (sum, count, current) = &mut self.sums[index];
            if *count > 0 && *current != slot {
                let time = u32::try_from(*current * interval).unwrap_or(u32::MAX);
                let ring = &mut self.rings[index];
                if ring.len() >= *most {
                    ring.pop_front();
                }
                if ring.len() == ring.capacity() {
                    ring.reserve_exact(GROWTH);
                }
                ring.push_back((time, (*sum / f64::from(*count)) as f32));
                (*sum, *count) = (0.0, 0);
            }
            (*sum, *count, *current) = (*sum + value, *count + 1, slot);
            if self.short {
                break;
            }
        }
    }
}

/// All counters.
#[derive(Default)]
pub(crate) struct Counters {
    series: BTreeMap<(String, &'static str), Series>,
    before: Option<(u64, Usage)>,
}

fn rate(now: u64, before: u64, ms: u64) -> f64 {
    now.saturating_sub(before) as f64 * 1000.0 / ms as f64
}

impl Counters {
    pub(crate) fn sample(&mut self, monotonic: u64, seconds: u64, usage: &Usage, vms: &[(String, String)]) {
        if let Some((then, before)) = self.before.take() {
            let ms = monotonic.saturating_sub(then).max(1);
            // Microseconds of processor time a second, in per cent of one processor.
            let cpu = |now, before| rate(now, before, ms) / 10_000.0;
            let mut add = |entity: &str, counter, unit, value, short| {
                let series = self.series.entry((entity.into(), counter)).or_default();
                (series.unit, series.short) = (unit, short);
                series.add(seconds, value);
            };
            add("host-1", "cpu.usage", "percent", cpu(usage.cpu_us, before.cpu_us), false);
            add("host-1", "mem.usage", "bytes", usage.memory as f64, false);
            add(
                "host-1",
                "disk.read",
                "bytesPerSecond",
                rate(usage.disk.0, before.disk.0, ms),
                false,
            );
            add(
                "host-1",
                "disk.write",
                "bytesPerSecond",
                rate(usage.disk.1, before.disk.1, ms),
                false,
            );
            add(
                "host-1",
                "net.received",
                "bytesPerSecond",
                rate(usage.network.0, before.network.0, ms),
                false,
            );
            add(
                "host-1",
                "net.transmitted",
                "bytesPerSecond",
                rate(usage.network.1, before.network.1, ms),
                false,
            );
            for server in &usage.servers {
                let Some(old) = before.servers.iter().find(|old| old.name == server.name) else {
                    continue;
                };
                let entity = format!("server-{}", server.name);
                add(&entity, "cpu.usage", "percent", cpu(server.cpu_us, old.cpu_us), server.of_vm);
                add(&entity, "mem.usage", "bytes", server.memory as f64, server.of_vm);
            }
            for vm in &usage.vms {
                let Some(old) = before.vms.iter().find(|old| old.name == vm.name) else {
                    continue;
                };
                let Some((_, entity)) = vms.iter().find(|(name, _)| *name == vm.name) else {
                    continue;
                };
                add(entity, "cpu.usage", "percent", cpu(vm.cpu_us, old.cpu_us), false);
                add(entity, "mem.usage", "bytes", vm.memory as f64, false);
                add(entity, "disk.read", "bytesPerSecond", rate(vm.disk.0, old.disk.0, ms), false);
                add(entity, "disk.write", "bytesPerSecond", rate(vm.disk.1, old.disk.1, ms), false);
                add(
                    entity,
                    "net.received",
                    "bytesPerSecond",
                    rate(vm.network.0, old.network.0, ms),
                    false,
                );
                add(
                    entity,
                    "net.transmitted",
                    "bytesPerSecond",
                    rate(vm.network.1, old.network.1, ms),
                    false,
                );
                add(entity, "exits", "perSecond", rate(vm.exits, old.exits, ms), false);
            }
        }
        self.before = Some((monotonic, usage.clone()));
        while self.series.len() > MOST_SERIES {
            let oldest = self.series.iter().min_by_key(|(_, series)| series.last).map(|(key, _)| key.clone());
            oldest.map(|key| self.series.remove(&key));
        }
    }

    /// Series of an entity, of those counters or (none named) of all.
    pub(crate) fn read(&self, entity: &str, wanted: &[&str], period: &str) -> Vec<CounterSeries> {
        let Some(index) = RINGS.iter().position(|(name, ..)| *name == period) else {
            return Vec::new();
        };
        let own = self
            .series
            .iter()
            .filter(|((own, counter), _)| own == entity && (wanted.is_empty() || wanted.contains(counter)));
        own.map(|((entity, counter), series)| CounterSeries {
            entity: entity.clone(),
            counter: (*counter).into(),
            unit: series.unit.into(),
            interval: RINGS[index].1,
            samples: series.rings[index]
                .iter()
                .map(|(time, value)| Sample {
                    time: (*time).into(),
                    value: (*value).into(),
                })
                .collect(),
        })
        .collect()
    }

    /// The latest value.
    pub(crate) fn now(&self, entity: &str, counter: &'static str) -> f64 {
        self.series
            .get(&(entity.into(), counter))
            .and_then(|series| Some(series.sums[0].0 / f64::from(Some(series.sums[0].1).filter(|count| *count > 0)?)))
            .unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{ServerUsage, VmUsage};

    /// Bytes of all rings, with the room that they have to spare.
    fn held(counters: &Counters) -> usize {
        let rings = counters.series.values().flat_map(|series| &series.rings);
        rings.map(|ring| ring.capacity() * size_of::<(u32, f32)>()).sum()
    }

    #[test]
    fn a_hundred_machines_of_a_month_take_less_than_eight_mebibytes() {
        let mut counters = Counters::default();
        let ids: Vec<(String, String)> = (0..100).map(|vm| (format!("m{vm}"), format!("vm-{vm}"))).collect();
        let vm = |number| VmUsage {
            name: format!("m{number}"),
            ..VmUsage::default()
        };
        let server = |number: usize| ServerUsage {
            name: format!("vmm:m{number}"),
            of_vm: true,
            ..ServerUsage::default()
        };
        let usage = Usage {
            vms: (0..100).map(vm).collect(),
            servers: (0..200).map(server).collect(),
            ..Usage::default()
        };
        // Each ring is full after so many of its samples; those between add nothing to what is held.
        for (_, interval, most) in RINGS {
            for sample in 0..most as u64 + 3 {
                let seconds = 1_800_000_000 + sample * interval;
                counters.sample(seconds * 1000, seconds, &usage, &ids);
            }
        }
        let held = held(&counters);
        assert!(held > 5 << 20, "the rings are not full: {held}");
        assert!(held < 8 << 20, "the rings hold {held} bytes");
        let day = counters.read("vm-7", &["cpu.usage"], "day");
        assert_eq!(day[0].samples.len(), 288);
        assert!(
            counters
                .read("server-vmm:m7", &[], "day")
                .iter()
                .all(|series| series.samples.is_empty())
        );
    }
}
