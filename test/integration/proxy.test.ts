/** A real supernode and real dfdaemons in one process, before them curl, behind them a proxy and a TLS origin of a private authority. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import type { RequestListener } from "node:http";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { pino, type Logger } from "pino";
import type { DfdaemonConfig } from "../../src/dfdaemon/config.ts";
import { startDfdaemon, type Dfdaemon } from "../../src/dfdaemon/dfdaemon.ts";
import { curl, OriginAuthority, temporary, type CurlAnswer, type LabOrigin } from "../../src/dfdaemon/proxy/lab.test.ts";
import type { OriginNetwork } from "../../src/origin/origin-clients.ts";
import { serveProxy } from "../../src/origin/proxy-lab.test.ts";
import { startSupernode, type Supernode } from "../../src/supernode/supernode.ts";
import { cacheIn, NO_LIMITS, supernodeConfig } from "./lib/supernode-config.ts";

const FILE = randomBytes(3_000_000);
const BLOB = randomBytes(2_000_000);
const DIGEST = `sha256:${createHash("sha256").update(BLOB).digest("hex")}`;
const SECRET = "planted-s3cret";

interface Site {
  readonly origin: LabOrigin;
  /** `https://origin.test:port`, a name that only the proxy behind us can find. */
  readonly base: string;
  /** Bytes of bodies that left the origin, by path. */
  readonly sentBytes: Map<string, number>;
  /** What the proxy behind us was asked. */
  readonly asked: string[];
  readonly network: OriginNetwork;
  readonly supernode: Supernode;
  readonly daemon: (name: string, more?: Partial<DfdaemonConfig>) => Promise<{ readonly daemon: Dfdaemon; readonly directory: string; readonly get: (path: string, ...options: string[]) => Promise<CurlAnswer> }>;
  readonly lines: string[];
}

/** @param does the supernode trust the origin's authority? */
async function openSite(t: TestContext, { supernodeTrusts = true }: { readonly supernodeTrusts?: boolean } = {}): Promise<Site> {
  const authority = new OriginAuthority(t);
  const sentBytes = new Map<string, number>();
  const origin = await authority.serve(t, originOf(sentBytes));
  const behind = await serveProxy(t);
  const base = `https://origin.test:${origin.port}`;
  const server = { origin: base, caCertificates: [authority.pem], credentials: undefined };
  const proxies = { httpUrl: behind.url, httpsUrl: behind.url, except: "" };
  const network = { servers: [server], proxies };
  const lines: string[] = [];
  const log: Logger = pino({ level: "trace" }, { write: (line: string) => void lines.push(line) });
  const directory = temporary(t);
  const supernode = await startSupernode(
    supernodeConfig(directory, { network: supernodeTrusts ? network : { servers: [], proxies }, logLevel: "trace" }),
    { log },
  );
  t.after(() => supernode.close());
  const daemon: Site["daemon"] = async (name, more = {}) => {
    const own = temporary(t);
    const started = await startDfdaemon(
      {
        version: "1", listen: { host: "127.0.0.1", port: 0 }, peerListen: { host: "127.0.0.1", port: 0 }, advertiseHost: undefined,
        socketPath: join(own, "s"), supernodes: [{ ...supernode.address, weight: 1 }], joinToken: undefined,
        // So that what comes has come through the swarm.
        backToSource: false, registries: [], network, grants: { grantMs: 300_000, outageGrantMs: 0, tagMs: 0, staleTagMs: 0 },
        proxy: {
          clientNetworks: ["127.0.0.1"], credentials: { username: "me", password: SECRET }, interceptedHosts: [`origin.test:${origin.port}`],
          authorityDirectory: join(own, "proxy-ca"), swarmUrls: [`${base}/pool/**`],
        },
        cache: cacheIn(own), limits: NO_LIMITS, labels: { name }, logLevel: "trace",
        ...more,
      },
      { log },
    );
    t.after(() => started.close());
    const proxyUrl = `http://me:${SECRET}@127.0.0.1:${started.mirrorAddress.port}`;
    const get = (path: string, ...options: string[]): Promise<CurlAnswer> =>
      curl({ proxyUrl }, "--cacert", join(own, "proxy-ca/ca.pem"), ...options, `${base}${path}`);
    return { daemon: started, directory: own, get };
  };
  return { origin, base, sentBytes, asked: behind.asked, network, supernode, daemon, lines };
}

