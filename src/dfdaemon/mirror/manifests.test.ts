import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import { errorCode, eventually, openLab, OCI_INDEX, OCI_MANIFEST, patterned, sha256, type Lab } from "./lab.test.ts";
import type { Digest } from "../../protocol/ids.ts";

const GRANTS = { grantMs: 300_000, outageGrantMs: 0, tagMs: 0, staleTagMs: 3_600_000 };
const TAG = "/v2/team/app/manifests/v1";

/** An image of one layer under the tag v1 of team/app. */
function putImage(lab: Lab): { digest: Digest; bytes: Buffer; layer: Digest; layerBytes: Buffer } {
  const layerBytes = patterned(1000);
  const layer = lab.registry.putBlob("team/app", layerBytes);
  const config = lab.registry.putBlob("team/app", Buffer.from("{}"));
  const manifest = { schemaVersion: 2, mediaType: OCI_MANIFEST, config: { digest: config }, layers: [{ digest: layer }] };
  return { ...lab.registry.putManifest("team/app", "v1", manifest), layer, layerBytes };
}

/** HEADs by which the upstream was asked for a caller's right. */
function checks(lab: Lab): number {
  return lab.registry.requests.filter(({ method }) => method === "HEAD").length;
}

void test("M5: HEAD and GET of a manifest say the same, by tag and by digest", async (t) => {
  const lab = await openLab(t);
  const { digest, bytes } = putImage(lab);
  for (const path of [TAG, `/v2/team/app/manifests/${digest}`]) {
    const get = await lab.ask(path);
    const head = await lab.ask(path, { method: "HEAD" });
    assert.equal(get.status, 200);
    assert.deepEqual(get.body, bytes);
    assert.equal(head.body.length, 0);
    for (const name of ["content-length", "content-type", "docker-content-digest", "etag"]) {
      assert.equal(head.headers[name], get.headers[name], name);
    }
    assert.equal(get.headers["docker-content-digest"], digest);
    assert.equal(get.headers["content-length"], String(bytes.length));
  }
});

void test("M6: the registry's bytes and content type are kept exactly", async (t) => {
  const lab = await openLab(t);
  const contentType = "application/vnd.docker.distribution.manifest.v2+json";
  const text = '{ "schemaVersion":2,\r\n\t"config":{}, "layers":[]}\n';
  lab.registry.putManifest("team/app", "v1", text, contentType);
  for (const path of [TAG, `/v2/team/app/manifests/${sha256(text)}`]) {
    const answer = await lab.ask(path);
    assert.equal(answer.body.toString(), text);
    assert.equal(answer.headers["content-type"], contentType);
  }
});

void test("M6: a manifest without a content type gets its own", async (t) => {
  const lab = await openLab(t);
  putImage(lab);
  lab.opener.behaviour = { contentType: undefined };
  assert.equal((await lab.ask(TAG)).headers["content-type"], OCI_MANIFEST);
});

void test("M4: Range: bytes=0- on a manifest is answered with all of it", async (t) => {
  const lab = await openLab(t);
  const { bytes } = putImage(lab);
  const answer = await lab.ask(TAG, { headers: { range: "bytes=0-" } });
  assert.equal(answer.status, 206);
  assert.equal(answer.headers["content-range"], `bytes 0-${bytes.length - 1}/${bytes.length}`);
  assert.deepEqual(answer.body, bytes);
  assert.deepEqual((await lab.ask(TAG, { headers: { range: "bytes=5-9" } })).body, bytes.subarray(5, 10));
  const beyond = await lab.ask(TAG, { headers: { range: `bytes=${bytes.length}-` } });
  assert.deepEqual([beyond.status, beyond.headers["content-range"], errorCode(beyond)], [416, `bytes */${bytes.length}`, "RANGE_INVALID"]);
});

void test("M11: whatever the client accepts, the upstream is asked for all six types, and one answer serves all", async (t) => {
  const lab = await openLab(t);
  const { digest } = putImage(lab);
  for (const accept of ["application/json", OCI_MANIFEST, `*/*, ${OCI_INDEX}`]) {
    assert.equal((await lab.ask(TAG, { headers: { accept } })).headers["docker-content-digest"], digest);
    assert.equal((await lab.ask(`/v2/team/app/manifests/${digest}`, { headers: { accept } })).status, 200);
  }
  const accepts = new Set(lab.opener.opened.map(({ headers }) => headers["accept"]));
  assert.equal(accepts.size, 1);
  assert.equal([...accepts][0]?.split(", ").length, 7);
  assert.equal(lab.opener.opened.length, 3, "by digest all came from memory");
});

