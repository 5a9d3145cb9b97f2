import assert from "node:assert/strict";
import { test } from "node:test";
import { parse } from "smol-toml";
import { containersRoutes, planContainers } from "./containers.ts";
import { ADDRESS, ALL, filesOf, fixture, only } from "./machine-fixture.test.ts";

const MAIN = "/etc/containers/registries.conf";
const DROP_IN = "/etc/containers/registries.conf.d/50-dragonfly.conf";

test("a drop-in names the mirror for each registry, the registry itself behind it", () => {
  const plan = planContainers(filesOf({ [MAIN]: fixture("registries.conf") }), only("quay.io", "reg.test:5000"), "podman");
  assert.deepEqual(plan.files.map(({ path }) => path), [DROP_IN]);
  const entry = (host: string, segment = host): object => ({
    prefix: host,
    location: host,
    mirror: [{ location: `127.0.0.1:65001/${segment}`, insecure: true }],
  });
  // With a colon in it the mirror's name would be none, and every pull from that registry would fail.
  const registry = [entry("quay.io"), entry("reg.test:5000", "reg.test_5000"), entry("doctor.invalid")];
  assert.deepEqual(JSON.parse(JSON.stringify(parse(plan.files[0]?.text ?? ""))), { registry });
  assert.deepEqual(containersRoutes(filesOf({ [DROP_IN]: plan.files[0]?.text ?? "" }), ADDRESS), [
    { registry: "quay.io", isMirrored: true, reason: DROP_IN },
    { registry: "reg.test:5000", isMirrored: true, reason: DROP_IN },
    { registry: "doctor.invalid", isMirrored: true, reason: DROP_IN },
  ]);
});

test("all means the public registries and dfdaemon's, since there is no entry for the rest; it is said", () => {
  const known = [{ host: "reg.test", url: "http://10.0.0.5:5000/base" }];
  const plan = planContainers(filesOf({}), { ...ALL, known }, "cri-o");
  assert.match(plan.notes.join(), /mirrored are docker\.io, .*reg\.test.*; others have to be named with --registry/);
  assert.match(plan.files[0]?.text ?? "", /prefix = "reg\.test"\nlocation = "10\.0\.0\.5:5000\/base"\ninsecure = true\n/);
});

test("a registry that somebody configured stays as it is, with a word on what to add", () => {
  const own = '[[registry]]\nlocation = "quay.io"\nblocked = true\n';
  const plan = planContainers(filesOf({ [MAIN]: own }), only("quay.io"), "podman");
  assert.doesNotMatch(plan.files[0]?.text ?? "", /quay/);
  assert.match(plan.notes.join(), /quay\.io has a \[\[registry\]\] of its own in \/etc\/containers\/registries\.conf/);
});

test("a later file's entry for the same registry is the one that counts", () => {
  const ours = planContainers(filesOf({}), only("quay.io"), "podman").files[0]?.text ?? "";
  const later = '[[registry]]\nprefix = "quay.io"\nlocation = "mirror.test/quay"\n';
  const [route] = containersRoutes(filesOf({ [DROP_IN]: ours, "/etc/containers/registries.conf.d/99-own.conf": later }), ADDRESS);
  assert.equal(route?.isMirrored, false);
  assert.match(route?.reason ?? "", /99-own\.conf does not name 127\.0\.0\.1:65001\/quay\.io first/);
});