function originOf(sentBytes: Map<string, number>): RequestListener {
  return (request, response) => {
    const path = request.url?.split("?")[0] ?? "";
    const bytes = path === "/pool/file" ? FILE : path === `/v2/team/app/blobs/${DIGEST}` ? BLOB : undefined;
    if (bytes === undefined) return void response.writeHead(404).end("nothing here\n");
    if (request.headers.authorization !== `Bearer ${SECRET}`) return void response.writeHead(401, { "www-authenticate": "Basic realm=x" }).end("who?\n");
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    const part = from === undefined ? bytes : bytes.subarray(Number(from), to === "" || to === undefined ? undefined : Number(to) + 1);
    const headers: Record<string, string> = { "content-length": String(part.length), "accept-ranges": "bytes", etag: '"1"', "set-cookie": `c=${SECRET}` };
    if (from !== undefined) headers["content-range"] = `bytes ${from}-${Number(from) + part.length - 1}/${bytes.length}`;
    response.writeHead(from === undefined ? 200 : 206, headers);
    if (request.method === "HEAD") return void response.end();
    sentBytes.set(path, (sentBytes.get(path) ?? 0) + part.length);
    response.end(part);
  };
}

test("two hosts ask their proxies for the same file and layer: each leaves the origin once, by the supernode's own way", async (t) => {
  const site = await openSite(t);
  const [one, two] = [await site.daemon("one"), await site.daemon("two")];
  const bearer = ["-H", `Authorization: Bearer ${SECRET}`];
  for (const [path, bytes] of [[`/pool/file?sig=${SECRET}`, FILE], [`/v2/team/app/blobs/${DIGEST}`, BLOB]] as const) {
    for (const host of [one, two, one]) {
      const { text, stderr } = await host.get(path, ...bearer);
      assert.ok(text.endsWith(bytes.toString("latin1")), `${stderr} ${text.slice(0, 600)}`);
      assert.match(text, /\r\nx-dragonfly-task-id: [0-9a-f]{64}\r\n/i);
    }
    assert.equal(site.sentBytes.get(path.split("?")[0] ?? ""), bytes.length);
  }
  // The origin is behind another proxy, for all three.
  assert.ok(site.asked.length >= 2 && site.asked.every((line) => line.startsWith("CONNECT origin.test:")), site.asked.join("\n"));

  // Who has no right gets the origin's own refusal, on both hosts, though the bytes are there.
  for (const host of [one, two]) {
    assert.match((await host.get("/pool/file")).text, /HTTP\/1\.1 401 [^]*www-authenticate: Basic realm=x\r\n[^]*who\?\n$/i);
    assert.match((await host.get(`/v2/team/app/blobs/${DIGEST}`)).text, /HTTP\/1\.1 401 [^]*www-authenticate: Basic realm=x\r\n/i);
    assert.match((await host.get("/elsewhere", ...bearer)).text, /HTTP\/1\.1 404 [^]*nothing here\n$/);
  }

  // No log line and no file of anybody holds what was planted, nor the authority's key.
  const key = readFileSync(join(one.directory, "proxy-ca/ca-key.pem"), "utf8").split("\n")[1] ?? assert.fail();
  const planted = [SECRET, btoa(`me:${SECRET}`), btoa("me:pw"), key];
  assert.ok(site.lines.length > 20);
  for (const secret of planted) assert.ok(!site.lines.some((line) => line.includes(secret)), secret);
  for (const host of [one, two]) {
    const files = readdirSync(host.directory, { recursive: true, encoding: "utf8" }).map((name) => join(host.directory, name));
    for (const file of files.filter((each) => statSync(each).isFile() && !each.endsWith("ca-key.pem"))) {
      const bytes = readFileSync(file);
      for (const secret of planted) assert.ok(!bytes.includes(secret), `${secret} in ${file}`);
    }
  }
});

test("an authority that only dfdaemon knows does not reach the supernode: the file comes past the swarm, or not at all", async (t) => {
  const site = await openSite(t, { supernodeTrusts: false });
  const bearer = ["-H", `Authorization: Bearer ${SECRET}`];
  const direct = await site.daemon("direct", { backToSource: true });
  const { text } = await direct.get("/pool/file", ...bearer);
  assert.ok(text.endsWith(FILE.toString("latin1")));
  const shut = await site.daemon("shut");
  assert.match((await shut.get("/pool/file", ...bearer)).text, /HTTP\/1\.1 502 [^]*cannot trust or talk TLS/);
});