void test("a tag is checked upstream each time; its change is seen at once", async (t) => {
  const lab = await openLab(t);
  const first = putImage(lab).digest;
  assert.equal((await lab.ask(TAG)).headers["docker-content-digest"], first);
  const second = lab.registry.putManifest("team/app", "v1", { config: {}, layers: [] }).digest;
  assert.equal((await lab.ask(TAG)).headers["docker-content-digest"], second);
  assert.equal((await lab.ask(`/v2/team/app/manifests/${first}`)).status, 200);
});

void test("M14: with a life of its own a tag's meaning serves those whose grant holds until it is over, and nobody else", async (t) => {
  const clock = { nowMs: 0 };
  const lab = await openLab(t, { grants: { ...GRANTS, tagMs: 1000 }, nowMs: () => clock.nowMs });
  lab.registry.mayRead = (authorization) => authorization !== undefined && authorization !== "Bearer mallory";
  const as = (name: string) => ({ headers: { authorization: `Bearer ${name}` } });
  const first = putImage(lab).digest;
  await lab.ask(TAG, as("alice"));
  clock.nowMs = 900;
  assert.equal((await lab.ask(TAG, as("alice"))).headers["docker-content-digest"], first);
  assert.equal(lab.opener.opened.length, 1);
  assert.equal((await lab.ask(TAG, as("mallory"))).status, 401);
  clock.nowMs = 1000;
  const second = lab.registry.putManifest("team/app", "v1", { config: {}, layers: [] }).digest;
  assert.equal((await lab.ask(TAG, as("alice"))).headers["docker-content-digest"], second);
});

void test("with the registry down a tag's last meaning is served to those whose grant holds, with its age and a line of log", async (t) => {
  const clock = { nowMs: 0 };
  const lab = await openLab(t, { grants: { ...GRANTS, staleTagMs: 200_000 }, nowMs: () => clock.nowMs });
  const { digest, bytes } = putImage(lab);
  lab.registry.mayRead = (authorization) => authorization === "Bearer alice" || authorization === "Bearer alice-too";
  const as = (name: string) => ({ headers: { authorization: `Bearer ${name}` } });
  await lab.ask(TAG, as("alice"));
  lab.registry.down = true;
  clock.nowMs = 90_000;
  const stale = await lab.ask(TAG, as("alice"));
  assert.equal(stale.status, 200);
  assert.deepEqual(stale.body, bytes);
  assert.equal(stale.headers.age, "90");
  assert.match(String(stale.headers["warning"]), /^110 /);
  const line = lab.lines.find(({ msg }) => msg === "the registry cannot be asked: what the tag last meant is served");
  assert.deepEqual([line?.["repository"], line?.["tag"], line?.["digest"], line?.["ageS"]], ["team/app", "v1", digest, 90]);
  for (const other of ["alice-too", "mallory"]) assert.equal((await lab.ask(TAG, as(other))).status, 502);
  assert.equal((await lab.ask(TAG)).status, 502);
  // Neither what is stale, nor what the supernode gives as such, is the registry's word: the grant ends when it would have.
  clock.nowMs = 200_000;
  assert.equal((await lab.ask(TAG, as("alice"))).status, 502, "too old");
  lab.registry.down = false;
  lab.opener.behaviour = { headers: { warning: '110 - "Response is Stale"', age: "200" } };
  assert.equal((await lab.ask(TAG, as("alice"))).headers.age, "200");
  clock.nowMs = 300_000;
  lab.registry.mayRead = () => false;
  assert.equal((await lab.ask(`/v2/team/app/manifests/${digest}`, as("alice"))).status, 401);
});

void test("a tag that the registry has no more is not served as what it meant, when the registry is away after that", async (t) => {
  const lab = await openLab(t, { grants: { ...GRANTS, staleTagMs: 200_000 }, nowMs: () => 0 });
  putImage(lab);
  const alice = { headers: { authorization: "Bearer alice" } };
  assert.equal((await lab.ask(TAG, alice)).status, 200);
  const files = new Map(lab.registry.files);
  lab.registry.files.delete(TAG.split("?")[0] ?? "");
  assert.equal((await lab.ask(TAG, alice)).status, 404);
  lab.registry.down = true;
  assert.equal((await lab.ask(TAG, alice)).status, 502);
  // Once it is there again it means something again.
  lab.registry.down = false;
  for (const [path, file] of files) lab.registry.files.set(path, file);
  assert.equal((await lab.ask(TAG, alice)).status, 200);
  lab.registry.down = true;
  assert.equal((await lab.ask(TAG, alice)).headers.age, "0");
});

