/** Dialogs over the page: the browser's own, so focus stays inside and Escape closes them. */
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { message } from "../api/client";
import { t } from "../i18n";
import { Button, Notice } from "./basic";

export function Dialog({
  title,
  children,
  onClose,
  footer,
  wide,
}: { title: string; children: ComponentChildren; onClose: () => void; footer?: ComponentChildren; wide?: boolean }) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = element.current;
    const before = document.activeElement;
    if (dialog && !dialog.open) {
      dialog.showModal();
      // The browser would begin at the button that closes it.
      dialog.querySelector<HTMLElement>("form input:not([type=file]), form select, form textarea, footer .primary")?.focus();
    }
    return () => {
      if (before instanceof HTMLElement && before.isConnected) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={element}
      class={wide ? "wide" : ""}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        onClose();
      }}
    >
      <header>
        <h2 id={id}>{title}</h2>
        <Button icon="close" kind="plain" label={t("close")} onClick={onClose} />
      </header>
      {children}
      {footer && <footer>{footer}</footer>}
    </dialog>
  );
}

/** A form in a dialog: sends by Enter, shows the host's answer when it refuses, closes when it is done. */
export function FormDialog({
  title,
  children,
  onClose,
  act,
  submit,
  danger,
  valid = true,
}: {
  title: string;
  children: ComponentChildren;
  onClose: () => void;
  act: () => Promise<unknown>;
  submit: string;
  danger?: boolean;
  valid?: boolean;
}) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const id = useId();
  const send = async (event: Event) => {
    event.preventDefault();
    if (!valid || busy) return;
    setBusy(true);
    setError(null);
    try {
      await act();
      onClose();
    } catch (failure) {
      setError(message(failure));
      setBusy(false);
    }
  };
  return (
    <Dialog
      title={title}
      onClose={onClose}
      footer={
        <>
          <Button onClick={onClose}>{t("cancel")}</Button>
          <button type="submit" form={id} class={`button primary ${danger ? "danger" : ""}`} disabled={!valid || busy}>
            {submit}
          </button>
        </>
      }
    >
      <form id={id} class="body stack" onSubmit={send}>
        {error && <Notice tone="danger">{error}</Notice>}
        {children}
      </form>
    </Dialog>
  );
}

interface Question {
  title: string;
  text: ComponentChildren;
  submit: string;
  danger?: boolean;
  act: () => Promise<unknown>;
}
const question = signal<Question | null>(null);

/** Asks before something that cannot be taken back. */
export function ask(what: Question | null): void {
  question.value = what;
}

export function Asked() {
  const asked = question.value;
  if (!asked) return null;
  return (
    <FormDialog title={asked.title} submit={asked.submit} danger={asked.danger} act={asked.act} onClose={() => ask(null)}>
      <div>{asked.text}</div>
    </FormDialog>
  );
}

interface Toast {
  id: number;
  tone: "info" | "ok" | "danger";
  title: string;
  text?: string;
}
const toasts = signal<Toast[]>([]);
let nextToast = 1;

/** A short word in the corner; failures stay until they are closed. */
export function toast(tone: Toast["tone"], title: string, text?: string): void {
  const id = nextToast++;
  toasts.value = [...toasts.value.slice(-3), { id, tone, title, text }];
  if (tone !== "danger") setTimeout(() => closeToast(id), 6000);
}

function closeToast(id: number) {
  toasts.value = toasts.value.filter((one) => one.id !== id);
}

/** Runs what a button does, and tells when the host refuses. */
export async function attempt<T>(what: string, act: () => Promise<T>): Promise<T | undefined> {
  try {
    return await act();
  } catch (failure) {
    toast("danger", t("failed", { what }), message(failure));
    return undefined;
  }
}

export const Toasts = () => (
  <div class="toasts" role="status" aria-live="polite">
    {toasts.value.map((one) => (
      <div key={one.id} class={`toast ${one.tone}`}>
        <div class="grow">
          <strong>{one.title}</strong>
          {one.text && <p>{one.text}</p>}
        </div>
        <Button icon="close" kind="plain" label={t("close")} onClick={() => closeToast(one.id)} />
      </div>
    ))}
  </div>
);
