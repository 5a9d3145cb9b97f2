import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import dns from "node:dns";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import type { IncomingMessage, RequestListener } from "node:http";
import { syncBuiltinESMExports } from "node:module";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connect as connectTls, TLSSocket } from "node:tls";
import { eventually, fetchAnswer, OCI_MANIFEST, patterned } from "../mirror/lab.test.ts";
import { serveProxy } from "../../origin/proxy-lab.test.ts";
import { curl, openProxy, OriginAuthority, serveOrigin, temporary, type ProxyLab } from "./lab.test.ts";

/** Says what came, and in which form. */
const echo: RequestListener = (request, response) => {
  const hash = createHash("sha256");
  let lengthBytes = 0;
  request.on("data", (chunk: Buffer) => {
    hash.update(chunk);
    lengthBytes += chunk.length;
  });
  request.on("end", () => {
    response.writeHead(200, "Fine", [["X-Case", "1"], ["Set-Cookie", "a=1"], ["Set-Cookie", "b=2"], ["Content-Type", "text/plain"]]);
    response.end(`${request.method} ${request.url} ${lengthBytes} ${hash.digest("hex")}\n`);
  });
};

test("a request for http is passed on as it is, but for what concerns the proxy", async (t) => {
  const origin = await serveOrigin(t, echo);
  const lab = await openProxy(t);
  const { text } = await curl(lab, "-H", "X-Mine: 1", "-H", "Proxy-Connection: x", "--proxy-user", "me:planted-secret", "-u", "u:p", `${origin.url}/a%2Fb?q=planted`);
  assert.match(text, /^HTTP\/1\.1 200 Fine\r\nX-Case: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n/);
  assert.match(text, /\r\nVia: 1\.1 dfdaemon-[0-9a-f]{12}\r\n/);
  assert.match(text, /\r\n\r\nGET \/a%2Fb\?q=planted 0 /);
  const [seen] = origin.seen;
  assert.equal(seen?.headers.host, origin.host);
  assert.equal(seen?.headers["x-mine"], "1");
  assert.equal(seen?.headers.authorization, `Basic ${btoa("u:p")}`);
  assert.equal(seen?.headers["proxy-authorization"], undefined);
  assert.equal(seen?.headers["proxy-connection"], undefined);
  const head = await curl(lab, "-I", `${origin.url}/x`);
  assert.match(head.text, /^HTTP\/1\.1 200 Fine/);
  const line = lab.lines.find(({ msg }) => msg === "proxy request");
  assert.equal(line?.["url"], `${origin.url}/a%2Fb?…`);
  assert.equal(line?.["kind"], "forward");
});

test("https is a tunnel that nobody reads: the client sees the server's own certificate", async (t) => {
  const authority = new OriginAuthority(t);
  const origin = await authority.serve(t, echo);
  const lab = await openProxy(t, { config: { interceptedHosts: ["other.test"] } });
  const { text, exitCode } = await curl(lab, "--cacert", authority.file, `${origin.url}/secret-path`);
  assert.equal(exitCode, 0);
  assert.match(text, /\r\n\r\nGET \/secret-path 0 /);
  assert.equal(origin.seen[0]?.headers.via, undefined);
  assert.notEqual((await curl(lab, "--cacert", lab.caFile, `${origin.url}/`)).exitCode, 0);
  await eventually(() => lab.lines.some(({ kind }) => kind === "tunnel"), "the log line");
  const line = lab.lines.find(({ kind }) => kind === "tunnel");
  assert.equal(line?.["url"], `https://${origin.host}/`);
  assert.ok(Number(line?.["sentBytes"]) > 500 && Number(line?.["receivedBytes"]) > 200);
  assert.doesNotMatch(JSON.stringify(lab.lines), /secret-path/);
});

test("the TLS of a listed host ends here, with a certificate of our authority, and the server's own is verified", async (t) => {
  const authority = new OriginAuthority(t);
  const origin = await authority.serve(t, echo);
  const lab = await openProxy(t, { config: { interceptedHosts: [origin.host] }, trust: { pem: authority.pem, origins: [origin.url] } });
  const { text, exitCode } = await curl(lab, "--cacert", lab.caFile, "-u", "u:p", `${origin.url}/path`);
  assert.equal(exitCode, 0);
  assert.match(text, /^HTTP\/1\.1 200 Connection established\r\n\r\nHTTP\/1\.1 200 Fine\r\n/);
  assert.match(text, /\r\n\r\nGET \/path 0 /);
  assert.equal(origin.seen[0]?.headers.authorization, `Basic ${btoa("u:p")}`);
  assert.equal(origin.seen[0]?.headers.host, origin.host);
  // The authority is here to be had.
  assert.equal((await fetchAnswer(lab.port, "/proxy-ca.pem")).body.toString(), lab.proxy.authorityPem);
  assert.equal(statSync(join(lab.caFile, "../ca-key.pem")).mode & 0o777, 0o600);
});

test("a server whose certificate is not to be trusted is refused, and gets no request", async (t) => {
  const authority = new OriginAuthority(t);
  const origin = await authority.serve(t, echo);
  // What is trusted for another server is not for this one.
  const lab = await openProxy(t, { config: { interceptedHosts: [origin.host] }, trust: { pem: authority.pem, origins: ["https://other.test"] } });
  const { text } = await curl(lab, "--cacert", lab.caFile, "-H", "Authorization: Bearer planted", `${origin.url}/path`);
  assert.match(text, /HTTP\/1\.1 502 Bad Gateway\r\n[^]*cannot trust or talk TLS with the host/);
  // Not even when the client would not care.
  assert.match((await curl(lab, "-k", `${origin.url}/path`)).text, /HTTP\/1\.1 502/);
  assert.equal(origin.seen.length, 0);
});

