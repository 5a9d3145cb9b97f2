import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { test } from "node:test";
import fastify from "fastify";
import { selfTestRepository } from "../../protocol/self-test.ts";
import { addSelfTestRegistry } from "./self-test-registry.ts";

const app = fastify();
addSelfTestRegistry(app);
const REPOSITORY = selfTestRepository("amd64", "abc123");

async function get(path: string): Promise<{ readonly status: number; readonly type: string; readonly digest: string; readonly body: Buffer }> {
  const answer = await app.inject({ method: "GET", url: `/self-test/v2/${path}` });
  const { "content-type": type, "docker-content-digest": digest } = answer.headers;
  return { status: answer.statusCode, type: String(type), digest: String(digest), body: answer.rawPayload };
}

const sha256 = (bytes: Buffer): string => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

test("an image is made up for each repository: manifest by tag and digest, blobs that are what they are named", async () => {
  const byTag = await get(`${REPOSITORY}/manifests/latest`);
  assert.equal(byTag.status, 200);
  assert.equal(byTag.digest, sha256(byTag.body));
  assert.deepEqual((await get(`${REPOSITORY}/manifests/${byTag.digest}`)).body, byTag.body);
  const manifest = JSON.parse(byTag.body.toString()) as {
    mediaType: string;
    config: { digest: string };
    layers: { digest: string; size: number }[];
  };
  assert.equal(byTag.type, manifest.mediaType);
  const [layer] = manifest.layers;
  for (const digest of [manifest.config.digest, layer?.digest ?? ""]) assert.equal(sha256((await get(`${REPOSITORY}/blobs/${digest}`)).body), digest);
  const archive = (await get(`${REPOSITORY}/blobs/${layer?.digest}`)).body;
  assert.equal(archive.length, layer?.size);
  const listed = spawnSync("tar", ["-tvf", "-"], { input: archive, encoding: "utf8" });
  assert.match(listed.stdout, /^-rw-r--r-- 0\/0 +1048576 .* self-test\n$/);
  assert.equal(listed.stderr, "");
});

test("another nonce is another image; the same is the same", async () => {
  const [first, again, other] = await Promise.all(
    ["n1", "n1", "n2"].map((nonce) => get(`${selfTestRepository("arm64", nonce)}/manifests/latest`)),
  );
  assert.equal(first?.digest, again?.digest);
  assert.notEqual(first?.digest, other?.digest);
});

test("HEAD has the length; everything else is not there", async () => {
  const head = await app.inject({ method: "HEAD", url: `/self-test/v2/${REPOSITORY}/manifests/latest` });
  assert.ok(Number(head.headers["content-length"]) > 100);
  assert.equal((await get("")).status, 200);
  const unknown = `sha256:${"0".repeat(64)}`;
  for (const path of [`${REPOSITORY}/blobs/${unknown}`, `${REPOSITORY}/manifests/${unknown}`, "self-test/amd64/UPPER/manifests/v1", "library/x/manifests/v1", `${REPOSITORY}/tags/list`]) {
    assert.equal((await get(path)).status, 404, path);
  }
});

test("however many strangers ask, twenty layers are made up in a second; who would wait longer than ten is told so", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let nowMs = 0;
  const flooded = fastify();
  addSelfTestRegistry(flooded, () => nowMs);
  await flooded.ready();
  const statuses: number[] = [];
  const ask = (path: string): Promise<unknown> => flooded.inject({ method: "HEAD", url: `/self-test/v2/${path}` }).then(({ statusCode }) => statuses.push(statusCode));
  const turns = async (): Promise<void> => {
    for (let n = 0; n < 50; n++) await new Promise((resolve) => setImmediate(resolve));
  };
  const asked = Array.from({ length: 300 }, (_, n) => ask(`${selfTestRepository("amd64", `n${n}`)}/manifests/latest`));
  await turns();
  const told = (status: number): number => statuses.filter((each) => each === status).length;
  assert.ok(told(200) < 5, `${told(200)} at once`);
  assert.ok(told(503) >= 95, `${told(503)} refused`);
  for (let tick = 0; tick < 100; tick++) {
    nowMs += 10;
    t.mock.timers.tick(10);
    // oxlint-disable-next-line no-await-in-loop -- virtual time
    await turns();
  }
  assert.ok(told(200) >= 19 && told(200) <= 25, `${told(200)} within a second`);
  const before = told(200);
  await ask(`${selfTestRepository("amd64", "n0")}/manifests/latest`);
  assert.equal(told(200), before + 1, "what is known of an image costs nothing");
  await flooded.close();
  await Promise.all(asked);
});
