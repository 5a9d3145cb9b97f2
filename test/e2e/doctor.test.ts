/** `dfdaemon doctor` on a host whose links are broken in turn. The engines' links: setup.test.ts. */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { join } from "node:path";
import { test } from "node:test";

import { type Dfdaemon, startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { freePort } from "../lib/ports.ts";
import { type Finished, Lab, waitFor } from "./lib/processes.ts";

const DFDAEMON = join(import.meta.dirname, "../../bin/dfdaemon");
const ENGINES = /^(?:containerd|docker|cri-o|podman) /;

interface Finding {
  readonly link: string;
  readonly status: string;
  readonly message: string;
}

/** What is broken between dfdaemon and the supernode, by link; the machine's own engines are not looked at. */
function brokenOf(doctor: Finished): Readonly<Record<string, string>> {
  const { findings } = JSON.parse(doctor.stdout) as { readonly findings: readonly Finding[] };
  const broken = findings.filter(({ link, status }) => status === "broken" && !ENGINES.test(link));
  return Object.fromEntries(broken.map(({ link, message }) => [link, message]));
}

void test("each broken link is named, and with all of them whole the test image comes through the swarm", async () => {
  const lab = new Lab("doctor");
  await lab.use(async () => {
    const supernode = await Supernode.start(lab, "127.0.0.1");
    const daemon = await startLoopbackDaemon(lab, "dfdaemon", supernode);
    const mirror = daemon.mirror.replace("http://", "");
    const flags = (given: Partial<Readonly<Record<string, string>>> = {}): readonly string[] => {
      const settings: Record<string, string | undefined> = {
        "--listen": mirror, "--peer-listen": `127.0.0.1:${daemon.peer.port}`, "--socket": daemon.socket, "--data-dir": daemon.dataDir,
        "--supernode": supernode.listen, "--join-token-file": supernode.tokenFile, ...given,
      };
      return ["doctor", "--json", "--engine", "podman", ...Object.entries(settings).flatMap(([flag, value]) => [flag, value ?? ""])];
    };
    const examine = async (given?: Partial<Readonly<Record<string, string>>>, wrap: readonly string[] = []): Promise<Readonly<Record<string, string>>> =>
      brokenOf(await lab.run([...wrap, DFDAEMON, ...flags(given)]));

    assert.deepEqual(await examine(), {});

    const token = lab.writeFile("wrong-token", "wrong-token-0123456789\n");
    assert.match((await examine({ "--join-token-file": token }))["token"] ?? "", /refuses this host's join token/);

    const socketOnly = await examine({}, ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups"]);
    assert.match(socketOnly["socket"] ?? "", /this user may not use .*; run dfget as root/);
    assert.equal(socketOnly["disk"], undefined, "what this user may not see is not broken");

    const small = lab.makeDir("small");
    const onDisk = (mount: string, fill: string): Promise<Finished> =>
      lab.run(["sh", "-ec", `${mount}; ${fill}; shift 0; exec "$@"`, "sh", DFDAEMON, ...flags({ "--data-dir": small })], { ownMounts: true });
    assert.match(brokenOf(await onDisk(`mount -t tmpfs -o size=1m tmpfs ${small}`, `dd if=/dev/zero of=${small}/x bs=4k 2>/dev/null || true`))["disk"] ?? "", /no space is left in/);
    assert.match(brokenOf(await onDisk(`mount -t tmpfs -o ro tmpfs ${small}`, "true"))["disk"] ?? "", /read-only file system/);

    const port = await freePort();
    const other = createServer((socket) => socket.on("error", () => undefined).end("220 not http\r\n"));
    await new Promise<void>((resolve) => other.listen(port, "127.0.0.1", resolve));
    lab.onClose(() => other.close());
    assert.match((await examine({ "--listen": `127.0.0.1:${port}` }))["dfdaemon"] ?? "", /is taken by .* \(pid \d+\), which is no dfdaemon/);

    await supernode.service.stop();
    const alone = await untilUnregistered(daemon, examine);
    assert.match(alone["supernode"] ?? "", /cannot be reached: nobody listens there; start the supernode/);
    assert.match(alone["registration"] ?? "", /not registered at a supernode/);

    await daemon.service.stop();
    const { dfdaemon, ...rest } = await examine();
    assert.match(dfdaemon ?? "", /dfdaemon is not running: nobody listens on .*; start it: systemctl start dfdaemon/);
    assert.deepEqual(Object.keys(rest), ["supernode"]);
  });
});

void test("a cache without room for the test image is found", async () => {
  const lab = new Lab("doctor-cache");
  await lab.use(async () => {
    const supernode = await Supernode.start(lab, "127.0.0.1");
    const daemon = await startLoopbackDaemon(lab, "dfdaemon", supernode, ["--reserved-free", "1000TiB"]);
    const doctor = await lab.run([
      DFDAEMON, "doctor", "--json", "--listen", daemon.mirror.replace("http://", ""), "--socket", daemon.socket, "--data-dir", daemon.dataDir,
      "--supernode", supernode.listen, "--join-token-file", supernode.tokenFile,
    ]);
    assert.equal(doctor.code, 1);
    const broken = brokenOf(doctor);
    assert.ok(broken["cache"] !== undefined || broken["swarm"] !== undefined, doctor.stdout);
  });
});

async function untilUnregistered(daemon: Dfdaemon, examine: () => Promise<Readonly<Record<string, string>>>): Promise<Readonly<Record<string, string>>> {
  let broken: Readonly<Record<string, string>> = {};
  await waitFor("dfdaemon has noticed", async () => (broken = await examine())["registration"] !== undefined, { services: [daemon.service] });
  return broken;
}
