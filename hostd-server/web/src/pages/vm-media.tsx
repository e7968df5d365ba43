/** What is in a machine's CD-ROM drive, and changing it, also while the machine runs. */
import { useState } from "preact/hooks";
import { api } from "../api";
import type { Vm } from "../api/types";
import { t } from "../i18n";
import { refresh } from "../state/inventory";
import { Button } from "../ui/basic";
import { attempt } from "../ui/dialog";
import { Picker, fullName } from "./file-picker";

async function change(vm: Vm, cdrom: string | null): Promise<void> {
  await attempt(t("vm.mediumChange"), async () => {
    // From the version that is there now: nothing else of it is changed.
    const { etag } = await api.vm(vm.id);
    await api.editVm(vm.id, { cdrom }, etag);
    await Promise.all([refresh("vm"), refresh("task")]);
  });
}

export function Medium({ vm }: { vm: Vm }) {
  const [picking, setPicking] = useState(false);
  const { cdrom } = vm.config;
  return (
    <span class="row">
      <span>{cdrom ?? t("vm.mediumNone")}</span>
      <Button icon="disc" kind="plain" onClick={() => setPicking(true)}>
        {t("vm.mediumInsert")}
      </Button>
      {cdrom && (
        <Button icon="up" kind="plain" onClick={() => void change(vm, null)}>
          {t("vm.mediumEject")}
        </Button>
      )}
      {picking && (
        <Picker
          title={t("vm.cdromIso")}
          kinds={["iso"]}
          onClose={() => setPicking(false)}
          onPick={(datastore, path) => {
            setPicking(false);
            void change(vm, fullName(datastore, path));
          }}
        />
      )}
    </span>
  );
}