test("a redirect is the client's to follow", async (t) => {
  const origin = await serveOrigin(t, (request, response) => {
    if (request.url === "/there") response.end("there\n");
    else response.writeHead(307, { location: "/there" }).end();
  });
  const lab = await openProxy(t);
  assert.match((await curl(lab, `${origin.url}/`)).text, /^HTTP\/1\.1 307 Temporary Redirect\r\nlocation: \/there\r\n/);
  assert.match((await curl(lab, "-L", `${origin.url}/`)).text, /\r\n\r\nthere\n$/);
});

test("an upload of any size goes through, with its length, in chunks, and by 100 Continue", async (t) => {
  const authority = new OriginAuthority(t);
  const plain = await serveOrigin(t, echo);
  const secure = await authority.serve(t, echo);
  const lab = await openProxy(t, { config: { interceptedHosts: [secure.host] }, trust: { pem: authority.pem, origins: [secure.url] } });
  const bytes = randomBytes(8_000_000);
  const file = join(temporary(t), "upload");
  writeFileSync(file, bytes);
  const expected = `PUT /up ${bytes.length} ${createHash("sha256").update(bytes).digest("hex")}`;
  for (const origin of [plain, secure]) {
    for (const more of [[], ["-H", "Transfer-Encoding: chunked"], ["-H", "Expect:"]]) {
      const { text } = await curl(lab, "--cacert", lab.caFile, "-T", file, ...more, `${origin.url}/up`);
      assert.ok(text.includes(expected), text.slice(0, 500));
      const { headers } = origin.seen.at(-1) as IncomingMessage;
      const isChunked = more.at(-1)?.startsWith("Transfer") === true;
      assert.equal(headers["content-length"], isChunked ? undefined : String(bytes.length));
    }
  }
  const empty = await curl(lab, "-X", "POST", `${plain.url}/empty`);
  assert.match(empty.text, /POST \/empty 0 /);
});

test("a server that refuses before the body is heard, and 100 Continue is its word, not ours", async (t) => {
  const origin = await serveOrigin(t, (_, response) => void response.end());
  origin.server.on("checkContinue", (request, response) => {
    if (request.url === "/no") return void response.writeHead(413).end();
    response.writeContinue();
    echo(request, response);
  });
  const lab = await openProxy(t);
  const no = await raw(lab, `PUT ${origin.url}/no HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n`);
  assert.match(await no.until(/\r\n\r\n/), /^HTTP\/1\.1 413 [^]*\r\nConnection: close\r\n/i, "nobody can tell whether a body follows");
  const yes = await raw(lab, `PUT ${origin.url}/yes HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n`);
  assert.match(await yes.until(/\r\n\r\n/), /^HTTP\/1\.1 100 Continue\r\n\r\n$/);
  yes.socket.write("hello");
  assert.match(await yes.until(/\r\n0\r\n\r\n$/), /HTTP\/1\.1 200 Fine[^]*PUT \/yes 5 2cf24dba/);
});

test("trailers go both ways, and a body that is cut is never ended well", async (t) => {
  let trailers: unknown;
  const origin = await serveOrigin(t, (request, response) => {
    if (request.url === "/cut") {
      response.writeHead(200, { "content-length": 100 });
      response.write("some");
      return void setImmediate(() => response.destroy());
    }
    request.resume().on("end", () => {
      trailers = request.trailers;
      response.writeHead(200, { trailer: "x-sum" });
      response.write("body");
      response.addTrailers({ "x-sum": "42" });
      response.end();
    });
  });
  const lab = await openProxy(t);
  const client = await raw(lab, `POST ${origin.url}/ HTTP/1.1\r\nHost: x\r\nTrailer: X-Up\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Up: 7\r\n\r\n`);
  assert.match(await client.until(/0\r\n.*\r\n\r\n$/), /body\r\n0\r\nx-sum: 42\r\n\r\n$/);
  assert.deepEqual({ ...(trailers as object) }, { "x-up": "7" });
  const cut = await curl(lab, `${origin.url}/cut`);
  assert.ok(cut.exitCode === 18 || cut.exitCode === 56, `exit ${cut.exitCode}`);
});

test("a kept connection that its server closed meanwhile costs no client his answer, and nothing is done twice", async (t) => {
  const used = new WeakSet<object>();
  const origin = await serveOrigin(t, (request, response) => {
    if (request.url === "/closed" && used.has(request.socket)) return void request.socket.destroy();
    used.add(request.socket);
    response.end("answer");
  });
  const lab = await openProxy(t);
  await curl(lab, `${origin.url}/`);
  assert.match((await curl(lab, `${origin.url}/closed`)).text, /^HTTP\/1\.1 200 [^]*answer$/);
  assert.deepEqual(origin.seen.map(({ url }) => url), ["/", "/closed", "/closed"]);
  for (const method of ["DELETE", "POST"]) {
    await curl(lab, `${origin.url}/`);
    assert.match((await curl(lab, "-X", method, `${origin.url}/closed`)).text, /^HTTP\/1\.1 502 /, method);
    assert.equal(origin.seen.filter((seen) => seen.method === method).length, 1);
  }
});

test("an answer that breaks off on a kept connection is not asked for again, and its client hears of it at once", async (t) => {
  const origin = await serveOrigin(t, (request, response) => {
    if (request.url === "/whole") return void response.end("whole");
    // Whoever came again would wait for ever.
    if (origin.seen.filter(({ url }) => url === "/cut").length > 1) return;
    response.writeHead(200, { "content-length": 100 }).write("some");
    setImmediate(() => response.destroy());
  });
  const lab = await openProxy(t);
  assert.match((await curl(lab, `${origin.url}/whole`)).text, /whole$/);
  const cut = await curl(lab, "--max-time", "5", `${origin.url}/cut`);
  assert.ok(cut.exitCode === 18 || cut.exitCode === 56, `exit ${cut.exitCode}`);
  assert.deepEqual(origin.seen.map(({ url }) => url), ["/whole", "/cut"]);
});

