/** What a request leaves behind for operators: its line of log, its headers, the metrics. */
import assert from "node:assert/strict";
import { request } from "node:http";
import { test } from "node:test";
import { errorCode, eventually, fetchAnswer, openLab, patterned, type Lab } from "./lab.test.ts";

const TAG = "/v2/team/app/manifests/v1";
const ALICE = { headers: { authorization: "Bearer alice" } };

/** An image of one layer, whose path it gives. */
function putImage(lab: Lab, layerBytes = 5000): { readonly blob: string; readonly digest: string } {
  const layer = lab.registry.putBlob("team/app", patterned(layerBytes));
  return { blob: `/v2/team/app/blobs/${layer}`, digest: lab.registry.putManifest("team/app", "v1", { config: { digest: layer }, layers: [] }).digest };
}

async function lineOf(lab: Lab, count: number): Promise<Record<string, unknown>> {
  const lines = (): Record<string, unknown>[] => lab.lines.filter(({ msg }) => msg === "mirror request");
  await eventually(() => lines().length >= count, `line ${count} of log`);
  return lines()[count - 1] ?? {};
}

async function metric(lab: Lab, name: string): Promise<number> {
  const text = await lab.mirror.metrics.registry.metrics();
  return Number(text.split("\n").find((line) => line.startsWith(`${name} `))?.split(" ").at(-1) ?? 0);
}

void test("each way a request can end has its word, in the log and in the metrics", async (t) => {
  const lab = await openLab(t);
  const { blob } = putImage(lab);
  const said: [string, unknown, unknown][] = [];
  const ask = async (path: string, options?: Parameters<Lab["ask"]>[1]): Promise<Record<string, unknown>> => {
    const { status } = await lab.ask(path, options).catch(() => ({ status: 0 }));
    const line = await lineOf(lab, said.length + 1);
    said.push([`${String(line["kind"])} ${status}`, line["status"], line["result"]]);
    return line;
  };
  assert.deepEqual((await ask(TAG))["error"], undefined);
  await ask(blob);
  await ask(TAG);
  const missing = await ask("/v2/team/app/manifests/none");
  assert.deepEqual([missing["repository"], missing["reference"], (missing["error"] as { code: string }).code], ["team/app", "none", "ORIGIN_NOT_FOUND"]);
  await ask(blob, { method: "PUT" });
  lab.opener.behaviour = { chunkBytes: 1000, before: (atByte) => (atByte === 3000 ? Promise.reject(new Error("broken")) : undefined) };
  const broken = await ask(blob);
  assert.equal((broken["error"] as { code: string }).code, "INTERNAL");
  lab.opener.behaviour = {};
  lab.registry.down = true;
  assert.equal((await ask("/v2/team/other/manifests/v1", ALICE))["level"], 40);
  assert.deepEqual(said, [
    ["manifest 200", 200, "miss"], ["blob 200", 200, "miss"], ["manifest 200", 200, "miss"],
    ["manifest 404", 404, "refused"], ["other 405", 405, "refused"], ["blob 0", 200, "error"], ["manifest 502", 502, "error"],
  ]);
  const count = async (kind: string, result: string): Promise<number> => metric(lab, `dragonfly_mirror_requests_total{kind="${kind}",result="${result}"}`);
  assert.deepEqual([await count("manifest", "miss"), await count("manifest", "refused"), await count("manifest", "error"), await count("blob", "error")], [2, 1, 1, 1]);
});

void test("what comes out of the cache is a hit, with its bytes counted to it and to nothing else", async (t) => {
  const lab = await openLab(t);
  const { blob, digest } = putImage(lab);
  await lab.ask(TAG);
  lab.opener.held.set(blob.split("/").at(-1) ?? "", patterned(5000));
  const before = await metric(lab, 'dragonfly_mirror_bytes_total{source="cache"}');
  await lab.ask(blob);
  assert.equal((await lab.ask(`/v2/team/app/manifests/${digest}`)).headers["x-dragonfly-sources"]?.toString().startsWith("cache="), true);
  assert.deepEqual([(await lineOf(lab, 2))["result"], (await lineOf(lab, 3))["result"]], ["hit", "hit"]);
  assert.equal((await lineOf(lab, 2))["cacheBytes"], 5000);
  assert.ok((await metric(lab, 'dragonfly_mirror_bytes_total{source="cache"}')) - before >= 5000);
  assert.equal(await metric(lab, 'dragonfly_mirror_bytes_total{source="origin"}'), 0);
});

