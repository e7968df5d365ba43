/** What is on a machine's screen, small, looked at again from time to time. */
import { useEffect, useState } from "preact/hooks";
import { url } from "../api/client";
import type { Vm } from "../api/types";
import { t } from "../i18n";

/** Milliseconds between two looks. */
const EVERY = 10_000;

export function Thumbnail({ vm, divisor, width }: { vm: Vm; divisor: number; width: number }) {
  const [look, setLook] = useState(0);
  const [failed, setFailed] = useState(false);
  const on = vm.powerState === "poweredOn";
  useEffect(() => {
    if (!on) return;
    setFailed(false);
    const timer = window.setInterval(() => {
      // Nobody sees a page in the background.
      if (document.visibilityState === "visible") setLook((before) => before + 1);
    }, EVERY);
    return () => clearInterval(timer);
  }, [on]);
  if (!on || failed) return null;
  const source = url(`/vms/${encodeURIComponent(vm.id)}/screenshot`, { divisor });
  return (
    <img
      class="thumbnail"
      src={`${source}#${look}`}
      key={look}
      alt={t("screen.of", { name: vm.config.name })}
      style={{ width: `${width}px` }}
      onError={() => setFailed(true)}
    />
  );
}
