/** Each link of the doctor's chain, broken in turn, is named with what to do. Whole chains: test/e2e/doctor.test.ts. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { createServer, type RequestListener } from "node:http";
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from "node:net";
import { after, test } from "node:test";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { filesOf } from "../../engines/machine-fixture.test.ts";
import { PLAIN_NETWORK } from "../../origin/origin-clients.ts";
import type { TlsConfig } from "../../peer/config.ts";
import { startSupernode } from "../../supernode/supernode.ts";
import { pino } from "pino";
import { checkDaemon, checkDisk, checkSocket } from "./daemon-links.ts";
import { checkEngine } from "./engine-links.ts";
import type { Finding } from "./finding.ts";
import { siteTls } from "../site-tls.ts";
import { checkSupernode, type SupernodeQuestion } from "./supernode-links.ts";
import { checkRegistration, checkSwarm } from "./swarm-link.ts";

const directory = mkdtempSync(join(tmpdir(), "doctor-"));
const servers: Server[] = [];
after(() => {
  for (const server of servers) server.close();
  rmSync(directory, { recursive: true });
});

async function listening(server: Server, path?: string): Promise<{ readonly host: string; readonly port: number }> {
  servers.push(server);
  await new Promise<void>((resolve) => (path === undefined ? server.listen(0, "127.0.0.1", resolve) : server.listen(path, resolve)));
  return { host: "127.0.0.1", port: path === undefined ? (server.address() as AddressInfo).port : 0 };
}

function http(answer: RequestListener): Server {
  return createServer((request, response) => {
    response.setHeader("connection", "close");
    answer(request, response);
  });
}

async function closedPort(): Promise<{ readonly host: string; readonly port: number }> {
  const server = createTcpServer();
  const address = await listening(server);
  await new Promise((resolve) => server.close(resolve));
  return address;
}

function isBroken(finding: Finding | undefined, link: string, message: RegExp): void {
  assert.equal(finding?.status, "broken", finding?.message);
  assert.equal(finding?.link, link);
  assert.match(finding?.message ?? "", message);
}

test("dfdaemon that does not run, and one whose peer port is taken", async () => {
  const nobody = await closedPort();
  isBroken(await checkDaemon(nobody, nobody.port, "1"), "dfdaemon", /not running: nobody listens on 127\.0\.0\.1:\d+; start it: systemctl start dfdaemon/);
  const other = await listening(createTcpServer());
  isBroken(await checkDaemon(nobody, other.port, "1"), "dfdaemon", new RegExp(`its peer port ${other.port} is taken by .* \\(pid ${process.pid}\\); stop that program`));
});

test("a mirror port that is taken by another program, of HTTP or not", async () => {
  const web = await listening(http((_request, response) => response.end("<html>")));
  isBroken(await checkDaemon(web, 1, "1"), "dfdaemon", new RegExp(`is taken by .* \\(pid ${process.pid}\\), which is no dfdaemon; stop that program, or choose another port`));
  const mail = await listening(createTcpServer((socket) => socket.on("error", () => undefined).end("220 mail\r\n")));
  isBroken(await checkDaemon(mail, 1, "1"), "dfdaemon", /which is no dfdaemon/);
  const refusing = await listening(http((_request, response) => response.writeHead(401).end('{"version":"1"}')));
  isBroken(await checkDaemon(refusing, 1, "1"), "dfdaemon", /which is no dfdaemon/);
});

test("who takes the connection and says nothing is told from who is not there", async () => {
  const open: Socket[] = [];
  const silent = await listening(createTcpServer((socket) => open.push(socket)));
  const [daemon, [reached]] = await Promise.all([
    checkDaemon(silent, 1, "1"),
    checkSupernode({ supernode: { ...silent, weight: 1 }, version: "1", token: { value: "t" }, unixMs: Date.now }),
  ]);
  isBroken(daemon, "dfdaemon", new RegExp(`does not answer: no answer within 3 s; see .* \\(pid ${process.pid}\\) and its log`));
  isBroken(reached, "supernode", /cannot be reached: no answer within 3 s; check the network and firewalls between the two/);
  for (const socket of open) socket.destroy();
});

test("a dfdaemon of another version", async () => {
  const old = await listening(http((_request, response) => response.end('{"version":"0.0.9"}')));
  isBroken(await checkDaemon(old, 1, "0.1.0"), "dfdaemon", /dfdaemon 0\.0\.9 is running, and 0\.1\.0 is installed; restart it/);
  assert.equal((await checkDaemon(old, 1, "0.0.9")).status, "ok");
});

test("a socket that is not there, and one of another protocol", async () => {
  isBroken(await checkSocket(join(directory, "none.sock")), "socket", /there is no such socket; restart dfdaemon, with this --socket/);
  const path = join(directory, "old.sock");
  const old = http((_request, response) => response.end('{"protocol":"dragonfly-local/0"}'));
  await listening(old, path);
  isBroken(await checkSocket(path), "socket", /does not speak dragonfly-local\/1; restart dfdaemon/);
});

test("a socket whose dfdaemon is gone", async () => {
  const dead = join(directory, "dead.sock");
  spawnSync(process.execPath, ["-e", `require("net").createServer().listen(${JSON.stringify(dead)}, () => process.kill(process.pid, "SIGKILL"))`]);
  isBroken(await checkSocket(dead), "socket", /no dfdaemon at .*dead\.sock: nobody listens; restart dfdaemon, with this --socket/);
});

test("a disk that is not there, and one without the space that is to be left", () => {
  isBroken(checkDisk(join(directory, "none"), 0), "disk", /is not there; start dfdaemon once/);
  const data = join(directory, "data");
  mkdirSync(data);
  assert.equal(checkDisk(data, 0).status, "ok");
  isBroken(checkDisk(data, 2 ** 60), "disk", /are reserved \(reservedFree\): pieces are not kept; free some space/);
  writeFileSync(join(directory, "a-file"), "");
  isBroken(checkDisk(join(directory, "a-file"), 0), "disk", /cannot write in .*a-file: ENOTDIR.*; mend the disk, or move it with --data-dir/);
  assert.deepEqual(readdirSync(data), []);
});

async function supernode(token: string | undefined, tls?: TlsConfig): Promise<{ readonly host: string; readonly port: number; readonly close: () => Promise<void> }> {
  const started = await startSupernode(
    {
      version: "1",
      listen: { host: "127.0.0.1", port: 0 },
      advertiseHost: undefined,
      joinToken: token === undefined ? { kind: "none" } : { kind: "given", token },
      tls,
      network: PLAIN_NETWORK,
      grants: { grantMs: 300_000, outageGrantMs: 0 },
      cache: { dataDirectory: mkdtempSync(join(directory, "supernode-")), quotaBytes: undefined, reservedFreeBytes: 0, scrubBytesPerSecond: 0 },
      originBudgets: [],
      networkLabels: [], keepers: [],
      limits: { downloadBytesPerSecond: undefined, uploadBytesPerSecond: undefined, originBytesPerSecond: undefined },
      freshness: { revalidateMs: 1_000, staleMs: undefined, staleTagMs: undefined },
      leasePeerCountMax: 3,
      leaseBelowBytesPerSecond: undefined,
      labels: {},
      logLevel: "silent",
    },
    { log: pino({ level: "silent" }) },
  );
  return { ...started.address, close: () => started.close() };
}

test("a supernode that is well; a wrong token, none, and a clock that is off", async () => {
  const { close, ...address } = await supernode("right-token-0123456789");
  try {
    const look = (token: string | undefined, aheadMs = 0): Promise<readonly Finding[]> =>
      checkSupernode({ supernode: { ...address, weight: 1 }, version: "1", token: { value: token }, unixMs: () => Date.now() + aheadMs });
    const well = await look("right-token-0123456789");
    assert.deepEqual(well.map(({ link, status }) => [link, status]), [["supernode", "ok"], ["clock", "ok"], ["token", "ok"]]);
    isBroken((await look("wrong-token-0123456789"))[2], "token", /refuses this host's join token; copy the file join-token from the supernode's data folder/);
    isBroken((await look(undefined))[2], "token", /this host has no join token, and the supernode wants one/);
    isBroken((await look("right-token-0123456789", 3_600_000))[1], "clock", /clock is 3[56]\d\d s ahead of .*; set both clocks/);
    isBroken((await look("right-token-0123456789", -3_600_000))[1], "clock", /clock is 3[56]\d\d s behind/);
    for (const [aheadSeconds, status] of [[290, "ok"], [-290, "ok"], [310, "broken"], [-310, "broken"]] as const) {
      assert.equal((await look("right-token-0123456789", aheadSeconds * 1000))[1]?.status, status, `${aheadSeconds} s`);
    }
  } finally {
    await close();
  }
});

test("TLS: the chain is well, another authority, only one side speaks it, files that are not there", async () => {
  const right = "right-token-0123456789-0123456789";
  const encrypted = await supernode(right, { kind: "token" });
  const plain = await supernode(right);
  try {
    const look = async (tls: SupernodeQuestion["tls"], { host, port } = encrypted): Promise<readonly Finding[]> =>
      checkSupernode({ supernode: { host, port, weight: 1 }, version: "1", token: { value: right }, tls, unixMs: Date.now });
    const own = siteTls({ kind: "token" }, right);
    const well = await look(own);
    assert.deepEqual(well.map(({ link, status }) => [link, status]), [["supernode", "ok"], ["clock", "ok"], ["token", "ok"]]);
    assert.match(well[0]?.message ?? "", /over TLS; this host's certificate holds until 20/);
    isBroken((await look(siteTls({ kind: "token" }, right.toUpperCase())))[0], "supernode", /is not of this site's authority .*; all programs of a site need the same tls setting/);
    isBroken((await look(undefined))[0], "supernode", /speaks TLS, and this program does not/);
    isBroken((await look(own, plain))[0], "supernode", /does not speak TLS, and this program does/);
    isBroken((await look({ problem: "cannot read /x" }))[0], "supernode", /this host's TLS cannot be used: cannot read \/x; see tls, tlsCa/);
  } finally {
    await encrypted.close();
    await plain.close();
  }
});

test("a supernode that wants no token", async () => {
  const { close, ...address } = await supernode(undefined);
  try {
    const found = await checkSupernode({ supernode: { ...address, weight: 1 }, version: "1", token: { value: undefined }, unixMs: Date.now });
    assert.match(`${found[2]?.status} ${found[2]?.message}`, /^ok 127\.0\.0\.1:\d+ takes peers without a join token$/);
  } finally {
    await close();
  }
});

test("a supernode of another version, and what only says that it is ready", async () => {
  const ready: RequestListener = (_request, response) => response.end('{"status":"ready"}');
  const look = async (place: { readonly host: string; readonly port: number }): Promise<readonly Finding[]> =>
    checkSupernode({ supernode: { ...place, weight: 1 }, version: "1", token: { value: "t" }, unixMs: Date.now });
  const newer = http(ready).on("upgrade", (_request, socket) => {
    socket.on("error", () => undefined).write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    const challenge = Buffer.from(JSON.stringify({ type: "challenge", version: 99, nonce: "A".repeat(22) }));
    const length = Buffer.alloc(4);
    length.writeUInt32BE(challenge.length);
    socket.write(Buffer.concat([length, challenge]));
  });
  isBroken((await look(await listening(newer)))[2], "token", /speaks protocol 99, not 1; install the same version on both/);
  isBroken((await look(await listening(http(ready))))[2], "token", /answered 200; is it a supernode of this version\?; check what listens there/);
  const undated = http((request, response) => {
    response.sendDate = false;
    ready(request, response);
  });
  assert.match((await look(await listening(undated)))[1]?.message ?? "", /did not say what time it is/);
});

test("a token file that cannot be read", async () => {
  const ready = await listening(http((_request, response) => response.end('{"status":"ready"}')));
  const question = { supernode: { ...ready, weight: 1 }, version: "1", token: { problem: "cannot read a join token from /x" }, unixMs: Date.now };
  isBroken((await checkSupernode(question))[2], "token", /cannot read a join token from \/x; give --join-token-file/);
});

test("a supernode that is not there, not ready, or something else", async () => {
  const look = async (place: { readonly host: string; readonly port: number }): Promise<readonly Finding[]> =>
    checkSupernode({ supernode: { ...place, weight: 1 }, version: "1", token: { value: "t" }, unixMs: Date.now });
  const [gone, clock, token] = await look(await closedPort());
  isBroken(gone, "supernode", /cannot be reached: nobody listens there; start the supernode, or check --supernode/);
  assert.deepEqual([clock?.status, token?.status], ["skipped", "skipped"]);
  isBroken((await look({ host: "no-such-host.invalid", port: 1 }))[0], "supernode", /cannot be reached: (?:there is no such host|its name cannot be looked up); check/);
  isBroken((await look(await listening(http((_request, response) => response.writeHead(503).end()))))[0], "supernode", /starting or shutting down/);
  isBroken((await look(await listening(http((_request, response) => response.end("hello")))))[0], "supernode", /is no supernode/);
  const mail = createTcpServer((socket) => socket.on("error", () => undefined).end("220 mail\r\n"));
  isBroken((await look(await listening(mail)))[0], "supernode", /cannot be reached: what listens there does not speak HTTP; check --supernode/);
});

test("a dfdaemon that no supernode knows", async () => {
  isBroken(await checkRegistration(await listening(http((_request, response) => response.writeHead(503).end()))), "registration", /not registered at a supernode/);
});

test("an upstream that refuses, a swarm that is passed by, a cache that keeps nothing, a wrong byte", async () => {
  const layer = Buffer.from("layer");
  const digest = `sha256:${createHash("sha256").update(layer).digest("hex")}`;
  const manifest = JSON.stringify({ layers: [{ digest }] });
  const mirror = (blob: (asked: number) => { readonly status?: number; readonly headers?: Record<string, string>; readonly body?: Buffer }, manifestStatus = 200): Promise<{ readonly host: string; readonly port: number }> => {
    let asked = 0;
    return listening(
      http((request, response) => {
        if (request.url?.includes("/manifests/") === true) return response.writeHead(manifestStatus).end(manifestStatus === 200 ? manifest : "no such thing");
        const { status = 200, headers = {}, body = layer } = blob(asked++);
        return response.writeHead(status, headers).end(body);
      }),
    );
  };
  const task = { "x-dragonfly-task-id": "a" };
  isBroken((await checkSwarm(await mirror(() => ({}), 502)))[0], "swarm", /upstream refuses the manifest of the test image: 502 no such thing/);
  isBroken((await checkSwarm(await closedPort()))[0], "swarm", /upstream refuses the manifest of the test image: .*ECONNREFUSED/);
  isBroken((await checkSwarm(await mirror(() => ({ status: 403 }))))[0], "swarm", /upstream refuses the layer/);
  isBroken((await checkSwarm(await mirror(() => ({}))))[0], "swarm", /came from its origin, past the swarm/);
  isBroken((await checkSwarm(await mirror(() => ({ headers: task, body: Buffer.from("other") }))))[0], "swarm", /not the one of its digest/);
  const unkept = await checkSwarm(await mirror(() => ({ headers: { ...task, "x-dragonfly-sources": "cache=0, seed=5, peers=0, origin=0" } })));
  isBroken(unkept[1], "cache", /not kept in this host's cache; check disk space/);
  const kept = await checkSwarm(await mirror((asked) => ({ headers: { ...task, "x-dragonfly-sources": `cache=${asked * 5}, seed=0, peers=0, origin=0` } })));
  assert.deepEqual(kept.map(({ status }) => status), ["ok", "ok"]);
});

test("an engine that is not set up, whose files are broken, or that has nothing to pull with", async () => {
  const mirror = { host: "127.0.0.1", port: 65_001 };
  const look = (engine: "containerd" | "docker" | "podman", texts: Readonly<Record<string, string>>): Promise<readonly Finding[]> =>
    checkEngine({ engine, files: filesOf(texts), mirror, address: "127.0.0.1:65001", images: [], noPull: "not now" });
  isBroken((await look("containerd", {}))[0], "containerd configuration", /no config_path in .*; run: dfdaemon setup --engine containerd/);
  isBroken((await look("docker", { "/etc/docker/daemon.json": "{ broken" }))[0], "docker configuration", /daemon\.json:1: .*mend the file first; then run: dfdaemon setup --engine docker/);
  const mirrored = '[[registry]]\nprefix = "quay.io"\nlocation = "quay.io"\n[[registry.mirror]]\nlocation = "127.0.0.1:65001/quay.io"\n';
  assert.deepEqual(await look("podman", { "/etc/containers/registries.conf": mirrored }), [
    { link: "podman configuration", status: "ok", message: "podman pulls through dfdaemon: quay.io" },
    { link: "podman pull", status: "skipped", message: "not now" },
  ]);
});
