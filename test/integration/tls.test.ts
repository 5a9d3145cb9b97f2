/** A site over TLS: supernode and peers as they are, with keys from the token and with files. */
import assert from "node:assert/strict";
import { generateKeyPairSync, randomBytes, X509Certificate } from "node:crypto";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { connect as connectByTls, createServer as createTlsServer } from "node:tls";
import { setTimeout as sleep } from "node:timers/promises";
import { pino } from "pino";
import { HttpOrigin } from "../../src/origin/http-origin.ts";
import type { TlsConfig } from "../../src/peer/config.ts";
import { openControlSession } from "../../src/peer/control/control-session.ts";
import { authorityCertificate, issuerOf, memberCertificate } from "../../src/peer/membership/certificate.ts";
import { generateJoinToken, generatePeerId } from "../../src/peer/membership/credentials.ts";
import { SiteTls } from "../../src/peer/membership/site-tls.ts";
import { PeerNode } from "../../src/peer/peer-node.ts";
import { startSupernode } from "../../src/supernode/supernode.ts";
import { readWhole } from "../lib/read-whole.ts";
import { cacheIn, NO_LIMITS, supernodeConfig } from "./lib/supernode-config.ts";

const log = pino({ level: process.env["TEST_LOG"] ?? "silent" });
const DAY_MS = 24 * 60 * 60_000;
const FILE_BYTES = 3 * 1024 * 1024 + 17;
const token = generateJoinToken();

const endings = new WeakMap<TestContext, (() => Promise<void> | void)[]>();

