/** The snapshots of a machine as the tree that they are; "you are here" stands below the one that its disks continue. */
import { useState } from "preact/hooks";
import { api } from "../api";
import type { Snapshot, Vm } from "../api/types";
import { bytes, dateTime } from "../format";
import { t } from "../i18n";
import { refresh } from "../state/inventory";
import { useResource } from "../state/resource";
import { Button, Card, Empty, Facts, Notice, Spinner } from "../ui/basic";
import { ask } from "../ui/dialog";
import { Icon } from "../ui/icon";

function Branch({ list, chosen, onChoose }: { list: Snapshot[]; chosen: string | null; onChoose: (id: string) => void }) {
  return (
    <ul>
      {list.map((snapshot) => (
        <li key={snapshot.id}>
          <button type="button" aria-pressed={chosen === snapshot.id} onClick={() => onChoose(snapshot.id)}>
            <Icon name="camera" />
            <span class="ellipsis">{snapshot.name}</span>
            <span class="muted nowrap phone-hide" style={{ marginLeft: "auto" }}>
              {dateTime(snapshot.created)}
            </span>
          </button>
          {(snapshot.current || snapshot.children.length > 0) && (
            <>
              {snapshot.children.length > 0 && <Branch list={snapshot.children} chosen={chosen} onChoose={onChoose} />}
              {snapshot.current && (
                <ul>
                  <li>
                    <span class="here">
                      <Icon name="vm" />
                      {t("snapshot.here")}
                    </span>
                  </li>
                </ul>
              )}
            </>
          )}
        </li>
      ))}
    </ul>
  );
}

const flat = (list: Snapshot[]): Snapshot[] => list.flatMap((snapshot) => [snapshot, ...flat(snapshot.children)]);

export function Snapshots({ vm, onTake }: { vm: Vm; onTake: () => void }) {
  const { data, error, reload } = useResource(() => api.snapshots(vm.id), [vm.id, vm.snapshotCount], { kind: "snapshot", seconds: 5 });
  const [chosen, setChosen] = useState<string | null>(null);
  const all = flat(data ?? []);
  const snapshot = all.find((one) => one.id === chosen);
  const done = () => Promise.all([reload(), refresh("task"), refresh("vm")]);
  const take = (
    <Button icon="camera" kind="primary" onClick={onTake}>
      {t("snapshot.take")}
    </Button>
  );
  if (error) return <Notice tone="danger">{error}</Notice>;
  if (!data) return <Spinner />;
  return (
    <div class="grid">
      <Card title={t("vm.tab.snapshots")} class="w8" actions={all.length > 0 && take}>
        {all.length === 0 ? (
          <Empty icon="camera" title={t("snapshot.none")}>
            <p>{t("snapshot.noneText")}</p>
            {take}
          </Empty>
        ) : (
          <div class="tree">
            <Branch list={data} chosen={chosen} onChoose={setChosen} />
          </div>
        )}
      </Card>
      {snapshot && (
        <Card title={snapshot.name} class="w4">
          <div class="stack">
            <Facts
              items={[
                [t("description"), snapshot.description || "–"],
                [t("snapshot.created"), dateTime(snapshot.created)],
                [t("size"), bytes(snapshot.size)],
                [t("memory"), snapshot.withMemory ? t("yes") : t("no")],
              ]}
            />
            <div class="row">
              <Button
                icon="reset"
                onClick={() =>
                  ask({
                    title: t("snapshot.revert"),
                    text: t("snapshot.revertAsk", { name: snapshot.name }),
                    submit: t("snapshot.revert"),
                    danger: true,
                    act: () => api.revert(vm.id, snapshot.id).then(done),
                  })
                }
              >
                {t("snapshot.revert")}
              </Button>
              <Button
                icon="trash"
                danger
                onClick={() =>
                  ask({
                    title: t("snapshot.delete"),
                    text: t("snapshot.deleteAsk", { name: snapshot.name }),
                    submit: t("delete"),
                    danger: true,
                    act: () => api.deleteSnapshot(vm.id, snapshot.id).then(done),
                  })
                }
              >
                {t("delete")}
              </Button>
            </div>
          </div>
        </Card>
      )}
    </div>
  );
}
