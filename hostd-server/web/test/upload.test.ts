import { beforeEach, describe, expect, it, vi } from "vitest";
import { clearUploads, upload, uploads } from "../src/api/upload";

/** A request that goes as the test says: to its end, or broken off. */
class FakeRequest {
  static outcomes: ("done" | "broken" | "refused")[] = [];
  static sent: { url: string; range: string | undefined; bytes: number }[] = [];
  upload: { onprogress?: (event: { loaded: number }) => void } = {};
  status = 0;
  responseText = "";
  onload?: () => void;
  onerror?: () => void;
  onabort?: () => void;
  #url = "";
  #headers: Record<string, string> = {};
  open(_method: string, url: string) {
    this.#url = url;
  }
  setRequestHeader(name: string, value: string) {
    this.#headers[name] = value;
  }
  abort() {
    this.onabort?.();
  }
  send(body: Blob) {
    FakeRequest.sent.push({ url: this.#url, range: this.#headers["Content-Range"], bytes: body.size });
    const outcome = FakeRequest.outcomes.shift();
    queueMicrotask(() => {
      if (outcome === "broken") return this.onerror?.();
      this.status = outcome === "refused" ? 507 : 201;
      this.responseText = outcome === "refused" ? '{"code":"noSpace","message":"The datastore is full.","hint":""}' : "{}";
      this.onload?.();
    });
  }
}

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("XMLHttpRequest", FakeRequest);
  FakeRequest.sent = [];
  clearUploads();
});

async function run(outcomes: typeof FakeRequest.outcomes) {
  FakeRequest.outcomes = outcomes;
  const done = vi.fn();
  upload("datastore-1", "iso/a b.iso", new File([new Uint8Array(1000)], "a b.iso"), done);
  await vi.runAllTimersAsync();
  return { done, it: uploads.value.at(-1)! };
}

describe("an upload", () => {
  it("is sent whole, to the file's own address", async () => {
    const { done, it } = await run(["done"]);
    expect(FakeRequest.sent).toEqual([{ url: "/api/v1/datastores/datastore-1/files/iso/a%20b.iso", range: undefined, bytes: 1000 }]);
    expect(it).toMatchObject({ state: "done", sent: 1000 });
    expect(done).toHaveBeenCalledOnce();
  });

  it("that broke off goes on where the host has bytes", async () => {
    vi.stubGlobal("fetch", async () => new Response(null, { status: 200, headers: { "Upload-Offset": "400" } }));
    const { it } = await run(["broken", "done"]);
    expect(FakeRequest.sent[1]).toEqual({ url: FakeRequest.sent[0]!.url, range: "bytes 400-999/1000", bytes: 600 });
    expect(it.state).toBe("done");
  });

  it("begins anew where the host has nothing, and gives up after some attempts", async () => {
    vi.stubGlobal("fetch", async () => new Response(null, { status: 404 }));
    const { it } = await run(Array.from({ length: 10 }, () => "broken" as const));
    expect(FakeRequest.sent).toHaveLength(6);
    expect(FakeRequest.sent.every(({ range }) => range === undefined)).toBe(true);
    expect(it.state).toBe("failed");
  });

  it("that is refused is not tried again, and says why", async () => {
    const { it, done } = await run(["refused"]);
    expect(FakeRequest.sent).toHaveLength(1);
    expect(it).toMatchObject({ state: "failed", error: "The datastore is full. Make room: remove files, snapshots, or stop machines." });
    expect(done).not.toHaveBeenCalled();
  });
});
