import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, lstatSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import { AppError } from "../base/errors.ts";
import { ENGINE_NAMES, type EngineName, type MirrorTarget } from "./engine.ts";
import { HostFiles } from "./host-files.ts";
import { ALL, fixture, MachineRoot, only } from "./machine-fixture.test.ts";
import { EngineSetup, enginesHere, type SetupPlan } from "./setup.ts";

const RECORD = "/var/lib/dragonfly/dfdaemon/setup";
const CONFIG = "etc/containerd/config.toml";
const HOSTS = "etc/containerd/certs.d/_default/hosts.toml";

function setupOf(root: MachineRoot): EngineSetup {
  return new EngineSetup(new HostFiles(root.path), RECORD);
}

function run(root: MachineRoot, target: MirrorTarget = ALL, engines: readonly EngineName[] = ENGINE_NAMES): SetupPlan {
  const setup = setupOf(root);
  const plan = setup.plan(engines, target);
  setup.apply(plan);
  return plan;
}

function undo(root: MachineRoot): SetupPlan {
  const setup = setupOf(root);
  const plan = setup.planUndo(ENGINE_NAMES);
  setup.apply(plan);
  return plan;
}

function debian(): MachineRoot {
  const root = new MachineRoot();
  root.write(CONFIG, fixture("containerd-1.6-debian.toml"));
  root.write("etc/containers/registries.conf", fixture("registries.conf"));
  for (const name of ["containerd", "podman"]) root.write(`usr/bin/${name}`, "");
  root.write("usr/sbin/dockerd", "");
  return root;
}

test("the engines of a host are those whose programs or files are there", () => {
  assert.deepEqual(enginesHere(new HostFiles(debian().path)), ["containerd", "docker", "podman"]);
  assert.deepEqual(enginesHere(new HostFiles(new MachineRoot().path)), []);
});

test("a second run changes nothing, and an undo leaves no trace under /etc", () => {
  const root = debian();
  const before = root.snapshot();
  const first = run(root);
  assert.deepEqual(
    first.changes.map(({ path, action, command }) => [path, action, command]),
    [
      [`/${HOSTS}`, "create", undefined],
      [`/${CONFIG}`, "change", "systemctl restart containerd"],
      ["/etc/docker/daemon.json", "create", "systemctl reload docker"],
      ["/etc/containers/registries.conf.d/50-dragonfly.conf", "create", "systemctl reload crio"],
    ],
  );
  const after = root.snapshot();
  assert.deepEqual(run(root).changes, []);
  assert.deepEqual(root.snapshot(), after);
  assert.deepEqual(undo(root).problems, []);
  assert.deepEqual(root.snapshot(), before);
  assert.deepEqual(undo(root).changes, []);
  assert.deepEqual(new HostFiles(root.path).list("/var/lib/dragonfly/dfdaemon"), []);
});

test("whatever was there and however often setup ran, an undo brings back every byte, mode, owner and link", () => {
  const configs = [undefined, fixture("containerd-1.6-debian.toml"), fixture("containerd-1.6-default.toml"), fixture("containerd-2.2.toml"), "", "version = 3", "# only this\r\n"];
  const daemons = [undefined, "", "{}", '{"registry-mirrors":["https://m.test"]}', '{\r\n    "debug": true\r\n}', "{ broken"];
  const hosts = [undefined, 'server = "https://x.test"\n', '[host."https://m.test"]\n  capabilities = ["pull"]', "broken = "];
  const registries = [undefined, fixture("registries.conf"), '[[registry]]\nlocation = "quay.io"\n'];
  const mode = fc.constantFrom(0o600, 0o640, 0o644, 0o664);
  const owner = fc.constantFrom(0, 1234);
  const file = (texts: readonly (string | undefined)[]): fc.Arbitrary<{ text: string | undefined; mode: number; uid: number; isLink: boolean }> =>
    fc.record({ text: fc.constantFrom(...texts), mode, uid: owner, isLink: fc.boolean() });
  const targets = fc.array(
    fc.record({
      address: fc.constantFrom("127.0.0.1:65001", "127.0.0.1:7001", "10.0.0.9:65001"),
      registries: fc.constantFrom(undefined, ["docker.io"], ["quay.io", "x.test"], ["reg.test:5000"]),
      known: fc.constantFrom([], [{ host: "x.test", url: "http://10.0.0.5:5000" }]),
      engines: fc.subarray([...ENGINE_NAMES], { minLength: 1 }),
    }),
    { minLength: 1, maxLength: 4 },
  );
  const isRoot = process.getuid?.() === 0;
  fc.assert(
    fc.property(file(configs), file(daemons), file(hosts), file(hosts), file(registries), targets, (config, daemon, fallback, host, registry, calls) => {
      const root = new MachineRoot();
      mkdirSync(join(root.path, "etc"));
      const put = (path: string, { text, mode: bits, uid, isLink }: typeof config): void => {
        if (text === undefined) return;
        const real = isLink ? `etc/real/${path.replaceAll("/", "-")}` : path;
        root.write(real, text, bits);
        if (isLink) root.link(path, `/${real}`);
        if (isRoot) new HostFiles(root.path).write(`/${real}`, { bytes: Buffer.from(text), mode: bits, uid, gid: uid });
      };
      put(CONFIG, config);
      put("etc/docker/daemon.json", daemon);
      put(HOSTS, fallback);
      put("etc/containerd/certs.d/x.test/hosts.toml", host);
      put("etc/containers/registries.conf", registry);
      const before = root.snapshot();
      for (const { engines, ...target } of calls) {
        run(root, target, engines);
        assert.deepEqual(run(root, target, engines).changes, [], "a second run changed something");
      }
      assert.deepEqual(undo(root).problems, []);
      assert.deepEqual(root.snapshot(), before);
    }),
    { numRuns: 60 },
  );
});

