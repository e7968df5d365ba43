/** The small components that every page is made of. */
import { type ComponentChildren, Fragment } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { t } from "../i18n";
import { Icon, type IconName } from "./icon";

export type Tone = "ok" | "warn" | "danger" | "info" | "off";

interface ButtonProps {
  children?: ComponentChildren;
  icon?: IconName;
  /** For buttons that show only an icon. */
  label?: string;
  kind?: "primary" | "plain";
  danger?: boolean;
  disabled?: boolean;
  submit?: boolean;
  href?: string;
  onClick?: () => void;
  id?: string;
}

export function Button({ children, icon, label, kind, danger, disabled, submit, href, onClick, id }: ButtonProps) {
  const name = `button ${kind ?? ""} ${danger ? "danger" : ""} ${children ? "" : "square"}`;
  const inside = (
    <>
      {icon && <Icon name={icon} small={!!children} />}
      {children}
    </>
  );
  if (href) {
    return (
      <a class={name} href={href} aria-label={label} title={label}>
        {inside}
      </a>
    );
  }
  return (
    <button id={id} type={submit ? "submit" : "button"} class={name} aria-label={label} title={label} disabled={disabled} onClick={onClick}>
      {inside}
    </button>
  );
}

export const Badge = ({ tone, children, dot }: { tone: Tone; children: ComponentChildren; dot?: boolean }) => (
  <span class={`badge ${tone}`}>
    {dot && <span class={`dot ${tone}`} />}
    {children}
  </span>
);

export const Spinner = () => (
  <output class="empty">
    <span class="spinner" />
    <span class="visually-hidden">{t("loading")}</span>
  </output>
);

export function Card({
  title,
  children,
  actions,
  flush,
  class: name,
}: { title?: ComponentChildren; children: ComponentChildren; actions?: ComponentChildren; flush?: boolean; class?: string }) {
  const id = useId();
  return (
    <section class={`card ${name ?? ""}`} aria-labelledby={title ? id : undefined}>
      {title && (
        <header>
          <h2 id={id}>{title}</h2>
          {actions}
        </header>
      )}
      <div class={`body ${flush ? "flush" : ""}`}>{children}</div>
    </section>
  );
}

export const Facts = ({ items }: { items: [string, ComponentChildren][] }) => (
  <dl class="facts">
    {items.map(([name, value]) => (
      <Fragment key={name}>
        <dt>{name}</dt>
        <dd>{value ?? "–"}</dd>
      </Fragment>
    ))}
  </dl>
);

export const Notice = ({ tone = "info", children }: { tone?: "info" | "warn" | "danger"; children: ComponentChildren }) => (
  <div class={`notice ${tone}`} role={tone === "danger" ? "alert" : undefined}>
    <Icon name={tone === "info" ? "info" : "warn"} />
    <div class="grow">{children}</div>
  </div>
);

// No heading: the page's headings go on behind it, from whatever level it stands at.
export const Empty = ({ icon, title, children }: { icon: IconName; title: string; children?: ComponentChildren }) => (
  <div class="empty">
    <Icon name={icon} />
    <p class="title">{title}</p>
    {children}
  </div>
);

export function PageHead({
  icon,
  title,
  sub,
  actions,
  crumbs,
}: { icon: IconName; title: string; sub?: ComponentChildren; actions?: ComponentChildren; crumbs?: [string, string][] }) {
  useEffect(() => {
    document.title = `${title} – Tessera`;
  }, [title]);
  return (
    <>
      {crumbs && (
        <nav class="crumbs" aria-label={t("nav.path")}>
          {crumbs.map(([name, link]) => (
            <Fragment key={link}>
              <a href={link}>{name}</a>
              <span aria-hidden="true">/</span>
            </Fragment>
          ))}
          <span aria-current="page">{title}</span>
        </nav>
      )}
      <div class="page-head">
        <div class="title">
          <Icon name={icon} />
          <div class="grow">
            <h1>{title}</h1>
            {sub && <div class="sub">{sub}</div>}
          </div>
        </div>
        {actions && <div class="toolbar">{actions}</div>}
      </div>
    </>
  );
}

