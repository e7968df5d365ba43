// @vitest-environment node
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const DESCRIPTION = "../api/openapi.json";
const METHODS: Record<string, string> = {
  get: "GET",
  list: "GET",
  post: "POST",
  put: "PUT",
  patch: "PATCH",
  remove: "DELETE",
  send: "GET",
};

describe.skipIf(!existsSync(DESCRIPTION))("the host's API", () => {
  it("has every operation that the pages ask for", () => {
    const { paths } = JSON.parse(readFileSync(DESCRIPTION, "utf8")) as { paths: Record<string, Record<string, unknown>> };
    const offered = Object.entries(paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replace("/api/v1", "")}`),
    );
    const source = readFileSync("src/api/index.ts", "utf8");
    const calls = [...source.matchAll(/\b(get|list|post|put|patch|remove|send)(?:<[^(]*>)?\(\s*(?:"GET",\s*)?["`](\/[^"`]*)["`]/g)];
    expect(calls.length).toBeGreaterThan(60);
    const missing = calls
      .map(([, verb, path]) => `${METHODS[verb!]} ${path}`)
      .filter((call) => {
        // What the pages put in stands for a parameter, or for the name of an action.
        const pattern = new RegExp(`^${call.replace(/\$\{[^}]*\}/g, "[^/]+")}$`);
        return !offered.some((operation) => pattern.test(operation));
      });
    expect(missing).toEqual([]);
  });
});
