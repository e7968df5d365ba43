/** The serial console of a machine. The terminal is fetched with the first one that is opened. */
import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Vm } from "../api/types";
import { t } from "../i18n";
import { path } from "../router";
import { vmById } from "../state/inventory";
import { Badge, Button, Card, Spinner } from "../ui/basic";
import { toast } from "../ui/dialog";
import { openConsole } from "./vm-actions";

type State = "connecting" | "connected" | "closed";

function useConsole(vm: string) {
  const place = useRef<HTMLDivElement>(null);
  const [state, setState] = useState<State>("connecting");
  const send = useRef<(text: string) => void>(() => undefined);
  const focus = useRef<() => void>(() => undefined);

  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const terminal = new Terminal({
      cursorBlink: true,
      fontFamily: 'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, monospace',
      fontSize: 14,
      // At 1 the rows cut off what stands below the line: underscores are not seen.
      lineHeight: 1.2,
      scrollback: 5000,
      screenReaderMode: true,
      theme: { background: "#0b1219", foreground: "#d6e2ec", cursor: "#2dd4bf", selectionBackground: "#2b4a66" },
    });
    const fit = new FitAddon();
    terminal.loadAddon(fit);
    terminal.open(element);
    fit.fit();
    const observer = new ResizeObserver(() => fit.fit());
    observer.observe(element);
    focus.current = () => terminal.focus();
    terminal.focus();
    // Ctrl-Shift-C and Ctrl-Shift-V copy and paste, as terminals do; leaving is by Ctrl-Shift-Escape, for Tab belongs to the guest.
    terminal.attachCustomKeyEventHandler((event) => {
      if (event.type !== "keydown" || !event.ctrlKey || !event.shiftKey) return true;
      if (event.key === "C" || event.key === "c") void navigator.clipboard?.writeText(terminal.getSelection());
      else if (event.key === "Escape") document.querySelector<HTMLElement>("[data-console-leave]")?.focus();
      else return true;
      event.preventDefault();
      return false;
    });

    let socket: WebSocket | null = null;
    let ended = false;
    let timer = 0;
    let wait = 500;
    const encoder = new TextEncoder();
    const write = (bytes: Uint8Array) => {
      if (socket?.readyState === WebSocket.OPEN) socket.send(bytes);
    };
    send.current = (text) => write(encoder.encode(text));
    terminal.onData((text) => write(encoder.encode(text)));
    terminal.onBinary((text) => write(Uint8Array.from(text, (character) => character.charCodeAt(0))));
    const open = () => {
      if (ended) return;
      setState("connecting");
      socket = new WebSocket(
        `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/vms/${encodeURIComponent(vm)}/console`,
      );
      socket.binaryType = "arraybuffer";
      socket.onopen = () => {
        wait = 500;
        setState("connected");
      };
      socket.onmessage = (event) => terminal.write(event.data instanceof ArrayBuffer ? new Uint8Array(event.data) : String(event.data));
      socket.onclose = () => {
        setState("closed");
        if (ended) return;
        timer = window.setTimeout(open, wait);
        wait = Math.min(10_000, wait * 2);
      };
    };
    open();
    return () => {
      ended = true;
      clearTimeout(timer);
      socket?.close();
      observer.disconnect();
      terminal.dispose();
    };
  }, [vm]);

  const paste = async () => {
    try {
      send.current((await navigator.clipboard.readText()).replaceAll("\r\n", "\r").replaceAll("\n", "\r"));
      focus.current();
    } catch {
      toast("info", t("console.pasteHint"));
    }
  };
  return { place, state, paste, interrupt: () => send.current("\x03") };
}

const STATES = { connecting: "warn", connected: "ok", closed: "off" } as const;

export function ConsoleCard({ vm }: { vm: Vm }) {
  const { place, state, paste, interrupt } = useConsole(vm.id);
  return (
    <Card
      title={t("console.title")}
      flush
      actions={
        <>
          <Badge tone={STATES[state]} dot>
            {t(`console.${state}`)}
          </Badge>
          <Button kind="plain" onClick={interrupt}>
            Ctrl-C
          </Button>
          <Button icon="copy" kind="plain" onClick={() => void paste()}>
            {t("console.paste")}
          </Button>
          <span data-console-leave tabIndex={-1}>
            <Button icon="popout" kind="plain" label={t("console.open")} onClick={() => openConsole(vm)} />
          </span>
        </>
      }
    >
      <div class="console" ref={place} />
      <p class="muted" style={{ padding: "8px 16px" }}>
        {t("console.leave")}
      </p>
    </Card>
  );
}

/** The console in a window of its own. */
export function ConsoleWindow() {
  const id = path.value[1] ?? "";
  const vm = vmById.value.get(id);
  const { place, state, paste } = useConsole(id);
  const name = vm?.config.name ?? id;
  useEffect(() => {
    document.title = `${name} – ${t("console.title")}`;
  }, [name]);
  if (!id) return <Spinner />;
  return (
    <main>
      <div class="head" style={{ height: "50px" }}>
        <h1 class="brand" style={{ margin: "0 auto 0 0" }}>
          <img src="/favicon.svg" alt="" />
          {name}
        </h1>
        <Badge tone={STATES[state]} dot>
          {t(`console.${state}`)}
        </Badge>
        <button type="button" data-console-leave onClick={() => void paste()}>
          {t("console.paste")}
        </button>
      </div>
      <div class="console alone" ref={place} />
    </main>
  );
}
