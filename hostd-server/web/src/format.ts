/** How numbers, sizes and times are shown. */
import { language } from "./i18n";

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** A size in bytes with binary units, such as `1.5 GiB`. */
export function bytes(value: number | null | undefined): string {
  if (value == null || !Number.isFinite(value)) return "–";
  let unit = 0;
  let shown = value;
  while (Math.abs(shown) >= 1024 && unit < UNITS.length - 1) {
    shown /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Number.isInteger(shown) || shown >= 100 ? 0 : shown >= 10 ? 1 : 2;
  return `${number(shown, digits)} ${UNITS[unit]}`;
}

export function number(value: number | null | undefined, digits = 0): string {
  if (value == null || !Number.isFinite(value)) return "–";
  return new Intl.NumberFormat(language.value, { maximumFractionDigits: digits }).format(value);
}

export function percent(part: number, whole = 100): string {
  return whole > 0 ? `${number((part / whole) * 100, part / whole < 0.1 ? 1 : 0)} %` : "–";
}

export function mhz(value: number | null | undefined): string {
  if (value == null) return "–";
  return value >= 1000 ? `${number(value / 1000, 2)} GHz` : `${number(value)} MHz`;
}

type Time = string | number | null | undefined;

/** The host speaks RFC 3339, or seconds since 1970. */
export function parseTime(time: Time): Date | null {
  if (time == null || time === "") return null;
  const date = typeof time === "number" ? new Date(time * 1000) : new Date(time);
  return Number.isNaN(date.getTime()) ? null : date;
}

export function dateTime(time: Time): string {
  const date = parseTime(time);
  return date ? new Intl.DateTimeFormat(language.value, { dateStyle: "medium", timeStyle: "medium" }).format(date) : "–";
}

/** For tables: the year is left out where it is this one. */
export function shortTime(time: Time): string {
  const date = parseTime(time);
  if (!date) return "–";
  const year = date.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  return new Intl.DateTimeFormat(language.value, {
    year,
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hour12: false,
  }).format(date);
}

export function clock(time: Time): string {
  const date = parseTime(time);
  return date ? new Intl.DateTimeFormat(language.value, { timeStyle: "medium" }).format(date) : "–";
}

/** A span such as `3 d 4 h`, in the two largest units. */
export function span(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const parts: [number, string][] = [
    [Math.floor(whole / 86400), "day"],
    [Math.floor(whole / 3600) % 24, "hour"],
    [Math.floor(whole / 60) % 60, "minute"],
    [whole % 60, "second"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  const shown = first < 0 ? parts.slice(3) : parts.slice(first, first + 2).filter(([count]) => count > 0);
  return shown
    .map(([count, unit]) => new Intl.NumberFormat(language.value, { style: "unit", unit, unitDisplay: "short" }).format(count))
    .join(" ");
}
