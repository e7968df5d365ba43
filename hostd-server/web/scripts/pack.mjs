// Packs `dist` into one file, `web.pack`, which hostd reads from its grant. PACK.md describes the format.
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { extname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "fflate";

export const MAGIC = "TSRAWEB1";
export const HEADER = 16;
export const ENTRY = 192;
const PATH = 96;
const TYPE = 40;
const MAX_FILES = 1024;
const MAX_BYTES = 16 * 1024 * 1024;
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".woff2": "font/woff2",
  ".txt": "text/plain; charset=utf-8",
  ".json": "application/json",
};

/** The files below `folder`, by their path as the browser asks for it. */
function filesBelow(folder) {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? filesBelow(path) : [path];
  });
}

/** Bytes that are the same wherever they are made: each version of Node.js compresses in its own way, and the header names system and time. */
function compress(bytes) {
  const packed = Buffer.from(gzipSync(bytes, { level: 9, mtime: 0 }));
  packed[9] = 255;
  return packed;
}

function field(text, length, what) {
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length >= length) throw new Error(`${what} ${text} is longer than ${length - 1} bytes`);
  return Buffer.concat([bytes, Buffer.alloc(length - bytes.length)]);
}

/** The pack of `files`, which are pairs of a path (with its leading slash) and bytes. */
export function pack(files) {
  if (files.length > MAX_FILES) throw new Error(`${files.length} files are more than ${MAX_FILES}`);
  const sorted = [...files].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  const entries = [];
  const contents = [];
  let offset = HEADER + ENTRY * sorted.length;
  for (const [path, raw] of sorted) {
    const type = TYPES[extname(path)];
    if (!type) throw new Error(`no media type is known for ${path}`);
    const packed = compress(raw);
    // What fits into one packet gains nothing.
    const useful = raw.length > 1024 && packed.length < raw.length;
    const stored = useful ? packed : raw;
    const numbers = Buffer.alloc(24);
    numbers.writeUInt8(useful ? 1 : 0, 0);
    // Vite puts a hash of the content into the names below /assets/, so these never change.
    numbers.writeUInt8(path.startsWith("/assets/") ? 1 : 0, 1);
    numbers.writeUInt32LE(offset, 4);
    numbers.writeUInt32LE(stored.length, 8);
    numbers.writeUInt32LE(raw.length, 12);
    entries.push(field(path, PATH, "the path"), field(type, TYPE, "the type"), numbers, createHash("sha256").update(stored).digest());
    contents.push(stored);
    offset += stored.length;
  }
  if (offset > MAX_BYTES) throw new Error(`the pack has ${offset} bytes, more than ${MAX_BYTES}`);
  const header = Buffer.alloc(HEADER);
  header.write(MAGIC, 0, "latin1");
  header.writeUInt32LE(sorted.length, 8);
  header.writeUInt32LE(offset, 12);
  return Buffer.concat([header, ...entries, ...contents]);
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const folder = resolve(fileURLToPath(import.meta.url), "../../dist");
  const output = process.argv[2] ?? join(folder, "../dist.pack");
  const files = filesBelow(folder).map((path) => [`/${relative(folder, path).replaceAll("\\", "/")}`, readFileSync(path)]);
  const bytes = pack(files);
  writeFileSync(output, bytes);
  console.log(`${output}: ${files.length} files, ${Math.ceil(bytes.length / 1024)} KiB`);
}