void test("M14: a grant is not renewed by what comes out of the cache", async (t) => {
  const clock = { nowMs: 0 };
  const lab = await openLab(t, { grants: { ...GRANTS, grantMs: 1000 }, nowMs: () => clock.nowMs });
  const { digest, layer } = putImage(lab);
  await lab.ask(TAG);
  lab.registry.mayRead = () => false;
  for (clock.nowMs = 300; clock.nowMs < 1000; clock.nowMs += 300) {
    assert.equal((await lab.ask(`/v2/team/app/manifests/${digest}`)).status, 200);
  }
  clock.nowMs = 1000;
  assert.equal((await lab.ask(`/v2/team/app/manifests/${digest}`)).status, 401);
  assert.equal((await lab.ask(`/v2/team/app/blobs/${layer}`)).status, 401);
});

void test("requests for the same tag at the same moment are one question, though the first client hangs up", async (t) => {
  const lab = await openLab(t);
  const { digest } = putImage(lab);
  const gate = Promise.withResolvers<void>();
  lab.opener.behaviour = { before: (at) => (at === -1 ? gate.promise : undefined) };
  const first = connect(lab.port, "127.0.0.1");
  first.write(`GET ${TAG}?ns=reg.test HTTP/1.1\r\nhost: x\r\n\r\n`);
  await eventually(() => lab.opener.opened.length === 1, "the question");
  const answers = Array.from({ length: 10 }, () => lab.ask(TAG));
  while (!(await lab.mirror.metrics.registry.metrics()).includes("dragonfly_mirror_requests_in_flight 11")) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  first.destroy();
  gate.resolve();
  for (const answer of await Promise.all(answers)) assert.equal(answer.headers["docker-content-digest"], digest);
  assert.equal(lab.opener.opened.length, 1);
  assert.equal(lab.opener.openCount, 0);
});

void test("M14: of callers who ask for the same tag at the same moment each gets what the registry says to him", async (t) => {
  const lab = await openLab(t);
  const { digest } = putImage(lab);
  lab.registry.mayRead = (authorization) => authorization === "Bearer alice";
  const gate = Promise.withResolvers<void>();
  lab.opener.behaviour = { before: (at) => (at === -1 ? gate.promise : undefined) };
  const alice = lab.ask(TAG, { headers: { authorization: "Bearer alice" } });
  await eventually(() => lab.opener.opened.length === 1, "her question");
  const others = ["Bearer mallory", ""].map((authorization) => lab.ask(TAG, { headers: { authorization } }));
  await eventually(() => lab.opener.opened.length === 3, "theirs");
  gate.resolve();
  assert.equal((await alice).headers["docker-content-digest"], digest);
  assert.deepEqual((await Promise.all(others)).map(({ status }) => status), [401, 401]);
});

void test("a manifest that is not what its digest, or the registry, says is a 502", async (t) => {
  const lab = await openLab(t);
  const { digest } = putImage(lab);
  const path = `/v2/team/app/manifests/${digest}`;
  lab.registry.files.set(path, { bytes: Buffer.from("{}"), contentType: OCI_MANIFEST });
  assert.equal((await lab.ask(path)).status, 502);
  lab.opener.behaviour = { headers: { "docker-content-digest": sha256("something else") } };
  assert.equal((await lab.ask(TAG)).status, 502);
});

void test("a blob asked for as a manifest is not found; so is what is not there", async (t) => {
  const lab = await openLab(t);
  const blob = patterned(5000);
  const digest = sha256(blob);
  lab.registry.files.set(`/v2/team/app/manifests/${digest}`, { bytes: blob, contentType: "application/octet-stream" });
  for (const reference of [digest, "nothing", sha256("nothing")]) {
    const answer = await lab.ask(`/v2/team/app/manifests/${reference}`);
    assert.equal(answer.status, 404);
    assert.equal(errorCode(answer), "MANIFEST_UNKNOWN");
  }
});

void test("a manifest larger than any client takes is an error, not memory", async (t) => {
  const lab = await openLab(t);
  lab.registry.putManifest("team/app", "v1", `{"layers":[],"config":{},"x":"${"x".repeat(5_000_000)}"}`);
  lab.opener.behaviour = { lengthUnknown: true };
  assert.equal((await lab.ask(TAG)).status, 502);
  assert.ok(lab.opener.readBytes < 4_600_000);
});

