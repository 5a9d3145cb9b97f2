import assert from "node:assert/strict";
import { test } from "node:test";
import { dockerRoutes, planDocker } from "./docker.ts";
import { ADDRESS, ALL, filesOf, only } from "./machine-fixture.test.ts";

const FILE = "/etc/docker/daemon.json";

function planned(text: string | undefined, address = ADDRESS): string {
  const plan = planDocker(filesOf(text === undefined ? {} : { [FILE]: text }), { ...ALL, address });
  assert.deepEqual(plan.problems, []);
  return plan.files[0]?.text ?? "";
}

test("without a daemon.json, or with an empty one, one is made", () => {
  const text = '{\n  "registry-mirrors": [\n    "http://127.0.0.1:65001"\n  ]\n}\n';
  assert.equal(planned(undefined), text);
  assert.equal(planned(""), text);
});

test("the mirror comes before those that are there; keys, order and layout stay", () => {
  const text = '{\n\t"log-driver": "local",\n\t"registry-mirrors": ["https://m.test"],\n\t"debug": true\n}\n';
  const after = planned(text);
  assert.deepEqual(JSON.parse(after), { "log-driver": "local", "registry-mirrors": ["http://127.0.0.1:65001", "https://m.test"], debug: true });
  assert.deepEqual(Object.keys(JSON.parse(after) as object), ["log-driver", "registry-mirrors", "debug"]);
  assert.ok(after.startsWith('{\n\t"log-driver": "local",\n') && after.endsWith(',\n\t"debug": true\n}\n'), after);
  assert.equal(planned(after), after);
  assert.deepEqual(dockerRoutes(filesOf({ [FILE]: after }), ADDRESS), [{ registry: "docker.io", isMirrored: true, reason: FILE }]);
  assert.equal(dockerRoutes(filesOf({ [FILE]: text }), ADDRESS)[0]?.isMirrored, false);
});

test("a mirror that is not on loopback is named as insecure, too", () => {
  assert.deepEqual(JSON.parse(planned('{"insecure-registries": ["a:1"]}', "10.0.0.9:65001")), {
    "registry-mirrors": ["http://10.0.0.9:65001"],
    "insecure-registries": ["10.0.0.9:65001", "a:1"],
  });
});

test("what Docker could not read is refused, with its line", () => {
  assert.throws(() => planned('{\n  "debug": true, // on\n}\n'), /daemon\.json:\d: this is no JSON object/);
  assert.throws(() => planned('["x"]'), /no JSON object/);
  assert.throws(() => planned('{"registry-mirrors": "http://m"}'), /"registry-mirrors" is no list of texts/);
});

test("before Docker 28 other registries are a note; from it on they are files that containerd's store reads", () => {
  const old = planDocker(filesOf({}, { dockerd: "20.10" }), only("ghcr.io", "reg.test:5000"));
  assert.deepEqual(old.files, []);
  assert.match(old.notes.join(), /docker\.io alone; from elsewhere pull 127\.0\.0\.1:65001\/ghcr\.io\/<repository>:<tag>, .*\/reg\.test_5000\/<repository>:<tag>/);
  const current = planDocker(filesOf({}, { dockerd: "28.0" }), only("ghcr.io"));
  assert.deepEqual(current.files.map(({ path }) => path), ["/etc/docker/certs.d/ghcr.io/hosts.toml"]);
});

const UNIT = "/lib/systemd/system/docker.service";
const DEBIAN = { [UNIT]: "[Service]\nEnvironmentFile=-/etc/default/docker\n# ExecStart=dockerd --registry-mirror=http://old\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n" };

test("a flag that would keep dockerd from starting beside daemon.json is a problem that names its file, and nothing is written", () => {
  const dropIn = "/etc/systemd/system/docker.service.d/mirror.conf";
  for (const [texts, path] of [
    [{ ...DEBIAN, "/etc/default/docker": 'DOCKER_OPTS="--debug --registry-mirror=https://m.test"\n' }, "/etc/default/docker"],
    [{ ...DEBIAN, [dropIn]: "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd \\\n  --registry-mirror https://m.test\n" }, dropIn],
    [{ ...DEBIAN, [dropIn]: '[Service]\nEnvironment=A=1 "DOCKER_OPTS=-H fd:// --registry-mirror=https://m.test"\n' }, dropIn],
    [{ "/etc/default/docker": "export DOCKER_OPTS='--registry-mirror https://m.test'\n" }, "/etc/default/docker"],
  ] as const) {
    const { files, problems } = planDocker(filesOf(texts), ALL);
    assert.deepEqual(files, []);
    const problem = `${path} gives dockerd --registry-mirror https://m.test, and with "registry-mirrors" in ${FILE} beside it dockerd would not start: move it there, then run setup again`;
    assert.deepEqual(problems, [problem]);
  }
});

test("flags that are commented out, taken back or of no variable in the command are none; nor does an insecure registry matter to a mirror on loopback", () => {
  const reset = { "/etc/systemd/system/docker.service.d/a.conf": "[Service]\nExecStart=/usr/sbin/dockerd --registry-mirror=http://m\n", "/etc/systemd/system/docker.service.d/b.conf": "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd\n" };
  for (const texts of [DEBIAN, { ...DEBIAN, ...reset }, { ...DEBIAN, "/etc/default/docker": "#DOCKER_OPTS=--registry-mirror=http://m\nOTHER=--registry-mirror=http://m\n" }]) {
    assert.deepEqual(planDocker(filesOf(texts), ALL).problems, []);
  }
  const insecure = { ...DEBIAN, "/etc/default/docker": "DOCKER_OPTS=--insecure-registry=10.0.0.0/8\n" };
  assert.deepEqual(planDocker(filesOf(insecure), ALL).problems, []);
  assert.match(planDocker(filesOf(insecure), { ...ALL, address: "10.0.0.9:65001" }).problems.join(), /--insecure-registry 10\.0\.0\.0\/8, and with "insecure-registries"/);
});

test("a flag that names the mirror first is left to do so; a daemon.json elsewhere is not written past", () => {
  const flagged = filesOf({ ...DEBIAN, "/etc/default/docker": "DOCKER_OPTS=--registry-mirror=http://127.0.0.1:65001/\n" });
  const plan = planDocker(flagged, ALL);
  assert.deepEqual([plan.files, plan.problems], [[], []]);
  assert.match(plan.notes.join(), /the mirror by --registry-mirror in \/etc\/default\/docker/);
  assert.deepEqual(dockerRoutes(flagged, ADDRESS), [{ registry: "docker.io", isMirrored: true, reason: "/etc/default/docker" }]);
  const elsewhere = filesOf({ ...DEBIAN, "/etc/default/docker": "DOCKER_OPTS=--config-file=/srv/docker.json\n" });
  assert.match(planDocker(elsewhere, ALL).problems.join(), /dockerd reads \/srv\/docker\.json, as --config-file in \/etc\/default\/docker says/);
});
