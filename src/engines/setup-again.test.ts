/** A setup for another address that is cut off (a kill, a full disk) between its record and the engine's file. */
import assert from "node:assert/strict";
import { mkdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { HostFiles } from "./host-files.ts";
import { ALL, MachineRoot } from "./machine-fixture.test.ts";
import { EngineSetup } from "./setup.ts";

const RECORD = "/var/lib/dragonfly/dfdaemon/setup";
const DAEMON = "etc/docker/daemon.json";
const ORIGINAL = '{\n  "debug": true\n}\n';

class FullDisk extends HostFiles {
  isFull = false;
  override write(path: string, state: Parameters<HostFiles["write"]>[1]): void {
    if (this.isFull && path.startsWith("/etc/")) throw new Error("cut off");
    super.write(path, state);
  }
}
function run(root: MachineRoot, address: string, isCut = false): void {
  const host = new FullDisk(root.path);
  host.isFull = isCut;
  const setup = new EngineSetup(host, RECORD);
  const apply = (): void => setup.apply(setup.plan(["docker"], { ...ALL, address }));
  if (isCut) assert.throws(apply, /cut off/);
  else apply();
}
function undo(root: MachineRoot): readonly string[] {
  const setup = new EngineSetup(new HostFiles(root.path), RECORD);
  const plan = setup.planUndo(["docker"]);
  setup.apply(plan);
  return plan.problems.map(({ text }) => text);
}

test("an undo after a second setup that was cut off brings the original back", () => {
  const root = new MachineRoot();
  root.write(DAEMON, ORIGINAL);
  run(root, "127.0.0.1:65001");
  run(root, "127.0.0.1:7000", true);
  assert.deepEqual(undo(root), []);
  assert.equal(root.text(DAEMON), ORIGINAL);
});

test("a third setup goes from the original, and an undo brings it back", () => {
  const root = new MachineRoot();
  root.write(DAEMON, ORIGINAL);
  run(root, "127.0.0.1:65001");
  run(root, "127.0.0.1:7000", true);
  run(root, "127.0.0.1:7000");
  assert.deepEqual(JSON.parse(root.text(DAEMON)), { debug: true, "registry-mirrors": ["http://127.0.0.1:7000"] });
  undo(root);
  assert.equal(root.text(DAEMON), ORIGINAL);
});

test("whatever root's umask is, every user's podman can read its folder", (t) => {
  const root = new MachineRoot();
  mkdirSync(join(root.path, "etc"));
  const before = process.umask(0o077);
  t.after(() => process.umask(before));
  const setup = new EngineSetup(new HostFiles(root.path), RECORD);
  setup.apply(setup.plan(["podman"], ALL));
  assert.equal((statSync(join(root.path, "etc/containers/registries.conf.d")).mode & 0o777).toString(8), "755");
});
