/** Charts of the counters, for the host and for a machine. */
import { useMemo, useState } from "preact/hooks";
import { api } from "../api";
import type { CounterSeries } from "../api/types";
import { bytes, mhz, number } from "../format";
import { type MessageKey, t, tOr } from "../i18n";
import { useResource } from "../state/resource";
import { Card, Empty, Notice, Spinner } from "../ui/basic";
import { Chart } from "../ui/chart";

const PERIODS = ["realtime", "day", "week", "month"] as const;
const GROUPS: [MessageKey, string[]][] = [
  ["chart.cpu", ["cpu.usage"]],
  ["chart.memory", ["mem.usage"]],
  ["chart.disk", ["disk.read", "disk.write"]],
  ["chart.network", ["net.received", "net.transmitted"]],
  ["chart.exits", ["exits"]],
];

export function formatUnit(unit: string): (value: number) => string {
  if (unit === "MHz" || unit === "megahertz") return mhz;
  if (unit === "percent" || unit === "%") return (value) => `${number(value, 1)} %`;
  if (unit === "bytes") return bytes;
  if (unit === "bytesPerSecond") return (value) => `${bytes(value)}/s`;
  if (unit === "perSecond") return (value) => `${number(value)}/s`;
  return (value) => number(value, 2);
}

/** The times of all series together, and each one's values at them. */
export function align(series: CounterSeries[]): { times: number[]; values: (number | null)[][] } {
  const times = [...new Set(series.flatMap((one) => one.samples.map((sample) => sample.time)))].sort((a, b) => a - b);
  const values = series.map((one) => {
    const at = new Map(one.samples.map((sample) => [sample.time, sample.value]));
    return times.map((time) => at.get(time) ?? null);
  });
  return { times, values };
}

export function Performance({ entity }: { entity: string }) {
  const [period, setPeriod] = useState<string>("realtime");
  const wanted = GROUPS.flatMap(([, counters]) => counters);
  const { data, error } = useResource(() => api.counters(entity, wanted, period), [entity, period], {
    seconds: period === "realtime" ? 5 : 60,
  });
  const groups = useMemo(
    () =>
      GROUPS.map(([title, counters]) => {
        const series = counters
          .map((counter) => data?.find((one) => one.counter === counter))
          .filter((one): one is CounterSeries => !!one && one.samples.length > 0);
        return { title, series, ...align(series) };
      }).filter((group) => group.series.length > 0),
    [data],
  );
  return (
    <div class="stack">
      <div class="toolbar" role="group" aria-label={t("chart.period")}>
        {PERIODS.map((name) => (
          <button
            key={name}
            type="button"
            class={`button ${period === name ? "primary" : ""}`}
            aria-pressed={period === name}
            onClick={() => setPeriod(name)}
          >
            {t(`chart.${name}`)}
          </button>
        ))}
      </div>
      {error && <Notice tone="danger">{error}</Notice>}
      {!data && !error && <Spinner />}
      {data && groups.length === 0 && (
        <Card>
          <Empty icon="chart" title={t("chart.none")} />
        </Card>
      )}
      <div class="grid">
        {groups.map(({ title, series, times, values }) => (
          <Card key={title} title={t(title)} class="w6">
            <Chart
              label={t(title)}
              times={times}
              binary={series[0]!.unit.startsWith("bytes")}
              format={formatUnit(series[0]!.unit)}
              series={series.map((one, index) => ({ name: tOr("counter", one.counter), values: values[index]! }))}
            />
          </Card>
        ))}
      </div>
    </div>
  );
}
