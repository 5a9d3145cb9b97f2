import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "smol-toml";
import { containerdRoutes, planContainerd } from "./containerd.ts";
import type { EngineFiles, EnginePlan } from "./engine.ts";
import { ADDRESS, ALL, filesOf, fixture, only } from "./machine-fixture.test.ts";

const CONFIG = "/etc/containerd/config.toml";
const DEFAULT_HOSTS = "/etc/containerd/certs.d/_default/hosts.toml";
const V2 = `version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n`;

function texts(plan: EnginePlan): Readonly<Record<string, string>> {
  assert.deepEqual(plan.problems, []);
  return Object.fromEntries(plan.files.map(({ path, text }) => [path, text]));
}

/** What containerd would read once the plan is carried out. */
function carriedOut(before: Readonly<Record<string, string>>, plan: EnginePlan, versions: Readonly<Record<string, string>> = {}): EngineFiles {
  return filesOf({ ...before, ...texts(plan) }, versions);
}

test("Debian's 1.6 configuration gets a config_path at its end and nothing else", () => {
  const before = { [CONFIG]: fixture("containerd-1.6-debian.toml") };
  const plan = planContainerd(filesOf(before), ALL);
  const after = texts(plan);
  assert.equal(
    after[CONFIG],
    `${before[CONFIG]}\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n`,
  );
  assert.deepEqual(structuredClone(parse(after[DEFAULT_HOSTS] ?? "")), { host: { "http://127.0.0.1:65001": { capabilities: ["pull", "resolve"] } } });
  assert.deepEqual(containerdRoutes(carriedOut(before, plan), ADDRESS), [{ registry: "*", isMirrored: true, reason: DEFAULT_HOSTS }]);
});

test("the dump of 1.6's defaults, with its empty config_path and mirrors, changes in one line", () => {
  const before = fixture("containerd-1.6-default.toml");
  const after = texts(planContainerd(filesOf({ [CONFIG]: before }), ALL))[CONFIG] ?? "";
  const changed = after.split("\n").filter((line, at) => line !== before.split("\n")[at]);
  assert.deepEqual(changed, ['      config_path = "/etc/containerd/certs.d"']);
});

