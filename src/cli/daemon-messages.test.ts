import assert from "node:assert/strict";
import { test } from "node:test";
import { type Explanation, explanationSchema } from "../protocol/explanation.ts";
import { readExplanation } from "./daemon-messages.ts";

const whole = {
  boundBy: "neighbours",
  tookMs: 120.5,
  openedMs: 3,
  firstByteMs: 8.25,
  spentMs: { waiting: 1, origin: 2, downlink: 3, seed: 4, neighbours: 100, disk: 5, cpu: 6, reader: 7 },
  bytes: { seedBytes: 1, peerBytes: 2, originBytes: 3, cacheBytes: 4 },
  neighbours: [
    { peerId: "host-a-0123456789abcdef", seed: false, bytes: 7 },
    { peerId: "host-b-0123456789abcdef", seed: true, bytes: 0 },
  ],
  pieces: { offered: 9, declined: 8, late: 7, doubled: 6, rejected: 5 },
  wastedBytes: 11,
};

/** Every way to leave one field out, or to put something else in its place, at any depth. */
function* spoilt(json: unknown): Generator<unknown> {
  if (typeof json !== "object" || json === null) return;
  for (const [name, value] of Object.entries(json)) {
    const copy = (other: unknown): unknown => (Array.isArray(json) ? json.map((each: unknown, at) => (String(at) === name ? other : each)) : { ...json, [name]: other });
    for (const other of [undefined, -1, 0.5, Number.NaN, "?", null, true, [], {}, 2 ** 60]) yield copy(other);
    for (const inner of spoilt(value)) yield copy(inner);
  }
}

test("an explanation is read as the schema has it", () => {
  assert.deepEqual(readExplanation(whole), explanationSchema.parse(whole));
  const young = { ...whole, boundBy: null, firstByteMs: null, neighbours: [] };
  assert.deepEqual(readExplanation(young), explanationSchema.parse(young));
});

test("what the schema would not have is no explanation, whichever field it is in", () => {
  let refused = 0;
  for (const json of [...spoilt(whole), undefined, null, 5, "text", [whole]]) {
    const expected: Explanation | undefined = explanationSchema.safeParse(json).data;
    assert.deepEqual(readExplanation(json), expected, JSON.stringify(json));
    if (expected === undefined) refused++;
  }
  assert.ok(refused > 200, `${refused}`);
});
