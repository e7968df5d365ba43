/** The screen of a machine, with its keyboard and mouse. noVNC is fetched with the first one that is opened. */
import * as novnc from "@novnc/novnc/lib/rfb.js";
import { useEffect, useRef, useState } from "preact/hooks";
import { api } from "../api";
import { message } from "../api/client";
import type { Vm } from "../api/types";
import { t } from "../i18n";
import { path, href } from "../router";
import { vmById } from "../state/inventory";
import { Badge, Button, Card, Spinner } from "../ui/basic";
import { attempt, toast } from "../ui/dialog";

type State = "connecting" | "connected" | "closed";
const STATES = { connecting: "warn", connected: "ok", closed: "off" } as const;

/** What stands in the module, however the build wrapped it. */
const Viewer = (() => {
  const outer = novnc.default as unknown as { default?: typeof novnc.default };
  return outer.default ?? novnc.default;
})();

function useScreen(vm: string, on: boolean) {
  const place = useRef<HTMLDivElement>(null);
  const [state, setState] = useState<State>("connecting");
  const [problem, setProblem] = useState("");
  const viewer = useRef<InstanceType<typeof Viewer> | null>(null);

  useEffect(() => {
    const element = place.current;
    if (!element || !on) {
      setState("closed");
      return;
    }
    let ended = false;
    let timer = 0;
    let wait = 500;
    const again = () => {
      viewer.current = null;
      setState("closed");
      if (ended) return;
      timer = window.setTimeout(open, wait);
      wait = Math.min(10_000, wait * 2);
    };
    const open = async () => {
      setState("connecting");
      try {
        // A ticket lets one viewer in, once.
        const { ticket } = await api.screen(vm);
        if (ended) return;
        const scheme = location.protocol === "https:" ? "wss" : "ws";
        const socket = new WebSocket(`${scheme}://${location.host}/api/v1/ws/screen?ticket=${encodeURIComponent(ticket)}`);
        const rfb = new Viewer(element, socket, { shared: true });
        rfb.scaleViewport = true;
        rfb.showDotCursor = true;
        rfb.background = "#0b1219";
        rfb.addEventListener("connect", () => {
          wait = 500;
          setProblem("");
          setState("connected");
          rfb.focus();
        });
        rfb.addEventListener("disconnect", again);
        viewer.current = rfb;
      } catch (failure) {
        setProblem(message(failure));
        again();
      }
    };
    void open();
    return () => {
      ended = true;
      clearTimeout(timer);
      viewer.current?.disconnect();
    };
  }, [vm, on]);

  const type = async (text: string) => {
    await attempt(t("screen.sendText"), () => api.typeAtScreen(vm, { text }));
    viewer.current?.focus();
  };
  const paste = async () => {
    try {
      await type(await navigator.clipboard.readText());
    } catch {
      toast("info", t("screen.pasteHint"));
    }
  };
  return { place, state, problem, paste, interrupt: () => viewer.current?.sendCtrlAltDel() };
}

function Buttons({ screen, full }: { screen: ReturnType<typeof useScreen>; full: () => void }) {
  return (
    <>
      <Badge tone={STATES[screen.state]} dot>
        {t(`console.${screen.state}`)}
      </Badge>
      <Button kind="plain" onClick={screen.interrupt}>
        Ctrl-Alt-Del
      </Button>
      <Button icon="copy" kind="plain" onClick={() => void screen.paste()}>
        {t("screen.sendText")}
      </Button>
      <Button kind="plain" onClick={full}>
        {t("screen.full")}
      </Button>
    </>
  );
}

export function ScreenCard({ vm }: { vm: Vm }) {
  const screen = useScreen(vm.id, vm.powerState === "poweredOn");
  return (
    <Card
      title={t("screen.title")}
      flush
      actions={
        <>
          <Buttons screen={screen} full={() => void screen.place.current?.requestFullscreen()} />
          <Button icon="popout" kind="plain" label={t("screen.open")} onClick={() => openScreen(vm)} />
        </>
      }
    >
      <div class="console screen" ref={screen.place} />
      {screen.problem && (
        <p class="muted" style={{ padding: "8px 16px" }}>
          {screen.problem}
        </p>
      )}
    </Card>
  );
}

function openScreen(vm: Vm): void {
  window.open(href("screen", vm.id), `screen-${vm.id}`, "width=1100,height=760");
}

/** The screen in a window of its own. */
export function ScreenWindow() {
  const id = path.value[1] ?? "";
  const vm = vmById.value.get(id);
  const screen = useScreen(id, id !== "");
  const name = vm?.config.name ?? id;
  useEffect(() => {
    document.title = `${name} – ${t("screen.title")}`;
  }, [name]);
  if (!id) return <Spinner />;
  return (
    <main>
      <div class="head" style={{ height: "50px" }}>
        <h1 class="brand" style={{ margin: "0 auto 0 0" }}>
          <img src="/favicon.svg" alt="" />
          {name}
        </h1>
        <Buttons screen={screen} full={() => void screen.place.current?.requestFullscreen()} />
      </div>
      <div class="console alone" ref={screen.place} />
    </main>
  );
}
