import assert from "node:assert/strict";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import { Registries, repositoryAt, resourceUrl, type Upstream } from "./registries.ts";

const none = new Registries([]);

function named(host: string, registries: Registries = none): Upstream {
  const upstream = registries.resolve(host);
  assert.ok(upstream !== undefined);
  return upstream;
}

void test("docker.io is one registry under all its names, its official images under library/", () => {
  for (const host of ["docker.io", "index.docker.io", "registry-1.docker.io", "Docker.IO"]) {
    assert.deepEqual(named(host), { name: "docker.io", baseUrl: "https://registry-1.docker.io", access: "passthrough" });
  }
  const hub = named("docker.io");
  assert.equal(resourceUrl(hub, "nginx", "manifests/latest"), "https://registry-1.docker.io/v2/library/nginx/manifests/latest");
  assert.equal(repositoryAt(hub, "grafana/grafana"), "grafana/grafana");
  assert.equal(repositoryAt(named("ghcr.io"), "nginx"), "nginx");
});

void test("any registry is reached by https, one on this machine by http", () => {
  assert.equal(named("ghcr.io").baseUrl, "https://ghcr.io");
  assert.equal(named("reg.test:5000").baseUrl, "https://reg.test:5000");
  for (const host of ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000", "a.localhost:1"]) {
    assert.equal(named(host).baseUrl, `http://${host}`);
  }
  assert.equal(named("127.0.0.1.evil.test").baseUrl, "https://127.0.0.1.evil.test");
});

void test("the config says where a registry is", () => {
  const registries = new Registries([{ host: "reg.test", url: "http://10.0.0.1:5000/base/v2/" }]);
  assert.deepEqual(named("REG.test", registries), { name: "reg.test", baseUrl: "http://10.0.0.1:5000/base", access: "passthrough" });
});

void test("who names no registry means docker.io if it is configured, else the only one that is", () => {
  const a = { host: "a.test", url: "https://a.test" };
  const hub = { host: "docker.io", url: "https://hub.test" };
  const b = { host: "b.test", url: "https://b.test" };
  assert.equal(none.resolve(undefined), undefined);
  assert.equal(new Registries([a]).resolve(undefined)?.name, "a.test");
  assert.equal(new Registries([a, b]).resolve(undefined), undefined);
  assert.equal(new Registries([a, hub, b]).resolve(undefined)?.baseUrl, "https://hub.test");
});

void test("the registry for dfdaemon doctor is reached as configured, and never meant by who names none", () => {
  const selfTest = { host: "doctor.invalid", url: "http://10.0.0.1:8002/self-test", caFile: undefined };
  const registries = new Registries([], selfTest);
  assert.equal(named("doctor.invalid", registries).baseUrl, "http://10.0.0.1:8002/self-test");
  assert.equal(registries.resolve(undefined), undefined);
});

void test("a URL that is no registry's is refused, and so is a registry that is there twice", () => {
  for (const url of ["ftp://a", "a.test", "https://user:pw@a.test", "https://a.test?x=1", ""]) {
    const build = (): Registries => new Registries([{ host: "a.test", url }]);
    assert.throws(build, (error) => error instanceof AppError && error.code === "CONFIG_INVALID" && !error.message.includes("pw"));
  }
  const twice = ["docker.io", "index.docker.io"].map((host) => ({ host, url: "https://a.test" }));
  assert.throws(() => new Registries(twice), AppError);
});
