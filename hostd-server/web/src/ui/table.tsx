/** A table that draws only the rows that are seen, so that thousands cost no more than a screenful. */
import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { t } from "../i18n";
import { Icon } from "./icon";

export interface Column<T> {
  key: string;
  name: string;
  /** A track of a CSS grid. */
  width?: string;
  end?: boolean;
  /** Left out on narrow screens. */
  wide?: boolean;
  sort?: (row: T) => string | number;
  cell: (row: T) => ComponentChildren;
}

interface Props<T> {
  label: string;
  rows: T[];
  columns: Column<T>[];
  rowKey: (row: T) => string;
  rowHeight?: number;
  /** The most of the screen that it takes; the rest is scrolled. */
  maxHeight?: string;
  selected?: ReadonlySet<string>;
  onSelect?: (selected: ReadonlySet<string>) => void;
  rowName?: (row: T) => string;
  initialSort?: [string, 1 | -1];
  empty?: ComponentChildren;
  foot?: boolean;
}

const OVERSCAN = 8;

export function Table<T>({
  label,
  rows,
  columns,
  rowKey,
  rowHeight = 40,
  maxHeight = "calc(100vh - 330px)",
  selected,
  onSelect,
  rowName,
  initialSort,
  empty,
  foot,
}: Props<T>) {
  const [sort, setSort] = useState<[string, 1 | -1] | null>(initialSort ?? null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const [narrow, setNarrow] = useState(() => window.matchMedia("(max-width: 860px)").matches);
  const scroller = useRef<HTMLDivElement>(null);

  useEffect(() => {
    const media = window.matchMedia("(max-width: 860px)");
    const changed = () => setNarrow(media.matches);
    media.addEventListener("change", changed);
    const element = scroller.current;
    if (!element || typeof ResizeObserver === "undefined") return () => media.removeEventListener("change", changed);
    const observer = new ResizeObserver(() => setHeight(element.clientHeight));
    observer.observe(element);
    return () => {
      observer.disconnect();
      media.removeEventListener("change", changed);
    };
  }, []);

  const sorted = useMemo(() => {
    const by = sort && columns.find((column) => column.key === sort[0])?.sort;
    if (!by || !sort) return rows;
    const compare = new Intl.Collator(undefined, { numeric: true }).compare;
    const keyed = rows.map((row) => [by(row), row] as const);
    keyed.sort(([a], [b]) => sort[1] * (typeof a === "number" && typeof b === "number" ? a - b : compare(String(a), String(b))));
    return keyed.map(([, row]) => row);
  }, [rows, sort, columns]);

  const shown = narrow ? columns.filter((column) => !column.wide) : columns;
  const tracks = [...(onSelect ? ["44px"] : []), ...shown.map((column) => column.width ?? "minmax(90px, 1fr)")].join(" ");
  const first = Math.max(0, Math.floor(top / rowHeight) - OVERSCAN);
  const last = Math.min(sorted.length, Math.ceil((top + height) / rowHeight) + OVERSCAN);
  const all = rows.length > 0 && selected !== undefined && rows.every((row) => selected.has(rowKey(row)));

  const toggle = (key: string) => {
    if (!selected || !onSelect) return;
    const next = new Set(selected);
    if (!next.delete(key)) next.add(key);
    onSelect(next);
  };
  const order = (key: string) => setSort(sort?.[0] === key ? [key, sort[1] === 1 ? -1 : 1] : [key, 1]);

  if (rows.length === 0 && empty) return <>{empty}</>;
  return (
    <div class="table" style={{ "--columns": tracks }}>
      <div
        class="scroll"
        style={{ maxHeight }}
        ref={scroller}
        tabIndex={0}
        role="table"
        aria-label={label}
        aria-rowcount={sorted.length + 1}
        onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      >
        <div role="rowgroup">
          <div class="tr thead" role="row" aria-rowindex={1}>
            {onSelect && (
              <div class="td check" role="columnheader">
                <input
                  type="checkbox"
                  aria-label={t("table.all")}
                  checked={all}
                  onChange={() => onSelect(all ? new Set() : new Set(rows.map(rowKey)))}
                />
              </div>
            )}
            {shown.map((column) => (
              <div
                key={column.key}
                class={`td ${column.end ? "end" : ""}`}
                role="columnheader"
                aria-sort={sort?.[0] === column.key ? (sort[1] === 1 ? "ascending" : "descending") : column.sort ? "none" : undefined}
              >
                {column.sort ? (
                  <button type="button" onClick={() => order(column.key)}>
                    {column.name}
                    {sort?.[0] === column.key && <Icon name={sort[1] === 1 ? "up" : "down"} small />}
                  </button>
                ) : (
                  column.name || <span class="visually-hidden">{t("actions")}</span>
                )}
              </div>
            ))}
          </div>
        </div>
        <div class="tbody" role="rowgroup" style={{ height: `${sorted.length * rowHeight}px` }}>
          {sorted.slice(first, last).map((row, index) => {
            const key = rowKey(row);
            return (
              <div
                key={key}
                class="tr"
                role="row"
                aria-rowindex={first + index + 2}
                aria-selected={selected ? selected.has(key) : undefined}
                style={{ top: `${(first + index) * rowHeight}px`, height: `${rowHeight}px` }}
              >
                {onSelect && (
                  <div class="td check" role="cell">
                    <input
                      type="checkbox"
                      aria-label={t("table.select", { name: rowName?.(row) ?? key })}
                      checked={selected?.has(key)}
                      onChange={() => toggle(key)}
                    />
                  </div>
                )}
                {shown.map((column) => (
                  <div key={column.key} class={`td ${column.end ? "end" : ""}`} role="cell">
                    {column.cell(row)}
                  </div>
                ))}
              </div>
            );
          })}
        </div>
      </div>
      {foot && (
        <div class="foot">
          {selected?.size ? t("table.selected", { count: rows.length, selected: selected.size }) : t("table.count", { count: rows.length })}
        </div>
      )}
    </div>
  );
}