void test("a client that hangs up is told from an answer that failed", async (t) => {
  const lab = await openLab(t);
  const { blob } = putImage(lab, 1_000_000);
  let gone = false;
  lab.opener.behaviour = { chunkBytes: 1000, before: async (atByte) => { if (atByte >= 500_000) await eventually(() => gone, "the client hung up"); } };
  const asked = request({ host: "127.0.0.1", port: lab.port, path: `${blob}?ns=reg.test`, agent: false }, (response) => {
    response.once("data", () => response.destroy()).on("error", () => undefined).once("close", () => (gone = true));
  });
  asked.on("error", () => undefined).end();
  const line = await lineOf(lab, 1);
  assert.deepEqual([line["result"], line["error"]], ["aborted", undefined]);
});

void test("the time to the first byte is the body's, in the log, the header and the metric", async (t) => {
  const clock = { nowMs: 0 };
  const lab = await openLab(t, { nowMs: () => clock.nowMs });
  const { blob } = putImage(lab);
  lab.opener.behaviour = { chunkBytes: 1000, before: (atByte) => void (clock.nowMs += atByte === -1 ? 40 : 1000) };
  const answer = await lab.ask(blob);
  // 40 ms until it is open, 1,000 until the first chunk; four more of those until the last.
  assert.equal(answer.headers["server-timing"], "ttfb;dur=1040");
  const line = await lineOf(lab, 1);
  assert.deepEqual([line["ttfbMs"], line["durationMs"]], [1040, 5040]);
  assert.equal(await metric(lab, 'dragonfly_mirror_ttfb_seconds_sum{kind="blob"}'), 1.04);
});

void test("each answer to the question whether a caller may read is counted as what it is", async (t) => {
  const clock = { nowMs: 0 };
  const lab = await openLab(t, { nowMs: () => clock.nowMs, absenceMs: 1000 });
  const { blob } = putImage(lab);
  const outcomes = async (): Promise<Record<string, number>> => {
    const results = ["granted", "asked", "unverified", "refused", "failed"];
    const counts = await Promise.all(results.map((result) => metric(lab, `dragonfly_mirror_access_checks_total{result="${result}"}`)));
    return Object.fromEntries(results.map((result, i) => [result, counts[i] ?? 0]).filter(([, count]) => count !== 0));
  };
  lab.registry.mayRead = (authorization) => authorization === "Bearer alice";
  await lab.ask(blob, ALICE);
  assert.deepEqual(await outcomes(), { asked: 1 });
  await lab.ask(blob, ALICE);
  assert.deepEqual(await outcomes(), { asked: 1, granted: 1 });
  await lab.ask(blob, { headers: { authorization: "Bearer bob" } });
  assert.deepEqual(await outcomes(), { asked: 1, granted: 1, refused: 1 });
  const absent = `/v2/team/app/blobs/sha256:${"0".repeat(64)}`;
  for (const refused of [2, 3]) {
    // oxlint-disable-next-line no-await-in-loop -- the second is told what the first was
    assert.equal(errorCode(await lab.ask(absent, ALICE)), "BLOB_UNKNOWN");
    // oxlint-disable-next-line no-await-in-loop -- as above
    assert.deepEqual(await outcomes(), { asked: 1, granted: 1, refused });
  }
  lab.registry.down = true;
  await lab.ask(blob, { headers: { authorization: "Bearer bob" } });
  assert.deepEqual(await outcomes(), { asked: 1, granted: 1, refused: 3, failed: 1 });
  await lab.ask(blob);
  assert.deepEqual(await outcomes(), { asked: 1, granted: 1, refused: 3, failed: 1, unverified: 1 });
});

void test("HEAD of a blob asks what it is, and opens and reads none of it", async (t) => {
  const lab = await openLab(t);
  const { blob } = putImage(lab);
  const head = await fetchAnswer(lab.port, `${blob}?ns=reg.test`, "HEAD");
  assert.deepEqual([head.status, head.headers["content-length"]], [200, "5000"]);
  assert.deepEqual([lab.opener.opened.length, lab.opener.readBytes], [0, 0]);
});
