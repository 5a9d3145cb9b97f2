import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { createSecureServer } from "node:http2";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { ask, failure, httpOrigin, idle, serve, textOf } from "./local-server.test.ts";
import { OriginClients } from "./origin-clients.ts";
import { serveProxy } from "./proxy-lab.test.ts";

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
  const { url, asked } = await serveProxy(t);
  const file = `http://origin.test:${new URL(server.base).port}/f`;
  const proxies = { httpUrl: url, httpsUrl: undefined, except: "10.0.0.0/8" };
  const opened = await httpOrigin(t, { proxies }).open(ask(file), ALL, undefined, idle());
  assert.equal(await textOf(opened.body), TEXT);
  assert.deepEqual(asked, [`GET ${file} Basic bWU6cHc=`]);
  await failure(httpOrigin(t, { proxies: { ...proxies, except: "origin.test" } }).stat(ask(file), idle()), "HOST_UNRESOLVABLE");
  await httpOrigin(t, { proxies }).stat(ask(`${server.base}/f`), idle());
  assert.equal(asked.length, 1);
});

test("a proxy that wants credentials is told apart from the origin", async (t) => {
  const { url } = await serveProxy(t, { refuse: 407 });
  const origin = httpOrigin(t, { proxies: { httpUrl: url, httpsUrl: url, except: "" } });
  for (const scheme of ["http", "https"]) {
    const error = await failure(origin.stat(ask(`${scheme}://origin.test/f`), idle()), "ORIGIN_UNREACHABLE");
    assert.match(error.message, /the proxy on the way to .* wants credentials/);
    assert.doesNotMatch(error.message, /pw/);
  }
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
  const { port } = server.address() as AddressInfo;
  const error = await failure(httpOrigin(t).stat(ask(`https://localhost:${port}/f`), idle()), "TLS_FAILED");
  assert.match(error.message, /authority/);
  const { url, asked } = await serveProxy(t);
  const proxies = { httpUrl: undefined, httpsUrl: url, except: "" };
  await failure(httpOrigin(t, { proxies }).stat(ask(`https://origin.test:${port}/f`), idle()), "TLS_FAILED");
  for (const host of ["localhost", "origin.test"]) {
    const origin = httpOrigin(t, { proxies, caCertificates: [pair.cert] });
    assert.equal(await textOf((await origin.open(ask(`https://${host}:${port}/f`), ALL, undefined, idle())).body), TEXT);
  }
  assert.deepEqual(new Set(asked), new Set([`CONNECT origin.test:${port} Basic bWU6cHc=`]));
});

test("each server is asked with its own authority and credentials, and others with neither", async (t) => {
  const pair = selfSigned(t);
  if (pair === undefined) return;
  const seen: (string | undefined)[] = [];
  const server = createTlsServer(pair, (request, response) => {
    seen.push(request.headers.authorization);
    if (request.headers.authorization !== undefined) return whole(request.method, response);
    response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const plain = await serve(t, (_, response) => void response.writeHead(401, { "www-authenticate": 'Basic realm="x"' }).end());
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const base = `https://localhost:${(server.address() as AddressInfo).port}`;
  const credentials = { username: "me", password: "pw" };
  const clients = new OriginClients({
    userAgent: "x",
    servers: [{ origin: base, caCertificates: [pair.cert], credentials }, { origin: plain.base.replace("http:", "https:"), caCertificates: [], credentials }],
  });
  t.after(() => clients.close());
  const path = `/v2/a/blobs/sha256:${"0".repeat(64)}`;
  assert.equal((await clients.stat(ask(base + path), idle())).lengthBytes, TEXT.length);
  assert.deepEqual(seen, [undefined, `Basic ${btoa("me:pw")}`]);
  await failure(clients.stat(ask(base.replace("localhost", "127.0.0.1") + path), idle()), "TLS_FAILED");
  await failure(clients.stat(ask(plain.base + path), idle()), "ORIGIN_UNAUTHORIZED");
  assert.ok(plain.seen.every(({ headers }) => headers.authorization === undefined));
});

test("streams of one file have a connection each, also where the server would rather have them all in one (HTTP/2)", async (t) => {
  const pair = selfSigned(t);
  if (pair === undefined) return;
  const seen: string[] = [];
  const server = createSecureServer({ ...pair, allowHTTP1: true }, (request, response) => {
    seen.push(`${request.httpVersion} ${request.socket.remotePort}`);
    // Until all four are here none is answered: each has its own way.
    answers.push(() => response.writeHead(200, { "content-length": TEXT.length, "accept-ranges": "bytes" }).end(TEXT));
    if (answers.length === 4) for (const answer of answers.splice(0)) answer();
  });
  const answers: (() => void)[] = [];
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const { url } = await serveProxy(t);
  for (const [host, httpsUrl] of [["localhost", undefined], ["origin.test", url]] as const) {
    const origin = httpOrigin(t, { caCertificates: [pair.cert], proxies: { httpUrl: undefined, httpsUrl, except: "" } });
    const read = async (): Promise<string> => await textOf((await origin.open(ask(`https://${host}:${port}/f`), ALL, undefined, idle())).body);
    assert.deepEqual(await Promise.all([read(), read(), read(), read()]), [TEXT, TEXT, TEXT, TEXT]);
    assert.deepEqual(seen.map((each) => each.split(" ")[0]), ["1.1", "1.1", "1.1", "1.1"], host);
    assert.equal(new Set(seen.splice(0)).size, 4);
  }
});

function whole(method: string | undefined, response: ServerResponse): void {
  response.writeHead(200, { "content-length": TEXT.length, "accept-ranges": "bytes" });
  response.end(method === "HEAD" ? undefined : TEXT);
}

function selfSigned(t: TestContext): { key: string; cert: string } | undefined {
  const dir = mkdtempSync(join(tmpdir(), "dragonfly-origin-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const [key, cert] = [join(dir, "key.pem"), join(dir, "cert.pem")];
  const options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost".split(" ");
  try {
    execFileSync("openssl", [...options, "-addext", "subjectAltName=DNS:localhost,DNS:origin.test", "-keyout", key, "-out", cert], {
      stdio: "ignore",
    });
  } catch {
    t.skip("needs the command openssl");
    return undefined;
  }
  return { key: readFileSync(key, "utf8"), cert: readFileSync(cert, "utf8") };
}
