/** A chart over time; the library that draws it is fetched with the first one. */
import { useEffect, useRef } from "preact/hooks";
import type uPlot from "uplot";
import { language } from "../i18n";
import { dark } from "../state/theme";

export interface Series {
  name: string;
  values: (number | null)[];
}

const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power);
export const COLOURS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6"];

export function Chart({
  label,
  times,
  series,
  format,
  height = 230,
  max,
  binary,
}: {
  label: string;
  times: number[];
  series: Series[];
  format: (value: number) => string;
  height?: number;
  max?: number;
  binary?: boolean;
}) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const names = series.map((one) => one.name).join("\n");
  const data = [times, ...series.map((one) => one.values)] as uPlot.AlignedData;
  const latest = useRef(data);
  latest.current = data;
  const isDark = dark.value;
  const lang = language.value;

  // biome-ignore lint/correctness/useExhaustiveDependencies: a new chart is drawn when its series, colours or language change; values are set below
  useEffect(() => {
    let gone = false;
    let observer: ResizeObserver | undefined;
    void import("./uplot").then(({ uPlot: Plot }) => {
      const element = place.current;
      if (gone || !element) return;
      const style = getComputedStyle(document.documentElement);
      const colour = (name: string) => style.getPropertyValue(name).trim();
      const axis = {
        stroke: colour("--muted"),
        grid: { stroke: colour("--border"), width: 1 },
        ticks: { stroke: colour("--border"), width: 1 },
        font: "12px system-ui, sans-serif",
      };
      const time = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
      plot.current = new Plot(
        {
          width: element.clientWidth,
          height,
          // Half of the last time stands right of the last point.
          padding: [8, 32, 0, 0],
          cursor: { y: false, points: { size: 7 } },
          legend: { show: false },
          scales: { x: { time: true }, y: { range: (_, __, high) => [0, max ?? (high > 0 ? high * 1.15 : 1)] } },
          axes: [
            { ...axis, values: (_, splits) => splits.map((at) => time.format(at * 1000)), space: 90, size: 32 },
            { ...axis, values: (_, splits) => splits.map(format), size: 78, ...(binary ? { incrs: POWERS } : {}) },
          ],
          series: [
            {},
            ...names.split("\n").map((name, index) => {
              const stroke = colour(COLOURS[index % COLOURS.length]!);
              return {
                label: name,
                stroke,
                width: 2,
                fill: index === 0 ? `${stroke}1c` : undefined,
                points: { show: false },
                spanGaps: false,
              };
            }),
          ],
        },
        latest.current,
        element,
      );
      observer = new ResizeObserver(() => plot.current?.setSize({ width: element.clientWidth, height }));
      observer.observe(element);
    });
    return () => {
      gone = true;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [names, isDark, lang, height, max, binary]);

  useEffect(() => {
    plot.current?.setData(data);
  });

  const last = (one: Series) => [...one.values].reverse().find((value) => value != null) ?? null;
  return (
    <figure class="stack small">
      <div class="chart" ref={place} role="img" aria-label={label} style={{ minHeight: `${height}px` }} />
      <figcaption class="legend">
        {series.map((one, index) => {
          const value = last(one);
          return (
            <span key={one.name} class="num">
              <i style={{ background: `var(${COLOURS[index % COLOURS.length]})` }} />
              {one.name}
              {value != null && <strong> {format(value)}</strong>}
            </span>
          );
        })}
      </figcaption>
    </figure>
  );
}
