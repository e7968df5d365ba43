// @vitest-environment node
import { createHash } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { ENTRY, HEADER, MAGIC, pack } from "../scripts/pack.mjs";

/** A reader written from PACK.md alone. */
function unpack(bytes: Buffer) {
  expect(bytes.subarray(0, 8).toString("latin1")).toBe(MAGIC);
  expect(bytes.readUInt32LE(12)).toBe(bytes.length);
  const count = bytes.readUInt32LE(8);
  let end = HEADER + count * ENTRY;
  const files = Array.from({ length: count }, (_, index) => {
    const entry = bytes.subarray(HEADER + index * ENTRY, HEADER + (index + 1) * ENTRY);
    const text = (from: number, length: number) =>
      entry
        .subarray(from, from + length)
        .toString("utf8")
        .replace(/\0+$/, "");
    const [encoding, immutable, offset, length, raw] = [
      entry[136],
      entry[137],
      entry.readUInt32LE(140),
      entry.readUInt32LE(144),
      entry.readUInt32LE(148),
    ];
    expect(offset).toBe(end);
    end += length;
    const stored = bytes.subarray(offset, offset + length);
    expect(createHash("sha256").update(stored).digest()).toEqual(entry.subarray(160, 192));
    const content = encoding === 1 ? gunzipSync(stored) : stored;
    expect(content.length).toBe(raw);
    return { path: text(0, 96), type: text(96, 40), immutable: immutable === 1, encoding, content: content.toString("utf8") };
  });
  expect(end).toBe(bytes.length);
  return files;
}

describe("web.pack", () => {
  it("holds each file with its type, sorted by path, compressed where that helps", () => {
    const files = unpack(
      pack([
        ["/index.html", Buffer.from("<p>".repeat(400))],
        ["/small.html", Buffer.from("<p>".repeat(100))],
        ["/assets/a-1.js", Buffer.from("1")],
      ] as [string, Buffer][]),
    );
    expect(files).toEqual([
      { path: "/assets/a-1.js", type: "text/javascript; charset=utf-8", immutable: true, encoding: 0, content: "1" },
      { path: "/index.html", type: "text/html; charset=utf-8", immutable: false, encoding: 1, content: "<p>".repeat(400) },
      { path: "/small.html", type: "text/html; charset=utf-8", immutable: false, encoding: 0, content: "<p>".repeat(100) },
    ]);
  });

  it("is the same bytes for the same files in any order", () => {
    const files: [string, Buffer][] = [
      ["/b.css", Buffer.from("b{}")],
      ["/a.css", Buffer.from("a{}")],
    ];
    expect(pack(files)).toEqual(pack([...files].reverse()));
  });

  it("refuses names that do not fit and files of unknown type", () => {
    expect(() => pack([[`/${"x".repeat(100)}.js`, Buffer.alloc(0)]])).toThrow(/longer than 95/);
    expect(() => pack([["/a.exe", Buffer.alloc(0)]])).toThrow(/media type/);
  });
});
