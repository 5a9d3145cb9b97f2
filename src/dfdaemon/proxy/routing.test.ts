import assert from "node:assert/strict";
import type { RequestListener } from "node:http";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import { eventually, OCI_MANIFEST, patterned, sha256, LabRegistry } from "../mirror/lab.test.ts";
import { curl, openProxy, OriginAuthority, serveOrigin } from "./lab.test.ts";

/** A registry and other things at one host: the lab's own files, and what else comes is told. */
function serving(registry: LabRegistry): RequestListener {
  return (request, response) => {
    if (request.method === "GET" || request.method === "HEAD") return registry.answer(request, response);
    request.resume().on("end", () => response.writeHead(202).end(`pushed ${request.method} ${request.url}\n`));
  };
}

test("blobs and manifests of a registry are the mirror's, in the clear and inside of TLS; all else goes to the registry", async (t) => {
  const authority = new OriginAuthority(t);
  const registry = new LabRegistry();
  const plain = await serveOrigin(t, serving(registry));
  const secure = await authority.serve(t, serving(registry));
  const lab = await openProxy(t, { config: { interceptedHosts: [secure.host] }, trust: { pem: authority.pem, origins: [secure.url] }, registry });
  const bytes = patterned(300_000);
  const digest = registry.putBlob("my.org/app", bytes);
  const manifest = registry.putManifest("my.org/app", "1", { mediaType: OCI_MANIFEST, layers: [{ digest }] });
  for (const origin of [plain, secure]) {
    lab.opener.opened.length = 0;
    const blob = await curl(lab, "--cacert", lab.caFile, "-H", "Authorization: Bearer mine", `${origin.url}/v2/my.org/app/blobs/${digest}`);
    assert.ok(blob.text.endsWith(bytes.toString("latin1")));
    assert.match(blob.text, /\r\nx-dragonfly-task-id: /i);
    assert.match(blob.text, /\r\ndocker-content-digest: sha256:/i);
    // A repository whose first part looks like a host stays one.
    assert.deepEqual(lab.opener.opened.map(({ url }) => url), [`${origin.url}/v2/my.org/app/blobs/${digest}`]);
    assert.equal(lab.opener.opened[0]?.headers["authorization"], "Bearer mine");
    const range = await curl(lab, "--cacert", lab.caFile, "-r", "10-19", `${origin.url}/v2/my.org/app/blobs/${digest}`);
    assert.match(range.text, /HTTP\/1\.1 206 [^]*content-range: bytes 10-19\/300000/i);

    const accept = ["-H", `Accept: ${OCI_MANIFEST}, */*`];
    const byTag = await curl(lab, "--cacert", lab.caFile, ...accept, `${origin.url}/v2/my.org/app/manifests/1`);
    assert.ok(byTag.text.endsWith(manifest.bytes.toString()));
    assert.match(byTag.text, /x-dragonfly-sources/i);

    lab.opener.opened.length = 0;
    // What names no manifest type may be any server's answer; tags, pings and pushes are the registry's own.
    for (const [path, ...more] of [["/v2/my.org/app/manifests/1"], ["/v2/"], ["/v2/my.org/app/tags/list"], [`/v2/my.org/app/blobs/${digest}?ns=x.test`], ["/other"]] as const) {
      assert.doesNotMatch((await curl(lab, "--cacert", lab.caFile, ...more, `${origin.url}${path}`)).text, /x-dragonfly|oci-namespace/i, path);
    }
    const push = await curl(lab, "--cacert", lab.caFile, "-X", "POST", "--data", "x", `${origin.url}/v2/my.org/app/blobs/uploads/`);
    assert.match(push.text, /pushed POST \/v2\/my\.org\/app\/blobs\/uploads\/\n$/);
    assert.equal(lab.opener.opened.length, 0);
  }
});