/** The last opened is the first that is closed. */
function atEnd(t: TestContext, close: () => Promise<void> | void): void {
  const closers = endings.get(t) ?? [];
  if (!endings.has(t)) {
    endings.set(t, closers);
    t.after(async () => {
      // oxlint-disable-next-line no-await-in-loop -- the order is the point
      for (const each of closers.toReversed()) await each();
    });
  }
  closers.push(close);
}

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "dragonfly-tls-"));
  atEnd(t, () => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function listening(t: TestContext, server: ReturnType<typeof createTcpServer>): Promise<number> {
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  atEnd(t, () => void server.close());
  return (server.address() as AddressInfo).port;
}

interface Lines {
  readonly lines: string[];
  readonly log: typeof log;
}

/** A log that is kept. */
function kept(): Lines {
  const lines: string[] = [];
  return { lines, log: pino({ level: "debug" }, { write: (line: string) => void lines.push(line) }) };
}

async function startSeed(t: TestContext, tls: TlsConfig | undefined, seedLog = log): Promise<number> {
  const config = supernodeConfig(directory(t), { joinToken: { kind: "given", token }, tls, leasePeerCountMax: 2 });
  const supernode = await startSupernode(config, { log: seedLog });
  atEnd(t, () => supernode.close());
  return supernode.address.port;
}

async function startNode(t: TestContext, port: number, config: TlsConfig | undefined, joinToken = token): Promise<PeerNode> {
  const tls = config === undefined ? undefined : new SiteTls({ config, token: joinToken, log });
  const origin = new HttpOrigin();
  const node = await PeerNode.start(
    {
      program: "dfdaemon",
      version: "0",
      supernodes: [{ host: "127.0.0.1", port, weight: 1 }],
      joinToken,
      peerListen: { host: "127.0.0.1", port: 0 },
      advertiseHost: "127.0.0.1",
      cache: cacheIn(directory(t)),
      limits: NO_LIMITS,
      labels: {},
    },
    { origin, tls, log },
  );
  atEnd(t, async () => {
    await node.close();
    tls?.close();
    await origin.close();
  });
  return node;
}

async function startOrigin(t: TestContext, content: Buffer): Promise<string> {
  const web = createServer((request, response) => {
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const [start, end] = [Number(range?.[1] ?? 0), Number(range?.[2] || content.length - 1)];
    response.writeHead(range === null ? 200 : 206, {
      etag: '"1"',
      "accept-ranges": "bytes",
      "content-length": end - start + 1,
      ...(range === null ? {} : { "content-range": `bytes ${start}-${end}/${content.length}` }),
    });
    response.end(request.method === "HEAD" ? undefined : content.subarray(start, end + 1));
  });
  atEnd(t, () => web.closeAllConnections());
  return `http://127.0.0.1:${await listening(t, web)}/file`;
}

function pull(node: PeerNode, url: string): Promise<Buffer> {
  return readWhole(node, { source: { url, headers: {} }, backToSource: false }, AbortSignal.timeout(20_000));
}

/** An authority of an operator's own, and certificates by it. */
function makeAuthority(name: string) {
  const keys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const lifetime = { fromMs: Date.now() - 400 * DAY_MS, untilMs: Date.now() + 400 * DAY_MS };
  const ca = authorityCertificate(name, keys, lifetime);
  const issuer = issuerOf(new X509Certificate(ca).raw, keys.privateKey);
  return {
    ca,
    member: (names: readonly [string, ...string[]], untilMs = Date.now() + DAY_MS) => {
      const own = generateKeyPairSync("ec", { namedCurve: "P-256" });
      const cert = memberCertificate(issuer, names, own.publicKey, { fromMs: untilMs - 30 * DAY_MS, untilMs });
      return { cert, key: own.privateKey.export({ type: "pkcs8", format: "pem" }).toString() };
    },
  };
}

type Authority = ReturnType<typeof makeAuthority>;

function filesOf(folder: string, ca: string, { cert, key }: { readonly cert: string; readonly key: string }): Extract<TlsConfig, { kind: "files" }> {
  const config = { kind: "files", caFile: join(folder, "ca.pem"), certFile: join(folder, "cert.pem"), keyFile: join(folder, "key.pem") } as const;
  for (const [file, text] of [[config.caFile, ca], [config.certFile, cert], [config.keyFile, key]] as const) {
    // As tools do it: whole, under another name first.
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  }
  return config;
}

function memberFiles(t: TestContext, authority: Authority, name = "host.test"): Extract<TlsConfig, { kind: "files" }> {
  return filesOf(directory(t), authority.ca, authority.member([name]));
}

/** Registers once, or says why not. */
function register(port: number, tls: SiteTls | undefined): Promise<void> {
  return openControlSession({
    supernode: { host: "127.0.0.1", port },
    token,
    tls,
    peerId: generatePeerId("test"),
    host: { address: "", port: 0, name: "h", program: "dfget", version: "0", labels: {} },
    reachMs: 5_000,
    answerMs: 5_000,
    signal: new AbortController().signal,
    onOpen: (session) => session.close(),
    onMessage: () => undefined,
    onEnd: () => undefined,
  });
}

function open(t: TestContext, config: TlsConfig, options: { readonly unixMs?: () => number; readonly lookMs?: number } = {}): SiteTls {
  const tls = new SiteTls({ config, token, log, ...options });
  atEnd(t, () => tls.close());
  return tls;
}

for (const kind of ["token", "files"] as const) {
  test(`with ${kind === "token" ? "keys from the token" : "files"} a file goes from the supernode to one peer, and to the next`, { timeout: 60_000 }, async (t) => {
    const authority = makeAuthority("a site");
    const config = (): TlsConfig => (kind === "token" ? { kind } : memberFiles(t, authority));
    const content = randomBytes(FILE_BYTES);
    const url = await startOrigin(t, content);
    const port = await startSeed(t, config());
    for (let count = 0; count < 2; count++) {
      // oxlint-disable-next-line no-await-in-loop -- the second one comes when the first has it
      const node = await startNode(t, port, config());
      // oxlint-disable-next-line no-await-in-loop -- the same
      assert.ok((await pull(node, url)).equals(content));
    }
  });
}

test("who listens on the wire reads nothing", { timeout: 60_000 }, async (t) => {
  const seen = { plain: "", tls: "" };
  for (const mode of ["plain", "tls"] as const) {
    const config: TlsConfig | undefined = mode === "tls" ? { kind: "token" } : undefined;
    // oxlint-disable-next-line no-await-in-loop -- one site after the other
    const port = await startSeed(t, config);
    const tap = createTcpServer((peer) => {
      const supernode = connect(port, "127.0.0.1");
      const copy = (from: Socket, to: Socket): void => {
        from.on("data", (bytes) => ((seen[mode] += bytes.toString("latin1")), to.write(bytes))).on("error", () => to.destroy()).on("end", () => to.end());
      };
      copy(peer, supernode);
      copy(supernode, peer);
    });
    // oxlint-disable-next-line no-await-in-loop -- the same
    await register(await listening(t, tap), config === undefined ? undefined : open(t, config));
  }
  assert.match(seen.plain, /dragonfly-control.*register/s);
  assert.ok(seen.tls.length > 1000);
  assert.doesNotMatch(seen.tls, /dragonfly-control|register|challenge/);
});

test("a certificate of another authority is refused, on either side, and it is said why", { timeout: 60_000 }, async (t) => {
  const [ours, theirs] = [makeAuthority("ours"), makeAuthority("theirs")];
  const { lines, log: seedLog } = kept();
  const port = await startSeed(t, memberFiles(t, ours), seedLog);
  await assert.rejects(register(port, open(t, memberFiles(t, theirs))), { code: "TLS_FAILED", message: /not of this site's authority/ });
  // It trusts us, and we do not trust it.
  const halfway = filesOf(directory(t), ours.ca, theirs.member(["host.test"]));
  await assert.rejects(register(port, open(t, halfway)), { code: "TLS_FAILED", message: /refuses this host's TLS certificate: it is not of that site's authority/ });
  await until(() => lines.some((line) => line.includes("refused a peer: its TLS certificate")));
  await assert.rejects(register(port, open(t, { kind: "token" })), { code: "TLS_FAILED" });
});

test("another join token is another authority", { timeout: 60_000 }, async (t) => {
  const port = await startSeed(t, { kind: "token" });
  const other = new SiteTls({ config: { kind: "token" }, token: generateJoinToken(), log });
  atEnd(t, () => other.close());
  await assert.rejects(register(port, other), { code: "TLS_FAILED", message: /need the same join token/ });
});

test("an expired certificate is refused at the start, and by who meets it later", { timeout: 60_000 }, async (t) => {
  const authority = makeAuthority("a site");
  const old = filesOf(directory(t), authority.ca, authority.member(["host.test"], Date.now() - DAY_MS));
  assert.throws(() => open(t, old), { code: "CONFIG_INVALID", message: /expired on/ });
  // One that was started while it held.
  const unixMs = (): number => Date.now() - 2 * DAY_MS;
  const server = open(t, old, { unixMs }).createServer();
  const port = await listening(t, server);
  await assert.rejects(register(port, open(t, memberFiles(t, authority))), { code: "TLS_FAILED", message: /it has expired/ });
  const seed = await startSeed(t, memberFiles(t, authority));
  await assert.rejects(register(seed, open(t, old, { unixMs })), { code: "TLS_FAILED", message: /refuses this host's TLS certificate: it has expired/ });
});

test("with files a supernode's certificate has to name it, on other machines", (t) => {
  const authority = makeAuthority("a site");
  const tls = open(t, memberFiles(t, authority));
  assert.equal(tls.toSupernode("supernode.example").checkServerIdentity, undefined);
  assert.notEqual(tls.toSupernode("127.0.0.1").checkServerIdentity, undefined);
});

test("plain and TLS do not mix, and each side says what the matter is", { timeout: 60_000 }, async (t) => {
  const { lines, log: seedLog } = kept();
  const tlsPort = await startSeed(t, { kind: "token" }, seedLog);
  await assert.rejects(register(tlsPort, undefined), { code: "TLS_FAILED", message: /speaks TLS, and this program does not/ });
  await until(() => lines.some((line) => line.includes("somebody speaks plain HTTP to this port")));
  const answer = await fetch(`http://127.0.0.1:${tlsPort}/v1/peers`);
  assert.equal(answer.status, 426);
  assert.match(await answer.text(), /speaks TLS/);

  const plainPort = await startSeed(t, undefined);
  await assert.rejects(register(plainPort, open(t, { kind: "token" })), { code: "TLS_FAILED", message: /does not speak TLS, and this program does/ });
  // What waits for a supernode is told the reason, too.
  const node = await startNode(t, plainPort, { kind: "token" });
  await assert.rejects(pull(node, "http://127.0.0.1:1/file"), (error: Error) => /does not speak TLS/.test(error.message));
});

test("who has a certificate of the site stands between two others in vain: their proof is of another connection", { timeout: 60_000 }, async (t) => {
  const authority = makeAuthority("a site");
  const port = await startSeed(t, memberFiles(t, authority));
  const between = open(t, memberFiles(t, authority));
  const relay = createTlsServer({ ...between.serverOptions() }, (peer) => {
    const supernode = connectByTls({ host: "127.0.0.1", port, ...between.toPeer() });
    peer.on("error", () => supernode.destroy()).pipe(supernode);
    supernode.on("error", () => peer.destroy()).pipe(peer);
  });
  const relayPort = await listening(t, relay);
  await assert.rejects(register(relayPort, open(t, memberFiles(t, authority))), { code: "TOKEN_REFUSED" });
  await register(port, open(t, memberFiles(t, authority)));
});

test("new files are taken without a restart, also those of a new authority, and half of them are not", { timeout: 60_000 }, async (t) => {
  const [before, after] = [makeAuthority("before"), makeAuthority("after")];
  const folder = directory(t);
  const { lines, log: tlsLog } = kept();
  const config = filesOf(folder, before.ca, before.member(["host.test"]));
  const tls = new SiteTls({ config, token, log: tlsLog, lookMs: 20 });
  atEnd(t, () => tls.close());
  const port = await listening(t, tls.createServer());
  const issuerSeen = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connectByTls({ host: "127.0.0.1", port, ca: [before.ca, after.ca], checkServerIdentity: () => undefined });
      socket.on("error", reject).on("secureConnect", () => {
        resolve(String(socket.getPeerCertificate().issuer.CN));
        socket.destroy();
      });
    });
  assert.equal(await issuerSeen(), "before");
  // Both authorities first, then the certificate; its key comes a little later.
  const { cert, key } = after.member(["host.test"]);
  writeFileSync(config.caFile, before.ca + after.ca);
  writeFileSync(config.certFile, cert);
  await until(() => lines.some((line) => line.includes("are not taken")));
  assert.equal(await issuerSeen(), "before");
  writeFileSync(config.keyFile, key);
  await until(() => lines.some((line) => line.includes("a new TLS certificate is in use")));
  assert.equal(await issuerSeen(), "after");
  assert.equal(lines.filter((line) => line.includes("are not taken")).length, 1);
});

test("a short join token makes no keys, and none neither", () => {
  for (const weak of ["hunter2", undefined]) {
    assert.throws(() => new SiteTls({ config: { kind: "token" }, token: weak, log }), { code: "CONFIG_INVALID", message: /join token/ });
  }
});

async function until(condition: () => boolean): Promise<void> {
  for (const endMs = performance.now() + 30_000; !condition(); ) {
    assert.ok(performance.now() < endMs, "it did not come to pass");
    // oxlint-disable-next-line no-await-in-loop -- that is what waiting is
    await sleep(10);
  }
}