void test("what is said of a stale answer's age, and of rate limits, is passed on", async (t) => {
  const lab = await openLab(t);
  putImage(lab);
  const headers = { "x-dragonfly-stale": "90", "ratelimit-remaining": "99;w=21600", "x-other": "1", "docker-content-digest": "md5:x" };
  lab.opener.behaviour = { headers };
  const answer = await lab.ask(TAG);
  assert.equal(answer.headers["x-dragonfly-stale"], "90");
  assert.equal(answer.headers["ratelimit-remaining"], "99;w=21600");
  assert.equal(answer.headers["x-other"], undefined);
});

void test("who got a manifest may have what it names, without another question upstream", async (t) => {
  const lab = await openLab(t);
  const { digest, layer, layerBytes } = putImage(lab);
  const child = { manifests: [{ digest }] };
  lab.registry.putManifest("team/app", "multi", child, OCI_INDEX);
  await lab.ask("/v2/team/app/manifests/multi");
  assert.equal((await lab.ask(`/v2/team/app/manifests/${digest}`)).status, 200);
  assert.deepEqual((await lab.ask(`/v2/team/app/blobs/${layer}`)).body, layerBytes);
  assert.equal(checks(lab), 0);
});

void test("M14: what one caller fetched is not given to another out of a cache, until the registry allows it", async (t) => {
  const lab = await openLab(t);
  const { digest, bytes, layer, layerBytes } = putImage(lab);
  const allowed = new Set(["Bearer alice"]);
  lab.registry.mayRead = (authorization) => allowed.has(authorization ?? "");
  const as = (authorization: string): { headers: Record<string, string> } => ({ headers: { authorization } });
  assert.equal((await lab.ask(TAG, as("Bearer alice"))).status, 200);
  // The layer lies on this host, and the swarm would give it to anyone who asks here.
  lab.opener.held.set(layer, layerBytes);
  const byDigest = `/v2/team/app/manifests/${digest}`;
  const blob = `/v2/team/app/blobs/${layer}`;
  for (const method of ["GET", "HEAD"]) {
    for (const path of [TAG, byDigest, blob]) {
      for (const headers of [{}, as("Bearer bob").headers, { range: "bytes=0-" }]) {
        const answer = await lab.ask(path, { method, headers });
        assert.equal(answer.status, 401, `${method} ${path}`);
        assert.equal(answer.headers["www-authenticate"], lab.registry.challenge);
      }
    }
  }
  assert.deepEqual((await lab.ask(blob, as("Bearer alice"))).body, layerBytes);
  allowed.add("Bearer bob");
  assert.deepEqual((await lab.ask(byDigest, as("Bearer bob"))).body, bytes);
  assert.deepEqual((await lab.ask(blob, as("Bearer bob"))).body, layerBytes);
});

void test("M14: a right to one repository is none to another that lacks the blob", async (t) => {
  const lab = await openLab(t);
  const { layer, layerBytes } = putImage(lab);
  lab.opener.held.set(layer, layerBytes);
  await lab.ask(TAG);
  assert.equal((await lab.ask(`/v2/team/app/blobs/${layer}`)).status, 200);
  assert.equal((await lab.ask(`/v2/public/other/blobs/${layer}`)).status, 404);
});

void test("M14: the registry's word ends after a while, and is asked for again", async (t) => {
  const clock = { nowMs: 0 };
  const lab = await openLab(t, { grants: { ...GRANTS, grantMs: 1000 }, nowMs: () => clock.nowMs });
  const { layer } = putImage(lab);
  await lab.ask(TAG);
  const blob = `/v2/team/app/blobs/${layer}`;
  assert.equal((await lab.ask(blob)).status, 200);
  assert.equal(checks(lab), 0);
  clock.nowMs = 1000;
  lab.registry.mayRead = () => false;
  assert.equal((await lab.ask(blob)).status, 401);
});

void test("M14: with the registry down a manifest in memory is given to nobody whom it did not let in before", async (t) => {
  const lab = await openLab(t);
  const { digest, bytes } = putImage(lab);
  lab.registry.mayRead = (authorization) => authorization === "Bearer alice";
  const alice = { headers: { authorization: "Bearer alice" } };
  const byDigest = `/v2/team/app/manifests/${digest}`;
  assert.equal((await lab.ask(TAG, alice)).status, 200);
  lab.registry.down = true;
  assert.deepEqual((await lab.ask(byDigest, alice)).body, bytes);
  for (const headers of [{}, { authorization: "Bearer bob" }] as const) {
    for (const path of [byDigest, TAG]) {
      // oxlint-disable-next-line no-await-in-loop -- each by itself
      assert.equal((await lab.ask(path, { headers })).status, 502, path);
    }
  }
});

