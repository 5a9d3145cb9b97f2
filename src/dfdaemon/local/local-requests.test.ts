import assert from "node:assert/strict";
import { test } from "node:test";
import { collectGarbage } from "../../base/garbage-fixture.test.ts";
import { LocalRequests } from "./local-requests.ts";

test("of requests that ended within the minute 4096 are remembered, and nothing holds on to the others", async (t) => {
  const requests = new LocalRequests();
  t.after(() => requests.close());
  const refs: WeakRef<object>[] = [];
  for (let i = 0; i < 5_000; i++) {
    const request = requests.begin(`r${i}`);
    refs.push(new WeakRef(request));
    request.ended(undefined);
  }
  // A WeakRef's target stays to the end of the turn in which it was made.
  await new Promise((resolve) => setImmediate(resolve));
  collectGarbage();
  assert.equal(refs.filter((ref) => ref.deref() !== undefined).length, 4_096);
  assert.equal(requests.find("r903"), undefined);
  assert.equal(requests.find("r904")?.status().state, "done");
});
