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