test("who has no right at the registry gets its refusal, also for what this host holds, whatever another server grants him", async (t) => {
  const authority = new OriginAuthority(t);
  const registry = new LabRegistry();
  const secure = await authority.serve(t, serving(registry));
  // In the clear somebody else answers, and grants everything.
  const impostor = await serveOrigin(t, (_, response) => void response.end());
  const lab = await openProxy(t, { config: { interceptedHosts: [secure.host] }, trust: { pem: authority.pem, origins: [secure.url] }, registry });
  const bytes = Buffer.from("private");
  const digest = registry.putBlob("team/app", bytes);
  registry.mayRead = (authorization) => authorization === "Bearer right";
  registry.challenge = 'Basic realm="team"';
  const path = `/v2/team/app/blobs/${digest}`;
  const of = (url: string, ...more: string[]): ReturnType<typeof curl> => curl(lab, "--cacert", lab.caFile, ...more, `${url}${path}`);
  assert.match((await of(secure.url, "-H", "Authorization: Bearer right")).text, /private$/);
  lab.opener.held.set(digest, bytes);
  await of(impostor.url);
  const refused = await of(secure.url);
  // The challenge is the registry's own, so that the engine can answer it.
  assert.match(refused.text, /HTTP\/1\.1 401 [^]*www-authenticate: Basic realm="team"/i);
  assert.doesNotMatch(refused.text, /private/);
  assert.doesNotMatch((await of(secure.url, "-H", "Authorization: Bearer wrong")).text, /private/);
});

test("a file listed by URL comes through the swarm, with the caller's fields as part of what it is", async (t) => {
  const lab = await openProxy(t, { config: { swarmUrls: ["http://files.test/pool/**"] } });
  const bytes = patterned(200_000);
  lab.registry.files.set("/pool/a.deb", { bytes, contentType: "application/vnd.debian.binary-package" });
  lab.opener.behaviour = { headers: { etag: '"v1"', "last-modified": "Mon, 02 Nov 2026 10:00:00 GMT", "x-kept": "1" } };
  const fields = ["-H", "Authorization: Bearer planted", "-H", "X-Tenant: a", "-H", "X-Tenant: b", "-H", "Cookie: c=1", "-H", "Cookie: d=2", "--proxy-user", "me:planted"];
  const answer = await curl(lab, ...fields, "http://files.test/pool/a.deb?sig=planted");
  assert.match(answer.text, /^HTTP\/1\.1 200 OK\r\n/);
  assert.match(answer.text, /\r\netag: "v1"\r\n[^]*x-kept: 1\r\n[^]*content-type: application\/vnd\.debian/i);
  assert.match(answer.text, /\r\ncontent-length: 200000\r\n/i);
  assert.ok(answer.text.endsWith(bytes.toString("latin1")));
  const [source] = lab.opener.opened;
  assert.equal(source?.url, "http://files.test/pool/a.deb?sig=planted");
  const { "user-agent": _, ...headers } = source?.headers ?? {};
  assert.deepEqual({ ...headers }, { accept: "*/*", authorization: "Bearer planted", "x-tenant": "a, b", cookie: "c=1; d=2" });
  assert.doesNotMatch(JSON.stringify(lab.lines), /planted/);

  const part = async (...options: string[]): Promise<string> => (await curl(lab, ...options, "http://files.test/pool/a.deb")).text;
  assert.match(await part("-r", "100-199"), /^HTTP\/1\.1 206 [^]*content-range: bytes 100-199\/200000\r\n/i);
  assert.match(await part("-r", "900000-"), /^HTTP\/1\.1 416 [^]*content-range: bytes \*\/200000\r\n/i);
  assert.match(await part("-r", "0-9", "-H", 'If-Range: "v1"'), /^HTTP\/1\.1 206 /);
  assert.match(await part("-r", "0-9", "-H", 'If-Range: "v2"'), /^HTTP\/1\.1 200 /);
  assert.match(await part("-r", "0-9,20-29"), /^HTTP\/1\.1 200 /);
  // A weak one vouches for no byte.
  lab.opener.behaviour = { headers: { etag: 'W/"v1"' } };
  assert.match(await part("-r", "0-9", "-H", 'If-Range: W/"v1"'), /^HTTP\/1\.1 200 /);
  await eventually(() => lab.opener.openCount === 0, "the end of all contents");
});