test("containerd 2 gets a drop-in where it imports a folder, and one directory instead of a list", () => {
  const text = fixture("containerd-2.2.toml");
  const listed = { [CONFIG]: text };
  const versions = { containerd: "2.2.0" };
  const [registry] = containerdRoutes(filesOf(listed, versions), ADDRESS);
  assert.match(registry?.reason ?? "", /a list, which containerd 2 takes for one directory/);
  const changed = planContainerd(filesOf(listed, versions), ALL);
  assert.equal(texts(changed)[CONFIG], text.replace("'/etc/containerd/certs.d:/etc/docker/certs.d'", '"/etc/containerd/certs.d"'));
  assert.equal(containerdRoutes(carriedOut(listed, changed, versions), ADDRESS)[0]?.isMirrored, true);

  const silent = { [CONFIG]: text.replace(/ +config_path = '\/etc\/containerd.*\n/, "") };
  const dropIn = planContainerd(filesOf(silent, versions), ALL);
  assert.deepEqual(Object.keys(texts(dropIn)), [DEFAULT_HOSTS, "/etc/containerd/conf.d/90-dragonfly.toml"]);
  assert.deepEqual(structuredClone(parse(texts(dropIn)["/etc/containerd/conf.d/90-dragonfly.toml"] ?? "")), {
    version: 3,
    plugins: { "io.containerd.cri.v1.images": { registry: { config_path: "/etc/containerd/certs.d" } } },
  });
  assert.equal(containerdRoutes(carriedOut(silent, dropIn, versions), ADDRESS)[0]?.isMirrored, true);
});

test("with 1.x a list of directories is fine and stays", () => {
  const before = { [CONFIG]: V2.replace("/etc/containerd/certs.d", "/etc/containerd/certs.d:/etc/docker/certs.d") };
  assert.deepEqual(Object.keys(texts(planContainerd(filesOf(before, { containerd: "1.7.24" }), ALL))), [DEFAULT_HOSTS]);
});

test("in format 2 an import that replaces the CRI section is the file to change", () => {
  const own = `version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "pause"\n`;
  const before = { [CONFIG]: `imports = ["conf.d/*.toml"]\n${V2}`, "/etc/containerd/conf.d/cri.toml": own };
  assert.equal(containerdRoutes(filesOf(before), ADDRESS)[0]?.isMirrored, false);
  const plan = planContainerd(filesOf(before), ALL);
  assert.deepEqual(Object.keys(texts(plan)), [DEFAULT_HOSTS, "/etc/containerd/conf.d/cri.toml"]);
  assert.equal(containerdRoutes(carriedOut(before, plan), ADDRESS)[0]?.isMirrored, true);
});

test("without a config.toml one is made, in the format of the version that runs", () => {
  assert.match(texts(planContainerd(filesOf({}), ALL))[CONFIG] ?? "", /version = 2\n\n\[plugins\."io\.containerd\.grpc\.v1\.cri"\.registry\]/);
  const second = texts(planContainerd(filesOf({}, { containerd: "2.1.9" }), ALL))[CONFIG] ?? "";
  assert.match(second, /version = 3\n\n\[plugins\."io\.containerd\.cri\.v1\.images"\.registry\]/);
});

test("format 1 has its own names", () => {
  const after = texts(planContainerd(filesOf({ [CONFIG]: '[plugins.cri]\n  sandbox_image = "x"\n' }), ALL))[CONFIG];
  assert.equal(after, '[plugins.cri]\n  sandbox_image = "x"\n\n[plugins.cri.registry]\n  config_path = "/etc/containerd/certs.d"\n');
});

test("a config_path that is set is followed, and config.toml stays as it is", () => {
  const elsewhere = V2.replace("/etc/containerd/certs.d", "/etc/cri/conf.d/hosts");
  assert.deepEqual(Object.keys(texts(planContainerd(filesOf({ [CONFIG]: elsewhere }), ALL))), ["/etc/cri/conf.d/hosts/_default/hosts.toml"]);
});

test("with a disabled CRI plugin config.toml stays as it is, and it is said who profits", () => {
  const plan = planContainerd(filesOf({ [CONFIG]: 'disabled_plugins = ["cri"]\n' }), ALL);
  assert.deepEqual(Object.keys(texts(plan)), [DEFAULT_HOSTS]);
  assert.match(plan.notes.join(), /CRI plugin is disabled/);
});

test("older settings that exclude hosts.toml are a problem, not a broken containerd", () => {
  const legacy = `version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\n  endpoint = ["https://m"]\n`;
  const plan = planContainerd(filesOf({ [CONFIG]: legacy }), ALL);
  assert.deepEqual(plan.files, []);
  assert.match(plan.problems.join(), /registry\.mirrors, with which containerd refuses hosts\.toml files: move them/);
});

test("a hosts.toml of the user's keeps its hosts and comments, after the mirror; unnamed ones stay alone", () => {
  const path = "/etc/containerd/certs.d/reg.test/hosts.toml";
  const own = 'server = "https://reg.test"\n\n# ours\n[host."https://cache.test"]\n  capabilities = ["pull"]\n  [host."https://cache.test".header]\n    x = "1"\n';
  const before = { [CONFIG]: V2, [path]: own };
  const all = planContainerd(filesOf(before), ALL);
  assert.deepEqual(Object.keys(texts(all)), [DEFAULT_HOSTS]);
  assert.match(all.notes.join(), /reg\.test has a configuration of its own .* --registry reg\.test puts the mirror before it/);
  const named = planContainerd(filesOf(before), only("reg.test"));
  assert.equal(
    texts(named)[path],
    own.replace("[host.", '[host."http://127.0.0.1:65001"]\n  capabilities = ["pull", "resolve"]\n\n[host.'),
  );
  assert.deepEqual(containerdRoutes(carriedOut(before, named), ADDRESS)[1], { registry: "reg.test", isMirrored: true, reason: path });
});

test("a registry that dfdaemon knows elsewhere falls back to there", () => {
  const known = [{ host: "reg.test", url: "http://10.0.0.5:5000" }];
  const after = texts(planContainerd(filesOf({ [CONFIG]: V2 }), { ...ALL, known }));
  assert.deepEqual(Object.keys(after), ["/etc/containerd/certs.d/reg.test/hosts.toml", DEFAULT_HOSTS]);
  assert.equal(parse(after["/etc/containerd/certs.d/reg.test/hosts.toml"] ?? "")["server"], "http://10.0.0.5:5000");
});

test("a registry with a port has its folder under either name, the one that is there", () => {
  const path = "/etc/containerd/certs.d/reg.test_5000_/hosts.toml";
  assert.equal(planContainerd(filesOf({ [CONFIG]: V2, [path]: "" }), only("reg.test:5000")).files[0]?.path, path);
  assert.equal(planContainerd(filesOf({ [CONFIG]: V2 }), only("reg.test:5000")).files[0]?.path, "/etc/containerd/certs.d/reg.test:5000/hosts.toml");
});
