/** Uploads, with their progress; one that broke off is taken up where the host says that it has bytes. */
import { signal } from "@preact/signals";
import { t } from "../i18n";
import { ApiError, BASE, csrfToken, message } from "./client";

export interface Upload {
  id: number;
  name: string;
  sent: number;
  size: number;
  /** Bytes a second over the last seconds. */
  speed: number;
  state: "waiting" | "running" | "done" | "failed" | "cancelled";
  error: string | null;
  abort: () => void;
}

export const uploads = signal<Upload[]>([]);
let next = 1;
const queue: (() => Promise<void>)[] = [];
let working = false;

function change(id: number, what: Partial<Upload>) {
  uploads.value = uploads.value.map((one) => (one.id === id ? { ...one, ...what } : one));
}

export const fileUrl = (datastore: string, path: string): string =>
  `${BASE}/datastores/${encodeURIComponent(datastore)}/files/${path.split("/").map(encodeURIComponent).join("/")}`;

/** How many bytes of it the host has from an attempt before. */
async function resumeAt(url: string, size: number): Promise<number> {
  const response = await fetch(url, { method: "HEAD", credentials: "same-origin", cache: "no-store" });
  const have = Number(response.headers.get("Upload-Offset") ?? 0);
  return response.ok && have > 0 && have < size ? have : 0;
}

function put(id: number, url: string, file: File, from: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let [markTime, markSent] = [performance.now(), from];
    request.open("PUT", url);
    request.setRequestHeader("X-CSRF-Token", csrfToken());
    request.setRequestHeader("Content-Type", "application/octet-stream");
    if (from > 0) request.setRequestHeader("Content-Range", `bytes ${from}-${file.size - 1}/${file.size}`);
    request.upload.onprogress = (event) => {
      const sent = from + event.loaded;
      const now = performance.now();
      if (now - markTime < 400) return;
      change(id, { sent, speed: ((sent - markSent) / (now - markTime)) * 1000 });
      [markTime, markSent] = [now, sent];
    };
    request.onload = () => {
      if (request.status < 300) return resolve();
      let body: { code?: string; message?: string; hint?: string } = {};
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // The status says enough.
      }
      reject(
        new ApiError(request.status, body.code ?? "unknown", body.message ?? t("error.status", { status: request.status }), body.hint),
      );
    };
    request.onerror = () => reject(new ApiError(0, "unreachable", t("error.unreachable")));
    request.onabort = () => reject(new ApiError(-1, "cancelled", t("upload.cancelled")));
    change(id, { abort: () => request.abort() });
    request.send(from > 0 ? file.slice(from) : file);
  });
}

async function work() {
  if (working) return;
  working = true;
  for (let job = queue.shift(); job; job = queue.shift()) await job();
  working = false;
}

/** Puts a file into the queue; one is sent at a time, which is as fast as the line and fair to the guests. */
export function upload(datastore: string, path: string, file: File, done: () => void): void {
  const id = next++;
  let cancelled = false;
  uploads.value = [
    ...uploads.value,
    {
      id,
      name: file.name,
      sent: 0,
      size: file.size,
      speed: 0,
      state: "waiting",
      error: null,
      abort: () => {
        cancelled = true;
        change(id, { state: "cancelled" });
      },
    },
  ];
  queue.push(async () => {
    if (cancelled) return;
    const url = fileUrl(datastore, path);
    change(id, { state: "running" });
    for (let attempt = 0; ; attempt++) {
      try {
        const from = attempt > 0 ? await resumeAt(url, file.size) : 0;
        await put(id, url, file, from);
        change(id, { state: "done", sent: file.size });
        done();
        return;
      } catch (failure) {
        const broken = failure instanceof ApiError && failure.status === 0;
        if (broken && attempt < 5) {
          await new Promise((resolve) => setTimeout(resolve, 1000 * 2 ** attempt));
          continue;
        }
        const stopped = failure instanceof ApiError && failure.status === -1;
        change(id, { state: stopped ? "cancelled" : "failed", error: stopped ? null : message(failure) });
        return;
      }
    }
  });
  void work();
}

export function clearUploads(): void {
  uploads.value = uploads.value.filter((one) => one.state === "waiting" || one.state === "running");
}

window.addEventListener("beforeunload", (event) => {
  if (uploads.value.some((one) => one.state === "running")) event.preventDefault();
});
