/** A registry that can be reached through the site's proxy only, with a certificate of the site's own authority. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer, request as httpRequest } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, connect } from "node:net";
import { test } from "node:test";

import { startLoopbackDaemon, Supernode } from "./lib/dragonfly.ts";
import { pushImage } from "./lib/image.ts";
import { freePort } from "../lib/ports.ts";
import { Lab, waitFor } from "./lib/processes.ts";
import { Registry } from "./lib/registry.ts";

/** Names that only the proxy can look up. */
const NAME = "reg.corp.test";
const EXEMPT = "direct.corp.test";

void test("HTTPS_PROXY and NO_PROXY are heeded by supernode and dfdaemon, and a registry's own authority is believed for it", async (t) => {
  const lab = new Lab("upstream-proxy");
  await lab.use(async () => {
    const registry = await Registry.start(lab, "127.0.0.1", await freePort());
    const image = await pushImage(lab, registry.backUrl, { repository: "team/app", tag: "v1", layerBytes: [3 << 20] });
    const { authority, port } = await serveByTls(lab, registry.url);
    const proxy = await startProxy(lab, port);
    for (const [name, value] of [["HTTPS_PROXY", proxy.url], ["NO_PROXY", EXEMPT]] as const) process.env[name] = value;
    t.after(() => ["HTTPS_PROXY", "NO_PROXY"].forEach((name) => delete process.env[name]));
    const supernode = await Supernode.start(lab, "127.0.0.1", ["--origin-ca", `https://${NAME}=${authority}`]);
    const config = lab.writeFile("dfdaemon.yaml", `registries: [{host: ${NAME}, url: "https://${NAME}", caFile: "${authority}"}]\n`);
    const daemon = await startLoopbackDaemon(lab, "dfdaemon", supernode, ["--config", config]);

    const get = async (path: string, name = NAME): Promise<Response> => await fetch(`${daemon.mirror}/v2/team/app/${path}?ns=${name}`);
    assert.equal((await get("manifests/v1")).status, 200);
    for (const { digest } of image.blobs) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other is as good
      const blob = Buffer.from(await (await get(`blobs/${digest}`)).arrayBuffer());
      assert.equal(`sha256:${createHash("sha256").update(blob).digest("hex")}`, digest);
    }
    const askers = new Set(registry.log.entries.map(({ userAgent }) => userAgent.split("/")[0]));
    assert.deepEqual(askers, new Set(["dragonfly", "dfdaemon"]), "both went through the proxy");

    const exempt = await get("manifests/v1", EXEMPT);
    assert.ok(exempt.status >= 500, `${exempt.status}`);
    assert.match(await exempt.text(), /HOST_UNRESOLVABLE|ORIGIN_UNREACHABLE/);
    const stranger = await get("manifests/v1", "other.corp.test");
    assert.ok(stranger.status >= 500, "its certificate is of an authority that is not believed for it");
    assert.deepEqual(new Set(proxy.targets), new Set([`${NAME}:443`, "other.corp.test:443"]));
    assert.ok(registry.log.entries.every(({ status }) => status < 400), registry.log.toString());
    // the line is written after the answer: whoever has the answer may be the faster one
    await waitFor("dfdaemon's log says why", () => readFileSync(daemon.service.logFile, "utf8").includes("TLS_FAILED"));
  });
});

/** The registry at `url` by TLS, for {@link NAME}. */
async function serveByTls(lab: Lab, url: string): Promise<{ readonly authority: string; readonly port: number }> {
  const [authorityKey, authority, key, request, certificate] = ["ca.key", "ca.pem", "reg.key", "reg.csr", "reg.pem"].map((name) => lab.path(name)) as [string, string, string, string, string];
  await lab.must(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=corp", "-keyout", authorityKey, "-out", authority]);
  await lab.must(["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", `/CN=${NAME}`, "-keyout", key, "-out", request]);
  const names = lab.writeFile("names", `subjectAltName=DNS:${NAME},DNS:other.corp.test\n`);
  await lab.must(["openssl", "x509", "-req", "-in", request, "-CA", authority, "-CAkey", authorityKey, "-CAcreateserial", "-days", "2", "-extfile", names, "-out", certificate]);
  const server = createTlsServer({ key: readFileSync(key), cert: readFileSync(certificate) }, (asked, response) => {
    const upstream = httpRequest(url + (asked.url ?? ""), { method: asked.method, headers: asked.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.rawHeaders);
      answer.pipe(response);
    });
    upstream.on("error", () => response.destroy());
    asked.pipe(upstream);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  lab.onClose(() => {
    server.close();
    server.closeAllConnections();
  });
  return { authority, port: (server.address() as AddressInfo).port };
}

/** A proxy behind which every name is the server at `port`. */
async function startProxy(lab: Lab, port: number): Promise<{ readonly url: string; readonly targets: readonly string[] }> {
  const targets: string[] = [];
  const server = createServer((_request, response) => response.writeHead(405).end());
  server.on("connect", (request, client) => {
    targets.push(request.url ?? "");
    const upstream = connect(port, "127.0.0.1", () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      upstream.pipe(client).pipe(upstream);
    });
    for (const socket of [client, upstream]) socket.on("error", () => (client.destroy(), upstream.destroy()));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  lab.onClose(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, targets };
}