test("what only the origin can judge goes to the origin, and so does what the swarm could not open", async (t) => {
  const origin = await serveOrigin(t, (request, response) => {
    response.writeHead(request.headers["if-none-match"] === undefined ? 403 : 304, { "x-own": "1" }).end(request.method === "HEAD" ? "" : "own words\n");
  });
  const lab = await openProxy(t, { config: { swarmUrls: [`${origin.url}/**`] } });
  const url = `${origin.url}/f`;
  assert.match((await curl(lab, "-H", 'If-None-Match: "x"', url)).text, /^HTTP\/1\.1 304 /);
  assert.match((await curl(lab, "-I", url)).text, /^HTTP\/1\.1 403 /);
  assert.match((await curl(lab, "-X", "POST", url)).text, /^HTTP\/1\.1 403 /);
  assert.equal(lab.opener.opened.length, 0);
  lab.opener.open = () => Promise.reject(new AppError("ORIGIN_FORBIDDEN", "no", { details: { status: 403 } }));
  assert.match((await curl(lab, url)).text, /^HTTP\/1\.1 403 Forbidden\r\nx-own: 1\r\n[^]*own words/);
  lab.opener.open = () => Promise.reject(new AppError("SUPERNODE_UNREACHABLE", "no"));
  assert.match((await curl(lab, url)).text, /own words/);

  const shut = await openProxy(t, { config: { swarmUrls: [`${origin.url}/**`] }, backToSource: false });
  const before = origin.seen.length;
  shut.opener.open = () => Promise.reject(new AppError("SUPERNODE_UNREACHABLE", "no supernode"));
  assert.match((await curl(shut, url)).text, /^HTTP\/1\.1 503 [^]*no supernode/);
  assert.equal(origin.seen.length, before);
});

test("a file that breaks on its way is cut, never ended short", async (t) => {
  const lab = await openProxy(t, { config: { swarmUrls: ["http://files.test/**"] } });
  lab.registry.files.set("/f", { bytes: patterned(300_000), contentType: "x/y" });
  lab.opener.behaviour = { before: (at) => (at > 100_000 ? Promise.reject(new AppError("ORIGIN_CUT", "cut")) : undefined) };
  const cut = await curl(lab, "http://files.test/f");
  assert.ok(cut.exitCode === 18 || cut.exitCode === 56, `exit ${cut.exitCode}`);
  assert.match(JSON.stringify(lab.lines.at(-1)), /"kind":"file".*"ORIGIN_CUT"/);
  // Nor is one that ends before its length without a word.
  lab.opener.behaviour = {};
  const open = lab.opener.open.bind(lab.opener);
  lab.opener.open = async (request, signal) => {
    const content = await open(request, signal);
    return { ...content, read: (range, stop) => content.read({ ...range, endByte: 200_000 }, stop) };
  };
  const short = await curl(lab, "--max-time", "5", "http://files.test/f");
  assert.ok(short.exitCode === 18 || short.exitCode === 56, `exit ${short.exitCode}`);
  await eventually(() => /"kind":"file".*"ORIGIN_LENGTH_WRONG"/.test(JSON.stringify(lab.lines.at(-1))), "the log line");
});

test("many hosts are intercepted, each with its own certificate", async (t) => {
  const lab = await openProxy(t, { config: { interceptedHosts: ["*.many.test:*"] } });
  const digest = sha256("x");
  lab.registry.files.set(`/v2/a/blobs/${digest}`, { bytes: Buffer.from("x"), contentType: "x/y" });
  for (const host of ["a.many.test", "b.many.test:8443"]) {
    // The supernode has its own way to the registry; here nobody can be asked, and the swarm gives what is not this host's.
    const { text } = await curl(lab, "--cacert", lab.caFile, `https://${host}/v2/a/blobs/${digest}`);
    assert.match(text, /HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nx$/);
  }
  assert.deepEqual(lab.opener.opened.map(({ url }) => new URL(url).host), ["a.many.test", "b.many.test:8443"]);
});
