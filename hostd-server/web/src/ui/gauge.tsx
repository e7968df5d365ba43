/** A dial of a share, and a small line of its last values. */
import { percent } from "../format";

const RADIUS = 62;
const SWEEP = Math.PI * 1.5;

export function Gauge({ name, used, total, text, sub }: { name: string; used: number; total: number; text: string; sub: string }) {
  const share = total > 0 ? Math.min(1, Math.max(0, used / total)) : 0;
  const length = RADIUS * SWEEP;
  const colour = share > 0.9 ? "var(--danger)" : share > 0.75 ? "var(--warn)" : "var(--primary)";
  const arc = {
    fill: "none",
    "stroke-width": 11,
    "stroke-linecap": "round" as const,
    "stroke-dasharray": `${length} 1000`,
    transform: "rotate(135 80 76)",
  };
  return (
    <div
      class="gauge"
      role="meter"
      aria-label={name}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={Math.round(share * 100)}
      aria-valuetext={`${percent(used, total)}, ${text}`}
    >
      <svg viewBox="0 0 160 134" aria-hidden="true">
        <circle class="track" cx={80} cy={76} r={RADIUS} {...arc} />
        <circle class="value" cx={80} cy={76} r={RADIUS} {...arc} stroke={colour} stroke-dashoffset={length * (1 - share)} />
        <text class="big" x={80} y={84} text-anchor="middle">
          {percent(used, total)}
        </text>
      </svg>
      <strong>{name}</strong>
      <span class="num">{text}</span>
      <span class="sub">{sub}</span>
    </div>
  );
}

/** Values from oldest to newest; the highest stands at the top. */
export function Sparkline({ values, colour = "var(--series-1)", max }: { values: number[]; colour?: string; max?: number }) {
  if (values.length < 2) return <svg class="sparkline" aria-hidden="true" />;
  const top = Math.max(max ?? 0, ...values, 1e-9);
  const points = values
    .map((value, index) => `${((index / (values.length - 1)) * 100).toFixed(2)},${(29 - (Math.max(0, value) / top) * 27).toFixed(2)}`)
    .join(" ");
  return (
    <svg class="sparkline" viewBox="0 0 100 30" preserveAspectRatio="none" aria-hidden="true">
      <polygon points={`0,30 ${points} 100,30`} fill={colour} opacity={0.13} />
      <polyline points={points} fill="none" stroke={colour} stroke-width={1.6} vector-effect="non-scaling-stroke" stroke-linejoin="round" />
    </svg>
  );
}
