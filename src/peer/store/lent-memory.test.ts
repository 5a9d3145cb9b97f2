import { test } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { Worker } from "node:worker_threads";

/** What a thread does that sees to the memory it is lent, many times over. */
const SOURCE = `
  const { parentPort, workerData } = require("node:worker_threads");
  import(workerData).then(({ LentMemory }) => {
    for (let at = 0; at < 50; at++) new LentMemory().used(32 * 1024 * 1024);
    parentPort.postMessage("well");
  });
`;

test("threads that start at the same time do not take the way to the collector from each other", async () => {
  const url = new URL("./lent-memory.ts", import.meta.url).href;
  const workers = Array.from({ length: 4 }, () => new Worker(SOURCE, { eval: true, workerData: url }));
  const said = await Promise.all(workers.map(async (worker) => (await once(worker, "message")) as unknown[]));
  assert.deepEqual(said.flat(), ["well", "well", "well", "well"]);
  await Promise.all(workers.map((worker) => worker.terminate()));
});
