/** The drawing of a switch: what hangs on its port groups at the left, its uplinks at the right. */
import type { ComponentChildren } from "preact";
import type { VirtualSwitch } from "../api/types";
import { t } from "../i18n";
import { href } from "../router";
import { vmById } from "../state/inventory";
import type { Networks } from "./networking";

const LINE = 24;
const GAP = 14;
const LEFT = 20;
const BOX = 330;
const BUS = 420;
const RIGHT = 510;
const NIC_BOX = 230;
const WIDTH = RIGHT + NIC_BOX + 20;
/** So many machines of a port group are named; the rest is counted. */
const NAMED = 6;

const cut = (text: string, most: number): string => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** A machine leads to its page; the host's own interfaces have none. */
const Linked = ({ to, children }: { to: string | null; children: ComponentChildren }) =>
  to ? <a href={to}>{children}</a> : <g>{children}</g>;

export function Topology({ of: it, networks }: { of: VirtualSwitch; networks: Networks }) {
  let y = 16;
  const groups = networks.groups
    .filter((group) => group.switch === it.id)
    .map((group) => {
      const own = networks.interfaces
        .filter((one) => group.hostInterfaces.includes(one.id) || one.portGroup === group.id)
        .map((one) => ({ id: "", name: `${one.name}  ${one.ipv4 ?? ""}`, on: true }));
      const machines = group.vms
        .slice(0, NAMED)
        .map((id) => ({ id, name: vmById.value.get(id)?.config.name ?? id, on: vmById.value.get(id)?.powerState === "poweredOn" }));
      const lines = [...own, ...machines];
      const more = group.vms.length - machines.length;
      const height = 40 + LINE * (Math.max(1, lines.length) + (more > 0 ? 1 : 0));
      const placed = { group, lines, more, y, height };
      y += height + GAP;
      return placed;
    });
  const nics = networks.nics.filter((nic) => it.uplinks.includes(nic.id) || nic.switch === it.id);
  const height = Math.max(y, nics.length * 72 + 30, 130);
  const nicTop = (height - nics.length * 72) / 2 + 8;
  const summary = `${it.name}: ${groups.map(({ group }) => `${group.name} (${group.vms.length})`).join(", ")}; ${nics.map((nic) => nic.name).join(", ")}`;
  return (
    <div class="drawing" tabIndex={0} role="group" aria-label={t("network.drawing", { name: summary })} style={{ padding: "8px 4px" }}>
      <svg viewBox={`0 0 ${WIDTH} ${height}`} style={{ maxWidth: `${WIDTH}px`, minWidth: "620px" }}>
        <rect class="box switch" x={BUS} y={10} width={26} height={height - 20} rx={6} />
        {groups.map(({ group, lines, more, y: top, height: tall }) => (
          <g key={group.id}>
            <path class={`wire ${lines.some((line) => line.on) ? "live" : ""}`} d={`M${LEFT + BOX} ${top + tall / 2}H${BUS}`} />
            <circle cx={BUS} cy={top + tall / 2} r={4} fill="var(--primary)" />
            <rect class="box" x={LEFT} y={top} width={BOX} height={tall} rx={7} />
            <text x={LEFT + 14} y={top + 23} font-weight="600">
              {cut(group.name, 28)}
            </text>
            <text class="quiet" x={LEFT + BOX - 14} y={top + 23} text-anchor="end">
              {group.vlan ? `VLAN ${group.vlan}` : t("group.untagged")}
            </text>
            {lines.length === 0 && (
              <text class="quiet" x={LEFT + 14} y={top + 47}>
                {t("group.empty")}
              </text>
            )}
            {lines.map((line, index) => (
              <Linked key={`${line.id}${line.name}`} to={line.id ? href("vms", line.id) : null}>
                <circle cx={LEFT + 20} cy={top + 43 + index * LINE} r={4} fill={line.on ? "var(--ok)" : "var(--border-strong)"} />
                <text x={LEFT + 32} y={top + 47 + index * LINE}>
                  {cut(line.name, 40)}
                </text>
              </Linked>
            ))}
            {more > 0 && (
              <text class="quiet" x={LEFT + 32} y={top + 47 + lines.length * LINE}>
                {t("group.more", { count: more })}
              </text>
            )}
          </g>
        ))}
        {nics.map((nic, index) => {
          const top = nicTop + index * 72;
          return (
            <g key={nic.id}>
              <path class={`wire ${nic.linkUp ? "live" : "dead"}`} d={`M${BUS + 26} ${top + 28}H${RIGHT}`} />
              <circle cx={BUS + 26} cy={top + 28} r={4} fill="var(--primary)" />
              <rect class="box" x={RIGHT} y={top} width={NIC_BOX} height={56} rx={7} />
              <circle cx={RIGHT + 18} cy={top + 22} r={4} fill={nic.linkUp ? "var(--ok)" : "var(--danger)"} />
              <text x={RIGHT + 30} y={top + 26} font-weight="600">
                {nic.name}
              </text>
              <text class="quiet" x={RIGHT + NIC_BOX - 14} y={top + 26} text-anchor="end">
                {nic.linkUp ? t("nic.speed", { speed: nic.speedMbps }) : t("nic.down")}
              </text>
              <text class="quiet" x={RIGHT + 14} y={top + 45}>
                {nic.mac} · {nic.driver}
              </text>
            </g>
          );
        })}
        {nics.length === 0 && (
          <text class="quiet" x={RIGHT} y={height / 2 + 4}>
            {t("switch.noUplink")}
          </text>
        )}
      </svg>
    </div>
  );
}