test("another protocol is spoken through, in the clear and inside of TLS; a server that will not says so", async (t) => {
  const authority = new OriginAuthority(t);
  const plain = await serveOrigin(t, (_, response) => void response.writeHead(426).end("no\n"));
  const secure = await authority.serve(t, () => {});
  for (const { server } of [plain, secure]) {
    server.on("upgrade", (request, socket) => {
      if (request.url === "/cut") return void socket.end("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 30\r\n\r\nno\n");
      if (request.url === "/no") return void socket.end("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 3\r\n\r\nno\n");
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${request.headers.upgrade}\r\nX-Via: ${request.headers.via !== undefined}\r\n\r\nhello `);
      socket.pipe(socket);
    });
  }
  const lab = await openProxy(t, { config: { interceptedHosts: [secure.host] }, trust: { pem: authority.pem, origins: [secure.url] } });
  const client = await raw(lab, `GET ${plain.url}/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
  const head = await client.until(/hello /);
  assert.match(head, /^HTTP\/1\.1 101 Switching Protocols\r\n/);
  assert.match(head, /\r\nUpgrade: websocket\r\n/i);
  assert.match(head, /\r\nX-Via: true\r\n/);
  client.socket.write("again");
  assert.match(await client.until(/again/), /hello again$/);
  client.socket.destroy();
  const no = await raw(lab, `GET ${plain.url}/no HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
  assert.match(await no.until(/no\n/), /^HTTP\/1\.1 426 Upgrade Required\r\n/);
  const cut = await raw(lab, `GET ${plain.url}/cut HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`);
  await new Promise((resolve) => void cut.socket.once("close", resolve));
  const inside = await curl(lab, "--cacert", lab.caFile, "-N", "--max-time", "8", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", `${secure.url}/ws`);
  assert.match(inside.text, /101 Switching Protocols[^]*hello /);
});

test("an offer of HTTP/2, and of any protocol behind a body, is left where it is: the request is answered, body and all", async (t) => {
  const origin = await serveOrigin(t, echo);
  const lab = await openProxy(t);
  const expected = `POST /up 4 ${createHash("sha256").update("body").digest("hex")}`;
  for (const protocol of ["h2c", "tcp"]) {
    for (const form of [["-d", "body"], ["-d", "body", "-H", "Transfer-Encoding: chunked"]]) {
      const { text, exitCode } = await curl(lab, "--max-time", "5", "-H", "Connection: Upgrade", "-H", `Upgrade: ${protocol}`, ...form, `${origin.url}/up`);
      assert.equal(exitCode, 0, protocol);
      assert.ok(text.includes(expected), text);
    }
  }
  // The connection lasts: nothing else was made of it.
  const client = await raw(lab, "");
  for (const path of ["/a", "/b"]) {
    client.socket.write(`GET ${origin.url}${path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n`);
    assert.match(await client.until(new RegExp(`GET ${path} 0 `)), /^HTTP\/1\.1 200 Fine/);
  }
  client.socket.destroy();
});

test("whoever is refused is hung up on, also when he does not hang up himself", async (t) => {
  const plain = await serveOrigin(t, echo);
  plain.server.on("upgrade", (_, socket) => void socket.end("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 3\r\n\r\nno\n"));
  const lab = await openProxy(t);
  const upgrade = (url: string): string => `GET ${url}/no HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;
  for (const message of ["CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT a.test HTTP/1.1\r\nHost: x\r\n\r\n", upgrade(plain.url), upgrade("http://127.0.0.1:9")]) {
    const socket = connect({ port: lab.port, host: "127.0.0.1", allowHalfOpen: true });
    const client = talk(socket, message);
    assert.match(await client.until(/\n$/), /^HTTP\/1\.1 [45]\d\d /);
    // A byte at a time till one is answered by a reset: nobody is there any more.
    await eventually(() => socket.destroyed || (socket.write("x"), false), `the end of ${message}`);
  }
});

test("an answer that announces trailers comes, without them, to who can have none: to HEAD, and by HTTP/1.0", async (t) => {
  const origin = await serveOrigin(t, (request, response) => {
    const body = request.method === "HEAD" ? "" : "2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n";
    response.socket?.end(`HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 Fine\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nConnection: close\r\n\r\n${body}`);
  });
  const lab = await openProxy(t);
  for (const [method, version, expected] of [
    ["GET", "1.1", /200 Fine\r\nTrailer: X-Sum\r\n[^]*\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n$/],
    ["HEAD", "1.1", /200 Fine\r\n(?![^]*Trailer)[^]*\r\n\r\n$/],
    ["GET", "1.0", /^HTTP\/1\.1 200 Fine\r\n(?![^]*Trailer)[^]*\r\n\r\nok$/],
  ] as const) {
    const client = await raw(lab, `${method} ${origin.url}/x HTTP/${version}\r\nHost: x\r\nConnection: close\r\n\r\n`);
    await new Promise((resolve) => client.socket.once("close", resolve));
    assert.match(await client.until(/^/), expected);
  }
});

test("an answer with a head of 60 KiB goes through, as a request does", async (t) => {
  const large = "x".repeat(60_000);
  const origin = await serveOrigin(t, (_request, response) => void response.writeHead(200, { "x-large": large }).end("ok"));
  const lab = await openProxy(t);
  const { text } = await curl(lab, `${origin.url}/x`);
  assert.match(text, /^HTTP\/1\.1 200 [^]*\r\n\r\nok$/);
  assert.ok(text.includes(large));
});

test("fields are passed on byte by byte, also what is not ASCII in them", async (t) => {
  const name = Buffer.from('attachment; filename="\u00fcber.pdf"').toString("latin1");
  const origin = await serveOrigin(t, (request, response) => {
    response.writeHead(200, "\u00dcber", { "content-disposition": name, "x-seen": String(request.headers["x-mine"]), "content-length": 2 });
    response.end(request.method === "HEAD" ? undefined : Buffer.from("ok"));
  });
  origin.server.on("upgrade", (_, socket) => void socket.end(Buffer.from(`HTTP/1.1 426 No\r\nContent-Disposition: ${name}\r\nContent-Length: 2\r\n\r\nok`, "latin1")));
  const lab = await openProxy(t);
  for (const [method, more] of [["GET", ""], ["HEAD", ""], ["GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n"]]) {
    const client = await raw(lab, "");
    client.socket.write(Buffer.from(`${method} ${origin.url}/x HTTP/1.1\r\nHost: x\r\nX-Mine: ${name}\r\n${more}\r\n`, "latin1"));
    const text = await client.until(method === "HEAD" ? /\r\n\r\n/ : /ok$/);
    assert.equal(/content-disposition: (.*)\r\n/i.exec(text)?.[1], name, text);
    if (more === "") assert.equal(/x-seen: (.*)\r\n/i.exec(text)?.[1], name);
    client.socket.destroy();
  }
});

test("clients who are not meant get nothing, whatever they ask", async (t) => {
  const origin = await serveOrigin(t, echo);
  const nobody = await openProxy(t, { config: { clientNetworks: ["10.0.0.0/8"] } });
  assert.match((await curl(nobody, `${origin.url}/`)).text, /^HTTP\/1\.1 403 [^]*proxyClients/);
  assert.match((await curl(nobody, `https://${origin.host}/`)).text, /^HTTP\/1\.1 403 /);
  const login = await openProxy(t, { config: { credentials: { username: "me", password: "planted-secret" } } });
  assert.match((await curl(login, `${origin.url}/`)).text, /^HTTP\/1\.1 407 [^]*proxy-authenticate: Basic/i);
  assert.match((await curl(login, `https://${origin.host}/`)).text, /^HTTP\/1\.1 407 [^]*Proxy-Authenticate: Basic/);
  assert.equal(origin.seen.length, 0);
  assert.match((await curl(login, "--proxy-user", "me:planted-secret", `${origin.url}/`)).text, /^HTTP\/1\.1 200 /);
  assert.equal(origin.seen[0]?.headers["proxy-authorization"], undefined);
  assert.doesNotMatch(JSON.stringify([nobody.lines, login.lines]), /planted-secret|bWU6cGxhbnRlZC1zZWNyZXQ/);
  // The mirror and the health of the daemon are no matter of the proxy's.
  assert.equal((await fetchAnswer(login.port, "/healthz")).status, 200);
});

test("who is not on this machine reaches nothing on it", async (t) => {
  const address = Object.values(networkInterfaces()).flat().find((each) => each?.family === "IPv4" && !each.internal)?.address;
  if (address === undefined) return t.skip("needs an address beside loopback");
  const origin = await serveOrigin(t, echo);
  const config = { clientNetworks: ["0.0.0.0/0"], swarmUrls: [`${origin.url}/**`] };
  const lab = await openProxy(t, { host: "0.0.0.0", config });
  const far = { proxyUrl: `http://${address}:${lab.port}` };
  for (const url of [`${origin.url}/`, `http://127.0.0.1:${origin.port}/`, `http://0.0.0.0:${origin.port}/`, "http://169.254.169.254/latest/"]) {
    assert.match((await curl(far, "--interface", address, url)).text, /^HTTP\/1\.1 403 /, url);
  }
  assert.match((await curl(far, "--interface", address, `https://${origin.host}/`)).text, /^HTTP\/1\.1 403 /);
  // Nor by way of the mirror, or the swarm.
  for (const path of [`/v2/a/blobs/sha256:${"0".repeat(64)}`, "/file"]) {
    assert.match((await curl(far, "--interface", address, `${origin.url}${path}`)).text, /^HTTP\/1\.1 403 /, path);
  }
  assert.deepEqual(lab.opener.opened, []);
  assert.equal(origin.seen.length, 0);
  assert.match((await curl(lab, `${origin.url}/`)).text, /^HTTP\/1\.1 200 /);
});

test("who is not on this machine reaches nothing on it by a name that leads there", async (t) => {
  const address = Object.values(networkInterfaces()).flat().find((each) => each?.family === "IPv4" && !each.internal)?.address;
  if (address === undefined) return t.skip("needs an address beside loopback");
  const asked: string[] = [];
  const resolve = (host: string): Promise<readonly string[]> => {
    asked.push(host);
    return host === "here.test" ? Promise.resolve(["203.0.113.7", "127.0.0.1"]) : Promise.reject(new Error("no such name"));
  };
  const lab = await openProxy(t, { host: "0.0.0.0", config: { clientNetworks: ["0.0.0.0/0"], swarmUrls: ["http*://*/**"], interceptedHosts: ["here.test"] }, resolve });
  const digest = lab.registry.putBlob("team/app", patterned(500));
  lab.registry.putManifest("team/app", "1", { mediaType: OCI_MANIFEST, layers: [{ digest }] });
  lab.registry.files.set("/file", { bytes: patterned(500), contentType: "text/plain" });
  const far = { proxyUrl: `http://${address}:${lab.port}` };
  const paths = [`/v2/team/app/blobs/${digest}`, "/v2/team/app/manifests/1", "/file"];
  for (const path of paths) {
    const { text } = await curl(far, "--interface", address, "-H", `Accept: ${OCI_MANIFEST}`, `http://here.test:5000${path}`);
    assert.match(text, /^HTTP\/1\.1 403 /, path);
    const inside = await curl(far, "--interface", address, "--cacert", lab.caFile, "-H", `Accept: ${OCI_MANIFEST}`, `https://here.test${path}`);
    assert.match(inside.text, /\r\n\r\nHTTP\/1\.1 403 /, path);
  }
  assert.deepEqual([lab.opener.opened, lab.registry.requests, asked], [[], [], ["here.test"]], "looked up once for all of them");
  // A name that is not found here may be found by a proxy on the way; and who is on this machine may have what is on it.
  assert.match((await curl(far, "--interface", address, "http://elsewhere.test/file")).text, /^HTTP\/1\.1 200 /);
  assert.match((await curl(lab, "http://here.test/file")).text, /^HTTP\/1\.1 200 /);
});

test("where a name leads is looked at when it is connected, and again each time", async (t) => {
  const address = Object.values(networkInterfaces()).flat().find((each) => each?.family === "IPv4" && !each.internal)?.address;
  if (address === undefined) return t.skip("needs an address beside loopback");
  const origin = await serveOrigin(t, echo);
  origin.server.on("upgrade", (_request, socket) => void socket.end("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"));
  const lab = await openProxy(t, { host: "0.0.0.0", config: { clientNetworks: ["0.0.0.0/0"] } });
  t.mock.method(dns, "lookup", (_host: string, options: { readonly all?: boolean }, callback: (...answer: unknown[]) => void) =>
    options.all === true ? callback(null, [{ address: "127.0.0.1", family: 4 }]) : callback(null, "127.0.0.1", 4));
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
  const far = { proxyUrl: `http://${address}:${lab.port}` };
  const url = `http://here.test:${origin.port}/`;
  const upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: x"];
  assert.match((await curl(lab, url)).text, /^HTTP\/1\.1 200 /, "a client on this machine, whose connection is kept");
  const seenCount = origin.seen.length;
  for (const more of [[], upgrade, ["--proxytunnel"], ["-X", "DELETE"]]) {
    assert.match((await curl(far, "--interface", address, ...more, url)).text, /^HTTP\/1\.1 403 /, more.join(" "));
  }
  assert.match((await curl(far, "--interface", address, ...upgrade, `${origin.url}/`)).text, /^HTTP\/1\.1 403 /);
  assert.equal(origin.seen.length, seenCount);
});

test("who is not on this machine reaches nothing on its link by a proxy behind this one either", async (t) => {
  const address = Object.values(networkInterfaces()).flat().find((each) => each?.family === "IPv4" && !each.internal)?.address;
  if (address === undefined) return t.skip("needs an address beside loopback");
  const behind = await serveProxy(t);
  const proxies = { httpUrl: behind.url, httpsUrl: behind.url, except: "" };
  const lab = await openProxy(t, { host: "0.0.0.0", config: { clientNetworks: ["0.0.0.0/0"] }, proxies });
  const far = { proxyUrl: `http://${address}:${lab.port}` };
  for (const url of ["http://169.254.169.254/latest/", "https://169.254.169.254/latest/", "https://[::ffff:169.254.169.254]/", "https://0.0.0.0/"]) {
    assert.match((await curl(far, "--interface", address, url)).text, /^HTTP\/1\.1 403 /, url);
  }
  const upgrade = ["-H", "Connection: Upgrade", "-H", "Upgrade: x", "http://169.254.169.254/"];
  assert.match((await curl(far, "--interface", address, ...upgrade)).text, /^HTTP\/1\.1 403 /);
  assert.deepEqual(behind.asked, []);
});

test("requests that are sent before the answers to those before them are all answered, in their order", async (t) => {
  const lab = await openProxy(t, { config: { swarmUrls: ["http://files.test/pool/**"] } });
  for (const name of ["a", "b", "c"]) lab.registry.files.set(`/pool/${name}.deb`, { bytes: Buffer.from(name.repeat(2000)), contentType: "application/x-deb" });
  const requests = ["a", "b", "c"].map((name) => `GET http://files.test/pool/${name}.deb HTTP/1.1\r\nHost: files.test\r\n\r\n`);
  const client = await raw(lab, `${requests.join("")}GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n`);
  const text = await client.until(/\r\n\r\nok\n/);
  assert.deepEqual(text.match(/HTTP\/1\.1 \d+|a{2000}|b{2000}|c{2000}/g)?.map((part) => part.slice(0, 12)), ["HTTP/1.1 200", "a".repeat(12), "HTTP/1.1 200", "b".repeat(12), "HTTP/1.1 200", "c".repeat(12), "HTTP/1.1 200", "HTTP/1.1 200"]);
});

test("a client that sends all of its body before it reads is served though the server answers before it has it", { timeout: 30_000 }, async (t) => {
  const bodyBytes = 40 * 1024 * 1024;
  const origin = await serveOrigin(t, (request, response) => {
    response.writeHead(401, { "content-length": 2 }).end("no");
    request.resume();
  });
  const lab = await openProxy(t);
  const client = await raw(lab, `PUT ${origin.url}/x HTTP/1.1\r\nHost: ${origin.host}\r\nContent-Length: ${bodyBytes}\r\n\r\n`);
  const chunk = Buffer.alloc(1024 * 1024);
  for (let sentBytes = 0; sentBytes < bodyBytes; sentBytes += chunk.length) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other, and nothing is read meanwhile
    await new Promise<void>((resolve) => client.socket.write(chunk, () => resolve()));
  }
  assert.match(await client.until(/\r\n\r\nno/), /^HTTP\/1\.1 401 /);
});

test("a server that answers before it has all of a body gets the rest, or sees that it does not", { timeout: 30_000 }, async (t) => {
  let gotBytes = 0;
  let isWhole = false;
  const keen = await serveOrigin(t, (request, response) => {
    response.writeHead(202, { "content-length": 2 }).end("ok");
    request.on("data", (chunk: Buffer) => (gotBytes += chunk.length)).on("end", () => (isWhole = true));
    request.on("error", () => {});
  });
  const lab = await openProxy(t);
  const begin = (): Promise<RawClient> => raw(lab, `PUT ${keen.url}/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n`);
  const client = await begin();
  await client.until(/\r\n\r\nok$/);
  const rest = Buffer.alloc(40 * 1024 * 1024);
  client.socket.write(`${rest.length.toString(16)}\r\n`);
  client.socket.write(rest);
  client.socket.write("\r\n0\r\n\r\n");
  await eventually(() => isWhole, "the end of the body");
  assert.equal(gotBytes, "first".length + rest.length);
  client.socket.destroy();
  isWhole = false;
  const broken = await begin();
  await broken.until(/\r\n\r\nok$/);
  broken.socket.destroy();
  await eventually(() => keen.seen[1]?.socket.destroyed === true, "the end of the other");
  assert.equal(isWhole, false);
});

test("a client that sends all of its body before it reads is served, too, when the server has answered and reads no more", { timeout: 30_000 }, async (t) => {
  const server = createServer((socket) => {
    socket.on("error", () => {}).once("data", () => void socket.pause().write("HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"));
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const lab = await openProxy(t);
  const body = Buffer.alloc(40 * 1024 * 1024);
  const client = await raw(lab, `PUT http://127.0.0.1:${(server.address() as AddressInfo).port}/x HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n`);
  await new Promise<void>((resolve) => client.socket.write(body, () => resolve()));
  assert.match(await client.until(/\r\n\r\nno/), /^HTTP\/1\.1 401 /);
  client.socket.destroy();
});

test("a server that changes to another protocol unasked is a server that failed", async (t) => {
  const server = createServer((socket) => socket.on("error", () => {}).on("data", () => socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")));
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const lab = await openProxy(t);
  const { text } = await curl(lab, "--max-time", "10", `http://127.0.0.1:${(server.address() as AddressInfo).port}/x`);
  assert.match(text, /^HTTP\/1\.1 502 [^]*another protocol/);
});

test("a request that comes back to where it was is ended, and so is one that makes no sense", async (t) => {
  const lab = await openProxy(t);
  const first = await curl(lab, `http://127.0.0.1:${lab.port}/healthz`);
  const pseudonym = /Via: 1\.1 (\S+)/.exec(first.text)?.[1] ?? "";
  assert.match((await curl(lab, "-H", `Via: 1.1 ${pseudonym}`, "http://a.test/")).text, /^HTTP\/1\.1 508 /);
  for (const line of ["GET ftp://a.test/ HTTP/1.1", "GET http:///x HTTP/1.1", "CONNECT a.test HTTP/1.1", "CONNECT a.test:0 HTTP/1.1", "CONNECT a@b:1 HTTP/1.1"]) {
    const client = await raw(lab, `${line}\r\nHost: x\r\n\r\n`);
    assert.match(await client.until(/\r\n\r\n/), /^HTTP\/1\.1 400 /, line);
  }
  assert.match((await curl(lab, "http://no-such-host.invalid/")).text, /^HTTP\/1\.1 502 [^]*cannot find the host/);
  assert.match((await curl(lab, "https://no-such-host.invalid/")).text, /^HTTP\/1\.1 502 /);
  assert.match(JSON.stringify(lab.lines.at(-1)), /"kind":"tunnel".*"HOST_UNRESOLVABLE"/);
  assert.match((await curl(lab, "http://127.0.0.1:9/")).text, /^HTTP\/1\.1 502 /);
});

test("a proxy behind this one is asked for all but what it is not for", async (t) => {
  const authority = new OriginAuthority(t);
  const plain = await serveOrigin(t, echo);
  const secure = await authority.serve(t, echo);
  const behind = await serveProxy(t);
  const host = `origin.test:${secure.port}`;
  const lab = await openProxy(t, {
    config: { interceptedHosts: [host] },
    trust: { pem: authority.pem, origins: [`https://${host}`] },
    proxies: { httpUrl: behind.url, httpsUrl: behind.url, except: "spared.test" },
  });
  assert.match((await curl(lab, `http://origin.test:${plain.port}/a`)).text, /GET \/a 0 /);
  assert.match((await curl(lab, "--cacert", lab.caFile, `https://${host}/b`)).text, /GET \/b 0 /);
  assert.match((await curl(lab, "--cacert", authority.file, `https://tunnel.test:${secure.port}/c`)).text, /GET \/c 0 /);
  const me = `Basic ${btoa("me:pw")}`;
  assert.deepEqual(behind.asked, [`GET http://origin.test:${plain.port}/a ${me}`, `CONNECT ${host} ${me}`, `CONNECT tunnel.test:${secure.port} ${me}`]);
  assert.match((await curl(lab, `http://spared.test:${plain.port}/`)).text, /^HTTP\/1\.1 502 [^]*cannot find the host/);
  assert.match((await curl(lab, `${plain.url}/here`)).text, /GET \/here 0 /);
  assert.equal(behind.asked.length, 3);
  const refusing = await serveProxy(t, { refuse: 407 });
  const shut = await openProxy(t, { proxies: { httpUrl: refusing.url, httpsUrl: refusing.url, except: "" } });
  assert.match((await curl(shut, `https://origin.test/`)).text, /^HTTP\/1\.1 502 /);
  assert.match(JSON.stringify(shut.lines.at(-1)), /the proxy .* wants credentials/);
  assert.match((await curl(shut, `http://origin.test/`)).text, /^HTTP\/1\.1 502 [^]*the proxy .* wants credentials/);
  assert.doesNotMatch(JSON.stringify([lab.lines, shut.lines]), /me:pw|bWU6cHc/);
});

test("clients that hang up anywhere leave nothing open, and the next one is served", async (t) => {
  const authority = new OriginAuthority(t);
  const slow: RequestListener = (request, response) => {
    request.on("error", () => {}).resume();
    response.write(Buffer.alloc(100_000));
  };
  const plain = await serveOrigin(t, slow);
  const secure = await authority.serve(t, slow);
  for (const { server } of [plain, secure]) server.on("upgrade", (_, socket) => void socket.on("error", () => {}).on("end", () => socket.end()).resume().write("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"));
  const lab = await openProxy(t, { config: { interceptedHosts: [secure.host] }, trust: { pem: authority.pem, origins: [secure.url] } });
  const chunked = "Host: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n";
  const messages = [
    `GET ${plain.url}/ HTTP/1.1\r\nHost: x\r\n\r\n`, `PUT ${plain.url}/ HTTP/1.1\r\n${chunked}`, `CONNECT ${plain.host} HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n`,
    `CONNECT ${secure.host} HTTP/1.1\r\nHost: x\r\n\r\nno TLS at all`, `GET ${plain.url}/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n`, "GET http://",
  ];
  const clients: RawClient[] = [];
  for (let round = 0; round < 10; round++) for (const message of messages) clients.push(await raw(lab, message));
  for (let round = 0; round < 10; round++) clients.push(await rawTls(lab, secure.host, round % 2 === 0 ? "GET / HTTP/1.1\r\nHost: x\r\n\r\n" : `PUT / HTTP/1.1\r\n${chunked}`));
  for (const [index, { socket }] of clients.entries()) {
    if (index % 3 === 0 && !(socket instanceof TLSSocket)) socket.resetAndDestroy();
    else if (index % 3 === 1) socket.destroy();
    else setTimeout(() => socket.destroy(), index);
  }
  const openCount = async (): Promise<number> => {
    const metric = await lab.proxy.metrics.registry.getSingleMetric("dragonfly_proxy_requests_in_flight")?.get();
    return metric?.values.reduce((sum, { value }) => sum + value, 0) ?? Number.NaN;
  };
  let open = Number.NaN;
  await eventually(() => {
    void openCount().then((count) => (open = count));
    return open === 0;
  }, "the end of all requests");
  assert.doesNotMatch(await lab.proxy.metrics.registry.metrics(), /requests_total\{kind="(?!refused)\w+",result="error"\}/);
  assert.equal((await fetchAnswer(lab.port, "/healthz")).status, 200);
  // A connection that was still being opened is kept for the next request, for a while.
  await lab.close();
  for (const { server } of [plain, secure]) {
    let connectionCount = Number.NaN;
    await eventually(() => {
      server.getConnections((_, count) => (connectionCount = count));
      return connectionCount === 0;
    }, "the end of all connections to servers");
  }
});

test("a client that hangs up is hung up for at the server, before its answer and within it", { timeout: 10_000 }, async (t) => {
  const gone = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const origin = await serveOrigin(t, (request, response) => {
    response.once("close", () => gone[request.url === "/begun" ? 1 : 0]?.resolve());
    if (request.url === "/begun") response.write("some");
  });
  const lab = await openProxy(t);
  const waiting = await raw(lab, `GET ${origin.url}/ HTTP/1.1\r\nHost: x\r\n\r\n`);
  const reading = await raw(lab, `GET ${origin.url}/begun HTTP/1.1\r\nHost: x\r\n\r\n`);
  await reading.until(/some/);
  await eventually(() => origin.seen.length === 2, "both requests");
  for (const { socket } of [waiting, reading]) socket.destroy();
  await Promise.all(gone.map(({ promise }) => promise));
});

test("what a client says before his server has changed to another protocol waits for it, in its order", { timeout: 10_000 }, async (t) => {
  const { promise: changed, resolve: change } = Promise.withResolvers<void>();
  const asked = Promise.withResolvers<void>();
  const origin = await serveOrigin(t, echo);
  origin.server.on("upgrade", (_request, socket, head) => {
    asked.resolve();
    socket.on("error", () => {}).unshift(head);
    void changed.then(() => socket.write("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n") && socket.pipe(socket));
  });
  const lab = await openProxy(t);
  const client = await raw(lab, `GET ${origin.url}/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nfirst `);
  await asked.promise;
  client.socket.write("second ");
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => void setImmediate(resolve));
  change();
  client.socket.end("third");
  assert.match(await client.until(/third/), /\r\n\r\nfirst second third$/);
});

test("a request for another protocol that its server does not answer ends with its client, and with the proxy", { timeout: 10_000 }, async (t) => {
  const asked: Socket[] = [];
  const origin = await serveOrigin(t, echo);
  origin.server.on("upgrade", (_request, socket: Socket) => void asked.push(socket.resume().on("error", () => {}).on("end", () => socket.end())));
  const lab = await openProxy(t);
  const message = `GET ${origin.url}/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n`;
  const leaving = await raw(lab, message);
  await eventually(() => asked.length === 1, "the request");
  leaving.socket.destroy();
  await eventually(() => asked[0]?.destroyed === true, "the end of it");
  const waiting = await raw(lab, message);
  await eventually(() => asked.length === 2, "another");
  await lab.close();
  await eventually(() => waiting.socket.destroyed && asked[1]?.destroyed === true, "the end of that");
});

test("a client that asks for TLS and then says nothing is gone after ten seconds", async (t) => {
  const lab = await openProxy(t, { config: { interceptedHosts: ["silent.test"] } });
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const socket = connect(lab.port, "127.0.0.1");
  t.after(() => socket.destroy());
  socket.write("CONNECT silent.test:443 HTTP/1.1\r\nHost: x\r\n\r\n");
  await new Promise((resolve) => void socket.once("data", resolve));
  const ended = new Promise((resolve) => void socket.resume().on("error", () => {}).once("close", resolve));
  t.mock.timers.tick(9_999);
  assert.equal(socket.readyState, "open");
  t.mock.timers.tick(1);
  await ended;
});

test("closing lets an answer inside of TLS end, and no connection that waits for more holds it up", async (t) => {
  const authority = new OriginAuthority(t);
  const gate = Promise.withResolvers<void>();
  const origin = await authority.serve(t, (request, response) => {
    response.write("begun ");
    if (request.url === "/idle") response.end();
    else void gate.promise.then(() => response.end("ended"));
  });
  const lab = await openProxy(t, { config: { interceptedHosts: [origin.host] }, trust: { pem: authority.pem, origins: [origin.url] }, graceMs: 30_000 });
  const idle = await rawTls(lab, origin.host, "GET /idle HTTP/1.1\r\nHost: x\r\n\r\n");
  await idle.until(/0\r\n\r\n$/);
  const busy = await rawTls(lab, origin.host, "GET /busy HTTP/1.1\r\nHost: x\r\n\r\n");
  await busy.until(/begun/);
  const closed = lab.close();
  await eventually(() => idle.socket.destroyed, "the end of the idle connection");
  assert.equal(busy.socket.destroyed, false);
  const startedMs = performance.now();
  gate.resolve();
  assert.match(await busy.until(/ended/), /begun[^]*ended/);
  await closed;
  assert.ok(performance.now() - startedMs < 20_000);
});

test("inside of TLS a client gets no further tunnel, and names no other server", async (t) => {
  const lab = await openProxy(t, { config: { interceptedHosts: ["a.test"] } });
  for (const line of ["CONNECT b.test:443 HTTP/1.1", "GET http://b.test/ HTTP/1.1"]) {
    const client = await rawTls(lab, "a.test:443", `${line}\r\nHost: x\r\n\r\n`);
    assert.match(await client.until(/\r\n\r\n/), /^HTTP\/1\.1 400 /);
  }
  // Under another name it is not that registry's request, nor that of a file listed for the server.
  const files = await openProxy(t, { config: { interceptedHosts: ["a.invalid"], swarmUrls: ["https://a.invalid/**"] } });
  for (const path of [`/v2/a/blobs/sha256:${"0".repeat(64)}`, "/file"]) {
    const client = await rawTls(files, "a.invalid:443", `GET ${path} HTTP/1.1\r\nHost: b.invalid\r\n\r\n`);
    assert.match(await client.until(/\r\n\r\n/), /^HTTP\/1\.1 502 /, path);
  }
  assert.deepEqual(files.opener.opened, []);
});

test("closing lets a tunnel end on which something moves", async (t) => {
  const origin = await serveOrigin(t, (_request, response) => {
    response.write("some");
    finish = () => response.end(" more");
  });
  let finish = (): unknown => undefined;
  const lab = await openProxy(t, { graceMs: 10_000 });
  const client = await raw(lab, `CONNECT ${origin.host} HTTP/1.1\r\nHost: x\r\n\r\n`);
  assert.match(await client.until(/\r\n\r\n/), /^HTTP\/1\.1 200 /);
  client.socket.write("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  await client.until(/some/);
  const closing = lab.close();
  finish();
  assert.match(await client.until(/0\r\n\r\n$/), / more\r\n0\r\n\r\n$/);
  client.socket.end();
  await closing;
});

test("closing cuts tunnels on which nothing moves", async (t) => {
  const origin = await serveOrigin(t, echo);
  const lab = await openProxy(t);
  const client = await raw(lab, `CONNECT ${origin.host} HTTP/1.1\r\nHost: x\r\n\r\n`);
  assert.match(await client.until(/\r\n\r\n/), /^HTTP\/1\.1 200 /);
  await lab.close();
  await eventually(() => client.socket.destroyed, "the end of the tunnel");
});

interface RawClient {
  readonly socket: Socket;
  /** Everything that came, once it matches. */
  until(pattern: RegExp): Promise<string>;
}

/** Begins TLS with what the proxy shows for `host`, and then speaks. */
async function rawTls(lab: ProxyLab, host: string, text: string): Promise<RawClient> {
  const outer = await raw(lab, `CONNECT ${host} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await outer.until(/\r\n\r\n/);
  outer.socket.removeAllListeners("data");
  const servername = host.split(":")[0] ?? "";
  return talk(connectTls({ socket: outer.socket, servername, ca: [readFileSync(lab.caFile, "utf8")] }), text);
}

async function raw(lab: ProxyLab, text: string): Promise<RawClient> {
  return talk(connect(lab.port, "127.0.0.1"), text);
}

function talk(socket: Socket, text: string): RawClient {
  let got = "";
  socket.on("data", (chunk: Buffer) => void (got += chunk.toString("latin1")));
  socket.on("error", () => {});
  socket.write(text);
  return {
    socket,
    until: async (pattern) => {
      await eventually(() => pattern.test(got) || socket.destroyed, `${pattern} in ${got}`);
      return got;
    },
  };
}
