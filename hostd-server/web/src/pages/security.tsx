/** Who may do what: users, roles, permissions on single things, keys for programs. */
import { useState } from "preact/hooks";
import { api } from "../api";
import { may } from "../api/client";
import type { ApiKey, Permission, Role, SessionInfo, User } from "../api/types";
import { shortTime } from "../format";
import { t, tOr } from "../i18n";
import { path } from "../router";
import { host, vms } from "../state/inventory";
import { useResource } from "../state/resource";
import { Badge, Button, Card, Empty, Notice, PageHead, Spinner, Tabs } from "../ui/basic";
import { Dialog, FormDialog, ask } from "../ui/dialog";
import { CheckField, SelectField, TextField } from "../ui/form";
import { Icon } from "../ui/icon";
import { type Column, Table } from "../ui/table";

async function load() {
  // Who may see the accounts may not therefore see the sessions.
  const none = () => [];
  const [users, roles, permissions, keys, sessions] = await Promise.all([
    api.users(),
    api.roles(),
    api.permissions().catch(none),
    api.apiKeys().catch(none),
    api.sessions().catch(none),
  ]);
  return { users, roles, permissions, keys, sessions };
}
type Access = Awaited<ReturnType<typeof load>>;
type Dialogs =
  | { what: "user"; it: User | null }
  | { what: "role"; it: Role | null }
  | { what: "permission" }
  | { what: "key" }
  | { what: "made"; key: ApiKey }
  | null;
interface Common {
  onClose: () => void;
  done: () => Promise<void>;
}

/** Built-in roles have a name in each language, others the one they were given. */
const roleName = (role: Role): string => (role.builtIn && tOr("role", role.id) !== role.id ? tOr("role", role.id) : role.name);

function UserDialog({ it, roles, onClose, done }: Common & { it: User | null; roles: Role[] }) {
  const [name, setName] = useState(it?.name ?? "");
  const [description, setDescription] = useState(it?.description ?? "");
  const [role, setRole] = useState(it?.role ?? roles.find((one) => /read/i.test(one.name))?.id ?? roles[0]?.id ?? "");
  const [enabled, setEnabled] = useState(it?.enabled ?? true);
  const [password, setPassword] = useState("");
  const [repeated, setRepeated] = useState("");
  const right = it && password === "" ? true : password.length >= 8 && password === repeated;
  return (
    <FormDialog
      title={t(it ? "user.edit" : "user.new")}
      submit={t(it ? "save" : "create")}
      valid={/^[a-z_][a-z0-9_.-]{0,31}$/.test(name) && right}
      onClose={onClose}
      act={async () => {
        await (it
          ? api.editUser(it.name, { description, role, enabled, ...(password ? { password } : {}) })
          : api.createUser({ name, password, description, role }));
        await done();
      }}
    >
      <div class="fields">
        <TextField
          label={t("user.name")}
          value={name}
          onInput={setName}
          hint={t("user.nameHint")}
          input={{ disabled: it !== null, autocapitalize: "none", autocomplete: "off" }}
        />
        <SelectField label={t("role")} value={role} onInput={setRole} options={roles.map((one) => [one.id, roleName(one)])} />
        <TextField full label={t("description")} value={description} onInput={setDescription} />
        <TextField
          label={t(it ? "password.newOptional" : "password.new")}
          type="password"
          value={password}
          onInput={setPassword}
          hint={t("password.hint")}
          input={{ autocomplete: "new-password" }}
        />
        <TextField
          label={t("password.repeat")}
          type="password"
          value={repeated}
          onInput={setRepeated}
          error={repeated && repeated !== password ? t("password.differ") : null}
          input={{ autocomplete: "new-password" }}
        />
      </div>
      {it && <CheckField label={t("user.enabled")} value={enabled} onInput={setEnabled} />}
    </FormDialog>
  );
}

