/** Fields: each has a label, may have a hint, and says what is wrong beside itself. */
import type { ComponentChildren, JSX } from "preact";
import { useId } from "preact/hooks";
import { t } from "../i18n";
import { Icon } from "./icon";

interface Common {
  label: string;
  hint?: ComponentChildren;
  error?: string | null | undefined;
  full?: boolean;
}

function Frame({ id, label, hint, error, full, children }: Common & { id: string; children: ComponentChildren }) {
  return (
    <div class={`field ${full ? "full" : ""}`}>
      <label for={id}>{label}</label>
      {children}
      {hint && !error && (
        <span class="hint" id={`${id}-hint`}>
          {hint}
        </span>
      )}
      {error && (
        <span class="error" id={`${id}-hint`} role="alert">
          <Icon name="warn" small />
          {error}
        </span>
      )}
    </div>
  );
}

type TextProps = Common & {
  value: string;
  onInput: (value: string) => void;
  type?: "text" | "password" | "number";
  input?: Omit<JSX.IntrinsicElements["input"], "onInput" | "value" | "type">;
};

export function TextField({ value, onInput, type = "text", input, ...common }: TextProps) {
  const id = useId();
  const told = common.hint || common.error;
  return (
    <Frame id={id} {...common}>
      <input
        {...input}
        id={id}
        type={type}
        value={value}
        spellcheck={false}
        aria-invalid={common.error ? true : undefined}
        aria-describedby={told ? `${id}-hint` : undefined}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
    </Frame>
  );
}

/** Text of several lines, such as keys or a file. */
export function AreaField({ value, onInput, rows, ...common }: Common & { value: string; onInput: (value: string) => void; rows: number }) {
  const id = useId();
  return (
    <Frame id={id} {...common}>
      <textarea
        id={id}
        class="mono"
        rows={rows}
        value={value}
        spellcheck={false}
        aria-invalid={common.error ? true : undefined}
        aria-describedby={common.hint || common.error ? `${id}-hint` : undefined}
        onInput={(event) => onInput(event.currentTarget.value)}
      />
    </Frame>
  );
}

export function SelectField({
  value,
  onInput,
  options,
  disabled,
  ...common
}: Common & { value: string; onInput: (value: string) => void; options: [string, string][]; disabled?: boolean }) {
  const id = useId();
  return (
    <Frame id={id} {...common}>
      <select
        id={id}
        value={value}
        disabled={disabled}
        aria-describedby={common.hint || common.error ? `${id}-hint` : undefined}
        onChange={(event) => onInput(event.currentTarget.value)}
      >
        {options.map(([key, name]) => (
          <option key={key} value={key} selected={key === value}>
            {name}
          </option>
        ))}
      </select>
    </Frame>
  );
}

export function CheckField({
  label,
  value,
  onInput,
  disabled,
  hint,
}: { label: string; value: boolean; onInput: (value: boolean) => void; disabled?: boolean; hint?: string }) {
  return (
    <div class="field">
      <label class="checkline">
        <input type="checkbox" checked={value} disabled={disabled} onChange={(event) => onInput(event.currentTarget.checked)} />
        {label}
      </label>
      {hint && <span class="hint">{hint}</span>}
    </div>
  );
}

const MIB = 1024 * 1024;

/** A size that the user writes in MiB or GiB, kept in bytes. */
export function SizeField({ value, onInput, ...common }: Common & { value: number; onInput: (bytes: number) => void }) {
  const id = useId();
  const unit = value > 0 && value % (1024 * MIB) === 0 ? 1024 * MIB : MIB;
  return (
    <Frame id={id} {...common}>
      <div class="with-unit">
        <input
          id={id}
          type="number"
          min={1}
          step={1}
          value={Math.round(value / unit)}
          aria-invalid={common.error ? true : undefined}
          aria-describedby={common.hint || common.error ? `${id}-hint` : undefined}
          onChange={(event) => onInput(Math.max(0, Math.round(event.currentTarget.valueAsNumber || 0)) * unit)}
        />
        <select
          aria-label={t("size.unit", { field: common.label })}
          value={String(unit)}
          onChange={(event) => onInput(Math.round(value / unit) * Number(event.currentTarget.value))}
        >
          <option value={String(MIB)} selected={unit === MIB}>
            MiB
          </option>
          <option value={String(1024 * MIB)} selected={unit !== MIB}>
            GiB
          </option>
        </select>
      </div>
    </Frame>
  );
}
