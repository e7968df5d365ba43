/** Pages are named by the URL's fragment, so the host serves one page and each link can be kept. */
import { computed, signal } from "@preact/signals";

const read = () => decodeURI(location.hash.replace(/^#/, "")) || "/";
const fragment = signal(read());
window.addEventListener("hashchange", () => {
  fragment.value = read();
});

/** Path segments, such as `["vms", "vm-12", "snapshots"]`. */
export const path = computed(() => fragment.value.split("?")[0]!.split("/").filter(Boolean));
export const query = computed(() => new URLSearchParams(fragment.value.split("?")[1] ?? ""));

export const href = (...segments: string[]): string => `#/${segments.map(encodeURIComponent).join("/")}`;

export function go(...segments: string[]): void {
  location.hash = href(...segments);
}
