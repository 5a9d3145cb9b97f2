/** The doctor's pulls, by clients that stand in for the engines' own. With the real ones: test/e2e/setup.test.ts. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { filesOf } from "../../engines/machine-fixture.test.ts";
import { checkEngine } from "./engine-links.ts";
import type { Finding } from "./finding.ts";

const ADDRESS = "127.0.0.1:65001";
const PODMAN = { "/etc/containers/registries.conf": `[[registry]]\nprefix = "quay.io"\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "${ADDRESS}/quay.io"\n` };
const CONTAINERD = {
  "/etc/containerd/config.toml": 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/etc/containerd/certs.d"\n',
  "/etc/containerd/certs.d/quay.io/hosts.toml": `[host."http://${ADDRESS}"]\n`,
  "/run/containerd/containerd.sock": "",
};
const DOCKER = { "/etc/docker/daemon.json": `{"registry-mirrors": ["http://${ADDRESS}"]}` };

const directory = mkdtempSync(join(tmpdir(), "doctor-engines-"));
const path = process.env["PATH"];
let programs: string;
beforeEach(() => {
  programs = mkdtempSync(join(directory, "bin-"));
  process.env["PATH"] = programs;
});
after(() => {
  process.env["PATH"] = path;
  rmSync(directory, { recursive: true });
});

/** A program that notes how it was called. */
function program(name: string, script: string): void {
  writeFileSync(join(programs, name), `#!/bin/sh\necho "$@" >>${join(programs, `${name}.calls`)}\n${script}\n`, { mode: 0o755 });
}

function callsOf(name: string): string {
  const file = join(programs, `${name}.calls`);
  return existsSync(file) ? readFileSync(file, "utf8") : "";
}

/** @param isAsked does the mirror hear of the pulls? */
async function look(engine: "containerd" | "docker" | "podman", files: Readonly<Record<string, string>>, images: readonly string[], isAsked = true): Promise<readonly Finding[]> {
  let requests = 7;
  const server = createServer((_request, response) => {
    response.setHeader("connection", "close");
    response.end(`dragonfly_mirror_requests_total{kind="ping",result="hit"} 9\ndragonfly_mirror_requests_total{kind="blob",result="hit"} ${isAsked ? requests++ : requests}\n`);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const mirror = { host: "127.0.0.1", port: (server.address() as AddressInfo).port };
    return await checkEngine({ engine, files: filesOf(files), mirror, address: ADDRESS, images, noPull: undefined });
  } finally {
    server.close();
  }
}

test("a pull that its client could not make is broken, in the client's last words", async () => {
  program("skopeo", 'echo "time=now level=info" >&2; echo "reading manifest v1: manifest unknown" >&2; exit 1');
  const [, pull] = await look("podman", PODMAN, ["quay.io/team/app:v1"]);
  assert.deepEqual(pull, {
    link: "podman pull", status: "broken",
    message: "skopeo could not pull quay.io/team/app:v1: reading manifest v1: manifest unknown; see dfdaemon's log for the requests it got",
  });
});

test("registries that a file of their own takes past dfdaemon are named, and when it is all of them nothing is well", async () => {
  program("skopeo", "exit 0");
  const own = { "/etc/containers/registries.conf.d/99-own.conf": '[[registry]]\nlocation = "quay.io"\n' };
  const other = `[[registry]]\nprefix = "ghcr.io"\nlocation = "ghcr.io"\n[[registry.mirror]]\nlocation = "${ADDRESS}/ghcr.io"\n`;
  const test = `[[registry]]\nlocation = "doctor.invalid"\n[[registry.mirror]]\nlocation = "${ADDRESS}/doctor.invalid"\n`;
  const reason = `/etc/containers/registries.conf.d/99-own.conf does not name ${ADDRESS}/quay.io first`;
  const [some] = await look("podman", { ...own, "/etc/containers/registries.conf": other }, []);
  assert.deepEqual(some, { link: "podman configuration", status: "ok", message: `podman pulls through dfdaemon: ghcr.io; past it quay.io: ${reason}` });
  const [none] = await look("podman", { ...own, "/etc/containers/registries.conf": test }, []);
  assert.deepEqual(none, {
    link: "podman configuration", status: "broken",
    message: `podman pulls nothing but the doctor's own image through dfdaemon: ${reason}; run: dfdaemon setup --engine podman`,
  });
});

test("a pull that dfdaemon did not hear of is broken, one that it did is well", async () => {
  program("skopeo", "exit 0");
  const past = await look("podman", PODMAN, ["quay.io/team/app:v1"], false);
  assert.match(`${past[1]?.status}: ${past[1]?.message}`, /^broken: skopeo pulled quay\.io\/team\/app:v1, but not through dfdaemon; see which registries are mirrored/);
  assert.deepEqual(await look("podman", PODMAN, ["quay.io/team/app:v1", "quay.io/b"]), [
    { link: "podman configuration", status: "ok", message: "podman pulls through dfdaemon: quay.io" },
    { link: "podman pull", status: "ok", message: "skopeo pulled quay.io/team/app:v1" },
    { link: "podman pull", status: "ok", message: "skopeo pulled quay.io/b" },
  ]);
  const target = /^copy --quiet docker:\/\/quay\.io\/b dir:(\S+)$/m.exec(callsOf("skopeo"))?.[1] ?? "";
  assert.ok(target !== "" && !existsSync(target), `${target} was left behind`);
});

test("without skopeo podman pulls, and with neither of them nothing is said of a pull", async () => {
  program("podman", "exit 0");
  assert.match((await look("podman", PODMAN, ["quay.io/b"]))[1]?.message ?? "", /^podman pulled quay\.io\/b$/);
  assert.equal(callsOf("podman"), "pull --quiet quay.io/b\n", "an image of the user's is not removed");
  rmSync(join(programs, "podman"));
  assert.deepEqual((await look("podman", PODMAN, ["quay.io/b"]))[1], {
    link: "podman pull", status: "skipped", message: "no client of podman is here, or podman does not run",
  });
});

test("ctr fetches into a namespace of the doctor's own, by the files that containerd reads, and leaves nothing in it", async () => {
  program("ctr", "exit 0");
  assert.equal((await look("containerd", CONTAINERD, ["quay.io/b"]))[1]?.status, "ok");
  const ctr = "--address /run/containerd/containerd.sock --namespace dragonfly-doctor";
  assert.equal(callsOf("ctr"), [`${ctr} content fetch --hosts-dir /etc/containerd/certs.d quay.io/b`, `${ctr} images rm --sync quay.io/b`, `${ctr} namespaces rm dragonfly-doctor`, ""].join("\n"));
  const { "/run/containerd/containerd.sock": _socket, ...stopped } = CONTAINERD;
  assert.match((await look("containerd", stopped, ["quay.io/b"]))[1]?.message ?? "", /^no client of containerd is here, or containerd does not run$/);
});

test("an engine that mirrors named registries only is given an image of theirs, or none", async () => {
  assert.deepEqual((await look("docker", DOCKER, []))[1], {
    link: "docker pull", status: "skipped", message: "docker has no way to the test image: name one with --image",
  });
});
