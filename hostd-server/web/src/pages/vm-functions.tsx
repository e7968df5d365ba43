/** PCI functions of the host: which there are, and which of them a machine is to have for itself. */
import { api } from "../api";
import type { PciDevice } from "../api/types";
import { t } from "../i18n";
import { useResource } from "../state/resource";
import { Badge, Card, Notice, Spinner } from "../ui/basic";
import { CheckField } from "../ui/form";

/** As many as a machine can have. */
export const MOST_FUNCTIONS = 4;

/** What the host says of a function goes on from the function's name. */
const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

/** What is to be known of a function before a machine gets it: why it cannot have it, else what comes with it. `own`: the machine's name. */
export function functionNote(device: PciDevice, own: string): { blocked: boolean; text: string } {
  if (device.problem !== null) return { blocked: true, text: sentence(device.problem) };
  if (device.vm !== null && device.vm !== own) return { blocked: true, text: t("vm.functionRuns", { name: device.vm }) };
  const others = device.configured.filter((name) => name !== own);
  const notes = [
    device.together.length > 0 ? t("vm.functionTogether", { others: device.together.join(", ") }) : "",
    device.server !== null ? t("vm.functionDriven", { server: device.server }) : "",
    others.length > 0 ? t("vm.functionShared", { names: others.join(", ") }) : "",
  ];
  return { blocked: false, text: notes.filter(Boolean).join(" ") };
}

/** The choice after a function, and with it what is of the same device, was taken in or out. */
export function chosen(value: string[], device: PciDevice, wanted: boolean): string[] {
  const all = [device.address, ...device.together];
  return wanted ? [...value, ...all.filter((address) => !value.includes(address))] : value.filter((address) => !all.includes(address));
}

export function FunctionsField({ own, value, onInput }: { own: string; value: string[]; onInput: (value: string[]) => void }) {
  const { data, error } = useResource(() => api.pciDevices(), []);
  const gone = data ? value.filter((address) => !data.some((device) => device.address === address)) : [];
  return (
    <fieldset>
      <legend>{t("vm.functions")}</legend>
      <div class="stack small">
        <span class="hint">{t("vm.functionsHint")}</span>
        {error && <Notice tone="danger">{error}</Notice>}
        {!data && !error && <Spinner />}
        {data?.length === 0 && <span class="muted">{t("pci.none")}</span>}
        {data?.map((device) => {
          const has = value.includes(device.address);
          const { blocked, text } = functionNote(device, own);
          return (
            <CheckField
              key={device.address}
              label={`${device.address} ${device.name}`}
              hint={text || undefined}
              value={has}
              disabled={!has && (blocked || chosen(value, device, true).length > MOST_FUNCTIONS)}
              onInput={(wanted) => onInput(chosen(value, device, wanted))}
            />
          );
        })}
        {gone.map((address) => (
          <CheckField
            key={address}
            label={address}
            hint={t("vm.functionGone")}
            value
            onInput={() => onInput(value.filter((one) => one !== address))}
          />
        ))}
      </div>
    </fieldset>
  );
}

/** All of the host's. */
export function FunctionsCard() {
  const { data, error } = useResource(() => api.pciDevices(), [], { seconds: 20 });
  return (
    <Card title={t("pci.title")} flush>
      {error && <Notice tone="danger">{error}</Notice>}
      {data && (
        <div class="scroll-x">
          <table class="simple">
            <thead>
              <tr>
                <th scope="col">{t("vm.device")}</th>
                <th scope="col">{t("pci.user")}</th>
                <th scope="col">{t("pci.passthrough")}</th>
              </tr>
            </thead>
            <tbody>
              {data.map((one) => (
                <tr key={one.address}>
                  <td>
                    {one.name}
                    <br />
                    <code>{one.address}</code>{" "}
                    <span class="muted">
                      {one.vendorId}:{one.deviceId}
                    </span>
                  </td>
                  <td>
                    {one.vm ?? one.server ?? "–"}
                    {one.configured.length > 0 && <div class="muted">{t("pci.configured", { names: one.configured.join(", ") })}</div>}
                  </td>
                  <td>{one.problem === null ? <Badge tone="ok">{t("pci.possible")}</Badge> : sentence(one.problem)}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </Card>
  );
}
