/** Chooses a file of a datastore. Its name is written as the host writes it: `[datastore] folder/file`. */
import { useState } from "preact/hooks";
import { api } from "../api";
import type { DatastoreFile } from "../api/types";
import { bytes } from "../format";
import { t } from "../i18n";
import { datastores } from "../state/inventory";
import { useResource } from "../state/resource";
import { Button, Empty, Notice, Spinner } from "../ui/basic";
import { Dialog } from "../ui/dialog";
import { SelectField, TextField } from "../ui/form";
import { Icon, type IconName } from "../ui/icon";

export const FILE_ICONS: Record<DatastoreFile["kind"], IconName> = {
  folder: "folder",
  file: "file",
  disk: "disk",
  iso: "disc",
  kernel: "cpu",
  log: "log",
};

export const join = (folder: string, name: string): string => (folder ? `${folder}/${name}` : name);
/** A file's name with its datastore's in front. */
export const fullName = (datastore: string, path: string): string =>
  `[${datastores.value.find((one) => one.id === datastore)?.name ?? datastore}] ${path}`;

export const parent = (path: string): string => path.split("/").slice(0, -1).join("/");

interface Props {
  label: string;
  kinds: DatastoreFile["kind"][];
  value: string;
  /** Without the datastore's name in front. */
  bare?: boolean;
  hint?: string;
  error?: string | null;
  onPick: (path: string, datastore?: string) => void;
}

export function FilePicker({ label, kinds, value, bare, hint, error, onPick }: Props) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <div class="row" style={{ alignItems: "flex-start", flexWrap: "nowrap" }}>
        <div class="grow">
          <TextField
            label={label}
            value={value}
            onInput={(text) => onPick(text)}
            hint={hint}
            error={error}
            input={{ placeholder: bare ? "folder/file" : "[datastore] folder/file" }}
          />
        </div>
        <div style={{ paddingTop: "24px" }}>
          <Button icon="folder" label={t("file.browse", { field: label })} onClick={() => setOpen(true)} />
        </div>
      </div>
      {open && (
        <Picker
          title={label}
          kinds={kinds}
          onClose={() => setOpen(false)}
          onPick={(datastore, path) => {
            onPick(bare ? path : fullName(datastore, path), datastore);
            setOpen(false);
          }}
        />
      )}
    </>
  );
}

export function Picker({
  title,
  kinds,
  onPick,
  onClose,
}: { title: string; kinds: DatastoreFile["kind"][]; onPick: (datastore: string, path: string) => void; onClose: () => void }) {
  const [datastore, setDatastore] = useState(datastores.value[0]?.id ?? "");
  const [folder, setFolder] = useState("");
  const { data, error } = useResource(() => (datastore ? api.files(datastore, folder) : Promise.resolve([])), [datastore, folder]);
  const entries = (data ?? []).filter((file) => file.kind === "folder" || kinds.includes(file.kind) || kinds.includes("file"));
  return (
    <Dialog title={title} onClose={onClose} footer={<Button onClick={onClose}>{t("cancel")}</Button>}>
      <div class="body stack small" style={{ minHeight: "300px" }}>
        <SelectField
          label={t("datastore")}
          value={datastore}
          onInput={(next) => {
            setDatastore(next);
            setFolder("");
          }}
          options={datastores.value.map((one) => [one.id, one.name])}
        />
        {error && <Notice tone="danger">{error}</Notice>}
        <div class="tree">
          {folder && (
            <Button icon="up" kind="plain" onClick={() => setFolder(parent(folder))}>
              {t("file.up", { folder: `/${parent(folder)}` })}
            </Button>
          )}
          {!data && !error && <Spinner />}
          {data && entries.length === 0 && <Empty icon="folder" title={t("file.none")} />}
          <ul style={{ padding: 0, margin: 0, border: 0 }}>
            {entries.map((file) => (
              <li key={file.name}>
                <button
                  type="button"
                  onClick={() => (file.kind === "folder" ? setFolder(join(folder, file.name)) : onPick(datastore, join(folder, file.name)))}
                >
                  <Icon name={FILE_ICONS[file.kind]} />
                  <span class="ellipsis">{file.name}</span>
                  {file.kind !== "folder" && (
                    <span class="muted num" style={{ marginLeft: "auto" }}>
                      {bytes(file.size)}
                    </span>
                  )}
                </button>
              </li>
            ))}
          </ul>
        </div>
      </div>
    </Dialog>
  );
}