void test("M14: with the registry down a manifest that only lies here is given to nobody who has no grant, by whatever name", async (t) => {
  const lab = await openLab(t);
  const { digest, bytes } = putImage(lab);
  lab.opener.held.set(digest, bytes);
  lab.registry.down = true;
  const refused = await lab.ask(`/v2/team/other/manifests/${digest}`);
  assert.deepEqual([refused.status, errorCode(refused)], [502, "UNAVAILABLE"]);
});

void test("M14: a refusal by tag ends the grant for all that it opened", async (t) => {
  const lab = await openLab(t);
  const { digest, layer } = putImage(lab);
  const alice = { headers: { authorization: "Bearer alice" } };
  lab.registry.mayRead = (authorization) => authorization === "Bearer alice";
  assert.equal((await lab.ask(TAG, alice)).status, 200);
  lab.registry.mayRead = (_authorization, path) => !path.endsWith("/manifests/v1");
  assert.equal((await lab.ask(TAG, alice)).status, 401);
  lab.registry.mayRead = () => false;
  for (const path of [`/v2/team/app/manifests/${digest}`, `/v2/team/app/blobs/${layer}`]) {
    // oxlint-disable-next-line no-await-in-loop -- each by itself
    assert.equal((await lab.ask(path, alice)).status, 401, path);
  }
});

void test("a manifest of more or fewer bytes than the registry said is not believed, nor one that says it is larger than any may be read", async (t) => {
  const lab = await openLab(t);
  putImage(lab);
  const open = lab.opener.open.bind(lab.opener);
  let saidBytes = 3;
  lab.opener.open = async (request, signal) => {
    const content = await open(request, signal);
    return { ...content, info: { ...content.info, lengthBytes: saidBytes } };
  };
  const cut = await lab.ask(TAG);
  assert.equal(cut.status, 502);
  assert.match(cut.body.toString(), /a manifest of 3 bytes ended after \d+/);
  saidBytes = 5000;
  assert.equal((await lab.ask(TAG)).status, 502);
  const readBytes = lab.opener.readBytes;
  saidBytes = 2 ** 30;
  assert.equal((await lab.ask(TAG)).status, 502);
  assert.equal(lab.opener.readBytes, readBytes, "it was read all the same");
});

void test("with the registry down: what was granted goes on, what the swarm vouches for comes, what only lies here does not", async (t) => {
  const lab = await openLab(t);
  const { digest, layer, layerBytes } = putImage(lab);
  await lab.ask(TAG);
  lab.opener.held.set(layer, layerBytes);
  lab.registry.down = true;
  assert.equal((await lab.ask(`/v2/team/app/blobs/${layer}`)).status, 200);
  assert.equal((await lab.ask(`/v2/team/app/manifests/${digest}`)).status, 200);
  // Never granted here, and no registry to ask: the same bytes under another name.
  const unknown = await lab.ask(`/v2/team/secret/blobs/${layer}`);
  assert.equal(unknown.status, 502);
  assert.equal(errorCode(unknown), "UNAVAILABLE");
  // A supernode that answers for the registry.
  lab.opener.held.clear();
  const elsewhere = patterned(77);
  const other = lab.registry.putBlob("team/app", elsewhere);
  lab.registry.read = () => ({ bytes: elsewhere, contentType: "application/octet-stream" });
  assert.deepEqual((await lab.ask(`/v2/team/app/blobs/${other}`)).body, elsewhere);
  const withCredentials = await lab.ask(`/v2/team/secret/blobs/${other}`, { headers: { authorization: "Bearer x" } });
  assert.equal(withCredentials.status, 502);
});

void test("a registry's own warning (OCI 1.1: 299) is no staleness: the tag's word counts", async (t) => {
  const lab = await openLab(t, { grants: { grantMs: 300_000, outageGrantMs: 0, tagMs: 60_000, staleTagMs: 3_600_000 } });
  lab.registry.putManifest("team/app", "v1", { mediaType: OCI_MANIFEST, config: {}, layers: [] });
  lab.opener.behaviour = { headers: { warning: '299 - "this repository is deprecated"' } };
  for (let n = 0; n < 3; n++) assert.equal((await lab.ask("/v2/team/app/manifests/v1")).status, 200);
  assert.equal(lab.opener.opened.length, 1, "within tagMs the tag is not asked for again");
});