test("a second setup replaces the first: other registries, another port", () => {
  const root = debian();
  run(root, only("a.test"));
  run(root, { ...only("b.test"), address: "127.0.0.1:7001" }, ["containerd"]);
  assert.deepEqual(new HostFiles(root.path).list("/etc/containerd/certs.d"), ["b.test", "doctor.invalid"]);
  assert.match(root.text("etc/containerd/certs.d/b.test/hosts.toml"), /http:\/\/127\.0\.0\.1:7001/);
});

test("what somebody changed since is not overwritten by an undo: it is named, with where the original is", () => {
  const root = debian();
  run(root);
  writeFileSync(join(root.path, CONFIG), `${root.text(CONFIG)}# mine\n`);
  chmodSync(join(root.path, "etc/docker/daemon.json"), 0o600);
  const changed = root.text(CONFIG);
  const { problems, changes } = undo(root);
  assert.equal(root.text(CONFIG), changed);
  assert.ok(root.text("etc/docker/daemon.json").includes("65001"), "its mode was changed: it is somebody's now");
  assert.equal(changes.length, 2, "the others are undone");
  const [original] = /\/var\/\S+originals\/\w+/.exec(problems.map(({ text }) => text).join("\n")) ?? [""];
  assert.equal(root.text(original), fixture("containerd-1.6-debian.toml"));
  assert.match(problems[1]?.text ?? problems[0]?.text ?? "", /was changed since setup wrote it and stays as it is/);
});

test("setup keeps what somebody added since, and its undo gives that back", () => {
  const root = debian();
  run(root);
  const extended = `${root.text(CONFIG)}[debug]\n  level = "info"\n`;
  writeFileSync(join(root.path, CONFIG), extended);
  assert.deepEqual(run(root).changes, []);
  assert.equal(root.text(CONFIG), extended);
});

test("a link stays a link, and leads inside the root", () => {
  const root = debian();
  root.write("etc/real.json", "{}");
  mkdirSync(join(root.path, "etc/docker"));
  root.link("etc/docker/daemon.json", "/etc/../../etc/real.json");
  run(root, ALL, ["docker"]);
  assert.ok(lstatSync(join(root.path, "etc/docker/daemon.json")).isSymbolicLink());
  assert.match(root.text("etc/real.json"), /65001/);
});

test("a plan alone writes nothing", () => {
  const root = debian();
  const before = root.snapshot(".");
  assert.equal(setupOf(root).plan(ENGINE_NAMES, ALL).changes.length, 4);
  assert.deepEqual(root.snapshot("."), before);
});

test("one engine's broken file is a problem that names it, and the others are set up", () => {
  const root = debian();
  root.write("etc/docker/daemon.json", "{ broken");
  const { problems, changes } = run(root);
  assert.match(problems[0]?.text ?? "", /daemon\.json:1: this is no JSON object: mend the file first/);
  assert.equal(changes.length, 3);
});

test("a crash between remembering and writing leaves nothing for an undo to harm", () => {
  const root = debian();
  const before = root.snapshot();
  const host = new HostFiles(root.path);
  const failing = new EngineSetup(host, RECORD);
  const plan = failing.plan(["containerd"], ALL);
  const write = host.write.bind(host);
  host.write = (path, state): void => {
    if (path === `/${CONFIG}`) throw new AppError("OUTPUT_UNWRITABLE", "crash");
    write(path, state);
  };
  assert.throws(() => failing.apply(plan), /crash/);
  assert.deepEqual(undo(root).problems, []);
  assert.deepEqual(root.snapshot(), before);
});

test("a record that is damaged is not guessed at", () => {
  const root = debian();
  run(root);
  root.write("var/lib/dragonfly/dfdaemon/setup/record.json", "{}");
  assert.throws(() => setupOf(root), /record\.json is not what setup wrote there/);
});

test("without the right to write, nothing is written and root is asked for", { skip: process.getuid?.() !== 0 && "root only" }, () => {
  const root = debian();
  const before = readFileSync(join(root.path, CONFIG));
  chmodSync(root.path, 0o755);
  const setup = setupOf(root);
  const plan = setup.plan(["containerd"], ALL);
  process.seteuid?.(1234);
  try {
    assert.throws(() => setup.apply(plan), (thrown) => thrown instanceof AppError && thrown.code === "OUTPUT_UNWRITABLE" && /permission denied; run it as root/.test(thrown.message));
  } finally {
    process.seteuid?.(0);
  }
  assert.deepEqual(readFileSync(join(root.path, CONFIG)), before);
});

test("who may write one engine's files and not another's changes none", { skip: process.getuid?.() !== 0 && "root only" }, () => {
  const root = debian();
  chmodSync(root.path, 0o755);
  const user = 1234;
  for (const directory of ["etc/containerd", "var", "var/lib"]) {
    mkdirSync(join(root.path, directory), { recursive: true });
    chownSync(join(root.path, directory), user, user);
  }
  const before = root.snapshot();
  const module = (name: string): string => JSON.stringify(join(import.meta.dirname, name));
  const script = `
    import { EngineSetup } from ${module("setup.ts")};
    import { HostFiles } from ${module("host-files.ts")};
    const setup = new EngineSetup(new HostFiles(${JSON.stringify(root.path)}), ${JSON.stringify(RECORD)});
    setup.apply(setup.plan(["containerd", "docker"], ${JSON.stringify(ALL)}));`;
  const done = spawnSync(process.execPath, ["--input-type=module", "-e", script], { uid: user, gid: user, encoding: "utf8" });
  assert.match(done.stderr, /cannot write \/etc\/docker\/daemon\.json/);
  assert.deepEqual(root.snapshot(), before);
});
