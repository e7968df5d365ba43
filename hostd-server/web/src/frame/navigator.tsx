/** The navigator on the left, in the order that people know: the host, its machines, its storage, its networks. */
import type { ComponentChildren } from "preact";
import { t } from "../i18n";
import { AlarmMark } from "../pages/vm-alarms";
import { path, href } from "../router";
import { datastores, portGroups, vms } from "../state/inventory";
import { Icon, type IconName } from "../ui/icon";

function Entry({
  to,
  icon,
  children,
  count,
  current,
}: { to: string; icon: IconName; children: ComponentChildren; count?: number; current: boolean }) {
  return (
    <li>
      <a href={to} aria-current={current ? "page" : undefined}>
        <Icon name={icon} />
        <span>{children}</span>
        {count !== undefined && <span class="count num">{count}</span>}
      </a>
    </li>
  );
}

const CHILDREN = 8;

export function Navigator({ open }: { open: boolean }) {
  const [section = "host", which] = path.value;
  const at = (name: string, sub?: string) => section === name && (sub === undefined || which === sub);
  const running = vms.value.filter((vm) => vm.powerState === "poweredOn").slice(0, CHILDREN);
  return (
    <nav class={open ? "nav open" : "nav"} aria-label={t("nav.title")}>
      <h2 id="nav-host">{t("nav.host")}</h2>
      <ul aria-labelledby="nav-host">
        <Entry to="#/" icon="host" current={section === "host"}>
          {t("nav.overview")}
        </Entry>
        <Entry to="#/manage" icon="manage" current={at("manage")}>
          {t("nav.manage")}
        </Entry>
        <Entry to="#/security" icon="users" current={at("security")}>
          {t("nav.security")}
        </Entry>
        <Entry to="#/monitor" icon="chart" current={at("monitor")}>
          {t("nav.monitor")}
        </Entry>
        <Entry to="#/servers" icon="graph" current={at("servers")}>
          {t("nav.servers")}
        </Entry>
      </ul>
      <h2 id="nav-inventory">{t("nav.inventory")}</h2>
      <ul aria-labelledby="nav-inventory">
        <Entry to="#/vms" icon="vm" current={at("vms") && !which} count={vms.value.length}>
          {t("nav.vms")}
        </Entry>
        {running.length > 0 && (
          <li>
            <ul class="children" aria-label={t("vm.running")}>
              {running.map((vm) => (
                <li key={vm.id}>
                  <a href={href("vms", vm.id)} aria-current={at("vms", vm.id) ? "page" : undefined}>
                    <span class="dot ok" />
                    <span class="ellipsis">{vm.config.name}</span>
                    <AlarmMark vm={vm} />
                  </a>
                </li>
              ))}
            </ul>
          </li>
        )}
        <Entry to="#/storage" icon="storage" current={at("storage")} count={datastores.value.length}>
          {t("nav.storage")}
        </Entry>
        <Entry to="#/networking" icon="network" current={at("networking")} count={portGroups.value.length}>
          {t("nav.networking")}
        </Entry>
      </ul>
    </nav>
  );
}