export const Progress = ({ value, label, tone }: { value: number | null; label: string; tone?: Tone }) => (
  <div
    class={`progress ${tone ?? ""} ${value == null ? "indeterminate" : ""}`}
    role="progressbar"
    aria-label={label}
    aria-valuemin={0}
    aria-valuemax={100}
    aria-valuenow={value == null ? undefined : Math.round(value)}
  >
    <i style={{ width: `${Math.min(100, value ?? 0)}%` }} />
  </div>
);

/** A share of something, with its words above the bar. */
export function Meter({ name, used, total, text }: { name: ComponentChildren; used: number; total: number; text: string }) {
  const share = total > 0 ? Math.min(100, (used / total) * 100) : 0;
  const label = useId();
  return (
    <div class="meter">
      <div class="line">
        <span id={label}>{name}</span>
        <span class="muted num">{text}</span>
      </div>
      <div
        class={`progress ${share > 90 ? "danger" : share > 75 ? "warn" : ""}`}
        role="meter"
        aria-labelledby={label}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={Math.round(share)}
      >
        <i style={{ width: `${share}%` }} />
      </div>
    </div>
  );
}

export const Tabs = ({ label, items, current }: { label: string; items: [string, string, string][]; current: string }) => (
  <nav class="tabs" aria-label={label}>
    {items.map(([key, name, link]) => (
      <a key={key} href={link} aria-current={key === current ? "page" : undefined}>
        {name}
      </a>
    ))}
  </nav>
);

export interface MenuItem {
  name: string;
  icon?: IconName;
  danger?: boolean;
  disabled?: boolean;
  checked?: boolean;
  act: () => void;
}

/** A button that opens a list of actions; arrow keys move in it, Escape closes it. */
export function Menu({
  items,
  label,
  children,
  button,
  start,
}: { items: (MenuItem | "line")[]; label: string; children: ComponentChildren; button?: string; start?: boolean }) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const opener = useRef<HTMLButtonElement>(null);
  const choices = () => [...(root.current?.querySelectorAll<HTMLButtonElement>("ul button:not([disabled])") ?? [])];
  // biome-ignore lint/correctness/useExhaustiveDependencies: what the choices are is looked up when they are drawn
  useEffect(() => {
    if (!open) return;
    choices()[0]?.focus();
    const outside = (event: Event) => {
      if (!root.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", outside);
    return () => document.removeEventListener("pointerdown", outside);
  }, [open]);
  const keys = (event: KeyboardEvent) => {
    if (!open) return;
    const list = choices();
    const at = list.indexOf(document.activeElement as HTMLButtonElement);
    if (event.key === "Escape") {
      setOpen(false);
      opener.current?.focus();
    } else if (event.key === "ArrowDown") list[(at + 1) % list.length]?.focus();
    else if (event.key === "ArrowUp") list[(at - 1 + list.length) % list.length]?.focus();
    else if (event.key === "Tab") return setOpen(false);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class={`menu ${start ? "start" : ""}`} ref={root} onKeyDown={keys}>
      <button
        type="button"
        ref={opener}
        class={button ?? "button"}
        aria-haspopup="menu"
        aria-expanded={open}
        aria-label={label}
        title={label}
        onClick={() => setOpen(!open)}
      >
        {children}
      </button>
      {open && (
        <ul role="menu" aria-label={label}>
          {items.map((item, index) =>
            item === "line" ? (
              <li role="separator" key={`line-${items.length - index}`}>
                <hr />
              </li>
            ) : (
              <li role="none" key={item.name}>
                <button
                  type="button"
                  role={item.checked === undefined ? "menuitem" : "menuitemradio"}
                  aria-checked={item.checked}
                  class={item.danger ? "danger" : ""}
                  disabled={item.disabled}
                  onClick={() => {
                    setOpen(false);
                    opener.current?.focus();
                    item.act();
                  }}
                >
                  {item.icon && <Icon name={item.icon} small />}
                  {item.name}
                  {item.checked && <Icon name="check" small />}
                </button>
              </li>
            ),
          )}
        </ul>
      )}
    </div>
  );
}