function RoleDialog({ it, onClose, done }: Common & { it: Role | null }) {
  const privileges = useResource(() => api.privileges(), []);
  const [name, setName] = useState(it?.name ?? "");
  const [chosen, setChosen] = useState<string[]>(it?.privileges ?? []);
  const groups = new Map<string, string[]>();
  for (const privilege of privileges.data ?? []) {
    const group = privilege.split(".")[0]!;
    groups.set(group, [...(groups.get(group) ?? []), privilege]);
  }
  return (
    <FormDialog
      title={t(it ? "role.edit" : "role.new")}
      submit={t(it ? "save" : "create")}
      valid={name.trim() !== ""}
      onClose={onClose}
      act={async () => {
        await (it
          ? api.editRole(it.id, { name: name.trim(), privileges: chosen })
          : api.createRole({ name: name.trim(), privileges: chosen }));
        await done();
      }}
    >
      <TextField label={t("name")} value={name} onInput={setName} />
      {privileges.error && <Notice tone="danger">{privileges.error}</Notice>}
      {[...groups].map(([group, list]) => (
        <fieldset key={group}>
          <legend>{tOr("privilegeGroup", group)}</legend>
          <div class="fields" style={{ gap: "6px 16px" }}>
            {list.map((privilege) => (
              <CheckField
                key={privilege}
                label={tOr("privilege", privilege)}
                value={chosen.includes(privilege)}
                onInput={(on) => setChosen(on ? [...chosen, privilege] : chosen.filter((one) => one !== privilege))}
              />
            ))}
          </div>
        </fieldset>
      ))}
    </FormDialog>
  );
}

function PermissionDialog({ access, onClose, done }: Common & { access: Access }) {
  const [user, setUser] = useState(access.users[0]?.name ?? "");
  const [role, setRole] = useState(access.roles[0]?.id ?? "");
  const [entity, setEntity] = useState(vms.value[0]?.id ?? host.value?.id ?? "");
  const things: [string, string][] = [
    ...(host.value ? [[host.value.id, host.value.name] as [string, string]] : []),
    ...vms.value.map((vm): [string, string] => [vm.id, vm.config.name]),
  ];
  return (
    <FormDialog
      title={t("permission.new")}
      submit={t("create")}
      valid={user !== "" && role !== "" && entity !== ""}
      onClose={onClose}
      act={() => api.createPermission({ user, role, entity, propagate: true }).then(done)}
    >
      <SelectField label={t("user")} value={user} onInput={setUser} options={access.users.map((one) => [one.name, one.name])} />
      <SelectField label={t("permission.on")} value={entity} onInput={setEntity} options={things} />
      <SelectField label={t("role")} value={role} onInput={setRole} options={access.roles.map((one) => [one.id, roleName(one)])} />
    </FormDialog>
  );
}

function KeyDialog({ onClose, made }: { onClose: () => void; made: (key: ApiKey) => void }) {
  const [name, setName] = useState("");
  return (
    <FormDialog
      title={t("key.new")}
      submit={t("create")}
      valid={name.trim() !== ""}
      onClose={onClose}
      act={async () => made(await api.createApiKey(name.trim()))}
    >
      <TextField label={t("name")} hint={t("key.hint")} value={name} onInput={setName} />
    </FormDialog>
  );
}

