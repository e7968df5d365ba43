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
/// Entities that are followed; what is not sampled any more goes first.
const MOST_SERIES: usize = 4096;

#[derive(Default)]
struct Series {
    unit: &'static str,
    rings: [VecDeque<(u32, f32)>; 4],
    sums: [(f64, u32, u64); 4],
    last: u64,
}

impl Series {
    fn add(&mut self, seconds: u64, value: f64) {
        self.last = seconds;
        for (index, (_, interval, most)) in RINGS.iter().enumerate() {
            let slot = seconds / interval;
            let (sum, count, current) = &mut self.sums[index];
            if *count > 0 && *current != slot {
                let time = u32::try_from(*current * interval).unwrap_or(u32::MAX);
                self.rings[index].push_back((time, (*sum / f64::from(*count)) as f32));
                if self.rings[index].len() > *most {
                    self.rings[index].pop_front();
                }
                (*sum, *count) = (0.0, 0);
            }
            (*sum, *count, *current) = (*sum + value, *count + 1, slot);
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
            let mut add = |entity: &str, counter, unit, value| {
                let series = self.series.entry((entity.into(), counter)).or_default();
                series.unit = unit;
                series.add(seconds, value);
            };
            add("host-1", "cpu.usage", "percent", cpu(usage.cpu_us, before.cpu_us));
            add("host-1", "mem.usage", "bytes", usage.memory as f64);
            add("host-1", "disk.read", "bytesPerSecond", rate(usage.disk.0, before.disk.0, ms));
            add("host-1", "disk.write", "bytesPerSecond", rate(usage.disk.1, before.disk.1, ms));
            add(
                "host-1",
                "net.received",
                "bytesPerSecond",
                rate(usage.network.0, before.network.0, ms),
            );
            add(
                "host-1",
                "net.transmitted",
                "bytesPerSecond",
                rate(usage.network.1, before.network.1, ms),
            );
            for server in &usage.servers {
                let Some(old) = before.servers.iter().find(|old| old.name == server.name) else {
                    continue;
                };
                let entity = format!("server-{}", server.name);
                add(&entity, "cpu.usage", "percent", cpu(server.cpu_us, old.cpu_us));
                add(&entity, "mem.usage", "bytes", server.memory as f64);
            }
            for vm in &usage.vms {
                let Some(old) = before.vms.iter().find(|old| old.name == vm.name) else {
                    continue;
                };
                let Some((_, entity)) = vms.iter().find(|(name, _)| *name == vm.name) else {
                    continue;
                };
                add(entity, "cpu.usage", "percent", cpu(vm.cpu_us, old.cpu_us));
                add(entity, "mem.usage", "bytes", vm.memory as f64);
                add(entity, "disk.read", "bytesPerSecond", rate(vm.disk.0, old.disk.0, ms));
                add(entity, "disk.write", "bytesPerSecond", rate(vm.disk.1, old.disk.1, ms));
                add(entity, "net.received", "bytesPerSecond", rate(vm.network.0, old.network.0, ms));
                add(entity, "net.transmitted", "bytesPerSecond", rate(vm.network.1, old.network.1, ms));
                add(entity, "exits", "perSecond", rate(vm.exits, old.exits, ms));
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
