import { render } from "preact";
import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { enter, user } from "../src/api/client";
import { Overview } from "../src/pages/overview";
import { Vms } from "../src/pages/vms";
import { refreshAll } from "../src/state/inventory";
import { Table } from "../src/ui/table";
import { answer } from "./mock.mjs";

let place: HTMLElement;
beforeEach(() => {
  place = document.body.appendChild(document.createElement("div"));
});
afterEach(() => {
  render(null, place);
  place.remove();
});
const draw = (what: preact.ComponentChild) => act(() => render(what, place));
const texts = (selector: string) => [...place.querySelectorAll(selector)].map((element) => element.textContent ?? "");

async function withHost(count: number) {
  vi.stubGlobal("fetch", async (url: string, init?: RequestInit) => {
    const [status, body] = answer(init?.method ?? "GET", url, count);
    return new Response(JSON.stringify(body), { status });
  });
  user.value = "root";
  await refreshAll();
}

describe("the table", () => {
  const rows = Array.from({ length: 5000 }, (_, index) => ({ id: String(index), size: (index * 7919) % 5000 }));
  const table = (
    <Table
      label="things"
      rows={rows}
      rowKey={(row) => row.id}
      columns={[
        { key: "id", name: "Id", cell: (row) => row.id },
        { key: "size", name: "Size", sort: (row) => row.size, cell: (row) => row.size },
      ]}
    />
  );

  it("draws only what is seen, and tells how many there are", async () => {
    await draw(table);
    expect(place.querySelectorAll(".tbody [role=row]").length).toBeLessThan(60);
    expect(place.querySelector("[role=table]")?.getAttribute("aria-rowcount")).toBe("5001");
  });

  it("sorts by numbers, up and down", async () => {
    await draw(table);
    const sizes = () =>
      texts(".tbody [role=row]").map((_, index) =>
        Number(place.querySelectorAll(".tbody [role=row]")[index]?.lastElementChild?.textContent),
      );
    const press = () => act(() => place.querySelector<HTMLButtonElement>(".thead button")?.click());
    await press();
    expect(sizes().slice(0, 4)).toEqual([0, 1, 2, 3]);
    await press();
    expect(sizes().slice(0, 3)).toEqual([4999, 4998, 4997]);
  });
});

describe("pages", () => {
  it("show the host's load", async () => {
    await withHost(9);
    await draw(<Overview />);
    expect(texts("h1")).toEqual(["tessera-01"]);
    expect([...place.querySelectorAll(".gauge")].map((gauge) => gauge.getAttribute("aria-label"))).toEqual(["CPU", "Memory", "Storage"]);
    expect(place.querySelector('.gauge[aria-label="Storage"]')?.getAttribute("aria-valuenow")).toBe("40");
  });

  it("offer only what the account may do", async () => {
    await withHost(2);
    const made = () => [...place.querySelectorAll("button")].find((one) => one.textContent === "New virtual machine")!;
    const session = { user: "root", csrfToken: "token", mustChangePassword: false };
    enter({ ...session, privileges: ["System.Read"] });
    await draw(<Vms />);
    expect(made().disabled).toBe(true);
    await act(() => enter({ ...session, privileges: ["System.Read", "VirtualMachine.Create"] }));
    expect(made().disabled).toBe(false);
  });

  it("filter machines, and offer what can be done with those chosen", async () => {
    await withHost(30);
    await draw(<Vms />);
    const search = place.querySelector<HTMLInputElement>("input[type=search]")!;
    await act(() => {
      search.value = "db-07";
      search.dispatchEvent(new Event("input", { bubbles: true }));
    });
    expect(texts(".tbody a")).toEqual(["db-07"]);
    const button = (name: string) => [...place.querySelectorAll("button")].find((one) => one.textContent === name)!;
    expect(button("Shut down").disabled).toBe(true);
    await act(() => place.querySelector<HTMLInputElement>(".tbody input[type=checkbox]")!.click());
    expect(button("Shut down").disabled).toBe(false);
    expect(button("Power on").disabled).toBe(true);
  });
});
