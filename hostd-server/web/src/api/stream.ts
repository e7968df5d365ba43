/** The host's stream of changes. It says which kind of thing changed; what it is now is asked for. */
import { user } from "./client";

const KINDS: Record<string, string> = {
  host: "host",
  vm: "vm",
  virtualMachine: "vm",
  snapshot: "snapshot",
  datastore: "datastore",
  file: "datastore",
  network: "network",
  task: "task",
  event: "event",
};

export function listen(changed: (kind: string) => void): () => void {
  let socket: WebSocket | null = null;
  let wait = 1000;
  let ended = false;
  let timer = 0;
  const waiting = new Set<string>();
  // Many changes at once are one reason to ask again.
  const tell = (kind: string) => {
    if (waiting.size === 0)
      setTimeout(() => {
        const kinds = [...waiting];
        waiting.clear();
        for (const one of kinds) changed(one);
      }, 150);
    waiting.add(kind);
  };
  const open = () => {
    if (ended || !user.value) return;
    socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/api/v1/changes`);
    socket.onopen = () => {
      wait = 1000;
    };
    socket.onmessage = (event) => {
      try {
        const change = JSON.parse(String(event.data)) as { kind?: string; type?: string };
        const kind = KINDS[change.kind ?? change.type ?? ""];
        if (kind) tell(kind);
      } catch {
        // What cannot be read tells nothing; the timers refresh in any case.
      }
    };
    socket.onclose = () => {
      timer = window.setTimeout(open, wait);
      wait = Math.min(30_000, wait * 2);
    };
  };
  open();
  return () => {
    ended = true;
    clearTimeout(timer);
    socket?.close();
  };
}