export function Security() {
  const tab = path.value[1] ?? "users";
  const { data, error, reload } = useResource(load, [], { seconds: 20 });
  const [dialog, setDialog] = useState<Dialogs>(null);
  const close = () => setDialog(null);
  const erase = (title: string, name: string, act: () => Promise<unknown>) =>
    ask({ title, text: t("delete.ask", { name }), submit: t("delete"), danger: true, act: () => act().then(reload) });
  const rolesById = new Map((data?.roles ?? []).map((role) => [role.id, role]));
  const role = (id: string) => {
    const found = rolesById.get(id);
    return found ? roleName(found) : tOr("role", id);
  };
  const userColumns: Column<User>[] = [
    {
      key: "name",
      name: t("user.name"),
      sort: (one) => one.name,
      cell: (one) => (
        <span class="row">
          <Icon name="user" />
          <strong>{one.name}</strong>
        </span>
      ),
    },
    { key: "role", name: t("role"), sort: (one) => role(one.role), cell: (one) => <Badge tone="info">{role(one.role)}</Badge> },
    { key: "description", name: t("description"), wide: true, width: "minmax(140px, 2fr)", cell: (one) => one.description || "–" },
    {
      key: "enabled",
      name: t("state"),
      wide: true,
      width: "130px",
      cell: (one) => <Badge tone={one.enabled ? "ok" : "off"}>{t(one.enabled ? "user.on" : "user.off")}</Badge>,
    },
    {
      key: "act",
      name: "",
      width: "110px",
      cell: (one) => (
        <span class="row tight">
          <Button
            icon="edit"
            kind="plain"
            label={t("edit.named", { name: one.name })}
            onClick={() => setDialog({ what: "user", it: one })}
          />
          <Button
            icon="trash"
            kind="plain"
            danger
            disabled={one.name === "root"}
            label={t("remove.named", { name: one.name })}
            onClick={() => erase(t("user.delete"), one.name, () => api.deleteUser(one.name))}
          />
        </span>
      ),
    },
  ];
  const roleColumns: Column<Role>[] = [
    { key: "name", name: t("name"), sort: roleName, cell: (one) => <strong>{roleName(one)}</strong> },
    {
      key: "privileges",
      name: t("role.privileges"),
      width: "minmax(160px, 3fr)",
      wide: true,
      cell: (one) => (
        <span class="muted" title={one.privileges.join(", ")}>
          {one.privileges.join(", ") || "–"}
        </span>
      ),
    },
    {
      key: "kind",
      name: t("kind"),
      width: "120px",
      cell: (one) => <Badge tone={one.builtIn ? "off" : "info"}>{t(one.builtIn ? "role.builtIn" : "role.own")}</Badge>,
    },
    {
      key: "act",
      name: "",
      width: "110px",
      cell: (one) => (
        <span class="row tight">
          <Button
            icon="edit"
            kind="plain"
            disabled={one.builtIn}
            label={t("edit.named", { name: one.name })}
            onClick={() => setDialog({ what: "role", it: one })}
          />
          <Button
            icon="trash"
            kind="plain"
            danger
            disabled={one.builtIn}
            label={t("remove.named", { name: one.name })}
            onClick={() => erase(t("role.delete"), one.name, () => api.deleteRole(one.id))}
          />
        </span>
      ),
    },
  ];
  const permissionColumns: Column<Permission>[] = [
    { key: "user", name: t("user"), sort: (one) => one.user, cell: (one) => one.user },
    {
      key: "entity",
      name: t("permission.on"),
      cell: (one) =>
        vms.value.find((vm) => vm.id === one.entity)?.config.name ?? (one.entity === host.value?.id ? host.value.name : one.entity),
    },
    { key: "role", name: t("role"), cell: (one) => <Badge tone="info">{role(one.role)}</Badge> },
    {
      key: "act",
      name: "",
      width: "60px",
      cell: (one) => (
        <Button
          icon="trash"
          kind="plain"
          danger
          label={t("remove.named", { name: one.user })}
          onClick={() => erase(t("permission.delete"), one.user, () => api.deletePermission(one.id))}
        />
      ),
    },
  ];
  const keyColumns: Column<ApiKey>[] = [
    {
      key: "name",
      name: t("name"),
      sort: (one) => one.name,
      cell: (one) => (
        <span class="row">
          <Icon name="key" />
          {one.name}
        </span>
      ),
    },
    { key: "user", name: t("user"), cell: (one) => one.user },
    { key: "created", name: t("key.created"), wide: true, cell: (one) => shortTime(one.created) },
    { key: "expires", name: t("key.expires"), wide: true, cell: (one) => (one.expires ? shortTime(one.expires) : t("never")) },
    {
      key: "act",
      name: "",
      width: "60px",
      cell: (one) => (
        <Button
          icon="trash"
          kind="plain"
          danger
          label={t("remove.named", { name: one.name })}
          onClick={() => erase(t("key.delete"), one.name, () => api.deleteApiKey(one.id))}
        />
      ),
    },
  ];
  const sessionColumns: Column<SessionInfo>[] = [
    {
      key: "user",
      name: t("user"),
      sort: (one) => one.user,
      cell: (one) => (
        <span class="row">
          <Icon name="user" />
          {one.user}
          {one.current && <Badge tone="info">{t("session.this")}</Badge>}
        </span>
      ),
    },
    { key: "address", name: t("session.address"), sort: (one) => one.address, cell: (one) => one.address },
    { key: "created", name: t("session.since"), wide: true, sort: (one) => one.created, cell: (one) => shortTime(one.created) },
    { key: "used", name: t("session.last"), wide: true, sort: (one) => one.lastUsed, cell: (one) => shortTime(one.lastUsed) },
    {
      key: "act",
      name: "",
      width: "60px",
      cell: (one) => (
        <Button
          icon="logout"
          kind="plain"
          danger
          disabled={one.current}
          label={`${t("session.end")} ${one.user} ${one.address}`}
          onClick={() => erase(t("session.end"), one.user, () => api.endSession(one.id))}
        />
      ),
    },
  ];
  const make: Record<string, [string, Dialogs]> = {
    users: [t("user.new"), { what: "user", it: null }],
    roles: [t("role.new"), { what: "role", it: null }],
    permissions: [t("permission.new"), { what: "permission" }],
    keys: [t("key.new"), { what: "key" }],
  };
  return (
    <>
      <PageHead
        icon="users"
        title={t("nav.security")}
        sub={host.value?.name}
        actions={
          make[tab] && (
            <Button
              kind="primary"
              icon="plus"
              disabled={!data || (tab !== "keys" && !may("Authorization.Manage"))}
              onClick={() => setDialog(make[tab]![1])}
            >
              {make[tab][0]}
            </Button>
          )
        }
      />
      <Tabs
        label={t("nav.security")}
        current={tab}
        items={(["users", "roles", "permissions", "keys", "sessions"] as const).map((name) => [
          name,
          t(`security.${name}`),
          name === "users" ? "#/security" : `#/security/${name}`,
        ])}
      />
      {error && <Notice tone="danger">{error}</Notice>}
      {!data ? (
        !error && <Spinner />
      ) : (
        <>
          {tab === "users" && (
            <Card title={t("security.users")} flush>
              <Table label={t("security.users")} rows={data.users} columns={userColumns} rowKey={(one) => one.name} rowHeight={44} />
            </Card>
          )}
          {tab === "roles" && (
            <Card title={t("security.roles")} flush>
              <Table label={t("security.roles")} rows={data.roles} columns={roleColumns} rowKey={(one) => one.id} rowHeight={44} />
            </Card>
          )}
          {tab === "permissions" && (
            <Card title={t("security.permissions")} flush>
              <Table
                label={t("security.permissions")}
                rows={data.permissions}
                columns={permissionColumns}
                rowKey={(one) => one.id}
                rowHeight={44}
                empty={
                  <Empty icon="shield" title={t("permission.none")}>
                    <p>{t("permission.noneText")}</p>
                  </Empty>
                }
              />
            </Card>
          )}
          {tab === "keys" && (
            <Card title={t("security.keys")} flush>
              <Table
                label={t("security.keys")}
                rows={data.keys}
                columns={keyColumns}
                rowKey={(one) => one.id}
                rowHeight={44}
                empty={
                  <Empty icon="key" title={t("key.none")}>
                    <p>{t("key.noneText")}</p>
                  </Empty>
                }
              />
            </Card>
          )}
          {tab === "sessions" && (
            <Card title={t("security.sessions")} flush>
              <Table label={t("security.sessions")} rows={data.sessions} columns={sessionColumns} rowKey={(one) => one.id} rowHeight={44} />
            </Card>
          )}
          {dialog?.what === "user" && <UserDialog it={dialog.it} roles={data.roles} onClose={close} done={reload} />}
          {dialog?.what === "role" && <RoleDialog it={dialog.it} onClose={close} done={reload} />}
          {dialog?.what === "permission" && <PermissionDialog access={data} onClose={close} done={reload} />}
          {dialog?.what === "key" && (
            <KeyDialog
              onClose={() => setDialog((now) => (now?.what === "key" ? null : now))}
              made={(key) => {
                setDialog({ what: "made", key });
                void reload();
              }}
            />
          )}
          {dialog?.what === "made" && (
            <Dialog
              title={t("key.made")}
              onClose={close}
              footer={
                <Button kind="primary" onClick={close}>
                  {t("close")}
                </Button>
              }
            >
              <div class="body stack">
                <Notice tone="warn">{t("key.once")}</Notice>
                <TextField
                  label={dialog.key.name}
                  value={dialog.key.key ?? ""}
                  onInput={() => undefined}
                  input={{ readOnly: true, class: "mono" }}
                />
              </div>
            </Dialog>
          )}
        </>
      )}
    </>
  );
}
