/** Reads that have come to a stop hold buffers: what that leaves to the others. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { test } from "node:test";
import type { OriginBody, OriginInfo, OriginRequest } from "../../origin/origin.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { FakeOrigin, MIB, resolvedTask, seedLab } from "./seed-fixture.test.ts";

/** At `http://stalled/` each answer is one piece and a half; the rest comes once `goOn` is called. */
class StallingOrigin extends FakeOrigin {
  goOn: () => void = () => {};
  stalledCount = 0;
  readonly #gone = new Promise<void>((resolve) => (this.goOn = resolve));

  override async open(request: OriginRequest, range: { startByte: number; endByte: number | undefined }, expected: OriginInfo | undefined): Promise<OriginBody> {
    const opened = await super.open(request, range, expected);
    return request.url.startsWith("http://stalled/") ? { ...opened, body: Readable.from(this.#stalled(opened.body)) } : opened;
  }

  async *#stalled(body: Readable): AsyncGenerator<Buffer> {
    let passedBytes = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      if (passedBytes === 1.5 * MIB) {
        this.stalledCount++;
        await this.#gone;
      }
      passedBytes += chunk.length;
      yield chunk;
    }
  }
}

test("a large file whose origin stands still, with all its streams, holds up no other read", { timeout: 20_000 }, async () => {
  const origin = new StallingOrigin(randomBytes(65 * MIB));
  const lab = seedLab(origin);
  const base = resolvedTask(origin, lab.key);
  const begin = async (taskId: TaskId, url: string) => {
    const { task } = await lab.seeds.open({ ...base, taskId, source: { url, headers: {} }, record: { ...base.record, taskId, pieceLengthBytes: MIB } });
    lab.seeds.grantLease(taskId);
    return task.stored;
  };
  const isSoon = async (condition: () => boolean): Promise<boolean> => {
    for (const endMs = Date.now() + 5_000; !condition() && Date.now() < endMs; ) await new Promise((resolve) => setImmediate(resolve));
    return condition();
  };
  const stalled = await begin("0".repeat(64) as TaskId, "http://stalled/file");
  assert.ok(await isSoon(() => origin.stalledCount > 1));
  const other = await begin("1".repeat(64) as TaskId, "http://other/file");
  assert.ok(await isSoon(() => other.complete), `the pool's ${lab.pool.usedBytes / MIB} of 4 MiB are held`);
  assert.ok(!stalled.complete);
  origin.goOn();
  assert.ok(await isSoon(() => stalled.complete));
  assert.equal(lab.pool.usedBytes, 0);
});
