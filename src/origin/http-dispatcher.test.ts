import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer as createProxy, request as forward } from "node:http";
import type { ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { ask, failure, httpOrigin, idle, serve, textOf } from "./local-server.test.ts";

const ALL = { startByte: 0, endByte: undefined };
const TEXT = "0123456789abcdefghij";

test("connections are kept between HEAD and GET", async (t) => {
  const server = await serve(t, (request, response) => whole(request.method, response));
  const origin = httpOrigin(t);
  const ports = new Set<number | undefined>();
  for (let round = 0; round < 3; round += 1) {
    await origin.stat(ask(`${server.base}/f`), idle());
    await textOf((await origin.open(ask(`${server.base}/f`), ALL, undefined, idle())).body);
  }
  for (const { socket } of server.seen) ports.add(socket.remotePort);
  // undici looks twice at a connection before it uses it again, so that two may take turns; never six.
  assert.ok(ports.size <= 2, `${ports.size} connections`);
});

test("a proxy is asked for plain http directly, and spared for the hosts it is not for", async (t) => {
  const server = await serve(t, (request, response) => whole(request.method, response));
  const { proxyUrl, proxied } = await serveProxy(t);
  const opened = await httpOrigin(t, { proxyUrl }).open(ask(`${server.base}/f`), ALL, undefined, idle());
  assert.equal(await textOf(opened.body), TEXT);
  assert.deepEqual(proxied, [`GET ${server.base}/f Basic bWU6cHc=`]);
  await httpOrigin(t, { proxyUrl, noProxy: "127.0.0.1" }).stat(ask(`${server.base}/f`), idle());
  assert.equal(proxied.length, 1);
  assert.throws(() => httpOrigin(t, { proxyUrl: "socks://x" }), /is no http or https URL/);
});

test("a certificate of one's own is refused, and trusted when its authority is configured, through a proxy too", async (t) => {
  const pair = selfSigned(t);
  if (pair === undefined) return;
  const server = createTlsServer(pair, (request, response) => whole(request.method, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const host = `localhost:${(server.address() as AddressInfo).port}`;
  const url = `https://${host}/f`;
  const error = await failure(httpOrigin(t).stat(ask(url), idle()), "TLS_FAILED");
  assert.match(error.message, /authority/);
  const { proxyUrl, proxied } = await serveProxy(t);
  for (const options of [{}, { proxyUrl }]) {
    const origin = httpOrigin(t, { ...options, caCertificates: [pair.cert] });
    assert.equal(await textOf((await origin.open(ask(url), ALL, undefined, idle())).body), TEXT);
  }
  assert.deepEqual(proxied, [`CONNECT ${host}`]);
});

function whole(method: string | undefined, response: ServerResponse): void {
  response.writeHead(200, { "content-length": TEXT.length, "accept-ranges": "bytes" });
  response.end(method === "HEAD" ? undefined : TEXT);
}

/** A forward proxy that writes down what it is asked. */
async function serveProxy(t: TestContext): Promise<{ proxyUrl: string; proxied: string[] }> {
  const proxied: string[] = [];
  const proxy = createProxy((request, response) => {
    proxied.push(`${request.method} ${request.url} ${request.headers["proxy-authorization"]}`);
    forward(request.url ?? "", { method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    }).end();
  });
  proxy.on("connect", (request, client) => {
    proxied.push(`CONNECT ${request.url}`);
    const upstream = connect(Number(request.url?.split(":")[1]), "127.0.0.1", () => {
      client.write("HTTP/1.1 200 OK\r\n\r\n");
      upstream.pipe(client).pipe(upstream);
    });
    for (const socket of [client, upstream]) socket.on("error", () => upstream.destroy());
    t.after(() => upstream.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    proxy.closeAllConnections();
    proxy.close();
  });
  return { proxyUrl: `http://me:pw@127.0.0.1:${(proxy.address() as AddressInfo).port}`, proxied };
}

function selfSigned(t: TestContext): { key: string; cert: string } | undefined {
  const dir = mkdtempSync(join(tmpdir(), "dragonfly-origin-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const [key, cert] = [join(dir, "key.pem"), join(dir, "cert.pem")];
  const options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost".split(" ");
  try {
    execFileSync("openssl", [...options, "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert], {
      stdio: "ignore",
    });
  } catch {
    t.skip("needs the command openssl");
    return undefined;
  }
  return { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
}
