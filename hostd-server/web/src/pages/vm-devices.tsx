/** What a machine's disks and network cards are to its guest. */
import type { DiskController, NicModel } from "../api/types";
import { t } from "../i18n";
import { SelectField } from "../ui/form";

const CONTROLLERS: DiskController[] = ["virtio", "ahci"];
const MODELS: NicModel[] = ["virtio", "e1000e"];

interface Choice<Kind> {
  /** Of the disk or card, from 1 on. */
  number: number;
  value: Kind;
  onInput: (kind: Kind) => void;
}

export function ControllerField({ number, value, onInput }: Choice<DiskController>) {
  return (
    <SelectField
      label={t("vm.controllerOf", { number })}
      value={value}
      onInput={(controller) => onInput(controller as DiskController)}
      options={CONTROLLERS.map((controller) => [controller, t(`vm.controller.${controller}`)])}
    />
  );
}

export function ModelField({ number, value, onInput }: Choice<NicModel>) {
  return (
    <SelectField
      label={t("vm.modelOf", { number })}
      value={value}
      onInput={(model) => onInput(model as NicModel)}
      options={MODELS.map((model) => [model, t(`vm.model.${model}`)])}
    />
  );
}
